//! Settlement path of the stores. A commit is in the spool and in the lease store before its answer, and in SQL after it. It is
//! durable in SQL before the answer where the spool or the lease store cannot answer for it: without a spool, without a lease
//! store, while Redis is unavailable or another sidecar cannot reach it, and for a webhook without a claim. A release is applied to the lease store
//! first and written to SQL after the answer. The domain decides what each result means.

use std::{collections::HashMap, time::Instant};

use twilio_edge_contract::{Outcome, SettlementResult};

use super::{event::Event, leases::LeaseRelease, ledger::refusal};
use crate::{error::StoreError, peers::Peers, settlement_input::SettlementInput, stores::Stores};
use twilio_edge_domain::lease::LeaseRecord;
use twilio_edge_platform::store_metrics::Operation;

impl Stores {
    /// Settles each claim, in order. An entry is `None` where no store could settle; the caller retries.
    pub async fn settle(
        &self,
        settles: Vec<SettlementInput>,
        now_ms: i64,
    ) -> Vec<Option<SettlementResult>> {
        let (commits, releases): (Vec<&SettlementInput>, Vec<&SettlementInput>) =
            settles.iter().partition(|settle| settle.outcome == Outcome::Commit);
        let (unclaimed, claimed): (Vec<&SettlementInput>, Vec<&SettlementInput>) =
            commits.into_iter().partition(|settle| settle.unclaimed.is_some());
        let is_claimed_stored = self.commit(&claimed, true, now_ms).await;
        // The settlement is the only copy of a webhook without a claim.
        let is_unclaimed_stored = self.commit(&unclaimed, false, now_ms).await;
        let mut released = self.release(&releases, now_ms).await.into_iter();
        let result = |settle: &SettlementInput| match (settle.outcome, &settle.unclaimed) {
            (Outcome::Commit, None) => is_claimed_stored.then_some(SettlementResult::Settled),
            (Outcome::Commit, Some(_)) => is_unclaimed_stored.then_some(SettlementResult::Settled),
            (Outcome::Release, _) => released.next().flatten(),
        };
        settles.iter().map(result).collect()
    }

    /// Commits the claims. Returns whether all of them are stored: in the spool and the lease store if they `may_wait` for SQL,
    /// else in SQL.
    async fn commit(&self, settles: &[&SettlementInput], may_wait: bool, now_ms: i64) -> bool {
        if settles.is_empty() {
            return true;
        }
        let events: Vec<Event<'_>> =
            settles.iter().map(|settle| Event::accepted(settle, now_ms)).collect();
        let store = async {
            if may_wait && self.commit_in_spool(&events).await? {
                if self.commit_in_leases(settles, now_ms).await {
                    return Ok(());
                }
                // Redis cannot answer for these webhooks, so SQL must.
                return self.commit_in_sql(events).await;
            }
            self.commit_in_sql(events).await?;
            // Redis learns a missed commit when the lease that it holds expires.
            self.commit_in_leases(settles, now_ms).await;
            Ok(())
        };
        let stored: Result<(), StoreError> = store.await;
        if let Err(reason) = &stored {
            tracing::warn!(event = "settlements.persist_failed", %reason, count = settles.len(), "the sidecar could not store settlements; filters send them again");
        }
        stored.is_ok()
    }

