//! The outcome of a webhook decides about its next copy: it is a duplicate only if the backend accepted the webhook.
//! A STOP takes effect with every outcome.

use std::cell::Cell;

use anyhow::Result;
use serde_json::json;
use tokio::join;
use twilio_edge_wasm_tests::client::Connection;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, Gate, SETTLEMENTS};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, fresh_phone};

use crate::expect::{sent, willing};
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = scenarios![Setting::Shared;
        refused_webhook_is_delivered_again,
        accepted_webhook_is_never_delivered_again,
        reset_before_the_answer_is_no_acceptance,
        reset_within_the_answer_leaves_it_accepted,
        client_that_disconnects_before_the_answer_gets_a_copy,
        client_that_disconnects_after_the_answer_gets_no_copy,
        stop_takes_effect_although_the_backend_is_down,
        start_ends_the_suppression,
        help_changes_nothing,
    ];
    let quick = scenarios![Setting::Own(Plan::adapted(SidecarPlan::Sqlite, |config| {
            for route in config.routes()? {
                if let Some(timeout) = route.pointer_mut("/route/timeout") {
                    *timeout = json!("0.5s");
                }
            }
            Ok(())
        }));
        backend_timeout_releases_the_claim,
    ];
    let paused = scenarios![Setting::Newest(Plan::new(SidecarPlan::Sqlite));
        client_that_disconnects_before_the_verdict_gets_a_copy,
    ];
    let timed = scenarios![Setting::Alone(Plan::new(SidecarPlan::Scripted));
        failure_is_answered_after_its_release_is_acknowledged,
    ];
    let observed = scenarios![Setting::Own(Plan::new(SidecarPlan::Scripted));
        failure_is_answered_without_an_acknowledgement,
        late_verdict_forwards_nothing,
    ];
    [shared.as_slice(), &quick, &paused, &timed, &observed].concat()
}

async fn refused_webhook_is_delivered_again(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    for status in [500, 502, 503, 429, 408, 425, 404, 403, 400, 301, 302, 304] {
        for form in [Form::inbound("refused at first"), Form::status("delivered")] {
            let request = stack.post(&form).await?;
            let refusal =
                Answer::Reply { status, content_type: "text/plain", body: b"no".to_vec() };
            stack.backend.script(&request.case, [refusal.clone(), refusal, Answer::status(200)]);
            for attempt in 1..=2 {
                let refused = stack.send(&request).await?;
                assert_eq!(refused.status, status, "the backend's own answer");
                assert_eq!(refused.header("x-twilio-edge-reason"), None);
                ledger.settled(form.get("MessageSid"), "refused", attempt).await?;
            }
            assert_eq!(stack.send(&request).await?.status, 200);
            let seen = stack.backend.wait(&request.case, 3).await?;
            for (seen, attempt) in seen.iter().zip(["1", "2", "3"]) {
                let facts = seen.trusted();
                assert_eq!(facts["attempt"], attempt);
                assert_eq!(facts["dedupe"], "first");
            }
            ledger.settled(form.get("MessageSid"), "accepted", 3).await?;
        }
    }
    Ok(())
}

async fn accepted_webhook_is_never_delivered_again(stack: &Stack) -> Result<()> {
    for status in [200, 201, 202, 204, 206, 299] {
        let form = Form::inbound("accepted");
        let request = stack.post(&form).await?;
        stack.backend.script(&request.case, [Answer::status(status), Answer::status(500)]);
        assert_eq!(stack.send(&request).await?.status, status);
        assert_eq!(stack.send(&request).await?.status, 200, "at once");
        stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
        assert_eq!(stack.send(&request).await?.status, 200, "later");
        assert_eq!(stack.backend.seen(&request.case).len(), 1);
    }
    Ok(())
}

async fn reset_before_the_answer_is_no_acceptance(stack: &Stack) -> Result<()> {
    let form = Form::status("delivered");
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::Close, Answer::status(200)]);
    assert_eq!(stack.send(&request).await?.status, 503);
    assert_eq!(stack.send(&request).await?.status, 200);
    let seen = stack.backend.wait(&request.case, 2).await?;
    assert_eq!(seen.len(), 2, "Envoy itself must not send again what may have arrived");
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 2).await?;
    Ok(())
}

/// The status line was a 2xx and Twilio has seen it: the application has the webhook.
async fn reset_within_the_answer_leaves_it_accepted(stack: &Stack) -> Result<()> {
    let form = Form::status("delivered");
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::CloseInBody]);
    let broken = stack.send(&request).await;
    assert!(broken.is_err(), "the body cannot be made whole: {broken:?}");
    assert_eq!(stack.send(&request).await?.status, 204);
    assert_eq!(stack.backend.seen(&request.case).len(), 1);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    Ok(())
}

