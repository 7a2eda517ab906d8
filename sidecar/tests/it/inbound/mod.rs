//! Webhooks: claims, deliveries to sinks, dead letters, replays.

pub(crate) mod attempts;
pub(crate) mod claim_model;
pub(crate) mod claims;
pub(crate) mod concurrent_claims;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod event_formats;
pub(crate) mod exchanges;
pub(crate) mod kafka;
pub(crate) mod kills;
pub(crate) mod live_commands;
pub(crate) mod live_streams;
pub(crate) mod media;
pub(crate) mod pubsub;
pub(crate) mod redirects;
pub(crate) mod redis_streams;
pub(crate) mod refused_requests;
pub(crate) mod replays;
pub(crate) mod sink_options;
pub(crate) mod sink_types;
pub(crate) mod sinks;
pub(crate) mod sqs;
