//! The sidecar as its users meet it: the real binary, over HTTP, on real SQLite, PostgreSQL and Redis servers that these
//! tests start for themselves and may kill.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "results and seeds of tests")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails, and so do the functions it calls"
)]

mod api_keys;
mod archives;
mod behaviour;
mod burst;
mod checks;
mod claimers;
mod client;
mod concurrency;
mod conformance;
mod connections;
mod contacts;
mod dead_letters;
mod deliveries;
mod dropin;
mod endpoints;
mod fallbacks;
mod files;
mod guide;
mod histories;
mod history;
mod http2;
mod idempotency;
mod isolation;
mod kafka;
mod keys;
mod kills;
mod logs;
mod media;
mod metrics;
mod migrations;
mod never_twice;
mod openapi;
mod outages;
mod people;
mod permissions;
mod plans;
mod prism;
mod published;
mod reading;
mod receiver;
mod reconciliation;
mod redirects;
mod redis_streams;
mod replays;
mod retention;
mod security_model;
mod sends;
mod servers;
mod settings;
mod siblings;
mod sidecar;
mod simulator;
mod sinks;
mod stories;
mod taken;
mod templates;
mod tenants;
mod terminal;
mod traces;
mod turns;
mod world;