async fn client_that_disconnects_before_the_answer_gets_a_copy(stack: &Stack) -> Result<()> {
    let form = Form::inbound("impatient");
    let request = stack.post(&form).await?;
    let gate = Gate::default();
    stack.backend.script(&request.case, [gate.then(Answer::status(200))]);
    let mut client = Connection::open(stack.envoy.address()).await?;
    client.write(&request.bytes()).await?;
    stack.backend.wait(&request.case, 1).await?;
    drop(client);
    until("the request to reach the backend", async || {
        Ok(stack.backend.seen(&request.case)[0].abandoned.then_some(()))
    })
    .await?;
    let ledger = stack.ledger().await?;
    ledger.settled(form.get("MessageSid"), "refused", 1).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    assert_eq!(stack.backend.wait(&request.case, 2).await?[1].trusted()["attempt"], "2");
    ledger.settled(form.get("MessageSid"), "accepted", 2).await?;
    Ok(())
}

async fn client_that_disconnects_after_the_answer_gets_no_copy(stack: &Stack) -> Result<()> {
    let form = Form::inbound("content");
    let request = stack.post(&form).await?;
    let mut client = Connection::open(stack.envoy.address()).await?;
    client.write(&request.bytes()).await?;
    assert_eq!(client.response().await?.status, 200);
    drop(client);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    assert_eq!(stack.backend.seen(&request.case).len(), 1);
    Ok(())
}

async fn backend_timeout_releases_the_claim(stack: &Stack) -> Result<()> {
    for form in [Form::inbound("slow"), Form::status("sent")] {
        let request = stack.post(&form).await?;
        stack.backend.script(&request.case, [Answer::Never, Answer::status(200)]);
        assert_eq!(stack.send(&request).await?.status, 504);
        assert_eq!(stack.send(&request).await?.status, 200);
        assert_eq!(stack.backend.wait(&request.case, 2).await?.len(), 2);
        stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 2).await?;
    }
    Ok(())
}

/// The sidecar hangs, the client disconnects, the sidecar continues: the claim that it then reads was released.
async fn client_that_disconnects_before_the_verdict_gets_a_copy(stack: &Stack) -> Result<()> {
    let forms = [Form::inbound("STOP"), Form::status("delivered")];
    let sidecar = stack.sidecar()?;
    for form in &forms {
        let request = stack.post(form).await?;
        sidecar.pause().await?;
        let verified = stack.envoy.counter("verified").await?;
        let mut client = Connection::open(stack.envoy.address()).await?;
        client.write(&request.bytes()).await?;
        until("the sidecar to be asked", async || {
            let proven = stack.envoy.counter("verified").await? > verified;
            let calls = stack.envoy.stats("cluster.twilio_edge_sidecar.upstream_rq_active").await?;
            Ok((proven && calls.values().sum::<u64>() > 0).then_some(()))
        })
        .await?;
        drop(client);
        until("Envoy to notice", async || {
            let active = stack.envoy.stats("http.edge.downstream_rq_active").await?;
            Ok((active.values().sum::<u64>() == 0).then_some(()))
        })
        .await?;
        sidecar.resume().await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        let seen = stack.backend.wait(&request.case, 1).await?;
        assert_eq!(seen.len(), 1, "only for the client that stayed");
        assert_eq!(seen[0].trusted()["dedupe"], "first");
        // With either order of claim and release, the second client gets the webhook.
        stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1..=2).await?;
    }
    assert!(stack.ledger().await?.suppressed(forms[0].get("From")).await?);
    Ok(())
}

async fn stop_takes_effect_although_the_backend_is_down(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    for (word, down) in [
        ("STOP", Answer::Close),
        (" stop.", Answer::status(500)),
        ("Unsubscribe", Answer::status(404)),
        ("QUIT\n", Answer::status(200)),
    ] {
        let from = fresh_phone();
        let stop = Form::inbound(word).set("From", &from);
        let request = stack.post(&stop).await?;
        let status = match &down {
            Answer::Reply { status, .. } => *status,
            _ => 503,
        };
        stack.backend.script(&request.case, [down]);
        assert_eq!(stack.send(&request).await?.status, status);
        // Durable by the time the client has its answer: nothing is waited for.
        assert!(ledger.suppressed(&from).await?, "{word:?}");
        assert_eq!(ledger.opt(stop.get("MessageSid")).await?.as_deref(), Some("stop"));
        let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
        assert_eq!((facts["opt"].as_str(), facts["suppressed"].as_str()), ("stop", "true"));

        let next = stack.post(&Form::inbound("are you there?").set("From", &from)).await?;
        assert_eq!(stack.send(&next).await?.status, 200, "the message still arrives");
        let facts = stack.backend.wait(&next.case, 1).await?[0].trusted();
        assert_eq!((facts.get("opt"), facts["suppressed"].as_str()), (None, "true"));
    }
    Ok(())
}

