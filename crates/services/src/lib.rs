//! Use cases of the sidecar.
//!
//! - [`inbound`]: claims of webhooks, their delivery to sinks, replays.
//! - [`outbound`]: messages that are sent through Twilio.
//! - [`access`]: API keys, webhook keys, tenants, permissions of contacts.
//! - [`operations`]: retention, erasure, archive.
//! - [`wakeup`]: wakes the tasks that deliver and send.
//!
//! Architecture invariant: holds no SQL text and knows nothing of HTTP requests to the sidecar.

pub mod access;
pub mod inbound;
pub mod operations;
pub mod outbound;
pub mod wakeup;
