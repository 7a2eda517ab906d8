//! Parts that crash, hang or send invalid answers. Proven webhooks are delivered or refused according to the policy, no
//! request hangs, no outcome is lost, and everything works again after the outage.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{
    Decision, EXCHANGE_MEDIA_TYPE, ExchangeReply, ExchangeRequest, encode_request,
};
use twilio_edge_demo::SIDECAR_CLUSTER;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, Gate};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, fresh_phone};

use crate::expect::{replied, verdict, willing};
use crate::suite::{Scenario, Setting, scenarios};

/// Messages are rejected, statuses forwarded while there is no verdict; and it is not waited for long.
const MIXED: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    config.plugin["on_unavailable"] = json!({ "inbound": "reject", "status": "forward" });
    config.plugin["sidecar"]["timeout_ms"] = 1_000.into();
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let forwarding = scenarios![Setting::Own(Plan::new(SidecarPlan::Sqlite));
        webhooks_are_forwarded_while_the_sidecar_is_unavailable,
    ];
    let mixed = scenarios![Setting::Own(MIXED);
        policy_of_the_class_decides_without_a_sidecar,
        while_the_sidecar_hangs_the_policy_of_the_class_decides,
    ];
    let scripted = scenarios![Setting::Own(Plan { sidecar: SidecarPlan::Scripted, ..MIXED });
        sidecar_with_invalid_replies_counts_as_unavailable,
        reply_of_forty_megabytes_is_no_verdict,
        sidecar_that_cannot_be_called_counts_as_unavailable,
    ];
    let absent = scenarios![Setting::Own(Plan::new(SidecarPlan::Absent));
        webhooks_without_a_sidecar_are_proven_and_forwarded,
    ];
    let crash = scenarios![Setting::Newest(Plan::new(SidecarPlan::Sqlite));
        stop_survives_a_sidecar_killed_right_after,
    ];
    let killed = scenarios![Setting::Newest(Plan {
            settings: &[("TWILIO_EDGE_LEASES_PERIOD_MS", "2000")],
            ..Plan::new(SidecarPlan::Sqlite)
        });
        envoy_killed_with_a_webhook_at_the_backend_delivers_it_again,
    ];
    let double = scenarios![Setting::Newest(Plan::new(SidecarPlan::Sqlite));
        stop_is_answered_after_a_sidecar_that_restarts_has_it,
    ];
    let redis = scenarios![Setting::Newest(Plan::new(SidecarPlan::Redis));
        redis_may_die_and_come_back_empty,
    ];
    [forwarding.as_slice(), &mixed, &scripted, &absent, &crash, &killed, &double, &redis].concat()
}

async fn webhooks_are_forwarded_while_the_sidecar_is_unavailable(stack: &Stack) -> Result<()> {
    let before = stack.post(&Form::inbound("before")).await?;
    assert_eq!(stack.send(&before).await?.status, 200);

    stack.sidecar()?.kill().await?;
    let from = fresh_phone();
    let forms = [
        Form::inbound("meanwhile"),
        Form::status("delivered"),
        Form::inbound("STOP").set("From", &from),
    ];
    let failing = Form::inbound("STOP");
    let mut requests = Vec::new();
    for form in &forms {
        let request = stack.post(form).await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
        assert_eq!(facts["dedupe"], "unknown");
        assert_eq!((facts.get("suppressed"), facts.get("attempt")), (None, None));
        assert_eq!(facts["message-sid"], form.get("MessageSid"));
        requests.push(request);
    }
    let failed = stack.post(&failing).await?;
    stack.backend.script(&failed.case, [Answer::status(500)]);
    assert_eq!(stack.send(&failed).await?.status, 500);

    stack.sidecar()?.restart().await?;
    let ledger = stack.ledger().await?;
    for (form, request) in forms.iter().zip(&requests) {
        let event = ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
        assert_eq!(
            event.form.as_deref(),
            Some(form.encoded().as_str()),
            "the filter settles the webhooks of the outage afterwards"
        );
        assert!((200..300).contains(&stack.send(request).await?.status));
        assert_eq!(
            stack.backend.seen(&request.case).len(),
            1,
            "the sidecar recognizes the copy of an accepted webhook"
        );
    }
    assert!(ledger.suppressed(&from).await?, "the STOP of the outage is in effect");
    until("the STOP that the backend refused", async || {
        Ok(ledger.suppressed(failing.get("From")).await?.then_some(()))
    })
    .await?;
    assert_eq!(stack.send(&failed).await?.status, 200);
    assert_eq!(stack.backend.wait(&failed.case, 2).await?.len(), 2, "what it refused comes again");

    assert_eq!(stack.send(&before).await?.status, 200);
    assert_eq!(stack.backend.seen(&before.case).len(), 1, "known from before the outage");
    let after = stack.post(&Form::inbound("after").set("From", &from)).await?;
    assert_eq!(stack.send(&after).await?.status, 200);
    let facts = stack.backend.wait(&after.case, 1).await?[0].trusted();
    assert_eq!((facts["dedupe"].as_str(), facts["suppressed"].as_str()), ("first", "true"));
    Ok(())
}

