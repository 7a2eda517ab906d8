//! The twilio-edge sidecar.

pub mod demo;
