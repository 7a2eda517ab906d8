//! Webhooks from Twilio: claimed, delivered to sinks, replayed.

pub mod claims;
pub mod dead_letters;
pub mod delivery_worker;
pub mod redirects;
pub mod replays;