/// With [`MIXED`], a message is refused with a reason in Twilio's log; statuses and unclaimed webhooks are forwarded.
async fn policy_decides(stack: &Stack, what: &str) -> Result<Form> {
    let stop = Form::inbound("STOP");
    let refused = stack.post(&stop).await?;
    let response = stack.send(&refused).await?;
    assert_eq!(response.status, 503, "{what}: {}", response.text());
    assert_eq!(
        response.header("x-twilio-edge-reason").as_deref(),
        Some("sidecar-unavailable"),
        "{what}"
    );
    assert!(response.header("retry-after").is_some());
    stack.nothing_reached(&refused).await?;
    for form in [Form::status("delivered"), Form::other()] {
        let request = stack.post(&form).await?;
        assert_eq!(stack.send(&request).await?.status, 200, "{what}");
        let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
        assert_eq!(facts["dedupe"], "unknown", "{what}");
    }
    let forged = stack.post(&Form::status("delivered")).await?;
    let forged = forged.without_header("x-twilio-signature");
    assert_eq!(
        stack.send(&forged).await?.status,
        403,
        "{what}: the signature is no matter of policy"
    );
    stack.nothing_reached(&forged).await?;
    Ok(stop)
}

/// After the outage a refused STOP takes effect all the same, because its sender does not know of the refusal.
async fn all_goes_on(stack: &Stack, stop: &Form) -> Result<()> {
    let ledger = stack.ledger().await?;
    until("the refused STOP to count", async || {
        Ok(ledger.suppressed(stop.get("From")).await?.then_some(()))
    })
    .await?;
    let request = stack.post(&Form::inbound("again").set("From", stop.get("From"))).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
    assert_eq!((facts["dedupe"].as_str(), facts["suppressed"].as_str()), ("first", "true"));
    let retried = stack.post(stop).await?;
    assert_eq!(stack.send(&retried).await?.status, 200);
    assert_eq!(stack.backend.wait(&retried.case, 1).await?.len(), 1, "it was never delivered");
    Ok(())
}

async fn policy_of_the_class_decides_without_a_sidecar(stack: &Stack) -> Result<()> {
    stack.sidecar()?.kill().await?;
    let stop = policy_decides(stack, "killed").await?;
    stack.sidecar()?.restart().await?;
    all_goes_on(stack, &stop).await
}

async fn while_the_sidecar_hangs_the_policy_of_the_class_decides(stack: &Stack) -> Result<()> {
    stack.sidecar()?.pause().await?;
    let stop = policy_decides(stack, "stopped").await?;
    stack.sidecar()?.resume().await?;
    all_goes_on(stack, &stop).await
}

