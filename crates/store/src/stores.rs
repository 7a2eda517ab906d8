//! Facade of all stores: opens them and hands each one to its users.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;
use twilio_edge_contract::SettlementResult;

use super::{
    acceptance::Acceptance, archive_queue::ArchiveQueue, consents::Consents, contacts::Contacts,
    error::StoreError, idempotency::Idempotency, inbound_media::InboundMedia, media::MediaIndex,
    outbound_messages::OutboundMessages, outbox::Outbox, refused_requests::RefusedRequests,
    retention::Sweeper, suppressions::Suppressions, templates::Templates, tenants::Tenants,
    verification_starts::VerificationStarts,
};
use super::{
    group::Group,
    journal::{Journal, Writer},
    leases::Leases,
    ledger::{Ledger, LedgerDecision},
    memory::Memory,
    recovery::Recovery,
    redis::Redis,
    spool::Spool,
};
use crate::opt_events::{OptEffect, ReceivedOpt};
use crate::peers::{self, Outgoing, Peers};
use crate::settlement_input::SettlementInput;
use crate::{api_keys::ApiKeyStore, rate_limiter::RateLimiter};
use twilio_edge_domain::{
    lease::Periods, operational_event::EventReporting, policy::Policies, webhook::Webhook,
};
use twilio_edge_platform::{
    config::{Config, without_password},
    metrics::{Metrics, Pool, RedisState},
    store_metrics::Operation,
    tasks::{Supervisor, Task},
};

/// Usual duration of a journal write of another sidecar, with a margin.
const WRITE: Duration = Duration::from_millis(50);

/// Delay before another attempt to read the keys of the ledger.
const REMEMBER_AGAIN: Duration = Duration::from_secs(1);

/// The stores that a sidecar uses.
#[derive(Clone)]
pub struct Stores {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) leases: Leases,
    pub(crate) journal: Journal,
    pub(crate) writer: Arc<Mutex<Option<Writer>>>,
    /// Group commit of the claims that the ledger decides because no lease store can.
    pub(crate) claims: Group<Webhook, LedgerDecision>,
    pub(crate) releases: Group<SettlementInput, SettlementResult>,
    pub(crate) opts: Group<ReceivedOpt, OptEffect>,
    pub(crate) contacts: Contacts,
    pub(crate) accepts: Group<Acceptance, ()>,
    /// Claims that the lease store has granted and the journal has not written yet.
    pub(crate) outgoing: Outgoing,
    /// The other sidecars on the same database. Present only with Redis, which may be unavailable to some sidecars only.
    pub(crate) peers: Option<Peers>,
    /// Upper bound of a transaction's duration, in milliseconds.
    pub(crate) longest_ms: i64,
    /// Time after which other sidecars begin to write the claims that they granted.
    pub(crate) linger: Duration,
    pub(crate) periods: Periods,
    pub(crate) metrics: Arc<Metrics>,
}

/// Health of each store, for `/readyz`.
#[derive(Debug, Clone)]
pub struct Health {
    /// The ledger is required: without it no request succeeds.
    pub ledger: Result<(), StoreError>,
    /// `None` without Redis. When Redis is unavailable, the service works, but more slowly.
    pub redis: Option<Result<(), StoreError>>,
}

impl Stores {
    /// Migrates the database schema and closes the connections.
    ///
    /// # Errors
    /// A message for the operator, when the database is unavailable or refuses a migration.
    pub async fn migrate(config: &Config) -> Result<(), String> {
        let tasks = Supervisor::new(Arc::default());
        open_ledger(config, EventReporting::default(), &tasks).await?.close().await;
        Ok(())
    }

