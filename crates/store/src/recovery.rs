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
    spool::{Adoption, Orphan, orphans},
};
use crate::error::StoreError;
use twilio_edge_platform::metrics::Metrics;

/// Interval at which a running sidecar looks for spools of killed sidecars.
const INTERVAL: Duration = Duration::from_secs(2);

/// Rows per transaction.
const ROWS_PER_TRANSACTION: usize = 512;

/// Recovery of one spool folder.
pub(super) struct Recovery {
    pub(super) folder: PathBuf,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    /// Files of another version that were already logged.
    pub(super) reported_files: BTreeSet<PathBuf>,
}

impl Recovery {
    /// Writes the events of all orphaned files to the ledger.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        let describe = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        for path in orphans(&self.folder).map_err(|error| describe(&self.folder, &error))? {
            match Orphan::adopt(&path).map_err(|error| describe(&path, &error))? {
                Adoption::Adopted(orphan) => {
                    let written = self.write(&orphan, &path).await;
                    written
                        .map_err(|reason| format!("{}: the database {reason}", path.display()))?;
                    orphan.remove().map_err(|error| describe(&path, &error))?;
                }
                Adoption::InUse => {}
                Adoption::OtherVersion => {
                    if self.reported_files.insert(path.clone()) {
                        let file = path.display();
                        tracing::error!(event = "spool.unknown_version", %file, "the sidecar found a spool file of another version and did not change it");
                    }
                }
            }
        }
        Ok(())
    }

    /// Recovers periodically and never returns; a failed recovery is retried.
    pub(super) async fn run(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(reason) = self.recover().await {
                tracing::warn!(event = "spool.recovery_failed", %reason, "the sidecar could not write the events of a killed sidecar's spool; it retries");
            }
        }
    }

    async fn write(&self, orphan: &Orphan, path: &Path) -> Result<(), StoreError> {
        for rows in orphan.rows.chunks(ROWS_PER_TRANSACTION) {
            let events = each_once(rows.iter().map(EventRow::event).collect());
            match self.ledger.write_events(&events).await {
                Err(StoreError::Refused(_)) => {
                    write_each(rows, &self.ledger, &self.metrics).await?;
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
async fn write_each(
    rows: &[EventRow],
    ledger: &Ledger,
    metrics: &Metrics,
) -> Result<(), StoreError> {
    for row in rows {
        match ledger.write_events(&[row.event()]).await {
            Err(StoreError::Refused(reason)) => {
                metrics.journal.event_refused();
                tracing::error!(event = "event.rejected", %reason, "the database rejected an event; the event is lost");
            }
            written => written?,
        }
    }
    Ok(())
}
