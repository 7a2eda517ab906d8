//! The sidecar as its users meet it: the real binary, over HTTP, on real SQLite, PostgreSQL and Redis servers that these
//! tests start for themselves and may kill.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "results and seeds of tests")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails, and so do the functions it calls"
)]

mod access;
mod api;
mod console;
mod inbound;
mod operations;
mod outbound;
mod store;
mod support;
