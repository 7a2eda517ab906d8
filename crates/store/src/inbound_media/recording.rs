//! Media of webhooks that are being written to the ledger. A webhook that is written again adds nothing.

use serde::Serialize;

use crate::{database::Transaction, error::StoreError, event::Event};
use twilio_edge_domain::{
    media::inbound::{InboundItem, has_media, items},
    policy::Policies,
};

#[derive(Serialize)]
struct NewMediumRow<'a> {
    id: String,
    account_sid: &'a str,
    message_sid: &'a str,
    media_sid: String,
    position: u32,
    channel: &'a str,
    contact: &'a str,
    content_type: String,
    received_at_ms: i64,
    due_at_ms: i64,
}

/// Returns whether one of these webhooks names media of an account that stores them.
pub(crate) fn has_any(policies: &Policies, events: &[Event<'_>]) -> bool {
    events.iter().any(|event| form_with_media(policies, event).is_some())
}

/// Inserts the media of webhooks that this transaction has written.
pub(crate) async fn record(
    tx: &mut Transaction,
    policies: &Policies,
    events: &[Event<'_>],
) -> Result<(), StoreError> {
    let rows: Vec<NewMediumRow<'_>> = events
        .iter()
        .filter_map(|event| Some((event, form_with_media(policies, event)?)))
        .flat_map(|(event, form)| {
            let found = items(form, event.account_sid, event.message_sid).into_iter();
            found.map(move |item| row(event, item))
        })
        .collect();
    match rows.is_empty() {
        true => Ok(()),
        false => tx.execute(tx.statements().inbound_media, &rows).await,
    }
}

fn form_with_media<'a>(policies: &Policies, event: &Event<'a>) -> Option<&'a str> {
    // Without a form it is the outcome of a webhook, not its arrival.
    let form = event.form.filter(|form| event.class == "inbound" && has_media(form))?;
    policies.of(event.account_sid).inbound_media.fetch.then_some(form)
}

fn row<'a>(event: &Event<'a>, item: InboundItem) -> NewMediumRow<'a> {
    let received_at_ms = event.received_at_ms.unwrap_or(event.noted_at_ms);
    NewMediumRow {
        id: item.id,
        account_sid: event.account_sid,
        message_sid: event.message_sid,
        media_sid: item.media_sid,
        position: item.position,
        channel: event.channel.unwrap_or_default(),
        contact: event.theirs.unwrap_or_default(),
        content_type: item.content_type,
        received_at_ms,
        due_at_ms: event.noted_at_ms,
    }
}
