//! The JSON event that a backend gets instead of a form: its fields, their agreement with the headers, and requests
//! without an event. `rewrite` tests its framing.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use twilio_edge_wasm_tests::client::send_bytes;
use twilio_edge_wasm_tests::http2::{Framing, send_h2};
use twilio_edge_wasm_tests::recorder::Seen;
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, Request, fresh_sid};

use crate::suite::{Scenario, Setting, scenarios};

const JSON: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    for route in config.plugin["routes"].as_array_mut().context("routes")? {
        route["body"] = "json".into();
    }
    Ok(())
});

const SHADOW: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    for route in config.plugin["routes"].as_array_mut().context("routes")? {
        route["body"] = "json".into();
        route["mode"] = "shadow".into();
    }
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let json = scenarios![Setting::Own(JSON);
        message_is_forwarded_as_a_json_event,
        statuses_and_other_webhooks_are_forwarded_as_json_events,
        form_in_every_framing_becomes_a_complete_event,
        get_has_no_event,
    ];
    let alone = scenarios![Setting::Own(Plan { sidecar: SidecarPlan::Absent, ..JSON });
        events_without_a_sidecar_contain_the_known_facts,
    ];
    let shadow =
        scenarios![Setting::Own(SHADOW); shadow_mode_forwards_only_proven_webhooks_as_events];
    [json.as_slice(), &alone, &shadow].concat()
}

/// Sends `request`; the one thing the backend got must be an event.
async fn json_event(stack: &Stack, request: &Request) -> Result<(Map<String, Value>, Seen)> {
    let response = stack.send(request).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    let mut seen = stack.backend.wait(&request.case, 1).await?;
    assert_eq!(seen.len(), 1);
    let seen = seen.remove(0);
    Ok((event(&seen)?, seen))
}

