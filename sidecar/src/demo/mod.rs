//! What `make run` is made of: the shipped Envoy configuration moved to other addresses, a backend that
//! shows what arrives, and the supervisor that keeps the processes together. The end-to-end suite starts
//! its Envoys from the same configuration.

mod envoy_config;

pub use envoy_config::{BACKEND_CLUSTER, EnvoyConfig, EnvoyConfigError, SIDECAR_CLUSTER};
