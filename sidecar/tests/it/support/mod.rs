//! Servers, processes and clients that the tests use.

pub(crate) mod documented;
pub(crate) mod receiver;
pub(crate) mod recorder;
pub(crate) mod servers;
pub(crate) mod sidecar;
pub(crate) mod simulator;
pub(crate) mod tls_proxy;
pub(crate) mod world;