/// The event in a request, which must be framed as one.
fn event(seen: &Seen) -> Result<Map<String, Value>> {
    assert_eq!(seen.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(seen.header("content-length"), Some(seen.bytes().len().to_string()));
    ensure!(seen.head.all("transfer-encoding").is_empty());
    Ok(serde_json::from_slice(seen.bytes())?)
}

/// The parameters of `form`, none of which came twice.
fn raw(form: &Form) -> Value {
    form.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

async fn message_is_forwarded_as_a_json_event(stack: &Stack) -> Result<()> {
    let form = Form::inbound("Where is \"my\" order?\n\u{1f600}")
        .set("From", &format!("whatsapp:{}", Form::inbound("").get("From")))
        .set("To", "whatsapp:+14155238886")
        .set("ProfileName", "Zoë")
        .set("NumMedia", "2");
    let (mut event, seen) = json_event(stack, &stack.post(&form).await?).await?;
    let expires = event.remove("window_expires").context("no window")?;
    assert_eq!(seen.trusted().get("window-expires").map(String::as_str), expires.as_str());
    assert_eq!(
        Value::from(event),
        json!({
            "event_type": "twilio_inbound",
            "account_sid": ACCOUNT,
            "message_sid": form.get("MessageSid"),
            "from": form.get("From"),
            "to": "whatsapp:+14155238886",
            "channel": "whatsapp",
            "body": "Where is \"my\" order?\n\u{1f600}",
            "dedupe": "first",
            "key": "current",
            "num_media": 2,
            "suppressed": false,
            "attempt": 1,
            "raw": raw(&form),
        })
    );

    // A repeated parameter is a list of all its values, in order, including empty ones.
    let stop = Form::inbound("STOP").add("Tag", "b").add("Tag", "a").add("Tag", "").add("Tag", "ß");
    let next = Signing { token: NEXT_TOKEN, ..Signing::default() };
    let (event, seen) = json_event(stack, &stack.post_as(&stop, next).await?).await?;
    assert_eq!((&event["opt"], &event["suppressed"]), (&json!("stop"), &json!(true)));
    assert_eq!((&event["key"], &event["channel"]), (&json!("next"), &json!("sms")));
    assert_eq!(event["raw"]["Tag"], json!(["b", "a", "", "ß"]));
    assert_eq!(event["raw"]["Body"], "STOP");
    let headers = seen.trusted();
    assert_eq!((headers["opt"].as_str(), headers["suppressed"].as_str()), ("stop", "true"));
    Ok(())
}

async fn statuses_and_other_webhooks_are_forwarded_as_json_events(stack: &Stack) -> Result<()> {
    let form = Form::status("undelivered").set("ErrorCode", "30003");
    let (event, _) = json_event(stack, &stack.post(&form).await?).await?;
    assert_eq!(
        Value::from(event),
        json!({
            "event_type": "twilio_status",
            "account_sid": ACCOUNT,
            "message_sid": form.get("MessageSid"),
            "from": "+15005550006",
            "to": form.get("To"),
            "channel": "sms",
            "status": "undelivered",
            "error_code": "30003",
            "dedupe": "first",
            "key": "current",
            "attempt": 1,
            "raw": raw(&form),
        })
    );
    let form = Form::other().set("From", "+14155550123");
    let (event, seen) = json_event(stack, &stack.post(&form).await?).await?;
    assert_eq!(event["event_type"], "twilio_other");
    assert_eq!((&event["from"], &event["dedupe"]), (&json!("+14155550123"), &json!("unknown")));
    assert_eq!(event["raw"], raw(&form));
    assert_eq!(seen.trusted()["class"], "other");
    Ok(())
}

/// A form may be shorter or longer than its event, and may arrive in every framing of HTTP bodies.
async fn form_in_every_framing_becomes_a_complete_event(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for (body, is_longer) in [("\u{1}\"".repeat(400), true), ("ß😀€".repeat(200), false)] {
        for way in ["length", "chunks", "trailers", "http2", "http2 length", "http2 trailers"] {
            let form = Form::inbound(&body).set("MessageSid", &fresh_sid("SM"));
            let request = stack.post(&form).await?;
            let small = Framing { frame: 300, ..Framing::default() };
            let response = match way {
                "length" => stack.send(&request).await?,
                "chunks" => send_bytes(edge, &request.chunked(300, b"")).await?,
                "trailers" => send_bytes(edge, &request.chunked(300, b"X-Sum: 1\r\n")).await?,
                "http2" => send_h2(edge, &request, small).await?,
                "http2 length" => {
                    send_h2(edge, &request, Framing { content_length: true, ..small }).await?
                }
                _ => {
                    send_h2(edge, &request, Framing { trailers: &[("x-sum", b"1")], ..small })
                        .await?
                }
            };
            assert_eq!(response.status, 200, "{way}");
            let seen = stack.backend.wait(&request.case, 1).await?;
            let event = event(&seen[0]).context(way)?;
            assert_eq!((event["body"].as_str(), &event["raw"]), (Some(body.as_str()), &raw(&form)));
            assert_eq!(seen[0].bytes().len() > request.body.len(), is_longer, "{way}");
        }
    }
    Ok(())
}

/// Its parameters are in the path, and stay there.
async fn get_has_no_event(stack: &Stack) -> Result<()> {
    let request = stack.get_as(&Form::inbound("GET"), Signing::default()).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    let seen = stack.backend.wait(&request.case, 1).await?;
    assert_eq!((seen[0].head.word(1), seen[0].bytes()), (request.target.as_str(), &b""[..]));
    assert_eq!(seen[0].header("content-type"), None);
    assert_eq!(seen[0].trusted()["dedupe"], "first");
    Ok(())
}

async fn events_without_a_sidecar_contain_the_known_facts(stack: &Stack) -> Result<()> {
    for _ in 0..2 {
        let form = Form::inbound("STOP");
        let (event, _) = json_event(stack, &stack.post(&form).await?).await?;
        assert_eq!(
            Value::from(event),
            json!({
                "event_type": "twilio_inbound",
                "account_sid": ACCOUNT,
                "message_sid": form.get("MessageSid"),
                "from": form.get("From"),
                "to": "+15005550006",
                "channel": "sms",
                "body": "STOP",
                "dedupe": "unknown",
                "key": "current",
                "num_media": 0,
                "raw": raw(&form),
            })
        );
    }
    let body = r#"{"status": "done"}"#;
    let document = stack.json_as("/twilio/other", body, Signing::default()).await?;
    assert_eq!(stack.send(&document).await?.status, 200);
    let seen = stack.backend.wait(&document.case, 1).await?;
    assert_eq!(seen[0].bytes(), body.as_bytes());
    Ok(())
}

async fn shadow_mode_forwards_only_proven_webhooks_as_events(stack: &Stack) -> Result<()> {
    let form = Form::inbound("hello");
    let request = stack.post(&form).await?;
    assert_eq!(json_event(stack, &request).await?.0["dedupe"], "first");
    let copy = request.clone().as_new_case();
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    assert_eq!(json_event(stack, &copy).await?.0["dedupe"], "duplicate");

    let refused = [
        request.clone().without_header("x-twilio-signature"),
        request.clone().without_header("x-twilio-signature").header("X-Twilio-Signature", "bm8="),
        stack.post(&form.clone().without("MessageSid")).await?,
    ];
    for request in refused.map(Request::as_new_case) {
        assert_eq!(stack.send(&request).await?.status, 200);
        let seen = stack.backend.wait(&request.case, 1).await?;
        assert_eq!(seen[0].bytes(), request.body);
        let kind = "application/x-www-form-urlencoded; charset=UTF-8";
        assert_eq!(seen[0].header("content-type").as_deref(), Some(kind));
        assert_eq!(seen[0].header("content-length"), Some(request.body.len().to_string()));
        ensure!(seen[0].trusted().is_empty(), "{:?}", seen[0].trusted());
    }
    Ok(())
}
