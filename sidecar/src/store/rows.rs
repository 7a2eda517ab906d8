//! The rows of the ledger's tables, column by column, and what they stand for. Times are milliseconds since 1970.

use std::{fmt, num::NonZeroU32};

use serde::Serialize;
use sqlx::FromRow;
use twilio_edge_contract::Identity;

use super::{Settle, ledger::Person, sql::StoreError};
use crate::domain::{
    address::Address,
    lease::{Ending, Hold, Lease},
    suppression::Said,
    webhook::{Pair, Webhook},
};

/// What the ledger finds for a claim: a webhook it knows, or a person who is suppressed.
#[derive(Debug, FromRow)]
pub(super) struct KnownRow {
    dedupe_key: Option<String>,
    attempts: Option<i64>,
    received_at_ms: Option<i64>,
    claim_id: Option<String>,
    held_until_ms: Option<i64>,
    outcome: Option<String>,
    settled_at_ms: Option<i64>,
    answer: Option<String>,
    tenant: Option<String>,
    channel: Option<String>,
    number: Option<String>,
}

/// One [`KnownRow`], read.
#[derive(Debug)]
pub(super) enum Found {
    Webhook(String, Lease),
    Suppressed(Person),
    /// A sidecar is apart from Redis, for so long.
    Apart(i64),
    Nothing,
}

impl KnownRow {
    pub(super) fn read(self, result_ms: i64) -> Found {
        if let (Some(tenant), Some(channel), Some(number)) =
            (self.tenant, self.channel, self.number)
        {
            return Found::Suppressed((tenant, Address { channel, number }));
        }
        let Some(dedupe_key) = self.dedupe_key else {
            return self.held_until_ms.map_or(Found::Nothing, Found::Apart);
        };
        let claim_id = self.claim_id.unwrap_or_default();
        let (hold, since_ms) = match (self.outcome.as_deref(), self.held_until_ms) {
            (Some(ACCEPTED), _) => {
                (Hold::Done { claim_id, answer: self.answer }, self.settled_at_ms)
            }
            (_, Some(until_ms)) => (Hold::Held { claim_id, until_ms }, Some(until_ms)),
            _ => (Hold::Free, self.settled_at_ms),
        };
        let since_ms = since_ms.or(self.received_at_ms).unwrap_or_default();
        let attempt = self.attempts.and_then(|attempts| u32::try_from(attempts).ok());
        let lease = Lease {
            attempt: attempt.unwrap_or_default(),
            first_seen_ms: self.received_at_ms.unwrap_or(since_ms),
            hold,
            forget_at_ms: since_ms.saturating_add(result_ms),
        };
        Found::Webhook(dedupe_key, lease)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WantedEnding<'a> {
    pub(super) dedupe_key: &'a str,
    pub(super) claim_id: &'a str,
    pub(super) now_ms: i64,
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct EndingRow {
    pub(super) dedupe_key: String,
    pub(super) claim_id: String,
    ending: String,
    forget_at_ms: i64,
}

impl EndingRow {
    pub(super) fn of(key: &str, claim_id: &str, ending: Ending, forget_at_ms: i64) -> EndingRow {
        let ending = match ending {
            Ending::Freed => "freed",
            Ending::Tombstone => "tombstone",
            Ending::Superseded => "superseded",
        };
        EndingRow {
            dedupe_key: key.to_owned(),
            claim_id: claim_id.to_owned(),
            ending: ending.to_owned(),
            forget_at_ms,
        }
    }

    /// How it ended, unless that is forgotten.
    pub(super) fn ending(&self) -> Result<Ending, StoreError> {
        match self.ending.as_str() {
            "freed" => Ok(Ending::Freed),
            "tombstone" => Ok(Ending::Tombstone),
            "superseded" => Ok(Ending::Superseded),
            other => Err(StoreError::Refused(format!("endings.ending holds {other:?}"))),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WantedPair<'a> {
    account_sid: &'a str,
    channel: &'a str,
    theirs: &'a str,
    ours: &'a str,
}

impl<'a> WantedPair<'a> {
    pub(super) fn of(pair: &'a Pair) -> WantedPair<'a> {
        WantedPair {
            account_sid: &pair.account_sid,
            channel: &pair.theirs.channel,
            theirs: &pair.theirs.number,
            ours: &pair.ours,
        }
    }
}

#[derive(Debug, FromRow)]
pub(super) struct PairRow {
    account_sid: String,
    channel: String,
    theirs: String,
    ours: String,
    pub(super) last_inbound_ms: i64,
}

impl PairRow {
    pub(super) fn pair(self) -> Pair {
        Pair {
            account_sid: self.account_sid,
            theirs: Address { channel: self.channel, number: self.theirs },
            ours: self.ours,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct OptRow<'a> {
    account_sid: &'a str,
    message_sid: &'a str,
    channel: &'a str,
    number: &'a str,
    opt: &'static str,
    cause: &'a str,
    route: &'a str,
    recorded_at_ms: i64,
}

impl<'a> OptRow<'a> {
    pub(super) fn of(said: &'a Said, now_ms: i64) -> OptRow<'a> {
        OptRow {
            account_sid: &said.account_sid,
            message_sid: &said.message_sid,
            channel: &said.address.channel,
            number: &said.address.number,
            opt: said.opt.as_str(),
            cause: said.cause(),
            route: &said.route,
            recorded_at_ms: now_ms,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash, FromRow)]
pub(super) struct RecordedOpt {
    account_sid: String,
    message_sid: String,
}

impl RecordedOpt {
    pub(super) fn of(said: &Said) -> RecordedOpt {
        RecordedOpt { account_sid: said.account_sid.clone(), message_sid: said.message_sid.clone() }
    }
}

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
    /// When this was learnt; no column.
    pub(super) noted_at_ms: i64,
}

impl<'a> Event<'a> {
    /// It came, and nobody has it.
    pub(super) fn came(webhook: &'a Webhook, received_at_ms: i64, now_ms: i64) -> Event<'a> {
        let pair = webhook.pair();
        Event {
            route: Some(&webhook.route),
            form: Some(&webhook.form),
            channel: pair.map(|pair| pair.theirs.channel.as_str()),
            theirs: pair.map(|pair| pair.theirs.number.as_str()),
            ours: pair.map(|pair| pair.ours.as_str()),
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
    pub(super) fn accepted(settle: &'a Settle, now_ms: i64) -> Event<'a> {
        Event { answer: settle.answer.as_deref(), ..Event::ended(settle, ACCEPTED, 0, now_ms) }
    }

    /// The backend did not take it, at its so many-th attempt.
    pub(super) fn refused(settle: &'a Settle, attempt: u32, now_ms: i64) -> Event<'a> {
        Event::ended(settle, REFUSED, attempt, now_ms)
    }

    fn ended(settle: &'a Settle, outcome: &'static str, attempt: u32, now_ms: i64) -> Event<'a> {
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
        ]
    }

    /// With what `later` knows taken in: the same merge the database makes ([`super::sql::merge`]), for two events that
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
            channel: self.channel.or(later.channel),
            theirs: self.theirs.or(later.theirs),
            ours: self.ours.or(later.ours),
            noted_at_ms: self.noted_at_ms.max(later.noted_at_ms),
            ..merged
        }
    }
}

/// Texts of an [`Event`] that are its own.
const TEXTS: usize = 12;

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
