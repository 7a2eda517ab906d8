//! Facade of all stores: opens them, and gives each of them to its users.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, task::JoinHandle};
use twilio_edge_contract::SettlementResult;

use super::{
    accepting::Acceptance, archiving::ArchiveQueue, consents::Consents, contacts::Contacts,
    error::StoreError, idempotency::Idempotency, media::MediaRows, outbox::Outbox,
    retention::Sweeper, sends::OutboundMessages, suppressions::Suppressions, templates::Templates,
    tenants::Tenants,
};
use super::{
    group::Group,
    journal::{Journal, Writer},
    leases::Leases,
    ledger::{Decided, Ledger},
    memory::Memory,
    recovery::Recovery,
    redis::Redis,
    spool::Spool,
};
use crate::peers::{Outgoing, Peers};
use crate::settlement::SettlementInput;
use crate::{api_keys::Register, peers as siblings, rate_limiter::RateLimiter};
use twilio_edge_domain::{
    lease::Periods, policy::Policies, suppression::OptEvent, webhook::Webhook,
};
use twilio_edge_platform::{
    config::{Config, without_password},
    metrics::{Metrics, Pool, RedisState},
    store_metrics::Operation,
};

/// The stores a sidecar runs on.
#[derive(Clone)]
pub struct Stores {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) leases: Leases,
    pub(crate) journal: Journal,
    pub(crate) writer: Arc<Mutex<Option<Writer>>>,
    /// Looks for sidecars that were killed beside this one.
    pub(crate) recovering: Option<Arc<JoinHandle<()>>>,
    /// Claims and releases the ledger decides, because no quick store can.
    pub(crate) claims: Group<Webhook, Decided>,
    pub(crate) releases: Group<SettlementInput, SettlementResult>,
    pub(crate) opts: Group<OptEvent, bool>,
    pub(crate) contacts: Contacts,
    pub(crate) accepts: Group<Acceptance, ()>,
    /// What is handed out by the quick store and not written yet.
    pub(crate) outgoing: Outgoing,
    /// The others on the same database, where Redis may be away from some of them only.
    pub(crate) siblings: Option<Peers>,
    /// How long a transaction may go on, in milliseconds.
    pub(crate) longest_ms: i64,
    /// How long others usually take to write what they handed out.
    pub(crate) linger: Duration,
    pub(crate) periods: Periods,
    pub(crate) metrics: Arc<Metrics>,
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
        let accepting = ledger.clone();
        Ok(Stores {
            claims: Group::start(timeout, move |webhooks: Vec<Webhook>, now_ms| {
                let ledger = claiming.clone();
                async move { ledger.claim(&webhooks, now_ms).await }
            }),
            releases: Group::start(timeout, move |settles: Vec<SettlementInput>, now_ms| {
                let ledger = releasing.clone();
                async move { ledger.release(&settles, now_ms).await }
            }),
            opts: Group::start(timeout, move |said: Vec<OptEvent>, now_ms| {
                let ledger = recording.clone();
                async move { ledger.record_opts(&said, now_ms).await }
            }),
            accepts: Group::start(timeout, move |accepted: Vec<Acceptance>, now_ms| {
                let ledger = accepting.clone();
                async move { ledger.accept(&accepted, now_ms).await }
            }),
            contacts: ledger.contacts(),
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

    /// Which ids belong to one contact, in the same database.
    pub fn contacts(&self) -> Contacts {
        self.contacts.clone()
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

    /// What is to be sent, in the same database.
    pub fn sends(&self) -> OutboundMessages {
        self.ledger.sends()
    }

    /// How fast each sender may go on, for all sidecars together.
    pub fn paces(&self) -> RateLimiter {
        let redis = match &self.leases {
            Leases::Redis(redis) => Some(redis.clone()),
            Leases::Memory(_) | Leases::Sql => None,
        };
        RateLimiter::of(self.sends().shared(), redis)
    }

    /// What may be sent as a template, in the same database.
    pub fn templates(&self) -> Templates {
        self.ledger.templates()
    }

    /// What waits for the archive, in the same database.
    pub fn archive_queue(&self) -> ArchiveQueue {
        self.ledger.archive_queue()
    }

    /// Media that are kept to be sent, in the same database.
    pub fn media(&self) -> MediaRows {
        self.ledger.media()
    }

    /// What sinks are owed, in the same database.
    pub fn outbox(&self) -> Outbox {
        self.ledger.outbox()
    }

    /// Records every STOP and START before it returns; of each, whether it changed who is suppressed.
    pub async fn record_opts(
        &self,
        said: Vec<OptEvent>,
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        self.metrics.timed(Operation::LedgerRecordOpts, self.opts.ask(said, now_ms)).await
    }

    /// Returns which of these dedupe keys the ledger has.
    pub async fn known_keys(&self, keys: &[String]) -> Result<HashSet<String>, StoreError> {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Ok(self.ledger.leases(&keys).await?.into_keys().collect())
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
