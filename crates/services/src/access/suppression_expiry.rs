//! End of suppressions whose time to live is over. Every check knows their expiry, so they are without effect from that
//! millisecond on; this task changes the stored state within a second, counts it, and reports it to sinks.

use std::{sync::Arc, time::Duration};

use twilio_edge_platform::clock::{now_ms, ticks};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::Suppressions;

/// Interval between searches for expired suppressions.
const INTERVAL: Duration = Duration::from_secs(1);

/// Largest number of suppressions that one transaction ends.
const BATCH: i64 = 500;

/// Ends expired suppressions, for ever. Several sidecars may do so at once: each suppression ends once.
pub async fn run(suppressions: Suppressions, metrics: Arc<Metrics>) {
    let mut interval = ticks(INTERVAL);
    loop {
        interval.tick().await;
        // A full batch is followed by another one at once.
        loop {
            match suppressions.expire(BATCH, now_ms()).await {
                Ok(expired) if expired.is_empty() => break,
                Ok(expired) => {
                    for known in &expired {
                        metrics.webhooks.suppression_changed(false, known.source);
                        tracing::info!(event = "suppression.changed", account.sid = %known.account_sid, address = %known.address, "a suppression expired");
                    }
                }
                Err(reason) => {
                    tracing::warn!(event = "suppressions.expire_failed", %reason, "the sidecar could not store the end of expired suppressions; it retries, and they are without effect");
                    break;
                }
            }
        }
    }
}
