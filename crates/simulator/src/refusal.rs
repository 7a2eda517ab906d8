//! Refusals in Twilio's format: HTTP status, code and message as in Twilio's REST API.
//!
//! Sources: twilio.com/docs/usage/twilios-response#response-formats-exceptions and twilio.com/docs/api/errors.

use serde_json::{Value, json};

/// Refusal of a request.
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

    /// Returns the refusal of an invalid parameter.
    pub(super) fn bad(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::new(404, 20404, format!("The requested resource {path} was not found"))
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, 20003, "Authenticate")
    }

    /// Returns the refusal for a message that is unfinished.
    pub(super) fn incomplete() -> Self {
        let detail =
            "Cannot delete or redact this message because its delivery has not been completed";
        Self::new(409, 20009, detail)
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
