//! Lease store: Redis if configured, else memory if this sidecar is the only one on its database, else SQL only. Redis and
//! memory may lose leases, so the stores also ask the ledger before a webhook proceeds.

use twilio_edge_contract::SettlementResult;

use super::{memory::Memory, redis::Redis};
use crate::error::StoreError;
use crate::settlement_input::SettlementInput;
use twilio_edge_domain::{
    lease::{ClaimOutcome, LeaseRecord},
    webhook::Webhook,
};

/// The lease store, which answers claims faster than the ledger.
#[derive(Clone)]
pub(super) enum Leases {
    Redis(Redis),
    Memory(Memory),
    /// No lease store: the ledger decides in a transaction.
    Sql,
}

/// Claim decision of the lease store.
#[derive(Debug)]
pub(super) struct LeaseClaim {
    pub(super) claimed: ClaimOutcome,
    /// The record before the claim.
    pub(super) before: LeaseRecord,
    /// The record after the claim.
    pub(super) after: LeaseRecord,
}

/// Release decision of the lease store: the result, then the record before and after, as in [`LeaseClaim`].
pub(super) type LeaseRelease = (SettlementResult, LeaseRecord, LeaseRecord);

impl Leases {
    /// Claims each lease, in order. Returns `None` without a lease store.
    pub(super) async fn claim(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Option<Result<Vec<LeaseClaim>, StoreError>> {
        match self {
            Leases::Redis(redis) => Some(redis.claim(webhooks, now_ms).await),
            Leases::Memory(memory) => Some(Ok(memory.claim(webhooks, now_ms))),
            Leases::Sql => None,
        }
    }

    /// Replaces each record if it still equals the old version. Returns for each change whether it was applied.
    pub(super) async fn amend(
        &self,
        changes: Vec<(&str, &LeaseRecord, LeaseRecord)>,
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Leases::Redis(redis) => redis.amend(&changes, now_ms).await,
            Leases::Memory(memory) => {
                let amend = |(key, before, after): (&str, &LeaseRecord, LeaseRecord)| {
                    memory.amend(key, before, after, now_ms)
                };
                Ok(changes.into_iter().map(amend).collect())
            }
            Leases::Sql => Ok(vec![false; changes.len()]),
        }
    }

    /// Marks the claims as completed. The journal or the ledger already has them.
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

    /// Releases each lease, in order. Returns `None` without a lease store.
    pub(super) async fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Option<Result<Vec<LeaseRelease>, StoreError>> {
        match self {
            Leases::Redis(redis) => Some(redis.release(settles, now_ms).await),
            Leases::Memory(memory) => Some(Ok(memory.release(settles, now_ms))),
            Leases::Sql => None,
        }
    }
}