    /// Writes the commits to the spool. Returns `false`, and does nothing, if they must be in SQL before their answer.
    async fn commit_in_spool(&self, events: &[Event<'_>]) -> Result<bool, StoreError> {
        if !self.journal.is_spooled() {
            return Ok(false);
        }
        // A sidecar that cannot reach Redis asks SQL alone. It waits until this lock is free and the journal is written.
        let _granting = self.outgoing.granting.read().await;
        if self.peers.as_ref().is_some_and(Peers::is_partitioned) {
            return Ok(false);
        }
        self.metrics.stores.timed(Operation::JournalNote, self.journal.note(events)).await?;
        Ok(true)
    }

    /// Marks the claims as completed in the lease store. Returns whether it has them.
    async fn commit_in_leases(&self, settles: &[&SettlementInput], now_ms: i64) -> bool {
        let commit = self.leases.commit(settles, now_ms);
        let is_done = self.metrics.stores.timed(Operation::LeasesCommit, commit).await.is_ok();
        if !is_done {
            self.metrics.stores.redis_fell_through();
        }
        is_done
    }

    async fn commit_in_sql(&self, events: Vec<Event<'_>>) -> Result<(), StoreError> {
        self.metrics.stores.timed(Operation::JournalWrite, self.journal.write(events)).await
    }

    async fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Vec<Option<SettlementResult>> {
        if settles.is_empty() {
            return Vec::new();
        }
        let since = Instant::now();
        let released_leases = self.leases.release(settles, now_ms).await;
        let measure = |answer| self.metrics.stores.asked(Operation::LeasesRelease, since, answer);
        let released_leases = match released_leases.map(measure) {
            Some(Ok(released_leases)) => {
                self.confirm_releases(settles, released_leases, now_ms).await
            }
            Some(Err(reason)) => {
                self.metrics.stores.redis_fell_through();
                Err(reason)
            }
            None => Err(StoreError::Unavailable(String::new())),
        };
        let Ok(released_leases) = released_leases else {
            return self.release_in_ledger(settles, now_ms).await;
        };
        let ended = settles.iter().zip(&released_leases);
        let events =
            ended.filter_map(|(settle, (result, record))| refusal(settle, *result, record, now_ms));
        let events: Vec<Event<'_>> = events.collect();
        let note = self.journal.note(&events);
        if self.metrics.stores.timed(Operation::JournalNote, note).await.is_err() {
            return vec![None; settles.len()];
        }
        released_leases.into_iter().map(|(result, _)| Some(result)).collect()
    }

    /// Looks up in the ledger the released claims that the lease store does not know.
    async fn confirm_releases(
        &self,
        settles: &[&SettlementInput],
        released_leases: Vec<LeaseRelease>,
        now_ms: i64,
    ) -> Result<Vec<(SettlementResult, LeaseRecord)>, StoreError> {
        let unknown = |result: SettlementResult| result == SettlementResult::Tombstoned;
        let unknown_settles =
            settles.iter().zip(&released_leases).filter(|(_, (result, ..))| unknown(*result));
        let keys: Vec<&str> = unknown_settles.map(|(settle, _)| settle.key.as_str()).collect();
        let known = match keys.is_empty() {
            true => HashMap::new(),
            false => self.known_leases(&keys).await?,
        };
        let mut changes = Vec::new();
        let mut results = Vec::with_capacity(settles.len());
        for (settle, (result, before, after)) in settles.iter().zip(released_leases) {
            let mut record = before;
            let remembered = known.get(&settle.key).filter(|_| unknown(result));
            if remembered.is_some_and(|lease| record.merge(lease.clone())) {
                let result = record.release(&settle.claim_id, now_ms, self.periods);
                changes.push((settle.key.as_str(), after, record.clone()));
                results.push((result, record));
            } else {
                results.push((result, after));
            }
        }
        let changes = changes.iter().map(|(key, before, after)| (*key, before, after.clone()));
        self.leases.amend(changes.collect(), now_ms).await?;
        Ok(results)
    }

    async fn release_in_ledger(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Vec<Option<SettlementResult>> {
        let asks = settles.iter().map(|settle| (*settle).clone()).collect();
        let released = match self.flush().await {
            Ok(()) => {
                let ask = self.releases.ask(asks, now_ms);
                self.metrics.stores.timed(Operation::LedgerRelease, ask).await
            }
            Err(reason) => Err(reason),
        };
        match released {
            Ok(results) => results.into_iter().map(Some).collect(),
            Err(reason) => {
                tracing::warn!(event = "settlements.persist_failed", %reason, count = settles.len(), "the sidecar could not store settlements; filters send them again");
                vec![None; settles.len()]
            }
        }
    }
}
