//! The twilio-edge filter: proves at the edge that a webhook is Twilio's, before a proxy transforms it or a
//! backend sees it.
//!
//! The path of a webhook, file by file:
//!
//! 1. [`filter`](self) receives Envoy's callbacks and turns each into an [`exchange::Event`].
//! 2. [`exchange`] is one request as a state machine. It strips headers in our name, finds the route in the
//!    [`config`], and waits for the end of the body.
//! 3. `judgement` decides whether it is Twilio's: [`form`] parses, [`signature`] verifies with the [`keys`] of the
//!    account, [`form::Webhook`] checks the shape.
//! 4. A proven webhook is claimed: its letter waits in [`callouts`], which the streams of a `worker` share, and
//!    `root` sends it to the sidecar together with others (`twilio_edge_contract` is the wire format).
//! 5. The verdict comes back to the exchange: forward with what `handover` says, answer a duplicate, ask again
//!    about a copy in flight, or, without a verdict, what the route's policy says.
//! 6. The backend's answer settles the claim: commit on 2xx, release otherwise.
//! 7. Whatever is refused is a [`reply::Reason`]; whatever happens is a [`metrics::Counter`].
//!
//! [`refresh`] keeps the keys fresh, if they are the sidecar's. `host` is the only file that talks to the proxy. Outside of Envoy (tests, the command line) the crate is
//! the pure modules alone.

pub mod callouts;
pub mod config;
pub mod exchange;
pub mod form;
mod handover;
mod judgement;
pub mod keys;
pub mod log_limit;
pub mod metrics;
mod opt_out;
pub mod overrides;
pub mod pairs;
pub mod refresh;
pub mod reply;
pub mod signature;
mod target;

#[cfg(target_arch = "wasm32")]
mod filter;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(target_arch = "wasm32")]
mod root;
#[cfg(target_arch = "wasm32")]
mod worker;

#[cfg(target_arch = "wasm32")]
mod entry {
    proxy_wasm::main! {{
        // Also installs a panic hook that logs, should there ever be a panic.
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
        proxy_wasm::set_root_context(|id| Box::new(super::root::Root::new(id)));
    }}
}
