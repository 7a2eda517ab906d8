//! twilio-edge filter.
