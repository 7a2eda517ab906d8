//! Keyword of a contact to which a message replies, as the rules about the recipient need it.

use twilio_edge_domain::window;
use twilio_edge_store::OutboundMessage;

/// Keyword of a contact to which a message replies.
#[derive(Debug, Clone)]
pub struct AnsweredKeyword {
    /// SID of the contact's message. A suppression that this message began does not forbid the reply; every other one does.
    pub message_sid: String,
    /// Arrival of the contact's message, which opened the conversation window, in milliseconds since 1970. The ledger may not
    /// have the message yet.
    pub received_ms: i64,
}

impl AnsweredKeyword {
    /// Returns the keyword to which a message replies, if it is a reply.
    pub fn of(message: &OutboundMessage) -> Option<AnsweredKeyword> {
        message.is_reply().then(|| AnsweredKeyword {
            message_sid: message.reply_to.clone(),
            received_ms: message.created_at_ms,
        })
    }

    /// Returns whether the conversation window of the keyword is over.
    pub fn is_over(&self, now_ms: i64) -> bool {
        now_ms >= window::expires_ms(self.received_ms)
    }
}
