//! Steps of one message. After a TwiML `<Redirect>` Twilio requests another URL with the same `MessageSid`, and acts on
//! the application's answer to that request (docs: messaging/twiml/redirect). Each URL is deduplicated by itself. The
//! first URL has the message's own key; its saved answer contains the digest of the URL, so that every store knows it.
//! Redirects that lead back to an earlier URL must not loop for ever: the application receives each URL once, and a
//! saved redirect is repeated only a few times.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use twilio_edge_contract::{Class, SavedAnswer};

use twilio_edge_domain::webhook::Webhook;

/// Upper bound of URLs of one message beside its first.
const MOST_STEPS: usize = 16;

/// Upper bound of repetitions of a saved redirect: Twilio retries a lost answer, but a loop must end.
const MOST_REPEATS: usize = 2;

/// Upper bound of messages in memory. When it is reached, all of them are dropped.
const MOST_REMEMBERED: usize = 10_000;

/// A saved answer as the stores hold it, with the URL that it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// Digest of the URL, as in [`twilio_edge_contract::Claim::url_digest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_digest: Option<String>,
    /// The answer; `None` if it was not stored.
    #[serde(default, flatten)]
    pub answer: Option<SavedAnswer>,
}

/// Counts redirects, so that no chain of them is endless. Copies share the counts.
#[derive(Debug, Clone, Default)]
pub struct Redirects {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Digests of the later URLs of each message.
    steps: HashMap<String, HashSet<String>>,
    /// Repetitions of each saved redirect.
    repeats: HashMap<String, usize>,
}

impl StoredAnswer {
    /// Parses the text from a store.
    pub fn read(text: Option<&str>) -> StoredAnswer {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Serializes it for a store; returns `None` if it is empty.
    pub fn write(&self) -> Option<String> {
        let is_empty = *self == StoredAnswer::default();
        (!is_empty).then(|| serde_json::to_string(self).ok()).flatten()
    }

    fn redirects(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.body.contains("<Redirect"))
    }
}

impl Redirects {
    /// Returns the webhook as a step of its message, if its message was accepted at another URL and has room for one more.
    pub fn step(&self, webhook: &Webhook, stored: &StoredAnswer) -> Option<Webhook> {
        let url_digest = webhook.url_digest.as_ref()?;
        let first = stored.url_digest.as_ref()?;
        let may_be = webhook.identity.class == Class::Inbound && !webhook.is_ours;
        if !may_be || webhook.step.is_some() || first == url_digest {
            return None;
        }
        let mut counts = self.counts();
        if counts.steps.len() >= MOST_REMEMBERED {
            counts.steps.clear();
        }
        let steps = counts.steps.entry(webhook.key.clone()).or_default();
        if !steps.contains(url_digest) && steps.len() >= MOST_STEPS {
            return None;
        }
        steps.insert(url_digest.clone());
        let key = webhook.identity.step_key(url_digest);
        Some(Webhook { key, step: Some(url_digest.clone()), ..webhook.clone() })
    }

    /// Returns the answer to a duplicate: the saved answer, unless it is a redirect that was repeated too often.
    pub fn answer(&self, key: &str, stored: StoredAnswer) -> Option<SavedAnswer> {
        if !stored.redirects() {
            return stored.answer;
        }
        let mut counts = self.counts();
        if counts.repeats.len() >= MOST_REMEMBERED {
            counts.repeats.clear();
        }
        let repeats = counts.repeats.entry(key.to_owned()).or_default();
        *repeats = repeats.saturating_add(1);
        let is_loop = *repeats > MOST_REPEATS;
        if is_loop {
            return None;
        }
        stored.answer
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // No code panics while it holds the lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use twilio_edge_contract::{Claim, Identity};

    use super::*;
    use twilio_edge_domain::optout::Lexicon;

    fn webhook(url_digest: &str) -> Webhook {
        let identity = Identity {
            class: Class::Inbound,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: None,
            error_code: None,
        };
        let claim = Claim::new("c1".into(), identity, "/in".into(), "From=%2B1555".into());
        let claim = Claim { url_digest: Some(url_digest.to_owned()), ..claim };
        Webhook::from_claim(claim, &Lexicon::default()).unwrap()
    }

    fn stored(url_digest: Option<&str>, body: &str) -> StoredAnswer {
        let answer =
            SavedAnswer { status: 200, content_type: "text/xml".into(), body: body.into() };
        StoredAnswer { url_digest: url_digest.map(str::to_owned), answer: Some(answer) }
    }

    #[test]
    fn stored_answer_is_read_as_it_was_written() {
        for stored in [
            stored(Some("00112233aabbccdd"), "<Response/>"),
            stored(None, "<Response/>"),
            StoredAnswer { answer: None, ..stored(Some("00112233aabbccdd"), "") },
        ] {
            assert_eq!(StoredAnswer::read(stored.write().as_deref()), stored);
        }
        assert_eq!(StoredAnswer::default().write(), None);
        assert_eq!(StoredAnswer::read(Some("no JSON")), StoredAnswer::default());
    }

    #[test]
    fn another_url_is_a_step_and_their_number_is_bounded() {
        let redirects = Redirects::default();
        let first = stored(Some("0000000000000000"), "");
        assert_eq!(redirects.step(&webhook("0000000000000000"), &first), None);
        assert_eq!(redirects.step(&webhook("1111111111111111"), &stored(None, "")), None);
        let step = redirects.step(&webhook("1111111111111111"), &first).unwrap();
        assert_eq!(step.key, "inbound:AC1:SM1:1111111111111111");
        let accepted = (0..100).filter(|n| {
            redirects
                .step(&webhook(&format!("{n:016x}")), &stored(Some("ffffffffffffffff"), ""))
                .is_some()
        });
        assert_eq!(accepted.count(), MOST_STEPS - 1);
        assert!(redirects.step(&webhook("1111111111111111"), &first).is_some(), "a retry of it");
    }

    #[test]
    fn saved_redirect_is_not_repeated_for_ever() {
        let redirects = Redirects::default();
        let redirect = stored(None, "<Response><Redirect>/b</Redirect></Response>");
        let repeated = (0..10).filter(|_| redirects.answer("k", redirect.clone()).is_some());
        assert_eq!(repeated.count(), MOST_REPEATS);
        let message = stored(None, "<Response><Message>hi</Message></Response>");
        assert!((0..10).all(|_| redirects.answer("k", message.clone()).is_some()));
    }
}
