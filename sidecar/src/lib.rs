//! The twilio-edge sidecar.
