//! twilio-edge.
fn main() {}
