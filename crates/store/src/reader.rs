//! Read-only access to one database, SQLite or PostgreSQL. It has a few connections of its own beside the writing ones, so
//! that queries and writers do not wait for each other. This module knows the parameters of each query; it must not know
//! the purpose.

use serde::Serialize;
use sqlx::{FromRow, PgPool, SqlitePool, postgres::PgRow, sqlite::SqliteRow};

use super::{
    contacts,
    message_history::{
        Pairs, RECORDED, Range, RecordingRange, RecordingRow, WALK, WALK_NUMBER, WINDOWS, Walk,
        WebhookRow, WindowRow,
    },
    outbound_messages::{
        OutboundMessage,
        notifications::{
            FIRST_MESSAGES, FIRST_MESSAGES_TO, FirstMessages, OF_NOTIFICATIONS,
            OF_NOTIFICATIONS_OF_ARRAY,
        },
        pages::{ROW, ROWS_BY_SID, ROWS_BY_SID_OF_ARRAY, RowRange, Sid},
    },
    postgres, sqlite,
};
use crate::{
    error::{StoreError, json},
    statements::Statements,
};
use twilio_edge_domain::{contact::StoredLink, live_stream::StreamPosition};
use twilio_edge_platform::{config, metrics::Connections};

/// SQLite or PostgreSQL.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Executes a query on either database.
macro_rules! fetched {
    ($reader:expr, $statement:expr, $($value:expr),+ $(,)?) => {
        match $reader {
            Reader::Sqlite(pool) => sqlx::query_as($statement)$(.bind($value))+.fetch_all(pool).await,
            Reader::Postgres(pool) => sqlx::query_as($statement)$(.bind($value))+.fetch_all(pool).await,
        }
    };
}

