//! Outbox: deliveries to sinks, and the workers that hold them. A delivery is written together with its event, which is a
//! webhook or an operational event (`outbox/new_delivery.rs`). A *lane* (one sink and one contact) is held by one delivery
//! worker at a time, for a limited time. Many sidecars share the work, and a sidecar that dies in a round loses nothing and
//! blocks its lanes only until its hold expires. This module must not know what a sink is.

mod backlog;
mod new_delivery;
mod pending_delivery;
mod rounds;

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::FromRow;

pub(super) use self::new_delivery::{LaneRow, insert_deliveries};
pub use self::{
    backlog::SinkBacklog,
    new_delivery::NewDelivery,
    pending_delivery::PendingDelivery,
    rounds::{AttemptResult, DeliveryRound},
};
use crate::{
    database::{Database, Durability},
    error::StoreError,
    statements::OutboxStatements,
};
use twilio_edge_platform::config;

/// Maximum number of deliveries of one lane in one round.
const MAX_PER_ROUND: i64 = 16;

/// Lane held by a delivery worker, with its first deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedDeliveries {
    /// Ordering key of the lane.
    pub lane: String,
    /// Due deliveries in order; empty when all were withdrawn.
    pub due: Vec<PendingDelivery>,
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

    pub(super) fn statements(&self) -> &'static OutboxStatements {
        &self.database.statements().outbox
    }
}