async fn sidecar_with_invalid_replies_counts_as_unavailable(stack: &Stack) -> Result<()> {
    let exchange = |body: &[u8]| Answer::ok(EXCHANGE_MEDIA_TYPE, body);
    let other = ExchangeReply::new(vec![verdict("0123".to_owned(), Decision::Proceed)], vec![]);
    let cases = [
        ("silence", Answer::Never),
        ("drop by drop", Answer::Drops),
        ("close", Answer::Close),
        ("half a reply", Answer::CloseInBody),
        ("not HTTP", Answer::Noise(b"\x16\x03\x01 hello \xff\xfe\r\n\r\n".to_vec())),
        (
            "endless headers",
            Answer::Noise([b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; 200_000]].concat()),
        ),
        ("500", Answer::status(500)),
        ("401", Answer::status(401)),
        ("204", Answer::status(204)),
        ("empty", Answer::status(200)),
        ("HTML", Answer::ok("text/html", "<html>welcome to the captive portal</html>")),
        (
            "JSON",
            Answer::By(|body| changed(body, "application/json", |reply| *reply = json(reply))),
        ),
        (
            "JSON as an exchange",
            Answer::By(|body| changed(body, EXCHANGE_MEDIA_TYPE, |reply| *reply = json(reply))),
        ),
        ("a text", Answer::By(|body| changed(body, "text/plain", |_| ()))),
        ("no exchange", exchange(b"\xff\x00\xfe")),
        ("not UTF-8", exchange(b"TE\x01\x01\x04\x03\xff\xfe\x00\x00")),
        (
            "half of the reply",
            Answer::By(|body| {
                changed(body, EXCHANGE_MEDIA_TYPE, |reply| reply.truncate(reply.len() / 2))
            }),
        ),
        (
            "all but the last byte",
            Answer::By(|body| {
                changed(body, EXCHANGE_MEDIA_TYPE, |reply| reply.truncate(reply.len() - 1))
            }),
        ),
        (
            "another version",
            Answer::By(|body| changed(body, EXCHANGE_MEDIA_TYPE, |reply| reply[2] = 2)),
        ),
        ("no version", exchange(b"TE")),
        ("no verdict", exchange(&ExchangeReply::new(vec![], vec![]).encode())),
        ("a verdict for another claim", exchange(&other.encode())),
        ("an unknown decision", Answer::By(undecided)),
        ("a verdict of four gigabytes", exchange(b"TE\x01\x01\xff\xff\xff\xff\x0f")),
        ("four billion verdicts", exchange(b"TE\x01\xff\xff\xff\xff\x0f")),
        ("a huge number of verdicts", exchange(b"TE\x01\xff\xff\xff\xff\xff\xff\xff")),
        (
            "a huge reply",
            Answer::By(|body| {
                changed(body, EXCHANGE_MEDIA_TYPE, |reply| reply.resize(3_000_000, 0))
            }),
        ),
        (
            "a status of three thousand",
            Answer::Noise(b"HTTP/1.1 3000 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
    ];
    let count = cases.len();
    for (what, answer) in cases {
        stack.scripted()?.usually(answer);
        policy_decides(stack, what).await.context(what)?;
    }
    stack.scripted()?.wait(CLAIMS, count).await?;
    Ok(())
}

/// The right reply, of this content type and changed.
fn changed(body: &[u8], content_type: &'static str, change: fn(&mut Vec<u8>)) -> Answer {
    let Some(reply) = replied(body, |_| Decision::Proceed) else { return Answer::status(400) };
    let mut reply = reply.encode();
    change(&mut reply);
    Answer::ok(content_type, reply)
}

fn json(reply: &[u8]) -> Vec<u8> {
    let reply = ExchangeReply::decode(reply).ok();
    reply.and_then(|reply| serde_json::to_vec(&reply).ok()).unwrap_or_default()
}

/// A reply over Envoy's limit, which the filter receives as a reply without headers.
async fn reply_of_forty_megabytes_is_no_verdict(stack: &Stack) -> Result<()> {
    let scripted = stack.scripted()?;
    scripted.usually(Answer::By(willing));
    let reply = |body: &[u8]| changed(body, EXCHANGE_MEDIA_TYPE, |reply| reply.resize(41 << 20, 0));
    scripted.script(CLAIMS, vec![Answer::By(reply); 2]);
    policy_decides(stack, "forty megabytes").await?;
    let after = stack.post(&Form::inbound("after")).await?;
    assert_eq!(stack.send(&after).await?.status, 200);
    assert_eq!(stack.backend.wait(&after.case, 1).await?[0].trusted()["dedupe"], "first");
    Ok(())
}

/// Claims that never leave Envoy, and claims that reach another server.
async fn sidecar_that_cannot_be_called_counts_as_unavailable(stack: &Stack) -> Result<()> {
    type Change = fn(&mut Value);
    let plans: [(&str, Change); 4] = [
        ("no such cluster", |cluster| cluster["name"] = "renamed".into()),
        ("no endpoint", |cluster| cluster["load_assignment"]["endpoints"] = json!([])),
        ("no room for a request", |cluster| {
            cluster["circuit_breakers"]["thresholds"][0]["max_requests"] = 0.into();
            cluster["circuit_breakers"]["thresholds"][0]["max_pending_requests"] = 0.into();
        }),
        ("another protocol", |cluster| {
            let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            cluster["typed_extension_protocol_options"] = json!({ options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": { "http2_protocol_options": {} },
            } });
        }),
    ];
    for (what, change) in plans {
        let plan = Plan { sidecar: SidecarPlan::Scripted, ..MIXED };
        let unreachable = stack.another_with(plan, |config| {
            let clusters = config.bootstrap["static_resources"]["clusters"].as_array_mut();
            let sidecar =
                clusters.context("clusters")?.iter_mut().find(|it| it["name"] == SIDECAR_CLUSTER);
            change(sidecar.context("the sidecar's cluster")?);
            // Envoy does not start with a route to a cluster that does not exist: that of SendGrid's events.
            config.routes()?.retain(|route| route["route"]["cluster"] != SIDECAR_CLUSTER);
            Ok(())
        });
        let unreachable = unreachable.await.context(what)?;
        policy_decides(&unreachable, what).await.context(what)?;
        unreachable.judge().await.context(what)?;
    }
    Ok(())
}

