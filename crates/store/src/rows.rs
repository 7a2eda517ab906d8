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

/// ContactKey of a suppression: the tenant, and the number or id.
pub(super) type ContactKey = (String, String);

/// One number or id of a contact.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ContactQuery<'a> {
    pub(super) tenant: &'a str,
    pub(super) number: Cow<'a, str>,
}

/// Row found for a claim: a known webhook, or a suppressed contact.
#[derive(Debug, FromRow)]
pub(super) struct LookupRow {
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

/// Decoded [`LookupRow`].
#[derive(Debug)]
pub(super) enum LookupItem {
    Webhook(String, Lease),
    /// Contact, the channel on which it is suppressed, and the time at which that ends by itself.
    Suppressed(ContactKey, String, Option<i64>),
    /// Milliseconds for which a sidecar remains cut off from Redis.
    Partition(i64),
    Nothing,
}

impl LookupRow {
    pub(super) fn read(self, result_ms: i64) -> LookupItem {
        if let (Some(tenant), Some(channel), Some(number)) =
            (self.tenant, self.channel, self.number)
        {
            return LookupItem::Suppressed((tenant, number), channel, self.received_at_ms);
        }
        let Some(dedupe_key) = self.dedupe_key else {
            return self.held_until_ms.map_or(LookupItem::Nothing, LookupItem::Partition);
        };
        let columns = LeaseColumns {
            attempts: self.attempts.unwrap_or_default(),
            received_at_ms: self.received_at_ms,
            claim_id: self.claim_id.unwrap_or_default(),
            held_until_ms: self.held_until_ms,
            is_accepted: self.outcome.as_deref() == Some(ACCEPTED),
            settled_at_ms: self.settled_at_ms,
            answer: self.answer,
        };
        LookupItem::Webhook(dedupe_key, columns.lease(result_ms))
    }
}

/// Columns of an event that make its lease.
pub(super) struct LeaseColumns {
    pub(super) attempts: i64,
    pub(super) received_at_ms: Option<i64>,
    pub(super) claim_id: String,
    pub(super) held_until_ms: Option<i64>,
    pub(super) is_accepted: bool,
    pub(super) settled_at_ms: Option<i64>,
    pub(super) answer: Option<String>,
}

impl LeaseColumns {
    /// Returns the lease; `result_ms` is the time to live of a result.
    pub(super) fn lease(self, result_ms: i64) -> Lease {
        let claim_id = self.claim_id;
        let (state, since_ms) = match (self.is_accepted, self.held_until_ms) {
            (true, _) => (LeaseState::Done { claim_id, answer: self.answer }, self.settled_at_ms),
            (false, Some(until_ms)) => (LeaseState::Held { claim_id, until_ms }, Some(until_ms)),
            (false, None) => (LeaseState::Free, self.settled_at_ms),
        };
        let since_ms = since_ms.or(self.received_at_ms).unwrap_or_default();
        Lease {
            attempt: u32::try_from(self.attempts).unwrap_or_default(),
            first_seen_ms: self.received_at_ms.unwrap_or(since_ms),
            state,
            forget_at_ms: since_ms.saturating_add(result_ms),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ClaimEndQuery<'a> {
    pub(super) dedupe_key: &'a str,
    pub(super) claim_id: &'a str,
    pub(super) now_ms: i64,
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct ClaimEndRow {
    pub(super) dedupe_key: String,
    pub(super) claim_id: String,
    ending: String,
    expires_at_ms: i64,
}

impl ClaimEndRow {
    pub(super) fn of(
        key: &str,
        claim_id: &str,
        ending: ClaimEnd,
        expires_at_ms: i64,
    ) -> ClaimEndRow {
        ClaimEndRow {
            dedupe_key: key.to_owned(),
            claim_id: claim_id.to_owned(),
            ending: ending.as_str().to_owned(),
            expires_at_ms,
        }
    }

    /// Returns the end of the claim.
    pub(super) fn ending(&self) -> Result<ClaimEnd, StoreError> {
        self.ending
            .parse()
            .map_err(|problem| StoreError::Refused(format!("claim_ends.ending: {problem}")))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct PairQuery<'a> {
    account_sid: &'a str,
    channel: &'a str,
    theirs: &'a str,
    ours: &'a str,
}

impl<'a> PairQuery<'a> {
    pub(super) fn of(pair: &'a Participants) -> PairQuery<'a> {
        PairQuery {
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
    pub(super) fn of(opt: &'a OptEvent, now_ms: i64) -> OptRow<'a> {
        OptRow {
            account_sid: &opt.account_sid,
            message_sid: &opt.message_sid,
            channel: &opt.address.channel,
            number: &opt.address.number,
            opt: opt.opt.as_str(),
            cause: opt.cause(),
            route: &opt.route,
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
    pub(super) fn of(opt: &OptEvent) -> RecordedOpt {
        RecordedOpt { account_sid: opt.account_sid.clone(), message_sid: opt.message_sid.clone() }
    }
}
