//! Decisions of operators about dead letters, which are deliveries that were given up. An operator retries or discards
//! them, a page at a time, with an audit entry for each account concerned. This module decides which dead letters a
//! caller may decide about. It knows neither HTTP nor the command line. It also maintains a metric: the age of the
//! oldest dead letter of each sink.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use crate::access::api_keys::Caller;
use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{
    AuditEntry, DeadLetter, DeadLetterAction, DeadLetterSelection, DeadLetters, Outbox,
    ResolvedDeadLetter, StoreError,
};

/// Number of dead letters that one transaction reads or changes.
pub const PAGE: usize = 500;

/// Interval between updates of the metric.
const LOOK: Duration = Duration::from_secs(15);

/// Selection of dead letters. All given filters must match.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only those with these ids; `None` for all.
    pub ids: Option<Vec<i64>>,
    /// Only those of this sink.
    pub sink: Option<String>,
    /// Only those of this account; the caller's own account if it is bound to one.
    pub account_sid: Option<String>,
}

/// Result of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Number of dead letters that were named or found.
    pub found: usize,
    /// Number of these that were still dead letters and have been changed.
    pub changed: usize,
    /// True if no matching dead letters are left to process.
    pub complete: bool,
}

/// Applies a decision to the selected dead letters. Stops after about `most` of them, unless they are named by id.
///
/// # Errors
/// Returns an error if the database fails; pages that were finished stay changed.
pub async fn decide(
    outbox: &Outbox,
    by: &Caller,
    fate: DeadLetterAction,
    choice: &Choice,
    most: usize,
) -> Result<Done, StoreError> {
    let account_sid = by.account_sid.as_deref().or(choice.account_sid.as_deref());
    let sink = choice.sink.as_deref();
    let some = async |seqs: &[i64]| {
        let now_ms = now_ms();
        let entries = |decided: &[ResolvedDeadLetter]| entries(by, fate, decided, now_ms);
        outbox
            .resolve_dead_letters(
                fate,
                DeadLetterSelection { seqs, account_sid, sink },
                now_ms,
                entries,
            )
            .await
    };
    let mut done = Done { found: 0, changed: 0, complete: true };
    if let Some(ids) = &choice.ids {
        done.found = ids.len();
        for ids in ids.chunks(PAGE) {
            done.changed += some(ids).await?;
        }
        return Ok(done);
    }
    let mut before = (i64::MAX, i64::MAX);
    loop {
        let most_now = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let (before_ms, before_seq) = before;
        let page = DeadLetters { account_sid, sink, before_ms, before_seq, most: most_now };
        let page: Vec<DeadLetter> = outbox.dead_letters(page).await?;
        let Some(last) = page.last() else { return Ok(done) };
        before = (last.ended_at_ms, last.seq);
        done.found += page.len();
        let seqs: Vec<i64> = page.iter().map(|letter| letter.seq).collect();
        done.changed += some(&seqs).await?;
        if page.len() < PAGE {
            return Ok(done);
        }
        if done.found >= most {
            return Ok(Done { complete: false, ..done });
        }
    }
}

/// Builds one entry for each account, so that a caller who sees only one account sees the changes to its own dead
/// letters.
fn entries(
    by: &Caller,
    fate: DeadLetterAction,
    decided: &[ResolvedDeadLetter],
    now_ms: i64,
) -> Vec<AuditEntry> {
    let mut of: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for letter in decided {
        of.entry(&letter.account_sid).or_default().push(letter.seq);
    }
    let entry = |(account_sid, mut ids): (&str, Vec<i64>)| {
        ids.sort_unstable();
        AuditEntry {
            id: 0,
            at_ms: now_ms,
            actor: by.actor.clone(),
            source: by.source.clone(),
            action: fate.action().into(),
            subject: format!("{} deliveries", ids.len()),
            account_sid: Some(account_sid.to_owned()),
            detail: json!({ "ids": ids }).to_string(),
        }
    };
    of.into_iter().map(entry).collect()
}

/// Updates the metric of the oldest dead letters until the task is aborted.
pub async fn watch(outbox: Outbox, sinks: Sinks, metrics: Arc<Metrics>) {
    let names: Vec<&str> = sinks.iter().map(twilio_edge_connectors::sinks::Sink::name).collect();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !names.is_empty() {
        look.tick().await;
        // While the database is unavailable, the metric stays as it was. The outage is reported elsewhere.
        let Ok(oldest) = outbox.oldest_dead_letters(&names).await else { continue };
        let now_ms = now_ms();
        for oldest in oldest {
            let since_ms = oldest.ended_at_ms.unwrap_or(now_ms);
            let age_ms = u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default();
            metrics.sinks.oldest_dead(&oldest.sink, Duration::from_millis(age_ms));
        }
    }
}
