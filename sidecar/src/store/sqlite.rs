//! The ledger in one SQLite file: how it is opened, and every statement. Each statement takes one JSON array of
//! rows, so that a batch is one statement whatever its size. What the rows mean is the ledger's business.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
    },
};
use tokio::sync::Mutex;

use super::sql::{Statements, StoreError};
use crate::config;

/// The two ways to write, and whose turn it is: SQLite has one writer at a time, and waiting for it in a queue
/// of ours is fair and wakes at once, where SQLite's own busy handler sleeps.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    /// A commit survives the end of the process.
    pub(super) quick: SqlitePool,
    /// A commit survives the loss of power: it is synced before it is answered.
    pub(super) durable: SqlitePool,
    pub(super) turn: Arc<Mutex<()>>,
}

impl Sqlite {
    pub(super) async fn open(settings: &config::Database) -> Result<Sqlite, StoreError> {
        let patience = Duration::from_millis(settings.connect_timeout_ms);
        let options = SqliteConnectOptions::from_str(settings.url.expose())
            .map_err(|error| StoreError::Away(error.to_string()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(patience);
        let path = options.get_filename().to_path_buf();
        if let Some(directory) = path.parent() {
            // Numbers and messages of people are in it: a folder we make is ours alone.
            let create = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            create.map_err(|error| {
                StoreError::Away(format!("cannot create {}: {error}", directory.display()))
            })?;
        }
        prepare(&options, &path).await?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let pool = |synchronous| {
            SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(timeout)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(options.clone().busy_timeout(timeout).synchronous(synchronous))
        };
        Ok(Sqlite {
            quick: pool(SqliteSynchronous::Normal),
            durable: pool(SqliteSynchronous::Full),
            turn: Arc::new(Mutex::new(())),
        })
    }
}

/// Makes the file, turns it to WAL and brings its tables up to date, one process at a time: several may start on
/// one file, SQLite has no lock that spans a run of migrations, and who finds the turn to WAL half done is told
/// at once that the file is locked, whatever the busy timeout.
async fn prepare(options: &SqliteConnectOptions, database: &Path) -> Result<(), StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".migrating");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(&path)?;
        file.lock().map(|()| file)
    });
    let lock = lock.await.map_err(std::io::Error::other).and_then(|lock| lock);
    let _lock = lock.map_err(|error| StoreError::Away(format!("cannot lock: {error}")))?;
    let mut connection = options.connect().await?;
    sqlx::migrate!("migrations/sqlite")
        .run(&mut connection)
        .await
        .map_err(|error| StoreError::Refused(format!("to be migrated: {error}")))?;
    Ok(connection.close().await?)
}

