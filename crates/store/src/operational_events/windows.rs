//! Events of opened conversation windows. An inbound message of WhatsApp opens a window if the ledger has no other message of
//! the same pair in the time of a window before it. The ledger decides this when it writes the webhook, after the answer to
//! the claim, and only if a sink takes the event.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::FromRow;

use super::{deliveries_of, record_with};
use crate::{
    database::Transaction,
    error::StoreError,
    event::Event,
    outbox::{LaneRow, NewDelivery},
};
use twilio_edge_domain::{
    contact,
    operational_event::{EventReporting, OpenedWindow, OperationalEvent, OperationalEventType},
    window::closed_by_ms,
};

/// Message that opens a window unless an earlier message has opened it.
#[derive(Debug, Serialize)]
struct Candidate<'a> {
    dedupe_key: &'a str,
    account_sid: &'a str,
    #[serde(skip)]
    message_sid: &'a str,
    channel: &'a str,
    theirs: &'a str,
    ours: &'a str,
    since_ms: i64,
    received_at_ms: i64,
    #[serde(skip)]
    noted_at_ms: i64,
}

#[derive(Debug, FromRow)]
struct FollowingRow {
    dedupe_key: String,
}

impl<'a> Candidate<'a> {
    fn of(event: &Event<'a>) -> Option<Candidate<'a>> {
        // Without a form it is the outcome of a webhook, not its arrival.
        event.form?;
        let channel = event.channel.filter(|channel| *channel == contact::CHANNEL)?;
        let received_at_ms = event.received_at_ms?;
        (event.class == "inbound").then_some(Candidate {
            dedupe_key: event.dedupe_key,
            account_sid: event.account_sid,
            message_sid: event.message_sid,
            channel,
            theirs: event.theirs?,
            ours: event.ours?,
            since_ms: closed_by_ms(received_at_ms),
            received_at_ms,
            noted_at_ms: event.noted_at_ms,
        })
    }

    fn event(&self) -> OperationalEvent {
        let window = OpenedWindow {
            dedupe_key: self.dedupe_key,
            account_sid: self.account_sid,
            message_sid: self.message_sid,
            channel: self.channel,
            theirs: self.theirs,
            ours: self.ours,
            received_at_ms: self.received_at_ms,
        };
        OperationalEvent::window_opened(window, self.noted_at_ms)
    }
}

/// Returns whether one of these webhooks may open a window, and a sink takes that event.
pub(crate) fn may_open(reporting: &EventReporting, events: &[Event<'_>]) -> bool {
    reporting.has(OperationalEventType::WindowOpened)
        && events.iter().any(|event| Candidate::of(event).is_some())
}

/// Inserts the deliveries of webhooks that this transaction has written, and records the windows that these webhooks opened.
pub(crate) async fn record_opened(
    tx: &mut Transaction,
    reporting: &EventReporting,
    events: &[Event<'_>],
    deliveries: &[&NewDelivery],
) -> Result<(), StoreError> {
    if !may_open(reporting, events) {
        return record_with(tx, &[], deliveries).await;
    }
    let candidates: Vec<Candidate<'_>> = events.iter().filter_map(Candidate::of).collect();
    let opened: Vec<OperationalEvent> = candidates.iter().map(Candidate::event).collect();
    // The lanes are locked before the ledger is read: of two transactions with messages of one contact, the second one sees
    // the message of the first.
    let possible: Vec<NewDelivery> = deliveries_of(reporting, &opened, None).collect();
    let lanes = deliveries.iter().copied().chain(&possible).map(LaneRow::of);
    let statements = tx.statements();
    tx.execute(statements.outbox.open_lanes, &lanes.collect::<Vec<_>>()).await?;
    let following: Vec<FollowingRow> = tx.fetch(statements.following_inbound, &candidates).await?;
    let following: BTreeSet<&str> = following.iter().map(|row| row.dedupe_key.as_str()).collect();
    let opened: Vec<OperationalEvent> = candidates
        .iter()
        .filter(|candidate| !following.contains(candidate.dedupe_key))
        .map(Candidate::event)
        .collect();
    let of_windows: Vec<NewDelivery> = deliveries_of(reporting, &opened, None).collect();
    let all: Vec<&NewDelivery> = deliveries.iter().copied().chain(&of_windows).collect();
    record_with(tx, &opened, &all).await
}