impl Reader {
    /// Connects to the database, which must exist.
    pub(super) async fn open(settings: &config::Database) -> Result<Reader, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => sqlite::open_to_read(settings).map(Reader::Sqlite),
            false => postgres::open_to_read(settings).await.map(Reader::Postgres),
        }
    }

    /// Returns whether a migration was applied; `false` also if none ever was.
    pub(super) async fn migrated(&self, version: i64) -> Result<bool, StoreError> {
        const MADE: &str = "SELECT count(*) FROM _sqlx_migrations WHERE success AND version = $1";
        let made: Result<Vec<(i64,)>, sqlx::Error> = fetched!(self, MADE, version);
        match made {
            Ok(made) => Ok(made.iter().any(|(made,)| *made > 0)),
            Err(error) if is_no_table(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the next webhooks of a walk.
    pub(super) async fn walk(&self, walk: &Walk<'_>) -> Result<Vec<WebhookRow>, StoreError> {
        let Walk { account_sid, since_ms, before_ms, before_key, limit, number } = *walk;
        Ok(match number {
            Some(number) => {
                fetched!(
                    self,
                    WALK_NUMBER,
                    account_sid,
                    since_ms,
                    before_ms,
                    before_key,
                    limit,
                    number
                )
            }
            None => fetched!(self, WALK, account_sid, since_ms, before_ms, before_key, limit),
        }?)
    }

    /// Returns the position before which every commit is complete.
    pub(super) async fn end_of_recording(&self) -> Result<i64, StoreError> {
        let (end,): (i64,) = match self {
            Reader::Sqlite(pool) => {
                sqlx::query_as(sqlite::STATEMENTS.end_of_recording).fetch_one(pool).await?
            }
            Reader::Postgres(pool) => {
                sqlx::query_as(postgres::STATEMENTS.end_of_recording).fetch_one(pool).await?
            }
        };
        Ok(end)
    }

    /// Returns the next webhooks in the order of recording.
    pub(super) async fn recorded(
        &self,
        range: &RecordingRange<'_>,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let RecordingRange { after, end, limit } = *range;
        let StreamPosition { commit, received_ms, key } = after;
        Ok(fetched!(self, RECORDED, commit, received_ms, key, end, limit)?)
    }

    /// Returns the webhooks whose keys are in these ranges.
    pub(super) async fn histories(&self, ranges: &[Range]) -> Result<Vec<WebhookRow>, StoreError> {
        let statement = match self {
            Reader::Sqlite(_) => sqlite::STATEMENTS.histories,
            Reader::Postgres(_) => postgres::STATEMENTS.histories,
        };
        let ranges = json(ranges)?;
        Ok(fetched!(self, statement, &ranges)?)
    }

    /// Returns the rows of outbound messages in one range of the index.
    pub(super) async fn rows(
        &self,
        range: &RowRange<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let RowRange { account_sid, index, value, before: (before_ms, before_id), since_ms, limit } =
            *range;
        let statement = index.statement();
        Ok(fetched!(self, statement, account_sid, value, before_ms, before_id, since_ms, limit)?)
    }

    /// Returns the row of an outbound message.
    pub(super) async fn row(
        &self,
        account_sid: &str,
        id: &str,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let rows: Vec<OutboundMessage> = fetched!(self, ROW, account_sid, id)?;
        Ok(rows.into_iter().next())
    }

    /// Returns the rows of outbound messages with these SIDs.
    pub(super) async fn rows_by_sid(
        &self,
        sids: &[Sid<'_>],
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let statement = match self {
            Reader::Sqlite(_) => ROWS_BY_SID,
            Reader::Postgres(_) => ROWS_BY_SID_OF_ARRAY,
        };
        let sids = json(sids)?;
        Ok(fetched!(self, statement, &sids)?)
    }

    /// Returns the first messages of notifications in one range of the index.
    pub(super) async fn first_messages(
        &self,
        range: &FirstMessages<'_>,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let FirstMessages { account_sid, contact, before: (before_ms, id), since_ms, limit } =
            *range;
        Ok(match contact {
            Some(contact) => fetched!(
                self,
                FIRST_MESSAGES_TO,
                account_sid,
                before_ms,
                id,
                since_ms,
                limit,
                contact
            ),
            None => fetched!(self, FIRST_MESSAGES, account_sid, before_ms, id, since_ms, limit),
        }?)
    }

    /// Returns the messages of these notifications.
    pub(super) async fn of_notifications(
        &self,
        account_sid: &str,
        ids: &[&str],
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let statement = match self {
            Reader::Sqlite(_) => OF_NOTIFICATIONS,
            Reader::Postgres(_) => OF_NOTIFICATIONS_OF_ARRAY,
        };
        let ids = json(ids)?;
        Ok(fetched!(self, statement, account_sid, &ids)?)
    }

    /// Executes one of the stores' statements over these rows and returns the rows found.
    pub(super) async fn found<R>(
        &self,
        statement: fn(&Statements) -> &'static str,
        rows: &[impl Serialize],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let statement = match self {
            Reader::Sqlite(_) => statement(&sqlite::STATEMENTS),
            Reader::Postgres(_) => statement(&postgres::STATEMENTS),
        };
        let rows = json(rows)?;
        Ok(fetched!(self, statement, &rows)?)
    }

    /// Returns the last message of each pair of addresses.
    pub(super) async fn windows(&self, pairs: &Pairs<'_>) -> Result<Vec<WindowRow>, StoreError> {
        Ok(fetched!(
            self,
            WINDOWS,
            pairs.theirs,
            pairs.account_sid,
            pairs.after_ours,
            pairs.after_channel,
            pairs.limit,
            pairs.ours,
            pairs.channel,
            pairs.after_ms,
            pairs.until_ms,
        )?)
    }

    /// Returns the ids that were named beside a number or user id.
    pub(super) async fn ties(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<StoredLink>, StoreError> {
        let rows: Vec<contacts::Row> = fetched!(self, contacts::OF, account_sid, number)?;
        Ok(rows.into_iter().map(StoredLink::from).collect())
    }

    /// Returns the connection counts.
    pub(super) fn connections(&self) -> Connections {
        match self {
            Reader::Sqlite(pool) => Connections::of(pool.size(), pool.num_idle()),
            Reader::Postgres(pool) => Connections::of(pool.size(), pool.num_idle()),
        }
    }

    /// Closes the idle connections, and the others when they become idle.
    pub(super) async fn close(&self) {
        match self {
            Reader::Sqlite(pool) => pool.close().await,
            Reader::Postgres(pool) => pool.close().await,
        }
    }
}

fn is_no_table(error: &sqlx::Error) -> bool {
    // PostgreSQL has a code for a missing table; SQLite has only the message.
    error.as_database_error().is_some_and(|error| {
        error.code().is_some_and(|code| code == "42P01")
            || error.message().starts_with("no such table")
    })
}
