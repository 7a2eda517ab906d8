//! The commands of `twilio-edge`, run as a user runs them: the real executable, its output and its exit code.

#![expect(clippy::disallowed_methods, reason = "results and seeds of tests")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that meets the unexpected fails, and so do the functions it calls"
)]

mod alerts;
mod command_line;
mod dashboards;
mod documents;
mod explain;
mod explain_forms;
mod ledger;
mod listeners;
mod load;
mod oracle;
mod promql;
mod release;
mod sign;
mod simulator;
mod support;
mod terminal;
mod vectors;
