//! Outcomes of attempts: the end of an attempt, and messages that wait for another one. Only the holder of an attempt's id
//! records its outcome.

use super::{
    MessageCount, OutboundMessage, OutboundMessages, events::MessageChange, writes::Change,
};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::{
    operational_event::OperationalEventType, sending::statistics::MessageEvent,
};

/// Queues the message again after an attempt in which nothing left; a message whose text was erased ends as `refused`.
const QUEUE_RETRY: &str = "
    UPDATE outbound_messages SET state = CASE WHEN form = '' THEN 'refused' ELSE 'queued' END, attempt_id = '', due_at_ms = $3,
        code = CASE WHEN form = '' THEN 'erased' ELSE $4 END, reason = $5, changed_at_ms = $6, request_id = $7
    WHERE id = $1 AND attempt_id = $2 AND state = 'attempting'";

/// Queues the message again before its call, because its recipient has quiet hours. The attempt does not count, and the time
/// after which the message is given up begins again.
const HOLD: &str = "
    UPDATE outbound_messages SET state = CASE WHEN form = '' THEN 'refused' ELSE 'queued' END, attempt_id = '', due_at_ms = $3,
        first_due_at_ms = $3, code = CASE WHEN form = '' THEN 'erased' ELSE $4 END, reason = $5, changed_at_ms = $6,
        attempts = attempts - 1
    WHERE id = $1 AND attempt_id = $2 AND state = 'attempting'";

/// Records the outcome of an attempt. An outcome after the end of the hold is as good as one before. A sent message that may
/// be repeated keeps its text and its recipient.
const RECORD_OUTCOME: &str = "
    UPDATE outbound_messages SET state = $3, message_sid = $4, code = $5, reason = $6, changed_at_ms = $7,
        request_id = $9, twilio_status = $10, lookups = 0, lookup_due_at_ms = $11,
        form = CASE WHEN $3 = 'unknown' OR ($3 = 'sent' AND repeat_until_ms > $7) THEN form ELSE '' END,
        fallback = CASE WHEN $3 = 'refused' THEN '' ELSE fallback END,
        fallback_to = CASE WHEN $3 = 'refused' THEN '' ELSE fallback_to END,
        recipient = CASE WHEN $3 = 'unknown' OR ($3 = 'sent' AND repeat_until_ms > $7) THEN recipient ELSE $8 END
    WHERE id = $1 AND attempt_id = $2 AND state IN ('attempting', 'unknown')";

/// Outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptOutcome<'a> {
    /// `sent`, `refused` or `unknown`.
    pub state: &'a str,
    /// Twilio's message SID, if the message was sent.
    pub message_sid: &'a str,
    /// Code of the reason why it was not sent.
    pub code: &'a str,
    /// The reason in words.
    pub reason: &'a str,
    /// Twilio's request id of the call; empty if Twilio returned none.
    pub request_id: &'a str,
    /// HTTP status of Twilio's refusal; 0 without one.
    pub twilio_status: i64,
    /// Time of the first lookup in Twilio's list, if the outcome is `unknown`, or of the status, if the message was sent; 0
    /// for none.
    pub lookup_due_at_ms: i64,
}

impl OutboundMessages {
    /// Queues the message again for `due_at_ms`, with the reason, after an attempt in which nothing left.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn queue_retry(
        &self,
        message: &OutboundMessage,
        due_at_ms: i64,
        (code, reason): (&str, &str),
        request_id: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Whole(due_at_ms),
            Bind::Text(code),
            Bind::Text(reason),
            Bind::Whole(now_ms),
            Bind::Text(request_id),
        ];
        self.execute(QUEUE_RETRY, &binds).await.map(|_| ())
    }

    /// Queues the message again for `due_at_ms`, with the reason, instead of the attempt that has begun.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn hold(
        &self,
        message: &OutboundMessage,
        due_at_ms: i64,
        (code, reason): (&str, &str),
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Whole(due_at_ms),
            Bind::Text(code),
            Bind::Text(reason),
            Bind::Whole(now_ms),
        ];
        self.execute(HOLD, &binds).await.map(|_| ())
    }

    /// Records the outcome of an attempt, and with it the fallback message, the last one of `instead`: all, or none.
    /// Returns `false` if the message has already been decided.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn record_outcome(
        &self,
        message: &OutboundMessage,
        masked: &str,
        outcome: &AttemptOutcome<'_>,
        instead: &[OutboundMessage],
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&message.attempt_id),
            Bind::Text(outcome.state),
            Bind::Text(outcome.message_sid),
            Bind::Text(outcome.code),
            Bind::Text(outcome.reason),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Text(outcome.request_id),
            Bind::Whole(outcome.twilio_status),
            Bind::Whole(outcome.lookup_due_at_ms),
        ];
        let counts = match outcome.state {
            "sent" => self.first_sent(message, now_ms),
            "refused" => vec![message.count(MessageEvent::Refused, outcome.code, now_ms)],
            _ => Vec::new(),
        };
        let change = MessageChange {
            state: outcome.state,
            message_sid: outcome.message_sid,
            code: outcome.code,
            reason: outcome.reason,
            instead: instead.last(),
            now_ms,
            ..MessageChange::default()
        };
        let events = match outcome.state {
            "sent" => {
                self.event(OperationalEventType::MessageSent, message, change).into_iter().collect()
            }
            "refused" => self.events_of_refusal(message, change),
            _ => self
                .event(OperationalEventType::MessageUnknown, message, change)
                .into_iter()
                .collect(),
        };
        let callback = match outcome.state {
            "refused" => self.callback(message, change),
            _ => None,
        };
        let change =
            Change { instead, counts, events, callback, ..Change::of(RECORD_OUTCOME, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Returns the counter of a message that Twilio accepted for the first time.
    pub(super) fn first_sent(&self, message: &OutboundMessage, now_ms: i64) -> Vec<MessageCount> {
        let is_first = message.repetitions == 0;
        is_first.then(|| message.count(MessageEvent::Sent, "", now_ms)).into_iter().collect()
    }
}
