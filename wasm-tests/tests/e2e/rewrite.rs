//! The JSON body that replaces a form. With any form and framing the backend reads exactly one request, with the declared
//! length. A proxy sets no length for a changed body, so a wrong length would begin another request.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_demo::BACKEND_CLUSTER;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Connection, send_bytes};
use twilio_edge_wasm_tests::http2::{Framing, send_h2};
use twilio_edge_wasm_tests::recorder::{Answer, Seen};
use twilio_edge_wasm_tests::stack::{PASS_THROUGH, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, Request, fresh_sid};

use crate::disguise::with_forged_headers;
use crate::expect::refused;
use crate::suite::{Scenario, Setting, scenarios};

/// Every form becomes JSON, with one connection to the backend at a time, so that what is left over of one request is the
/// beginning of the next.
const JSON: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    for route in config.plugin["routes"].as_array_mut().context("routes")? {
        route["body"] = "json".into();
    }
    let clusters = config.bootstrap["static_resources"]["clusters"].as_array_mut();
    let backend = clusters.context("clusters")?.iter_mut().find(|it| it["name"] == BACKEND_CLUSTER);
    backend.context("the backend's cluster")?["circuit_breakers"] =
        json!({ "thresholds": [{ "max_connections": 1 }] });
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios![Setting::Own(JSON);
        rewritten_body_hides_no_second_request,
        bodies_other_than_proven_forms_are_not_rewritten,
    ]
    .to_vec()
}

const SMUGGLED: &str = "/app/smuggled";

/// Texts that are shorter as JSON than as a form, and texts that are longer, with a request in each.
fn texts() -> Vec<String> {
    let request = format!("GET {SMUGGLED} HTTP/1.1\r\nHost: backend\r\nX-Case: smuggled\r\n\r\n");
    vec![
        String::new(),
        request.clone(),
        format!("{}{request}", "ß👋".repeat(300)),
        format!("{request}{}", "\u{1}\"\\".repeat(500)),
        format!("{}\r\n0\r\n\r\n{request}", "{}".repeat(2000)),
        format!("{}{request}", "\u{fffd}\u{0}\u{7f}\u{2028}".repeat(200)),
    ]
}

/// Checks that one JSON document with the signed values arrived, framed by its length only.
fn is_whole(seen: &Seen, form: &Form) -> Result<()> {
    assert_eq!(seen.head.all("content-length"), [seen.bytes().len().to_string().as_bytes()]);
    assert_eq!(seen.head.all("content-type"), [b"application/json"]);
    ensure!(seen.head.all("transfer-encoding").is_empty(), "{:?}", seen.head);
    let event: Value = serde_json::from_slice(seen.bytes())?;
    for (name, value) in &form.params {
        assert_eq!(event["raw"][name], json!(value), "{name}");
    }
    assert_eq!(event["account_sid"], ACCOUNT);
    assert_eq!(seen.trusted()["verified"], ACCOUNT);
    Ok(())
}

async fn rewritten_body_hides_no_second_request(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let (mut sent, mut kept) = (0, Connection::open(edge).await?);
    for text in texts() {
        // With a verdict to wait for, and without.
        let status = Form::status("sent").set("Note", &text);
        for form in [Form::inbound(&text), status, Form::other().set("Note", &text)] {
            for way in 0..8 {
                let form = form.clone().set("MessageSid", &fresh_sid("SM"));
                let request = with_forged_headers(stack.post(&form).await?);
                let framing = Framing { frame: 500, ..Framing::default() };
                let trailers: [(&str, &[u8]); 1] = [("x-checksum", b"1")];
                let response = match way {
                    0 => stack.send(&request).await?,
                    1 => send_bytes(edge, &request.chunked(7, b"")).await?,
                    2 => send_bytes(edge, &request.chunked(999, b"x-checksum: 1\r\n")).await?,
                    3 => send_h2(edge, &request, framing).await?,
                    4 => {
                        send_h2(edge, &request, Framing { content_length: true, ..framing }).await?
                    }
                    5 => {
                        send_h2(edge, &request, Framing { trailers: &trailers, ..framing }).await?
                    }
                    6 => {
                        let framing =
                            Framing { trailers: &trailers, content_length: true, ..framing };
                        send_h2(edge, &request, framing).await?
                    }
                    _ => {
                        kept.write(&request.bytes()).await?;
                        kept.response().await?
                    }
                };
                assert_eq!(response.status, 200, "way {way}: {}", response.text());
                let seen = stack.backend.wait(&request.case, 1).await?;
                assert_eq!(seen.len(), 1, "way {way}");
                is_whole(&seen[0], &form).with_context(|| format!("way {way}"))?;
                // The next on the same connection is what it is.
                let next = Request::new("POST", PASS_THROUGH, "next");
                assert_eq!(stack.send(&next).await?.status, 200, "after way {way}");
                let seen = stack.backend.wait(&next.case, 1).await?;
                assert_eq!((seen[0].head.word(1), seen[0].bytes()), (PASS_THROUGH, &b"next"[..]));
                sent += 2;
            }
        }
    }
    let all = stack.backend.all();
    assert_eq!(all.len(), sent, "as many requests as were sent");
    ensure!(all.iter().all(|seen| seen.head.word(1) != SMUGGLED));
    let connections = all.iter().map(|seen| seen.connection).max().unwrap_or_default() + 1;
    ensure!(connections <= 4, "{connections} connections: what was left over had no successor");
    Ok(())
}

async fn bodies_other_than_proven_forms_are_not_rewritten(stack: &Stack) -> Result<()> {
    let get = stack.get_as(&Form::inbound("GET"), Signing::default()).await?;
    let body = r#"{"event": "done"}"#;
    let document = stack.json_as("/twilio/other", body, Signing::default()).await?;
    for request in [&get, &document] {
        assert_eq!(stack.send(request).await?.status, 200);
        let seen = stack.backend.wait(&request.case, 1).await?;
        assert_eq!(seen[0].bytes(), request.body);
    }
    let form = Form::inbound("forged");
    let forged = stack.post(&form).await?.without_header("x-twilio-signature");
    refused(stack, &forged, Reason::MissingSignature).await?;
    // A copy after a failure is rewritten alike.
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::status(500), Answer::Close]);
    for status in [500, 503, 200] {
        assert_eq!(stack.send(&request).await?.status, status);
    }
    let seen = stack.backend.wait(&request.case, 3).await?;
    for seen in &seen {
        is_whole(seen, &form)?;
    }
    Ok(())
}
