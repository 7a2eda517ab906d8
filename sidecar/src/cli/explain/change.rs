//! One difference between the request that Twilio signed and the one that arrived.

use serde::Serialize;

/// What differs. The names are part of the output's schema.
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

/// A difference, and who can undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) what: What,
    /// A sentence: what Twilio signed and what arrived. Names parameters, never their values.
    pub(super) finding: String,
    /// A sentence: what to do about it, and where.
    pub(super) fix: &'static str,
}

impl Change {
    pub(super) fn new(what: What, finding: impl Into<String>, fix: &'static str) -> Self {
        Self { what, finding: finding.into(), fix }
    }
}

/// A changed thing and what was changed about it.
pub(super) type Variant<T> = (Change, T);
