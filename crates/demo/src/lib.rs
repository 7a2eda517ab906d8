//! What `make run` is made of: the shipped Envoy configuration moved to other addresses, a backend that
//! shows what arrives, and processes that live and die together. The end-to-end suite starts its Envoys from
//! the same configuration.
//!
//! Architecture invariant: depends on nothing of the service, so that end-to-end tests can use it.

pub mod account;
pub mod backend;
mod envoy_config;
pub mod key;
pub mod ports;
pub mod processes;

pub use envoy_config::{BACKEND_CLUSTER, EnvoyConfig, EnvoyConfigError, SIDECAR_CLUSTER};

/// The account of the demo; nobody's at Twilio.
pub const ACCOUNT_SID: &str = "AC00112233445566778899aabbccddeeff";
/// Its auth token, public and worth nothing.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What the demo's filter shows its sidecar.
pub const EDGE_TOKEN: &str = "local-edge-token";
/// Port of the demo's Envoy on 127.0.0.1, where webhooks are sent.
pub const EDGE_PORT: u16 = 8080;
