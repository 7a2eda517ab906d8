//! Webhook requests that the filter refused, with the cause that the diagnosis found. Requests with the same cause form one
//! group, which names the one change that would make them pass. This module decides what belongs together, what is stored of
//! a request, and what operators read. It must not know signatures, nor where groups are stored.
//!
//! A refusal of the API or of a rule for messages is something else: [`crate::refusal`].

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::window::rfc3339;

/// Longest stored sentence, in characters.
const MAX_SENTENCE_CHARS: usize = 500;
/// Longest stored path, route or authority, in characters.
const MAX_PLACE_CHARS: usize = 256;
/// Longest stored explanation, in bytes.
const MAX_EXPLANATION_BYTES: usize = 32 * 1024;
/// Most stored names of parameters, and the longest one in characters.
const MAX_PARAMETERS: usize = 100;
const MAX_PARAMETER_CHARS: usize = 64;

twilio_edge_contract::string_enum! {
    /// Cause of a refusal.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    pub enum Cause: serde {
        /// Twilio signed another origin: scheme, host or port.
        Origin = "origin",
        /// Twilio signed another URL.
        Url = "url",
        /// Something before the edge changed the path.
        Path = "path",
        /// Something before the edge changed the query.
        Query = "query",
        /// The method is not the one that Twilio signed, or not one of the route.
        Method = "method",
        /// Something before the edge changed the content type.
        ContentType = "content_type",
        /// Something before the edge changed the parameters.
        Parameters = "parameters",
        /// Something before the edge changed the body.
        Body = "body",
        /// Something before the edge changed the header with the signature.
        SignatureHeader = "signature_header",
        /// A key was copied wrongly, or the filter lacks the SharedKey that signed.
        Key = "key",
        /// The filter or the route does not accept the account.
        Account = "account",
        /// The sidecar has the key that signed, and the filter does not.
        FilterKeys = "filter_keys",
        /// The signature is right, and the route does not accept such webhooks.
        Route = "route",
        /// The signature is right, and a sender moved text between the parameters.
        Recut = "recut",
        /// No key signed the request, nor a similar one.
        Stranger = "stranger",
        /// The sidecar lacks the keys or the body to find the cause.
        Unexamined = "unexamined",
    }
}

twilio_edge_contract::string_enum! {
    /// Kind of a refused request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    pub enum RefusalKind: serde {
        /// Twilio signed it, and the configuration or something before the edge is wrong: a webhook may be lost.
        Misconfiguration = "misconfiguration",
        /// Twilio did not sign it, or a sender changed it on purpose.
        Stranger = "stranger",
        /// Unknown: the sidecar could not examine it.
        Unexamined = "unexamined",
    }
}

impl Cause {
    /// Returns the kind of requests with this cause.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Cause::Stranger | Cause::Recut => RefusalKind::Stranger,
            Cause::Unexamined => RefusalKind::Unexamined,
            _ => RefusalKind::Misconfiguration,
        }
    }
}

/// Refused request as it is stored. It has no value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExaminedRequest {
    /// Time of the refusal, in milliseconds since 1970.
    pub at_ms: i64,
    /// Reason of the filter.
    pub reason: String,
    /// Path of the route.
    pub route: String,
    /// True if the route is in shadow mode.
    pub is_shadow: bool,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Host that the client asked for; empty if unknown.
    pub authority: String,
    /// Names of the parameters.
    pub parameters: Vec<String>,
    /// Length of the body in bytes.
    pub body_bytes: i64,
    /// Id of the request in other logs; empty without one.
    pub request_id: String,
    /// Similar requests that the filter did not report.
    pub skipped: i64,
    /// Cause.
    pub cause: Cause,
    /// Account whose key signed; empty if the signature is not proven.
    pub account_sid: String,
    /// SID of the message; empty if the signature is not proven.
    pub message_sid: String,
    /// Value that distinguishes groups of one cause, for instance the signed origin. Never text of a stranger.
    pub subject: String,
    /// Predicate of the group, which follows "39 requests": `were signed for https://old.example.com`.
    pub finding: String,
    /// The one change that would make the requests pass.
    pub remedy: String,
    /// Complete report of the diagnosis as JSON; empty if there was none.
    pub explanation: String,
}

impl ExaminedRequest {
    /// Returns the request with all texts cut to their bounds.
    #[must_use]
    pub fn bounded(mut self) -> ExaminedRequest {
        for text in [&mut self.finding, &mut self.remedy, &mut self.subject] {
            cut(text, MAX_SENTENCE_CHARS);
        }
        for text in [&mut self.route, &mut self.path, &mut self.authority] {
            cut(text, MAX_PLACE_CHARS);
        }
        for text in [&mut self.reason, &mut self.method, &mut self.request_id] {
            cut(text, MAX_PARAMETER_CHARS);
        }
        self.parameters.truncate(MAX_PARAMETERS);
        for name in &mut self.parameters {
            cut(name, MAX_PARAMETER_CHARS);
        }
        if self.explanation.len() > MAX_EXPLANATION_BYTES {
            self.explanation.clear();
        }
        self
    }

