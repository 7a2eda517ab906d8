//! Results of delivery rounds: stores them, returns the lanes, and reports deliveries that were given up.

use serde::Serialize;
use sqlx::FromRow;
use twilio_edge_domain::{
    delivery::NextStep,
    operational_event::{DeadDelivery, OperationalEvent, OperationalEventType},
};

use super::{NewDelivery, OrderingKeyQuery, OrderingKeyRow, Outbox, new_delivery::LaneRow};
use crate::{
    database::{Durability, Transaction},
    error::StoreError,
    operational_events::{deliveries_of, record_with},
    retention::{late, rewind},
};

/// Result of one round in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRound {
    /// Ordering key of the lane.
    pub lane: String,
    /// Attempted deliveries in order; only the last one may need a retry.
    pub ended: Vec<AttemptResult>,
    /// Next due time of the lane, if deliveries remain and the round did not end with a retry.
    pub due_at_ms: i64,
}

/// Result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptResult {
    /// Delivery id.
    pub delivery_id: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Time at which the event arrived, in milliseconds since 1970.
    pub received_at_ms: Option<i64>,
    /// Number of attempts, this one included.
    pub tries: i64,
    /// The next step: done, retry or dead letter.
    pub next: NextStep,
    /// Reason of the failure.
    pub reason: Option<String>,
    /// Latest attempts, this one included.
    pub attempts: String,
}

#[derive(Serialize)]
struct ResultRow<'a> {
    sink: &'a str,
    delivery_id: &'a str,
    state: &'static str,
    tries: i64,
    reason: Option<&'a str>,
    attempts: &'a str,
    ended_at_ms: Option<i64>,
}

/// Delivery after the result of an attempt was stored.
#[derive(FromRow)]
struct EndedRow {
    state: String,
    delivery_id: String,
    dedupe_key: String,
    account_sid: String,
    recorded_at_ms: i64,
    tries: i64,
    reason: Option<String>,
}

impl Outbox {
    /// Records the results of rounds and returns their lanes. A lane that another worker holds by now stays with that
    /// worker.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn end(
        &self,
        sink: &str,
        held_by: &str,
        rounds: &[DeliveryRound],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let ended = rounds.iter().flat_map(|round| &round.ended).map(|ended| ResultRow {
            sink,
            delivery_id: &ended.delivery_id,
            state: match ended.next {
                NextStep::Done => "done",
                NextStep::RetryAt(_) => "waiting",
                NextStep::DeadLetter => "dead",
            },
            tries: ended.tries,
            reason: ended.reason.as_deref(),
            attempts: &ended.attempts,
            ended_at_ms: (!matches!(ended.next, NextStep::RetryAt(_))).then_some(now_ms),
        });
        let ended: Vec<ResultRow<'_>> = ended.collect();
        let over =
            rounds.iter().flat_map(|round| &round.ended).filter(|e| e.next == NextStep::Done);
        let late = late(over.map(|e| (e.account_sid.as_str(), e.received_at_ms)), now_ms);
        let lanes: Vec<OrderingKeyQuery<'_>> = rounds
            .iter()
            .map(|round| {
                let retry_at_ms = match round.ended.last() {
                    Some(AttemptResult { next: NextStep::RetryAt(at_ms), .. }) => Some(*at_ms),
                    _ => None,
                };
                let due_at_ms = retry_at_ms.unwrap_or(round.due_at_ms);
                OrderingKeyQuery { sink, lane: &round.lane, held_by, due_at_ms, each: 0 }
            })
            .collect();
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let stored: Vec<EndedRow> = tx.fetch(self.statements().end, &ended).await?;
                rewind(&mut tx, late).await?;
                self.report_dead(&mut tx, sink, &lanes, &stored, now_ms).await?;
                // An insert into a lane holds the lane's row until its commit; only after that is it known whether the lane is
                // empty.
                let _: Vec<OrderingKeyRow> = tx.fetch(self.statements().lock_lanes, &lanes).await?;
                tx.execute(self.statements().drop_lanes, &lanes).await?;
                tx.execute(self.statements().free_lanes, &lanes).await?;
                tx.commit().await
            })
            .await
    }

    /// Reports deliveries that were given up to the other sinks. The failure of such a report is not reported.
    async fn report_dead(
        &self,
        tx: &mut Transaction,
        sink: &str,
        held: &[OrderingKeyQuery<'_>],
        stored: &[EndedRow],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let reporting = self.database.reporting();
        if !reporting.has(OperationalEventType::DeliveryDead) {
            return Ok(());
        }
        let own = format!("{}:", OperationalEventType::DeliveryDead);
        let dead =
            stored.iter().filter(|row| row.state == "dead" && !row.dedupe_key.starts_with(&own));
        let events: Vec<OperationalEvent> = dead
            .map(|row| {
                let dead = DeadDelivery {
                    sink,
                    delivery_id: &row.delivery_id,
                    event_id: &row.dedupe_key,
                    account_sid: &row.account_sid,
                    recorded_at_ms: row.recorded_at_ms,
                    tries: row.tries,
                    reason: row.reason.as_deref(),
                };
                OperationalEvent::delivery_dead(dead, now_ms)
            })
            .collect();
        let deliveries: Vec<NewDelivery> = deliveries_of(reporting, &events, Some(sink)).collect();
        if deliveries.is_empty() {
            return Ok(());
        }
        // All lanes of the transaction are locked together, in one order. A lane of `held` that has no delivery is dropped
        // again.
        let lanes = held.iter().map(|lane| LaneRow {
            sink: lane.sink,
            lane: lane.lane,
            recorded_at_ms: lane.due_at_ms,
        });
        let lanes: Vec<LaneRow<'_>> = lanes.chain(deliveries.iter().map(LaneRow::of)).collect();
        tx.execute(self.statements().open_lanes, &lanes).await?;
        record_with(tx, &events, &deliveries.iter().collect::<Vec<_>>()).await
    }
}
