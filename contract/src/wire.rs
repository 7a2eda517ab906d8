//! JSON bodies of the claims and settlements endpoints. Enums are snake_case. Unknown fields are ignored, so an older side
//! understands a newer one that only adds fields.

use serde::{Deserialize, Serialize};

crate::string_enum! {
    /// Kind of a webhook.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Class: serde {
        /// An inbound message.
        Inbound = "inbound",
        /// Delivery status of an outbound message.
        Status = "status",
        /// Signed by Twilio, but neither of the two: proven and forwarded, never deduplicated.
        Other = "other",
    }
}

/// The named parts that make two requests the same webhook.
///
/// Twilio sends no timestamp and does not sign its idempotency header, so neither is part of it
/// (facts: twilio.com/docs/messaging/guides/webhook-request, /docs/messaging/guides/track-outbound-message-status).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Inbound or status; `Other` is never claimed.
    pub class: Class,
    /// `AccountSid`.
    pub account_sid: String,
    /// `MessageSid`, the same on every retry, on the fallback URL and on all callbacks of a message.
    pub message_sid: String,
    /// `MessageStatus`; none for inbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `ErrorCode` of a failed status; none for inbound, where it only reports that the fallback URL was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

impl Identity {
    /// Returns the dedupe key: the parts in a fixed order. The filter's shape check admits no part with a `:`, so two
    /// identities share a key only if they are equal.
    pub fn dedupe_key(&self) -> String {
        let mut key = String::with_capacity(96);
        key.push_str(self.class.as_str());
        for part in [&self.account_sid, &self.message_sid] {
            key.push(':');
            key.push_str(part);
        }
        if self.class == Class::Status {
            for part in [&self.status, &self.error_code] {
                key.push(':');
                key.push_str(part.as_deref().unwrap_or_default());
            }
        }
        key
    }
}

impl Identity {
    /// Returns the dedupe key of a later step of the message: Twilio requests another URL, whose digest this is, after a
    /// TwiML `<Redirect>`.
    pub fn step_key(&self, url_digest: &str) -> String {
        format!("{}:{url_digest}", self.dedupe_key())
    }
}

/// Reports whether a text is the digest of a URL, as in [`Claim::url_digest`].
pub fn is_url_digest(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// JSON schema of an identity. It has two shapes: a status callback has a status, and class `other` is never claimed.
#[cfg(feature = "openapi")]
mod described {
    use utoipa::{
        PartialSchema, ToSchema,
        openapi::{
            OneOfBuilder, RefOr,
            schema::{ObjectBuilder, Schema, SchemaType, Type},
        },
    };

    use super::{Class, Identity};

    /// No `:`, which would let two identities share a dedupe key, and no control character.
    const PART: &str = r"^[^:\x00-\x1f\x7f-\x9f]{1,255}$";

    impl PartialSchema for Identity {
        fn schema() -> RefOr<Schema> {
            let of_class = |class: Class| {
                let part = |description: &str, null: bool| {
                    let types =
                        if null { vec![Type::String, Type::Null] } else { vec![Type::String] };
                    ObjectBuilder::new()
                        .schema_type(SchemaType::from_iter(types))
                        .pattern(Some(PART))
                        .description(Some(description))
                };
                let is_status = class == Class::Status;
                let named = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some([class.as_str()]));
                let described = ObjectBuilder::new()
                    .property("class", named)
                    .required("class")
                    .property("account_sid", part("`AccountSid`.", false))
                    .required("account_sid")
                    .property("message_sid", part("`MessageSid`.", false))
                    .required("message_sid")
                    .property("status", part("`MessageStatus`.", !is_status))
                    .property("error_code", part("`ErrorCode` of a failed status.", true));
                if is_status { described.required("status") } else { described }
            };
            let classes = [Class::Inbound, Class::Status].map(of_class);
            classes.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item).into()
        }
    }

    impl ToSchema for Identity {}
}

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
    fn is_empty(&self) -> bool {
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

/// The component that delivers a proven webhook to the backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The filter's Envoy forwards it; the claim is for a lease.
    #[default]
    Forward,
    /// The sidecar delivers it: the claim is answered `accepted` once it is durably recorded.
    Accept,
}

impl Delivery {
    fn is_forward(&self) -> bool {
        *self == Delivery::Forward
    }
}

/// Body of `POST /edge/v1/claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimsRequest {
    /// [`crate::PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// 1 to [`crate::MAX_BATCH`] claims.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 256))]
    pub claims: Vec<Claim>,
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
}

/// Body of the reply to `POST /edge/v1/claims`: one verdict per claim, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimsReply {
    /// [`crate::PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// One per claim.
    pub verdicts: Vec<Verdict>,
}

crate::string_enum! {
    /// Outcome of a forwarded webhook.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Outcome: serde {
        /// The backend accepted it: from now on it is a duplicate.
        Commit = "commit",
        /// The backend did not accept it: the next attempt counts as a first one.
        Release = "release",
    }
}

/// The end of one claim.
///
/// A filter that got no verdict but forwarded the webhook (policy `forward`) also settles, with the form. So the sidecar
/// records an opt-out as soon as it is available again, and does not deliver again what the backend accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settlement {
    /// The claim to settle.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]{1,255}$"))]
    pub claim_id: String,
    /// Identity of the claimed webhook.
    #[serde(flatten)]
    pub identity: Identity,
    /// Outcome of the webhook.
    pub outcome: Outcome,
    /// Route and form of a webhook for which no verdict arrived; none when the sidecar has them already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclaimed: Option<UnclaimedWebhook>,
    /// Only with `commit`: the backend's answer, if it is small and useful for duplicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<SavedAnswer>,
    /// [`Claim::url_digest`] of the settled claim.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_digest: Option<String>,
    /// [`Verdict::step`] of its claim.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Deserializer of a struct that has an identity among its fields. The code that serde derives for `flatten` first collects
