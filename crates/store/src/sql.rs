//! One database, whichever it is: a transaction, and a statement by name with its rows as JSON. With `reader.rs` the only
//! file that knows there are two kinds; it knows nothing of what the statements are for.

use std::fmt;

use serde::Serialize;
use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};
use tokio::sync::OwnedMutexGuard;

use super::{
    event::Event, idempotency::IdempotencyStatements, ledger::WantedPerson, postgres,
    postgres::Postgres, retention::RetentionStatements, rows::KnownRow, sqlite, sqlite::Sqlite,
};
use twilio_edge_platform::{config, metrics::Connections};

/// Every statement of the ledger off the main path, as each database spells it. All take one JSON array of rows. The two of the main path, [`Database::look_up`] and [`Database::keep_events`], bind
/// their values one by one, because there JSON would cost more than the database.
pub(super) struct Statements {
    pub(super) begin: &'static str,
    pub(super) lock_keys: &'static str,
    pub(super) histories: &'static str,
    pub(super) find_endings: &'static str,
    pub(super) keep_endings: &'static str,
    pub(super) last_inbound: &'static str,
    pub(super) record_opts: &'static str,
    pub(super) register: RegisterStatements,
    pub(super) retention: RetentionStatements,
    pub(super) suppressions: SuppressionStatements,
    pub(super) siblings: SiblingStatements,
    pub(super) tenants: TenantStatements,
    pub(super) consents: ConsentStatements,
    pub(super) idempotency: IdempotencyStatements,
    pub(super) outbox: OutboxStatements,
}

/// The statements of the register of API keys and of the audit. Each takes one JSON array of rows too.
pub(super) struct RegisterStatements {
    pub(super) add_key: &'static str,
    pub(super) find_key: &'static str,
    pub(super) find_scope: &'static str,
    pub(super) list_keys: &'static str,
    pub(super) revoke_key: &'static str,
    pub(super) touch_key: &'static str,
    pub(super) add_entry: &'static str,
    pub(super) list_entries: &'static str,
}

/// The statements of suppressions. Each takes one JSON array of rows too.
pub(super) struct SuppressionStatements {
    pub(super) lock: &'static str,
    pub(super) keep: &'static str,
    pub(super) of_people: &'static str,
    pub(super) list: &'static str,
    pub(super) list_of_source: &'static str,
}

/// The statements about the sidecars themselves. Each takes one JSON array of rows too.
pub(super) struct SiblingStatements {
    pub(super) beat: &'static str,
    pub(super) part: &'static str,
    pub(super) leave: &'static str,
    pub(super) look: &'static str,
}

/// The statements about accounts. Each takes one JSON array of rows too.
pub(super) struct TenantStatements {
    pub(super) changes: &'static str,
    pub(super) list: &'static str,
    pub(super) keep: &'static str,
}

/// The statements of consents. Each takes one JSON array of rows too.
pub(super) struct ConsentStatements {
    pub(super) record: &'static str,
    pub(super) of_people: &'static str,
    pub(super) list: &'static str,
    pub(super) last_inbound: &'static str,
}
/// The statements of what sinks are owed. Each takes one JSON array of rows too.
pub(super) struct OutboxStatements {
    /// Adds deliveries that are not there yet.
    pub(super) owe: &'static str,
    /// Makes sure that their lanes are there, and keeps those from being dropped meanwhile.
    pub(super) open_lanes: &'static str,
    pub(super) take: &'static str,
    pub(super) due: &'static str,
    pub(super) end: &'static str,
    pub(super) lock_lanes: &'static str,
    pub(super) drop_lanes: &'static str,
    pub(super) free_lanes: &'static str,
    pub(super) dead: &'static str,
    pub(super) letter: &'static str,
    pub(super) oldest_dead: &'static str,
    pub(super) bring_back: &'static str,
    pub(super) discard: &'static str,
    /// Ends what is owed of events, whatever it waits for.
    pub(super) withdraw: &'static str,
    pub(super) standing: &'static str,
}

/// The columns of a delivery that is due, and of its event.
macro_rules! due_columns {
    () => {
        "d.seq, d.delivery_id, d.dedupe_key, d.replay_id, d.lane, d.recorded_at_ms, d.tries, \
         coalesce(e.class, '') AS class, d.account_sid, coalesce(e.message_sid, '') AS message_sid, e.status, \
         e.error_code, e.route, e.form, e.received_at_ms"
    };
}
pub(super) use due_columns;

/// The columns of `events`, in the order both databases bind them.
macro_rules! event_columns {
    () => {
        "dedupe_key, class, account_sid, message_sid, status, error_code, route, form, channel, theirs, ours, \
         received_at_ms, attempts, claim_id, held_until_ms, outcome, settled_at_ms, answer, envelope"
    };
}
pub(super) use event_columns;

/// The columns of `suppressions`, all of them.
macro_rules! suppression_columns {
    () => {
        "tenant, number, channel, source, error_code, suppressed, since_ms, changed_at_ms, message_sid, route, heard_on, \
         sender, service_sid, changed_by"
    };
}
pub(super) use suppression_columns;

/// The columns of `consents`, all of them.
macro_rules! consent_columns {
    () => {
        "id, tenant, number, channel, category, state, at_ms, source, proof, ip, user_agent, recorded_at_ms, recorded_by"
    };
}
pub(super) use consent_columns;

