//! The stores as one thing: the ledger (SQL, the truth), the journal that writes it, and where leases are kept for speed.
//! What a claim costs and what happens when one of them is away is decided here; what a claim means is not.
//!
//! ```text
//! claim    leases: take it --somebody has it, it is done--> answer
//!            |  taken                                  away, or none: one transaction in SQL decides
//!          ledger: anything known of it? (one read)    known: decide again with that, put the lease right
//!            v
//!          journal: who has it; in the spool before the answer, in SQL behind it
//! commit   journal, at once, with what waits of the same webhook; then tell the leases
//! release  leases, then the journal as for a claim
//! ```
//!
//! While Redis is away from one sidecar only, others go on handing out by it. So who falls through to SQL says so first
//! (`siblings.rs`), and from then on SQL has the last word on every claim of every sidecar.

mod consents;
mod erasure;
mod group;
pub mod histories;
mod idempotency;
mod journal;
mod leases;
mod ledger;
mod memory;
mod postgres;
mod reader;
mod recovery;
mod redis;
mod register;
mod retention;
mod rows;
mod scripts;
mod settling;
mod siblings;
mod spool;
mod sql;
mod sqlite;
mod suppressions;
mod tenants;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::JoinHandle};
use twilio_edge_contract::SettlementResult;

pub(crate) use self::register::StoredKey;
pub use self::{
    consents::{Consents, ConsentsPage},
    erasure::{Erasure, Reached},
    idempotency::{Admission, Done, Idempotency, Once, Turn},
    ledger::{Grant, Settle},
    register::{AuditEntry, Key, KeysPage, NewKey, Register},
    retention::{Sweeper, Swept},
    sql::StoreError,
    suppressions::{Suppressions, SuppressionsPage},
    tenants::Tenants,
};
use self::{
    group::Group,
    journal::{Journal, Writer},
    leases::{Leases, Taken},
    ledger::{Decided, Known, Ledger, arrival},
    memory::Memory,
    recovery::Recovery,
    redis::Redis,
    rows::Event,
    siblings::{Outgoing, Siblings},
    spool::Spool,
};
use crate::{
    config::{Config, without_password},
    domain::{
        lease::{Claimed, Periods},
        policy::Policies,
        suppression::Said,
        webhook::{Pair, Webhook},
    },
    metrics::{Metrics, Pool, RedisState},
    steps::Operation,
};

/// The stores a sidecar runs on.
#[derive(Clone)]
pub struct Stores {
    ledger: Arc<Ledger>,
    leases: Leases,
    journal: Journal,
    writer: Arc<Mutex<Option<Writer>>>,
    /// Looks for sidecars that were killed beside this one.
    recovering: Option<Arc<JoinHandle<()>>>,
    /// Claims and releases the ledger decides, because no quick store can.
    claims: Group<Webhook, Decided>,
    releases: Group<Settle, SettlementResult>,
    opts: Group<Said, bool>,
    /// What is handed out by the quick store and not written yet.
    outgoing: Outgoing,
    /// The others on the same database, where Redis may be away from some of them only.
    siblings: Option<Siblings>,
    /// How long a transaction may go on, in milliseconds.
    longest_ms: i64,
    /// How long others usually take to write what they handed out.
    linger: Duration,
    periods: Periods,
    metrics: Arc<Metrics>,
}

/// Whether each store answers, for `/readyz`.
#[derive(Debug, Clone)]
pub struct Health {
    /// Without it nothing works.
    pub ledger: Result<(), StoreError>,
    /// None when there is no Redis; without it everything works, slower.
    pub redis: Option<Result<(), StoreError>>,
}

impl Stores {
    /// Brings the tables up to date, and no more. What is wrong otherwise, in words for the operator.
    pub async fn migrate(config: &Config) -> Result<(), String> {
        open_ledger(config).await?.close().await;
        Ok(())
    }