/// every unknown field in a map, which cost more than the rest of reading a claim.
macro_rules! read_with_identity {
    ($name:ident { $($field:ident: $kind:ty),* ; $($optional:ident: $optional_kind:ty),* }) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    class: Class,
                    account_sid: String,
                    message_sid: String,
                    #[serde(default)]
                    status: Option<String>,
                    #[serde(default)]
                    error_code: Option<String>,
                    $($field: $kind,)*
                    $(#[serde(default)] $optional: $optional_kind,)*
                }
                let Fields {
                    class, account_sid, message_sid, status, error_code, $($field,)* $($optional,)*
                } = Fields::deserialize(deserializer)?;
                let identity = Identity { class, account_sid, message_sid, status, error_code };
                Ok($name { identity, $($field,)* $($optional,)* })
            }
        }
    };
}

read_with_identity!(Claim {
    claim_id: String, route: String, form: String;
    delivery: Delivery, request_id: Option<String>, traceparent: Option<String>,
    message_id: Option<String>, envelope: Envelope, url_digest: Option<String>
});
read_with_identity!(Settlement {
    claim_id: String, outcome: Outcome;
    unclaimed: Option<UnclaimedWebhook>, answer: Option<SavedAnswer>, url_digest: Option<String>, step: Option<String>
});

/// The contents of a [`Claim`] beyond its identity, for a webhook that was forwarded without a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnclaimedWebhook {
    /// Path of the route, without query.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    pub route: String,
    /// The signed parameters as received.
    pub form: String,
    /// Envelope of the signed parameters.
    #[serde(default, skip_serializing_if = "Envelope::is_empty")]
    pub envelope: Envelope,
}

/// Body of `POST /edge/v1/settlements`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettlementsRequest {
    /// [`crate::PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// 1 to [`crate::MAX_BATCH`] settlements.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 256))]
    pub settlements: Vec<Settlement>,
}

crate::string_enum! {
    /// Result of one settlement.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum SettlementResult: serde {
        /// Applied as requested, now or by an earlier copy of the same settlement.
        Settled = "settled",
        /// A release of an unknown claim: it is stored, and applied to the claim when it arrives.
        Tombstoned = "tombstoned",
        /// The lease has expired and belongs to another claim by now: nothing was changed.
        Superseded = "superseded",
        /// The stores could not record it: send it again.
        Unavailable = "unavailable",
    }
}

/// Acknowledgement of one [`Settlement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettlementAck {
    /// The claim this answers.
    pub claim_id: String,
    /// Result of the settlement.
    pub result: SettlementResult,
}

/// Body of the reply to `POST /edge/v1/settlements`, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettlementsReply {
    /// [`crate::PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// One per settlement.
    pub results: Vec<SettlementAck>,
}

/// Deserializes a whole number. In JSON, 200.0 is the whole number 200.
fn whole<'de, T: TryFrom<u64>, D: serde::Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let number = f64::deserialize(from)?;
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // Within these bounds each whole number has a distinct float.
    let whole = is_whole.then_some(number as u64).and_then(|whole| T::try_from(whole).ok());
    whole.ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "{number} is not a whole number within the range of this field"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: &str, error_code: Option<&str>) -> Identity {
        Identity {
            class: Class::Status,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: Some(status.into()),
            error_code: error_code.map(Into::into),
        }
    }

    #[test]
    fn statuses_of_one_message_are_different_webhooks() {
        let keys = [
            status("sent", None).dedupe_key(),
            status("delivered", None).dedupe_key(),
            status("undelivered", Some("30003")).dedupe_key(),
            status("undelivered", Some("30008")).dedupe_key(),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key), "{key}");
        }
    }

    #[test]
    fn fallback_url_carries_the_same_inbound_message() {
        let first = Identity { class: Class::Inbound, status: None, ..status("", None) };
        let fallback = Identity { error_code: Some("11200".into()), ..first.clone() };
        assert_eq!(first.dedupe_key(), "inbound:AC1:SM1");
        assert_eq!(first.dedupe_key(), fallback.dedupe_key());
    }

    #[test]
    fn later_step_of_a_message_has_a_key_of_its_own() {
        let first = Identity { class: Class::Inbound, status: None, ..status("", None) };
        assert_eq!(first.step_key("00112233aabbccdd"), "inbound:AC1:SM1:00112233aabbccdd");
        assert!(is_url_digest("00112233aabbccdd"));
        for other in ["", "0011", "00112233AABBCCDD", "00112233aabbccd:", "00112233aabbccddee"] {
            assert!(!is_url_digest(other), "{other}");
        }
    }

    #[test]
    fn wire_format_is_flat_and_ignores_unknown_fields() {
        let claim: Claim = serde_json::from_str(
            r#"{"claim_id":"c1","class":"inbound","account_sid":"AC1","message_sid":"SM1","route":"/in","form":"Body=hi","news":1}"#,
        )
        .unwrap();
        assert_eq!(claim.identity.dedupe_key(), "inbound:AC1:SM1");
        let verdict: Verdict =
            serde_json::from_str(r#"{"claim_id":"c1","decision":"in_flight"}"#).unwrap();
        assert_eq!(verdict.decision, Decision::InFlight);
        assert!(!verdict.suppressed);
    }
}
