//! Insertion of deliveries, in the transaction of their event.

use serde::Serialize;

use crate::{database::Transaction, error::StoreError};

/// Delivery to insert together with its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDelivery {
    /// Name of the sink.
    pub sink: String,
    /// Delivery id, which identifies the delivery to the sink.
    pub delivery_id: String,
    /// Dedupe key of the webhook, or id of the operational event.
    pub dedupe_key: String,
    /// Replay id, if the delivery is a replay.
    pub replay_id: Option<String>,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Ordering key: deliveries of the same lane are delivered in order.
    pub lane: String,
    /// Time of recording, in milliseconds since 1970.
    pub recorded_at_ms: i64,
    /// Facts at the arrival of an inbound message ([`twilio_edge_domain::event::ArrivalFacts::stored`]); empty for others.
    pub facts: String,
}

/// Lane to open.
#[derive(Serialize)]
pub(crate) struct LaneRow<'a> {
    pub(crate) sink: &'a str,
    pub(crate) lane: &'a str,
    pub(crate) recorded_at_ms: i64,
}

impl<'a> LaneRow<'a> {
    pub(crate) fn of(delivery: &'a NewDelivery) -> LaneRow<'a> {
        LaneRow {
            sink: &delivery.sink,
            lane: &delivery.lane,
            recorded_at_ms: delivery.recorded_at_ms,
        }
    }
}

/// Inserts deliveries. The transaction holds the row of each lane until its commit, and only then does another delivery get
/// its position in that lane: the first to commit is the first in the lane, whichever began first.
pub(crate) async fn insert_deliveries(
    tx: &mut Transaction,
    deliveries: &[&NewDelivery],
) -> Result<(), StoreError> {
    let statements = &tx.statements().outbox;
    tx.execute(statements.open_lanes, deliveries).await?;
    tx.execute(statements.insert, deliveries).await
}
