//! One database, whichever it is, open for looking only: a few connections of its own beside those that write, so that
//! who asks waits for no writer and keeps none waiting. Knows what each question binds and nothing of what it is for.

use serde::Serialize;
use sqlx::{FromRow, PgPool, SqlitePool, postgres::PgRow, sqlite::SqliteRow};

use super::{
    contacts,
    histories::{HeardRow, Pairs, Range, WALK, WALK_NUMBER, WINDOWS, Walk, WindowRow},
    postgres, sqlite,
};
use crate::{
    error::{StoreError, json},
    statements::Statements,
};
use twilio_edge_domain::contact::Tie;
use twilio_edge_platform::{config, metrics::Connections};

/// SQLite or PostgreSQL.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs a query on whichever database it is.
macro_rules! fetched {
    ($reader:expr, $statement:expr, $($value:expr),+ $(,)?) => {
        match $reader {
            Reader::Sqlite(pool) => sqlx::query_as($statement)$(.bind($value))+.fetch_all(pool).await,
            Reader::Postgres(pool) => sqlx::query_as($statement)$(.bind($value))+.fetch_all(pool).await,
        }
    };
}

impl Reader {
    /// Reaches the database, which has to be there already.
    pub(super) async fn open(settings: &config::Database) -> Result<Reader, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => sqlite::open_to_read(settings).map(Reader::Sqlite),
            false => postgres::open_to_read(settings).await.map(Reader::Postgres),
        }
    }

    /// Whether a migration has been made; also false when none ever was.
    pub(super) async fn migrated(&self, version: i64) -> Result<bool, StoreError> {
        const MADE: &str = "SELECT count(*) FROM _sqlx_migrations WHERE success AND version = $1";
        let made: Result<Vec<(i64,)>, sqlx::Error> = fetched!(self, MADE, version);
        match made {
            Ok(made) => Ok(made.iter().any(|(made,)| *made > 0)),
            Err(error) if is_no_table(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next webhooks on a walk.
    pub(super) async fn walk(&self, walk: &Walk<'_>) -> Result<Vec<HeardRow>, StoreError> {
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

    /// The webhooks whose keys are in these ranges.
    pub(super) async fn histories(&self, ranges: &[Range]) -> Result<Vec<HeardRow>, StoreError> {
        let statement = match self {
            Reader::Sqlite(_) => sqlite::STATEMENTS.histories,
            Reader::Postgres(_) => postgres::STATEMENTS.histories,
        };
        let ranges = json(ranges)?;
        Ok(fetched!(self, statement, &ranges)?)
    }

    /// What one of the stores' statements finds for these rows.
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

    /// The last message of each pair of addresses.
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
    ) -> Result<Vec<Tie>, StoreError> {
        let rows: Vec<contacts::Row> = fetched!(self, contacts::OF, account_sid, number)?;
        Ok(rows.into_iter().map(Tie::from).collect())
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> Connections {
        match self {
            Reader::Sqlite(pool) => Connections::of(pool.size(), pool.num_idle()),
            Reader::Postgres(pool) => Connections::of(pool.size(), pool.num_idle()),
        }
    }

    /// Ends the connections that nobody uses, and the others when they are free.
    pub(super) async fn close(&self) {
        match self {
            Reader::Sqlite(pool) => pool.close().await,
            Reader::Postgres(pool) => pool.close().await,
        }
    }
}

fn is_no_table(error: &sqlx::Error) -> bool {
    // PostgreSQL has a code for it, SQLite only says so.
    error.as_database_error().is_some_and(|error| {
        error.code().is_some_and(|code| code == "42P01")
            || error.message().starts_with("no such table")
    })
}