    /// Connects to the database, migrates its schema, writes the events that a killed sidecar left in the spool, and
    /// prepares Redis, which may be unavailable. Changes are reported to sinks by `reporting`. The background tasks of the stores run under `tasks`.
    ///
    /// # Errors
    /// A message for the operator, when the database, the Redis URL or the spool folder cannot be used.
    pub async fn open(
        config: &Config,
        reporting: EventReporting,
        metrics: Arc<Metrics>,
        tasks: &Supervisor,
    ) -> Result<Stores, String> {
        let periods = config.leases.periods();
        let recall_ms =
            i64::from(config.leases.recall_s).saturating_mul(1000).min(periods.result_ms);
        let timeout = Duration::from_millis(config.database.timeout_ms);
        let ledger = Arc::new(open_ledger(config, reporting, tasks).await?);
        let leases = match (config.redis.url.is_empty(), ledger.is_exclusive()) {
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
        // A SQLite file has exactly one sidecar, so there are no other spools to recover.
        if let Some(recovery) = recovery.filter(|_| !ledger.is_exclusive()) {
            tasks.spawn(Task::SpoolRecovery, recovery.run());
        }
        let (journal, writer) =
            Journal::start(&config.events, timeout, ledger.clone(), spool, metrics.clone(), tasks);
        if let Leases::Memory(_) = leases {
            tasks.spawn(Task::KnownKeys, remember_keys(ledger.clone()));
        }
        let outgoing = Outgoing { granting: Arc::default(), journal: journal.clone() };
        let peers = match &leases {
            Leases::Redis(_) => {
                let joined = ledger.peers(outgoing.clone(), tasks).await;
                Some(joined.map_err(|error| about_database(config, &error))?)
            }
            Leases::Memory(_) | Leases::Sql => None,
        };
        let longest = peers::longest_transaction(timeout);
        let (claiming, releasing, recording) = (ledger.clone(), ledger.clone(), ledger.clone());
        let accepting = ledger.clone();
        Ok(Stores {
            claims: Group::start(tasks, timeout, move |webhooks: Vec<Webhook>, now_ms| {
                let ledger = claiming.clone();
                async move { ledger.claim(&webhooks, now_ms).await }
            }),
            releases: Group::start(tasks, timeout, move |settles: Vec<SettlementInput>, now_ms| {
                let ledger = releasing.clone();
                async move { ledger.release(&settles, now_ms).await }
            }),
            opts: Group::start(tasks, timeout, move |opts: Vec<ReceivedOpt>, now_ms| {
                let ledger = recording.clone();
                async move { ledger.record_opts(&opts, now_ms).await }
            }),
            accepts: Group::start(tasks, timeout, move |accepted: Vec<Acceptance>, now_ms| {
                let ledger = accepting.clone();
                async move { ledger.accept(&accepted, now_ms).await }
            }),
            contacts: ledger.contacts(),
            writer: Arc::new(Mutex::new(Some(writer))),
            ledger,
            leases,
            journal,
            outgoing,
            peers,
            longest_ms: i64::try_from(longest.as_millis()).unwrap_or(i64::MAX),
            linger: Duration::from_millis(config.events.linger_ms).min(timeout),
            periods,
            metrics,
        })
    }

    /// Returns the names of the stores for display: `sqlite`, `redis+postgres`, ..
    pub fn describe(&self) -> String {
        let front = if matches!(self.leases, Leases::Redis(_)) { "redis+" } else { "" };
        format!("{front}{}", self.ledger.name())
    }

    /// Returns the API keys.
    pub fn api_keys(&self) -> ApiKeyStore {
        self.ledger.api_keys()
    }

    /// Returns the tenant profiles.
    pub fn tenants(&self) -> Tenants {
        self.ledger.tenants()
    }

    /// Returns the opt-out policy of each account.
    pub fn policies(&self) -> Policies {
        self.ledger.policies()
    }

    /// Returns the suppressions.
    pub fn suppressions(&self) -> Suppressions {
        self.ledger.suppressions()
    }

    /// Returns the sweeper, which deletes expired rows from the ledger.
    pub fn sweeper(&self) -> Sweeper {
        self.ledger.sweeper()
    }

    /// Returns the contacts: the ids that belong to one contact.
    pub fn contacts(&self) -> Contacts {
        self.contacts.clone()
    }

    /// Returns the consents.
    pub fn consents(&self) -> Consents {
        self.ledger.consents()
    }

    /// Returns the idempotency keys. `hold` is how long a running request holds its key; `keep` is how long its response is
    /// replayed.
    pub fn idempotency(&self, hold: Duration, keep: Duration) -> Idempotency {
        self.ledger.idempotency(hold, keep)
    }

    /// Returns for each of our numbers the time, in milliseconds, at which a contact last wrote to it on `channel`.
    /// `numbers` are all numbers of the contact. If `needed` is not satisfied, the method waits for the pending writes of
    /// other sidecars and reads once more.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a read fails.
    pub async fn last_inbound(
        &self,
        account_sid: &str,
        channel: &str,
        numbers: &[impl AsRef<str>],
        needed: impl Fn(&[(String, i64)]) -> bool,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let found = self.last_inbound_known(account_sid, channel, numbers).await?;
        if needed(&found) || self.ledger.is_exclusive() {
            return Ok(found);
        }
        // Other sidecars write their events within this time and do not announce it. A query to each of them would cost
        // every caller more than this wait costs the few callers that need it.
        tokio::time::sleep(self.linger + WRITE).await;
        self.last_inbound_known(account_sid, channel, numbers).await
    }

    /// Reads the times of the contact's last messages, in the journal and the ledger.
    async fn last_inbound_known(
        &self,
        account_sid: &str,
        channel: &str,
        numbers: &[impl AsRef<str>],
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        let mut add = |ours: &str, at: i64| match last.get_mut(ours) {
            Some(known) => *known = at.max(*known),
            None => {
                last.insert(ours.to_owned(), at);
            }
        };
        self.journal.visit_inbound(|event| {
            let is_theirs = |number: &str| numbers.iter().any(|own| own.as_ref() == number);
            if event.account_sid == account_sid
                && event.channel == Some(channel)
                && event.theirs.is_some_and(is_theirs)
                && let (Some(ours), Some(at)) = (event.ours, event.received_at_ms)
            {
                add(ours, at);
            }
        });
        let stored = self.consents().last_inbound(account_sid, channel, numbers).await?;
        stored.iter().for_each(|(ours, at)| add(ours, *at));
        Ok(last.into_iter().collect())
    }

    /// Returns the outbound messages.
    pub fn outbound_messages(&self) -> OutboundMessages {
        self.ledger.outbound_messages()
    }

    /// Returns the counters of verifications.
    pub fn verification_starts(&self) -> VerificationStarts {
        VerificationStarts::of(self.ledger.database.clone())
    }

    /// Returns the rate limiter of the senders, which all sidecars share.
    pub fn rate_limiter(&self) -> RateLimiter {
        let redis = match &self.leases {
            Leases::Redis(redis) => Some(redis.clone()),
            Leases::Memory(_) | Leases::Sql => None,
        };
        RateLimiter::of(
            self.ledger.database.is_shared().then(|| self.ledger.database.clone()),
            redis,
        )
    }

    /// Returns the message templates.
    pub fn templates(&self) -> Templates {
        self.ledger.templates()
    }

    /// Returns the queue of the archive.
    pub fn archive_queue(&self) -> ArchiveQueue {
        self.ledger.archive_queue()
    }

    /// Returns the media of inbound messages.
    pub fn inbound_media(&self) -> InboundMedia {
        self.ledger.inbound_media()
    }

    /// Returns the refused requests.
    pub fn refused_requests(&self) -> RefusedRequests {
        self.ledger.refused_requests()
    }

    /// Returns the stored media.
    pub fn media(&self) -> MediaIndex {
        self.ledger.media()
    }

    /// Returns the outbox, which holds the pending deliveries to sinks.
    pub fn outbox(&self) -> Outbox {
        self.ledger.outbox()
    }

    /// Records keywords durably, with their replies. Returns the effect of each one, in order.
    ///
    /// # Errors
    /// `StoreError` when the transaction fails or its result does not arrive within the timeout.
    pub async fn record_opts(
        &self,
        opts: Vec<ReceivedOpt>,
        now_ms: i64,
    ) -> Result<Vec<OptEffect>, StoreError> {
        self.metrics.stores.timed(Operation::LedgerRecordOpts, self.opts.ask(opts, now_ms)).await
    }

    /// Returns the dedupe keys among `keys` that the ledger or the journal contains.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn known_keys(&self, keys: &[String]) -> Result<HashSet<String>, StoreError> {
        let pending = self.journal.pending(keys.iter());
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Ok(self.ledger.leases(&keys).await?.into_keys().chain(pending).collect())
    }

