//! The truth, in SQL: leases, opt-outs, windows, events. Each operation is one transaction over one batch: what is
//! known is read and locked, the domain decides, what it decided is kept. Which database it is, and how a statement
//! is spelled, is not known here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    time::Duration,
};

use twilio_edge_contract::{Opt, Outcome, SettlementResult};

use super::{
    rows::{
        EndingRow, EventRow, LeaseRow, OptRow, RecordedOpt, SuppressionRow, WantedEnding,
        WantedLease, WantedSuppression, WindowRow,
    },
    sql::{Database, Durability, StoreError, Transaction},
};
use crate::{
    config,
    domain::{
        address::Address,
        lease::{Claimed, Periods, Record},
        optout::{self, Arrival, Cause},
        webhook::{Pair, Webhook},
    },
};

/// One claim, as the stores see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    key: String,
    claim_id: String,
    /// Of a message: whose window it opens if it proceeds, and whose suppression it wants to know.
    pair: Option<Pair>,
}

impl Ask {
    pub(super) fn of(webhook: &Webhook) -> Ask {
        Ask {
            key: webhook.key.clone(),
            claim_id: webhook.claim_id.clone(),
            pair: webhook.inbound.as_ref().map(|inbound| inbound.pair.clone()),
        }
    }
}

/// What the ledger answers to one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose the webhook is.
    pub claimed: Claimed,
    /// With `Proceed` of a message: the last inbound message of its pair, this one included.
    pub last_inbound_ms: Option<i64>,
    /// With `Proceed` of a message: its sender must not be written to.
    pub suppressed: bool,
}

impl Grant {
    /// An answer that needs nobody's address, because nothing is forwarded.
    pub(super) fn without_person(claimed: Claimed) -> Grant {
        Grant { claimed, last_inbound_ms: None, suppressed: false }
    }
}

/// One settlement, as the stores see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// The dedupe key.
    pub key: String,
    /// The claim to settle.
    pub claim_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What to answer duplicates with, as JSON.
    pub answer: Option<String>,
    /// Of a message forwarded without a verdict: whose window it opens.
    pub opens: Option<Pair>,
}

/// A STOP or START, as it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptSaid {
    /// What it was.
    pub opt: Opt,
    /// What made it one.
    pub cause: Cause,
    /// Whose tenant.
    pub account_sid: String,
    /// The message that said so.
    pub message_sid: String,
    /// Who said it.
    pub address: Address,
    /// On which route it came.
    pub route: String,
    /// Whether it comes in its turn.
    pub arrival: Arrival,
}

