//! Read access to the sidecar's database while the sidecar runs. The methods wait for rows that are written after an answer,
//! but not for rows that must be durable before it.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::process::until;
use crate::webhook::ACCOUNT;

/// The sidecar's tables.
pub struct Ledger {
    pool: Pool,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs the same code for either database.
macro_rules! on {
    ($ledger:expr, $pool:ident => $asked:expr) => {
        match &$ledger.pool {
            Pool::Sqlite($pool) => $asked,
            Pool::Postgres($pool) => $asked,
        }
    };
}

/// One webhook, regardless of the number of its copies.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Event {
    /// `inbound` or `status`.
    pub class: String,
    /// `MessageStatus` of a status callback.
    pub status: Option<String>,
    /// The signed parameters as received.
    pub form: Option<String>,
    /// Number of times it was forwarded to the backend.
    pub attempts: i64,
    /// `accepted` or `refused`; none before it is settled.
    pub outcome: Option<String>,
}

/// Number of attempts that a scenario expects: a number, or a range if two outcomes are correct.
pub struct Attempts(RangeInclusive<i64>);

impl From<i64> for Attempts {
    fn from(exactly: i64) -> Self {
        Attempts(exactly..=exactly)
    }
}

impl From<RangeInclusive<i64>> for Attempts {
    fn from(range: RangeInclusive<i64>) -> Self {
        Attempts(range)
    }
}

impl Ledger {
    /// Opens an SQLite file.
    pub async fn open(database: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(database).read_only(true);
        Ok(Self { pool: Pool::Sqlite(SqlitePool::connect_with(options).await?) })
    }

    /// Connects to a PostgreSQL server.
    pub async fn ask(url: &str) -> Result<Self> {
        Ok(Self { pool: Pool::Postgres(PgPool::connect(url).await?) })
    }

    /// Returns the webhooks of a message, oldest first.
    pub async fn events(&self, message_sid: &str) -> Result<Vec<Event>> {
        let query = "SELECT class, status, form, attempts, outcome FROM events WHERE message_sid = $1 ORDER BY received_at_ms";
        Ok(on!(self, pool => sqlx::query_as(query).bind(message_sid).fetch_all(pool).await?))
    }

    /// Waits until a message has exactly one webhook, which ended with `outcome` after so many attempts.
    pub async fn settled(
        &self,
        message_sid: &str,
        outcome: &str,
        attempts: impl Into<Attempts>,
    ) -> Result<Event> {
        let Attempts(attempts) = attempts.into();
        let mut last = Vec::new();
        let what = format!("{message_sid} {outcome} after {attempts:?}");
        let found = until(&what, async || {
            last = self.events(message_sid).await?;
            Ok(match last.as_slice() {
                [event] if event.outcome.as_deref() == Some(outcome) => {
                    attempts.contains(&event.attempts).then(|| event.clone())
                }
                _ => None,
            })
        })
        .await;
        found.with_context(|| format!("the ledger has {last:?}"))
    }

    /// Returns the number of accepted webhooks that first arrived at `since_ms` (milliseconds since 1970) or later.
    pub async fn accepted_since(&self, since_ms: i64) -> Result<i64> {
        let query =
            "SELECT count(*) FROM events WHERE outcome = 'accepted' AND received_at_ms >= $1";
        Ok(on!(self, pool => sqlx::query_scalar(query).bind(since_ms).fetch_one(pool).await?))
    }

    /// Returns the number of webhooks whose copies are duplicates.
    pub async fn done(&self) -> Result<i64> {
        let query = "SELECT count(*) FROM events WHERE outcome = 'accepted'";
        Ok(on!(self, pool => sqlx::query_scalar(query).fetch_one(pool).await?))
    }

    /// Returns the number of pending deliveries of a sink.
    pub async fn owed(&self, sink: &str) -> Result<i64> {
        let query = "SELECT count(*) FROM deliveries WHERE sink = $1 AND state = 'waiting'";
        Ok(on!(self, pool => sqlx::query_scalar(query).bind(sink).fetch_one(pool).await?))
    }

    /// Returns whether a message was recorded as `stop` or `start`.
    pub async fn opt(&self, message_sid: &str) -> Result<Option<String>> {
        let query = "SELECT opt FROM opt_events WHERE message_sid = $1";
        Ok(
            on!(self, pool => sqlx::query_scalar(query).bind(message_sid).fetch_optional(pool).await?),
        )
    }

    /// Returns the state of the deliveries of a message: each sink with `waiting`, `done` or `dead`, in order.
    pub async fn deliveries(&self, message_sid: &str) -> Result<Vec<String>> {
        let query = "SELECT d.sink || ' ' || d.state FROM deliveries d JOIN events e USING (dedupe_key) WHERE e.message_sid = $1 ORDER BY 1";
        Ok(on!(self, pool => sqlx::query_scalar(query).bind(message_sid).fetch_all(pool).await?))
    }

    /// Returns whether a message still waits for the archive.
    pub async fn unarchived(&self, message_sid: &str) -> Result<bool> {
        let query = "SELECT count(*) > 0 FROM archive_queue q JOIN events e USING (dedupe_key) WHERE e.message_sid = $1";
        Ok(on!(self, pool => {
            sqlx::query_scalar(query).bind(message_sid).fetch_one(pool).await?
        }))
    }

    /// Returns whether `number` is suppressed for SMS: each reason is a row, and one active row is enough.
    pub async fn suppressed(&self, number: &str) -> Result<bool> {
        let query = "SELECT count(*) > 0 FROM suppressions WHERE tenant = $1 AND channel = 'sms' AND number = $2 AND suppressed";
        Ok(on!(self, pool => {
            sqlx::query_scalar(query).bind(ACCOUNT).bind(number).fetch_one(pool).await?
        }))
    }
}