/// What an upsert of a suppression changes.
macro_rules! suppression_upsert {
    () => {
        "ON CONFLICT (tenant, number, channel, source, error_code) DO UPDATE SET suppressed = excluded.suppressed, \
         since_ms = excluded.since_ms, changed_at_ms = excluded.changed_at_ms, message_sid = excluded.message_sid, \
         route = excluded.route, heard_on = excluded.heard_on, sender = excluded.sender, \
         service_sid = excluded.service_sid, changed_by = excluded.changed_by"
    };
}
pub(super) use suppression_upsert;

/// The columns of `events` that tell what became of a message.
macro_rules! heard_columns {
    () => {
        "dedupe_key, class, account_sid, message_sid, status, error_code, route, form, channel, theirs, ours, \
         coalesce(received_at_ms, settled_at_ms, 0) AS heard_ms, attempts, outcome, settled_at_ms, redacted_at_ms"
    };
}
pub(super) use heard_columns;

/// In whatever order a webhook's arrivals and ends are written, the row ends up the same. `excluded` wins the hold if the
/// backend took the webhook, if it was handed out more often than `kept` knows, if it ends the very hold `kept` has, or if
/// two claims got the same attempt, one of them by a store that could not reach the other's: that one looks again.
/// What is forgotten (nothing happened since `$forgotten`) begins anew. Written for both databases, which call the
/// smaller and the greater of two by different names.
macro_rules! merge {
    (@wins) => {
        "coalesce(kept.outcome, '') <> 'accepted' AND (excluded.outcome = 'accepted' \
         OR excluded.attempts > kept.attempts OR (excluded.attempts = kept.attempts \
         AND excluded.claim_id = kept.claim_id AND excluded.outcome IS NOT NULL) \
         OR (excluded.attempts = kept.attempts AND excluded.claim_id <> kept.claim_id \
         AND excluded.held_until_ms IS NOT NULL AND kept.held_until_ms IS NOT NULL))"
    };
    (@forgotten $forgotten:literal) => {
        concat!(
            "coalesce(kept.held_until_ms, kept.settled_at_ms, kept.received_at_ms, 0) <= ",
            $forgotten
        )
    };
    (@settled $column:literal, $forgotten:literal) => {
        concat!(
            $column, " = CASE WHEN ", merge!(@forgotten $forgotten), " THEN excluded.", $column,
            " WHEN ", merge!(@wins), " THEN coalesce(excluded.", $column, ", kept.", $column,
            ") ELSE coalesce(kept.", $column, ", excluded.", $column, ") END"
        )
    };
    (@held $column:literal, $forgotten:literal, $otherwise:literal) => {
        concat!(
            $column, " = CASE WHEN ", merge!(@forgotten $forgotten), " OR (", merge!(@wins),
            ") THEN excluded.", $column, " ELSE ", $otherwise, " END"
        )
    };
    ($least:literal, $greatest:literal, $forgotten:literal) => {
        concat!(
            " ON CONFLICT (dedupe_key) DO UPDATE SET route = coalesce(kept.route, excluded.route), \
             form = coalesce(kept.form, excluded.form), envelope = coalesce(kept.envelope, excluded.envelope), channel = coalesce(kept.channel, excluded.channel), \
             theirs = CASE WHEN kept.redacted IS NULL THEN coalesce(kept.theirs, excluded.theirs) ELSE kept.theirs END, ours = coalesce(kept.ours, excluded.ours), \
             received_at_ms = coalesce(", $least, "(kept.received_at_ms, excluded.received_at_ms), \
             kept.received_at_ms, excluded.received_at_ms), attempts = CASE WHEN ",
            merge!(@forgotten $forgotten), " THEN excluded.attempts ELSE ", $greatest,
            "(kept.attempts, excluded.attempts) END, ",
            merge!(@held "claim_id", $forgotten, "kept.claim_id"), ", ",
            merge!(@held "answer", $forgotten, "kept.answer"), ", ",
            merge!(@held "held_until_ms", $forgotten,
                "CASE WHEN excluded.claim_id = kept.claim_id AND excluded.attempts = kept.attempts \
                 AND excluded.held_until_ms > kept.held_until_ms THEN excluded.held_until_ms \
                 ELSE kept.held_until_ms END"), ", ",
            merge!(@settled "outcome", $forgotten), ", ",
            merge!(@settled "settled_at_ms", $forgotten)
        )
    };
}
pub(super) use merge;

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

/// A value of a statement, in its place.
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
    /// Reaches the database and brings its tables up to date.
    pub(super) async fn open(settings: &config::Database) -> Result<Database, StoreError> {
        match settings.url.expose().starts_with("sqlite:") {
            true => Sqlite::open(settings).await.map(Database::Sqlite),
            false => Postgres::open(settings).await.map(Database::Postgres),
        }
    }

    /// Reaches the database for a short while, beside whoever serves from it.
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

    /// Runs a statement over `rows` that changes nothing, and returns what it found. Waits for no writer.
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

    /// Runs a statement with these values that changes nothing, and returns what it found. Waits for no writer.
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

    /// What is known of these webhooks, and who of these people is suppressed. Reads only, and waits for no writer.
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

    /// Writes events, each key once. Durable when it returns.
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

    /// How many connections there are: for quick commits, and for durable ones.
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

    /// Answers when the database can be read.
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

    /// As [`Database::look_up`], within this transaction.
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

    /// As [`Database::keep_events`], within this transaction.
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

    /// Runs a statement with these values and returns what it found.
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

    /// Runs a statement with these values; how many rows it changed.
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

pub(super) fn json(rows: &[impl Serialize]) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Refused(error.to_string()))
}
