//! Leases in the memory of this process: all that is needed where one sidecar has the database for itself. Only what is
//! not done is kept here, because the ledger answers for what is. What was known is gone with the process; the ledger
//! remembers who had what, as far as it was written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use twilio_edge_contract::SettlementResult;

use super::leases::Taken;
use crate::settlement::SettlementInput;
use twilio_edge_domain::{
    lease::{Periods, Record},
    webhook::Webhook,
};

/// Records kept for late messages about them; beyond that only those that are held.
const MOST_KEPT: usize = 200_000;

/// Between two looks for what may be forgotten, while there is room and while there is none.
const SWEEP_MS: [i64; 2] = [60_000, 1_000];

#[derive(Clone)]
pub(super) struct Memory {
    records: Arc<Mutex<Records>>,
    periods: Periods,
    recall_ms: i64,
}

#[derive(Default)]
struct Records {
    by_key: HashMap<String, Kept>,
    swept_at_ms: i64,
}

#[derive(Default)]
struct Kept {
    record: Record,
    touched_at_ms: i64,
}

impl Memory {
    pub(super) fn new(periods: Periods, recall_ms: i64) -> Memory {
        Memory { records: Arc::default(), periods, recall_ms }
    }

    /// Takes each lease as far as this memory knows, in order.
    pub(super) fn claim(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Taken> {
        let mut records = self.records();
        records.sweep(now_ms, self.recall_ms);
        let take = |webhook: &&Webhook| {
            let record = records.entry(&webhook.key, now_ms);
            let before = record.clone();
            let claimed = record.claim(&webhook.claim_id, now_ms, self.periods);
            Taken { claimed, before, after: record.clone() }
        };
        webhooks.iter().map(take).collect()
    }

    /// Puts `after` where `before` is; false when it is not.
    pub(super) fn amend(&self, key: &str, before: &Record, after: Record, now_ms: i64) -> bool {
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

    /// These are done, and the ledger knows.
    pub(super) fn commit(&self, settles: &[&SettlementInput]) {
        let mut records = self.records();
        for settle in settles {
            records.by_key.remove(&settle.key);
        }
    }

    /// Gives each lease back as far as this memory knows, in order.
    pub(super) fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Vec<(SettlementResult, Record, Record)> {
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
        // Nothing panics while it holds this.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn entry(&mut self, key: &str, now_ms: i64) -> &mut Record {
        let kept = self.by_key.entry(key.to_owned()).or_default();
        kept.touched_at_ms = now_ms;
        &mut kept.record
    }

    /// Forgets what is old, or more than fits, and held by nobody.
    fn sweep(&mut self, now_ms: i64, recall_ms: i64) {
        let crowded = self.by_key.len() > MOST_KEPT;
        let [usually, crowded_ms] = SWEEP_MS;
        let pause_ms = if crowded { crowded_ms } else { usually };
        if now_ms.saturating_sub(self.swept_at_ms) < pause_ms {
            return;
        }
        self.swept_at_ms = now_ms;
        self.by_key.retain(|_, kept| {
            let recent = kept.touched_at_ms.saturating_add(recall_ms) > now_ms;
            kept.record.is_held(now_ms) || (recent && !crowded)
        });
    }
}
