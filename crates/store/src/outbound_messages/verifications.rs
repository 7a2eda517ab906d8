//! End of verifications: the approval of a code, a cancellation, or too many wrong codes. It ends the lookups of the delivery, and
//! no later report replaces it.

use std::slice;

use super::{
    OutboundMessage, OutboundMessages, events::MessageChange, outbound_message_columns,
    writes::Change,
};
use crate::{
    audit_log::{self, AuditEntry},
    database::{Bind, Durability},
    error::StoreError,
    operational_events,
};
use twilio_edge_domain::{
    operational_event::OperationalEventType,
    sending::{
        delivery_status::is_delivered, statistics::MessageEvent, verification::VerificationStatus,
    },
};

/// An attempt without a clear answer was sent, because Twilio knows its verification.
const END_VERIFICATION: &str = "
    UPDATE outbound_messages SET state = 'sent', message_sid = $2, status = $3, status_at_ms = $4, attempt_id = '', code = '',
        reason = '', form = '', fallback = '', fallback_to = '', recipient = $5, lookup_due_at_ms = 0
    WHERE id = $1 AND provider = 'verify' AND state IN ('attempting', 'sent', 'unknown') AND status <> $3";

const LATEST: &str = concat!(
    "SELECT ",
    outbound_message_columns!(),
    " FROM outbound_messages WHERE account_sid = $1 AND contact = $3 AND contact <> '' AND provider = 'verify' AND sender = $2
        AND state <> 'declined' ORDER BY created_at_ms DESC, id DESC LIMIT 1"
);

impl OutboundMessages {
    /// Returns the latest message that sent a code of this Verify Service to a number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn latest_verification(
        &self,
        account_sid: &str,
        service_sid: &str,
        number: &str,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let binds = [Bind::Text(account_sid), Bind::Text(service_sid), Bind::Text(number)];
        let found: Vec<OutboundMessage> = self.database.read_bound(LATEST, &binds).await?;
        Ok(found.into_iter().next())
    }

    /// Records the end of a verification. Returns `false` if it was recorded before, or if no code was sent.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn end_verification(
        &self,
        message: &OutboundMessage,
        masked: &str,
        (status, verification_sid): (VerificationStatus, &str),
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(verification_sid),
            Bind::Text(status.as_str()),
            Bind::Whole(now_ms),
            Bind::Text(masked),
        ];
        // A contact that gives the right code has received it.
        let is_first = status == VerificationStatus::Approved && !is_delivered(&message.status);
        let counts = is_first.then(|| message.count(MessageEvent::Delivered, "", now_ms));
        let change = MessageChange {
            state: "sent",
            message_sid: verification_sid,
            status: status.as_str(),
            now_ms,
            ..MessageChange::default()
        };
        let event = self.event(OperationalEventType::VerificationEnded, message, change);
        let change = Change {
            counts: counts.into_iter().collect(),
            events: event.into_iter().collect(),
            ..Change::of(END_VERIFICATION, &binds)
        };
        self.writes.change(change).await.map(|rows| rows == 1)
    }

    /// Records that a caller canceled a verification, with an audit entry. Returns `false` if its end was recorded before.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn cancel_verification(
        &self,
        message: &OutboundMessage,
        masked: &str,
        verification_sid: &str,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let status = VerificationStatus::Canceled.as_str();
        let binds = [
            Bind::Text(&message.id),
            Bind::Text(verification_sid),
            Bind::Text(status),
            Bind::Whole(entry.at_ms),
            Bind::Text(masked),
        ];
        let change = MessageChange {
            state: "sent",
            message_sid: verification_sid,
            status,
            now_ms: entry.at_ms,
            ..MessageChange::default()
        };
        let event = self.event(OperationalEventType::VerificationEnded, message, change);
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if tx.execute_bound(END_VERIFICATION, &binds).await? == 0 {
                    return Ok(false);
                }
                audit_log::add(&mut tx, slice::from_ref(entry)).await?;
                operational_events::record(&mut tx, self.database.reporting(), event.as_slice())
                    .await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }
}
