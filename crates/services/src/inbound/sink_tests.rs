//! Test of a sink: sends one event that is marked as a test, in the same way as a delivery, and reports the answer. A
//! failed test changes nothing: it does not count for the circuit breaker and the retries of the sink.

use serde_json::json;

use crate::access::api_keys::Caller;
use twilio_edge_connectors::sinks::Sink;
use twilio_edge_domain::{delivery_attempt::DeliveryAttempt, event::test_delivery};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::AuditEntry;

/// Result of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTest {
    /// Delivery id that the sink received.
    pub delivery_id: String,
    /// The only attempt.
    pub attempt: DeliveryAttempt,
}

/// Sends a test event to the sink.
pub async fn test(sink: &Sink) -> SinkTest {
    let now_ms = now_ms();
    // Without randomness, the time distinguishes tests.
    let random = getrandom::u64().unwrap_or_default();
    let delivery_id = format!("test:{now_ms}:{random:016x}");
    let answer = sink.deliver(&test_delivery(&delivery_id, now_ms)).await;
    SinkTest { attempt: answer.attempt(now_ms), delivery_id }
}

/// Builds the audit entry of a test that this caller requests.
pub fn audit_entry(by: &Caller, sink: &Sink) -> AuditEntry {
    let detail = json!({ "type": sink.type_name() });
    let account_sid = by.account_sid.clone();
    by.audit_entry("sink.tested", sink.name().to_owned(), account_sid, &detail, now_ms())
}
