//! What scenarios expect of one request: it arrives proven, or it is refused and nothing of it arrives.

use anyhow::{Result, ensure};
use twilio_edge_contract::headers;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::Response;
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

/// `request`, however it was sent, must be at the backend once, whole and proven.
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

/// `response` must be the filter's refusal for `reason`, and say so to whoever has to find out.
pub(crate) fn is_refusal(response: &Response, reason: Reason) -> Result<()> {
    let told = response.header(headers::REASON);
    ensure!(
        response.status == reason.status()
            && told.as_deref() == Some(reason.slug())
            && response.text().contains(reason.slug()),
        "{} {told:?} is not {reason:?}: {}",
        response.status,
        response.text()
    );
    Ok(())
}
