//! Outbox: deliveries to sinks, and the workers that hold them. A delivery is written together with its event, which is a
//! webhook or an operational event. A *lane*
//! (one sink and one contact) is held by one delivery worker at a time, for a limited time. Many sidecars share the work, and a
//! sidecar that dies in a round loses nothing and blocks its lanes only until its hold expires. This module must not know
//! what a sink is.

use std::collections::BTreeMap;
use twilio_edge_domain::{
    event::{ArrivalFacts, Delivery, Event, SinkEvent, WebhookFacts, delivery_id},
    media::inbound::MediaLinks,
    operational_event::{
        DeadDelivery, OperationalEvent, OperationalEventType, PublishedEvent, StoredEvent,
    },
};

use serde::Serialize;
use sqlx::FromRow;
use twilio_edge_contract::Class;

use super::{
    operational_events::{deliveries_of, record_with},
    retention::{late, rewind},
};
use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
    statements::OutboxStatements,
};
use twilio_edge_domain::delivery::NextStep;
use twilio_edge_platform::config;

/// Maximum number of deliveries of one lane in one round.
const MAX_PER_ROUND: i64 = 16;

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
    /// Facts at the arrival of an inbound message ([`ArrivalFacts::stored`]); empty for others.
    pub facts: String,
}

/// Due delivery with its event.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PendingDelivery {
    /// Position within its lane.
    pub seq: i64,
    /// See [`NewDelivery`].
    pub delivery_id: String,
    /// See [`NewDelivery`].
    pub dedupe_key: String,
    /// See [`NewDelivery`].
    pub replay_id: Option<String>,
    /// See [`NewDelivery`].
    pub lane: String,
    /// See [`NewDelivery`].
    pub recorded_at_ms: i64,
    /// Number of attempts so far.
    pub tries: i64,
    /// Latest attempts, as [`twilio_edge_domain::delivery_attempt`] stores them.
    pub attempts: String,
    /// See [`NewDelivery`].
    pub facts: String,
    /// `inbound` or `status`; empty for an operational event.
    pub class: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// SID of the message.
    pub message_sid: String,
    /// Delivery status of a status callback.
    pub status: Option<String>,
    /// Error code of a failure.
    pub error_code: Option<String>,
    /// Route on which the webhook arrived.
    pub route: Option<String>,
    /// Form of the webhook, unchanged.
    pub form: Option<String>,
    /// Time of arrival, in milliseconds since 1970.
    pub received_at_ms: Option<i64>,
    /// Metadata of the outbound message that the webhook is about, as JSON; empty without any.
    pub metadata: String,
    /// Number of media of the inbound message that the sidecar stores.
    pub media: i64,
    /// Type of an operational event.
    pub event_type: Option<String>,
    /// Content of an operational event, as JSON.
    pub event_data: Option<String>,
    /// Time of an operational event, in milliseconds since 1970.
    pub event_at_ms: Option<i64>,
    /// Contact of an operational event, or its subject if it has no contact.
    pub event_key: Option<String>,
}

impl PendingDelivery {
    /// Returns the delivery, with links to stored media; `None` if its event was removed from the database.
    pub fn delivery(&self, links: Option<&MediaLinks>) -> Option<Delivery<'_>> {
        let (event, form) = match self.operational_event() {
            Some(event) => (SinkEvent::Operational(event), None),
            None => (SinkEvent::Webhook(Box::new(self.webhook(links)?)), self.form.as_deref()),
        };
        Some(Delivery {
            id: delivery_id(&self.dedupe_key, self.replay_id.as_deref()),
            event,
            form,
            replay_id: self.replay_id.as_deref(),
        })
    }

    fn operational_event(&self) -> Option<PublishedEvent<'_>> {
        PublishedEvent::of(StoredEvent {
            event_id: &self.dedupe_key,
            event_type: self.event_type.as_deref()?,
            account_sid: &self.account_sid,
            key: self.event_key.as_deref().unwrap_or_default(),
            recorded_at_ms: self.event_at_ms.unwrap_or(self.recorded_at_ms),
            data: self.event_data.as_deref()?,
            replay_id: self.replay_id.as_deref(),
        })
    }

    fn webhook(&self, links: Option<&MediaLinks>) -> Option<Event<'_>> {
        let form = self.form.as_deref()?;
        let known = WebhookFacts {
            event_id: &self.dedupe_key,
            class: self.class()?,
            account_sid: &self.account_sid,
            message_sid: &self.message_sid,
            status: self.status.as_deref(),
            error_code: self.error_code.as_deref(),
            route: self.route.as_deref().unwrap_or_default(),
            received_at_ms: self.received_at_ms.unwrap_or(self.recorded_at_ms),
            replay_id: self.replay_id.as_deref(),
            metadata: &self.metadata,
            arrival: ArrivalFacts::read(&self.facts),
        };
        let event = Event::of(known, form);
        Some(match links.filter(|_| self.media > 0 && known.class == Class::Inbound) {
            Some(links) => event.with_media(links.of(
                form,
                known.account_sid,
                known.message_sid,
                known.received_at_ms,
            )),
            None => event,
        })
    }

    /// Returns the class of the event; `None` for any other word.
    pub fn class(&self) -> Option<Class> {
        self.class.parse().ok()
    }
}

