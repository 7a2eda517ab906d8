//! Rows of the ledger's tables, column by column, and their conversion to domain types. Times are milliseconds since 1970.

use serde::Serialize;
use sqlx::FromRow;
use std::borrow::Cow;

use super::event::ACCEPTED;
use crate::error::StoreError;
use twilio_edge_domain::{
    address::Address,
    lease::{ClaimEnd, Lease, LeaseState},
    suppression::OptEvent,
    webhook::Participants,
};

/// Person of a suppression: the tenant, and the number or id.
pub(super) type Person = (String, String);

/// One number or id of a person.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WantedPerson<'a> {
    pub(super) tenant: &'a str,
    pub(super) number: Cow<'a, str>,
}

/// Row found for a claim: a known webhook, or a suppressed person.
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

/// Decoded [`KnownRow`].
#[derive(Debug)]
pub(super) enum Found {
    Webhook(String, Lease),
    /// A person, and the channel on which the person is suppressed.
    Suppressed(Person, String),
    /// A sidecar is apart from Redis for this many more milliseconds.
    Apart(i64),
    Nothing,
}

impl KnownRow {
    pub(super) fn read(self, result_ms: i64) -> Found {
        if let (Some(tenant), Some(channel), Some(number)) =
            (self.tenant, self.channel, self.number)
        {
            return Found::Suppressed((tenant, number), channel);
        }
        let Some(dedupe_key) = self.dedupe_key else {
            return self.held_until_ms.map_or(Found::Nothing, Found::Apart);
        };
        let claim_id = self.claim_id.unwrap_or_default();
        let (state, since_ms) = match (self.outcome.as_deref(), self.held_until_ms) {
            (Some(ACCEPTED), _) => {
                (LeaseState::Done { claim_id, answer: self.answer }, self.settled_at_ms)
            }
            (_, Some(until_ms)) => (LeaseState::Held { claim_id, until_ms }, Some(until_ms)),
            _ => (LeaseState::Free, self.settled_at_ms),
        };
        let since_ms = since_ms.or(self.received_at_ms).unwrap_or_default();
        let attempt = self.attempts.and_then(|attempts| u32::try_from(attempts).ok());
        let lease = Lease {
            attempt: attempt.unwrap_or_default(),
            first_seen_ms: self.received_at_ms.unwrap_or(since_ms),
            state,
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
    pub(super) fn of(key: &str, claim_id: &str, ending: ClaimEnd, forget_at_ms: i64) -> EndingRow {
        EndingRow {
            dedupe_key: key.to_owned(),
            claim_id: claim_id.to_owned(),
            ending: ending.as_str().to_owned(),
            forget_at_ms,
        }
    }

    /// Returns the end of the claim.
    pub(super) fn ending(&self) -> Result<ClaimEnd, StoreError> {
        self.ending
            .parse()
            .map_err(|problem| StoreError::Refused(format!("endings.ending: {problem}")))
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
    pub(super) fn of(pair: &'a Participants) -> WantedPair<'a> {
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
    pub(super) fn pair(self) -> Participants {
        Participants {
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
    pub(super) fn of(said: &'a OptEvent, now_ms: i64) -> OptRow<'a> {
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
    pub(super) fn of(said: &OptEvent) -> RecordedOpt {
        RecordedOpt { account_sid: said.account_sid.clone(), message_sid: said.message_sid.clone() }
    }
}
