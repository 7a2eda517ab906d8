//! Changes to outbound messages outside of an attempt: the lookup of `unknown` messages, and their results. A result is
//! that Twilio has the message, with its SID, or that Twilio never had it. One sidecar performs each lookup: the one that
//! increments `lookups`. It may return the message to `queued` only if no result was recorded meanwhile. The domain decides
//! what a lookup has to find for that.

use std::slice;

use sqlx::FromRow;

use super::{
    OutboundMessage, OutboundMessages,
    events::MessageChange,
    outbound_message_columns,
    pages::{ROWS_BY_SID, ROWS_BY_SID_OF_ARRAY, Sid},
    writes::Change,
};
use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Bind, Durability},
    error::StoreError,
    operational_events,
};
use twilio_edge_domain::{
    address::Address, operational_event::OperationalEventType, phone,
    sending::matching::MessageSearch,
};

/// Messages that are due for a lookup. A message whose text was erased cannot be compared and is left out.
const DUE_FOR_LOOKUP: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE state = 'unknown' AND lookup_due_at_ms > 0 AND lookup_due_at_ms <= $1 AND form <> '' ORDER BY lookup_due_at_ms LIMIT $2"
);

const BEGIN_LOOKUP: &str = "
    UPDATE outbound_messages SET lookups = lookups + 1, lookup_due_at_ms = $3 WHERE id = $1 AND lookups = $2 AND state = 'unknown'";

/// Records that Twilio has the message; its state may be any. The SID of a failed delivery that is being repeated says nothing
/// about the repetition.
const MARK_SENT: &str = "
    UPDATE outbound_messages SET state = 'sent', message_sid = $2, attempt_id = '', code = '', reason = $4, changed_at_ms = $5,
        lookups = 0, lookup_due_at_ms = $7,
        form = CASE WHEN repeat_until_ms > $5 THEN form ELSE '' END,
        recipient = CASE WHEN repeat_until_ms > $5 AND form <> '' THEN recipient ELSE $3 END
    WHERE id = $1 AND account_sid = $6 AND state <> 'sent'
        AND NOT EXISTS (SELECT 1 FROM replaced_sids WHERE replaced_sids.message_sid = $2)";

const REQUEUE: &str = "
    UPDATE outbound_messages SET state = 'queued', attempt_id = '', due_at_ms = $3, code = 'absent', reason = 'Twilio never had it',
        changed_at_ms = $3, lookup_due_at_ms = 0
    WHERE id = $1 AND lookups = $2 AND state = 'unknown' AND form <> ''";

/// Cancels a message for which no attempt has begun.
const CANCEL: &str = "
    UPDATE outbound_messages SET state = 'canceled', form = '', fallback = '', fallback_to = '', recipient = $2, code = '', reason = '', changed_at_ms = $3
    WHERE id = $1 AND state = 'queued'";

/// Deletes a message that ended without Twilio: there is nothing left to send or to look up.
const DELETE: &str = "
    DELETE FROM outbound_messages WHERE id = $1 AND account_sid = $2 AND state IN ('refused', 'not_sent', 'canceled')";

const DELETE_USES: &str = "DELETE FROM media_uses WHERE message_id = $1";

const DELETE_SIDS: &str = "DELETE FROM replaced_sids WHERE message_id = $1";

/// Other messages to the same recipient whose outcome is also unknown; `$4` at most.
const SIMILAR: &str = "
    SELECT sender, form FROM outbound_messages WHERE state IN ('attempting', 'unknown') AND account_sid = $1 AND recipient = $2
        AND id <> $3 LIMIT $4";

/// Maximum number of messages to compare. A recipient with more counts as having a similar message.
const MAX_SIMILAR: i64 = 100;

const OWN_SIDS: &str = "
    SELECT message_sid AS id FROM outbound_messages WHERE message_sid <> ''
        AND message_sid IN (SELECT value FROM json_each($1))
    UNION ALL SELECT message_sid FROM replaced_sids WHERE message_sid IN (SELECT value FROM json_each($1))";

const OWN_SIDS_BY_ARRAY: &str = "
    SELECT message_sid AS id FROM outbound_messages WHERE message_sid <> ''
        AND message_sid = ANY(ARRAY(SELECT json_array_elements_text($1::json)))
    UNION ALL SELECT message_sid FROM replaced_sids WHERE message_sid = ANY(ARRAY(SELECT json_array_elements_text($1::json)))";

const BY_IDS: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE id IN (SELECT value FROM json_each($1))"
);

const BY_IDS_OF_ARRAY: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE id = ANY(ARRAY(SELECT json_array_elements_text($1::json)))"
);

#[derive(Debug, FromRow)]
struct SimilarRow {
    sender: String,
    form: String,
}

fn is_same_sender(one: &str, other: &str) -> bool {
    match (Address::parse(one), Address::parse(other)) {
        (Some(one), Some(other)) => {
            one.channel == other.channel && phone::is_same(&one.number, &other.number)
        }
        _ => one == other,
    }
}

#[derive(Debug, FromRow)]
struct SidRow {
    id: String,
}

impl OutboundMessages {
    /// Returns the contacts, in the same database.
    pub fn contacts(&self) -> crate::contacts::Contacts {
        crate::contacts::Contacts::of(self.database.clone())
    }

