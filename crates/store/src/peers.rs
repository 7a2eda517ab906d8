//! Other sidecars on the same database, of which each may lose Redis alone. Whoever loses it says so in SQL and is *apart*:
//! every claim of every sidecar looks there anyway, and from then on SQL has the last word on it. What the others handed out
//! by Redis before they saw that may not be written yet; so who is apart decides nothing until each of them has written it
//! and said so, as they all do about once a second, and at once when they see somebody apart. A sidecar that has not
//! been heard of for a while is not waited for. Times are of the database's clock; what is handed out is not known here.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use sqlx::FromRow;
use tokio::{
    sync::{Mutex, Notify, RwLock},
    task::JoinHandle,
    time::Instant,
};

use super::journal::Journal;
use crate::{
    database::{Database, Durability},
    error::StoreError,
    statements::SiblingStatements,
};

/// How often a sidecar says that it is there.
const BEAT: Duration = Duration::from_secs(1);

/// How often it looks whether somebody is apart, if no claim tells before.
const LOOK: Duration = Duration::from_millis(200);

/// How long nobody has to have heard of a sidecar that is not waited for.
const LIFE_MS: i64 = 5_000;

/// Between two looks of who is apart, while others write.
const AGAIN: Duration = Duration::from_millis(20);

/// What this sidecar hands out by Redis before it is written: shared by those who do, with what writes it.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// Held by those who hand out and have not noted it yet.
    pub(super) handing_out: Arc<RwLock<()>>,
    pub(super) journal: Journal,
}

impl Outgoing {
    /// Writes what was handed out until now.
    pub(super) async fn write(&self) -> Result<(), StoreError> {
        drop(self.handing_out.write().await);
        self.journal.flush().await
    }
}

/// This sidecar among the others.
#[derive(Clone)]
pub(super) struct Peers {
    shared: Arc<Shared>,
    /// None where there can be no others.
    beats: Option<Arc<JoinHandle<()>>>,
}

struct Shared {
    database: Database,
    timeout: Duration,
    id: String,
    outgoing: Outgoing,
    apart: Mutex<RedisPartition>,
    /// Somebody is apart, and waits for us.
    awaited: Notify,
}

/// Whether this sidecar is, and since when.
#[derive(Default)]
struct RedisPartition {
    /// Known to be until then: by our clock from before it was written, so rather too early.
    until: Option<Instant>,
    /// When everybody could see it.
    since_ms: i64,
    /// What others handed out before is in the ledger.
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
    /// Says that it is there, before it hands anything out, and goes on saying so.
    pub(super) async fn join(
        database: Database,
        timeout: Duration,
        outgoing: Outgoing,
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
        // Nobody else can be on a file of SQLite.
        let beats = (!alone).then(|| Arc::new(tokio::spawn(beat(shared.clone()))));
        Ok(Peers { shared, beats })
    }

    /// Says that it hands out nothing any more.
    pub(super) async fn leave(&self) {
        self.beats.iter().for_each(|beats| beats.abort());
        if let Err(reason) = self.shared.forget_the_dead().await {
            tracing::warn!(event = "siblings.not_left", %reason, "other sidecars may wait for this one for some seconds");
        }
    }

    /// Somebody was seen to be apart, and waits for what we handed out.
    pub(super) fn hurry(&self) {
        self.shared.awaited.notify_one();
    }

    /// Goes apart, or stays so: from here on nobody hands out by Redis alone. Whether what was handed out before is written,
    /// so that SQL may decide; it is asked again for a moment.
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

/// For how long SQL has to go on being asked by all so that a transaction which begins now ends before.
pub(super) fn longest_transaction(timeout: Duration) -> Duration {
    // As long the database itself lets one go on.
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

    /// What there is to see of the others, as somebody sees it who is apart since then.
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

    /// Takes itself and who is long gone off the list.
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

    /// Looks who is apart, and says that it is there if that was not said for a while; when it was said last.
    async fn beat(&self, said: Instant) -> Result<Instant, StoreError> {
        let begun = Instant::now();
        let seen = self.look(0).await?;
        if seen.apart == 0 && begun.duration_since(said) < BEAT {
            return Ok(said);
        }
        let mut written_ms = 0;
        if seen.apart > 0 {
            // Whoever claims from now on has seen who is apart. What was handed out before is written when this returns.
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
                tracing::warn!(event = "siblings.unheard", %reason, "other sidecars could not be told that this one is there");
                tokio::time::sleep(BEAT).await;
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
