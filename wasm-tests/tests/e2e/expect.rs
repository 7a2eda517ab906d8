//! Expectations of one request: it arrives proven, or it is refused and does not arrive; and the claims and settlements
//! that a scripted sidecar receives.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twilio_edge_contract::{
    Claim, Decision, EXCHANGE_MEDIA_TYPE, ExchangeReply, ExchangeRequest, SettlementAck,
    SettlementResult, Verdict, headers,
};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, Seen};
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
    for seen in stack.scripted()?.seen(CLAIMS) {
        let claims = ExchangeRequest::decode(seen.bytes())?.claims;
        messages.extend(claims.into_iter().map(|claim| claim.identity.message_sid));
    }
    Ok(messages)
}

/// Returns the items of this list of an exchange that a scripted sidecar received, as JSON.
pub(crate) fn all_sent(seen: &Seen, list: &str) -> Result<Vec<Value>> {
    assert_eq!(seen.header("content-type").as_deref(), Some(EXCHANGE_MEDIA_TYPE));
    let exchange = serde_json::to_value(ExchangeRequest::decode(seen.bytes())?)?;
    Ok(exchange[list].as_array().cloned().unwrap_or_default())
}

/// As [`all_sent`]; there must be one item.
pub(crate) fn sent(seen: &Seen, list: &str) -> Result<Value> {
    let mut items = all_sent(seen, list)?;
    assert_eq!(items.len(), 1, "{items:?}");
    items.pop().context("no item")
}

/// A scripted sidecar that lets every claim proceed and acknowledges every settlement.
pub(crate) fn willing(body: &[u8]) -> Answer {
    deciding(body, |_| Decision::Proceed)
}

/// A scripted sidecar with these decisions, which acknowledges every settlement.
pub(crate) fn deciding(body: &[u8], decision: impl Fn(&Claim) -> Decision) -> Answer {
    match replied(body, decision) {
        Some(reply) => Answer::ok(EXCHANGE_MEDIA_TYPE, reply.encode()),
        None => Answer::status(400),
    }
}

/// Returns the reply to an exchange; `None` if the body is none.
pub(crate) fn replied(body: &[u8], decision: impl Fn(&Claim) -> Decision) -> Option<ExchangeReply> {
    let ExchangeRequest { claims, settlements, .. } = ExchangeRequest::decode(body).ok()?;
    let verdicts = claims.into_iter().map(|claim| {
        let decision = decision(&claim);
        verdict(claim.claim_id, decision)
    });
    let results = settlements.into_iter().map(|settlement| SettlementAck {
        claim_id: settlement.claim_id,
        result: SettlementResult::Settled,
    });
    Some(ExchangeReply::new(verdicts.collect(), results.collect()))
}

/// Returns a verdict that is about no person.
pub(crate) fn verdict(claim_id: String, decision: Decision) -> Verdict {
    let attempt = (decision == Decision::Proceed).then_some(1);
    Verdict { attempt, ..Verdict::new(claim_id, decision) }
}
