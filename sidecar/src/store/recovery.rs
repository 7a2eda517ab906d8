//! What a sidecar that was killed left in the spool, brought into SQL before the next one answers anybody: the same rows
//! again change nothing, and who has which webhook is known from them as from any row. A file nobody will ever be able
//! to read, or whose rows SQL refuses, must not keep a sidecar from starting.

use std::{io, path::Path};

use super::{
    ledger::{Ledger, each_once},
    rows::EventRow,
    spool::{Orphan, orphans},
    sql::StoreError,
};
use crate::metrics::Metrics;

/// Rows written in one transaction.
const TOGETHER: usize = 512;

/// Brings everything that is nobody's any more from `folder` into the ledger.
pub(super) async fn recover(
    folder: &Path,
    ledger: &Ledger,
    metrics: &Metrics,
) -> Result<(), String> {
    let told = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    for path in orphans(folder).map_err(|error| told(folder, &error))? {
        let adopted = Orphan::adopt(&path).map_err(|error| told(&path, &error))?;
        let Some(orphan) = adopted else { continue };
        let (events, torn) = (orphan.rows.len(), orphan.torn);
        for rows in orphan.rows.chunks(TOGETHER) {
            let written = match ledger
                .keep_events(&each_once(rows.iter().map(EventRow::event).collect()))
                .await
            {
                Err(StoreError::Refused(_)) => one_by_one(rows, ledger, metrics).await,
                written => written,
            };
            written.map_err(|reason| format!("{}: the database {reason}", path.display()))?;
        }
        metrics.spool_replayed(events, torn > 0);
        if events > 0 || torn > 0 {
            let file = path.display();
            tracing::warn!(%file, events, torn, "a sidecar was killed, its last events are written now");
        }
        orphan.remove().map_err(|error| told(&path, &error))?;
    }
    Ok(())
}

/// What the database refuses must not take the others with it.
async fn one_by_one(
    rows: &[EventRow],
    ledger: &Ledger,
    metrics: &Metrics,
) -> Result<(), StoreError> {
    for row in rows {
        match ledger.keep_events(&[row.event()]).await {
            Err(StoreError::Refused(reason)) => {
                metrics.event_refused();
                tracing::error!(%reason, "the database refused an event, which is lost");
            }
            written => written?,
        }
    }
    Ok(())
}