/// Verdicts on the right claims with an unknown decision.
fn undecided(body: &[u8]) -> Answer {
    let claims = ExchangeRequest::decode(body).map(|exchange| exchange.claims).unwrap_or_default();
    let verdicts = claims.into_iter().map(|claim| {
        let length = u8::try_from(claim.claim_id.len() + 1).unwrap_or_default();
        [&[length], claim.claim_id.as_bytes(), &[99]].concat()
    });
    let none: [&[u8]; 0] = [];
    let verdicts: Vec<Vec<u8>> = verdicts.collect();
    Answer::ok(EXCHANGE_MEDIA_TYPE, encode_request(&verdicts, &none))
}

async fn webhooks_without_a_sidecar_are_proven_and_forwarded(stack: &Stack) -> Result<()> {
    for form in [Form::inbound("hello"), Form::status("sent"), Form::other()] {
        let request = stack.post(&form).await?;
        for count in 1..=2 {
            assert_eq!(stack.send(&request).await?.status, 200);
            let seen = stack.backend.wait(&request.case, count).await?;
            assert_eq!(seen.len(), count, "without a sidecar, the copy is forwarded too");
            let facts = seen[count - 1].trusted();
            assert_eq!(facts["dedupe"], "unknown");
            assert!(facts.contains_key("verified") && facts.contains_key("class"));
        }
        let refused = stack.post(&form).await?;
        stack.backend.script(&refused.case, [Answer::status(500)]);
        assert_eq!(stack.send(&refused).await?.status, 500);
        let forged = request.as_new_case().without_header("x-twilio-signature");
        assert_eq!(stack.send(&forged).await?.status, 403);
        stack.nothing_reached(&forged).await?;
    }
    Ok(())
}

/// The sidecar had no time to write after its answer, so the opt-out was stored before it.
async fn stop_survives_a_sidecar_killed_right_after(stack: &Stack) -> Result<()> {
    let stop = Form::inbound("STOP");
    let request = stack.post(&stop).await?;
    stack.backend.script(&request.case, [Answer::Close]);
    assert_eq!(stack.send(&request).await?.status, 503);
    stack.sidecar()?.kill().await?;
    stack.sidecar()?.restart().await?;
    let ledger = stack.ledger().await?;
    assert!(ledger.suppressed(stop.get("From")).await?);
    assert_eq!(ledger.opt(stop.get("MessageSid")).await?.as_deref(), Some("stop"));
    let next = stack.post(&Form::inbound("hello?").set("From", stop.get("From"))).await?;
    assert_eq!(stack.send(&next).await?.status, 200);
    assert_eq!(stack.backend.wait(&next.case, 1).await?[0].trusted()["suppressed"], "true");
    assert_eq!(stack.send(&request).await?.status, 200);
    assert_eq!(stack.backend.wait(&request.case, 2).await?.len(), 2, "and it is delivered yet");
    Ok(())
}

