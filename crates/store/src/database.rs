//! Database, either SQLite or PostgreSQL: connections, and statements by name with their rows as JSON. Only this file,
//! `database/transaction.rs` and `reader.rs` know that there are two kinds. Work that takes too long fails here, for all stores.
//! This module must not know what the statements are for.

mod transaction;

use std::{path::Path, time::Duration};

use serde::Serialize;
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};

pub(super) use self::transaction::Transaction;
use super::{
    event::Event,
    postgres::{self, Postgres},
    rows::{ContactQuery, LookupRow},
    sqlite::{self, Sqlite},
};
use crate::{
    error::{StoreError, json},
    statements::Statements,
};
use twilio_edge_domain::operational_event::EventReporting;
use twilio_edge_platform::{config, metrics::Connections};

/// Time limit of a write for which no request waits, as a multiple of the usual limit.
pub(super) const JOURNAL_PATIENCE: u32 = 10;

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
use bound;

/// Database of the stores. Each method returns within the timeout, except the journal's.
#[derive(Debug, Clone)]
pub(super) struct Database {
    engine: Engine,
    timeout: Duration,
    reporting: EventReporting,
}

/// SQLite or PostgreSQL.
#[derive(Debug, Clone)]
enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    /// Connects to the database and migrates its schema.
    pub(super) async fn open(settings: &config::Database) -> Result<Database, StoreError> {
        let engine = match settings.url.expose().starts_with("sqlite:") {
            true => Engine::Sqlite(Sqlite::open(settings).await?),
            false => Engine::Postgres(Postgres::open(settings).await?),
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        Ok(Database { engine, timeout, reporting: EventReporting::default() })
    }

    /// Connects to the database for a command, beside the sidecar that uses it. A command is not urgent: it waits for the
    /// sidecar's writes instead of failing.
    pub(super) async fn open_beside(settings: &config::Database) -> Result<Database, StoreError> {
        let timeout_ms = settings.timeout_ms.max(settings.connect_timeout_ms);
        let settings = &config::Database { timeout_ms, ..settings.clone() };
        let engine = match settings.url.expose().starts_with("sqlite:") {
            true => Engine::Sqlite(Sqlite::open_beside(settings).await?),
            false => Engine::Postgres(Postgres::open(settings).await?),
        };
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Database { engine, timeout, reporting: EventReporting::default() })
    }

    /// Sets the rules by which changes are reported to sinks. Without them nothing is reported.
    pub(super) fn reporting_to(self, reporting: EventReporting) -> Database {
        Database { reporting, ..self }
    }

    /// Returns the rules by which changes are reported to sinks.
    pub(super) fn reporting(&self) -> &EventReporting {
        &self.reporting
    }

    /// Returns `sqlite` or `postgres`.
    pub(super) fn name(&self) -> &'static str {
        self.choose("sqlite", "postgres")
    }

    /// Returns the text for this kind of database.
    pub(super) fn choose(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.engine {
            Engine::Sqlite(_) => sqlite,
            Engine::Postgres(_) => postgres,
        }
    }

    /// Returns the path of the database file; `None` for PostgreSQL.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.engine {
            Engine::Sqlite(sqlite) => Some(&sqlite.path),
            Engine::Postgres(_) => None,
        }
    }

    /// Returns whether several sidecars can use the database at once. A SQLite file has exactly one sidecar.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Returns the statements in the spelling of this database.
    pub(super) fn statements(&self) -> &'static Statements {
        match self.engine {
            Engine::Sqlite(_) => &sqlite::STATEMENTS,
            Engine::Postgres(_) => &postgres::STATEMENTS,
        }
    }

    /// Returns the upper bound on the duration of one piece of work.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs `work`, and fails when it takes longer than the timeout.
    pub(super) async fn within_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(self.timeout, work).await
    }

    /// Begins a transaction. Its caller bounds the whole transaction with [`Database::within_timeout`].
    pub(super) async fn begin(&self, durability: Durability) -> Result<Transaction, StoreError> {
        let begin = self.statements().begin;
        Ok(match (&self.engine, durability) {
            (Engine::Sqlite(sqlite), durability) => {
                let turn = sqlite.turn.clone().lock_owned().await;
                let pool = match durability {
                    Durability::Process => &sqlite.quick,
                    Durability::Power => &sqlite.durable,
                };
                let tx = pool.begin_with(begin).await?;
                Transaction::Sqlite(tx, turn, sqlite.known.clone())
            }
            (Engine::Postgres(postgres), Durability::Process) => {
                Transaction::Postgres(postgres.quick.begin_with(begin).await?)
            }
            (Engine::Postgres(postgres), Durability::Power) => {
                Transaction::Postgres(postgres.durable.begin_with(begin).await?)
            }
        })
    }

    /// Executes one statement over `rows`, in a transaction of its own.
    pub(super) async fn execute(
        &self,
        durability: Durability,
        statement: &'static str,
        rows: &[impl Serialize],
    ) -> Result<(), StoreError> {
        self.within_timeout(async {
            let mut tx = self.begin(durability).await?;
            tx.execute(statement, rows).await?;
            tx.commit().await
        })
        .await
    }

    /// Executes one statement with these values, in a transaction of its own. Returns the number of changed rows.
    pub(super) async fn execute_bound(
        &self,
        durability: Durability,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        self.within_timeout(async {
            let mut tx = self.begin(durability).await?;
            let rows = tx.execute_bound(statement, values).await?;
            tx.commit().await?;
            Ok(rows)
        })
        .await
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
        self.read_bound(statement, &[Bind::Text(&json(rows)?)]).await
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
        self.within_timeout(async {
            Ok(match &self.engine {
                Engine::Sqlite(sqlite) => {
                    bound!(sqlx::query_as(statement), values).fetch_all(&sqlite.quick).await?
                }
                Engine::Postgres(postgres) => {
                    bound!(sqlx::query_as(statement), values).fetch_all(&postgres.quick).await?
                }
            })
        })
        .await
    }

    /// Reads the leases of these webhooks and the suppressions of these contacts. Does not wait for writers, and reads nothing
    /// if it is certain that there is none.
    pub(super) async fn look_up(
        &self,
        keys: &[&str],
        contacts: &[ContactQuery<'_>],
    ) -> Result<Vec<LookupRow>, StoreError> {
        self.within_timeout(async {
            match &self.engine {
                Engine::Sqlite(sqlite) => {
                    let keys = sqlite.known.may_have(keys);
                    if keys.is_empty() && contacts.is_empty() {
                        return Ok(Vec::new());
                    }
                    sqlite::look_up(&sqlite.lookups, &keys, contacts).await
                }
                Engine::Postgres(postgres) => {
                    let mut cached = postgres.lookups.take().await?;
                    let found = postgres::look_up(cached.connection(), keys, contacts).await?;
                    postgres.lookups.put_back(cached);
                    Ok(found)
                }
            }
        })
        .await
    }

    /// Writes events, each key once. Durable on return. The journal calls it, so it has more time than a request: a write that
    /// is abandoned and repeated waits for the locks of its predecessor, and makes a slow disk slower.
    pub(super) async fn write_events(
        &self,
        events: &[Event<'_>],
        forgotten_ms: i64,
    ) -> Result<(), StoreError> {
        within(self.timeout.saturating_mul(JOURNAL_PATIENCE), async {
            match &self.engine {
                Engine::Sqlite(_) => {
                    let mut tx = self.begin(Durability::Power).await?;
                    tx.write_events(events, forgotten_ms).await?;
                    tx.commit().await
                }
                // A statement is its own transaction, in one round trip instead of three.
                Engine::Postgres(postgres) => {
                    let mut connection = postgres.journal.acquire().await?;
                    postgres::add_events(&mut connection, events, forgotten_ms).await
                }
            }
        })
        .await
    }

    /// Remembers all keys of the ledger in an exclusive database, so that claims of unknown keys need no read. A shared database
    /// has other writers, so nothing is remembered.
    pub(super) async fn remember_keys(&self) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Sqlite(sqlite) => sqlite.remember_keys().await,
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Returns the connection counts of the two pools: quick commits and durable commits.
    pub(super) fn connections(&self) -> [Connections; 2] {
        match &self.engine {
            Engine::Sqlite(Sqlite { quick, durable, lookups, .. }) => {
                let [quick, durable, lookups] = [quick, durable, lookups]
                    .map(|pool| Connections::of(pool.size(), pool.num_idle()));
                [quick.and(lookups), durable]
            }
            Engine::Postgres(Postgres { quick, durable, journal, lookups }) => {
                let idle = quick.num_idle().saturating_add(lookups.count());
                let quick = Connections::of(quick.size(), idle);
                let [durable, journal] =
                    [durable, journal].map(|pool| Connections::of(pool.size(), pool.num_idle()));
                [quick, durable.and(journal)]
            }
        }
    }

    /// Checks that the database can be read.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        const PING: &str = "SELECT 1";
        self.within_timeout(async {
            match &self.engine {
                Engine::Sqlite(sqlite) => {
                    sqlx::query(PING).execute(&sqlite.lookups).await.map(|_| ())?
                }
                Engine::Postgres(postgres) => {
                    sqlx::query(PING).execute(&postgres.quick).await.map(|_| ())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(sqlite) => {
                sqlite.quick.close().await;
                sqlite.durable.close().await;
                sqlite.lookups.close().await;
            }
            Engine::Postgres(postgres) => {
                postgres.lookups.empty();
                postgres.quick.close().await;
                postgres.durable.close().await;
                postgres.journal.close().await;
            }
        }
    }
}

/// Runs `work`, and fails when it takes longer than `timeout`.
pub(super) async fn within<T, E: From<StoreError>>(
    timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {timeout:?}")).into()),
    }
}