    /// Reaches the database, brings its tables up to date, writes what a killed sidecar left in the spool and prepares
    /// Redis, which may be away. What is wrong otherwise, in words for the operator.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Stores, String> {
        let periods = config.leases.periods();
        let recall_ms =
            i64::from(config.leases.recall_s).saturating_mul(1000).min(periods.result_ms);
        let timeout = Duration::from_millis(config.database.timeout_ms);
        let ledger = Arc::new(open_ledger(config).await?);
        let leases = match (config.redis.url.is_empty(), ledger.is_ours_alone()) {
            (false, _) => Leases::Redis(
                Redis::open(&config.redis, periods, recall_ms)
                    .map_err(|error| format!("redis.url: {error}"))?,
            ),
            (true, true) => Leases::Memory(Memory::new(periods, recall_ms)),
            (true, false) => Leases::Sql,
        };
        let spool = open_spool(config, &ledger, &leases, &metrics).await;
        let spool = spool.map_err(|reason| {
            format!("the spool, {reason}; events.spool_dir names a folder to write to, or is `off`")
        })?;
        let (spool, recovery) = spool.unzip();
        // A file of SQLite has one sidecar: there is nobody beside it.
        let recovery = recovery.filter(|_| !ledger.is_ours_alone());
        let recovering =
            recovery.map(|recovery| Arc::new(tokio::spawn(recovery.keep_recovering())));
        let (journal, writer) =
            Journal::start(&config.events, timeout, ledger.clone(), spool, metrics.clone());
        let outgoing = Outgoing { handing_out: Arc::default(), journal: journal.clone() };
        let siblings = match &leases {
            Leases::Redis(_) => {
                let joined = ledger.siblings(outgoing.clone()).await;
                Some(joined.map_err(|error| about_database(config, &error))?)
            }
            Leases::Memory(_) | Leases::Sql => None,
        };
        let longest = siblings::longest_transaction(timeout);
        let (claiming, releasing, recording) = (ledger.clone(), ledger.clone(), ledger.clone());
        Ok(Stores {
            claims: Group::start(timeout, move |webhooks: Vec<Webhook>, now_ms| {
                let ledger = claiming.clone();
                async move { ledger.claim(&webhooks, now_ms).await }
            }),
            releases: Group::start(timeout, move |settles: Vec<Settle>, now_ms| {
                let ledger = releasing.clone();
                async move { ledger.release(&settles, now_ms).await }
            }),
            opts: Group::start(timeout, move |said: Vec<Said>, now_ms| {
                let ledger = recording.clone();
                async move { ledger.record_opts(&said, now_ms).await }
            }),
            writer: Arc::new(Mutex::new(Some(writer))),
            recovering,
            ledger,
            leases,
            journal,
            outgoing,
            siblings,
            longest_ms: i64::try_from(longest.as_millis()).unwrap_or(i64::MAX),
            linger: Duration::from_millis(config.events.linger_ms).min(timeout / 8),
            periods,
            metrics,
        })
    }

    /// What it runs on, for people: `sqlite`, `redis+postgres`, ..
    pub fn describe(&self) -> String {
        let front = if matches!(self.leases, Leases::Redis(_)) { "redis+" } else { "" };
        format!("{front}{}", self.ledger.name())
    }

    /// The API keys and the audit, in the same database.
    pub fn register(&self) -> Register {
        self.ledger.register()
    }

    /// What is said of accounts, in the same database.
    pub fn tenants(&self) -> Tenants {
        self.ledger.tenants()
    }

    /// By which policy each account's opt-outs count.
    pub fn policies(&self) -> Policies {
        self.ledger.policies()
    }

    /// Who must not be written to, in the same database.
    pub fn suppressions(&self) -> Suppressions {
        self.ledger.suppressions()
    }

    /// What takes things out of the ledger again.
    pub fn sweeper(&self) -> Sweeper {
        self.ledger.sweeper()
    }

    /// What people agreed to, in the same database.
    pub fn consents(&self) -> Consents {
        self.ledger.consents()
    }

    /// The requests that are carried out once, in the same database: held for longer than one is carried out, told again
    /// for `keep`.
    pub fn idempotency(&self, hold: Duration, keep: Duration) -> Idempotency {
        self.ledger.idempotency(hold, keep)
    }

    /// When a person, by any of these numbers, last wrote on a channel to each number of ours. What is `needed` may be
    /// under way to the database: if it is not there, what is being written is waited for, and looked at again.
    pub async fn last_inbound(
        &self,
        account_sid: &str,
        channel: &str,
        numbers: &[impl AsRef<str>],
        needed: impl Fn(&[(String, i64)]) -> bool,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let consents = self.consents();
        let found = consents.last_inbound(account_sid, channel, numbers).await?;
        if needed(&found) {
            return Ok(found);
        }
        self.journal.flush().await?;
        if !self.ledger.is_ours_alone() {
            // Others write theirs within a linger, and nobody tells when: to ask each of them would cost every answer more
            // than this wait costs the few that need it.
            tokio::time::sleep(self.linger * 2).await;
        }
        consents.last_inbound(account_sid, channel, numbers).await
    }

    /// Decides each claim, in order; none where no store could say.
    pub async fn claim(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<Grant>> {
        if webhooks.is_empty() {
            return Vec::new();
        }
        let handing_out = self.outgoing.handing_out.read().await;
        let since = Instant::now();
        let taken = self.leases.claim(webhooks, now_ms).await;
        let taken = taken.map(|taken| self.metrics.asked(Operation::LeasesClaim, since, taken));
        let mut grants = match taken {
            Some(Ok(taken)) => self.confirm(webhooks, taken, now_ms).await,
            Some(Err(_)) => {
                drop(handing_out);
                self.metrics.redis_fell_through();
                self.decide_apart(webhooks, now_ms).await
            }
            None => self.decide(webhooks, now_ms).await,
        };
        self.tell_windows(webhooks, &mut grants, now_ms).await;
        grants
    }

    /// Records every STOP and START before it returns; of each, whether it changed who is suppressed.
    pub async fn record_opts(&self, said: Vec<Said>, now_ms: i64) -> Result<Vec<bool>, StoreError> {
        self.metrics.timed(Operation::LedgerRecordOpts, self.opts.ask(said, now_ms)).await
    }

    /// Asks each store whether it is there.
    pub async fn health(&self) -> Health {
        let redis = async {
            match &self.leases {
                Leases::Redis(redis) => Some(redis.ping().await),
                Leases::Memory(_) | Leases::Sql => None,
            }
        };
        let (ledger, redis) = tokio::join!(self.ledger.ping(), redis);
        Health { ledger, redis }
    }

    /// Puts what can be read off these stores now into the metrics.
    pub fn gauge(&self) {
        self.metrics.redis_is(match &self.leases {
            Leases::Redis(redis) if redis.is_away() => RedisState::Away,
            Leases::Redis(_) => RedisState::Up,
            Leases::Memory(_) | Leases::Sql => RedisState::None,
        });
        let [quick, durable] = self.ledger.connections();
        self.metrics.connected(Pool::Quick, quick);
        self.metrics.connected(Pool::Durable, durable);
        self.metrics.queue_is_old(self.journal.age());
    }

    /// Writes what waits and ends all connections, orderly; false when that took longer than `limit`. To be called
    /// when nobody claims or settles any more.
    pub async fn close(&self, limit: Duration) -> bool {
        let written = match self.writer.lock().await.take() {
            Some(writer) => writer.finish(limit).await,
            None => true,
        };
        self.recovering.iter().for_each(|recovering| recovering.abort());
        if let Some(siblings) = &self.siblings {
            siblings.leave().await;
        }
        self.ledger.close().await;
        written
    }

    /// What the quick store decided, held against what the ledger knows, and noted.
    async fn confirm(
        &self,
        webhooks: &[&Webhook],
        mut taken: Vec<Taken>,
        now_ms: i64,
    ) -> Vec<Option<Grant>> {
        let proceeds = |taken: &Taken| matches!(taken.claimed, Claimed::Proceed { .. });
        let asked: Vec<&Webhook> = webhooks
            .iter()
            .zip(&taken)
            .filter(|(_, taken)| proceeds(taken))
            .map(|(webhook, _)| *webhook)
            .collect();
        let known = match asked.is_empty() {
            true => Ok(Known::default()),
            false => self.metrics.timed(Operation::LedgerLookUp, self.ledger.look_up(&asked)).await,
        };
        let known = match known {
            Ok(known) => known,
            Err(reason) => {
                tracing::warn!(event = "claims.undecided", %reason, count = asked.len(), "claims could not be decided");
                self.give_back(webhooks, &taken, now_ms).await;
                let grant = |taken: Taken| (!proceeds(&taken)).then(|| Grant::of(taken.claimed));
                return taken.into_iter().map(grant).collect();
            }
        };
        if !known.leases.is_empty() {
            self.reconsider(webhooks, &mut taken, &known, now_ms).await;
        }
        if known.apart_ms > 0 {
            self.ask_sql_too(webhooks, &mut taken, now_ms).await;
        }
        let rows = webhooks.iter().zip(&taken);
        let events: Vec<Event<'_>> = rows
            .filter_map(|(webhook, taken)| arrival(webhook, &taken.claimed, now_ms, self.periods))
            .collect();
        if let Err(reason) =
            self.metrics.timed(Operation::JournalNote, self.journal.note(&events)).await
        {
            // The leases stand; but without the events nobody could tell later what came.
            tracing::warn!(event = "events.no_room", %reason, "the queue is full and events could not be written");
            return vec![None; webhooks.len()];
        }
        let grants = webhooks.iter().zip(taken).map(|(webhook, taken)| {
            let inbound = webhook.inbound.as_ref().filter(|_| proceeds(&taken));
            let suppressed = inbound.is_some_and(|inbound| known.is_suppressed(&inbound.pair));
            Some(Grant { suppressed, ..Grant::of(taken.claimed) })
        });
        grants.collect()
    }

    /// Decides again where the ledger is ahead of the quick store, and puts that right.
    async fn reconsider(
        &self,
        webhooks: &[&Webhook],
        taken: &mut [Taken],
        known: &Known,
        now_ms: i64,
    ) {
        let (mut changes, mut places) = (Vec::new(), Vec::new());
        for (place, (webhook, taken)) in webhooks.iter().zip(taken.iter()).enumerate() {
            let remembered = match &taken.claimed {
                Claimed::Proceed { .. } => known.leases.get(&webhook.key),
                _ => None,
            };
            let mut record = taken.before.clone();
            if !remembered.is_some_and(|lease| record.learn(lease.clone())) {
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
                // A lease that could not be put right is not handed out: it is asked for again.
                let proceeds = matches!(claimed, Claimed::Proceed { .. });
                taken.claimed = if proceeds && !amended { Claimed::InFlight } else { claimed };
            }
        }
    }

    /// Undoes claims that cannot be answered. Best effort: what is not given back ends by itself.
    async fn give_back(&self, webhooks: &[&Webhook], taken: &[Taken], now_ms: i64) {
        let undone = webhooks.iter().zip(taken).filter(|(_, taken)| taken.before != taken.after);
        let undone = undone
            .map(|(webhook, taken)| (webhook.key.as_str(), &taken.after, taken.before.clone()));
        let _ = self.leases.amend(undone.collect(), now_ms).await;
    }

    /// Somebody does not reach Redis: what it lets proceed here proceeds if SQL says so too.
    async fn ask_sql_too(&self, webhooks: &[&Webhook], taken: &mut [Taken], now_ms: i64) {
        if let Some(siblings) = &self.siblings {
            siblings.hurry();
        }
        let proceeds = |taken: &Taken| matches!(taken.claimed, Claimed::Proceed { .. });
        let asked = webhooks.iter().zip(taken.iter()).filter(|(_, taken)| proceeds(taken));
        let asked: Vec<&Webhook> = asked.map(|(webhook, _)| *webhook).collect();
        let decided = self.ask_ledger(&asked, now_ms).await;
        let mut decided = decided
            .unwrap_or_else(|reason| {
                tracing::warn!(event = "claims.undecided", %reason, count = asked.len(), "claims could not be decided");
                Vec::new()
            })
            .into_iter();
        let mut undone = Vec::new();
        for (webhook, taken) in webhooks.iter().zip(taken).filter(|(_, taken)| proceeds(taken)) {
            // What SQL could not be asked is asked for again.
            taken.claimed = decided.next().map_or(Claimed::InFlight, |decided| decided.claimed);
            if !proceeds(taken) {
                undone.push((webhook.key.as_str(), &taken.after, taken.before.clone()));
            }
        }
        let _ = self.leases.amend(undone, now_ms).await;
    }

    /// Lets the ledger decide without Redis, which others may reach: when all of them ask the ledger too, and have written
    /// what they handed out before.
    async fn decide_apart(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<Grant>> {
        let parted = match &self.siblings {
            Some(siblings) => siblings.part().await,
            None => Ok(true),
        };
        let decided = match parted {
            Ok(true) => self.ask_ledger(webhooks, now_ms).await,
            Ok(false) => return vec![Some(Grant::of(Claimed::InFlight)); webhooks.len()],
            Err(reason) => Err(reason),
        };
        let grant = |decided: Decided| {
            // Others may have gone back to Redis before this was written: it is asked for again.
            let in_time = decided.apart_ms > self.longest_ms;
            if in_time { Grant::decided(decided) } else { Grant::of(Claimed::InFlight) }
        };
        self.granted(decided, webhooks.len(), grant)
    }

    /// Lets the ledger decide.
    async fn decide(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<Grant>> {
        let decided = self.ask_ledger(webhooks, now_ms).await;
        self.granted(decided, webhooks.len(), Grant::decided)
    }

    async fn ask_ledger(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<Vec<Decided>, StoreError> {
        // What this sidecar handed out a moment ago is not in the ledger yet.
        self.journal.flush().await?;
        let asks = webhooks.iter().map(|webhook| (*webhook).clone()).collect();
        self.metrics.timed(Operation::LedgerClaim, self.claims.ask(asks, now_ms)).await
    }

    fn granted(
        &self,
        decided: Result<Vec<Decided>, StoreError>,
        count: usize,
        grant: impl Fn(Decided) -> Grant,
    ) -> Vec<Option<Grant>> {
        match decided {
            Ok(decided) => decided.into_iter().map(|decided| Some(grant(decided))).collect(),
            Err(reason) => {
                tracing::warn!(event = "claims.undecided", %reason, count, "claims could not be decided");
                vec![None; count]
            }
        }
    }

    /// Adds when each proceeding message's window was last opened: now, unless it is a message of before, which may not
    /// be the latest any more.
    async fn tell_windows(&self, webhooks: &[&Webhook], grants: &mut [Option<Grant>], now_ms: i64) {
        let mut of_before = BTreeSet::new();
        for (webhook, grant) in webhooks.iter().zip(grants.iter_mut()) {
            let (Some(grant), Some(inbound)) = (grant, &webhook.inbound) else { continue };
            let Claimed::Proceed { first_seen_ms, .. } = grant.claimed else { continue };
            grant.last_inbound_ms = Some(first_seen_ms);
            if first_seen_ms < now_ms {
                of_before.insert(&inbound.pair);
            }
        }
        if of_before.is_empty() {
            return;
        }
        // Best effort: without it the window is told to end earlier than it does.
        let _ = self.journal.flush().await;
        let last: HashMap<Pair, i64> =
            self.ledger.last_inbound(&of_before).await.unwrap_or_default();
        for (webhook, grant) in webhooks.iter().zip(grants) {
            let (Some(grant), Some(inbound)) = (grant, &webhook.inbound) else { continue };
            let last = last.get(&inbound.pair).copied();
            grant.last_inbound_ms =
                grant.last_inbound_ms.map(|first| last.map_or(first, |last| last.max(first)));
        }
    }
}

async fn open_ledger(config: &Config) -> Result<Ledger, String> {
    let policies = Policies::new(config.policy.clone());
    let ledger = Ledger::open(&config.database, config.leases.periods(), policies).await;
    ledger.map_err(|error| about_database(config, &error))
}

fn about_database(config: &Config, error: &StoreError) -> String {
    format!("the database {} {error}", without_password(config.database.url.expose()))
}

/// The spool, once everything of before is written; none where there is to be none, or where SQL decides and has
/// everything before the answer.
async fn open_spool(
    config: &Config,
    ledger: &Arc<Ledger>,
    leases: &Leases,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Spool, Recovery)>, String> {
    let Some(folder) = config.events.spool_folder(ledger.path()) else { return Ok(None) };
    let (ledger, left_alone) = (ledger.clone(), BTreeSet::new());
    let mut recovery = Recovery { folder, ledger, metrics: metrics.clone(), left_alone };
    recovery.recover().await?;
    if matches!(leases, Leases::Sql) {
        return Ok(None);
    }
    let spool = Spool::open(&recovery.folder, config.events.spool_max_bytes, metrics.clone());
    match spool {
        Ok(spool) => Ok(Some((spool, recovery))),
        Err(error) => Err(format!("{}: {error}", recovery.folder.display())),
    }
}

impl Grant {
    fn decided(decided: Decided) -> Grant {
        let proceeds = matches!(decided.claimed, Claimed::Proceed { .. });
        Grant { suppressed: decided.suppressed && proceeds, ..Grant::of(decided.claimed) }
    }

    fn of(claimed: Claimed) -> Grant {
        Grant { claimed, last_inbound_ms: None, suppressed: false }
    }
}