    /// Checks the connection to each store.
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

    /// Sets the gauges of these stores: the Redis state, the connection pools and the age of the journal queue.
    pub async fn gauge(&self) {
        if let Leases::Redis(redis) = &self.leases {
            redis.probe(twilio_edge_platform::clock::now_ms()).await;
        }
        self.metrics.stores.redis_is(match &self.leases {
            Leases::Redis(redis) if redis.is_unavailable() => RedisState::Unavailable,
            Leases::Redis(_) => RedisState::Up,
            Leases::Memory(_) | Leases::Sql => RedisState::None,
        });
        let [quick, durable] = self.ledger.connections();
        self.metrics.stores.connected(Pool::Quick, quick);
        self.metrics.stores.connected(Pool::Durable, durable);
        self.metrics.journal.queue_is_old(self.journal.age());
    }

    /// Writes all pending events and closes all connections. Returns `false` when the writes took longer than `limit`. The
    /// caller must have stopped claiming and settling.
    pub async fn close(&self, limit: Duration) -> bool {
        let written = match self.writer.lock().await.take() {
            Some(writer) => writer.finish(limit).await,
            None => true,
        };
        if let Some(peers) = &self.peers {
            peers.leave().await;
        }
        self.ledger.close().await;
        written
    }
}

/// Remembers the keys of the ledger, and never returns.
async fn remember_keys(ledger: Arc<Ledger>) {
    while let Err(reason) = ledger.database.remember_keys().await {
        tracing::warn!(event = "keys.read_failed", %reason, "the sidecar could not read the keys of the ledger; it retries");
        tokio::time::sleep(REMEMBER_AGAIN).await;
    }
    std::future::pending().await
}

async fn open_ledger(
    config: &Config,
    reporting: EventReporting,
    tasks: &Supervisor,
) -> Result<Ledger, String> {
    let policies = Policies::new(config.policy.clone());
    let periods = config.leases.periods();
    let ledger = Ledger::open(&config.database, periods, policies, reporting, tasks).await;
    ledger.map_err(|error| about_database(config, &error))
}

fn about_database(config: &Config, error: &StoreError) -> String {
    format!("the database {} {error}", without_password(config.database.url.expose()))
}

/// Opens the spool after the events left in its folder are recovered. Returns `None` when the spool is disabled, or when
/// SQL decides every claim and so stores its event before the answer.
async fn open_spool(
    config: &Config,
    ledger: &Arc<Ledger>,
    leases: &Leases,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Spool, Recovery)>, String> {
    let Some(folder) = config.events.spool_folder(ledger.path()) else { return Ok(None) };
    let (ledger, reported_files) = (ledger.clone(), BTreeSet::new());
    let mut recovery = Recovery { folder, ledger, metrics: metrics.clone(), reported_files };
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