    /// Returns the id of the request's group: `rg_` and 32 hexadecimal digits. Requests of one account with the same cause,
    /// subject, route and reason have the same.
    pub fn group_id(&self) -> String {
        let parts = [
            self.account_sid.as_str(),
            self.cause.as_str(),
            &self.subject,
            &self.route,
            &self.reason,
        ];
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.finalize();
        let digits = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
        format!("rg_{}", digits.collect::<String>())
    }
}

/// Cuts a text to this number of characters, and removes NUL, which PostgreSQL refuses.
fn cut(text: &mut String, max_chars: usize) {
    if text.contains('\0') {
        text.retain(|letter| letter != '\0');
    }
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
    }
}

/// Returns the sentence about a group, for instance "39 requests since 2026-11-30T09:12:00.000Z were signed for
/// `https://old.example.com`".
pub fn summary(count: i64, first_at_ms: i64, finding: &str) -> String {
    let since = rfc3339(first_at_ms).unwrap_or_default();
    match count {
        1 => format!("1 request at {since} {}", singular(finding)),
        count => format!("{count} requests since {since} {finding}"),
    }
}

/// Returns a finding, the predicate of a sentence about requests, for a sentence about one request.
pub fn singular(finding: &str) -> String {
    let (verb, rest) = finding.split_once(' ').unwrap_or((finding, ""));
    let verb = match verb {
        "are" => "is",
        "were" => "was",
        "have" => "has",
        verb => verb,
    };
    format!("{verb} {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExaminedRequest {
        ExaminedRequest {
            at_ms: 0,
            reason: "invalid-signature".to_owned(),
            route: "/in".to_owned(),
            is_shadow: false,
            method: "POST".to_owned(),
            path: "/in".to_owned(),
            authority: String::new(),
            parameters: Vec::new(),
            body_bytes: 0,
            request_id: String::new(),
            skipped: 0,
            cause: Cause::Origin,
            account_sid: "AC1".to_owned(),
            message_sid: String::new(),
            subject: "https://old.example.com".to_owned(),
            finding: "were signed for https://old.example.com".to_owned(),
            remedy: "Add it to `origins`.".to_owned(),
            explanation: String::new(),
        }
    }

    #[test]
    fn group_depends_on_cause_subject_route_reason_and_account() {
        let id = request().group_id();
        assert!(id.len() == 35 && id.starts_with("rg_"), "{id}");
        type Change = fn(&mut ExaminedRequest);
        let others: [Change; 5] = [
            |it| it.cause = Cause::Path,
            |it| it.subject.push('x'),
            |it| it.route.push('x'),
            |it| it.reason.push('x'),
            |it| it.account_sid.push('x'),
        ];
        for change in others {
            let mut other = request();
            change(&mut other);
            assert_ne!(other.group_id(), id, "{other:?}");
        }
        let same = ExaminedRequest { at_ms: 9, path: "/in/2".to_owned(), ..request() };
        assert_eq!(same.group_id(), id);
    }

    #[test]
    fn summary_counts_one_and_many() {
        let finding = "were signed for https://old.example.com";
        let one = "1 request at 1970-01-01T00:00:00.000Z was signed for https://old.example.com";
        assert_eq!(summary(1, 0, finding), one);
        let many =
            "39 requests since 1970-01-01T00:00:00.000Z were signed for https://old.example.com";
        assert_eq!(summary(39, 0, finding), many);
    }

    #[test]
    fn finding_about_one_request_has_a_singular_verb() {
        for (finding, expected) in [
            ("were signed for a", "was signed for a"),
            ("have a signature of no key", "has a signature of no key"),
            ("are of account AC1", "is of account AC1"),
            ("had no X-Twilio-Signature", "had no X-Twilio-Signature"),
            ("could not be examined: no keys", "could not be examined: no keys"),
        ] {
            assert_eq!(singular(finding), expected);
        }
    }

    #[test]
    fn stored_texts_are_bounded() {
        let long = "é\0".repeat(100_000);
        let bounded = ExaminedRequest {
            path: long.clone(),
            finding: long.clone(),
            method: long.clone(),
            parameters: vec![long.clone(); 1000],
            explanation: long,
            ..request()
        }
        .bounded();
        assert_eq!(bounded.path.chars().count(), MAX_PLACE_CHARS);
        assert_eq!(bounded.finding.chars().count(), MAX_SENTENCE_CHARS);
        assert_eq!(bounded.method.chars().count(), MAX_PARAMETER_CHARS);
        assert_eq!(bounded.parameters.len(), MAX_PARAMETERS);
        assert!(!bounded.parameters[0].contains('\0') && bounded.explanation.is_empty());
    }
}
