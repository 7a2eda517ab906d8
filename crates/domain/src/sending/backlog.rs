//! Backlog of messages that wait for the dispatcher or the reconciler.

/// Backlog of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageBacklog {
    /// Number of messages with an unknown outcome at Twilio.
    pub unknowns: i64,
    /// Due time of the oldest due message, in milliseconds since 1970; 0 if no message is due.
    pub oldest_due_ms: i64,
}
