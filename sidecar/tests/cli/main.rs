//! The commands of `twilio-edge`, run as a user runs them: the real executable, its output and its exit code.

mod explain;
mod oracle;
mod program;
mod sign;
mod vectors;
