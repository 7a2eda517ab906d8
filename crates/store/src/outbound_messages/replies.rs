//! Replies to opt-out keywords. A reply is inserted in the transaction that records its keyword, so that neither exists
//! without the other: no crash loses a reply, and no copy of the webhook sends a second one.

use super::{
    OutboundMessage, counts, counts::Counts, events::event_of_refused, row::ADD, writes::of_new,
};
use crate::{database::Transaction, error::StoreError, operational_events};
use twilio_edge_domain::operational_event::{EventReporting, OperationalEvent};

/// Queues replies, with their counters, and records `events` together with those of the replies: the lanes of all events are
/// locked by one statement. The counters are the last rows that the transaction may change.
pub(crate) async fn add(
    tx: &mut Transaction,
    reporting: &EventReporting,
    replies: &[&OutboundMessage],
    mut events: Vec<OperationalEvent>,
) -> Result<(), StoreError> {
    let mut total = Counts::default().take();
    for reply in replies {
        if tx.execute_bound(&ADD, &reply.values()).await? > 0 {
            total.extend(of_new(reply));
            events.extend(event_of_refused(reporting, reply));
        }
    }
    operational_events::record(tx, reporting, &events).await?;
    counts::increment(tx, &total).await
}
