//! Report of a diagnosis.
//!
//! The JSON's fields are API: a field is added, never renamed or given another meaning without raising `schema`.

use serde::Serialize;

use crate::change::Change;
use crate::route::RouteVerdict;

/// Version of the JSON.
pub(crate) const SCHEMA: u32 = 1;

/// Complete report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the JSON.
    pub schema: u32,
    /// True if the filter accepts the signature as it is.
    pub matches: bool,
    /// Reason of the filter, if it refuses.
    pub reason: Option<&'static str>,
    /// Method of the request.
    pub method: String,
    /// URLs that Twilio may have signed according to the configuration.
    pub candidates: Vec<String>,
    /// `form`, `hash` or `none`.
    pub body_rule: &'static str,
    /// Length of the body.
    pub body_bytes: usize,
    /// Number of signed parameters, if the body is a form.
    pub parameters: usize,
    /// Names of the keys that were tried.
    pub keys: Vec<String>,
    /// Request that was signed; with `matches` it is the received one.
    pub signed: Option<Signed>,
    /// Number of computed signatures.
    pub tried: usize,
    /// True if the search was complete, or was stopped at its limits.
    pub complete: bool,
    /// Verdict on the parameters.
    pub shape: Shape,
    /// Verdict of the route.
    pub route: RouteVerdict,
    /// Further notes.
    pub notes: Vec<String>,
    /// Only on demand: anyone who has them can send this request as Twilio.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Computed>,
}

/// Request that was signed.
#[derive(Debug, Serialize)]
pub struct Signed {
    /// Name of the key.
    pub key: String,
    /// URL that was signed, without its password.
    pub url: String,
    /// Differences from the request that arrived.
    pub changes: Vec<Change>,
}

/// Verdict of the filter on the parameters, if the signature is right.
#[derive(Debug, Serialize)]
pub struct Shape {
    /// Class of the route.
    pub class: &'static str,
    /// True if a route of this class accepts the parameters.
    pub accepted: bool,
    /// Reason of the refusal.
    pub reason: Option<&'static str>,
    /// Field concerned.
    pub field: Option<&'static str>,
}

/// Signature that would match.
#[derive(Debug, Serialize)]
pub struct Computed {
    /// Name of the key.
    pub key: String,
    /// URL, without its password.
    pub url: String,
    /// Signature.
    pub signature: String,
}
