//! What the ledger is to know of one webhook, before it is a row: made of what came or how it ended, merged with what is
//! known already, and kept until it can be written. Which columns there are is decided here; how they are written is
//! not. Times are milliseconds since 1970.

use std::{fmt, num::NonZeroU32};

use twilio_edge_contract::Identity;

use crate::settlement::SettlementInput;
use twilio_edge_domain::webhook::Webhook;

/// The word for what the backend took; what it did not is `refused`.
pub(super) const ACCEPTED: &str = "accepted";
pub(super) const REFUSED: &str = "refused";

/// What the ledger is to know of one webhook: that it came and who has it, how it ended, or both. Its texts are
/// somebody else's, so that to make one, or to merge two, copies nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) dedupe_key: &'a str,
    pub(super) class: &'static str,
    pub(super) account_sid: &'a str,
    pub(super) message_sid: &'a str,
    pub(super) status: Option<&'a str>,
    pub(super) error_code: Option<&'a str>,
    pub(super) route: Option<&'a str>,
    pub(super) form: Option<&'a str>,
    pub(super) channel: Option<&'a str>,
    pub(super) theirs: Option<&'a str>,
    pub(super) ours: Option<&'a str>,
    pub(super) received_at_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) claim_id: Option<&'a str>,
    pub(super) held_until_ms: Option<i64>,
    pub(super) outcome: Option<&'static str>,
    pub(super) settled_at_ms: Option<i64>,
    pub(super) answer: Option<&'a str>,
    pub(super) envelope: Option<&'a str>,
    /// When this was learnt; no column.
    pub(super) noted_at_ms: i64,
}

impl<'a> Event<'a> {
    /// It came, and nobody has it.
    pub(super) fn came(webhook: &'a Webhook, received_at_ms: i64, now_ms: i64) -> Event<'a> {
        let pair = webhook.pair();
        // A later step has no more to say than its message, which is listed, archived and delivered once. The person stays, so
        // that the answer is erased with everything of theirs.
        let is_message = webhook.step.is_none();
        Event {
            route: Some(webhook.route.as_str()).filter(|_| is_message),
            form: Some(webhook.form.as_str()).filter(|_| is_message),
            envelope: webhook.envelope.as_deref().filter(|_| is_message),
            channel: pair.map(|pair| pair.theirs.channel.as_str()),
            theirs: pair.map(|pair| pair.theirs.number.as_str()),
            ours: pair.map(|pair| pair.ours.as_str()).filter(|_| is_message),
            received_at_ms: Some(received_at_ms),
            ..Event::known(&webhook.key, &webhook.identity, now_ms)
        }
    }

    /// It came, for the first or a later time, and its claim has it until a time.
    pub(super) fn handed_out(
        webhook: &'a Webhook,
        attempt: u32,
        first_seen_ms: i64,
        until_ms: i64,
        now_ms: i64,
    ) -> Event<'a> {
        Event {
            attempts: i64::from(attempt),
            claim_id: Some(&webhook.claim_id),
            held_until_ms: Some(until_ms),
            ..Event::came(webhook, first_seen_ms, now_ms)
        }
    }

    /// The backend took it.
    pub(super) fn accepted(settle: &'a SettlementInput, now_ms: i64) -> Event<'a> {
        Event { answer: settle.answer.as_deref(), ..Event::ended(settle, ACCEPTED, 0, now_ms) }
    }

    /// The backend did not take it, at its so many-th attempt.
    pub(super) fn refused(settle: &'a SettlementInput, attempt: u32, now_ms: i64) -> Event<'a> {
        Event::ended(settle, REFUSED, attempt, now_ms)
    }

    fn ended(
        settle: &'a SettlementInput,
        outcome: &'static str,
        attempt: u32,
        now_ms: i64,
    ) -> Event<'a> {
        let known = match &settle.unclaimed {
            // It was with the backend without ever being handed out by a claim.
            Some(webhook) => Event { attempts: 1, ..Event::came(webhook, now_ms, now_ms) },
            None => Event::known(&settle.key, &settle.identity, now_ms),
        };
        Event {
            attempts: known.attempts.max(i64::from(attempt)),
            claim_id: Some(&settle.claim_id),
            outcome: Some(outcome),
            settled_at_ms: Some(now_ms),
            ..known
        }
    }

    fn known(dedupe_key: &'a str, identity: &'a Identity, noted_at_ms: i64) -> Event<'a> {
        Event {
            dedupe_key,
            class: identity.class.as_str(),
            account_sid: &identity.account_sid,
            message_sid: &identity.message_sid,
            status: identity.status.as_deref(),
            error_code: identity.error_code.as_deref(),
            route: None,
            form: None,
            channel: None,
            theirs: None,
            ours: None,
            received_at_ms: None,
            attempts: 0,
            claim_id: None,
            held_until_ms: None,
            outcome: None,
            settled_at_ms: None,
            answer: None,
            envelope: None,
            noted_at_ms,
        }
    }

