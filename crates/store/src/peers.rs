//! Peers: the other sidecars on the same database, each of which may lose Redis alone. A sidecar that loses Redis records
//! in SQL that it is *apart*. Every claim of every sidecar reads that record, and from then on SQL confirms each claim.
//! Claims that the others granted through Redis before they saw the record may not be written yet. The sidecar that is
//! apart therefore decides nothing until each peer has written its claims and reported it. Peers report about once a
//! second, and immediately when they see that a sidecar is apart. A sidecar without a recent heartbeat is not waited for.
//! Times are of the database's clock. This module must not know what a claim contains.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use sqlx::FromRow;
use tokio::{
    sync::{Mutex, Notify, RwLock},
    time::Instant,
};

use super::journal::Journal;
use crate::{
    database::{Database, Durability},
    error::StoreError,
    statements::SiblingStatements,
};
use twilio_edge_platform::tasks::{Supervisor, Task, TaskHandle};

/// Interval of the heartbeat.
const BEAT: Duration = Duration::from_secs(1);

/// Interval at which a sidecar checks whether a peer is apart, unless a claim reports it earlier.
const LOOK: Duration = Duration::from_millis(200);

/// Milliseconds without a heartbeat after which a sidecar counts as dead and is not waited for.
const LIFE_MS: i64 = 5_000;

/// Delay between two checks while peers write their claims.
const AGAIN: Duration = Duration::from_millis(20);

/// Claims that this sidecar grants through Redis before they are written, with the journal that writes them.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// Read-locked by claims that have not reached the journal yet.
    pub(super) handing_out: Arc<RwLock<()>>,
    pub(super) journal: Journal,
}

impl Outgoing {
    /// Writes all claims granted until now.
    pub(super) async fn write(&self) -> Result<(), StoreError> {
        drop(self.handing_out.write().await);
        self.journal.flush().await
    }
}

/// Handle of this sidecar among its peers.
#[derive(Clone)]
pub(super) struct Peers {
    shared: Arc<Shared>,
    /// Heartbeat task; `None` where no peers are possible, and after this sidecar has left.
    heartbeat: Arc<Mutex<Option<TaskHandle>>>,
}

struct Shared {
    database: Database,
    timeout: Duration,
    id: String,
    outgoing: Outgoing,
    apart: Mutex<RedisPartition>,
    /// Wakes the heartbeat task when a peer is apart and waits for this sidecar.
    awaited: Notify,
}

/// Partition state of this sidecar: cut off from Redis, and since when.
#[derive(Default)]
struct RedisPartition {
    /// End of the recorded partition, by our clock from before the write, so it is rather too early.
    until: Option<Instant>,
    /// Time from which every peer can see the partition, in milliseconds.
    since_ms: i64,
    /// Set when the claims that the peers granted before are in the ledger.
    others_wrote: bool,
}

#[derive(Debug, Serialize)]
struct Said<'a> {
    id: &'a str,
    alive_ms: i64,
    apart_ms: i64,
    written_ms: i64,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    id: &'a str,
    since_ms: i64,
}

#[derive(Debug, FromRow)]
struct Seen {
    now_ms: i64,
    apart: i64,
    behind: i64,
}

