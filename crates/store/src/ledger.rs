//! Ledger, the source of truth in SQL: every webhook with its outcome, and every opt-out. This module must not know which
//! database it uses or how a statement is spelled.
//!
//! The ledger decides leases only when no faster store exists or it is unavailable. One transaction covers one batch: it
//! reads the known leases under a lock, the domain decides, and the transaction stores the decisions.

mod claim_events;
mod lookup;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use twilio_edge_contract::SettlementResult;

use self::lookup::lookup_query;
pub(super) use self::{
    claim_events::{arrival, each_once, refusal},
    lookup::LookupResult,
};
use super::{
    archive_queue::ArchiveQueue,
    consents::Consents,
    contacts::Contacts,
    event::Event,
    idempotency::Idempotency,
    inbound_media::{InboundMedia, recording},
    media::MediaIndex,
    operational_events::windows,
    outbound_messages::OutboundMessages,
    outbox::Outbox,
    refused_requests::RefusedRequests,
    retention::{Sweeper, late, rewind},
    rows::{ClaimEndQuery, ClaimEndRow, LookupRow, PairQuery, PairRow},
    suppressions::Suppressions,
    templates::Templates,
    tenants::Tenants,
};
use crate::{
    api_keys::ApiKeyStore,
    database::{Database, Durability, Transaction},
    error::StoreError,
    peers::{Outgoing, Peers},
    settlement_input::SettlementInput,
};
use twilio_edge_domain::{
    lease::{ClaimOutcome, Lease, LeaseRecord, Periods},
    operational_event::EventReporting,
    policy::Policies,
    webhook::{Participants, Webhook},
};
use twilio_edge_platform::{config, metrics::Connections, tasks::Supervisor};

/// Answer of the stores to one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimResult {
    /// The decision: the caller proceeds, or another claim holds or has completed the webhook.
    pub claimed: ClaimOutcome,
    /// Time of the latest inbound message of the pair, this one included, in milliseconds. Set for a message that proceeds.
    pub last_inbound_ms: Option<i64>,
    /// The sender of a message that proceeds is suppressed.
    pub suppressed: bool,
}

/// Decision of the ledger about one claim.
#[derive(Debug)]
pub(super) struct LedgerDecision {
    pub(super) claimed: ClaimOutcome,
    pub(super) suppressed: bool,
    /// [`LookupResult::partition_ms`] at the time of the decision.
    pub(super) partition_ms: i64,
}

#[derive(Clone)]
pub(super) struct Ledger {
    pub(super) database: Database,
    outbound_messages: OutboundMessages,
    pub(super) periods: Periods,
    pub(super) policies: Policies,
}

impl Ledger {
    pub(super) async fn open(
        settings: &config::Database,
        periods: Periods,
        policies: Policies,
        reporting: EventReporting,
        tasks: &Supervisor,
    ) -> Result<Ledger, StoreError> {
        let database = Database::open(settings).await?.reporting_to(reporting);
        let outbound_messages = OutboundMessages::of(database.clone(), tasks);
        Ok(Ledger { database, outbound_messages, periods, policies })
    }

