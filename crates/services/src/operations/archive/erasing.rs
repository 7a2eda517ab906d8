//! Erasure from the archive: applies erasures of the ledger to the archive too. An object that contains erased lines is
//! rewritten without them, or deleted if no line is left. The request stays in the database until that is done, however
//! long the archive is unavailable.

use super::{
    Archive,
    archivist::{HOLD, Stopped, millis},
};
use twilio_edge_domain::{
    address::Address,
    archive::{ArchivedWebhook, IndexMark},
    webhook::Webhook,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{ArchiveErasure, ArchiveQueue};

/// Processes all pending erasures.
pub(super) async fn work(
    archive: &Archive,
    queue: &ArchiveQueue,
    held_by: &str,
    metrics: &Metrics,
) -> Result<(), Stopped> {
    loop {
        let at_ms = now_ms();
        let until_ms = at_ms.saturating_add(millis(HOLD));
        let taken = queue.take_erasure(held_by, at_ms, until_ms).await;
        let Some(mut erasure) = taken.map_err(Stopped::Store)? else { return Ok(()) };
        let (since_ms, until_ms) = (erasure.since_ms, erasure.until_ms.saturating_add(1));
        let names = archive.names(&erasure.account_sid, since_ms, until_ms).await;
        let mut names = names.map_err(Stopped::Bucket)?;
        let marked = erasure.message_sid.as_ref().or(erasure.number.as_ref());
        if let Some(marked) = marked {
            let holding = archive.holding(names, IndexMark::of(marked)).await;
            names = holding.map_err(Stopped::Bucket)?;
        }
        for name in names {
            let lines = archive.read(&name).await.map_err(Stopped::Bucket)?;
            let count = lines.len();
            let left = lines.into_iter().filter_map(|line| {
                let address = address(&line);
                let stays = !is_of(&erasure, &line, address.as_ref());
                stays.then(|| ArchivedWebhook {
                    contact: address.map(|address| address.number),
                    ..line
                })
            });
            let left: Vec<ArchivedWebhook> = left.collect();
            let written = match left.len() {
                0 => archive.delete(&name).await,
                left_over if left_over == count => Ok(()),
                _ => archive.put(&name, &left).await,
            };
            written.map_err(Stopped::Bucket)?;
            metrics.archive.erased(count - left.len());
            let until_ms = now_ms().saturating_add(millis(HOLD));
            if !queue.hold_erasure(&mut erasure, held_by, until_ms).await.map_err(Stopped::Store)? {
                // Another sidecar has claimed the erasure and completes it.
                return Ok(());
            }
        }
        queue.end_erasure(&erasure, held_by).await.map_err(Stopped::Store)?;
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

fn is_of(erasure: &ArchiveErasure, line: &ArchivedWebhook, address: Option<&Address>) -> bool {
    let at_ms = line.received_at_ms();
    let is_their = |number: &String| {
        address.is_some_and(|address| {
            let channel = erasure.channel.as_ref();
            address.number == *number && channel.is_none_or(|channel| *channel == address.channel)
        })
    };
    at_ms >= erasure.since_ms
        && at_ms <= erasure.until_ms
        && erasure.account_sid == line.account_sid
        && erasure.message_sid.as_ref().is_none_or(|sid| *sid == line.message_sid)
        && erasure.number.as_ref().is_none_or(is_their)
}
