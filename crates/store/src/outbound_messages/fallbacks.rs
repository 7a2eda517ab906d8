//! Fallbacks of messages that failed after Twilio had accepted them. A fallback is written once, together with the change
//! that ends the wait for it, and is found by the id of the message that it replaces. The domain decides its content and
//! time.

use super::{
    OutboundMessage, OutboundMessages, events::MessageChange, outbound_message_columns,
    writes::Change,
};
use crate::{database::Bind, error::StoreError};
use twilio_edge_domain::{
    operational_event::OperationalEventType,
    sending::{delivery_status::StatusChange, statistics::MessageEvent},
};

/// Removes the fallback from its message; only the caller that removes it sends it.
const REPLACE_WITH_FALLBACK: &str = "
    UPDATE outbound_messages SET code = $2, reason = $3, fallback = '', fallback_to = '', form = '', repeat_until_ms = 0,
        recipient = $5, status = $6, status_at_ms = $4, lookup_due_at_ms = 0
    WHERE id = $1 AND state = 'sent' AND fallback <> ''";

const DISCARD_FALLBACK: &str = "
    UPDATE outbound_messages SET fallback = '', fallback_to = '' WHERE id = $1 AND state = 'sent' AND fallback <> ''";

/// Removes fallbacks of messages for which no further status is expected, and of verifications that are over. `$2` is now.
const DISCARD_OLD_FALLBACKS: &str = "
    UPDATE outbound_messages SET fallback = '', fallback_to = ''
    WHERE fallback <> '' AND state = 'sent' AND (changed_at_ms < $1 OR (provider = 'verify' AND valid_until_ms < $2))";

const FALLBACK_OF: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE fallback_of = $1 AND fallback_of <> ''"
);

impl OutboundMessages {
    /// Records that the delivery of the message failed, and inserts its fallback `instead`: both, or neither.
    /// Returns `false` if the fallback was already sent or is no longer wanted.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn replace_with_fallback(
        &self,
        message: &OutboundMessage,
        masked: &str,
        failure: &StatusChange,
        instead: &OutboundMessage,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(&failure.code),
            Bind::Text("Twilio could not deliver the message; a fallback is sent"),
            Bind::Whole(now_ms),
            Bind::Text(masked),
            Bind::Text(&failure.status),
        ];
        let counts = vec![message.count(MessageEvent::Failed, &failure.code, now_ms)];
        let instead = Some(instead);
        let change = MessageChange {
            state: "sent",
            status: &failure.status,
            code: &failure.code,
            instead,
            now_ms,
            ..MessageChange::default()
        };
        let failed = self.event(OperationalEventType::MessageFailed, message, change);
        let events = failed.into_iter().chain(self.event_of_switch(message, change)).collect();
        let change =
            Change { instead, counts, events, ..Change::of(REPLACE_WITH_FALLBACK, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Removes the fallback of a message that has arrived.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn discard_fallback(&self, id: &str) -> Result<(), StoreError> {
        self.execute(DISCARD_FALLBACK, &[Bind::Text(id)]).await.map(|_| ())
    }

    /// Removes the fallbacks of messages that were sent before `before_ms`, and of verifications that are over. Returns their number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn discard_old_fallbacks(
        &self,
        before_ms: i64,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let binds = [Bind::Whole(before_ms), Bind::Whole(now_ms)];
        self.execute(DISCARD_OLD_FALLBACKS, &binds).await
    }

    /// Returns the fallback message that was sent instead of a message.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find_fallback_of(&self, id: &str) -> Result<Option<OutboundMessage>, StoreError> {
        let found: Vec<OutboundMessage> =
            self.database.read_bound(FALLBACK_OF, &[Bind::Text(id)]).await?;
        Ok(found.into_iter().next())
    }
}
