//! What the filter and the sidecar say to each other, and nothing else: wire types, header names, the
//! dedupe key. Both sides depend on this crate, so neither can drift; it knows serde only.
//!
//! A conversation about one webhook:
//!
//! ```text
//! filter  -> sidecar   POST /edge/v1/claims        [Claim]       "may I forward this one?"
//! sidecar -> filter    200                         [Verdict]     "yes" | "seen" | "someone is on it"
//! filter  -> sidecar   POST /edge/v1/settlements   [Settlement]  "the backend took it" | "it did not"
//! sidecar -> filter    200                         [Settled]
//! ```
//!
//! And, of a filter that was given no keys of its own, now and then:
//!
//! ```text
//! filter  -> sidecar   GET /edge/v1/config?have=.. "has anything changed?"
//! sidecar -> filter    200                         [KeyRing]     "no" | "these are the keys now"
//! ```
//!
//! Every request is authorized by `Authorization: Bearer <edge token>`. Every POST is a batch, and idempotent by
//! (key, claim_id): sending the same batch again changes nothing and answers the same.

pub mod headers;
mod keys;
mod wire;

pub use keys::{AccountKeys, KeyAlgorithm, KeyRing, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret};
pub use wire::{
    Claim, ClaimsReply, ClaimsRequest, Class, Decision, Delivery, Envelope, Identity, Opt, Outcome,
    SavedAnswer, Settled, Settlement, SettlementResult, SettlementsReply, SettlementsRequest,
    Unclaimed, Verdict, is_target,
};

/// Version of the wire format; every request and reply carries it as `v`. A reply without it did not come
/// from a sidecar: Envoy answers 502, 503 and 504 itself when a callout fails.
pub const PROTOCOL_VERSION: u32 = 1;

/// Path of [`ClaimsRequest`].
pub const CLAIMS_PATH: &str = "/edge/v1/claims";

/// Path of [`SettlementsRequest`].
pub const SETTLEMENTS_PATH: &str = "/edge/v1/settlements";

/// Path of [`KeyRing`]; `?have=GENERATION` says which one the filter has.
pub const EDGE_CONFIG_PATH: &str = "/edge/v1/config";

/// Of the URL that Twilio is given for the statuses of a message: which one of ours it is. Twilio signs the whole URL.
pub const SEND_PARAMETER: &str = "twilio_edge_send";

/// What the sidecar calls a message of its own: `ms_` and 32 hexadecimal digits, in lower case.
pub fn is_send_id(text: &str) -> bool {
    text.strip_prefix("ms_").is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Most claims or settlements one request may carry; a sidecar answers 413 to more.
pub const MAX_BATCH: usize = 256;
