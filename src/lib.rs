//! twilio-edge filter.
pub mod config;
pub mod exchange;
pub mod form;
pub mod metrics;
pub mod reply;
pub mod signature;
