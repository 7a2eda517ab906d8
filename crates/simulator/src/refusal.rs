//! What is refused, in Twilio's own words: HTTP status, code and message as its REST API answers them.
//!
//! Sources: twilio.com/docs/usage/twilios-response#response-formats-exceptions and twilio.com/docs/api/errors.

use serde_json::{Value, json};

/// A request that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// A parameter that cannot be.
    pub(super) fn bad(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::new(404, 20404, format!("The requested resource {path} was not found"))
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, 20003, "Authenticate")
    }

    /// A message that has not got anywhere yet.
    pub(super) fn incomplete() -> Self {
        let told =
            "Cannot delete or redact this message because its delivery has not been completed";
        Self::new(409, 20009, told)
    }

    pub(super) fn too_many() -> Self {
        Self::new(429, 20429, "Too Many Requests")
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        })
    }
}