impl Peers {
    /// Registers this sidecar before it grants any claim, and starts its heartbeat.
    pub(super) async fn join(
        database: Database,
        timeout: Duration,
        outgoing: Outgoing,
        tasks: &Supervisor,
    ) -> Result<Peers, StoreError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::Away(format!("no random bytes: {error}")))?;
        let alone = matches!(database, Database::Sqlite(_));
        let shared = Arc::new(Shared {
            database,
            timeout,
            id: format!("{:016x}", u64::from_be_bytes(random)),
            outgoing,
            apart: Mutex::default(),
            awaited: Notify::new(),
        });
        shared.forget_the_dead().await?;
        shared.say(|statements| statements.beat, 0, 0).await?;
        // A SQLite file has no other sidecars.
        let heartbeat =
            (!alone).then(|| tasks.spawn_owned(Task::PeerHeartbeat, beat(shared.clone())));
        Ok(Peers { shared, heartbeat: Arc::new(Mutex::new(heartbeat)) })
    }

    /// Unregisters this sidecar, which grants no more claims.
    pub(super) async fn leave(&self) {
        if let Some(heartbeat) = self.heartbeat.lock().await.take() {
            heartbeat.interrupt().await;
        }
        if let Err(reason) = self.shared.forget_the_dead().await {
            tracing::warn!(event = "siblings.not_left", %reason, "the sidecar could not unregister itself; other sidecars may wait for it for some seconds");
        }
    }

    /// Wakes the heartbeat task, because a peer is apart and waits for this sidecar's claims.
    pub(super) fn hurry(&self) {
        self.shared.awaited.notify_one();
    }

    /// Marks this sidecar as apart, or extends the mark; from then on no peer grants a claim through Redis alone. Returns
    /// whether all earlier claims are written, so that SQL may decide. Checks repeatedly, up to half of the timeout.
    pub(super) async fn part(&self) -> Result<bool, StoreError> {
        let patience = Instant::now() + self.shared.timeout / 2;
        loop {
            if self.shared.part().await? {
                return Ok(true);
            }
            if Instant::now() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Returns how long all peers must continue to ask SQL so that a transaction which begins now ends before.
pub(super) fn longest_transaction(timeout: Duration) -> Duration {
    // The database itself ends a transaction after this time.
    timeout * 2
}

impl Shared {
    async fn part(&self) -> Result<bool, StoreError> {
        let margin = longest_transaction(self.timeout);
        let mut apart = self.apart.lock().await;
        let begun = Instant::now();
        let left = apart.until.map_or(Duration::ZERO, |until| until.duration_since(begun));
        if left < margin * 2 {
            let lasts = margin * 2 + BEAT * 2;
            self.say(|statements| statements.part, millis(lasts), 0).await?;
            if left.is_zero() {
                let since_ms = self.look(0).await?.now_ms;
                self.outgoing.write().await?;
                *apart = RedisPartition { since_ms, ..RedisPartition::default() };
            }
            apart.until = Some(begun + lasts);
        }
        if !apart.others_wrote {
            apart.others_wrote = self.look(apart.since_ms).await?.behind == 0;
        }
        Ok(apart.others_wrote)
    }

    /// Returns the state of the peers, from the view of a sidecar that has been apart since `since_ms`.
    async fn look(&self, since_ms: i64) -> Result<Seen, StoreError> {
        let asked = [Asked { id: &self.id, since_ms }];
        let seen: Vec<Seen> =
            self.bounded(self.database.read(self.statements().look, &asked)).await?;
        seen.into_iter().next().ok_or_else(|| StoreError::Away("no answer".into()))
    }

    async fn say(
        &self,
        statement: fn(&SiblingStatements) -> &'static str,
        apart_ms: i64,
        written_ms: i64,
    ) -> Result<(), StoreError> {
        let said = [Said { id: &self.id, alive_ms: LIFE_MS, apart_ms, written_ms }];
        self.change(statement(self.statements()), &said).await
    }

    /// Removes this sidecar and dead peers from the list.
    async fn forget_the_dead(&self) -> Result<(), StoreError> {
        let asked = [Asked { id: &self.id, since_ms: 0 }];
        self.change(self.statements().leave, &asked).await
    }

    async fn change(
        &self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            tx.execute(statement, rows).await?;
            tx.commit().await
        })
        .await
    }

    fn statements(&self) -> &'static SiblingStatements {
        &self.database.statements().siblings
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

    /// Checks whether a peer is apart, and sends a heartbeat if one is due. Returns the time of the last heartbeat.
    async fn beat(&self, said: Instant) -> Result<Instant, StoreError> {
        let begun = Instant::now();
        let seen = self.look(0).await?;
        if seen.apart == 0 && begun.duration_since(said) < BEAT {
            return Ok(said);
        }
        let mut written_ms = 0;
        if seen.apart > 0 {
            // Every later claim has seen the partition. The earlier claims are written when this returns.
            self.outgoing.write().await?;
            written_ms = seen.now_ms;
        }
        self.say(|statements| statements.beat, 0, written_ms).await?;
        Ok(begun)
    }
}

async fn beat(shared: Arc<Shared>) {
    let mut said = Instant::now();
    loop {
        tokio::time::sleep(AGAIN).await;
        tokio::select! {
            () = shared.awaited.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        match shared.beat(said).await {
            Ok(at) => said = at,
            Err(reason) => {
                tracing::warn!(event = "peer.heartbeat_failed", %reason, "the sidecar could not send its heartbeat to the other sidecars");
                tokio::time::sleep(BEAT).await;
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
