//! The rows of the ledger's tables, column by column, and what they stand for. Times are milliseconds since 1970.

use serde::Serialize;
use sqlx::FromRow;
use twilio_edge_contract::{Class, Identity, Opt, Outcome};

use super::{
    ledger::{OptSaid, Person},
    sql::StoreError,
};
use crate::domain::{
    address::Address,
    lease::{Ending, Hold, Lease},
    webhook::{Pair, Webhook},
};

#[derive(Debug, Serialize)]
pub(super) struct WantedLease<'a> {
    pub(super) dedupe_key: &'a str,
    pub(super) now_ms: i64,
    /// Of the row that is made when there is none.
    pub(super) forget_at_ms: i64,
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct LeaseRow {
    pub(super) dedupe_key: String,
    state: String,
    claim_id: Option<String>,
    attempt: i64,
    first_seen_ms: i64,
    lease_until_ms: Option<i64>,
    answer: Option<String>,
    forget_at_ms: i64,
}

impl LeaseRow {
    pub(super) fn of(dedupe_key: &str, lease: &Lease) -> LeaseRow {
        let (state, claim_id, lease_until_ms, answer) = match &lease.hold {
            Hold::Free => ("free", None, None, None),
            Hold::Held { claim_id, until_ms } => {
                ("held", Some(claim_id.clone()), Some(*until_ms), None)
            }
            Hold::Done { claim_id, answer } => {
                ("done", Some(claim_id.clone()), None, answer.clone())
            }
        };
        LeaseRow {
            dedupe_key: dedupe_key.to_owned(),
            state: state.to_owned(),
            claim_id,
            attempt: i64::from(lease.attempt),
            first_seen_ms: lease.first_seen_ms,
            lease_until_ms,
            answer,
            forget_at_ms: lease.forget_at_ms,
        }
    }

    pub(super) fn lease(self) -> Lease {
        let claim_id = self.claim_id.unwrap_or_default();
        let hold = match (self.state.as_str(), self.lease_until_ms) {
            ("held", Some(until_ms)) => Hold::Held { claim_id, until_ms },
            ("done", _) => Hold::Done { claim_id, answer: self.answer },
            _ => Hold::Free,
        };
        Lease {
            attempt: u32::try_from(self.attempt).unwrap_or(u32::MAX),
            first_seen_ms: self.first_seen_ms,
            hold,
            forget_at_ms: self.forget_at_ms,
        }
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

    pub(super) fn ending(&self) -> Result<Ending, StoreError> {
        match self.ending.as_str() {
            "freed" => Ok(Ending::Freed),
            "tombstone" => Ok(Ending::Tombstone),
            "superseded" => Ok(Ending::Superseded),
            other => Err(StoreError::Refused(format!("endings.ending holds {other:?}"))),
        }
    }
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct WindowRow {
    account_sid: String,
    channel: String,
    theirs: String,
    ours: String,
    pub(super) last_inbound_ms: i64,
}

impl WindowRow {
    pub(super) fn of(pair: &Pair, last_inbound_ms: i64) -> WindowRow {
        WindowRow {
            account_sid: pair.account_sid.clone(),
            channel: pair.theirs.channel.clone(),
            theirs: pair.theirs.number.clone(),
            ours: pair.ours.clone(),
            last_inbound_ms,
        }
    }

    pub(super) fn pair(self) -> Pair {
        Pair {
            account_sid: self.account_sid,
            theirs: Address { channel: self.channel, number: self.theirs },
            ours: self.ours,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WantedSuppression<'a> {
    tenant: &'a str,
    channel: &'a str,
    number: &'a str,
}

impl<'a> WantedSuppression<'a> {
    pub(super) fn of(pair: &'a Pair) -> WantedSuppression<'a> {
        WantedSuppression {
            tenant: &pair.account_sid,
            channel: &pair.theirs.channel,
            number: &pair.theirs.number,
        }
    }
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct SuppressionRow {
    tenant: String,
    channel: String,
    number: String,
    pub(super) suppressed: bool,
    message_sid: String,
    pub(super) changed_at_ms: i64,
}

impl SuppressionRow {
    pub(super) fn of(said: &OptSaid, now_ms: i64) -> SuppressionRow {
        SuppressionRow {
            tenant: said.account_sid.clone(),
            channel: said.address.channel.clone(),
            number: said.address.number.clone(),
            suppressed: said.opt == Opt::Stop,
            message_sid: said.message_sid.clone(),
            changed_at_ms: now_ms,
        }
    }

    pub(super) fn person(&self) -> Person {
        let address = Address { channel: self.channel.clone(), number: self.number.clone() };
        (self.tenant.clone(), address)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct OptRow<'a> {
    account_sid: &'a str,
    message_sid: &'a str,
    channel: &'a str,
    number: &'a str,
    opt: &'static str,
    cause: &'static str,
    route: &'a str,
    recorded_at_ms: i64,
}

impl<'a> OptRow<'a> {
    pub(super) fn of(said: &'a OptSaid, now_ms: i64) -> OptRow<'a> {
        OptRow {
            account_sid: &said.account_sid,
            message_sid: &said.message_sid,
            channel: &said.address.channel,
            number: &said.address.number,
            opt: said.opt.as_str(),
            cause: said.cause.as_str(),
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
    pub(super) fn of(said: &OptSaid) -> RecordedOpt {
        RecordedOpt { account_sid: said.account_sid.clone(), message_sid: said.message_sid.clone() }
    }
}

/// What the ledger is to know of one webhook: that it came, how it ended, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    pub(super) dedupe_key: String,
    class: Class,
    account_sid: String,
    message_sid: String,
    status: Option<String>,
    error_code: Option<String>,
    route: Option<String>,
    form: Option<String>,
    received_at_ms: Option<i64>,
    attempts: u32,
    outcome: Option<&'static str>,
    settled_at_ms: Option<i64>,
}

impl EventRow {
    /// It came, for the first or a later time.
    pub fn received(webhook: &Webhook, attempt: u32, received_at_ms: i64) -> EventRow {
        EventRow {
            route: Some(webhook.route.clone()),
            form: Some(webhook.form.clone()),
            received_at_ms: Some(received_at_ms),
            attempts: attempt,
            ..EventRow::known(&webhook.identity)
        }
    }

    /// The backend took it, or did not.
    pub fn settled(identity: &Identity, outcome: Outcome, settled_at_ms: i64) -> EventRow {
        let outcome = match outcome {
            Outcome::Commit => "accepted",
            Outcome::Release => "refused",
        };
        EventRow {
            outcome: Some(outcome),
            settled_at_ms: Some(settled_at_ms),
            ..EventRow::known(identity)
        }
    }

    fn known(identity: &Identity) -> EventRow {
        EventRow {
            dedupe_key: identity.dedupe_key(),
            class: identity.class,
            account_sid: identity.account_sid.clone(),
            message_sid: identity.message_sid.clone(),
            status: identity.status.clone(),
            error_code: identity.error_code.clone(),
            route: None,
            form: None,
            received_at_ms: None,
            attempts: 0,
            outcome: None,
            settled_at_ms: None,
        }
    }

    /// Takes in what `later` knows: the same merge the database makes, for two rows of one statement.
    pub(super) fn merge(&mut self, later: EventRow) {
        self.route = self.route.take().or(later.route);
        self.form = self.form.take().or(later.form);
        self.received_at_ms = match (self.received_at_ms, later.received_at_ms) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.attempts = self.attempts.max(later.attempts);
        if self.outcome != Some("accepted") && later.outcome.is_some() {
            (self.outcome, self.settled_at_ms) = (later.outcome, later.settled_at_ms);
        }
    }
}
