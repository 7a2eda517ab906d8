//! Lease store in the memory of this process, sufficient for a sidecar that has its database to itself. It holds only open
//! claims, because the journal and the ledger answer for completed ones. Its content is lost with the process; the ledger remembers the
//! holders as far as they were written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use twilio_edge_contract::SettlementResult;

use super::leases::LeaseClaim;
use crate::settlement_input::SettlementInput;
use twilio_edge_domain::{
    lease::{LeaseRecord, Periods},
    webhook::Webhook,
};

/// Number of records entry for late messages about them. Above it, only held records are entry.
const MAX_RECORDS: usize = 200_000;

/// Milliseconds between two sweeps: normally, and while there are more than [`MAX_RECORDS`] records.
const SWEEP_MS: [i64; 2] = [60_000, 1_000];

#[derive(Clone)]
pub(super) struct Memory {
    records: Arc<Mutex<Records>>,
    periods: Periods,
    recall_ms: i64,
}

#[derive(Default)]
struct Records {
    by_key: HashMap<String, Entry>,
    swept_at_ms: i64,
}

#[derive(Default)]
struct Entry {
    record: LeaseRecord,
    touched_at_ms: i64,
}

impl Memory {
    pub(super) fn new(periods: Periods, recall_ms: i64) -> Memory {
        Memory { records: Arc::default(), periods, recall_ms }
    }

    /// Claims each lease as far as this store knows, in order.
    pub(super) fn claim(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<LeaseClaim> {
        let mut records = self.records();
        records.sweep(now_ms, self.recall_ms);
        let take = |webhook: &&Webhook| {
            let record = records.entry(&webhook.key, now_ms);
            let before = record.clone();
            let claimed = record.claim(&webhook.claim_id, now_ms, self.periods);
            LeaseClaim { claimed, before, after: record.clone() }
        };
        webhooks.iter().map(take).collect()
    }

    /// Replaces the record `before` by `after`. Returns `false` if the record is another one.
    pub(super) fn amend(
        &self,
        key: &str,
        before: &LeaseRecord,
        after: LeaseRecord,
        now_ms: i64,
    ) -> bool {
        let mut records = self.records();
        let record = records.entry(key, now_ms);
        if record != before {
            return false;
        }
        *record = after;
        if record.is_done() {
            records.by_key.remove(key);
        }
        true
    }

    /// Removes completed claims. The journal and the ledger answer for them.
    pub(super) fn commit(&self, settles: &[&SettlementInput]) {
        let mut records = self.records();
        for settle in settles {
            records.by_key.remove(&settle.key);
        }
    }

    /// Releases each lease as far as this store knows, in order.
    pub(super) fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Vec<(SettlementResult, LeaseRecord, LeaseRecord)> {
        let mut records = self.records();
        let give_back = |settle: &&SettlementInput| {
            let record = records.entry(&settle.key, now_ms);
            let before = record.clone();
            let result = record.release(&settle.claim_id, now_ms, self.periods);
            (result, before, record.clone())
        };
        settles.iter().map(give_back).collect()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // No code panics while it holds this lock.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn entry(&mut self, key: &str, now_ms: i64) -> &mut LeaseRecord {
        let entry = self.by_key.entry(key.to_owned()).or_default();
        entry.touched_at_ms = now_ms;
        &mut entry.record
    }

    /// Removes records that are not held and are old, or do not fit.
    fn sweep(&mut self, now_ms: i64, recall_ms: i64) {
        let crowded = self.by_key.len() > MAX_RECORDS;
        let [usually, crowded_ms] = SWEEP_MS;
        let pause_ms = if crowded { crowded_ms } else { usually };
        if now_ms.saturating_sub(self.swept_at_ms) < pause_ms {
            return;
        }
        self.swept_at_ms = now_ms;
        self.by_key.retain(|_, entry| {
            let recent = entry.touched_at_ms.saturating_add(recall_ms) > now_ms;
            entry.record.is_held(now_ms) || (recent && !crowded)
        });
    }
}