    pub(super) fn name(&self) -> &'static str {
        self.database.name()
    }

    /// Returns the API keys, in the same database.
    pub(super) fn api_keys(&self) -> ApiKeyStore {
        ApiKeyStore::of(self.database.clone())
    }

    /// Returns the connection counts of the two pools: quick commits and durable commits.
    pub(super) fn connections(&self) -> [Connections; 2] {
        self.database.connections()
    }

    /// Returns the path of the database file; `None` for PostgreSQL.
    pub(super) fn path(&self) -> Option<&Path> {
        self.database.path()
    }

    /// Returns the suppressions, in the same database.
    pub(super) fn suppressions(&self) -> Suppressions {
        Suppressions::of(self.database.clone())
    }

    /// Returns the idempotency keys, in the same database.
    pub(super) fn idempotency(&self, hold: Duration, keep: Duration) -> Idempotency {
        Idempotency::of(self.database.clone(), hold, keep)
    }

    /// Returns the tenant profiles, in the same database.
    pub(super) fn tenants(&self) -> Tenants {
        Tenants::of(self.database.clone())
    }

    pub(super) fn policies(&self) -> Policies {
        self.policies.clone()
    }

    /// Returns the contacts (the ids that belong to one contact), in the same database.
    pub(super) fn contacts(&self) -> Contacts {
        Contacts::of(self.database.clone())
    }

    /// Returns the sweeper, which deletes expired rows.
    pub(super) fn sweeper(&self) -> Sweeper {
        Sweeper::of(self.database.clone(), self.periods.result_ms)
    }

    /// Returns the consents, in the same database.
    pub(super) fn consents(&self) -> Consents {
        Consents::of(self.database.clone())
    }

    /// Registers this sidecar among its peers on the same database.
    pub(super) async fn peers(
        &self,
        outgoing: Outgoing,
        tasks: &Supervisor,
    ) -> Result<Peers, StoreError> {
        Peers::join(self.database.clone(), outgoing, tasks).await
    }

    /// Returns the outbound messages, in the same database.
    pub(super) fn outbound_messages(&self) -> OutboundMessages {
        self.outbound_messages.clone()
    }

    /// Returns the message templates, in the same database.
    pub(super) fn templates(&self) -> Templates {
        Templates::of(self.database.clone())
    }

    /// Returns the queue of the archive, in the same database.
    pub(super) fn archive_queue(&self) -> ArchiveQueue {
        ArchiveQueue::of(self.database.clone())
    }

    /// Returns the media of inbound messages, in the same database.
    pub(super) fn inbound_media(&self) -> InboundMedia {
        InboundMedia::of(self.database.clone())
    }

    /// Returns the refused requests, in the same database.
    pub(super) fn refused_requests(&self) -> RefusedRequests {
        RefusedRequests::of(self.database.clone())
    }

    /// Returns the stored media, in the same database.
    pub(super) fn media(&self) -> MediaIndex {
        MediaIndex::of(self.database.clone())
    }

    /// Returns the outbox of the sinks, in the same database.
    pub(super) fn outbox(&self) -> Outbox {
        Outbox::of(self.database.clone())
    }

    /// Returns whether the database excludes other sidecars (SQLite).
    pub(super) fn is_exclusive(&self) -> bool {
        !self.database.is_shared()
    }

    /// Reads the leases of these webhooks and the suppressions of their senders.
    pub(super) async fn look_up(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<LookupResult, StoreError> {
        let (keys, contacts) = lookup_query(webhooks);
        let rows = self.database.look_up(&keys, &contacts).await?;
        Ok(self.read(rows, now_ms))
    }

    /// Reads the leases of these dedupe keys only.
    pub(super) async fn leases(&self, keys: &[&str]) -> Result<HashMap<String, Lease>, StoreError> {
        let rows = self.database.look_up(keys, &[]).await?;
        // Without contacts there are no suppressions, so the time does not matter.
        Ok(self.read(rows, 0).leases)
    }

    /// Reads the time of the latest inbound message of each pair. Pending events are not included.
    pub(super) async fn last_inbound(
        &self,
        pairs: &BTreeSet<&Participants>,
    ) -> Result<HashMap<Participants, i64>, StoreError> {
        let query: Vec<PairQuery<'_>> = pairs.iter().map(|pair| PairQuery::of(pair)).collect();
        let statement = self.database.statements().last_inbound;
        let rows: Vec<PairRow> = self.database.read(statement, &query).await?;
        let last = rows.into_iter().map(|row| (row.last_inbound_ms, row.pair()));
        Ok(last.map(|(last, pair)| (pair, last)).collect())
    }

    /// Decides each claim in order and reports suppressed senders. Survives a process crash.
    pub(super) async fn claim(
        &self,
        webhooks: &[Webhook],
        now_ms: i64,
    ) -> Result<Vec<LedgerDecision>, StoreError> {
        self.database
            .within_timeout(async {
                let webhooks: Vec<&Webhook> = webhooks.iter().collect();
                let mut tx = self.database.begin(Durability::Process).await?;
                let claims = webhooks.iter().map(|w| (w.key.as_str(), w.claim_id.as_str()));
                let (before, known) = self.lock(&mut tx, claims, &webhooks, now_ms).await?;
                let mut records = before.clone();
                let mut events = Vec::with_capacity(webhooks.len());
                let mut decided = Vec::with_capacity(webhooks.len());
                for webhook in &webhooks {
                    let record = records.entry(webhook.key.clone()).or_default();
                    let claimed = record.claim(&webhook.claim_id, now_ms, self.periods);
                    events.extend(arrival(webhook, &claimed, now_ms, self.periods));
                    let inbound = webhook.inbound.as_ref();
                    let suppressed =
                        inbound.is_some_and(|inbound| known.is_suppressed(inbound, &self.policies));
                    decided.push(LedgerDecision {
                        claimed,
                        suppressed,
                        partition_ms: known.partition_ms,
                    });
                }
                self.keep(&mut tx, &before, &records, events, now_ms).await?;
                tx.commit().await?;
                Ok(decided)
            })
            .await
    }

    /// Releases each claim in order. Survives a process crash.
    pub(super) async fn release(
        &self,
        settles: &[SettlementInput],
        now_ms: i64,
    ) -> Result<Vec<SettlementResult>, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let claims = settles.iter().map(|s| (s.key.as_str(), s.claim_id.as_str()));
                let (before, _) = self.lock(&mut tx, claims, &[], now_ms).await?;
                let mut records = before.clone();
                let mut events = Vec::with_capacity(settles.len());
                let mut results = Vec::with_capacity(settles.len());
                for settle in settles {
                    let record = records.entry(settle.key.clone()).or_default();
                    let result = record.release(&settle.claim_id, now_ms, self.periods);
                    events.extend(refusal(settle, result, record, now_ms));
                    results.push(result);
                }
                self.keep(&mut tx, &before, &records, events, now_ms).await?;
                tx.commit().await?;
                Ok(results)
            })
            .await
    }

    /// Writes events, each key once. Survives a power loss; writing the same event again changes nothing.
    pub(super) async fn write_events(&self, events: &[Event<'_>]) -> Result<(), StoreError> {
        let Some(now_ms) = events.iter().map(|event| event.noted_at_ms).max() else {
            return Ok(());
        };
        let forgotten_ms = now_ms.saturating_sub(self.periods.result_ms);
        let received = events.iter().map(|event| (event.account_sid, event.received_at_ms));
        let late = late(received, twilio_edge_platform::clock::now_ms());
        let reporting = self.database.reporting();
        if late.is_empty()
            && !windows::may_open(reporting, events)
            && !recording::has_any(&self.policies, events)
        {
            return self.database.write_events(events, forgotten_ms).await;
        }
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.write_events(events, forgotten_ms).await?;
                rewind(&mut tx, late).await?;
                recording::record(&mut tx, &self.policies, events).await?;
                windows::record_opened(&mut tx, reporting, events, &[]).await?;
                tx.commit().await
            })
            .await
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.database.ping().await
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    /// Reads the leases of the requested keys, locked until the transaction ends, and the suppressions of the senders of
    /// `webhooks`.
    async fn lock(
        &self,
        tx: &mut Transaction,
        claims: impl Iterator<Item = (&str, &str)> + Clone,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<(BTreeMap<String, LeaseRecord>, LookupResult), StoreError> {
        let statements = self.database.statements();
        let keys: BTreeSet<&str> = claims.clone().map(|(key, _)| key).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        tx.execute(statements.lock_keys, &keys).await?;
        // This read must follow the lock: before it, another batch may have been changing the rows.
        let (_, contacts) = lookup_query(webhooks);
        let rows = tx.look_up(&keys, &contacts).await?;
        let known = self.read(rows, now_ms);
        let query: Vec<ClaimEndQuery<'_>> = claims
            .map(|(dedupe_key, claim_id)| ClaimEndQuery { dedupe_key, claim_id, now_ms })
            .collect();
        let mut endings: HashMap<String, Vec<_>> = HashMap::new();
        for row in tx.fetch::<ClaimEndRow>(statements.find_claim_ends, &query).await? {
            let ending = row.ending()?;
            endings.entry(row.dedupe_key).or_default().push((row.claim_id, ending));
        }
        let records = keys.into_iter().map(|key| {
            let endings = endings.remove(key).unwrap_or_default();
            (key.to_owned(), LeaseRecord::new(known.leases.get(key).cloned(), endings))
        });
        Ok((records.collect(), known))
    }

    async fn keep(
        &self,
        tx: &mut Transaction,
        before: &BTreeMap<String, LeaseRecord>,
        after: &BTreeMap<String, LeaseRecord>,
        events: Vec<Event<'_>>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let expires_at_ms = now_ms.saturating_add(self.periods.result_ms);
        let endings = after.iter().flat_map(|(key, record)| {
            let known = before.get(key).map(LeaseRecord::endings).unwrap_or_default();
            let new = record.endings().iter().filter(|ending| !known.contains(ending));
            new.map(|(claim_id, ending)| ClaimEndRow::of(key, claim_id, *ending, expires_at_ms))
        });
        let endings: Vec<ClaimEndRow> = endings.collect();
        let events = each_once(events);
        tx.write_events(&events, now_ms.saturating_sub(self.periods.result_ms)).await?;
        tx.execute(self.database.statements().keep_claim_ends, &endings).await?;
        recording::record(tx, &self.policies, &events).await?;
        windows::record_opened(tx, self.database.reporting(), &events, &[]).await
    }

    fn read(&self, rows: Vec<LookupRow>, now_ms: i64) -> LookupResult {
        LookupResult::of(rows, self.periods.result_ms, now_ms)
    }
}
