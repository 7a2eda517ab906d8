//! What sinks are owed, and who brings it. A delivery is written with its event; a *lane* (one sink, one person) is worked on
//! by one courier at a time, which takes it for a while: many sidecars share the work, and one that dies in the middle
//! loses nothing and blocks nobody for longer than its hold. What a sink is, is not known here.

use std::{collections::BTreeMap, future::Future, time::Duration};
use twilio_edge_domain::event::{Delivery, Event, Known, delivery_id};

use serde::Serialize;
use sqlx::FromRow;
use twilio_edge_contract::Class;

use super::retention::{late, rewind};
use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
    statements::OutboxStatements,
};
use twilio_edge_domain::delivery::Next;
use twilio_edge_platform::config;

/// Deliveries of one lane that are brought in one round.
const IN_A_ROUND: i64 = 16;

/// One delivery to be, beside its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDelivery {
    /// To whom.
    pub sink: String,
    /// What identifies it to the sink.
    pub delivery_id: String,
    /// Of which event.
    pub dedupe_key: String,
    /// Which replay of it, if it is one.
    pub replay_id: Option<String>,
    /// Whose.
    pub account_sid: String,
    /// What it must stay in order with.
    pub lane: String,
    /// When, in milliseconds since 1970.
    pub recorded_at_ms: i64,
}

/// A delivery that is due, with its event.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PendingDelivery {
    /// The order within its lane.
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
    /// How often it was tried.
    pub tries: i64,
    /// `inbound` or `status`.
    pub class: String,
    /// Whose.
    pub account_sid: String,
    /// Which message.
    pub message_sid: String,
    /// Of a callback.
    pub status: Option<String>,
    /// Of a failure.
    pub error_code: Option<String>,
    /// On which it came.
    pub route: Option<String>,
    /// As it came.
    pub form: Option<String>,
    /// When it came.
    pub received_at_ms: Option<i64>,
}

impl PendingDelivery {
    /// Returns the delivery; none if its event was removed from the ledger.
    pub fn parcel(&self) -> Option<Delivery<'_>> {
        let form = self.form.as_deref()?;
        let known = Known {
            event_id: &self.dedupe_key,
            class: self.class()?,
            account_sid: &self.account_sid,
            message_sid: &self.message_sid,
            status: self.status.as_deref(),
            error_code: self.error_code.as_deref(),
            route: self.route.as_deref().unwrap_or_default(),
            received_at_ms: self.received_at_ms.unwrap_or(self.recorded_at_ms),
            replay_id: self.replay_id.as_deref(),
        };
        Some(Delivery {
            id: delivery_id(&self.dedupe_key, self.replay_id.as_deref()),
            event: Event::of(known, form),
            form,
            replay_id: self.replay_id.as_deref(),
        })
    }

    /// What it is about; none when the event is gone.
    pub fn class(&self) -> Option<Class> {
        match self.class.as_str() {
            "inbound" => Some(Class::Inbound),
            "status" => Some(Class::Status),
            _ => None,
        }
    }
}

/// A lane somebody has taken, with what is first in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Which.
    pub lane: String,
    /// In order; none when what waited in it was withdrawn.
    pub due: Vec<PendingDelivery>,
}

/// What became of a lane's round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Which.
    pub lane: String,
    /// What was tried, in order; only the last may be one to be tried again.
    pub ended: Vec<Ended>,
    /// When the lane is due again, if something is left in it and it is not for a failure.
    pub due_at_ms: i64,
}

/// One try's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which delivery.
    pub delivery_id: String,
    /// Whose.
    pub account_sid: String,
    /// When its event came.
    pub received_at_ms: Option<i64>,
    /// How often it was tried by now.
    pub tries: i64,
    /// What is next.
    pub next: Next,
    /// Why it failed.
    pub reason: Option<String>,
}

#[derive(Serialize)]
struct Wanted<'a> {
    sink: &'a str,
    held_by: &'a str,
    now_ms: i64,
    until_ms: i64,
    most: i64,
    each: i64,
}

#[derive(FromRow)]
struct LaneRow {
    lane: String,
}

#[derive(Serialize)]
struct LaneAsked<'a> {
    sink: &'a str,
    lane: &'a str,
    held_by: &'a str,
    due_at_ms: i64,
    each: i64,
}

