//! A message from what is asked for to what Twilio said of it, as decisions: what may be asked (`request.rs`), what speaks
//! against it (`rules.rs`), what an answer of Twilio means (`outcome.rs`, `errors.rs`), and when the next one may go (`pace.rs`).

pub mod errors;
pub mod outcome;
pub mod pace;
pub mod request;
pub mod rules;
