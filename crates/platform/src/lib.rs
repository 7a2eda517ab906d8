//! Process of the sidecar: configuration, clock, background tasks, listeners, files, terminal, and telemetry.
//!
//! Architecture invariant: knows no use case, no table of the store, and no remote service but the trace collector.

pub mod clock;
pub mod config;
pub mod file_access;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod store_metrics;
pub mod strict_toml;
pub mod tasks;
pub mod terminal;
pub mod traces;
