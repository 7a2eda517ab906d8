//! Claim of a webhook, and the sidecar's verdict.

use serde::{Deserialize, Serialize};

use crate::identity::{Class, Identity};
use crate::wire::{read_with_identity, whole};

/// One webhook, proven to be Twilio's, on its way to the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claim {
    /// Made by the filter, unique per request: the owner's token for the lease.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]{1,255}$"))]
    pub claim_id: String,
    /// Identity of the webhook that is claimed.
    #[serde(flatten)]
    pub identity: Identity,
    /// Path of the route, without query.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    pub route: String,
    /// The signed parameters as received, `application/x-www-form-urlencoded` (the query of a GET).
    pub form: String,
    /// The component that delivers the webhook to the backend.
    #[serde(default, skip_serializing_if = "Delivery::is_forward")]
    pub delivery: Delivery,
    /// `x-request-id`, to find the request in the logs of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `traceparent` (W3C Trace Context), to continue the trace of the request. Each claim has its own, because one call
    /// carries the claims of many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// [`crate::MESSAGE_PARAMETER`] of the signed URL: the id of the sidecar's own message that a status is about.
    #[cfg_attr(feature = "openapi", schema(pattern = "^ms_[0-9a-f]{32}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Envelope of the signed parameters.
    #[serde(default, skip_serializing_if = "Envelope::is_empty")]
    pub envelope: Envelope,
    /// Inbound only: digest of the signed path and query, or of those of the URL that failed if this is a fallback. The same
    /// message at another URL is a step of it after a TwiML `<Redirect>`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_digest: Option<String>,
}

/// Envelope of the signed parameters, as far as it may be stored with them. It contains neither the signature nor any other
/// proof of the sender: a reader of the stored data must not be able to replay the request as Twilio's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// `POST` or `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The public URL that was signed, without its query and without a user: either may contain a secret, or the parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `content-type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `i-twilio-idempotency-token`: the same for every attempt of Twilio's, and not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_token: Option<String>,
}

impl Envelope {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Envelope::default()
    }
}

impl Claim {
    /// Creates a claim for a lease, without request id and trace.
    pub fn new(claim_id: String, identity: Identity, route: String, form: String) -> Self {
        let delivery = Delivery::Forward;
        Self {
            claim_id,
            identity,
            route,
            form,
            delivery,
            request_id: None,
            traceparent: None,
            message_id: None,
            envelope: Envelope::default(),
            url_digest: None,
        }
    }
}

crate::string_enum! {
    /// The component that delivers a proven webhook to the backend.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Delivery: serde {
        /// The filter's Envoy forwards it; the claim is for a lease.
        #[default]
        Forward = "forward",
        /// The sidecar delivers it: the claim is answered `accepted` once it is durably recorded.
        Accept = "accept",
    }
}

impl Delivery {
    fn is_forward(&self) -> bool {
        *self == Delivery::Forward
    }
}

crate::string_enum! {
    /// The sidecar's decision about one claim.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Decision: serde {
        /// The claim holds the lease: forward, then settle.
        Proceed = "proceed",
        /// The backend already accepted this webhook: answer Twilio with a 2xx, forward nothing.
        Duplicate = "duplicate",
        /// Another request holds the lease: claim again until it is settled.
        InFlight = "in_flight",
        /// A release of this claim id came before the claim: its client has disconnected, and no lease was created.
        Released = "released",
        /// The stores could not answer for this claim: the class's policy decides, as without a reply.
        Unavailable = "unavailable",
        /// Only for a claim with `delivery: accept`: it is recorded durably, and the sidecar will deliver it. Answer Twilio now,
        /// forward nothing, settle nothing.
        Accepted = "accepted",
    }
}

crate::string_enum! {
    /// An opt-out keyword, from `OptOutType` or from a message of one word.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Opt: serde {
        /// STOP and its synonyms: the sender is suppressed from now on.
        Stop = "stop",
        /// START and its synonyms: the suppression ends.
        Start = "start",
        /// HELP: changes nothing.
        Help = "help",
    }
}

/// The backend's answer to the first attempt, if it is small enough to store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SavedAnswer {
    /// HTTP status, 2xx.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 65535))]
    #[serde(deserialize_with = "whole")]
    pub status: u16,
    /// Content type as the backend sent it.
    pub content_type: String,
    /// Body as text.
    pub body: String,
}

/// The sidecar's answer to one [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// The claim this answers.
    pub claim_id: String,
    /// Decision that the filter applies.
    pub decision: Decision,
    /// Only with `proceed`: how many times this webhook was claimed, this time included, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Inbound only: the message was an opt-out, an opt-in or a request for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt: Option<Opt>,
    /// Inbound only: the sender is on the suppression list, after this message was taken into account.
    #[serde(default)]
    pub suppressed: bool,
    /// Inbound only: end of the 24-hour window, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_expires: Option<String>,
    /// Only with `duplicate`: the backend's answer to the first attempt, if it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<SavedAnswer>,
    /// Only with `proceed`: the claim is for a later step of the message, and its settlement names it.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only with `proceed`: media of an inbound message that the sidecar stores, in the order of `MediaUrl0..9`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<MediaLink>,
}

/// Medium of an inbound message in the media store of the sidecar. Its link is valid before the medium is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MediaLink {
    /// Id of the medium, `mi_..`.
    pub id: String,
    /// Content type as Twilio declared it.
    pub content_type: String,
    /// Link to the bytes, the same in every event of the message.
    pub url: String,
}

impl Verdict {
    /// Creates a verdict without details.
    pub fn new(claim_id: String, decision: Decision) -> Self {
        Self {
            claim_id,
            decision,
            attempt: None,
            opt: None,
            suppressed: false,
            window_expires: None,
            answer: None,
            step: None,
            media: Vec::new(),
        }
    }
}

read_with_identity!(Claim {
    claim_id: String, route: String, form: String;
    delivery: Delivery, request_id: Option<String>, traceparent: Option<String>,
    message_id: Option<String>, envelope: Envelope, url_digest: Option<String>
});
