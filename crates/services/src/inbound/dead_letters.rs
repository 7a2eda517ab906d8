//! What a person does about deliveries that were given up: some are brought on their way again or discarded, a page at a time,
//! with an entry in the audit of each account they are of. Decides whose a caller may decide about; how it is asked for, on the
//! command line or over HTTP, is not known here. And how long the oldest of each sink has waited for that, as a metric.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use crate::access::api_keys::Caller;
use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{
    AuditEntry, Chosen, DeadLetter, DeadLetters, Fate, Outbox, Resolved, StoreError,
};

/// Dead letters looked at, or decided about, in one transaction.
pub const PAGE: usize = 500;

/// How often it is looked how old the oldest are.
const LOOK: Duration = Duration::from_secs(15);

/// Which ones. Of each that is named.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Those of these numbers; else all.
    pub ids: Option<Vec<i64>>,
    /// Only of this sink.
    pub sink: Option<String>,
    /// Only of this account; that of the caller, if they are bound to one.
    pub account_sid: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// How many were named or found.
    pub found: usize,
    /// How many of them were dead letters until now.
    pub changed: usize,
    /// Whether that was all.
    pub complete: bool,
}

/// Decides about the chosen ones, but looks at about `most`.
pub async fn decide(
    outbox: &Outbox,
    by: &Caller,
    fate: Fate,
    choice: &Choice,
    most: usize,
) -> Result<Done, StoreError> {
    let account_sid = by.account_sid.as_deref().or(choice.account_sid.as_deref());
    let sink = choice.sink.as_deref();
    let some = async |seqs: &[i64]| {
        let now_ms = now_ms();
        let entries = |decided: &[Resolved]| entries(by, fate, decided, now_ms);
        outbox.decide(fate, Chosen { seqs, account_sid, sink }, now_ms, entries).await
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

/// One for each account: whoever sees an account sees what was done to what is its.
fn entries(by: &Caller, fate: Fate, decided: &[Resolved], now_ms: i64) -> Vec<AuditEntry> {
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

/// Keeps the metric of their age, until it is aborted.
pub async fn watch(outbox: Outbox, sinks: Sinks, metrics: Arc<Metrics>) {
    let names: Vec<&str> = sinks.iter().map(twilio_edge_connectors::sinks::Sink::name).collect();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !names.is_empty() {
        look.tick().await;
        // While the database is away the last age stands; that it is away is told elsewhere.
        let Ok(oldest) = outbox.oldest_dead(&names).await else { continue };
        let now_ms = now_ms();
        for oldest in oldest {
            let since_ms = oldest.ended_at_ms.unwrap_or(now_ms);
            let age_ms = u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default();
            metrics.sinks.oldest_dead(&oldest.sink, Duration::from_millis(age_ms));
        }
    }
}
