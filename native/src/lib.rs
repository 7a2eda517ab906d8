//! The filter as a dynamic module: a shared library that Envoy 1.39 and later load into their own process. It makes the same
//! decisions as the wasm filter, with the same code: `twilio_edge_filter` decides, this crate only connects it to Envoy.
//!
//! `hooks` has the functions that Envoy calls, `abi` and `envoy` those that it provides. An `edge` is one configuration. Its
//! parts are on three kinds of threads:
//!
//! - workers (`stream`, `worker`): requests, claims, the memory of recent webhooks;
//! - the main thread (`main_thread`): settlements, key ring, reports, metrics;
//! - the `ticker`, which only wakes the main thread. The main thread wakes each worker that has waiting streams.
//!
//! docs/NATIVE.md is for users, docs/adr/0045-native-module.md has the reasons.
//!
//! Architecture invariant: unsafe code is in `abi`, `envoy`, `hooks`, `handover` and `thread_bound` alone, no panic leaves a
//! hook, and no decision about a request is made in this crate.

mod abi;
mod edge;
mod envoy;
mod handover;
mod hooks;
mod main_thread;
mod metrics;
mod open_callouts;
mod sabotage;
mod stream;
mod sync;
mod thread_bound;
mod ticker;
mod worker;