    /// Its texts that are its own.
    pub(super) fn texts(&self) -> [Option<&'a str>; TEXTS] {
        [
            Some(self.dedupe_key),
            Some(self.account_sid),
            Some(self.message_sid),
            self.status,
            self.error_code,
            self.route,
            self.form,
            self.channel,
            self.theirs,
            self.ours,
            self.claim_id,
            self.answer,
            self.envelope,
        ]
    }

    /// With what `later` knows taken in: the same merge the database makes ([`crate::columns::merge`]), for two events that
    /// go in one statement.
    pub(super) fn merge(self, later: Event<'a>) -> Event<'a> {
        let same_hold = later.claim_id == self.claim_id && later.attempts == self.attempts;
        let wins = self.outcome != Some(ACCEPTED)
            && (later.outcome == Some(ACCEPTED)
                || later.attempts > self.attempts
                || (same_hold && later.outcome.is_some())
                || (later.attempts == self.attempts
                    && !same_hold
                    && self.held_until_ms.is_some()
                    && later.held_until_ms.is_some()));
        let mut merged = self;
        if wins {
            (merged.claim_id, merged.held_until_ms) = (later.claim_id, later.held_until_ms);
            merged.answer = later.answer;
            if later.outcome.is_some() {
                (merged.outcome, merged.settled_at_ms) = (later.outcome, later.settled_at_ms);
            }
        } else {
            if same_hold && self.held_until_ms.is_some() {
                merged.held_until_ms = self.held_until_ms.max(later.held_until_ms);
            }
            if self.outcome.is_none() {
                (merged.outcome, merged.settled_at_ms) = (later.outcome, later.settled_at_ms);
            }
        }
        Event {
            attempts: self.attempts.max(later.attempts),
            received_at_ms: match (self.received_at_ms, later.received_at_ms) {
                (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
                (mine, theirs) => mine.or(theirs),
            },
            route: self.route.or(later.route),
            form: self.form.or(later.form),
            envelope: self.envelope.or(later.envelope),
            channel: self.channel.or(later.channel),
            theirs: self.theirs.or(later.theirs),
            ours: self.ours.or(later.ours),
            noted_at_ms: self.noted_at_ms.max(later.noted_at_ms),
            ..merged
        }
    }
}

/// Texts of an [`Event`] that are its own.
const TEXTS: usize = 13;

/// An [`Event`] that outlives what it was made of. Thousands wait at once, so its texts are in one piece.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct EventRow {
    texts: Box<str>,
    /// Where each text ends, one behind the other; none for a text that is not there.
    ends: [Option<NonZeroU32>; TEXTS],
    class: &'static str,
    outcome: Option<&'static str>,
    received_at_ms: Option<i64>,
    attempts: i64,
    held_until_ms: Option<i64>,
    settled_at_ms: Option<i64>,
    noted_at_ms: i64,
}

impl EventRow {
    /// A copy of its own.
    pub(super) fn of(event: Event<'_>) -> EventRow {
        let texts = event.texts();
        let mut joined = String::with_capacity(texts.iter().flatten().map(|text| text.len()).sum());
        // One more than where it ends, which may be at 0.
        let ends = texts.map(|text| {
            joined.push_str(text?);
            Some(
                u32::try_from(joined.len())
                    .map_or(NonZeroU32::MAX, |end| NonZeroU32::MIN.saturating_add(end)),
            )
        });
        EventRow {
            texts: joined.into_boxed_str(),
            ends,
            class: event.class,
            outcome: event.outcome,
            received_at_ms: event.received_at_ms,
            attempts: event.attempts,
            held_until_ms: event.held_until_ms,
            settled_at_ms: event.settled_at_ms,
            noted_at_ms: event.noted_at_ms,
        }
    }

    /// As in its [`Event`].
    pub(super) fn dedupe_key(&self) -> &str {
        let [end, ..] = self.ends;
        self.texts.get(..place(end.unwrap_or(NonZeroU32::MIN))).unwrap_or_default()
    }

    /// What it says.
    pub(super) fn event(&self) -> Event<'_> {
        let mut start = 0;
        let texts = self.ends.map(|end| {
            let end = place(end?);
            let text = self.texts.get(start..end);
            start = end;
            text
        });
        let [
            dedupe_key,
            account_sid,
            message_sid,
            status,
            error_code,
            route,
            form,
            channel,
            theirs,
            ours,
            claim_id,
            answer,
            envelope,
        ] = texts;
        Event {
            dedupe_key: dedupe_key.unwrap_or_default(),
            class: self.class,
            account_sid: account_sid.unwrap_or_default(),
            message_sid: message_sid.unwrap_or_default(),
            status,
            error_code,
            route,
            form,
            channel,
            theirs,
            ours,
            received_at_ms: self.received_at_ms,
            attempts: self.attempts,
            claim_id,
            held_until_ms: self.held_until_ms,
            outcome: self.outcome,
            settled_at_ms: self.settled_at_ms,
            answer,
            envelope,
            noted_at_ms: self.noted_at_ms,
        }
    }
}

/// Of an end in [`EventRow`], which is one more than that.
fn place(end: NonZeroU32) -> usize {
    usize::try_from(end.get()).unwrap_or_default().saturating_sub(1)
}

impl fmt::Debug for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event().fmt(f)
    }
}
