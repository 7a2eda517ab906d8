//! Memory of the webhooks that a worker has in flight or has settled lately. The worker answers a repeat of one of them
//! itself: a claim would only return the same verdict later, and a repeat that waits for its first copy would claim again
//! and again.
//!
//! Decides: which repeats need no claim, and for how long. What is remembered is always known to be true: a webhook is
//! committed here only if this worker saw the backend's 2xx, or the sidecar's verdict `duplicate` or `accepted`. All other
//! repeats are claimed.
//!
//! Must not know: the host, callouts, clocks.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use twilio_edge_contract::{
    Claim, Class, Decision, Identity, Opt, Outcome, SavedAnswer, Settlement, Verdict,
};

/// Time in milliseconds after which a webhook is forgotten. Twilio repeats a webhook within seconds, and the sidecar remembers
/// it for days.
const LIFE_MS: u64 = 120_000;
/// Most webhooks that are remembered; the oldest are forgotten first.
const MAX_WEBHOOKS: usize = 8192;
/// Most bytes of saved answers that are remembered.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Identity of a webhook, and the digest of its URL: repeats have both in common. The parts that differ most come first, and
/// most of them are numbers, so that two keys are compared quickly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepeatKey {
    message_sid: Sid,
    url_digest: Option<u64>,
    status: Option<Rc<str>>,
    error_code: Option<u64>,
    account_sid: Sid,
    is_inbound: bool,
}

/// SID: the two letters and 32 hexadecimal digits.
type Sid = (u64, u64, [u8; 2]);

impl RepeatKey {
    /// Returns the key of an identity; `None` if a part does not have the form that Twilio documents. Such a webhook is
    /// always claimed.
    fn new(identity: &Identity, url_digest: Option<&str>) -> Option<Self> {
        let number = |digits: &str| digits.parse().ok().filter(|_| !digits.starts_with('0'));
        Some(Self {
            message_sid: sid(&identity.message_sid)?,
            url_digest: url_digest
                .map(|digest| hex(digest.as_bytes()).ok_or(()))
                .transpose()
                .ok()?,
            status: identity.status.as_deref().map(Rc::from),
            error_code: match identity.error_code.as_deref() {
                Some(code) => Some(number(code)?),
                None => None,
            },
            account_sid: sid(&identity.account_sid)?,
            is_inbound: identity.class == Class::Inbound,
        })
    }
}

fn sid(text: &str) -> Option<Sid> {
    let (letters, digits) = text.as_bytes().split_first_chunk::<2>()?;
    let (high, low) = digits.split_at_checked(16)?;
    Some((hex(high)?, hex(low)?, *letters))
}

