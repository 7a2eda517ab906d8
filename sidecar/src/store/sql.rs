//! One database, whichever it is: a transaction, and a statement by name with its rows as JSON. The only file that
//! knows there are two kinds; it knows nothing of what the statements are for.

use std::fmt;

use serde::Serialize;
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};
use tokio::sync::OwnedMutexGuard;

use super::{postgres, postgres::Postgres, sqlite, sqlite::Sqlite};
use crate::config;

/// Every statement of the ledger, as each database spells it. All take one JSON array of rows, except `forget`,
/// which takes the time.
pub(super) struct Statements {
    pub(super) begin: &'static str,
    pub(super) lock_leases: &'static str,
    pub(super) keep_leases: &'static str,
    pub(super) find_endings: &'static str,
    pub(super) keep_endings: &'static str,
    pub(super) open_windows: &'static str,
    pub(super) find_suppressions: &'static str,
    pub(super) lock_suppressions: &'static str,
    pub(super) keep_suppressions: &'static str,
    pub(super) record_opts: &'static str,
    pub(super) keep_events: &'static str,
    pub(super) forget: &'static [&'static str],
}

/// What a commit has to survive before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The end of our process.
    Process,
    /// The loss of power.
    Power,
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// It could not be reached, or did not answer in time: ask again.
    Away(String),
    /// It understood and refused; asking again changes nothing.
    Refused(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Away(reason) => write!(f, "cannot be reached: {reason}"),
            StoreError::Refused(reason) => write!(f, "refuses: {reason}"),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        // SQLSTATE class 22 is bad data, 23 a broken constraint; SQLite says 19 and 20 for these.
        let refused =
            error.as_database_error().and_then(|error| error.code()).is_some_and(|code| match code
                .len()
            {
                5 => code.starts_with("22") || code.starts_with("23"),
                _ => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 19 | 20)),
            });
        match refused {
            true => StoreError::Refused(error.to_string()),
            false => StoreError::Away(error.to_string()),
        }
    }
}

/// SQLite or PostgreSQL.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    /// Reaches the database and brings its tables up to date.
    pub(super) async fn open(settings: &config::Database) -> Result<Database, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => Sqlite::open(settings).await.map(Database::Sqlite),
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

    /// Answers when the database can be read.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        const PING: &str = "SELECT 1";
        match self {
            Database::Sqlite(sqlite) => {
                sqlx::query(PING).execute(&sqlite.quick).await.map(|_| ())?
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
            }
            Database::Postgres(postgres) => {
                postgres.quick.close().await;
                postgres.durable.close().await;
            }
        }
    }
}

/// A transaction under way; rolled back when dropped. SQLite's also holds its turn as the writer.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>, OwnedMutexGuard<()>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Transaction {
    /// Runs a statement over `rows` and returns what it found. Does nothing when there are none.
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

    /// Runs a statement over `rows`. Does nothing when there are none.
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

    /// Runs a statement that takes only the time; how many rows it changed.
    pub(super) async fn execute_at(
        &mut self,
        statement: &'static str,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        Ok(match self {
            Transaction::Sqlite(tx, _) => {
                sqlx::query(statement).bind(now_ms).execute(&mut **tx).await?.rows_affected()
            }
            Transaction::Postgres(tx) => {
                sqlx::query(statement).bind(now_ms).execute(&mut **tx).await?.rows_affected()
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

fn json(rows: &[impl Serialize]) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Refused(error.to_string()))
}
