//! Clients of remote services: Twilio and the other providers of messages, sinks, and object stores.
//!
//! Architecture invariant: reports the outcome of each call and stores nothing; callers decide about retries. Only the object
//! store retries by itself, twice and within seconds.

pub mod bucket;
mod causes;
pub mod email;
pub mod public_resolver;
pub mod send_client;
pub mod sinks;
pub mod twilio;