/// Returns the number of 16 hexadecimal digits in lower case.
fn hex(digits: &[u8]) -> Option<u64> {
    let digits: &[u8; 16] = digits.try_into().ok()?;
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

/// Result of the search for a claim among the remembered webhooks.
#[derive(Debug)]
pub enum RepeatCheck {
    /// The claim must be sent. The webhook is in flight from now on, under this key if it has one.
    New(Option<RepeatKey>),
    /// The verdict for a repeat.
    Repeat(Box<Verdict>),
}

#[derive(Debug)]
struct Remembered {
    /// Distinguishes this entry from an earlier one of the same key.
    number: u64,
    since_ms: u64,
    state: Progress,
}

#[derive(Debug)]
enum Progress {
    /// The claim of this stream has no verdict yet, or the backend has the request.
    InFlight(u32),
    /// The webhook was accepted: the saved answer, and the keyword if the sidecar named one.
    Committed(Option<Box<SavedAnswer>>, Option<Opt>),
}

/// Webhooks that one worker remembers.
#[derive(Debug, Default)]
pub struct RecentWebhooks {
    webhooks: BTreeMap<RepeatKey, Remembered>,
    /// Keys in the order in which they were remembered, with the number of their entry.
    order: VecDeque<(RepeatKey, u64)>,
    next_number: u64,
    answer_bytes: usize,
    now_ms: u64,
}

impl RecentWebhooks {
    /// Records the time, and forgets what is too old.
    pub fn record_time(&mut self, now_ms: u64) {
        // Streams have no clock. Before the first tick the time was not known.
        if self.now_ms == 0 {
            self.webhooks.values_mut().for_each(|entry| entry.since_ms = now_ms);
        }
        self.now_ms = now_ms;
        while let Some((key, number)) = self.order.front() {
            let entry = self.webhooks.get(key).filter(|entry| entry.number == *number);
            if entry.is_some_and(|entry| now_ms.saturating_sub(entry.since_ms) < LIFE_MS) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Searches the claim of a stream. It is the stream's own webhook if the stream claims it again.
    pub fn check(&mut self, stream: u32, claim: &Claim) -> RepeatCheck {
        let Some(key) = RepeatKey::new(&claim.identity, claim.url_digest.as_deref()) else {
            return RepeatCheck::New(None);
        };
        let (decision, answer, opt) = match self.webhooks.get(&key).map(|entry| &entry.state) {
            Some(Progress::Committed(answer, opt)) => {
                (Decision::Duplicate, answer.as_deref().cloned(), *opt)
            }
            Some(Progress::InFlight(first)) if *first != stream => (Decision::InFlight, None, None),
            Some(Progress::InFlight(_)) => return RepeatCheck::New(Some(key)),
            None => {
                self.remember(key.clone(), Progress::InFlight(stream));
                return RepeatCheck::New(Some(key));
            }
        };
        let verdict = Verdict::new(claim.claim_id.clone(), decision);
        RepeatCheck::Repeat(Box::new(Verdict { answer, opt, ..verdict }))
    }

    /// Records the sidecar's verdict on the claim of a stream, or that there is none.
    pub fn record_verdict(
        &mut self,
        key: Option<&RepeatKey>,
        stream: u32,
        verdict: Option<&Verdict>,
    ) {
        let Some(key) = key else { return };
        match verdict.map(|verdict| (verdict.decision, verdict)) {
            Some((Decision::Proceed, _)) => {}
            Some((Decision::Duplicate, verdict)) => {
                self.commit(key, verdict.answer.as_ref(), verdict.opt);
            }
            Some((Decision::Accepted, verdict)) => self.commit(key, None, verdict.opt),
            Some((Decision::InFlight | Decision::Released | Decision::Unavailable, _)) | None => {
                self.release(key, stream);
            }
        }
    }

    /// Records the outcome of the webhook of a stream. An urgent commit is the only copy of a possible opt-out: a repeat must not
    /// be answered before the sidecar has it.
    pub fn record_settlement(&mut self, stream: u32, settlement: &Settlement, is_urgent: bool) {
        let key = RepeatKey::new(&settlement.identity, settlement.url_digest.as_deref());
        let Some(key) = key else { return };
        match settlement.outcome {
            Outcome::Commit if !is_urgent => self.commit(&key, settlement.answer.as_ref(), None),
            Outcome::Commit | Outcome::Release => self.release(&key, stream),
        }
    }

    /// The sidecar limits how often a redirect is repeated, so such an answer is not remembered.
    fn commit(&mut self, key: &RepeatKey, answer: Option<&SavedAnswer>, opt: Option<Opt>) {
        if answer.is_some_and(|answer| answer.body.contains("<Redirect")) {
            return self.forget(key);
        }
        let state = Progress::Committed(answer.cloned().map(Box::new), opt);
        let Some(entry) = self.webhooks.get_mut(key) else {
            return self.remember(key.clone(), state);
        };
        self.answer_bytes -= entry.state.answer_bytes();
        self.answer_bytes += state.answer_bytes();
        entry.state = state;
        self.make_room();
    }

    fn release(&mut self, key: &RepeatKey, stream: u32) {
        let entry = self.webhooks.get(key).map(|entry| &entry.state);
        if matches!(entry, Some(Progress::InFlight(own)) if *own == stream) {
            self.forget(key);
        }
    }

    fn remember(&mut self, key: RepeatKey, state: Progress) {
        self.next_number += 1;
        self.answer_bytes += state.answer_bytes();
        self.order.push_back((key.clone(), self.next_number));
        let entry = Remembered { number: self.next_number, since_ms: self.now_ms, state };
        self.webhooks.insert(key, entry);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.order.len() > MAX_WEBHOOKS || self.answer_bytes > MAX_ANSWER_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, number)) = self.order.pop_front()
            && self.webhooks.get(&key).is_some_and(|entry| entry.number == number)
        {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &RepeatKey) {
        if let Some(entry) = self.webhooks.remove(key) {
            self.answer_bytes -= entry.state.answer_bytes();
        }
    }
}

impl Progress {
    fn answer_bytes(&self) -> usize {
        match self {
            Progress::Committed(Some(answer), _) => answer.body.len() + answer.content_type.len(),
            Progress::Committed(None, _) | Progress::InFlight(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
