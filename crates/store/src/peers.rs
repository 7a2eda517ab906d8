//! Peers: the other sidecars on the same database, each of which may lose Redis alone. A sidecar that loses Redis records
//! in SQL that it is *cut off*. Every claim of every sidecar reads that record, and from then on SQL confirms each claim.
//! Claims that the others granted through Redis before they saw the record may not be written yet. The sidecar that is
//! cut off therefore decides nothing until each peer has written its claims and reported it. Peers report about once a
//! second, and immediately when they see that a sidecar is cut off. A sidecar without a recent heartbeat is not waited for.
//! Times are of the database's clock. This module must not know what a claim contains.

use std::{
    sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError},
    time::Duration,
};

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
    statements::PeerStatements,
};
use twilio_edge_platform::tasks::{Supervisor, Task, TaskHandle};

/// Interval of the heartbeat.
const BEAT: Duration = Duration::from_secs(1);

/// Interval at which a sidecar checks whether a peer is cut off, unless a claim reports it earlier.
const CHECK: Duration = Duration::from_millis(200);

/// Time for which a sidecar that saw a peer cut off assumes that it still is; the heartbeat task checks more often.
const SEEN: Duration = Duration::from_secs(2);

/// Milliseconds without a heartbeat after which a sidecar counts as dead and is not waited for.
const LIFE_MS: i64 = 5_000;

/// Delay between two checks while peers write their claims.
const RECHECK: Duration = Duration::from_millis(20);

/// Claims that this sidecar grants through Redis before they are written, with the journal that writes them.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// Read-locked by claims that have not reached the journal yet.
    pub(super) granting: Arc<RwLock<()>>,
    pub(super) journal: Journal,
}

impl Outgoing {
    /// Writes all claims granted until now.
    pub(super) async fn write(&self) -> Result<(), StoreError> {
        drop(self.granting.write().await);
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
    id: String,
    outgoing: Outgoing,
    partition: Mutex<RedisPartition>,
    /// Time until which a sidecar may be cut off, this one included.
    seen_until: SyncMutex<Option<Instant>>,
    /// Wakes the heartbeat task when a peer is cut off and waits for this sidecar.
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
struct Heartbeat<'a> {
    id: &'a str,
    alive_ms: i64,
    partition_ms: i64,
    written_ms: i64,
}

#[derive(Debug, Serialize)]
struct PeerQuery<'a> {
    id: &'a str,
    since_ms: i64,
}

#[derive(Debug, FromRow)]
struct PeerState {
    now_ms: i64,
    cut_off: i64,
    behind: i64,
}

impl Peers {
    /// Registers this sidecar before it grants any claim, and starts its heartbeat.
    pub(super) async fn join(
        database: Database,
        outgoing: Outgoing,
        tasks: &Supervisor,
    ) -> Result<Peers, StoreError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
        let is_shared = database.is_shared();
        let shared = Arc::new(Shared {
            database,
            id: format!("{:016x}", u64::from_be_bytes(random)),
            outgoing,
            partition: Mutex::default(),
            seen_until: SyncMutex::default(),
            awaited: Notify::new(),
        });
        shared.remove_dead_peers().await?;
        shared.write_heartbeat(|statements| statements.heartbeat, 0, 0).await?;
        // A SQLite file has no other sidecars.
        let heartbeat =
            is_shared.then(|| tasks.spawn_owned(Task::PeerHeartbeat, beat(shared.clone())));
        Ok(Peers { shared, heartbeat: Arc::new(Mutex::new(heartbeat)) })
    }

    /// Unregisters this sidecar, which grants no more claims.
    pub(super) async fn leave(&self) {
        if let Some(heartbeat) = self.heartbeat.lock().await.take() {
            heartbeat.interrupt().await;
        }
        if let Err(reason) = self.shared.remove_dead_peers().await {
            tracing::warn!(event = "peer.unregister_failed", %reason, "the sidecar could not unregister itself; other sidecars may wait for it for some seconds");
        }
    }

    /// Notes that a peer is cut off, and wakes the heartbeat task, because the peer waits for this sidecar's claims.
    pub(super) fn see_partition(&self) {
        self.shared.note_partition(SEEN);
        self.shared.awaited.notify_one();
    }

    /// Returns whether a sidecar is, or was a moment ago, cut off from Redis, so that peers may ask SQL alone.
    pub(super) fn is_partitioned(&self) -> bool {
        self.shared.seen_until().is_some_and(|until| until > Instant::now())
    }

    /// Marks this sidecar as cut off, or extends the mark; from then on no peer grants a claim through Redis alone. Returns
    /// whether all earlier claims are written, so that SQL may decide. Checks repeatedly, up to half of the timeout.
    pub(super) async fn enter_partition(&self) -> Result<bool, StoreError> {
        let patience = Instant::now() + self.shared.database.timeout() / 2;
        loop {
            if self.shared.enter_partition().await? {
                return Ok(true);
            }
            if Instant::now() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(RECHECK).await;
        }
    }
}