impl OptSaid {
    /// What a webhook says; none when it says nothing that binds us.
    pub fn of(webhook: &Webhook, arrival: Arrival) -> Option<OptSaid> {
        let inbound = webhook.inbound.as_ref()?;
        let (opt, cause) = inbound.opt.filter(|(opt, _)| *opt != Opt::Help)?;
        Some(OptSaid {
            opt,
            cause,
            account_sid: webhook.identity.account_sid.clone(),
            message_sid: webhook.identity.message_sid.clone(),
            address: inbound.pair.theirs.clone(),
            route: webhook.route.clone(),
            arrival,
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Ledger {
    database: Database,
    timeout: Duration,
    periods: Periods,
}

type Records = BTreeMap<String, Record>;

impl Ledger {
    pub(super) async fn open(
        settings: &config::Database,
        periods: Periods,
    ) -> Result<Ledger, StoreError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        Ok(Ledger { database: Database::open(settings).await?, timeout, periods })
    }

    pub(super) fn name(&self) -> &'static str {
        self.database.name()
    }

    /// Decides each claim, in order; opens the windows of those that proceed and says who is suppressed.
    pub(super) async fn claim(&self, asks: &[Ask], now_ms: i64) -> Result<Vec<Grant>, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let asked = asks.iter().map(|ask| (ask.key.as_str(), ask.claim_id.as_str()));
            let mut records = self.lock(&mut tx, asked, now_ms).await?;
            let mut claimed = Vec::with_capacity(asks.len());
            let mut opened = BTreeMap::new();
            for ask in asks {
                let record = records.entry(ask.key.clone()).or_default();
                let answer = record.claim(&ask.claim_id, now_ms, self.periods);
                if let (Claimed::Proceed { first_seen_ms, .. }, Some(pair)) = (&answer, &ask.pair) {
                    let last = opened.entry(pair.clone()).or_insert(*first_seen_ms);
                    *last = (*last).max(*first_seen_ms);
                }
                claimed.push(answer);
            }
            self.keep(&mut tx, &records, now_ms).await?;
            let windows = self.open_windows(&mut tx, &opened).await?;
            let suppressed = self.suppressed(&mut tx, opened.keys()).await?;
            tx.commit().await?;
            let grants = asks.iter().zip(claimed).map(|(ask, claimed)| {
                let pair = ask.pair.as_ref().filter(|_| matches!(claimed, Claimed::Proceed { .. }));
                Grant {
                    last_inbound_ms: pair.and_then(|pair| windows.get(pair)).copied(),
                    suppressed: pair.is_some_and(|pair| suppressed.contains_key(&person(pair))),
                    claimed,
                }
            });
            Ok(grants.collect())
        })
        .await
    }

    /// Settles each claim, in order. Survives the loss of power: what the backend accepted is not sent to it again.
    pub(super) async fn settle(
        &self,
        settles: &[Settle],
        now_ms: i64,
    ) -> Result<Vec<SettlementResult>, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let asked = settles.iter().map(|s| (s.key.as_str(), s.claim_id.as_str()));
            let mut records = self.lock(&mut tx, asked, now_ms).await?;
            let mut results = Vec::with_capacity(settles.len());
            let mut opened = BTreeMap::new();
            for settle in settles {
                let record = records.entry(settle.key.clone()).or_default();
                if let Some(pair) = &settle.opens {
                    opened.insert(pair.clone(), record.first_seen_ms().unwrap_or(now_ms));
                }
                results.push(match settle.outcome {
                    Outcome::Commit => {
                        let answer = settle.answer.clone();
                        record.commit(&settle.claim_id, answer, now_ms, self.periods)
                    }
                    Outcome::Release => record.release(&settle.claim_id, now_ms, self.periods),
                });
            }
            self.keep(&mut tx, &records, now_ms).await?;
            self.open_windows(&mut tx, &opened).await?;
            tx.commit().await?;
            Ok(results)
        })
        .await
    }

    /// Records each STOP and START, once by its message; of each, whether it changed who is suppressed. Survives the
    /// loss of power.
    pub(super) async fn record_opts(
        &self,
        said: &[OptSaid],
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        self.bounded(async {
            let statements = self.database.statements();
            let mut tx = self.database.begin(Durability::Power).await?;
            let rows: Vec<OptRow<'_>> = said.iter().map(|said| OptRow::of(said, now_ms)).collect();
            let new: Vec<RecordedOpt> = tx.fetch(statements.record_opts, &rows).await?;
            let mut new: HashSet<RecordedOpt> = new.into_iter().collect();
            let mut last_words = BTreeMap::new();
            for (place, said) in
                said.iter().enumerate().filter(|(_, s)| new.remove(&RecordedOpt::of(s)))
            {
                // Who comes later in a batch came later: the last word of a number counts.
                last_words.insert((&said.account_sid, &said.address), (place, said));
            }
            let last_words: Vec<(usize, &OptSaid)> = last_words.into_values().collect();
            let wanted: Vec<SuppressionRow> =
                last_words.iter().map(|(_, said)| SuppressionRow::of(said, now_ms)).collect();
            let before = tx.fetch(statements.lock_suppressions, &wanted).await?;
            let before = suppressed_among(before);
            let mut changed = vec![false; said.len()];
            let mut changes = Vec::new();
            for ((place, said), row) in last_words.into_iter().zip(wanted) {
                let since_ms = before.get(&row.person());
                let changes_it = match said.opt {
                    Opt::Stop => since_ms.is_none(),
                    _ => since_ms.is_some_and(|ms| optout::lifts(said.arrival, *ms, now_ms)),
                };
                if changes_it {
                    changed.get_mut(place).into_iter().for_each(|changed| *changed = true);
                    changes.push(row);
                }
            }
            tx.execute(statements.keep_suppressions, &changes).await?;
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// Writes events; the same event again changes nothing.
    pub(super) async fn keep_events(&self, events: Vec<EventRow>) -> Result<(), StoreError> {
        let mut merged: BTreeMap<String, EventRow> = BTreeMap::new();
        for event in events {
            match merged.get_mut(&event.dedupe_key) {
                Some(known) => known.merge(event),
                None => {
                    merged.insert(event.dedupe_key.clone(), event);
                }
            }
        }
        let rows: Vec<EventRow> = merged.into_values().collect();
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            tx.execute(self.database.statements().keep_events, &rows).await?;
            tx.commit().await
        })
        .await
    }

    /// Deletes what both clocks have left behind, a bounded number of rows at a time; how many.
    pub(super) async fn forget(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let mut forgotten = 0;
            for statement in self.database.statements().forget {
                forgotten += tx.execute_at(statement, now_ms).await?;
            }
            tx.commit().await?;
            Ok(forgotten)
        })
        .await
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.bounded(self.database.ping()).await
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    /// What is known about the asked keys, locked until the transaction ends.
    async fn lock(
        &self,
        tx: &mut Transaction,
        asked: impl Iterator<Item = (&str, &str)> + Clone,
        now_ms: i64,
    ) -> Result<Records, StoreError> {
        let statements = self.database.statements();
        let forget_at_ms = now_ms.saturating_add(self.periods.result_ms);
        let keys: BTreeMap<&str, WantedLease<'_>> = asked
            .clone()
            .map(|(dedupe_key, _)| (dedupe_key, WantedLease { dedupe_key, now_ms, forget_at_ms }))
            .collect();
        let keys: Vec<WantedLease<'_>> = keys.into_values().collect();
        let leases: Vec<LeaseRow> = tx.fetch(statements.lock_leases, &keys).await?;
        let mut records: Records = leases
            .into_iter()
            .map(|row| (row.dedupe_key.clone(), Record::new(Some(row.lease()), now_ms)))
            .collect();
        // Only now: before the lock, another batch may have been adding to them.
        let claims: Vec<WantedEnding<'_>> = asked
            .map(|(dedupe_key, claim_id)| WantedEnding { dedupe_key, claim_id, now_ms })
            .collect();
        let endings: Vec<EndingRow> = tx.fetch(statements.find_endings, &claims).await?;
        for row in endings {
            let ending = row.ending()?;
            records.entry(row.dedupe_key).or_default().found_ending(row.claim_id, ending);
        }
        Ok(records)
    }

    async fn keep(
        &self,
        tx: &mut Transaction,
        records: &Records,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let forget_at_ms = now_ms.saturating_add(self.periods.result_ms);
        let leases: Vec<LeaseRow> = records
            .iter()
            .filter_map(|(key, record)| {
                record.changed_lease().map(|lease| LeaseRow::of(key, lease))
            })
            .collect();
        let endings: Vec<EndingRow> = records
            .iter()
            .flat_map(|(key, record)| {
                record
                    .new_endings()
                    .map(|(claim_id, ending)| EndingRow::of(key, claim_id, ending, forget_at_ms))
            })
            .collect();
        tx.execute(self.database.statements().keep_leases, &leases).await?;
        tx.execute(self.database.statements().keep_endings, &endings).await
    }

    /// Opens or refreshes windows; a window never moves back. The last message of each pair.
    async fn open_windows(
        &self,
        tx: &mut Transaction,
        opened: &BTreeMap<Pair, i64>,
    ) -> Result<HashMap<Pair, i64>, StoreError> {
        let rows: Vec<WindowRow> =
            opened.iter().map(|(pair, last)| WindowRow::of(pair, *last)).collect();
        let rows: Vec<WindowRow> = tx.fetch(self.database.statements().open_windows, &rows).await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let last = row.last_inbound_ms;
                (row.pair(), last)
            })
            .collect())
    }

    async fn suppressed(
        &self,
        tx: &mut Transaction,
        pairs: impl Iterator<Item = &Pair>,
    ) -> Result<HashMap<Person, i64>, StoreError> {
        let wanted: Vec<WantedSuppression<'_>> = pairs.map(WantedSuppression::of).collect();
        let found = tx.fetch(self.database.statements().find_suppressions, &wanted).await?;
        Ok(suppressed_among(found))
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// Whom a suppression is about: the tenant, and the address with its channel.
pub(super) type Person = (String, Address);

fn person(pair: &Pair) -> Person {
    (pair.account_sid.clone(), pair.theirs.clone())
}

/// Who is suppressed, and since when.
fn suppressed_among(rows: Vec<SuppressionRow>) -> HashMap<Person, i64> {
    let suppressed = rows.into_iter().filter(|row| row.suppressed);
    suppressed.map(|row| (row.person(), row.changed_at_ms)).collect()
}
