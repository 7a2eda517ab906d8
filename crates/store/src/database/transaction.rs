//! Open transaction of either database: statements over rows, lookups and the write of events, until the commit.

use std::sync::Arc;

use serde::Serialize;
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};
use tokio::sync::OwnedMutexGuard;

use super::{Bind, bound};
use crate::{
    error::{StoreError, json},
    event::Event,
    known_keys::KnownKeys,
    postgres,
    rows::{ContactQuery, LookupRow},
    sqlite,
    statements::Statements,
};

/// Open transaction, rolled back when dropped. With SQLite it also holds the writer lock.
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>, OwnedMutexGuard<()>, Arc<KnownKeys>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Transaction {
    /// Returns the statements in the spelling of this database.
    pub(crate) fn statements(&self) -> &'static Statements {
        match self {
            Transaction::Sqlite(..) => &sqlite::STATEMENTS,
            Transaction::Postgres(_) => &postgres::STATEMENTS,
        }
    }

    /// Executes a statement over `rows` and returns the rows found. Does nothing without rows.
    pub(crate) async fn fetch<R>(
        &mut self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows = json(rows)?;
        Ok(match self {
            Transaction::Sqlite(tx, ..) => {
                sqlx::query_as(statement).bind(rows).fetch_all(&mut **tx).await?
            }
            Transaction::Postgres(tx) => {
                sqlx::query_as(statement).bind(rows).fetch_all(&mut **tx).await?
            }
        })
    }

    /// Executes a statement over `rows`. Does nothing without rows.
    pub(crate) async fn execute(
        &mut self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = json(rows)?;
        match self {
            Transaction::Sqlite(tx, ..) => {
                sqlx::query(statement).bind(rows).execute(&mut **tx).await.map(|_| ())?;
            }
            Transaction::Postgres(tx) => {
                sqlx::query(statement).bind(rows).execute(&mut **tx).await.map(|_| ())?;
            }
        }
        Ok(())
    }

    /// Does the same as [`super::Database::look_up`], within this transaction.
    pub(crate) async fn look_up(
        &mut self,
        keys: &[&str],
        contacts: &[ContactQuery<'_>],
    ) -> Result<Vec<LookupRow>, StoreError> {
        match self {
            Transaction::Sqlite(tx, ..) => sqlite::look_up(&mut **tx, keys, contacts).await,
            Transaction::Postgres(tx) => postgres::look_up(&mut **tx, keys, contacts).await,
        }
    }

    /// Does the same as [`super::Database::write_events`], within this transaction.
    pub(crate) async fn write_events(
        &mut self,
        events: &[Event<'_>],
        forgotten_ms: i64,
    ) -> Result<(), StoreError> {
        match self {
            Transaction::Sqlite(tx, _, known) => {
                known.add(events.iter().map(|event| event.dedupe_key));
                sqlite::write_events(tx, events, forgotten_ms).await
            }
            Transaction::Postgres(tx) => {
                postgres::write_events(&mut **tx, events, forgotten_ms).await
            }
        }
    }

    /// Executes a statement with these values and returns the rows found.
    pub(crate) async fn fetch_bound<R>(
        &mut self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        Ok(match self {
            Transaction::Sqlite(tx, ..) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&mut **tx).await?
            }
            Transaction::Postgres(tx) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&mut **tx).await?
            }
        })
    }

    /// Executes a statement with these values. Returns the number of changed rows.
    pub(crate) async fn execute_bound(
        &mut self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        Ok(match self {
            Transaction::Sqlite(tx, ..) => {
                bound!(sqlx::query(statement), values).execute(&mut **tx).await?.rows_affected()
            }
            Transaction::Postgres(tx) => {
                bound!(sqlx::query(statement), values).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Transaction::Sqlite(tx, _turn, _) => tx.commit().await?,
            Transaction::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