/// Returns how long all peers must continue to ask SQL so that a transaction which begins now ends before.
pub(super) fn longest_transaction(timeout: Duration) -> Duration {
    // The database itself ends a transaction after this time.
    timeout * 2
}

impl Shared {
    async fn enter_partition(&self) -> Result<bool, StoreError> {
        let margin = longest_transaction(self.database.timeout());
        let mut partition = self.partition.lock().await;
        let begun = Instant::now();
        let left = partition.until.map_or(Duration::ZERO, |until| until.duration_since(begun));
        if left < margin * 2 {
            let lasts = margin * 2 + BEAT * 2;
            self.note_partition(lasts);
            self.write_heartbeat(|statements| statements.enter_partition, millis(lasts), 0).await?;
            if left.is_zero() {
                let since_ms = self.peer_state(0).await?.now_ms;
                self.outgoing.write().await?;
                *partition = RedisPartition { since_ms, ..RedisPartition::default() };
            }
            partition.until = Some(begun + lasts);
        }
        if !partition.others_wrote {
            partition.others_wrote = self.peer_state(partition.since_ms).await?.behind == 0;
        }
        Ok(partition.others_wrote)
    }

    fn note_partition(&self, lasts: Duration) {
        let mut seen_until = self.seen_until();
        *seen_until = (*seen_until).max(Some(Instant::now() + lasts));
    }

    fn seen_until(&self) -> MutexGuard<'_, Option<Instant>> {
        // No code panics while it holds this lock.
        self.seen_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state of the peers, from the view of a sidecar that has been cut off since `since_ms`.
    async fn peer_state(&self, since_ms: i64) -> Result<PeerState, StoreError> {
        let query = [PeerQuery { id: &self.id, since_ms }];
        let seen: Vec<PeerState> = self.database.read(self.statements().state, &query).await?;
        seen.into_iter().next().ok_or_else(|| StoreError::Unavailable("no answer".into()))
    }

    async fn write_heartbeat(
        &self,
        statement: fn(&PeerStatements) -> &'static str,
        partition_ms: i64,
        written_ms: i64,
    ) -> Result<(), StoreError> {
        let heartbeat = [Heartbeat { id: &self.id, alive_ms: LIFE_MS, partition_ms, written_ms }];
        self.database.execute(Durability::Process, statement(self.statements()), &heartbeat).await
    }

    /// Removes this sidecar and dead peers from the list.
    async fn remove_dead_peers(&self) -> Result<(), StoreError> {
        let query = [PeerQuery { id: &self.id, since_ms: 0 }];
        self.database.execute(Durability::Process, self.statements().leave, &query).await
    }

    fn statements(&self) -> &'static PeerStatements {
        &self.database.statements().peers
    }

    /// Checks whether a peer is cut off, and sends a heartbeat if one is due. Returns the time of the last heartbeat.
    async fn beat(&self, heartbeat: Instant) -> Result<Instant, StoreError> {
        let begun = Instant::now();
        let seen = self.peer_state(0).await?;
        if seen.cut_off == 0 && begun.duration_since(heartbeat) < BEAT {
            return Ok(heartbeat);
        }
        let mut written_ms = 0;
        if seen.cut_off > 0 {
            self.note_partition(SEEN);
            // Every later claim has seen the partition. The earlier claims are written when this returns.
            self.outgoing.write().await?;
            written_ms = seen.now_ms;
        }
        self.write_heartbeat(|statements| statements.heartbeat, 0, written_ms).await?;
        Ok(begun)
    }
}

async fn beat(shared: Arc<Shared>) {
    let mut heartbeat = Instant::now();
    loop {
        tokio::time::sleep(RECHECK).await;
        tokio::select! {
            () = shared.awaited.notified() => {}
            () = tokio::time::sleep(CHECK) => {}
        }
        match shared.beat(heartbeat).await {
            Ok(at) => heartbeat = at,
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