#[derive(Serialize)]
struct EndedRow<'a> {
    sink: &'a str,
    delivery_id: &'a str,
    state: &'static str,
    tries: i64,
    reason: Option<&'a str>,
    ended_at_ms: Option<i64>,
}

/// Writes what is owed. Whoever has a lane has it until the commit, and only then is the next delivery in it given its place:
/// what is committed first is first in its lane, whoever began first.
pub(super) async fn owe(
    tx: &mut Transaction,
    statements: &OutboxStatements,
    owed: &[&NewDelivery],
) -> Result<(), StoreError> {
    tx.execute(statements.open_lanes, owed).await?;
    tx.execute(statements.owe, owed).await
}

/// The deliveries of one database.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) database: Database,
    timeout: Duration,
}

impl Outbox {
    pub(super) fn of(database: Database, timeout: Duration) -> Outbox {
        Outbox { database, timeout }
    }

    /// Reaches it for a command, beside the sidecar that may have it open.
    pub async fn open(settings: &config::Database) -> Result<Outbox, StoreError> {
        // A command has time: it waits for the sidecar's writes rather than failing.
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        Ok(Outbox { database: Database::open_beside(settings).await?, timeout })
    }

    /// Ends its connections. Only for one that was opened by [`Outbox::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Takes up to `most` lanes of a sink that are due, for `held_by` alone until `until_ms`.
    pub async fn take(
        &self,
        sink: &str,
        held_by: &str,
        most: usize,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<Lane>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let wanted = Wanted { sink, held_by, now_ms, until_ms, most, each: IN_A_ROUND };
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let lanes: Vec<LaneRow> = tx.fetch(self.statements().take, &[wanted]).await?;
            let asked: Vec<LaneAsked<'_>> = lanes
                .iter()
                .map(|row| LaneAsked {
                    sink,
                    lane: &row.lane,
                    held_by,
                    due_at_ms: 0,
                    each: IN_A_ROUND,
                })
                .collect();
            let due: Vec<PendingDelivery> = tx.fetch(self.statements().due, &asked).await?;
            tx.commit().await?;
            let mut taken: BTreeMap<String, Vec<PendingDelivery>> =
                lanes.into_iter().map(|row| (row.lane, Vec::new())).collect();
            for due in due {
                taken.entry(due.lane.clone()).or_default().push(due);
            }
            Ok(taken.into_iter().map(|(lane, due)| Lane { lane, due }).collect())
        })
        .await
    }

    /// Writes down how rounds ended, and gives their lanes back. A lane somebody else has by now is left to them.
    pub async fn end(
        &self,
        sink: &str,
        held_by: &str,
        rounds: &[Round],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let ended = rounds.iter().flat_map(|round| &round.ended).map(|ended| EndedRow {
            sink,
            delivery_id: &ended.delivery_id,
            state: match ended.next {
                Next::Done => "done",
                Next::Again(_) => "waiting",
                Next::Dead => "dead",
            },
            tries: ended.tries,
            reason: ended.reason.as_deref(),
            ended_at_ms: (!matches!(ended.next, Next::Again(_))).then_some(now_ms),
        });
        let ended: Vec<EndedRow<'_>> = ended.collect();
        let over = rounds.iter().flat_map(|round| &round.ended).filter(|e| e.next == Next::Done);
        let late = late(over.map(|e| (e.account_sid.as_str(), e.received_at_ms)), now_ms);
        let lanes: Vec<LaneAsked<'_>> = rounds
            .iter()
            .map(|round| {
                let retry_at_ms = match round.ended.last() {
                    Some(Ended { next: Next::Again(at_ms), .. }) => Some(*at_ms),
                    _ => None,
                };
                let due_at_ms = retry_at_ms.unwrap_or(round.due_at_ms);
                LaneAsked { sink, lane: &round.lane, held_by, due_at_ms, each: 0 }
            })
            .collect();
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            tx.execute(self.statements().end, &ended).await?;
            rewind(&mut tx, self.database.statements().retention.rewind, late).await?;
            // Whoever adds to a lane holds its row until that is committed; only then it can be told whether it is empty.
            let _: Vec<LaneRow> = tx.fetch(self.statements().lock_lanes, &lanes).await?;
            tx.execute(self.statements().drop_lanes, &lanes).await?;
            tx.execute(self.statements().free_lanes, &lanes).await?;
            tx.commit().await
        })
        .await
    }

    pub(super) fn statements(&self) -> &'static OutboxStatements {
        &self.database.statements().outbox
    }

    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }
}
