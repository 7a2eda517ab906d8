//! Database, either SQLite or PostgreSQL: transactions, and statements by name with their rows as JSON. Only this file and
//! `reader.rs` know that there are two kinds. This module must not know what the statements are for.

use serde::Serialize;
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};
use tokio::sync::OwnedMutexGuard;

use super::{
    event::Event,
    postgres::{self, Postgres},
    rows::KnownRow,
    sqlite::{self, Sqlite},
};
use crate::rows::WantedPerson;
use crate::{
    error::{StoreError, json},
    statements::Statements,
};
use twilio_edge_platform::{config, metrics::Connections};

/// Failure that a commit survives once it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The end of our process.
    Process,
    /// The loss of power.
    Power,
}

/// Positional parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bind<'a> {
    Text(&'a str),
    Whole(i64),
}

macro_rules! bound {
    ($query:expr, $values:expr) => {
        $values.iter().fold($query, |query, value| match value {
            Bind::Text(text) => query.bind(*text),
            Bind::Whole(number) => query.bind(*number),
        })
    };
}

/// SQLite or PostgreSQL.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    /// Connects to the database and migrates its schema.
    pub(super) async fn open(settings: &config::Database) -> Result<Database, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => Sqlite::open(settings).await.map(Database::Sqlite),
            false => Postgres::open(settings).await.map(Database::Postgres),
        }
    }

    /// Connects to the database for a command, beside the sidecar that uses it.
    pub(super) async fn open_beside(settings: &config::Database) -> Result<Database, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => Sqlite::open_beside(settings).await.map(Database::Sqlite),
            false => Postgres::open(settings).await.map(Database::Postgres),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgres",
        }
    }

    pub(super) fn statements(&self) -> &'static Statements {
        match self {
            Database::Sqlite(_) => &sqlite::STATEMENTS,
            Database::Postgres(_) => &postgres::STATEMENTS,
        }
    }

    pub(super) async fn begin(&self, durability: Durability) -> Result<Transaction, StoreError> {
        let begin = self.statements().begin;
        Ok(match (self, durability) {
            (Database::Sqlite(sqlite), durability) => {
                let turn = sqlite.turn.clone().lock_owned().await;
                let pool = match durability {
                    Durability::Process => &sqlite.quick,
                    Durability::Power => &sqlite.durable,
                };
                Transaction::Sqlite(pool.begin_with(begin).await?, turn)
            }
            (Database::Postgres(postgres), Durability::Process) => {
                Transaction::Postgres(postgres.quick.begin_with(begin).await?)
            }
            (Database::Postgres(postgres), Durability::Power) => {
                Transaction::Postgres(postgres.durable.begin_with(begin).await?)
            }
        })
    }

    /// Executes a read-only statement over `rows` and returns the rows found. Does not wait for writers.
    pub(super) async fn read<R>(
        &self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let query = json(rows)?;
        Ok(match self {
            Database::Sqlite(sqlite) => {
                sqlx::query_as(statement).bind(query).fetch_all(&sqlite.quick).await?
            }
            Database::Postgres(postgres) => {
                sqlx::query_as(statement).bind(query).fetch_all(&postgres.quick).await?
            }
        })
    }

    /// Executes a read-only statement with these values and returns the rows found. Does not wait for writers.
    pub(super) async fn read_bound<R>(
        &self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        Ok(match self {
            Database::Sqlite(sqlite) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&sqlite.quick).await?
            }
            Database::Postgres(postgres) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&postgres.quick).await?
            }
        })
    }

    /// Reads the leases of these webhooks and the suppressions of these people. Does not wait for writers.
    pub(super) async fn look_up(
        &self,
        keys: &[&str],
        people: &[WantedPerson<'_>],
    ) -> Result<Vec<KnownRow>, StoreError> {
        match self {
            Database::Sqlite(sqlite) => sqlite::look_up(&sqlite.asking, keys, people).await,
            Database::Postgres(postgres) => {
                let mut held = postgres.asking.take().await?;
                let known = postgres::look_up(held.connection(), keys, people).await?;
                postgres.asking.put_back(held);
                Ok(known)
            }
        }
    }

    /// Writes events, each key once. Durable on return.
    pub(super) async fn keep_events(
        &self,
        events: &[Event<'_>],
        forgotten_ms: i64,
    ) -> Result<(), StoreError> {
        match self {
            Database::Sqlite(_) => {
                let mut tx = self.begin(Durability::Power).await?;
                tx.keep_events(events, forgotten_ms).await?;
                tx.commit().await
            }
            // One statement is its own transaction, in one round trip instead of three.
            Database::Postgres(postgres) => {
                let mut held = postgres.writing.take().await?;
                postgres::keep_events(held.connection(), events, forgotten_ms).await?;
                postgres.writing.put_back(held);
                Ok(())
            }
        }
    }

    /// Returns the connection counts of the two pools: quick commits and durable commits.
    pub(super) fn connections(&self) -> [Connections; 2] {
        match self {
            Database::Sqlite(Sqlite { quick, durable, asking, .. }) => {
                let [quick, durable, asking] = [quick, durable, asking]
                    .map(|pool| Connections::of(pool.size(), pool.num_idle()));
                [quick.and(asking), durable]
            }
            Database::Postgres(Postgres { quick, durable, asking, writing }) => {
                [(quick, asking), (durable, writing)].map(|(pool, at_hand)| {
                    let idle = pool.num_idle().saturating_add(at_hand.count());
                    Connections::of(pool.size(), idle)
                })
            }
        }
    }

    /// Checks that the database can be read.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        const PING: &str = "SELECT 1";
        match self {
            Database::Sqlite(sqlite) => {
                sqlx::query(PING).execute(&sqlite.asking).await.map(|_| ())?
            }
            Database::Postgres(postgres) => {
                sqlx::query(PING).execute(&postgres.quick).await.map(|_| ())?;
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        match self {
            Database::Sqlite(sqlite) => {
                sqlite.quick.close().await;
                sqlite.durable.close().await;
                sqlite.asking.close().await;
            }
            Database::Postgres(postgres) => {
                postgres.asking.give_back();
                postgres.writing.give_back();
                postgres.quick.close().await;
                postgres.durable.close().await;
            }
        }
    }
}

/// Open transaction, rolled back when dropped. With SQLite it also holds the writer lock.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>, OwnedMutexGuard<()>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Transaction {
    /// Executes a statement over `rows` and returns the rows found. Does nothing without rows.
    pub(super) async fn fetch<R>(
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
            Transaction::Sqlite(tx, _) => {
                sqlx::query_as(statement).bind(rows).fetch_all(&mut **tx).await?
            }
            Transaction::Postgres(tx) => {
                sqlx::query_as(statement).bind(rows).fetch_all(&mut **tx).await?
            }
        })
    }

    /// Executes a statement over `rows`. Does nothing without rows.
    pub(super) async fn execute(
        &mut self,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = json(rows)?;
        match self {
            Transaction::Sqlite(tx, _) => {
                sqlx::query(statement).bind(rows).execute(&mut **tx).await.map(|_| ())?;
            }
            Transaction::Postgres(tx) => {
                sqlx::query(statement).bind(rows).execute(&mut **tx).await.map(|_| ())?;
            }
        }
        Ok(())
    }

    /// Does the same as [`Database::look_up`], within this transaction.
    pub(super) async fn look_up(
        &mut self,
        keys: &[&str],
        people: &[WantedPerson<'_>],
    ) -> Result<Vec<KnownRow>, StoreError> {
        match self {
            Transaction::Sqlite(tx, _) => sqlite::look_up(&mut **tx, keys, people).await,
            Transaction::Postgres(tx) => postgres::look_up(&mut **tx, keys, people).await,
        }
    }

    /// Does the same as [`Database::keep_events`], within this transaction.
    pub(super) async fn keep_events(
        &mut self,
        events: &[Event<'_>],
        forgotten_ms: i64,
    ) -> Result<(), StoreError> {
        match self {
            Transaction::Sqlite(tx, _) => sqlite::keep_events(tx, events, forgotten_ms).await,
            Transaction::Postgres(tx) => {
                postgres::keep_events(&mut **tx, events, forgotten_ms).await
            }
        }
    }

    /// Executes a statement with these values and returns the rows found.
    pub(super) async fn fetch_bound<R>(
        &mut self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        Ok(match self {
            Transaction::Sqlite(tx, _) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&mut **tx).await?
            }
            Transaction::Postgres(tx) => {
                bound!(sqlx::query_as(statement), values).fetch_all(&mut **tx).await?
            }
        })
    }

    /// Executes a statement with these values. Returns the number of changed rows.
    pub(super) async fn execute_bound(
        &mut self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        Ok(match self {
            Transaction::Sqlite(tx, _) => {
                bound!(sqlx::query(statement), values).execute(&mut **tx).await?.rows_affected()
            }
            Transaction::Postgres(tx) => {
                bound!(sqlx::query(statement), values).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Transaction::Sqlite(tx, _turn) => tx.commit().await?,
            Transaction::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
