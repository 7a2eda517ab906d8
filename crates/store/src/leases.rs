//! Where leases are kept for speed: in Redis if there is one, else in memory if this sidecar is the only one on its
//! database, else nowhere but in SQL. What is kept here may be lost: the stores ask the ledger too before a
//! webhook proceeds.

use twilio_edge_contract::SettlementResult;

use super::{memory::Memory, redis::Redis};
use crate::error::StoreError;
use crate::settlement::SettlementInput;
use twilio_edge_domain::{
    lease::{Claimed, Record},
    webhook::Webhook,
};

/// The quick store of leases, if there is one.
#[derive(Clone)]
pub(super) enum Leases {
    Redis(Redis),
    Memory(Memory),
    /// The ledger decides, in a transaction.
    Sql,
}

/// A claim, as decided by what the quick store knew.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) claimed: Claimed,
    /// What was known before.
    pub(super) before: Record,
    /// What is kept now.
    pub(super) after: Record,
}

/// A release, as decided by what the quick store knew; then as in [`Taken`].
pub(super) type GivenBack = (SettlementResult, Record, Record);

impl Leases {
    /// Takes each lease, in order. None when this store does not keep them.
    pub(super) async fn claim(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Option<Result<Vec<Taken>, StoreError>> {
        match self {
            Leases::Redis(redis) => Some(redis.claim(webhooks, now_ms).await),
            Leases::Memory(memory) => Some(Ok(memory.claim(webhooks, now_ms))),
            Leases::Sql => None,
        }
    }

    /// Puts each record's new version where the old one is; which of them it was.
    pub(super) async fn amend(
        &self,
        changes: Vec<(&str, &Record, Record)>,
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Leases::Redis(redis) => redis.amend(&changes, now_ms).await,
            Leases::Memory(memory) => {
                let amend = |(key, before, after): (&str, &Record, Record)| {
                    memory.amend(key, before, after, now_ms)
                };
                Ok(changes.into_iter().map(amend).collect())
            }
            Leases::Sql => Ok(vec![false; changes.len()]),
        }
    }

    /// These are done, and the ledger knows.
    pub(super) async fn commit(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        match self {
            Leases::Redis(redis) => redis.commit(settles, now_ms).await,
            Leases::Memory(memory) => {
                memory.commit(settles);
                Ok(())
            }
            Leases::Sql => Ok(()),
        }
    }

    /// Gives each lease back, in order. None when this store does not keep them.
    pub(super) async fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Option<Result<Vec<GivenBack>, StoreError>> {
        match self {
            Leases::Redis(redis) => Some(redis.release(settles, now_ms).await),
            Leases::Memory(memory) => Some(Ok(memory.release(settles, now_ms))),
            Leases::Sql => None,
        }
    }
}
