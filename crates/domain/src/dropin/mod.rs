//! Twilio's own REST API for clients of Twilio: the content of a request, the SID of a message, the representation of
//! one of our messages in Twilio's format, and Twilio's code of its end. The rules for sending are in `domain/sending`.

pub mod codes;
pub mod content_variables;
pub mod credentials;
pub mod execution;
pub mod listing;
pub mod request;
pub mod resource;
pub mod verification;

/// Error of a request in Twilio's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropInError {
    /// Twilio's error code.
    pub code: u32,
    /// HTTP status of the response; 400 unless Twilio's own differs.
    pub status: u16,
    /// Explanation in words.
    pub message: String,
}

impl DropInError {
    /// Returns the error with status 400.
    pub fn new(code: u32, message: impl Into<String>) -> DropInError {
        DropInError { code, status: 400, message: message.into() }
    }

    /// Returns the error with another HTTP status.
    pub fn with_status(self, status: u16) -> DropInError {
        DropInError { status, ..self }
    }
}
