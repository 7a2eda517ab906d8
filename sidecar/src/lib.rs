//! The twilio-edge binary: command line, start-up and shutdown of the sidecar.
//!
//! Architecture invariant: no other crate depends on this one.

pub mod cli;
