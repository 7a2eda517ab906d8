//! Rows of media of inbound messages, as their users read them.

use sqlx::FromRow;

/// Medium of an inbound message.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct InboundMedium {
    /// Our id: `mi_..`.
    pub id: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// SID of its message.
    pub message_sid: String,
    /// SID of the medium at Twilio; empty if its URL is not one of Twilio's API.
    pub media_sid: String,
    /// Position in the message, from 0.
    pub position: i64,
    /// Content type.
    pub content_type: String,
    /// Arrival of the message, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// `pending`, `stored`, `refused`, `deleted` or `erased`.
    pub state: String,
    /// Code of the latest failed fetch; empty without one.
    pub code: String,
    /// Number of ended fetches.
    pub attempts: i64,
    /// End of `pending`, in milliseconds since 1970; 0 before.
    pub ended_at_ms: i64,
    /// State at Twilio: `kept`, `requested` (its deletion), `deleted` or `failed` (its deletion).
    pub twilio_state: String,
    /// 1 if a fetch or a deletion at Twilio is due.
    pub is_open: i64,
    /// Time of the next fetch or deletion, in milliseconds since 1970.
    pub due_at_ms: i64,
    /// Size in bytes; 0 while no bytes are stored.
    pub bytes: i64,
    /// SHA-256 of the bytes, in hexadecimal digits; empty while no bytes are stored.
    pub digest: String,
    /// Expiry of the bytes, in milliseconds since 1970; 0 while no bytes are stored.
    pub expires_at_ms: i64,
}

impl InboundMedium {
    /// Returns the state at this time: `expired` for a stored medium whose bytes have expired.
    pub fn current_state(&self, now_ms: i64) -> &str {
        match self.state.as_str() {
            "stored" if self.expires_at_ms <= now_ms => "expired",
            state => state,
        }
    }
}

/// Medium that this sidecar holds, to fetch it or to delete it at Twilio.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct InboundMediaJob {
    /// Our id.
    pub id: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// SID of its message.
    pub message_sid: String,
    /// SID of the medium at Twilio; empty if its URL is not one of Twilio's API.
    pub media_sid: String,
    /// Channel of the contact.
    pub channel: String,
    /// Number or id of the contact.
    pub contact: String,
    /// Content type that Twilio declared.
    pub content_type: String,
    /// Arrival of the message, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// State of the medium; `pending` for a fetch.
    pub state: String,
    /// Number of ended fetches.
    pub attempts: i64,
    /// Number of ended attempts to delete it at Twilio.
    pub twilio_attempts: i64,
    /// Author of the deletion at Twilio.
    pub deleted_by: String,
}

impl InboundMediaJob {
    /// Returns whether the medium is to be fetched, and not deleted at Twilio.
    pub fn is_fetch(&self) -> bool {
        self.state == "pending"
    }
}

/// Result of one attempt to delete a medium at Twilio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwilioDeletion {
    /// Twilio does not have the medium any more.
    Deleted,
    /// The next attempt is due at this time, in milliseconds since 1970.
    RetryAt(i64),
    /// The attempts have ended; the medium is still at Twilio.
    Failed,
}
