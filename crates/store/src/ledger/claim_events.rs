//! Events of claims and releases for the ledger: those that add information, each webhook once.

use twilio_edge_contract::SettlementResult;

use crate::{event::Event, settlement_input::SettlementInput};
use twilio_edge_domain::{
    lease::{ClaimOutcome, LeaseRecord, Periods},
    webhook::Webhook,
};

/// Returns the event of a claim that adds information: the webhook is forwarded, or its client did not wait.
pub(crate) fn arrival<'a>(
    webhook: &'a Webhook,
    claimed: &ClaimOutcome,
    now_ms: i64,
    periods: Periods,
) -> Option<Event<'a>> {
    match claimed {
        ClaimOutcome::Proceed { attempt, first_seen_ms } => {
            let until_ms = now_ms.saturating_add(periods.lease_ms);
            Some(Event::handed_out(webhook, *attempt, *first_seen_ms, until_ms, now_ms))
        }
        ClaimOutcome::Released => Some(Event::came(webhook, now_ms, now_ms)),
        ClaimOutcome::Duplicate(_) | ClaimOutcome::InFlight => None,
    }
}

/// Returns the event of a release that ended an attempt. A release that was overtaken or never forwarded has no event.
pub(crate) fn refusal<'a>(
    settle: &'a SettlementInput,
    result: SettlementResult,
    record: &LeaseRecord,
    now_ms: i64,
) -> Option<Event<'a>> {
    let forwarded = match result {
        SettlementResult::Settled => true,
        SettlementResult::Tombstoned => settle.unclaimed.is_some(),
        SettlementResult::Superseded | SettlementResult::Unavailable => false,
    };
    match (forwarded, &settle.unclaimed) {
        (true, _) => {
            // The attempt behind a tombstone is not the attempt that holds the lease.
            let own = result == SettlementResult::Settled;
            let attempt = record.lease().filter(|_| own).map(|lease| lease.attempt);
            Some(Event::refused(settle, attempt.unwrap_or_default(), now_ms))
        }
        (false, Some(webhook)) => Some(Event::came(webhook, now_ms, now_ms)),
        (false, None) => None,
    }
}

/// Prepares events for one statement: each key once, in key order.
pub(crate) fn each_once(mut events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    events.sort_by_key(|event| event.dedupe_key);
    events.dedup_by(|later, earlier| {
        let same = later.dedupe_key == earlier.dedupe_key;
        if same {
            *earlier = earlier.merge(*later);
        }
        same
    });
    events
}
