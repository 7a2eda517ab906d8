//! The contract between the filter and the sidecar: wire types, header names, and the dedupe key. Both sides depend on this
//! crate, so neither can drift; it depends on serde only.
//!
//! Exchange about one webhook:
//!
//! ```text
//! filter  -> sidecar   POST /edge/v1/exchange   [Claim]          "may I forward these webhooks?"
//!                                               [Settlement]     "the backend accepted these" | "it did not"
//! sidecar -> filter    200                      [Verdict]        "proceed" | "duplicate" | "in flight"
//!                                               [SettlementAck]  "recorded"
//! ```
//!
//! A filter whose configuration contains no keys also sends this request at intervals:
//!
//! ```text
//! filter  -> sidecar   GET /edge/v1/config?have=..  "has anything changed?"
//! sidecar -> filter    200                          [KeyRing] "no" | "these are the keys now"
//! ```
//!
//! A filter also reports a sample of the requests that it refused. Nothing waits for the reply:
//!
//! ```text
//! filter  -> sidecar   POST /edge/v1/refusals   [RefusedRequest]  "why would these signatures not match?"
//! sidecar -> filter    200                      RefusalReportReply
//! ```
//!
//! Every request is authorized by `Authorization: Bearer <edge token>`. An exchange is a batch, and idempotent by
//! (key, claim_id): sending the same batch again changes nothing and gives the same answer. Filters send it in the compact
//! form of [`EXCHANGE_MEDIA_TYPE`]; the sidecar answers in the form of the request, so people and tests may use JSON.

mod binary;
mod claim;
mod exchange;
pub mod headers;
mod identity;
mod keys;
mod records;
mod refused_request;
mod settlement;
#[doc(hidden)]
pub mod string_enum;
mod wire;

pub use binary::{DecodeError, FieldProblem};
pub use claim::{Claim, Decision, Delivery, Envelope, MediaLink, Opt, SavedAnswer, Verdict};
pub use exchange::{ExchangeReply, ExchangeRequest, encode_request};
pub use identity::{Class, Identity, is_url_digest};
pub use keys::{AccountKeys, KeyAlgorithm, KeyRing, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret};
pub use refused_request::{
    BodyContent, HeaderLine, MAX_REPORTED, PublicOrigin, RefusalReport, RefusalReportReply,
    RefusedRequest,
};
pub use settlement::{Outcome, Settlement, SettlementAck, SettlementResult, UnclaimedWebhook};

/// Version of the wire format; every request and reply contains it. A reply without it did not come
/// from a sidecar: Envoy answers 502, 503 and 504 itself when a callout fails.
pub const PROTOCOL_VERSION: u32 = 1;

/// Path of [`ExchangeRequest`].
pub const EXCHANGE_PATH: &str = "/edge/v1/exchange";

/// Path of [`RefusalReport`].
pub const REFUSALS_PATH: &str = "/edge/v1/refusals";

/// Content type of an exchange in its binary form, request and reply, and of a report of refused requests.
pub const EXCHANGE_MEDIA_TYPE: &str = "application/vnd.twilio-edge.exchange";

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

/// Most claims, and most settlements, of one request; a sidecar answers 413 to more.
pub const MAX_BATCH: usize = 256;
