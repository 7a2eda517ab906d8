//! Recovery of the spools of killed sidecars into SQL: at start, before the first answer, and periodically for sidecars
//! that used the same folder. Recovered rows may be written twice without effect, and they include the holder of each
//! webhook. Neither a file of another version nor a row that SQL refuses prevents a start.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    event::EventRow,
    ledger::{Ledger, each_once},
    spool::{Adopted, Orphan, orphans},
};
use crate::error::StoreError;
use twilio_edge_platform::metrics::Metrics;

/// Interval at which a running sidecar looks for spools of killed sidecars.
const EVERY: Duration = Duration::from_secs(2);

/// Rows per transaction.
const TOGETHER: usize = 512;

/// Recovery of one spool folder.
pub(super) struct Recovery {
    pub(super) folder: PathBuf,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    /// Files of another version that were already logged.
    pub(super) left_alone: BTreeSet<PathBuf>,
}

impl Recovery {
    /// Writes the events of all orphaned files to the ledger.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        let told = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        for path in orphans(&self.folder).map_err(|error| told(&self.folder, &error))? {
            match Orphan::adopt(&path).map_err(|error| told(&path, &error))? {
                Adopted::Now(orphan) => {
                    let written = self.write(&orphan, &path).await;
                    written
                        .map_err(|reason| format!("{}: the database {reason}", path.display()))?;
                    orphan.remove().map_err(|error| told(&path, &error))?;
                }
                Adopted::Not => {}
                Adopted::OfAnotherVersion => {
                    if self.left_alone.insert(path.clone()) {
                        let file = path.display();
                        tracing::error!(event = "spool.other_version", %file, "the sidecar found a spool file of another version and did not change it");
                    }
                }
            }
        }
        Ok(())
    }

    /// Recovers periodically and never returns; a failed recovery is retried.
    pub(super) async fn keep_recovering(mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(reason) = self.recover().await {
                tracing::warn!(event = "spool.waiting", %reason, "the sidecar could not write the events of a killed sidecar's spool; it retries");
            }
        }
    }

    async fn write(&self, orphan: &Orphan, path: &Path) -> Result<(), StoreError> {
        for rows in orphan.rows.chunks(TOGETHER) {
            let events = each_once(rows.iter().map(EventRow::event).collect());
            match self.ledger.keep_events(&events).await {
                Err(StoreError::Refused(_)) => {
                    one_by_one(rows, &self.ledger, &self.metrics).await?;
                }
                written => written?,
            }
        }
        let (events, torn) = (orphan.rows.len(), orphan.torn);
        self.metrics.journal.spool_replayed(events, torn > 0);
        if events > 0 || torn > 0 {
            let file = path.display();
            tracing::warn!(event = "spool.recovered", %file, events, torn, "the sidecar wrote the events of a killed sidecar from its spool");
        }
        Ok(())
    }
}

/// Writes each row alone, so that a refused row does not fail the others.
async fn one_by_one(
    rows: &[EventRow],
    ledger: &Ledger,
    metrics: &Metrics,
) -> Result<(), StoreError> {
    for row in rows {
        match ledger.keep_events(&[row.event()]).await {
            Err(StoreError::Refused(reason)) => {
                metrics.journal.event_refused();
                tracing::error!(event = "event.refused", %reason, "the database rejected an event; the event is lost");
            }
            written => written?,
        }
    }
    Ok(())
}
