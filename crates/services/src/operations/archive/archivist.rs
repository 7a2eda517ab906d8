//! The work on what is queued for the archive: one batch after the other, and what is to be taken out of objects again. Decides
//! when something is tried again; of many sidecars each takes what no other has.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use super::{Archive, erasing};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{config, metrics::Metrics};
use twilio_edge_store::{ArchiveBatch, ArchiveLimits, ArchiveQueue, StoreError};

/// How often it is looked whether something is to be archived.
const LOOK: Duration = Duration::from_secs(1);

/// How long a batch is held: when its sidecar dies, another one takes it up after that. It is held anew while it is written.
pub(super) const HOLD: Duration = Duration::from_secs(15);

/// How long one object may take to be written.
const LONGEST: Duration = Duration::from_secs(120);

/// Webhooks of a moment are written in no order; those of a batch are all there.
const SETTLE: Duration = Duration::from_secs(5);

/// Between two tries while the store is away, at least and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Writes what is queued.
#[derive(Debug)]
pub struct Archivist {
    /// Where to.
    pub archive: Archive,
    /// From where.
    pub queue: ArchiveQueue,
    /// How large and how old batches become.
    pub settings: config::Archive,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who this is, unlike every other sidecar.
    pub name: String,
}

/// Why nothing more is written for now.
pub(super) enum Stopped {
    Store(StoreError),
    Bucket(String),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Store(reason) => write!(f, "the database {reason}"),
            Stopped::Bucket(reason) => f.write_str(reason),
        }
    }
}

impl Archivist {
    /// Runs until it is dropped. Whatever moment that is, what was under way is taken up again by whoever comes next.
    pub async fn run(self) {
        let [first, longest] = PAUSE;
        let (mut pause, mut not_before) = (first, Instant::now());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.gauge().await;
            if Instant::now() < not_before {
                continue;
            }
            match self.round().await {
                Ok(()) => pause = first,
                Err(stopped) => {
                    self.metrics.archive.failed();
                    tracing::warn!(
                        event = "archive.waiting", reason = %stopped, archive = self.archive.url(),
                        "webhooks wait for the archive; they stay in the ledger until it has them"
                    );
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    /// Writes everything that is to be written now.
    async fn round(&self) -> Result<(), Stopped> {
        loop {
            let at_ms = now_ms();
            let until_ms = at_ms.saturating_add(millis(HOLD));
            let taken = self.queue.take(&self.name, self.limits(), at_ms, until_ms).await;
            let Some(mut batch) = taken.map_err(Stopped::Store)? else { break };
            let written = self.write(&mut batch).await;
            if written.is_err() {
                // Whoever is next may try at once: the store may be away from this sidecar only.
                let _ = self.queue.hold(&mut batch, &self.name, now_ms()).await;
            }
            written?;
            self.queue.end(&batch, now_ms()).await.map_err(Stopped::Store)?;
            self.metrics.archive.archived(batch.lines.len());
        }
        erasing::work(&self.archive, &self.queue, &self.name, &self.metrics).await
    }

    /// Writes one object, and holds its batch as long as that takes.
    async fn write(&self, batch: &mut ArchiveBatch) -> Result<(), Stopped> {
        let whole = batch.clone();
        let mut writing = std::pin::pin!(tokio::time::timeout(LONGEST, self.archive.write(&whole)));
        loop {
            tokio::select! {
                written = &mut writing => return match written {
                    Ok(written) => written.map_err(Stopped::Bucket),
                    Err(_) => Err(Stopped::Bucket(format!("no answer within {LONGEST:?}"))),
                },
                () = tokio::time::sleep(HOLD / 3) => {
                    let until_ms = now_ms().saturating_add(millis(HOLD));
                    // Somebody else writes the same bytes: nothing is wrong with that.
                    let _ = self.queue.hold(batch, &self.name, until_ms).await;
                }
            }
        }
    }

    async fn gauge(&self) {
        if let Ok(oldest) = self.queue.oldest().await {
            let age_ms = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
            self.metrics.archive.oldest(age_ms);
        }
    }

    fn limits(&self) -> ArchiveLimits {
        let age_ms = i64::from(self.settings.age_s).saturating_mul(1000);
        ArchiveLimits {
            lines: i64::from(self.settings.lines),
            bytes: i64::from(self.settings.bytes),
            age_ms,
            settle_ms: millis(SETTLE).min(age_ms),
        }
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
