//! Captured request as it reached the edge, and the filter's verdict on it. The verdict is the filter's own: the functions
//! called here run in Envoy as well, in the same order.
//!
//! Must not know: where the request came from, what is printed.

use std::fmt;

use twilio_edge_filter::form::{Form, MAX_PARAMETERS};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::{BodyRule, Key, KeyMatch, Mismatch, SignatureSettings, verify};

/// Header with the signature; names are compared without regard to case.
pub(crate) const SIGNATURE_HEADER: &str = "X-Twilio-Signature";

/// Header that names the SharedKey of the signature.
const SETTINGS_HEADER: &str = "X-Twilio-Webhooks-Signature-Settings";

/// Request with its URL as the public sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Method, with its case unchanged.
    pub method: String,
    /// Public URL: the configured origin and the path and query received.
    pub url: String,
    /// Headers in the order received.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// Reason why the filter would refuse a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The form has more parameters than the filter reads.
    TooManyParameters,
    /// The settings header names an unsupported setting.
    UnsupportedSettings,
    /// The signature matches no key.
    Mismatch(Mismatch),
}

impl Rejection {
    /// Returns the filter's reason, with its response to the client.
    pub fn reason(self) -> Reason {
        match self {
            Self::TooManyParameters => Reason::TooManyParameters,
            Self::UnsupportedSettings => Reason::UnknownKey,
            Self::Mismatch(Mismatch::NoSignature) => Reason::MissingSignature,
            Self::Mismatch(Mismatch::WrongSignature) => Reason::InvalidSignature,
            Self::Mismatch(Mismatch::NoBodyHash) => Reason::MissingBodyHash,
            Self::Mismatch(Mismatch::WrongBodyHash) => Reason::InvalidBodyHash,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooManyParameters => {
                return write!(formatter, "the form has more than {MAX_PARAMETERS} parameters");
            }
            Self::UnsupportedSettings => {
                "X-Twilio-Webhooks-Signature-Settings names no SharedKey with an algorithm the filter has"
            }
            Self::Mismatch(Mismatch::NoSignature) => {
                "there is no X-Twilio-Signature header, or it is empty"
            }
            Self::Mismatch(Mismatch::WrongSignature) => {
                "no key given signed this URL, with or without its port, and these parameters"
            }
            Self::Mismatch(Mismatch::NoBodyHash) => {
                "the body is no form and the URL has no bodySHA256: nothing binds the body to the signature"
            }
            Self::Mismatch(Mismatch::WrongBodyHash) => {
                "bodySHA256 in the URL is not the hash of the body"
            }
        })
    }
}

impl Captured {
    /// Returns the first value of a header; the case of the name does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns `secret` as the key that this request names: an auth token, unless it names a SharedKey.
    pub fn key(&self, label: &str, secret: &str) -> Option<Key> {
        match self.settings() {
            SignatureSettings::Shared { algorithm, .. } => Key::shared(label, secret, algorithm),
            SignatureSettings::AuthToken | SignatureSettings::Unsupported => {
                Key::auth_token(label, secret)
            }
        }
    }

    /// Returns whether the request names a SharedKey as its signer.
    pub fn names_shared_key(&self) -> bool {
        matches!(self.settings(), SignatureSettings::Shared { .. })
    }

    /// Returns the id of the SharedKey that the request names as its signer.
    pub fn shared_key_id(&self) -> Option<&str> {
        match self.settings() {
            SignatureSettings::Shared { id, .. } => Some(id),
            SignatureSettings::AuthToken | SignatureSettings::Unsupported => None,
        }
    }

    fn settings(&self) -> SignatureSettings<'_> {
        SignatureSettings::parse(self.header(SETTINGS_HEADER).map(str::as_bytes))
    }

    /// Returns how the body takes part in the signature.
    pub fn body_rule(&self) -> BodyRule {
        let content_type = self.header("Content-Type").map(str::as_bytes);
        BodyRule::for_request(self.method.as_bytes(), content_type, &self.body)
    }

    /// Returns the filter's verdict on the signature.
    pub fn judge(&self, keys: &[Key]) -> Result<KeyMatch, Rejection> {
        let rule = self.body_rule();
        let form = Form::parse(rule.parameters(&self.url, &self.body))
            .map_err(|_| Rejection::TooManyParameters)?;
        let signature = self.header(SIGNATURE_HEADER).map(str::as_bytes);
        if self.settings() == SignatureSettings::Unsupported {
            return Err(Rejection::UnsupportedSettings);
        }
        verify(&self.url, rule.payload(&form, &self.body), signature, keys)
            .map_err(Rejection::Mismatch)
    }
}
