//! Twilio's own REST as our clients speak it: what a request asks for, by which name a message is known there, and how one
//! of ours looks in Twilio's words. What may be sent is not decided here (`domain/sending`).

pub mod asked;
pub mod entry;
pub mod listing;
pub mod resource;

/// What is wrong with a request, in Twilio's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Twilio's code for it.
    pub code: u32,
    /// For people.
    pub message: String,
}

impl Mistake {
    /// By Twilio's code.
    pub fn new(code: u32, message: impl Into<String>) -> Mistake {
        Mistake { code, message: message.into() }
    }
}