/// The leases of a killed Envoy are never settled; they expire.
/// Double failure: the sidecar is unavailable during a STOP, and Envoy is killed as soon as Twilio has its answer.
async fn stop_is_answered_after_a_sidecar_that_restarts_has_it(stack: &Stack) -> Result<()> {
    let mut acknowledged = 0;
    for (word, answer) in [
        ("STOP", Answer::status(200)),
        ("Stopp", Answer::ok("text/xml", "<Response><Message>Good bye</Message></Response>")),
        ("opt out", Answer::status(500)),
    ] {
        let form = Form::inbound(word).set("OptOutType", "STOP");
        let request = stack.post(&form).await?;
        let gate = Gate::default();
        stack.backend.script(&request.case, [gate.then(answer)]);
        stack.sidecar()?.kill().await?;
        let restart = async {
            stack.backend.wait(&request.case, 1).await?;
            let restarted = stack.sidecar()?.restart().await;
            gate.open();
            restarted
        };
        let (answered, restarted) = tokio::join!(stack.send(&request), restart);
        restarted?;
        ensure!([200, 500].contains(&answered?.status), "{word}");
        // The filter waits at most a second for the sidecar, and counts the answer.
        let late = stack.envoy.counter("opt_out_unacknowledged").await? > 0;
        stack.envoy.kill().await?;
        let is_suppressed = stack.ledger().await?.suppressed(form.get("From")).await?;
        ensure!(is_suppressed || late, "the {word} is lost");
        acknowledged += usize::from(is_suppressed);
        stack.envoy.restart().await?;
    }
    ensure!(acknowledged > 0, "the answer never waited for the sidecar");
    Ok(())
}

async fn envoy_killed_with_a_webhook_at_the_backend_delivers_it_again(stack: &Stack) -> Result<()> {
    let form = Form::inbound("hello");
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::Never, Answer::status(200)]);
    let kill = async {
        stack.backend.wait(&request.case, 1).await?;
        stack.envoy.kill().await
    };
    let (answer, killed) = tokio::join!(stack.send(&request), kill);
    killed?;
    assert!(answer.is_err(), "the request got an answer: {answer:?}");
    stack.envoy.restart().await?;
    assert_eq!(stack.send(&request).await?.status, 200, "once its lease is over");
    assert_eq!(stack.backend.wait(&request.case, 2).await?.len(), 2);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 2).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    assert_eq!(
        stack.backend.seen(&request.case).len(),
        2,
        "the backend gets no copy after the commit"
    );
    Ok(())
}

async fn redis_may_die_and_come_back_empty(stack: &Stack) -> Result<()> {
    let redis = stack.redis()?;
    let ledger = stack.ledger().await?;
    let (before, stop) = (Form::inbound("before"), Form::inbound("STOP"));
    let refused = Form::status("sent");
    let mut known = Vec::new();
    for form in [&before, &stop] {
        let request = stack.post(form).await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
        known.push(request);
    }
    let retried = stack.post(&refused).await?;
    stack.backend.script(&retried.case, [Answer::status(500)]);
    assert_eq!(stack.send(&retried).await?.status, 500);

    for (moment, act) in [("killed", true), ("back, empty", false)] {
        if act {
            redis.kill().await?
        } else {
            redis.restart().await?
        }
        for request in &known {
            assert_eq!(stack.send(request).await?.status, 200, "{moment}");
            assert_eq!(stack.backend.seen(&request.case).len(), 1, "{moment}: still a duplicate");
        }
        let form = Form::inbound(moment).set("From", stop.get("From"));
        let request = stack.post(&form).await?;
        for _ in 0..2 {
            assert_eq!(stack.send(&request).await?.status, 200, "{moment}");
        }
        let seen = stack.backend.seen(&request.case);
        assert_eq!(seen.len(), 1, "{moment}: claims go on");
        let facts = seen[0].trusted();
        assert_eq!(
            (facts["dedupe"].as_str(), facts["suppressed"].as_str()),
            ("first", "true"),
            "{moment}"
        );
        ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
        known.push(request);
    }
    assert_eq!(stack.send(&retried).await?.status, 200);
    assert_eq!(stack.backend.wait(&retried.case, 2).await?.len(), 2);
    ledger.settled(refused.get("MessageSid"), "accepted", 2).await?;
    Ok(())
}