/// Lane held by a delivery worker, with its first deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedDeliveries {
    /// Ordering key of the lane.
    pub lane: String,
    /// Due deliveries in order; empty when all were withdrawn.
    pub due: Vec<PendingDelivery>,
}

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
struct TakeQuery<'a> {
    sink: &'a str,
    held_by: &'a str,
    now_ms: i64,
    until_ms: i64,
    most: i64,
    each: i64,
}

#[derive(FromRow)]
struct OrderingKeyRow {
    lane: String,
}

#[derive(Serialize)]
struct OrderingKeyQuery<'a> {
    sink: &'a str,
    lane: &'a str,
    held_by: &'a str,
    due_at_ms: i64,
    each: i64,
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

/// Lane to open.
#[derive(Serialize)]
pub(super) struct LaneRow<'a> {
    pub(super) sink: &'a str,
    pub(super) lane: &'a str,
    pub(super) recorded_at_ms: i64,
}

impl<'a> LaneRow<'a> {
    pub(super) fn of(delivery: &'a NewDelivery) -> LaneRow<'a> {
        LaneRow {
            sink: &delivery.sink,
            lane: &delivery.lane,
            recorded_at_ms: delivery.recorded_at_ms,
        }
    }
}

/// Inserts deliveries. The transaction holds the row of each lane until its commit, and only then does another delivery get
/// its position in that lane: the first to commit is the first in the lane, whichever began first.
pub(super) async fn insert_deliveries(
    tx: &mut Transaction,
    deliveries: &[&NewDelivery],
) -> Result<(), StoreError> {
    let statements = &tx.statements().outbox;
    tx.execute(statements.open_lanes, deliveries).await?;
    tx.execute(statements.insert, deliveries).await
}

/// The deliveries of one database.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) database: Database,
}

impl Outbox {
    pub(super) fn of(database: Database) -> Outbox {
        Outbox { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<Outbox, StoreError> {
        Ok(Outbox::of(Database::open_beside(settings).await?))
    }

    /// Closes the connections. Only for an instance from [`Outbox::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Takes up to `most` due lanes of a sink, held by `held_by` alone until `until_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take(
        &self,
        sink: &str,
        held_by: &str,
        most: usize,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<OrderedDeliveries>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let query = TakeQuery { sink, held_by, now_ms, until_ms, most, each: MAX_PER_ROUND };
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let lanes: Vec<OrderingKeyRow> = tx.fetch(self.statements().take, &[query]).await?;
                let query: Vec<OrderingKeyQuery<'_>> = lanes
                    .iter()
                    .map(|row| OrderingKeyQuery {
                        sink,
                        lane: &row.lane,
                        held_by,
                        due_at_ms: 0,
                        each: MAX_PER_ROUND,
                    })
                    .collect();
                let due: Vec<PendingDelivery> = tx.fetch(self.statements().due, &query).await?;
                tx.commit().await?;
                let mut taken: BTreeMap<String, Vec<PendingDelivery>> =
                    lanes.into_iter().map(|row| (row.lane, Vec::new())).collect();
                for due in due {
                    taken.entry(due.lane.clone()).or_default().push(due);
                }
                Ok(taken.into_iter().map(|(lane, due)| OrderedDeliveries { lane, due }).collect())
            })
            .await
    }

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

    pub(super) fn statements(&self) -> &'static OutboxStatements {
        &self.database.statements().outbox
    }
}