async fn start_ends_the_suppression(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    let from = fresh_phone();
    for (body, opt_out_type, opt, suppressed) in [
        ("STOP", None, Some("stop"), true),
        ("please stop writing to me", None, None, true),
        ("START", None, Some("start"), false),
        ("basta", Some("STOP"), Some("stop"), true),
        ("hola", Some("START"), Some("start"), false),
    ] {
        let mut form = Form::inbound(body).set("From", &from);
        if let Some(kind) = opt_out_type {
            form = form.add("OptOutType", kind);
        }
        let request = stack.post(&form).await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
        assert_eq!(facts.get("opt").map(String::as_str), opt, "{body}");
        assert_eq!(facts["suppressed"], suppressed.to_string(), "{body}");
        assert_eq!(ledger.suppressed(&from).await?, suppressed, "{body}");
        assert_eq!(ledger.opt(form.get("MessageSid")).await?.as_deref(), opt, "{body}");
    }
    Ok(())
}

async fn help_changes_nothing(stack: &Stack) -> Result<()> {
    let form = Form::inbound("help");
    let request = stack.post(&form).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    let facts = stack.backend.wait(&request.case, 1).await?[0].trusted();
    assert_eq!((facts["opt"].as_str(), facts["suppressed"].as_str()), ("help", "false"));
    assert!(!stack.ledger().await?.suppressed(form.get("From")).await?);
    Ok(())
}

/// Twilio's retry may come as soon as it has the failure: by then the sidecar must have let go.
async fn failure_is_answered_after_its_release_is_acknowledged(stack: &Stack) -> Result<()> {
    let form = Form::inbound("fails");
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::status(500)]);
    let (scripted, gate) = (stack.scripted()?, Gate::default());
    scripted.script(CLAIMS, [Answer::By(willing)]);
    scripted.script(SETTLEMENTS, [gate.then(Answer::By(willing))]);
    let answered = Cell::new(false);
    let sending = async {
        let response = stack.send(&request).await;
        answered.set(true);
        response
    };
    let settling = async {
        let claim = &sent(&scripted.wait(CLAIMS, 1).await?[0], "claims")?;
        assert_eq!(claim["class"], "inbound");
        assert_eq!(claim["message_sid"], form.get("MessageSid"));
        assert_eq!(claim["form"], form.encoded());
        let release = &sent(&scripted.wait(SETTLEMENTS, 1).await?[0], "settlements")?;
        assert_eq!(release["claim_id"], claim["claim_id"]);
        assert_eq!(release["outcome"], "release");
        assert!(!answered.get(), "the client must not know before the sidecar does");
        gate.open();
        anyhow::Ok(())
    };
    let (response, settled) = join!(sending, settling);
    settled?;
    assert_eq!(response?.status, 500);
    assert_eq!(stack.envoy.counter("release_unacknowledged").await?, 0);
    Ok(())
}

/// A slow acknowledgement delays the client's answer for a bounded time; the outbox retries.
async fn failure_is_answered_without_an_acknowledgement(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("fails")).await?;
    stack.backend.script(&request.case, [Answer::status(500)]);
    let scripted = stack.scripted()?;
    scripted.script(CLAIMS, [Answer::By(willing)]);
    scripted.script(SETTLEMENTS, [Answer::Never, Answer::status(500), Answer::By(willing)]);
    assert_eq!(stack.send(&request).await?.status, 500);
    assert_eq!(stack.envoy.counter("release_unacknowledged").await?, 1);
    let tries = scripted.wait(SETTLEMENTS, 3).await?;
    for try_again in &tries {
        assert_eq!(sent(try_again, "settlements")?["outcome"], "release");
    }
    Ok(())
}

async fn late_verdict_forwards_nothing(stack: &Stack) -> Result<()> {
    let stop = Form::inbound("STOP");
    let request = stack.post(&stop).await?;
    let (scripted, gate) = (stack.scripted()?, Gate::default());
    scripted.script(CLAIMS, [gate.then(Answer::By(willing))]);
    scripted.script(SETTLEMENTS, [Answer::By(willing)]);
    let mut client = Connection::open(stack.envoy.address()).await?;
    client.write(&request.bytes()).await?;
    let claim = sent(&scripted.wait(CLAIMS, 1).await?[0], "claims")?;
    drop(client);
    let release = sent(&scripted.wait(SETTLEMENTS, 1).await?[0], "settlements")?;
    assert_eq!(
        (&release["claim_id"], &release["outcome"]),
        (&claim["claim_id"], &json!("release"))
    );
    // The claim may never have been sent, so the release carries its contents.
    assert_eq!(release["unclaimed"]["form"], stop.encoded());
    gate.open();
    stack.nothing_reached(&request).await?;
    Ok(())
}
