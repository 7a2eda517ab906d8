//! The backend receives each webhook once: later copies get the saved answer, simultaneous copies wait for
//! the first to end.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use tokio::join;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, Gate};
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request, fresh_sid};

use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = scenarios![Setting::Shared;
        message_is_delivered_once,
        copy_gets_the_first_answer,
        copy_of_an_answer_without_twiml_gets_an_empty_document,
        status_is_delivered_once,
        copy_on_another_connection_is_a_duplicate,
        different_webhooks_are_no_copies,
        unsigned_copy_is_no_duplicate,
    ];
    let alone = scenarios![Setting::Own(Plan::new(SidecarPlan::Sqlite));
        copy_waits_for_the_first_and_shares_its_success,
        copy_waits_for_the_first_and_follows_its_failure,
        concurrent_copies_are_delivered_once,
    ];
    let impatient = scenarios![Setting::Newest(Plan::adapted(SidecarPlan::Sqlite, |config| {
            config.plugin["sidecar"]["in_flight_wait_ms"] = 200.into();
            Ok(())
        }));
        copy_waits_for_a_limited_time,
    ];
    [shared.as_slice(), &alone, &impatient].concat()
}

/// Checks the answer to a copy of a delivered message: an empty TwiML document, and no status that calls the fallback URL.
fn is_duplicate_message(response: &Response) -> Result<()> {
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    assert_eq!(response.header("content-type").as_deref(), Some("text/xml"));
    assert!(response.text().ends_with("<Response/>"), "{}", response.text());
    Ok(())
}

async fn message_is_delivered_once(stack: &Stack) -> Result<()> {
    for answer in [
        Answer::status(200),
        Answer::status(204),
        Answer::ok("application/json", "{}"),
        Answer::ok("text/xml", vec![b' '; 10_000]),
        Answer::ok("text/xml", b"<Response>\xff\xfe</Response>".as_slice()),
    ] {
        let form = Form::inbound("once");
        let request = stack.post(&form).await?;
        stack.backend.script(&request.case, [answer]);
        assert!((200..300).contains(&stack.send(&request).await?.status));
        for _ in 0..2 {
            is_duplicate_message(&stack.send(&request).await?)?;
        }
        assert_eq!(stack.backend.wait(&request.case, 1).await?.len(), 1);
        let event = stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
        assert_eq!(event.class, "inbound");
        assert_eq!(event.form.as_deref(), Some(form.encoded().as_str()));
    }
    Ok(())
}

/// Twilio sends a copy because it did not receive the first answer, so the copy gets that answer.
async fn copy_gets_the_first_answer(stack: &Stack) -> Result<()> {
    let twiml = "<Response><Message>päivää</Message></Response>";
    for (status, content_type) in [
        (200, "text/xml; charset=utf-8"),
        (201, "application/xml"),
        (200, "application/twiml+xml"),
        (200, "text/html"),
        (200, "Text/HTML; charset=UTF-8"),
    ] {
        let request = stack.post(&Form::inbound("hello?")).await?;
        let answer = Answer::Reply { status, content_type, body: twiml.into() };
        stack.backend.script(&request.case, [answer]);
        for _ in 0..3 {
            let response = stack.send(&request).await?;
            assert_eq!((response.status, response.text().as_str()), (status, twiml));
            assert_eq!(response.header("content-type").as_deref(), Some(content_type));
        }
        assert_eq!(stack.backend.seen(&request.case).len(), 1);
    }
    Ok(())
}

/// Twilio reads no TwiML in a page, so a copy gets an empty document.
async fn copy_of_an_answer_without_twiml_gets_an_empty_document(stack: &Stack) -> Result<()> {
    for (content_type, body) in [
        ("text/html", "<!DOCTYPE html><html><body>Thank you</body></html>"),
        ("text/html; charset=utf-8", "<Responses/>"),
        ("application/json", "<Response><Message>hi</Message></Response>"),
    ] {
        let request = stack.post(&Form::inbound("hello?")).await?;
        stack.backend.script(&request.case, [Answer::ok(content_type, body)]);
        assert_eq!(stack.send(&request).await?.text(), body);
        for _ in 0..2 {
            is_duplicate_message(&stack.send(&request).await?)?;
        }
        assert_eq!(stack.backend.seen(&request.case).len(), 1);
    }
    Ok(())
}

async fn status_is_delivered_once(stack: &Stack) -> Result<()> {
    let form = Form::status("undelivered").set("ErrorCode", "30003");
    let request = stack.post(&form).await?;
    stack.backend.script(&request.case, [Answer::status(204)]);
    assert_eq!(stack.send(&request).await?.status, 204);
    for _ in 0..3 {
        let copy = stack.send(&request).await?;
        assert_eq!((copy.status, copy.body.len()), (204, 0));
    }
    assert_eq!(stack.backend.wait(&request.case, 1).await?.len(), 1);
    let event = stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    assert_eq!((event.class.as_str(), event.status.as_deref()), ("status", Some("undelivered")));
    Ok(())
}

/// Twilio's fallback URL, a second token and GET instead of POST make another request of the same webhook.
async fn copy_on_another_connection_is_a_duplicate(stack: &Stack) -> Result<()> {
    let form = Form::inbound("the same");
    let first = stack.post(&form).await?;
    assert_eq!(stack.send(&first).await?.status, 200);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;

    let next = Signing { token: NEXT_TOKEN, ..Signing::default() };
    let fallback = form.clone().to("/twilio/inbound?fallback=1").add("ErrorCode", "11200");
    let fallback = fallback.add("ErrorUrl", "https://hooks.example.com/twilio/inbound");
    for copy in [
        stack.post_as(&form, next).await?,
        stack.get_as(&form, Signing::default()).await?,
        stack.post(&fallback).await?,
    ] {
        is_duplicate_message(&stack.send(&copy).await?)?;
        stack.nothing_reached(&copy).await?;
    }
    Ok(())
}