    /// Returns up to `most` messages that are due for a lookup.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn due_for_lookup(
        &self,
        most: i64,
        now_ms: i64,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let binds = [Bind::Whole(now_ms), Bind::Whole(most)];
        self.database.read_bound(DUE_FOR_LOOKUP, &binds).await
    }

    /// Begins a lookup and records the time of the next one; 0: no further lookup. Returns `false` if another sidecar has
    /// begun it or the message is no longer `unknown`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn begin_lookup(
        &self,
        message: &OutboundMessage,
        next_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [Bind::Text(&message.id), Bind::Whole(message.lookups), Bind::Whole(next_ms)];
        self.execute(BEGIN_LOOKUP, &binds).await.map(|rows| rows == 1)
    }

    /// Records that Twilio has the message, with its SID. Its status is looked up at `poll_at_ms`; 0: never. Returns `false`
    /// if that was recorded before, or if the SID is that of a failed delivery.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn mark_sent(
        &self,
        message: &OutboundMessage,
        masked: &str,
        (message_sid, reason): (&str, &str),
        poll_at_ms: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(message_sid),
            Bind::Text(masked),
            Bind::Text(reason),
            Bind::Whole(now_ms),
            Bind::Text(&message.account_sid),
            Bind::Whole(poll_at_ms),
        ];
        let counts = self.first_sent(message, now_ms);
        let sent = MessageChange { state: "sent", message_sid, now_ms, ..MessageChange::default() };
        let sent = self.event(OperationalEventType::MessageSent, message, sent);
        let events = sent.into_iter().collect();
        let change = Change { counts, events, ..Change::of(MARK_SENT, &binds) };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Queues the message again, because Twilio never had it. Only for the caller of the latest lookup, and only if no
    /// result was recorded meanwhile; returns `false` otherwise.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn requeue_absent(
        &self,
        message: &OutboundMessage,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let lookups = message.lookups.saturating_add(1);
        let binds = [Bind::Text(&message.id), Bind::Whole(lookups), Bind::Whole(now_ms)];
        self.execute(REQUEUE, &binds).await.map(|rows| rows == 1)
    }

    /// Deletes a message that ended without Twilio. Returns `false` if the message is in another state.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn delete(
        &self,
        message: &OutboundMessage,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let binds = [Bind::Text(&message.id), Bind::Text(&message.account_sid)];
                if tx.execute_bound(DELETE, &binds).await? == 0 {
                    return Ok(false);
                }
                tx.execute_bound(DELETE_USES, &[Bind::Text(&message.id)]).await?;
                tx.execute_bound(DELETE_SIDS, &[Bind::Text(&message.id)]).await?;
                audit_log::add(&mut tx, slice::from_ref(entry)).await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Cancels a queued message. Returns `false` if the message is not `queued`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn cancel(
        &self,
        message: &OutboundMessage,
        masked: &str,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let binds = [Bind::Text(&message.id), Bind::Text(masked), Bind::Whole(entry.at_ms)];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if tx.execute_bound(CANCEL, &binds).await? == 0 {
                    return Ok(false);
                }
                audit_log::add(&mut tx, slice::from_ref(entry)).await?;
                let change = MessageChange {
                    state: "canceled",
                    now_ms: entry.at_ms,
                    ..MessageChange::default()
                };
                let callback = self.callback(message, change);
                let (reporting, callbacks) = (self.database.reporting(), callback.as_slice());
                operational_events::record_with_callbacks(&mut tx, reporting, &[], callbacks)
                    .await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Returns whether another message, in progress or `unknown`, has the same sender and recipient in any spelling of
    /// their numbers, and possibly the same text.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn has_similar(
        &self,
        message: &OutboundMessage,
        sought: &MessageSearch,
    ) -> Result<bool, StoreError> {
        for recipient in phone::spellings(&message.recipient) {
            let binds = [
                Bind::Text(&message.account_sid),
                Bind::Text(&recipient),
                Bind::Text(&message.id),
                Bind::Whole(MAX_SIMILAR),
            ];
            let found: Vec<SimilarRow> = self.database.read_bound(SIMILAR, &binds).await?;
            let is_like = |like: &SimilarRow| {
                let other = MessageSearch::of(&like.form, 0, 0);
                let says_else = sought.body.is_some() && sought.body != other.body;
                is_same_sender(&like.sender, &message.sender) && !says_else
            };
            let is_full = i64::try_from(found.len()).is_ok_and(|found| found >= MAX_SIMILAR);
            if is_full || found.iter().any(is_like) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the SIDs among `message_sids` that belong to our outbound messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn own_message_sids(&self, message_sids: &[&str]) -> Result<Vec<String>, StoreError> {
        let statement = self.database.choose(OWN_SIDS, OWN_SIDS_BY_ARRAY);
        let query = serde_json::to_string(message_sids).unwrap_or_default();
        let found: Vec<SidRow> = self.database.read_bound(statement, &[Bind::Text(&query)]).await?;
        Ok(found.into_iter().map(|named| named.id).collect())
    }

    /// Returns the messages with these SIDs of Twilio, or with one of them as that of a failed delivery.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn by_sids(&self, sids: &[&str]) -> Result<Vec<OutboundMessage>, StoreError> {
        let sids: Vec<Sid<'_>> = sids.iter().map(|sid| Sid { message_sid: sid }).collect();
        if sids.is_empty() {
            return Ok(Vec::new());
        }
        let statement = self.database.choose(ROWS_BY_SID, ROWS_BY_SID_OF_ARRAY);
        self.database.read(statement, &sids).await
    }

    /// Returns the messages with these ids.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn by_ids(&self, ids: &[&str]) -> Result<Vec<OutboundMessage>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let statement = self.database.choose(BY_IDS, BY_IDS_OF_ARRAY);
        let query = serde_json::to_string(ids).unwrap_or_default();
        self.database.read_bound(statement, &[Bind::Text(&query)]).await
    }
}
