//! Backlog of sinks: deliveries that wait, and dead letters. Its size is bounded: no query reads all rows of a long outage.

use serde::Serialize;
use sqlx::FromRow;

use super::Outbox;
use crate::error::StoreError;

#[derive(Serialize)]
struct SinkQuery<'a> {
    sink: &'a str,
}

/// Deliveries of a sink that have not ended, and its dead letters. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SinkBacklog {
    /// Name of the sink.
    pub sink: String,
    /// Number of waiting deliveries; 1000 means 1000 or more.
    pub waiting: i64,
    /// Time at which the oldest waiting delivery was queued, of the 1000 contacts that are due first.
    pub oldest_waiting_ms: Option<i64>,
    /// Number of dead letters; 1000 means 1000 or more.
    pub dead: i64,
    /// Time at which the oldest dead letter was given up.
    pub oldest_dead_ms: Option<i64>,
}

impl Outbox {
    /// Returns the backlog of each of these sinks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn backlog(&self, sinks: &[&str]) -> Result<Vec<SinkBacklog>, StoreError> {
        let query: Vec<SinkQuery<'_>> = sinks.iter().map(|sink| SinkQuery { sink }).collect();
        self.database.read(self.statements().backlog, &query).await
    }
}
