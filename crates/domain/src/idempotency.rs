//! One request, carried out once: what an `Idempotency-Key` looks like (draft-ietf-httpapi-idempotency-key-header), what
//! counts as the same request, and what a copy of one is answered with. Knows neither HTTP nor SQL, nor what is asked for.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest key, in bytes.
pub const LONGEST: usize = 255;

/// What a client calls one request of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// As it was sent: a string of RFC 8941, in quotes, or the same without them as most clients send it. None if it is no
    /// such thing: empty, too long, or with an escape, which no client needs.
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
        let fits = (1..=LONGEST).contains(&key.len());
        (fits && key.bytes().all(is_good)).then(|| Key(key.to_owned()))
    }

    /// Without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What two requests have in common that are the same, and no others: a digest, because a request may hold what is not to
/// be kept.
pub fn fingerprint(method: &str, target: &str, body: &[u8]) -> String {
    let mut digest = Sha256::new();
    for part in [method.as_bytes(), target.as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was answered, as far as it may be told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// What its reader needs to know of the body.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

/// The headers of an answer that are told again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Location`.
    pub location: Option<String>,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Of the request it was first used with.
    pub fingerprint: String,
    /// What became of that.
    pub state: State,
    /// When it came, in milliseconds since 1970.
    pub first_at_ms: i64,
    /// When all this is forgotten.
    pub forget_at_ms: i64,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Somebody carries it out; after that time they cannot be any more.
    Running {
        /// In milliseconds since 1970.
        until_ms: i64,
    },
    /// It was carried out.
    Done(Answer),
}

/// What to do with a request that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out, as of this time: that at which its first copy came, of which nobody knows how far it got.
    CarryOut {
        /// In milliseconds since 1970.
        as_of_ms: i64,
    },
    /// Answer what was answered.
    Answer(Answer),
    /// A copy of it is being carried out.
    Running,
    /// The key is another request's.
    Other,
}

/// Decides it.
pub fn judge(known: Option<Known>, fingerprint: &str, now_ms: i64) -> Verdict {
    let Some(known) = known.filter(|known| now_ms < known.forget_at_ms) else {
        return Verdict::CarryOut { as_of_ms: now_ms };
    };
    if known.fingerprint != fingerprint {
        return Verdict::Other;
    }
    match known.state {
        State::Done(answer) => Verdict::Answer(answer),
        State::Running { until_ms } if now_ms < until_ms => Verdict::Running,
        State::Running { .. } => Verdict::CarryOut { as_of_ms: known.first_at_ms },
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
    fn a_key_may_be_quoted_or_not() {
        let long = "k".repeat(LONGEST);
        for (sent, key) in [
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("\"two words\"", "two words"),
            (long.as_str(), long.as_str()),
        ] {
            assert_eq!(read(sent).as_deref(), Some(key));
        }
        let too_long = "k".repeat(LONGEST + 1);
        for sent in
            ["", "\"", "\"\"", "\"a", "a\"", "a\"b", "two words", "\"a\\\"b\"", "é", &too_long]
        {
            assert_eq!(read(sent), None, "{sent}");
        }
    }

    #[test]
    fn a_copy_is_told_what_became_of_the_first() {
        let answer = Answer { status: 201, headers: Headers::default(), body: "made".into() };
        let known =
            |state| Known { fingerprint: "same".into(), state, first_at_ms: 10, forget_at_ms: 100 };
        let running = || Some(known(State::Running { until_ms: 30 }));
        let done = || Some(known(State::Done(answer.clone())));
        for (what, known, fingerprint, now_ms, verdict) in [
            ("new", None, "same", 10, Verdict::CarryOut { as_of_ms: 10 }),
            ("runs", running(), "same", 29, Verdict::Running),
            ("whoever ran it is gone", running(), "same", 30, Verdict::CarryOut { as_of_ms: 10 }),
            ("another, meanwhile", running(), "other", 29, Verdict::Other),
            ("another, later", running(), "other", 30, Verdict::Other),
            ("done", done(), "same", 99, Verdict::Answer(answer.clone())),
            ("another, of what is done", done(), "other", 99, Verdict::Other),
            ("forgotten", done(), "other", 100, Verdict::CarryOut { as_of_ms: 100 }),
        ] {
            assert_eq!(judge(known, fingerprint, now_ms), verdict, "{what}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_a_key_or_not(header: Vec<u8>) {
            if let Some(key) = Key::read(&header) {
                prop_assert!((1..=LONGEST).contains(&key.as_str().len()));
                prop_assert!(key.as_str().bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            }
        }

        /// The pattern of the description and the reader agree.
        #[test]
        fn what_is_described_is_taken(key in "[!#-\\[\\]-~]{1,40}", quoted in "\"[ !#-\\[\\]-~]{1,40}\"") {
            prop_assert!(Key::read(key.as_bytes()).is_some());
            prop_assert!(Key::read(quoted.as_bytes()).is_some());
        }

        /// Whatever is moved from one part of a request to the next makes another request.
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