pub(super) const STATEMENTS: Statements = Statements {
    begin: "BEGIN IMMEDIATE",

    // BEGIN IMMEDIATE has the only write lock already: nothing to lock row by row.
    lock_leases: "
        SELECT dedupe_key, state, claim_id, attempt, first_seen_ms, lease_until_ms, answer, forget_at_ms
        FROM leases WHERE dedupe_key IN (SELECT value ->> 'dedupe_key' FROM json_each($1))",

    keep_leases: "
        INSERT INTO leases
            (dedupe_key, state, claim_id, attempt, first_seen_ms, lease_until_ms, answer, forget_at_ms)
        SELECT value ->> 'dedupe_key', value ->> 'state', value ->> 'claim_id', value ->> 'attempt',
            value ->> 'first_seen_ms', value ->> 'lease_until_ms', value ->> 'answer', value ->> 'forget_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (dedupe_key) DO UPDATE SET state = excluded.state, claim_id = excluded.claim_id,
            attempt = excluded.attempt, first_seen_ms = excluded.first_seen_ms,
            lease_until_ms = excluded.lease_until_ms, answer = excluded.answer,
            forget_at_ms = excluded.forget_at_ms",

    find_endings: "
        SELECT endings.dedupe_key, endings.claim_id, endings.ending, endings.forget_at_ms
        FROM json_each($1) AS asked JOIN endings
            ON endings.dedupe_key = asked.value ->> 'dedupe_key' AND endings.claim_id = asked.value ->> 'claim_id'
        WHERE endings.forget_at_ms > asked.value ->> 'now_ms'",

    keep_endings: "
        INSERT INTO endings (dedupe_key, claim_id, ending, forget_at_ms)
        SELECT value ->> 'dedupe_key', value ->> 'claim_id', value ->> 'ending', value ->> 'forget_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (dedupe_key, claim_id) DO UPDATE
            SET ending = excluded.ending, forget_at_ms = excluded.forget_at_ms",

    open_windows: "
        INSERT INTO windows (account_sid, channel, theirs, ours, last_inbound_ms)
        SELECT value ->> 'account_sid', value ->> 'channel', value ->> 'theirs', value ->> 'ours',
            value ->> 'last_inbound_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (account_sid, channel, theirs, ours) DO UPDATE
            SET last_inbound_ms = max(windows.last_inbound_ms, excluded.last_inbound_ms)
        RETURNING account_sid, channel, theirs, ours, last_inbound_ms",

    find_suppressions: "
        SELECT tenant, channel, number, suppressed, message_sid, changed_at_ms
        FROM suppressions WHERE (tenant, channel, number) IN (
            SELECT value ->> 'tenant', value ->> 'channel', value ->> 'number' FROM json_each($1))",

    lock_suppressions: "
        SELECT tenant, channel, number, suppressed, message_sid, changed_at_ms
        FROM suppressions WHERE (tenant, channel, number) IN (
            SELECT value ->> 'tenant', value ->> 'channel', value ->> 'number' FROM json_each($1))",

    keep_suppressions: "
        INSERT INTO suppressions (tenant, channel, number, suppressed, message_sid, changed_at_ms)
        SELECT value ->> 'tenant', value ->> 'channel', value ->> 'number', value ->> 'suppressed',
            value ->> 'message_sid', value ->> 'changed_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (tenant, channel, number) DO UPDATE SET suppressed = excluded.suppressed,
            message_sid = excluded.message_sid, changed_at_ms = excluded.changed_at_ms",

    record_opts: "
        INSERT INTO opt_events
            (account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms)
        SELECT value ->> 'account_sid', value ->> 'message_sid', value ->> 'channel', value ->> 'number',
            value ->> 'opt', value ->> 'cause', value ->> 'route', value ->> 'recorded_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (account_sid, message_sid) DO NOTHING
        RETURNING account_sid, message_sid",

    // In whatever order a webhook's arrival and its end are written, the row ends up the same.
    keep_events: "
        INSERT INTO events (dedupe_key, class, account_sid, message_sid, status, error_code, route, form,
            received_at_ms, attempts, outcome, settled_at_ms)
        SELECT value ->> 'dedupe_key', value ->> 'class', value ->> 'account_sid', value ->> 'message_sid',
            value ->> 'status', value ->> 'error_code', value ->> 'route', value ->> 'form',
            value ->> 'received_at_ms', value ->> 'attempts', value ->> 'outcome', value ->> 'settled_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (dedupe_key) DO UPDATE SET
            route = coalesce(events.route, excluded.route),
            form = coalesce(events.form, excluded.form),
            received_at_ms = coalesce(min(events.received_at_ms, excluded.received_at_ms),
                events.received_at_ms, excluded.received_at_ms),
            attempts = max(events.attempts, excluded.attempts),
            outcome = CASE WHEN events.outcome = 'accepted' THEN events.outcome
                ELSE coalesce(excluded.outcome, events.outcome) END,
            settled_at_ms = CASE WHEN events.outcome = 'accepted' THEN events.settled_at_ms
                ELSE coalesce(excluded.settled_at_ms, events.settled_at_ms) END",

    forget: &[
        "DELETE FROM leases WHERE dedupe_key IN
            (SELECT dedupe_key FROM leases WHERE forget_at_ms <= $1 LIMIT 1000)",
        "DELETE FROM endings WHERE (dedupe_key, claim_id) IN
            (SELECT dedupe_key, claim_id FROM endings WHERE forget_at_ms <= $1 LIMIT 1000)",
    ],
};
