//! Every answer that the filter gives instead of the backend, in one list.
//!
//! Decides: status, content type, body and slug of each answer. Slugs are part of the API: they are in the answer's
//! `x-twilio-edge-reason`, in the log line, in the access log and in the name of a counter, and are never renamed
//! silently. A duplicate is always answered 2xx: any other status makes Twilio call the fallback URL.

use twilio_edge_contract::{Class, SavedAnswer, headers};

use crate::form::ShapeError;

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

impl ShapeError {
    /// Returns the reason of the refusal, and the name of the field concerned.
    pub fn reason(self) -> (Reason, Option<&'static str>) {
        match self {
            ShapeError::Missing(field) => (Reason::MissingField, Some(field)),
            ShapeError::Malformed(field) => (Reason::MalformedField, Some(field)),
            ShapeError::Repeated(field) => (Reason::RepeatedField, Some(field)),
            ShapeError::Contradictory(field) => (Reason::ContradictoryFields, Some(field)),
            ShapeError::Ambiguous(field) => (Reason::AmbiguousFields, Some(field)),
            ShapeError::Unknown(field) => (Reason::UnknownParameter, Some(field)),
            ShapeError::MalformedName => (Reason::MalformedName, None),
            ShapeError::NotUtf8 => (Reason::InvalidUtf8, None),
            ShapeError::WrongClass => (Reason::WrongClass, Some("MessageStatus")),
        }
    }
}

/// TwiML without instructions: Twilio sends no reply.
const EMPTY_TWIML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

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

/// A response of the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, content type included.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// Returns the refusal for `reason`; `detail` names the field, never a value.
    pub fn refusal(reason: Reason, detail: Option<&str>) -> Self {
        let mut headers = vec![
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            (headers::REASON, reason.slug().to_owned()),
        ];
        match reason {
            Reason::SidecarUnavailable | Reason::StillInFlight | Reason::NoKeys => {
                headers.push(("retry-after", "1".to_owned()));
            }
            _ => {}
        }
        let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
        let body = format!("twilio-edge: {}{detail}\n{}\n", reason.slug(), reason.advice());
        Self { status: reason.status(), headers, body }
    }

    /// Returns the answer to a duplicate: the saved answer of the backend if there is one, else the configured TwiML of the
    /// route, else the shortest valid answer.
    pub fn duplicate(class: Class, saved: Option<&SavedAnswer>, route: Option<&str>) -> Self {
        let dedupe = (headers::DEDUPE, "duplicate".to_owned());
        if let Some(saved) = saved.filter(|saved| (200..300).contains(&saved.status)) {
            return Self {
                status: saved.status,
                headers: vec![("content-type", saved.content_type.clone()), dedupe],
                body: saved.body.clone(),
            };
        }
        let mut answer = Self::accepted(class, route);
        answer.headers.push(dedupe);
        answer
    }

    /// Returns the answer to a webhook that the sidecar will deliver. A message gets the TwiML of its route or empty TwiML
    /// (another content type would be error 12300); a status gets an empty answer.
    pub fn accepted(class: Class, route: Option<&str>) -> Self {
        match class {
            Class::Inbound => Self {
                status: 200,
                headers: vec![("content-type", "text/xml".to_owned())],
                body: route.unwrap_or(EMPTY_TWIML).to_owned(),
            },
            Class::Status | Class::Other => {
                Self { status: 204, headers: Vec::new(), body: String::new() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_slug_and_is_a_refusal() {
        let slugs: HashSet<_> = Reason::ALL.iter().map(|reason| reason.slug()).collect();
        assert_eq!(slugs.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let answer = Answer::refusal(reason, Some("From"));
            assert!((400..=503).contains(&answer.status), "{reason:?}");
            assert!(answer.body.contains(reason.slug()) && answer.body.contains("(From)"));
            assert!(answer.headers.contains(&(headers::REASON, reason.slug().to_owned())));
            assert_eq!(
                answer.headers.iter().any(|(name, _)| *name == "retry-after"),
                answer.status == 503,
                "{reason:?}: only a refusal that may be retried has Retry-After"
            );
        }
    }

    #[test]
    fn document_contains_the_printed_table() {
        let document = include_str!("../docs/FAILURE-MODES.md");
        let hint = "docs/FAILURE-MODES.md: insert the output of `twilio-edge reference refusals`";
        assert!(document.contains(&reference()), "{hint}");
    }

    #[test]
    fn duplicate_is_always_answered_with_success() {
        let duplicate = |class, saved: Option<SavedAnswer>| {
            Answer::duplicate(class, saved.as_ref(), Some("<Response>hi</Response>"))
        };
        assert_eq!(duplicate(Class::Inbound, None).status, 200);
        assert_eq!(duplicate(Class::Inbound, None).body, "<Response>hi</Response>");
        let status = duplicate(Class::Status, None);
        assert_eq!((status.status, status.body.as_str()), (204, ""));
        let saved = |status| SavedAnswer {
            status,
            content_type: "text/xml".to_owned(),
            body: "<Response><Message>hi</Message></Response>".to_owned(),
        };
        let first = duplicate(Class::Inbound, Some(saved(201)));
        assert_eq!((first.status, first.body.contains("<Message>hi")), (201, true));
        assert_eq!(duplicate(Class::Inbound, Some(saved(500))).status, 200);
        assert_eq!(Answer::duplicate(Class::Inbound, None, None).body, EMPTY_TWIML);
    }
}
