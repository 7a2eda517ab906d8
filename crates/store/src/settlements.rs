//! Settlement path of the stores. A commit is durable first and then applied to the lease store. A release is applied to
//! the lease store first and written to SQL after the answer. The domain decides what each result means.

use std::{collections::HashMap, time::Instant};

use twilio_edge_contract::{Outcome, SettlementResult};

use super::{event::Event, leases::LeaseRelease, ledger::refusal};
use crate::{error::StoreError, settlement_input::SettlementInput, stores::Stores};
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
        let committed = self.commit(&commits, now_ms).await;
        let mut released = self.release(&releases, now_ms).await.into_iter();
        let result = |settle: &SettlementInput| match settle.outcome {
            Outcome::Commit => committed.then_some(SettlementResult::Settled),
            Outcome::Release => released.next().flatten(),
        };
        settles.iter().map(result).collect()
    }

    /// Commits the claims. Returns whether all of them are durable.
    async fn commit(&self, settles: &[&SettlementInput], now_ms: i64) -> bool {
        if settles.is_empty() {
            return true;
        }
        let events = settles.iter().map(|settle| Event::accepted(settle, now_ms)).collect();
        let write = self.journal.write(events);
        if let Err(reason) = self.metrics.stores.timed(Operation::JournalWrite, write).await {
            tracing::warn!(event = "settlements.persist_failed", %reason, count = settles.len(), "the sidecar could not store settlements; filters send them again");
            return false;
        }
        let commit = self.leases.commit(settles, now_ms);
        if self.metrics.stores.timed(Operation::LeasesCommit, commit).await.is_err() {
            // Redis learns a missed commit when the lease that it holds expires.
            self.metrics.stores.redis_fell_through();
        }
        true
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
            false => self.ledger.leases(&keys).await?,
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
        let released = match self.journal.flush().await {
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
