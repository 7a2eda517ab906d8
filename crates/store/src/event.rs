//! Event of one webhook, before it becomes a row: it records the arrival or the outcome, is merged with what is already
//! known, and is held until it can be written. This module decides which columns exist; it must not know how they are
//! written. Times are milliseconds since 1970.

use std::{fmt, num::NonZeroU32};

use twilio_edge_contract::Identity;

use crate::{rows::LeaseColumns, settlement_input::SettlementInput};
use twilio_edge_domain::{
    lease::Lease,
    webhook::{Participants, Webhook},
};

/// Outcome of a webhook that the backend accepted; the other outcome is `refused`.
pub(super) const ACCEPTED: &str = "accepted";
pub(super) const REFUSED: &str = "refused";

/// Event of one webhook: its arrival and holder, its outcome, or both. Its texts are borrowed, so that creating or merging
/// events copies nothing.
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
    /// Time at which the event was created; not a column.
    pub(super) noted_at_ms: i64,
    /// The ledger had no row of this webhook when its claim was granted; not a column. Only a hint: the row may exist by now.
    pub(super) is_first: bool,
}

impl<'a> Event<'a> {
    /// Creates the event of an arrival without a claim.
    pub(super) fn came(webhook: &'a Webhook, received_at_ms: i64, now_ms: i64) -> Event<'a> {
        let pair = webhook.participants();
        // A later step adds nothing to its message, which is listed, archived and delivered once. The contact stays, so
        // that the answer is erased with the contact's other data.
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

    /// Creates the event of a granted claim: the attempt, and the time until which the claim holds the webhook.
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

    /// Creates the event of a webhook that the backend accepted.
    pub(super) fn accepted(settle: &'a SettlementInput, now_ms: i64) -> Event<'a> {
        Event { answer: settle.answer.as_deref(), ..Event::ended(settle, ACCEPTED, 0, now_ms) }
    }

    /// Creates the event of a webhook that the backend refused in this attempt.
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
            // The webhook reached the backend without a claim.
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

    /// Creates an event that has nothing but its identity.
    pub(super) fn known(
        dedupe_key: &'a str,
        identity: &'a Identity,
        noted_at_ms: i64,
    ) -> Event<'a> {
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
            is_first: false,
        }
    }

    /// Returns the texts that an [`EventRow`] stores.
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

    /// Returns the lease that the ledger will show for this event; `result_ms` is the time to live of a result.
    pub(super) fn lease(&self, result_ms: i64) -> Lease {
        let columns = LeaseColumns {
            attempts: self.attempts,
            received_at_ms: self.received_at_ms,
            claim_id: self.claim_id.unwrap_or_default().to_owned(),
            held_until_ms: self.held_until_ms,
            is_accepted: self.outcome == Some(ACCEPTED),
            settled_at_ms: self.settled_at_ms,
            answer: self.answer.map(str::to_owned),
        };
        columns.lease(result_ms)
    }

    /// Returns whether the webhook is between this contact and this number of ours.
    pub(super) fn is_of(&self, pair: &Participants) -> bool {
        self.theirs == Some(pair.theirs.number.as_str())
            && self.ours == Some(pair.ours.as_str())
            && self.account_sid == pair.account_sid
            && self.channel == Some(pair.theirs.channel.as_str())
    }

    /// Merges `later` into this event. The database does the same merge ([`crate::columns::merge`]); this one is for two
    /// events in one statement.
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
            is_first: self.is_first || later.is_first,
            ..merged
        }
    }
}

/// Number of texts that an [`EventRow`] stores.
const TEXTS: usize = 13;

/// Owned form of an [`Event`]. Thousands are pending at once, so its texts are in one allocation.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct EventRow {
    texts: Box<str>,
    /// End of each text, one after the other; `None` for an absent text.
    ends: [Option<NonZeroU32>; TEXTS],
    class: &'static str,
    outcome: Option<&'static str>,
    received_at_ms: Option<i64>,
    attempts: i64,
    held_until_ms: Option<i64>,
    settled_at_ms: Option<i64>,
    noted_at_ms: i64,
    is_first: bool,
}

impl EventRow {
    /// Copies an event.
    pub(super) fn of(event: Event<'_>) -> EventRow {
        let texts = event.texts();
        let mut joined = String::with_capacity(texts.iter().flatten().map(|text| text.len()).sum());
        // The end plus one, because a text may end at 0.
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
            is_first: event.is_first,
        }
    }

    /// Returns the dedupe key of the event.
    pub(super) fn dedupe_key(&self) -> &str {
        let [end, ..] = self.ends;
        self.texts.get(..place(end.unwrap_or(NonZeroU32::MIN))).unwrap_or_default()
    }

    /// Returns whether the backend has answered the webhook.
    pub(super) fn is_settled(&self) -> bool {
        self.outcome.is_some()
    }

    /// Returns the event, borrowed from this row.
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
            is_first: self.is_first,
        }
    }
}

/// Converts an end of an [`EventRow`], which is stored plus one, to an offset.
fn place(end: NonZeroU32) -> usize {
    usize::try_from(end.get()).unwrap_or_default().saturating_sub(1)
}

impl fmt::Debug for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event().fmt(f)
    }
}
