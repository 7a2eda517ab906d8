//! Decisions of operators about dead letters, which are deliveries that were given up. An operator retries or discards
//! them, a page at a time, with an audit entry for each account concerned. This module decides which dead letters a
//! caller may decide about. It knows neither HTTP nor the command line. It also maintains a metric: the age of the
//! oldest dead letter of each sink.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use crate::access::api_keys::Caller;
use twilio_edge_platform::clock::{now_ms, ticks};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{
    AuditEntry, DeadLetter, DeadLetterAction, DeadLetterSelection, DeadLetters, Outbox,
    ResolvedDeadLetter, StoreError,
};

/// Number of dead letters that one transaction reads or changes.
pub const PAGE_SIZE: usize = 500;

/// Interval between updates of the metric.
const METRIC_INTERVAL: Duration = Duration::from_secs(15);

/// Filter of dead letters. All given filters must match.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only those with these ids; `None` for all.
    pub ids: Option<Vec<i64>>,
    /// Only those of this sink.
    pub sink: Option<String>,
    /// Only those of this account; the caller's own account if it is bound to one.
    pub account_sid: Option<String>,
}

/// Result of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionResult {
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
    selection: &DeadLetterFilter,
    most: usize,
) -> Result<DecisionResult, StoreError> {
    let account_sid = by.account_sid.as_deref().or(selection.account_sid.as_deref());
    let sink = selection.sink.as_deref();
    let decide_page = async |seqs: &[i64]| {
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
    let mut result = DecisionResult { found: 0, changed: 0, complete: true };
    if let Some(ids) = &selection.ids {
        result.found = ids.len();
        for ids in ids.chunks(PAGE_SIZE) {
            result.changed += decide_page(ids).await?;
        }
        return Ok(result);
    }
    let mut before = (i64::MAX, i64::MAX);
    loop {
        let page_size = i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX);
        let (before_ms, before_seq) = before;
        let page = DeadLetters { account_sid, sink, before_ms, before_seq, most: page_size };
        let page: Vec<DeadLetter> = outbox.dead_letters(page).await?;
        let Some(last) = page.last() else { return Ok(result) };
        before = (last.ended_at_ms, last.seq);
        result.found += page.len();
        let seqs: Vec<i64> = page.iter().map(|letter| letter.seq).collect();
        result.changed += decide_page(&seqs).await?;
        if page.len() < PAGE_SIZE {
            return Ok(result);
        }
        if result.found >= most {
            return Ok(DecisionResult { complete: false, ..result });
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
    let mut ids_of: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for letter in decided {
        ids_of.entry(&letter.account_sid).or_default().push(letter.seq);
    }
    let entry = |(account_sid, mut ids): (&str, Vec<i64>)| {
        ids.sort_unstable();
        let subject = match ids.len() {
            1 => "1 delivery".to_owned(),
            many => format!("{many} deliveries"),
        };
        by.audit_entry(
            fate.action(),
            subject,
            Some(account_sid.to_owned()),
            &json!({ "ids": ids }),
            now_ms,
        )
    };
    ids_of.into_iter().map(entry).collect()
}

/// Updates the metric of the oldest dead letters of these sinks until the task is aborted.
pub async fn update_metric(outbox: Outbox, sinks: Vec<String>, metrics: Arc<Metrics>) {
    let names: Vec<&str> = sinks.iter().map(String::as_str).collect();
    let mut poll = ticks(METRIC_INTERVAL);
    while !names.is_empty() {
        poll.tick().await;
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
