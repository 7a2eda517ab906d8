//! Class and identity of a webhook, and its dedupe key.

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

/// Reports whether a text is the digest of a URL, as in [`crate::Claim::url_digest`].
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
