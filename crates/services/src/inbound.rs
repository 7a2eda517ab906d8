//! Webhooks from Twilio: claims, settlements, delivery to sinks, replays, media, live streams.

pub mod claims;
pub mod dead_letters;
pub mod delivery_worker;
mod effects;
pub mod live_feed;
pub mod media;
pub mod redirects;
pub mod refused_requests;
pub mod replays;
pub mod settlements;
pub mod sink_tests;
