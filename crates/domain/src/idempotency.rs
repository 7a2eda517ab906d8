//! Idempotency of requests: the syntax of `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), the definition
//! of "the same request", and the answer to a repeated request. This module knows neither HTTP nor SQL, nor the purpose
//! of a request.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Maximum length of a key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Client's name of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Parses the header: a quoted string of RFC 8941, or the same text without quotes, as most clients send it.
    /// Returns `None` if it is empty, too long, or has an escape, which no client needs.
    pub fn read(header: &[u8]) -> Option<Key> {
        let text = std::str::from_utf8(header).ok()?;
        let (key, is_quoted) = match text.strip_prefix('"') {
            Some(rest) => (rest.strip_suffix('"')?, true),
            None => (text, false),
        };
        let is_good = |byte: u8| match byte {
            b'"' | b'\\' => false,
            b' ' => is_quoted,
            byte => byte.is_ascii_graphic(),
        };
        let fits = (1..=MAX_KEY_BYTES).contains(&key.len());
        (fits && key.bytes().all(is_good)).then(|| Key(key.to_owned()))
    }

    /// Returns the key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a digest that two requests share exactly if they are the same. It is a digest because a request may contain
/// data that must not be stored.
pub fn fingerprint(method: &str, target: &str, body: &[u8]) -> String {
    let mut digest = Sha256::new();
    for part in [method.as_bytes(), target.as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stored answer, for repeated requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers that describe the body.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

/// Stored headers of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Location`.
    pub location: Option<String>,
}

/// Stored state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRequest {
    /// Fingerprint of the request that first used it.
    pub fingerprint: String,
    /// State of that request.
    pub state: RequestState,
    /// Time of the first request, in milliseconds since 1970.
    pub first_at_ms: i64,
    /// Expiry of the key, in milliseconds since 1970.
    pub forget_at_ms: i64,
}

/// State of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestState {
    /// A worker is processing it; after `until_ms` that worker has certainly stopped.
    Running {
        /// Time in milliseconds since 1970.
        until_ms: i64,
    },
    /// Completed.
    Done(StoredResponse),
}

/// Decision about a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Process it, with this time as its time of arrival: the first request's if that one did not finish, since its
    /// progress is unknown.
    Process {
        /// Time in milliseconds since 1970.
        as_of_ms: i64,
    },
    /// Return the stored answer.
    Replay(StoredResponse),
    /// The first request is still in progress.
    Running,
    /// The key belongs to another request.
    KeyReused,
}

/// Decides what to do with a request, given the stored state of its key.
pub fn decide(known: Option<StoredRequest>, fingerprint: &str, now_ms: i64) -> Verdict {
    let Some(known) = known.filter(|known| now_ms < known.forget_at_ms) else {
        return Verdict::Process { as_of_ms: now_ms };
    };
    if known.fingerprint != fingerprint {
        return Verdict::KeyReused;
    }
    match known.state {
        RequestState::Done(answer) => Verdict::Replay(answer),
        RequestState::Running { until_ms } if now_ms < until_ms => Verdict::Running,
        RequestState::Running { .. } => Verdict::Process { as_of_ms: known.first_at_ms },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        Key::read(text.as_bytes()).map(|key| key.0)
    }

    #[test]
    fn key_may_be_quoted() {
        let long = "k".repeat(MAX_KEY_BYTES);
        for (sent, key) in [
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("\"two words\"", "two words"),
            (long.as_str(), long.as_str()),
        ] {
            assert_eq!(read(sent).as_deref(), Some(key));
        }
        let too_long = "k".repeat(MAX_KEY_BYTES + 1);
        for sent in
            ["", "\"", "\"\"", "\"a", "a\"", "a\"b", "two words", "\"a\\\"b\"", "é", &too_long]
        {
            assert_eq!(read(sent), None, "{sent}");
        }
    }

    #[test]
    fn copy_gets_the_response_of_the_first_request() {
        let answer =
            StoredResponse { status: 201, headers: Headers::default(), body: "made".into() };
        let known = |state| StoredRequest {
            fingerprint: "same".into(),
            state,
            first_at_ms: 10,
            forget_at_ms: 100,
        };
        let running = || Some(known(RequestState::Running { until_ms: 30 }));
        let done = || Some(known(RequestState::Done(answer.clone())));
        for (what, known, fingerprint, now_ms, verdict) in [
            ("new", None, "same", 10, Verdict::Process { as_of_ms: 10 }),
            ("runs", running(), "same", 29, Verdict::Running),
            (
                "the first worker has stopped",
                running(),
                "same",
                30,
                Verdict::Process { as_of_ms: 10 },
            ),
            ("another, meanwhile", running(), "other", 29, Verdict::KeyReused),
            ("another, later", running(), "other", 30, Verdict::KeyReused),
            ("done", done(), "same", 99, Verdict::Replay(answer.clone())),
            ("another, of what is done", done(), "other", 99, Verdict::KeyReused),
            ("forgotten", done(), "other", 100, Verdict::Process { as_of_ms: 100 }),
        ] {
            assert_eq!(decide(known, fingerprint, now_ms), verdict, "{what}");
        }
    }

    proptest! {
        #[test]
        fn header_of_any_bytes_is_read_without_panic(header: Vec<u8>) {
            if let Some(key) = Key::read(&header) {
                prop_assert!((1..=MAX_KEY_BYTES).contains(&key.as_str().len()));
                prop_assert!(key.as_str().bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            }
        }

        /// Property: the pattern in the API description and the parser agree.
        #[test]
        fn key_of_the_documented_syntax_is_accepted(key in "[!#-\\[\\]-~]{1,40}", quoted in "\"[ !#-\\[\\]-~]{1,40}\"") {
            prop_assert!(Key::read(key.as_bytes()).is_some());
            prop_assert!(Key::read(quoted.as_bytes()).is_some());
        }

        /// Property: text that moves from one part of a request to the next changes the fingerprint.
        #[test]
        fn another_request_has_another_fingerprint(a in "[a-z/]{0,8}", b in "[a-z/]{0,8}", cut in 0usize..8) {
            let whole = format!("{a}{b}");
            let (left, right) = whole.split_at(cut.min(whole.len()));
            let same = (a.as_str(), b.as_str()) == (left, right);
            let one = fingerprint("POST", &a, b.as_bytes());
            prop_assert_eq!(one == fingerprint("POST", left, right.as_bytes()), same);
        }
    }
}
