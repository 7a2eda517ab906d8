//! Parts that every adapter between a proxy and the state machine needs: the wasm filter, and the native module in `native/`.
//!
//! [`read_head`] and [`read_response`] read headers, [`carry_out`] carries out effects through a [`StreamHost`], [`Worker`] is
//! the state that the streams of a worker share, [`sidecar_headers`] and the functions beside it form the exchange with the
//! sidecar. Must not know: a proxy, its pointers or its callbacks.

mod effects;
mod head;
mod replies;
mod sidecar_calls;
mod worker;

pub use self::effects::{Callback, StreamHost, carry_out};
pub use self::head::{read_head, read_response};
pub use self::replies::{acknowledge, match_verdicts, retry};
pub use self::sidecar_calls::{MAX_REPLY_BYTES, is_reply_of, sidecar_headers};
pub use self::worker::{ClaimOrigin, ClaimResult, SettlementOrigin, Worker};
use crate::config::Config;
use crate::signature::hash_body;

/// Interval in milliseconds at which deadlines are checked, settlements sent and metrics reported.
pub const TICK_MS: u64 = 10;
/// The same interval without a sidecar: only the wait for a body is checked, and counters are reported.
pub const IDLE_TICK_MS: u64 = 250;
/// Time in milliseconds after which a settlement is dropped if the sidecar stays unavailable. Its lease has expired long
/// before; the filter stores it that long because it may contain an opt-out.
pub const SETTLEMENT_LIFE_MS: u64 = 60 * 60 * 1000;
/// Most bytes of claims that may wait, per worker and lane.
pub const MAX_CLAIM_BYTES: usize = 6 << 20;
/// Most bytes of settlements that may wait, per worker and lane.
pub const MAX_SETTLEMENT_BYTES: usize = 10 << 20;

/// Returns the interval in milliseconds of an adapter's ticks.
pub fn tick_ms(config: &Config) -> u64 {
    if config.sidecar.is_some() { TICK_MS } else { IDLE_TICK_MS }
}

/// Returns the log line that identifies the build and the configuration; `digest` is that of the configuration.
pub fn start_line(config: &Config, digest: &str) -> String {
    format!(
        "twilio-edge {} ready: configuration {}, {} origins, {}, {} routes, {}",
        env!("CARGO_PKG_VERSION"),
        digest.get(..12).unwrap_or_default(),
        config.origins.len(),
        account_summary(config),
        config.routes.len(),
        match &config.sidecar {
            Some(sidecar) => format!("sidecar in cluster {}", sidecar.cluster),
            None => "no sidecar".to_owned(),
        }
    )
}

/// Returns the number of accounts and keys, for the log.
pub fn account_summary(config: &Config) -> String {
    let accounts = &config.accounts;
    let keys: usize = accounts.iter().map(|it| it.keys.len() + it.shared_keys.len()).sum();
    format!("{} accounts with {keys} keys", accounts.len())
}

/// Returns the digest that identifies a configuration without showing it: hexadecimal digits.
pub fn configuration_digest(json: &[u8]) -> String {
    hash_body(json)
}

/// Returns the value of the gauge `twilio_edge.generation`: a number that identifies configuration and key ring.
pub fn generation_number(digest: &str, key_ring: &str) -> u32 {
    let digest = hash_body(format!("{digest}{key_ring}").as_bytes());
    let number = digest.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.unwrap_or_default()
}
