//! The twilio-edge filter, a proxy-wasm plugin for Envoy. It proves at the edge that a webhook is Twilio's, before a proxy
//! transforms it or a backend sees it.
//!
//! The path of a webhook, file by file:
//!
//! 1. [`filter`](self) receives Envoy's callbacks and turns each into an [`exchange::Event`].
//! 2. [`exchange`] is the state machine of one request. It removes headers in the filter's name, finds the route in the
//!    [`config`], and waits for the end of the body.
//! 3. `verification` decides whether the request is Twilio's: [`form`] parses, [`signature`] verifies with the [`keys`] of the
//!    account, [`form::Webhook`] checks the shape.
//! 4. The filter claims a proven webhook. The claim waits in [`callouts`], which the streams of a `worker` share, and `root`
//!    sends it to the sidecar together with other claims (`twilio_edge_contract` is the wire format).
//! 5. The exchange receives the verdict. It forwards with the headers and body of `upstream_request`, answers a duplicate, or claims
//!    again while a copy is in flight. Without a verdict the route's policy decides.
//! 6. The backend's answer settles the claim: commit on 2xx, release otherwise.
//! 7. Every refusal has a [`reply::Reason`]; every event that is counted has a [`metrics::Counter`].
//!
//! [`refused_requests`] reports a sample of the refusals to the sidecar, which explains them.
//! [`refresh`] keeps the keys current if the sidecar provides them. [`recent_webhooks`] answers repeats of recent webhooks without the
//! sidecar. [`adapter`] has the parts that this adapter shares with the native module in `native/`. `host` is the only file that
//! talks to the proxy.
//! Outside of Envoy (tests, the command line) the crate consists of the pure modules alone.

pub mod adapter;
pub mod callouts;
pub mod config;
pub mod exchange;
pub mod form;
pub mod header_map;
pub mod keys;
pub mod log_limit;
pub mod metrics;
mod opt_out;
pub mod overrides;
pub mod recent_webhooks;
pub mod refresh;
pub mod refused_requests;
pub mod reply;
pub mod signature;
mod upstream_request;
mod url_digest;
mod verification;

#[cfg(target_arch = "wasm32")]
mod filter;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(target_arch = "wasm32")]
mod root;
#[cfg(target_arch = "wasm32")]
mod worker;

/// Allocator of the VM: a worker makes a hundred small allocations for a webhook. docs/adr/0028 has the figures.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

#[cfg(target_arch = "wasm32")]
mod entry {
    proxy_wasm::main! {{
        // Also installs a panic hook that logs, should there ever be a panic.
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
        proxy_wasm::set_root_context(|id| Box::new(super::root::Root::new(id)));
    }}
}
