//! Test bench for the compiled filter and the sidecar. All parts are real: Envoy, the sidecar, Redis, PostgreSQL, Kafka,
//! S3's API, and Twilio's own SDKs for signatures. Behind them is a backend that records every request, in front of them are
//! clients that can misbehave.
//!
//! [`stack::Stack`] combines them. A scenario creates a [`webhook::Form`], lets an SDK sign it, sends it, and then checks
//! the client's response ([`client::Response`]), the requests of the backend ([`recorder::Seen`]) and the sidecar's tables
//! ([`ledger::Ledger`]).
//!
//! [`failures`] is the table of the behaviour while a part is unavailable; scenarios compare the real parts with it.
//!
//! [`mesh`] stands for the control planes between the Kubernetes resources and Envoy.
//!
//! [`host`] runs the same compiled filter in situations that the real Envoy cannot be forced into.
//!
//! `make setup-test` installs the parts in their default places; TWILIO_EDGE_ENVOY, TWILIO_EDGE_ENVOY_OLDEST,
//! TWILIO_EDGE_WASM, TWILIO_EDGE_BIN and TWILIO_EDGE_PYTHON name others.

pub mod application;
pub mod audit;
pub mod broker;
pub mod caller;
pub mod client;
pub mod dependencies;
pub mod envoy;
pub mod failures;
pub mod host;
pub mod http1;
pub mod http2;
pub mod ledger;
pub mod line;
pub mod mesh;
pub mod objects;
pub mod postgres;
pub mod process;
pub mod recorder;
pub mod redis;
pub mod sabotage;
pub mod sidecar;
pub mod signers;
pub mod stack;
pub mod tls;
pub mod webhook;

/// Returns the root of the repository.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
