//! twilio-edge filter.
pub mod form;
pub mod signature;
