//! Erasure from the archive: applies erasures of the ledger to the archive too. An object that contains erased lines is
//! rewritten without them, or deleted if no line remains. The request stays in the database until that is done, however
//! long the archive is unavailable.

use super::{
    Archive,
    archivist::{ArchiveError, CLAIM_DURATION},
};
use twilio_edge_domain::{
    address::Address,
    archive::{ArchivedWebhook, IndexMark},
    webhook::Webhook,
};
use twilio_edge_platform::clock::{millis, now_ms};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{ArchiveErasure, ArchiveQueue};

/// Processes all pending erasures.
pub(super) async fn run_all(
    archive: &Archive,
    queue: &ArchiveQueue,
    held_by: &str,
    metrics: &Metrics,
) -> Result<(), ArchiveError> {
    loop {
        let at_ms = now_ms();
        let until_ms = at_ms.saturating_add(millis(CLAIM_DURATION));
        let claimed = queue.take_erasure(held_by, at_ms, until_ms).await;
        let Some(mut erasure) = claimed.map_err(ArchiveError::Store)? else { return Ok(()) };
        let (since_ms, until_ms) = (erasure.since_ms, erasure.until_ms.saturating_add(1));
        let names = archive.names(&erasure.account_sid, since_ms, until_ms).await;
        let mut names = names.map_err(ArchiveError::Bucket)?;
        let mark = erasure.message_sid.as_ref().or(erasure.number.as_ref());
        if let Some(mark) = mark {
            let holding = archive.holding(names, IndexMark::of(mark)).await;
            names = holding.map_err(ArchiveError::Bucket)?;
        }
        for name in names {
            let lines = archive.read(&name).await.map_err(ArchiveError::Bucket)?;
            let count = lines.len();
            let remaining = lines.into_iter().filter_map(|line| {
                let address = address(&line);
                let is_kept = !matches(&erasure, &line, address.as_ref());
                is_kept.then(|| ArchivedWebhook {
                    contact: address.map(|address| address.number),
                    ..line
                })
            });
            let remaining: Vec<ArchivedWebhook> = remaining.collect();
            let written = match remaining.len() {
                0 => archive.delete(&name).await,
                remaining_count if remaining_count == count => Ok(()),
                _ => archive.put(&name, &remaining).await,
            };
            written.map_err(ArchiveError::Bucket)?;
            metrics.archive.erased(count - remaining.len());
            let until_ms = now_ms().saturating_add(millis(CLAIM_DURATION));
            if !queue
                .hold_erasure(&mut erasure, held_by, until_ms)
                .await
                .map_err(ArchiveError::Store)?
            {
                // Another sidecar has claimed the erasure and completes it.
                return Ok(());
            }
        }
        queue.end_erasure(&erasure, held_by).await.map_err(ArchiveError::Store)?;
        tracing::info!(
            event = "archive.erased", erasure.id, account.sid = %erasure.account_sid,
            "the sidecar erased redacted data from the archive"
        );
    }
}

/// Returns the contact of a line, as the ledger recorded it.
fn address(line: &ArchivedWebhook) -> Option<Address> {
    let webhook = Webhook::from_archive(line.clone()).ok()?;
    webhook.participants().map(|pair| pair.theirs.clone())
}

fn matches(erasure: &ArchiveErasure, line: &ArchivedWebhook, address: Option<&Address>) -> bool {
    let at_ms = line.received_at_ms();
    let is_number_of_contact = |number: &String| {
        address.is_some_and(|address| {
            let channel = erasure.channel.as_ref();
            address.number == *number && channel.is_none_or(|channel| *channel == address.channel)
        })
    };
    at_ms >= erasure.since_ms
        && at_ms <= erasure.until_ms
        && erasure.account_sid == line.account_sid
        && erasure.message_sid.as_ref().is_none_or(|sid| *sid == line.message_sid)
        && erasure.number.as_ref().is_none_or(is_number_of_contact)
}
