//! Expectations of one request: it arrives proven, or it is refused and does not arrive; and the claims and settlements
//! that a scripted sidecar receives.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{CLAIMS_PATH, PROTOCOL_VERSION, headers};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, Seen};
use twilio_edge_wasm_tests::stack::Stack;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Request};

/// Sends `request`; it must arrive once, whole and unchanged, and the backend's answer must come back.
pub(crate) async fn arrives(stack: &Stack, request: &Request) -> Result<Seen> {
    stack.backend.script(&request.case, [Answer::ok("text/xml", "<Response/>")]);
    let response = stack.send(request).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    assert_eq!(response.text(), "<Response/>");
    let seen = arrived(stack, request).await?;
    assert_eq!(seen.head.word(0), request.method);
    assert_eq!(seen.head.word(1), request.target);
    for (name, value) in &request.headers {
        assert_eq!(seen.head.all(name), [value], "{name}");
    }
    Ok(seen)
}

/// Checks that `request` has reached the backend once, complete and proven.
pub(crate) async fn arrived(stack: &Stack, request: &Request) -> Result<Seen> {
    let seen = stack.backend.wait(&request.case, 1).await?;
    assert_eq!(seen.len(), 1, "at the backend");
    assert_eq!(seen[0].bytes(), request.body);
    assert_eq!(seen[0].trusted()["verified"], ACCOUNT);
    Ok(seen[0].clone())
}

/// Sends `request`; it must be refused for `reason` and nothing of it may reach the backend.
pub(crate) async fn refused(stack: &Stack, request: &Request, reason: Reason) -> Result<()> {
    is_refusal(&stack.send(request).await?, reason)?;
    stack.nothing_reached(request).await
}

/// Checks that `response` is the filter's refusal for `reason`, with the reason in header and body.
pub(crate) fn is_refusal(response: &Response, reason: Reason) -> Result<()> {
    let result = response.header(headers::REASON);
    ensure!(
        response.status == reason.status()
            && result.as_deref() == Some(reason.slug())
            && response.text().contains(reason.slug()),
        "{} {result:?} is not {reason:?}: {}",
        response.status,
        response.text()
    );
    Ok(())
}

/// Waits until a counter or gauge of the filter is `value`; the filter reports it some time after the change.
pub(crate) async fn counts(stack: &Stack, name: &str, value: u64) -> Result<()> {
    let mut last = 0;
    let result = until(name, async || {
        last = stack.envoy.counter(name).await?;
        Ok((last == value).then_some(()))
    })
    .await;
    result.with_context(|| format!("{name} is {last}, not {value}"))
}

/// Returns the messages whose claims a scripted sidecar received.
pub(crate) fn claimed(stack: &Stack) -> Result<BTreeSet<String>> {
    let mut messages = BTreeSet::new();
    for seen in stack.scripted()?.seen(CLAIMS_PATH) {
        let body: Value = serde_json::from_slice(seen.bytes())?;
        for claim in body["claims"].as_array().context("no list")? {
            messages.insert(claim["message_sid"].as_str().context("no message")?.to_owned());
        }
    }
    Ok(messages)
}

/// The only item of a batch that a scripted sidecar got.
pub(crate) fn sent(seen: &Seen, list: &str) -> Result<Value> {
    let body: Value = serde_json::from_slice(seen.bytes())?;
    assert_eq!(body["v"], PROTOCOL_VERSION);
    let items = body[list].as_array().context("no list")?;
    assert_eq!(items.len(), 1, "{body}");
    Ok(items[0].clone())
}

/// A scripted sidecar that lets every claim proceed and acknowledges every settlement.
pub(crate) fn willing(body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let (items, answers, answer) = match body["claims"].as_array() {
        Some(claims) => (claims, "verdicts", json!({ "decision": "proceed", "attempt": 1 })),
        None => {
            let Some(settlements) = body["settlements"].as_array() else {
                return Answer::status(400);
            };
            (settlements, "results", json!({ "result": "settled" }))
        }
    };
    let items = items.iter().map(|item| {
        let mut answer = answer.clone();
        answer["claim_id"] = item["claim_id"].clone();
        answer
    });
    let reply = json!({ "v": PROTOCOL_VERSION, answers: items.collect::<Vec<_>>() });
    Answer::ok("application/json", reply.to_string())
}
