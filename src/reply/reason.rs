//! Reasons of refusals: slug, status, and the problem with its remedy.

/// Reason of a refusal. Each has a counter: `twilio_edge.rejected.<slug>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Neither GET nor POST.
    MethodNotAllowed,
    /// GET or POST, but not one that the route accepts.
    MethodNotEnabled,
    /// The body is over the cap.
    BodyTooLarge,
    /// No part of the body came.
    NoBody,
    /// The route does not accept a body of this kind.
    BodyNotEnabled,
    /// A GET or HEAD came with a body, which no signature covers.
    UnexpectedBody,
    /// A header that must be unique came twice, or the path is no text.
    AmbiguousRequest,
    /// A header names an encoding or a charset in which Twilio sends no body.
    UnsupportedEncoding,
    /// More parameters than any webhook has.
    TooManyParameters,
    /// No `X-Twilio-Signature`.
    MissingSignature,
    /// No key of the account signed this request.
    InvalidSignature,
    /// A body that is no form, and no `bodySHA256` in the URL.
    MissingBodyHash,
    /// The body is not the one whose hash was signed.
    InvalidBodyHash,
    /// The account is not configured, or not for this route.
    UnknownAccount,
    /// The request names no account, and the route accepts more keys than the filter tries.
    UnnamedAccount,
    /// The request names a SharedKey that is not configured, or an algorithm that is not the key's.
    UnknownKey,
    /// Signed, but a required field is absent.
    MissingField,
    /// Signed, but a field does not have the form that Twilio documents.
    MalformedField,
    /// Signed, but a single-valued field came twice.
    RepeatedField,
    /// Signed, but two fields with the same meaning differ.
    ContradictoryFields,
    /// Signed, but the text can be cut so that a field has another value.
    AmbiguousFields,
    /// Signed, but an unknown parameter may be the end of another one's value.
    UnknownParameter,
    /// Signed, but a name is not one that Twilio gives a parameter.
    MalformedName,
    /// Signed, but not UTF-8.
    InvalidUtf8,
    /// Signed, but a status callback on a route for messages or the other way round.
    WrongClass,
    /// The sidecar gave no verdict, and the policy is to reject.
    SidecarUnavailable,
    /// Another copy of this webhook is still in flight.
    StillInFlight,
    /// The sidecar has not provided the accounts' keys yet, and none are configured.
    NoKeys,
}

impl Reason {
    /// Every reason, for the definition of counters and the tests of documents.
    pub const ALL: [Reason; 28] = [
        Reason::MethodNotAllowed,
        Reason::MethodNotEnabled,
        Reason::BodyTooLarge,
        Reason::NoBody,
        Reason::BodyNotEnabled,
        Reason::UnexpectedBody,
        Reason::AmbiguousRequest,
        Reason::UnsupportedEncoding,
        Reason::TooManyParameters,
        Reason::MissingSignature,
        Reason::InvalidSignature,
        Reason::MissingBodyHash,
        Reason::InvalidBodyHash,
        Reason::UnknownAccount,
        Reason::UnnamedAccount,
        Reason::UnknownKey,
        Reason::MissingField,
        Reason::MalformedField,
        Reason::RepeatedField,
        Reason::ContradictoryFields,
        Reason::AmbiguousFields,
        Reason::UnknownParameter,
        Reason::MalformedName,
        Reason::InvalidUtf8,
        Reason::WrongClass,
        Reason::SidecarUnavailable,
        Reason::StillInFlight,
        Reason::NoKeys,
    ];

