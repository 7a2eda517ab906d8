//! Every answer that the filter gives instead of the backend, in one list.
//!
//! Decides: status, content type, body and slug of each answer. Slugs are part of the API: they are in the answer's
//! `x-twilio-edge-reason`, in the log line, in the access log and in the name of a counter, and are never renamed
//! silently. A duplicate is always answered 2xx: any other status makes Twilio call the fallback URL.

mod reason;

use twilio_edge_contract::{Class, SavedAnswer, headers};

pub use self::reason::Reason;
#[cfg(not(target_arch = "wasm32"))]
pub use self::reason::reference;
use crate::form::ShapeError;

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
