//! Configuration, listeners, logs, metrics, traces, archive and retention.

pub(crate) mod archives;
pub(crate) mod connections;
pub(crate) mod http2;
pub(crate) mod ledger_commands;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod retention;
pub(crate) mod settings;
pub(crate) mod terminal;
pub(crate) mod traces;
