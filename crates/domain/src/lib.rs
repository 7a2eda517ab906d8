//! Decisions of the sidecar as plain functions over plain values: no store, no clock, no network. The caller passes the
//! time as an argument, in milliseconds since 1970, so that every decision can be replayed and tested.
//!
//! Architecture invariant: plain functions over plain values; no clock, no file, no network, no asynchronous code.

pub mod actor;
pub mod address;
pub mod api_key;
pub mod archive;
pub mod check;
pub mod consent;
pub mod contact;
pub mod csv_import;
pub mod cursor;
#[cfg(test)]
pub mod defaults;
pub mod delivery;
pub mod delivery_attempt;
pub mod display;
pub mod dropin;
pub mod email;
pub mod event;
pub mod idempotency;
pub mod keyword_reply;
pub mod lease;
pub mod live_stream;
pub mod media;
pub mod merge;
pub mod message;
pub mod operational_event;
pub mod optout;
pub mod pace;
pub mod part;
pub mod period;
pub mod phone;
pub mod policy;
pub mod redaction;
pub mod refusal;
pub mod refused_request;
pub mod retention;
pub mod secret;
pub mod sending;
pub mod session;
pub mod sink_filter;
pub mod spreadsheet;
pub mod status;
pub mod suppression;
pub mod sweep_counts;
pub mod template;
pub mod tenant;
pub mod trace;
pub mod webhook;
pub mod window;
