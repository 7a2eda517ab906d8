//! The archivist: writes queued webhooks to the archive in batches, and erases data from archive objects. Decides when
//! to retry. Each sidecar claims batches that no other sidecar has claimed.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Archive, erasing};
use twilio_edge_platform::clock::{millis, now_ms, ticks};
use twilio_edge_platform::{config, metrics::Metrics};
use twilio_edge_store::{ArchiveBatch, ArchiveLimits, ArchiveQueue, StoreError};

/// Interval between checks for webhooks to archive.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Duration of the claim on a batch. The claim is renewed while the batch is written. If the sidecar dies, another one
/// continues after it has expired.
pub(super) const CLAIM_DURATION: Duration = Duration::from_secs(15);

/// Time limit of writing one object.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// Age that webhooks reach before they are archived. Concurrent writes arrive in no order; after this time none of the
/// batch is missing.
const SETTLING_AGE: Duration = Duration::from_secs(5);

/// Shortest and longest pause between attempts while the archive is unavailable.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Writes queued webhooks to the archive.
#[derive(Debug)]
pub struct Archivist {
    /// Destination.
    pub archive: Archive,
    /// Source.
    pub queue: ArchiveQueue,
    /// Size and age of batches.
    pub settings: config::Archive,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Name of this sidecar, unique among the sidecars.
    pub name: String,
}

/// Reason why the archivist pauses.
pub(super) enum ArchiveError {
    Store(StoreError),
    Bucket(String),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveError::Store(reason) => write!(f, "the database {reason}"),
            ArchiveError::Bucket(reason) => f.write_str(reason),
        }
    }
}

impl Archivist {
    /// Runs until it is dropped. It can be dropped at any time: another archivist continues the work in progress.
    pub async fn run(self) {
        // The age is measured while a write hangs, too.
        tokio::join!(self.write_all(), self.measure_age());
    }

    async fn write_all(&self) {
        let [first, longest] = PAUSE;
        let (mut pause, mut not_before) = (first, Instant::now());
        let mut poll = ticks(POLL_INTERVAL);
        loop {
            poll.tick().await;
            if Instant::now() < not_before {
                continue;
            }
            match self.round().await {
                Ok(()) => pause = first,
                Err(stopped) => {
                    self.metrics.archive.failed();
                    tracing::warn!(
                        event = "archive.write_failed", reason = %stopped, archive = self.archive.url(),
                        "the sidecar could not archive webhooks; it retries, and they stay in the ledger"
                    );
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    /// Writes every batch that is due now.
    async fn round(&self) -> Result<(), ArchiveError> {
        loop {
            let at_ms = now_ms();
            let until_ms = at_ms.saturating_add(millis(CLAIM_DURATION));
            let claimed = self.queue.take(&self.name, self.limits(), at_ms, until_ms).await;
            let Some(mut batch) = claimed.map_err(ArchiveError::Store)? else { break };
            let written = self.write(&mut batch).await;
            if written.is_err() {
                // The claim is released, because the archive may be unavailable only from this sidecar.
                let _ = self.queue.hold(&mut batch, &self.name, now_ms()).await;
            }
            written?;
            self.queue.end(&batch, now_ms()).await.map_err(ArchiveError::Store)?;
            self.metrics.archive.archived(batch.lines.len());
        }
        erasing::run_all(&self.archive, &self.queue, &self.name, &self.metrics).await
    }

    /// Writes one object, and renews the claim on its batch meanwhile.
    async fn write(&self, batch: &mut ArchiveBatch) -> Result<(), ArchiveError> {
        let content = batch.clone();
        let mut writing =
            std::pin::pin!(tokio::time::timeout(WRITE_TIMEOUT, self.archive.write(&content)));
        loop {
            tokio::select! {
                written = &mut writing => return match written {
                    Ok(written) => written.map_err(ArchiveError::Bucket),
                    Err(_) => Err(ArchiveError::Bucket(format!("the bucket did not answer within {WRITE_TIMEOUT:?}"))),
                },
                () = tokio::time::sleep(CLAIM_DURATION / 3) => {
                    let until_ms = now_ms().saturating_add(millis(CLAIM_DURATION));
                    // If the claim was lost, another sidecar writes the same bytes, which is harmless.
                    let _ = self.queue.hold(batch, &self.name, until_ms).await;
                }
            }
        }
    }

    async fn measure_age(&self) {
        let mut poll = ticks(POLL_INTERVAL);
        loop {
            poll.tick().await;
            if let Ok(oldest) = self.queue.oldest().await {
                let age_ms = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
                self.metrics.archive.oldest(age_ms);
            }
        }
    }

    fn limits(&self) -> ArchiveLimits {
        let age_ms = i64::from(self.settings.age_s).saturating_mul(1000);
        ArchiveLimits {
            lines: i64::from(self.settings.lines),
            bytes: i64::from(self.settings.bytes),
            age_ms,
            settle_ms: millis(SETTLING_AGE).min(age_ms),
        }
    }
}
