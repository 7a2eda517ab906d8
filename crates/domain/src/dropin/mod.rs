//! Twilio's own REST as our clients speak it: what a request asks for, by which name a message is known there, and how one
//! of ours looks in Twilio's words. What may be sent is not decided here (`domain/sending`).

pub mod asked;
pub mod content_variables;
pub mod entry;
pub mod listing;
pub mod resource;

/// What is wrong with a request, in Twilio's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Twilio's code for it.
    pub code: u32,
    /// HTTP status it is answered with; 400 unless Twilio's differs.
    pub status: u16,
    /// For people.
    pub message: String,
}

impl Mistake {
    /// By Twilio's code.
    pub fn new(code: u32, message: impl Into<String>) -> Mistake {
        Mistake { code, status: 400, message: message.into() }
    }

    /// The same, answered with another HTTP status.
    pub fn with_status(self, status: u16) -> Mistake {
        Mistake { status, ..self }
    }
}
