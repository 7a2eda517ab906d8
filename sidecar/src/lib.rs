//! The twilio-edge sidecar and command line.
//!
//! The path of a webhook through the sidecar, file by file:
//!
//! ```text
//! http/claims.rs  ->  claims.rs  ->  domain/*   what does it say, who may have it        pure
//!                                ->  store/*    opt-outs, leases, windows                 durable
//!                                ->  events.rs  the ledger, right behind the answer
//! http/settlements.rs  ->  the same files, once the backend has answered
//! ```

pub mod cli;
pub mod demo;
