//! Webhooks from Twilio: claims, delivery to sinks, replays.

pub mod claims;
pub mod dead_letters;
pub mod delivery_worker;
pub mod redirects;
pub mod replays;
