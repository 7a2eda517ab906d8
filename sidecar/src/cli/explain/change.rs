//! Difference between the request that Twilio signed and the one that arrived.

use serde::Serialize;

/// Kind of difference. The names are part of the output's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Url,
    Scheme,
    Host,
    Port,
    Userinfo,
    Path,
    Query,
    Fragment,
    Method,
    ContentType,
    Parameter,
    Encoding,
    Body,
    Signature,
    Token,
}

/// Difference and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) what: What,
    /// Sentence about what Twilio signed and what arrived. It names parameters, never their values.
    pub(super) finding: String,
    /// Sentence about the remedy and its place.
    pub(super) fix: &'static str,
}

impl Change {
    pub(super) fn new(what: What, finding: impl Into<String>, fix: &'static str) -> Self {
        Self { what, finding: finding.into(), fix }
    }
}

/// Changed value and its change.
pub(super) type Variant<T> = (Change, T);
