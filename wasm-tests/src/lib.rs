//! The bench on which the compiled filter and the sidecar are tested, all parts real: Envoy, the sidecar, Redis,
//! PostgreSQL, Kafka, S3's API, and Twilio's own SDKs to sign. A backend that writes everything down stands behind them, clients
//! that can misbehave in front.
//!
//! [`stack::Stack`] puts them together. A scenario makes a [`webhook::Form`], has it signed, sends it, and then asks what the
//! client got ([`client::Response`]), what the backend saw ([`recorder::Seen`]) and what the sidecar keeps
//! ([`ledger::Ledger`]).
//!
//! What happens while a part is away is a table ([`failures`]), which scenarios hold the real parts against.
//!
//! What stands between our Kubernetes resources and Envoy is in [`mesh`].
//!
//! What the real Envoy cannot be made to do at will is done by [`host`], which runs the same compiled filter.
//!
//! `make setup-test` puts the parts where they are looked for; TWILIO_EDGE_ENVOY, TWILIO_EDGE_ENVOY_OLDEST,
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

/// The root of the repository.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
