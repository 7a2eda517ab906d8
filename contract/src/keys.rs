//! JSON body of `GET /edge/v1/config`: the keys of the accounts, which the sidecar provides to filters without keys of their
//! own. Decides what is never shown: `Debug` of these types prints the number of keys, and no key. Must not know the source
//! of the sidecar's keys, nor their use in the filter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most accounts of a [`KeyRing`]; a sidecar refuses a file that has more.
pub const MAX_ACCOUNTS: usize = 1024;

/// Most auth tokens of one account, and likewise most SharedKeys.
pub const MAX_KEYS: usize = 8;

/// Body of the reply to `GET /edge/v1/config`, and to `GET /edge/v1/config?have=GENERATION`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRing {
    /// [`crate::PROTOCOL_VERSION`].
    pub v: u32,
    /// Identifies this content, on every sidecar with the same content: 16 hexadecimal digits. It is no secret.
    pub generation: String,
    /// All accounts; none if the filter already has this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<AccountKeys>>,
}

/// The keys of one account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountKeys {
    /// `AC..`
    pub sid: String,
    /// Auth tokens, the current one first; the others are tried after it, while a token is being rotated.
    #[serde(default)]
    pub auth_tokens: Vec<String>,
    /// SharedKeys; a request names the one that signed it.
    #[serde(default)]
    pub shared_keys: Vec<SharedKeySecret>,
}

/// A SharedKey (twilio.com/docs/usage/webhooks/webhook-shared-keys).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedKeySecret {
    /// `webhooks_sharedkey_..`, as requests name it.
    pub id: String,
    /// Secret with which the key signs.
    pub secret: String,
    /// Algorithm of the key. A request may name a key, but never choose its algorithm.
    pub algorithm: KeyAlgorithm,
}

/// Algorithm of a SharedKey, in Twilio's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyAlgorithm {
    /// Twilio's default.
    #[serde(rename = "HMAC_SHA256")]
    HmacSha256,
    /// Algorithm of auth tokens.
    #[serde(rename = "HMAC_SHA1")]
    HmacSha1,
}

impl KeyAlgorithm {
    /// Parses a name as in `X-Twilio-Webhooks-Signature-Settings`, in any letter case.
    pub fn named(name: &str) -> Option<Self> {
        [(Self::HmacSha1, "HMAC_SHA1"), (Self::HmacSha256, "HMAC_SHA256")]
            .into_iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(algorithm, _)| algorithm)
    }
}

impl fmt::Debug for AccountKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccountKeys")
            .field("sid", &self.sid)
            .field("auth_tokens", &self.auth_tokens.len())
            .field("shared_keys", &self.shared_keys)
            .finish()
    }
}

impl fmt::Debug for SharedKeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SharedKeySecret")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &str = r#"{"v":1,"generation":"00112233aabbccdd","accounts":[{"sid":"AC1","auth_tokens":["hush-1","hush-2"],"shared_keys":[{"id":"webhooks_sharedkey_a","secret":"hush-3","algorithm":"HMAC_SHA256"}]}]}"#;

    #[test]
    fn wire_format_of_keys_is_unchanged() {
        let ring: KeyRing = serde_json::from_str(WIRE).unwrap();
        assert_eq!(serde_json::to_string(&ring).unwrap(), WIRE);
        let unchanged = KeyRing { accounts: None, ..ring };
        let text = serde_json::to_string(&unchanged).unwrap();
        assert_eq!(text, r#"{"v":1,"generation":"00112233aabbccdd"}"#);
        assert_eq!(serde_json::from_str::<KeyRing>(&text).unwrap(), unchanged);
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let ring: KeyRing = serde_json::from_str(WIRE).unwrap();
        for shown in [format!("{ring:?}"), format!("{ring:#?}")] {
            assert!(!shown.contains("hush"), "{shown}");
            assert!(shown.contains("webhooks_sharedkey_a") && shown.contains("AC1"), "{shown}");
        }
    }

    #[test]
    fn unknown_algorithm_is_an_error() {
        assert!(serde_json::from_str::<KeyRing>(&WIRE.replace("HMAC_SHA256", "NONE")).is_err());
    }
}