    /// Returns the stable name.
    pub fn slug(self) -> &'static str {
        self.row().0
    }

    /// Returns the HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// Returns the problem and its remedy.
    pub fn advice(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Reason::MethodNotAllowed => (
                "method-not-allowed",
                405,
                "Twilio calls webhooks with GET or POST: check the caller.",
            ),
            Reason::MethodNotEnabled => (
                "method-not-enabled",
                405,
                "The route does not accept this method: set the webhook to another method in the Twilio console, or add it to the route's methods in the filter's configuration.",
            ),
            Reason::BodyNotEnabled => (
                "body-not-enabled",
                415,
                "The route does not accept bodies of this kind: check the content type, or add form or hash to the route's bodies in the filter's configuration.",
            ),
            Reason::UnnamedAccount => (
                "unnamed-account",
                403,
                "The request names no account, and the route accepts more keys than the filter tries: list the accounts that send webhooks to this URL in the route's accounts.",
            ),
            Reason::ContradictoryFields => (
                "contradictory-fields",
                403,
                "The request is signed, but the field contradicts another field that Twilio sends with it: the sender re-cut a genuine webhook.",
            ),
            Reason::AmbiguousFields => (
                "ambiguous-fields",
                403,
                "The request is signed, but its text can be cut so that the field has another value, and one of the two was not sent by Twilio. A message whose text imitates parameters is refused too.",
            ),
            Reason::UnknownParameter => (
                "unknown-parameter",
                403,
                "The request is signed, but an unknown parameter follows the field and may be the end of its value. If Twilio sends a new parameter there, add its name to parameters of the filter's configuration.",
            ),
            Reason::MalformedName => (
                "malformed-name",
                403,
                "The request is signed, but a parameter has a name that Twilio does not use: Twilio uses letters, digits and underscores. If Twilio sends it, add it to parameters of the filter's configuration.",
            ),
            Reason::BodyTooLarge => (
                "body-too-large",
                413,
                "The body is over max_body_bytes of the filter's configuration.",
            ),
            Reason::NoBody => (
                "no-body",
                408,
                "No part of the body arrived within 10 s. If this happens to every webhook, set allow_on_headers_stop_iteration: true in Envoy's configuration of the filter.",
            ),
            Reason::UnexpectedBody => {
                ("unexpected-body", 400, "A GET webhook has no body: check the caller.")
            }
            Reason::AmbiguousRequest => (
                "ambiguous-request",
                400,
                "A header that must be unique occurs twice, or the path is not UTF-8: check the caller and the proxies before this one.",
            ),
            Reason::UnsupportedEncoding => (
                "unsupported-encoding",
                415,
                "A header declares a compressed body or a charset other than UTF-8, so a backend would read other values than Twilio signed. Twilio sends no such header: check the caller and the proxies before this one.",
            ),
            Reason::TooManyParameters => (
                "too-many-parameters",
                400,
                "No webhook has more than 1000 parameters: check the caller.",
            ),
            Reason::MissingSignature => (
                "missing-signature",
                403,
                "There is no X-Twilio-Signature: the request is not Twilio's, or a proxy dropped the header.",
            ),
            Reason::InvalidSignature => (
                "invalid-signature",
                403,
                "No auth token of the account signed this URL with these parameters: check the filter's origins and auth_tokens; `twilio-edge explain` finds the wrong one.",
            ),
            Reason::MissingBodyHash => (
                "missing-body-hash",
                403,
                "The body is not a form and the URL has no bodySHA256, so no signature covers the body: check the content type.",
            ),
            Reason::InvalidBodyHash => (
                "invalid-body-hash",
                403,
                "The body is not the one that Twilio signed: find the proxy that changed it.",
            ),
            Reason::UnknownAccount => (
                "unknown-account",
                403,
                "The AccountSid is not in the accounts of the filter's configuration, or not in those of the route: add the account there.",
            ),
            Reason::UnknownKey => (
                "unknown-key",
                403,
                "X-Twilio-Webhooks-Signature-Settings names a SharedKey that is not in the account's shared_keys, or another algorithm: add the key, or correct its algorithm.",
            ),
            Reason::MissingField => (
                "missing-field",
                403,
                "The request is signed but lacks a field that every webhook of this class has: check the class of the route.",
            ),
            Reason::MalformedField => (
                "malformed-field",
                403,
                "The request is signed but a field does not have the form that Twilio documents: check the class of the route.",
            ),
            Reason::RepeatedField => (
                "repeated-field",
                403,
                "The request is signed but a field that Twilio sends once occurs twice: the sender re-cut a genuine webhook.",
            ),
            Reason::InvalidUtf8 => (
                "invalid-utf8",
                403,
                "The request is signed but is not UTF-8, which Twilio never sends: the sender re-cut a genuine webhook.",
            ),
            Reason::WrongClass => (
                "wrong-class",
                403,
                "A status callback arrived on a route for messages, or a message on a route for statuses: check the URLs in the Twilio console or the class of the route.",
            ),
            Reason::SidecarUnavailable => (
                "sidecar-unavailable",
                503,
                "The sidecar gave no verdict and on_unavailable is reject: check the sidecar.",
            ),
            Reason::StillInFlight => (
                "still-in-flight",
                503,
                "Another copy of this webhook is still at the backend: check the backend's latency.",
            ),
            Reason::NoKeys => (
                "no-keys",
                503,
                "The filter has no keys of any account yet: check that the sidecar answers /edge/v1/config and that its accounts file exists.",
            ),
        }
    }
}

/// Returns every reason as a table in Markdown.
#[cfg(not(target_arch = "wasm32"))]
pub fn reference() -> String {
    let mut table = String::from("| reason | status | problem and remedy |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let (slug, status, advice) = reason.row();
        table.push_str(&format!("| `{slug}` | {status} | {advice} |\n"));
    }
    table
}