async fn different_webhooks_are_no_copies(stack: &Stack) -> Result<()> {
    let sid = fresh_sid("SM");
    let mut requests = Vec::new();
    for status in ["queued", "sending", "sent", "delivered", "read"] {
        requests.push(stack.post(&Form::status(status).set("MessageSid", &sid)).await?);
    }
    for code in ["30003", "30008"] {
        let failed = Form::status("undelivered").set("MessageSid", &sid).set("ErrorCode", code);
        requests.push(stack.post(&failed).await?);
    }
    requests
        .push(stack.post(&Form::inbound("same SID, other class").set("MessageSid", &sid)).await?);
    requests.push(stack.post(&Form::other()).await?);
    for request in &requests {
        assert_eq!(stack.send(request).await?.status, 200);
        assert_eq!(stack.backend.wait(&request.case, 1).await?.len(), 1);
    }
    let other = requests.last().context("the last one")?;
    stack.send(other).await?;
    let delivered = stack.backend.wait(&other.case, 2).await?.len();
    assert_eq!(delivered, 2, "requests of an unknown class have no dedupe key");
    Ok(())
}

/// Otherwise an attacker could find out which messages were sent, or suppress future ones with forged copies.
async fn unsigned_copy_is_no_duplicate(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("mine")).await?;
    let forged = request.clone().without_header("x-twilio-signature");
    assert_eq!(stack.send(&forged).await?.status, 403);
    assert_eq!(stack.send(&request).await?.status, 200);
    assert_eq!(stack.send(&forged).await?.status, 403);
    assert_eq!(stack.backend.wait(&request.case, 1).await?.len(), 1);
    Ok(())
}

/// Sends `request`, waits until the backend has it, sends a copy, and opens `gate` when the copy waits.
async fn first_and_copy(stack: &Stack, request: &Request, gate: &Gate) -> Result<[Response; 2]> {
    let before = stack.envoy.counter("verdict.in_flight").await?;
    let copy = async {
        stack.backend.wait(&request.case, 1).await?;
        stack.send(request).await
    };
    let meanwhile = async {
        until("the copy to get the verdict `in_flight`", async || {
            Ok((stack.envoy.counter("verdict.in_flight").await? > before).then_some(()))
        })
        .await?;
        assert_eq!(
            stack.backend.seen(&request.case).len(),
            1,
            "the backend still works on the first request"
        );
        gate.open();
        anyhow::Ok(())
    };
    let (first, copy, meanwhile) = join!(stack.send(request), copy, meanwhile);
    meanwhile?;
    Ok([first?, copy?])
}

async fn copy_waits_for_the_first_and_shares_its_success(stack: &Stack) -> Result<()> {
    for form in [Form::inbound("twice at once"), Form::status("delivered")] {
        let request = stack.post(&form).await?;
        let gate = Gate::default();
        stack.backend.script(&request.case, [gate.then(Answer::status(200))]);
        let [first, copy] = first_and_copy(stack, &request, &gate).await?;
        assert_eq!(first.status, 200);
        if form.get("MessageStatus").is_empty() {
            is_duplicate_message(&copy)?;
        } else {
            assert_eq!(copy.status, 204);
        }
        assert_eq!(stack.backend.seen(&request.case).len(), 1);
        stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    }
    Ok(())
}

async fn copy_waits_for_the_first_and_follows_its_failure(stack: &Stack) -> Result<()> {
    let form = Form::inbound("twice at once");
    let request = stack.post(&form).await?;
    let gate = Gate::default();
    let answers = [gate.then(Answer::status(500)), Answer::ok("text/plain", "taken")];
    stack.backend.script(&request.case, answers);
    let [first, copy] = first_and_copy(stack, &request, &gate).await?;
    assert_eq!(first.status, 500);
    assert_eq!((copy.status, copy.text().as_str()), (200, "taken"));
    let seen = stack.backend.wait(&request.case, 2).await?;
    let attempts = seen.iter().map(|seen| seen.trusted().remove("attempt"));
    assert_eq!(attempts.collect::<Vec<_>>(), [Some("1".to_owned()), Some("2".to_owned())]);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 2).await?;
    Ok(())
}

async fn concurrent_copies_are_delivered_once(stack: &Stack) -> Result<()> {
    let form = Form::inbound("a storm");
    let request = stack.post(&form).await?;
    let responses = (0..20).map(|_| stack.send(&request));
    let mut answered = 0;
    for response in join_all(responses).await {
        assert_eq!(response?.status, 200);
        answered += 1;
    }
    assert_eq!(answered, 20);
    assert_eq!(stack.backend.seen(&request.case).len(), 1);
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    Ok(())
}

async fn copy_waits_for_a_limited_time(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("slow")).await?;
    let gate = Gate::default();
    stack.backend.script(&request.case, [gate.then(Answer::status(200))]);
    let copy = async {
        stack.backend.wait(&request.case, 1).await?;
        let copy = stack.send(&request).await;
        gate.open();
        copy
    };
    let (first, copy) = join!(stack.send(&request), copy);
    let copy = copy?;
    assert_eq!(copy.status, 503, "the outcome at the backend is not known yet");
    assert_eq!(copy.header("x-twilio-edge-reason").as_deref(), Some("still-in-flight"));
    assert!(copy.header("retry-after").is_some());
    assert_eq!(first?.status, 200);
    is_duplicate_message(&stack.send(&request).await?)?;
    assert_eq!(stack.backend.seen(&request.case).len(), 1);
    Ok(())
}
