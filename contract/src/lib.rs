//! The contract between the filter and the sidecar: wire types, header names, and the dedupe key. Both sides depend on this
//! crate, so neither can drift; it depends on serde only.
//!
//! Exchange about one webhook:
//!
//! ```text
//! filter  -> sidecar   POST /edge/v1/claims        [Claim]       "may I forward this webhook?"
//! sidecar -> filter    200                         [Verdict]     "proceed" | "duplicate" | "in flight"
//! filter  -> sidecar   POST /edge/v1/settlements   [Settlement]  "the backend accepted it" | "it did not"
//! sidecar -> filter    200                         [SettlementAck]
//! ```
//!
//! A filter whose configuration contains no keys also sends this request at intervals:
//!
//! ```text
//! filter  -> sidecar   GET /edge/v1/config?have=.. "has anything changed?"
//! sidecar -> filter    200                         [KeyRing]     "no" | "these are the keys now"
//! ```
//!
//! Every request is authorized by `Authorization: Bearer <edge token>`. Every POST is a batch, and idempotent by
//! (key, claim_id): sending the same batch again changes nothing and gives the same answer.

mod claim;
pub mod headers;
mod identity;
mod keys;
mod settlement;
#[doc(hidden)]
pub mod string_enum;
mod wire;

pub use claim::{
    Claim, ClaimsReply, ClaimsRequest, Decision, Delivery, Envelope, Opt, SavedAnswer, Verdict,
};
pub use identity::{Class, Identity, is_url_digest};
pub use keys::{AccountKeys, KeyAlgorithm, KeyRing, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret};
pub use settlement::{
    Outcome, Settlement, SettlementAck, SettlementResult, SettlementsReply, SettlementsRequest,
    UnclaimedWebhook,
};

/// Version of the wire format; every request and reply carries it as `v`. A reply without it did not come
/// from a sidecar: Envoy answers 502, 503 and 504 itself when a callout fails.
pub const PROTOCOL_VERSION: u32 = 1;

/// Path of [`ClaimsRequest`].
pub const CLAIMS_PATH: &str = "/edge/v1/claims";

/// Path of [`SettlementsRequest`].
pub const SETTLEMENTS_PATH: &str = "/edge/v1/settlements";

/// Path of [`KeyRing`]; `?have=GENERATION` names the generation that the filter has.
pub const EDGE_CONFIG_PATH: &str = "/edge/v1/config";

/// Query parameter of the status callback URL: the id of the sidecar's message. Twilio signs the whole URL.
pub const MESSAGE_PARAMETER: &str = "twilio_edge_message";

/// Reports whether `text` is the id of a message of the sidecar: `ms_` and 32 hexadecimal digits, in lower case.
pub fn is_message_id(text: &str) -> bool {
    text.strip_prefix("ms_").is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Most claims or settlements of one request; a sidecar answers 413 to more.
pub const MAX_BATCH: usize = 256;
