//! Parts of `make run`: the shipped Envoy configuration with other addresses, a backend that prints what arrives, and
//! processes that start and end together. The end-to-end suite starts its Envoys from the same configuration.
//!
//! Architecture invariant: depends on nothing of the service, so that end-to-end tests can use it.

pub mod account;
pub mod backend;
mod envoy_config;
pub mod key;
pub mod ports;
pub mod processes;

pub use envoy_config::{BACKEND_CLUSTER, EnvoyConfig, EnvoyConfigError, SIDECAR_CLUSTER};

/// Account SID of the demo; it does not exist at Twilio.
pub const ACCOUNT_SID: &str = "AC00112233445566778899aabbccddeeff";
/// Auth token of the demo, public and without value.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Token of the demo's filter at its sidecar.
pub const EDGE_TOKEN: &str = "local-edge-token";
/// Port of the demo's Envoy on 127.0.0.1, where webhooks are sent.
pub const EDGE_PORT: u16 = 8080;
