//! The rows of the ledger's tables, column by column, and what they stand for. Times are milliseconds since 1970.

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
    Nothing,
}

impl KnownRow {
    pub(super) fn read(self, result_ms: i64) -> Found {
        if let (Some(tenant), Some(channel), Some(number)) =
            (self.tenant, self.channel, self.number)
        {
            return Found::Suppressed((tenant, Address { channel, number }));
        }
        let Some(dedupe_key) = self.dedupe_key else { return Found::Nothing };
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

/// What the ledger is to know of one webhook: that it came and who has it, how it ended, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventRow {
    pub(super) dedupe_key: String,
    pub(super) class: &'static str,
    pub(super) account_sid: String,
    pub(super) message_sid: String,
    pub(super) status: Option<String>,
    pub(super) error_code: Option<String>,
    pub(super) route: Option<String>,
    pub(super) form: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) theirs: Option<String>,
    pub(super) ours: Option<String>,
    pub(super) received_at_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) claim_id: Option<String>,
    pub(super) held_until_ms: Option<i64>,
    pub(super) outcome: Option<&'static str>,
    pub(super) settled_at_ms: Option<i64>,
    pub(super) answer: Option<String>,
    /// When this was learnt; no column.
    pub(super) noted_at_ms: i64,
}

impl EventRow {
    /// It came, and nobody has it.
    pub(super) fn came(webhook: &Webhook, received_at_ms: i64, now_ms: i64) -> EventRow {
        let pair = webhook.pair();
        EventRow {
            route: Some(webhook.route.clone()),
            form: Some(webhook.form.clone()),
            channel: pair.map(|pair| pair.theirs.channel.clone()),
            theirs: pair.map(|pair| pair.theirs.number.clone()),
            ours: pair.map(|pair| pair.ours.clone()),
            received_at_ms: Some(received_at_ms),
            ..EventRow::known(webhook.key.clone(), &webhook.identity, now_ms)
        }
    }

    /// It came, for the first or a later time, and its claim has it until a time.
    pub(super) fn handed_out(
        webhook: &Webhook,
        attempt: u32,
        first_seen_ms: i64,
        until_ms: i64,
        now_ms: i64,
    ) -> EventRow {
        EventRow {
            attempts: i64::from(attempt),
            claim_id: Some(webhook.claim_id.clone()),
            held_until_ms: Some(until_ms),
            ..EventRow::came(webhook, first_seen_ms, now_ms)
        }
    }

    /// The backend took it.
    pub(super) fn accepted(settle: &Settle, now_ms: i64) -> EventRow {
        EventRow { answer: settle.answer.clone(), ..EventRow::ended(settle, ACCEPTED, 0, now_ms) }
    }

    /// The backend did not take it, at its so many-th attempt.
    pub(super) fn refused(settle: &Settle, attempt: u32, now_ms: i64) -> EventRow {
        EventRow::ended(settle, REFUSED, attempt, now_ms)
    }

    fn ended(settle: &Settle, outcome: &'static str, attempt: u32, now_ms: i64) -> EventRow {
        let known = match &settle.unclaimed {
            // It was with the backend without ever being handed out by a claim.
            Some(webhook) => EventRow { attempts: 1, ..EventRow::came(webhook, now_ms, now_ms) },
            None => EventRow::known(settle.key.clone(), &settle.identity, now_ms),
        };
        EventRow {
            attempts: known.attempts.max(i64::from(attempt)),
            claim_id: Some(settle.claim_id.clone()),
            outcome: Some(outcome),
            settled_at_ms: Some(now_ms),
            ..known
        }
    }

    fn known(dedupe_key: String, identity: &Identity, noted_at_ms: i64) -> EventRow {
        EventRow {
            dedupe_key,
            class: identity.class.as_str(),
            account_sid: identity.account_sid.clone(),
            message_sid: identity.message_sid.clone(),
            status: identity.status.clone(),
            error_code: identity.error_code.clone(),
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

    /// Takes in what `later` knows: the same merge the database makes ([`super::sql::merge`]), for two rows that go
    /// in one statement.
    pub(super) fn merge(&mut self, later: EventRow) {
        let same_hold = later.claim_id == self.claim_id && later.attempts == self.attempts;
        let wins = self.outcome != Some(ACCEPTED)
            && (later.outcome == Some(ACCEPTED)
                || later.attempts > self.attempts
                || (same_hold && later.outcome.is_some())
                || (later.attempts == self.attempts
                    && !same_hold
                    && self.held_until_ms.is_some()
                    && later.held_until_ms.is_some()));
        if wins {
            (self.claim_id, self.held_until_ms) = (later.claim_id, later.held_until_ms);
            self.answer = later.answer;
            if later.outcome.is_some() {
                (self.outcome, self.settled_at_ms) = (later.outcome, later.settled_at_ms);
            }
        } else {
            if same_hold && self.held_until_ms.is_some() {
                self.held_until_ms = self.held_until_ms.max(later.held_until_ms);
            }
            if self.outcome.is_none() {
                (self.outcome, self.settled_at_ms) = (later.outcome, later.settled_at_ms);
            }
        }
        self.attempts = self.attempts.max(later.attempts);
        self.received_at_ms = match (self.received_at_ms, later.received_at_ms) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.route = self.route.take().or(later.route);
        self.form = self.form.take().or(later.form);
        self.channel = self.channel.take().or(later.channel);
        self.theirs = self.theirs.take().or(later.theirs);
        self.ours = self.ours.take().or(later.ours);
        self.noted_at_ms = self.noted_at_ms.max(later.noted_at_ms);
    }
}
