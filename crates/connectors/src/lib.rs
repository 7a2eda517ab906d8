//! Clients of remote services: Twilio, sinks, and object stores.
//!
//! Architecture invariant: makes one attempt and reports its outcome; decides nothing about retries, and stores nothing.

pub mod bucket;
pub mod sinks;
pub mod twilio;
