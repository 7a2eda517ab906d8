//! The twilio-edge sidecar and command line.
//!
//! The path of a webhook through the sidecar, file by file:
//!
//! ```text
//! http/claims.rs       ->  claims.rs  ->  domain/    what it says, who may have it       pure
//! http/settlements.rs  ->             ->  store/     opt-outs, leases, results           before the answer
//!                                                    and who has what, in the ledger     right behind it
//! ```
//!
//! Beside it `http/keys.rs -> accounts.rs`: the keys of filters that were given none; and `http/access.rs`, `http/api_keys.rs`,
//! `http/audit.rs -> keys.rs -> store/register.rs`: who may call, and what administrators did; and `http/messages.rs`,
//! `http/events.rs`, `http/windows.rs` and, of a number, all of these, `http/numbers.rs -> story.rs -> store/histories.rs`.
//! And `retention.rs -> store/retention.rs`: what is taken out of the ledger again, and when; and at once, `http/redactions.rs ->
//! erasure.rs -> store/erasure.rs`.
//! What sinks did not take is decided about in `http/dead_letters.rs -> dead_letters.rs -> store/dead_letters.rs`.
//! What is delivered once more is found in `replays.rs -> store/replays.rs`.
//! What is to be sent goes `http/sends.rs -> sending.rs -> store/sends.rs -> senders.rs -> twilio.rs`.
//! Whether Twilio can fetch its media, `media.rs` sees by fetching them.
//! Whoever speaks Twilio's own REST is answered by `http/dropin.rs -> http/sends.rs`, and learns from `answers.rs` what Twilio said.
//! What is kept outside of the ledger goes `archive.rs -> bucket.rs`, from what `store/archiving.rs` has queued.
//! What is accepted goes `store/accepting.rs -> store/outbox.rs -> couriers.rs -> sinks.rs`.
//! All of them are called through `doors.rs`.
//! Beside all of it, for people who develop: `simulator.rs`, a Twilio on this machine.

pub mod accounts;
pub mod answers;
pub mod archive;
pub mod bucket;
pub mod claims;
pub mod cli;
pub mod clock;
pub mod config;
pub mod couriers;
pub mod dead_letters;
pub mod demo;
pub mod domain;
mod doors;
pub mod erasure;
pub mod fallbacks;
mod file_access;
pub mod http;
pub mod keys;
pub mod lists;
pub(crate) mod log;
pub mod marketing;
pub mod media;
pub mod metrics;
pub mod permissions;
mod reading;
pub mod reconciler;
pub mod redirects;
pub mod refusals;
pub mod replays;
pub mod retention;
pub mod routes;
pub mod senders;
pub mod sending;
pub mod shown;
pub mod simulator;
pub mod sinks;
pub mod steps;
pub mod store;
pub mod story;
pub mod telemetry;
pub mod templates;
pub mod tenants;
pub(crate) mod terminal;
pub mod twilio;
