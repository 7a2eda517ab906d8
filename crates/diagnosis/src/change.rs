//! Difference between the request that Twilio signed and the one that arrived.

use serde::Serialize;

/// Kind of difference. The names are part of the output's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The whole URL.
    Url,
    /// Its scheme.
    Scheme,
    /// Its host.
    Host,
    /// Its port.
    Port,
    /// Its user and password.
    Userinfo,
    /// Its path.
    Path,
    /// Its query.
    Query,
    /// Its fragment.
    Fragment,
    /// The method: parameters moved between URL and body.
    Method,
    /// The content type.
    ContentType,
    /// One or more parameters of the form.
    Parameter,
    /// The encoding of the form.
    Encoding,
    /// The body.
    Body,
    /// The signature header.
    Signature,
    /// The auth token.
    Token,
}

/// Difference and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Kind of the difference.
    pub what: What,
    /// Sentence about what Twilio signed and what arrived. It names parameters, never their values.
    pub finding: String,
    /// Sentence about the remedy and its place.
    pub fix: &'static str,
}

impl Change {
    pub(crate) fn new(what: What, finding: impl Into<String>, fix: &'static str) -> Self {
        Self { what, finding: finding.into(), fix }
    }
}

/// Changed value and its change.
pub(crate) type Variant<T> = (Change, T);
