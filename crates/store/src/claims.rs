//! Claim path of the stores. The lease store decides, and the ledger confirms its decision. The ledger decides alone when
//! there is no lease store or it is unavailable, and decides as well when another sidecar cannot reach Redis. The domain
//! decides what each answer means.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use super::{
    event::Event,
    leases::{LeaseClaim, Leases},
    ledger::{LedgerDecision, LookupResult, arrival},
};
use crate::{error::StoreError, ledger::ClaimResult, stores::Stores};
use twilio_edge_domain::{
    lease::{ClaimOutcome, Lease, LeaseRecord},
    webhook::{Participants, Webhook},
};
use twilio_edge_platform::store_metrics::Operation;

impl Stores {
    /// Decides each claim, in order. An entry is `None` where no store could decide.
    pub async fn claim(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<ClaimResult>> {
        if webhooks.is_empty() {
            return Vec::new();
        }
        let granting = self.outgoing.granting.read().await;
        let since = Instant::now();
        let taken = self.leases.claim(webhooks, now_ms).await;
        let taken =
            taken.map(|taken| self.metrics.stores.asked(Operation::LeasesClaim, since, taken));
        let mut grants = match taken {
            Some(Ok(taken)) => self.confirm(webhooks, taken, now_ms).await,
            Some(Err(_)) => {
                drop(granting);
                self.metrics.stores.redis_fell_through();
                self.decide_in_partition(webhooks, now_ms).await
            }
            None => self.decide(webhooks, now_ms).await,
        };
        self.add_last_inbound(webhooks, &mut grants, now_ms).await;
        grants
    }

    /// Checks the lease store's decisions against the ledger and records them in the journal.
    async fn confirm(
        &self,
        webhooks: &[&Webhook],
        mut taken: Vec<LeaseClaim>,
        now_ms: i64,
    ) -> Vec<Option<ClaimResult>> {
        let proceeds = |taken: &LeaseClaim| matches!(taken.claimed, ClaimOutcome::Proceed { .. });
        let to_confirm: Vec<&Webhook> = webhooks
            .iter()
            .zip(&taken)
            .filter(|(_, taken)| proceeds(taken))
            .map(|(webhook, _)| *webhook)
            .collect();
        let known = match to_confirm.is_empty() {
            true => Ok(LookupResult::default()),
            false => {
                let looking = self.look_up(&to_confirm, now_ms);
                self.metrics.stores.timed(Operation::LedgerLookUp, looking).await
            }
        };
        let known = match known {
            Ok(known) => known,
            Err(reason) => {
                tracing::warn!(event = "claims.unavailable", %reason, count = to_confirm.len(), "the stores could not decide claims");
                self.undo_leases(webhooks, &taken, now_ms).await;
                let grant =
                    |taken: LeaseClaim| (!proceeds(&taken)).then(|| ClaimResult::of(taken.claimed));
                return taken.into_iter().map(grant).collect();
            }
        };
        if !known.leases.is_empty() {
            self.reconsider(webhooks, &mut taken, &known, now_ms).await;
        }
        if known.partition_ms > 0 {
            self.confirm_in_ledger(webhooks, &mut taken, now_ms).await;
        }
        // The event of a webhook to accept is written durably with the acceptance, before its answer.
        let rows = webhooks.iter().zip(&taken).filter(|(webhook, taken)| {
            !(webhook.is_ours && matches!(taken.claimed, ClaimOutcome::Proceed { .. }))
        });
        let events: Vec<Event<'_>> = rows
            .filter_map(|(webhook, taken)| {
                let arrival = arrival(webhook, &taken.claimed, now_ms, self.periods)?;
                let is_first = arrival.attempts == 1 && !known.leases.contains_key(&webhook.key);
                Some(Event { is_first, ..arrival })
            })
            .collect();
        if let Err(reason) =
            self.metrics.stores.timed(Operation::JournalNote, self.journal.note(&events)).await
        {
            // The leases remain, but without the events there is no record of what arrived.
            tracing::warn!(event = "events.queue_full", %reason, "the sidecar could not write events, and its queue was full");
            return vec![None; webhooks.len()];
        }
        let grants = webhooks.iter().zip(taken).map(|(webhook, taken)| {
            let inbound = webhook.inbound.as_ref().filter(|_| proceeds(&taken));
            let suppressed = inbound
                .is_some_and(|inbound| known.is_suppressed(inbound, &self.ledger.policies()));
            Some(ClaimResult { suppressed, ..ClaimResult::of(taken.claimed) })
        });
        grants.collect()
    }

    /// Decides again the claims for which the ledger is ahead of the lease store, and corrects the lease store.
    async fn reconsider(
        &self,
        webhooks: &[&Webhook],
        taken: &mut [LeaseClaim],
        known: &LookupResult,
        now_ms: i64,
    ) {
        let (mut changes, mut places) = (Vec::new(), Vec::new());
        for (place, (webhook, taken)) in webhooks.iter().zip(taken.iter()).enumerate() {
            let remembered = match &taken.claimed {
                ClaimOutcome::Proceed { .. } => known.leases.get(&webhook.key),
                _ => None,
            };
            let mut record = taken.before.clone();
            if !remembered.is_some_and(|lease| record.merge(lease.clone())) {
                continue;
            }
            let claimed = record.claim(&webhook.claim_id, now_ms, self.periods);
            changes.push((webhook.key.as_str(), taken.after.clone(), record));
            places.push((place, claimed));
        }
        let swaps = changes.iter().map(|(key, before, after)| (*key, before, after.clone()));
        let amended = self.leases.amend(swaps.collect(), now_ms).await;
        for (nth, (place, claimed)) in places.into_iter().enumerate() {
            let amended = amended.as_ref().is_ok_and(|amended| amended.get(nth) == Some(&true));
            let after = changes.get(nth).map(|(.., after)| after.clone()).filter(|_| amended);
            if let Some(taken) = taken.get_mut(place) {
                taken.after = after.unwrap_or_else(|| taken.after.clone());
                // A lease that could not be corrected is not granted; the caller retries.
                let proceeds = matches!(claimed, ClaimOutcome::Proceed { .. });
                taken.claimed = if proceeds && !amended { ClaimOutcome::InFlight } else { claimed };
            }
        }
    }

    /// Undoes claims that cannot be answered. Best effort: a lease that is not returned expires.
    async fn undo_leases(&self, webhooks: &[&Webhook], taken: &[LeaseClaim], now_ms: i64) {
        let undone = webhooks.iter().zip(taken).filter(|(_, taken)| taken.before != taken.after);
        let undone = undone
            .map(|(webhook, taken)| (webhook.key.as_str(), &taken.after, taken.before.clone()));
        let _ = self.leases.amend(undone.collect(), now_ms).await;
    }

    /// Confirms in SQL the claims that Redis granted, because another sidecar cannot reach Redis.
    async fn confirm_in_ledger(
        &self,
        webhooks: &[&Webhook],
        taken: &mut [LeaseClaim],
        now_ms: i64,
    ) {
        if let Some(peers) = &self.peers {
            peers.see_partition();
        }
        let proceeds = |taken: &LeaseClaim| matches!(taken.claimed, ClaimOutcome::Proceed { .. });
        let to_confirm = webhooks.iter().zip(taken.iter()).filter(|(_, taken)| proceeds(taken));
        let to_confirm: Vec<&Webhook> = to_confirm.map(|(webhook, _)| *webhook).collect();
        let decided = self.ask_ledger(&to_confirm, now_ms).await;
        let mut decided = decided
            .unwrap_or_else(|reason| {
                tracing::warn!(event = "claims.unavailable", %reason, count = to_confirm.len(), "the stores could not decide claims");
                Vec::new()
            })
            .into_iter();
        let mut undone = Vec::new();
        for (webhook, taken) in webhooks.iter().zip(taken).filter(|(_, taken)| proceeds(taken)) {
            // A claim without a decision from SQL is in flight; the caller retries.
            taken.claimed =
                decided.next().map_or(ClaimOutcome::InFlight, |decided| decided.claimed);
            if !proceeds(taken) {
                undone.push((webhook.key.as_str(), &taken.after, taken.before.clone()));
            }
        }
        let _ = self.leases.amend(undone, now_ms).await;
    }

    /// Lets the ledger decide while this sidecar cannot reach Redis, which others may still reach. The ledger decides only
    /// when all sidecars ask it too and have written the claims that they granted before.
    async fn decide_in_partition(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Vec<Option<ClaimResult>> {
        let may_decide = match &self.peers {
            Some(peers) => peers.enter_partition().await,
            None => Ok(true),
        };
        let decided = match may_decide {
            Ok(true) => self.ask_ledger(webhooks, now_ms).await,
            Ok(false) => {
                return vec![Some(ClaimResult::of(ClaimOutcome::InFlight)); webhooks.len()];
            }
            Err(reason) => Err(reason),
        };
        let grant = |decided: LedgerDecision| {
            // Other sidecars may have returned to Redis before this decision was written; the caller retries.
            let in_time = decided.partition_ms > self.longest_ms;
            if in_time {
                ClaimResult::decided(decided)
            } else {
                ClaimResult::of(ClaimOutcome::InFlight)
            }
        };
        self.granted(decided, webhooks.len(), grant)
    }

    /// Lets the ledger decide.
    async fn decide(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<ClaimResult>> {
        let decided = self.ask_ledger(webhooks, now_ms).await;
        self.granted(decided, webhooks.len(), ClaimResult::decided)
    }

    async fn ask_ledger(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<Vec<LedgerDecision>, StoreError> {
        self.flush().await?;
        let asks = webhooks.iter().map(|webhook| (*webhook).clone()).collect();
        self.metrics.stores.timed(Operation::LedgerClaim, self.claims.ask(asks, now_ms)).await
    }

    fn granted(
        &self,
        decided: Result<Vec<LedgerDecision>, StoreError>,
        count: usize,
        grant: impl Fn(LedgerDecision) -> ClaimResult,
    ) -> Vec<Option<ClaimResult>> {
        match decided {
            Ok(decided) => decided.into_iter().map(|decided| Some(grant(decided))).collect(),
            Err(reason) => {
                tracing::warn!(event = "claims.unavailable", %reason, count, "the stores could not decide claims");
                vec![None; count]
            }
        }
    }

    /// Adds the time of the pair's latest inbound message to each proceeding claim. It is now, unless the message is older
    /// and so may not be the latest one.
    async fn add_last_inbound(
        &self,
        webhooks: &[&Webhook],
        grants: &mut [Option<ClaimResult>],
        now_ms: i64,
    ) {
        let mut of_before = BTreeSet::new();
        for (webhook, grant) in webhooks.iter().zip(grants.iter_mut()) {
            let (Some(grant), Some(inbound)) = (grant, &webhook.inbound) else { continue };
            let ClaimOutcome::Proceed { first_seen_ms, .. } = grant.claimed else { continue };
            grant.last_inbound_ms = Some(first_seen_ms);
            if first_seen_ms < now_ms {
                of_before.insert(&inbound.participants);
            }
        }
        if of_before.is_empty() {
            return;
        }
        let mut last: HashMap<Participants, i64> = HashMap::new();
        self.journal.visit_inbound(|event| {
            let is_of = |pair: &&&Participants| event.is_of(pair);
            if let (Some(pair), Some(at)) = (of_before.iter().find(is_of), event.received_at_ms) {
                let last = last.entry((**pair).clone()).or_insert(at);
                *last = at.max(*last);
            }
        });
        // Best effort: without it, the reported conversation window ends earlier than it does.
        for (pair, at) in self.ledger.last_inbound(&of_before).await.unwrap_or_default() {
            let last = last.entry(pair).or_insert(at);
            *last = at.max(*last);
        }
        for (webhook, grant) in webhooks.iter().zip(grants) {
            let (Some(grant), Some(inbound)) = (grant, &webhook.inbound) else { continue };
            let last = last.get(&inbound.participants).copied();
            grant.last_inbound_ms =
                grant.last_inbound_ms.map(|first| last.map_or(first, |last| last.max(first)));
        }
    }
}

impl Stores {
    /// Reads the leases of these webhooks and the suppressions of their senders, in the journal and the ledger.
    async fn look_up(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<LookupResult, StoreError> {
        let keys = webhooks.iter().map(|webhook| webhook.key.as_str());
        let pending = self.journal.leases(keys, self.periods.result_ms);
        let mut known = self.ledger.look_up(webhooks, now_ms).await?;
        merge_leases(&mut known.leases, pending);
        Ok(known)
    }

    /// Reads the leases of these dedupe keys, in the journal and the ledger.
    pub(crate) async fn known_leases(
        &self,
        keys: &[&str],
    ) -> Result<HashMap<String, Lease>, StoreError> {
        let pending = self.journal.leases(keys.iter().copied(), self.periods.result_ms);
        let mut known = self.ledger.leases(keys).await?;
        merge_leases(&mut known, pending);
        Ok(known)
    }

    /// Writes the claims that the lease store has granted and the ledger does not have yet, before the ledger decides.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        match self.leases {
            // The ledger has granted all of them.
            Leases::Sql => Ok(()),
            Leases::Redis(_) | Leases::Memory(_) => self.journal.flush().await,
        }
    }
}

/// Adds the leases of pending events to those of the ledger; of two, the one that is ahead stays.
fn merge_leases(known: &mut HashMap<String, Lease>, pending: HashMap<String, Lease>) {
    for (key, lease) in pending {
        let mut record = LeaseRecord::new(known.remove(&key), Vec::new());
        record.merge(lease);
        if let Some(lease) = record.lease() {
            known.insert(key, lease.clone());
        }
    }
}

impl ClaimResult {
    fn decided(decided: LedgerDecision) -> ClaimResult {
        let proceeds = matches!(decided.claimed, ClaimOutcome::Proceed { .. });
        ClaimResult {
            suppressed: decided.suppressed && proceeds,
            ..ClaimResult::of(decided.claimed)
        }
    }

    fn of(claimed: ClaimOutcome) -> ClaimResult {
        ClaimResult { claimed, last_inbound_ms: None, suppressed: false }
    }
}
