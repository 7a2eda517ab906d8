//! The ledger in one SQLite file: how it is opened, the lock against a second sidecar, and every statement. This module
//! must not know what the rows mean.

mod lookups;

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
    },
};
use tokio::{sync::Mutex, time::Instant};

pub(super) use self::lookups::look_up;
use super::{event::Event, known_keys::KnownKeys};
use crate::{
    columns::{
        consent_columns, due_columns, event_columns, merge, suppression_columns,
        suppression_upsert, webhook_columns,
    },
    error::StoreError,
    statements::{
        ApiKeyStatements, AuditStatements, ConsentStatements, IdempotencyStatements,
        OutboxStatements, PeerStatements, RetentionStatements, SessionStatements, Statements,
        SuppressionStatements, TenantStatements,
    },
};
use twilio_edge_platform::config;

/// Delay before another attempt to lock a file that another process has locked.
const RETRY: Duration = Duration::from_millis(20);

/// Maximum number of rows of one INSERT. Each number of rows is a prepared statement of its own.
const ROWS: usize = 64;

/// Page cache of each connection: the inner pages of the indexes and the leaves of a batch, 16 MiB. Negative: in KiB.
const CACHE_KIB: &str = "-16384";

/// Pages of the log after which a commit copies them to the file, 32 MiB. Rows of random keys change the same index pages again and
/// again, and each checkpoint copies a page once.
const CHECKPOINT_PAGES: &str = "8000";

/// Connections of the two kinds of writes, and the writer lock. SQLite has one writer at a time. Our own queue for it is
/// fair and wakes immediately, whereas SQLite's busy handler sleeps.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    /// Path of the database file.
    pub(super) path: PathBuf,
    /// A commit survives the end of the process.
    pub(super) quick: SqlitePool,
    /// A commit survives a power loss: it is synced before it is confirmed.
    pub(super) durable: SqlitePool,
    /// Connections for reads, which do not wait for writers.
    pub(super) lookups: SqlitePool,
    pub(super) turn: Arc<Mutex<()>>,
    /// Keys of the ledger; incomplete until [`Sqlite::remember_keys`] has ended.
    pub(super) known: Arc<KnownKeys>,
    /// Lock held for the lifetime of this value: leases are in the memory of one sidecar, so a second one must not run.
    _only: Option<Arc<File>>,
}

impl Sqlite {
    pub(super) async fn open(settings: &config::Database) -> Result<Sqlite, StoreError> {
        let patience = Duration::from_millis(settings.connect_timeout_ms);
        let (options, path) = locate(settings)?;
        let only = lock_exclusively(&path, Instant::now() + patience).await?;
        prepare(&options).await?;
        Ok(Sqlite::of(&options, settings, Some(only)))
    }

    /// Opens the file for a command beside the sidecar that uses it; a command does not need the sidecar's memory. If no
    /// sidecar has the file, the command migrates its schema.
    pub(super) async fn open_beside(settings: &config::Database) -> Result<Sqlite, StoreError> {
        let (options, path) = locate(settings)?;
        let file = lock_file(&path)?;
        let only = match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => return Err(cannot_lock(&error)),
        };
        if only.is_some() {
            prepare(&options).await?;
        }
        Ok(Sqlite::of(&options, settings, only))
    }

    fn of(
        options: &SqliteConnectOptions,
        settings: &config::Database,
        only: Option<File>,
    ) -> Sqlite {
        let timeout = Duration::from_millis(settings.timeout_ms);
        let pool = |synchronous| {
            SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(timeout)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(
                    options
                        .clone()
                        .busy_timeout(timeout)
                        .statement_cache_capacity(ROWS * 2)
                        .pragma("cache_size", CACHE_KIB)
                        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                        .synchronous(synchronous),
                )
        };
        Sqlite {
            path: options.get_filename().to_path_buf(),
            quick: pool(SqliteSynchronous::Normal),
            durable: pool(SqliteSynchronous::Full),
            lookups: pool(SqliteSynchronous::Normal),
            turn: Arc::new(Mutex::new(())),
            known: Arc::new(KnownKeys::new()),
            _only: only.map(Arc::new),
        }
    }
}

/// Opens the file read-only beside the sidecar that uses it: nothing is created, locked or changed.
pub(super) fn open_to_read(settings: &config::Database) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::from_str(settings.url.expose())
        .map_err(|error| StoreError::Unavailable(error.to_string()))?
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(Duration::from_millis(settings.connect_timeout_ms));
    if !options.get_filename().exists() {
        return Err(StoreError::Unavailable(
            "there is no such file; start a sidecar on it first, or run `twilio-edge migrate`"
                .into(),
        ));
    }
    Ok(SqlitePoolOptions::new()
        .max_connections(settings.readers)
        .acquire_timeout(Duration::from_millis(settings.read_timeout_ms))
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Returns the connection options and the path of the file, after its directory was created.
fn locate(settings: &config::Database) -> Result<(SqliteConnectOptions, PathBuf), StoreError> {
    let options = SqliteConnectOptions::from_str(settings.url.expose())
        .map_err(|error| StoreError::Unavailable(error.to_string()))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_millis(settings.connect_timeout_ms));
    let path = options.get_filename().to_path_buf();
    if let Some(directory) = path.parent() {
        // The file contains phone numbers and messages, so only this user may access a folder that we create.
        let create = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        create.map_err(|error| {
            StoreError::Unavailable(format!("cannot create {}: {error}", directory.display()))
        })?;
    }
    // Repairs the permissions of files from an earlier release or a copy.
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        twilio_edge_platform::file_access::repair(Path::new(&file));
    }
    Ok((options, path))
}

fn lock_file(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    File::create(&path)
        .map_err(|error| StoreError::Unavailable(format!("cannot create its lock: {error}")))
}

fn cannot_lock(error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot lock it: {error}"))
}

/// Locks the file beside the database, which its one sidecar holds; the kernel releases the lock when that process ends in
/// any way. Waits for a sidecar that is about to end.
async fn lock_exclusively(database: &Path, deadline: Instant) -> Result<File, StoreError> {
    let file = lock_file(database)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() + RETRY < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            Err(TryLockError::WouldBlock) => {
                let reason = "another sidecar has it open; stop that one, or use PostgreSQL";
                return Err(StoreError::Unavailable(reason.into()));
            }
            Err(TryLockError::Error(error)) => return Err(cannot_lock(&error)),
        }
    }
}

/// Creates the file, switches it to WAL and migrates its schema.
async fn prepare(options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let mut connection = options.connect().await?;
    sqlx::migrate!("migrations/sqlite")
        .set_ignore_missing(true) // tables of a newer version serve this one: docs/adr/0025-deployment.md
        .run(&mut connection)
        .await
        .map_err(|error| StoreError::Refused(format!("its tables cannot be migrated: {error}")))?;
    Ok(connection.close().await?)
}

/// The INSERT statements of one row, of two rows, ..: created once, so that each is prepared once.
static WRITE_EVENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    const COLUMNS: usize = 19;
    // Parameters without a name, because SQLite searches the names for each of them.
    let row = format!("({})", vec!["?"; COLUMNS].join(","));
    let insert = |rows: usize| {
        let forgotten = format!("?{}", rows * COLUMNS + 1);
        [
            concat!("INSERT INTO events AS stored (", event_columns!(), ") VALUES "),
            &vec![row.as_str(); rows].join(","),
            &merge!("min", "max", "?forgotten").replace("?forgotten", &forgotten),
        ]
        .concat()
    };
    (1..=ROWS).map(insert).collect()
});

/// Writes events, in the order of their arrival: a live stream shows the rows of a transaction in the order of their numbers.
pub(super) async fn write_events(
    connection: &mut SqliteConnection,
    events: &[Event<'_>],
    forgotten_ms: i64,
) -> Result<(), StoreError> {
    let mut events: Vec<&Event<'_>> = events.iter().collect();
    events.sort_by_key(|event| (event.received_at_ms, event.dedupe_key));
    for events in events.chunks(ROWS) {
        let Some(statement) = WRITE_EVENTS.get(events.len() - 1) else { continue };
        let mut query = sqlx::query(statement.as_str());
        for event in events {
            query = query
                .bind(event.dedupe_key)
                .bind(event.class)
                .bind(event.account_sid)
                .bind(event.message_sid)
                .bind(event.status)
                .bind(event.error_code)
                .bind(event.route)
                .bind(event.form)
                .bind(event.channel)
                .bind(event.theirs)
                .bind(event.ours)
                .bind(event.received_at_ms)
                .bind(event.attempts)
                .bind(event.claim_id)
                .bind(event.held_until_ms)
                .bind(event.outcome)
                .bind(event.settled_at_ms)
                .bind(event.answer)
                .bind(event.envelope);
        }
        query.bind(forgotten_ms).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Suppressions of contacts, on any channel.
macro_rules! suppressions_of {
    () => {
        " FROM json_each($1) AS input CROSS JOIN suppressions \
            ON tenant = input.value ->> 'tenant' AND number = input.value ->> 'number'"
    };
}

/// Page of an account's suppressions from a position on. The request is one row and is not joined, so the order is that of
/// the index, and rows after the page are not read.
macro_rules! suppressions_after {
    ($source:literal, $indexed:literal) => {
        concat!(
            "SELECT ",
            suppression_columns!(),
            " FROM suppressions ",
            $indexed,
            " WHERE tenant = $1 ->> '$[0].tenant' ",
            $source,
            "AND (number, channel, error_code, source) > ($1 ->> '$[0].number', $1 ->> '$[0].channel', \
                $1 ->> '$[0].error_code', $1 ->> '$[0].after_source') \
            AND ($1 ->> '$[0].ended' \
                OR (suppressed AND coalesce(expires_at_ms > $1 ->> '$[0].now_ms', true))) \
            AND ($1 ->> '$[0].on_channels' IS NULL \
                OR channel IN (SELECT value FROM json_each($1, '$[0].on_channels'))) \
            ORDER BY number, channel, error_code, source LIMIT $1 ->> '$[0].most'"
        )
    };
}

pub(super) const STATEMENTS: Statements = Statements {
    begin: "BEGIN IMMEDIATE",

    // BEGIN IMMEDIATE already holds the only write lock, so no key needs a lock.
    lock_keys: "SELECT 1 FROM json_each($1) LIMIT 0",

    // Compared one by one: the index covers only rows with an address, and SQLite does not derive that from a list.
    last_inbound: "
        SELECT account_sid, channel, theirs, ours, max(received_at_ms) AS last_inbound_ms
        FROM json_each($1) AS input JOIN events ON class = 'inbound'
            AND theirs = input.value ->> 'theirs' AND ours = input.value ->> 'ours'
            AND account_sid = input.value ->> 'account_sid' AND channel = input.value ->> 'channel'
        GROUP BY account_sid, channel, theirs, ours",

    following_inbound: "
        SELECT input.value ->> 'dedupe_key' AS dedupe_key FROM json_each($1) AS input WHERE EXISTS (
            SELECT 1 FROM events AS earlier WHERE earlier.class = 'inbound'
                AND earlier.theirs = input.value ->> 'theirs' AND earlier.ours = input.value ->> 'ours'
                AND earlier.account_sid = input.value ->> 'account_sid' AND earlier.channel = input.value ->> 'channel'
                AND earlier.received_at_ms > input.value ->> 'since_ms'
                AND (earlier.received_at_ms, earlier.dedupe_key)
                    < (input.value ->> 'received_at_ms', input.value ->> 'dedupe_key'))",

    histories: concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM json_each($1) AS input \
            JOIN events ON dedupe_key BETWEEN input.value ->> 'first' AND input.value ->> 'last'"
    ),

    // Writers follow each other, so every number below the last one is committed.
    end_of_recording: "
        SELECT 1 + max(coalesce((SELECT max(commit_position) FROM events), 0),
            coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0))",

    find_claim_ends: "
        SELECT claim_ends.dedupe_key, claim_ends.claim_id, claim_ends.ending, claim_ends.expires_at_ms
        FROM json_each($1) AS input JOIN claim_ends
            ON claim_ends.dedupe_key = input.value ->> 'dedupe_key' AND claim_ends.claim_id = input.value ->> 'claim_id'
        WHERE claim_ends.expires_at_ms > input.value ->> 'now_ms'",

    keep_claim_ends: "
        INSERT INTO claim_ends (dedupe_key, claim_id, ending, expires_at_ms)
        SELECT value ->> 'dedupe_key', value ->> 'claim_id', value ->> 'ending', value ->> 'expires_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (dedupe_key, claim_id) DO UPDATE
            SET ending = excluded.ending, expires_at_ms = excluded.expires_at_ms",

    inbound_media: "
        INSERT INTO inbound_media (id, account_sid, message_sid, media_sid, position, channel, contact, content_type,
            received_at_ms, state, code, attempts, ended_at_ms, twilio_state, twilio_attempts, deleted_by, is_open, due_at_ms, held_by)
        SELECT value ->> 'id', value ->> 'account_sid', value ->> 'message_sid', value ->> 'media_sid', value ->> 'position',
            value ->> 'channel', value ->> 'contact', value ->> 'content_type', value ->> 'received_at_ms',
            'pending', '', 0, 0, 'kept', 0, '', 1, value ->> 'due_at_ms', ''
        FROM json_each($1) WHERE true
        ON CONFLICT (id) DO NOTHING",

    record_opts: "
        INSERT INTO opt_events
            (account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms)
        SELECT value ->> 'account_sid', value ->> 'message_sid', value ->> 'channel', value ->> 'number',
            value ->> 'opt', value ->> 'cause', value ->> 'route', value ->> 'recorded_at_ms'
        FROM json_each($1) WHERE true
        ON CONFLICT (account_sid, message_sid) DO NOTHING
        RETURNING account_sid, message_sid",

    retention: RetentionStatements {
        begin_progress: "
            INSERT INTO retention (account_sid, part, through_ms, through_key)
            SELECT value ->> 'account_sid', value ->> 'part', value ->> 'through_ms', value ->> 'through_key'
            FROM json_each($1) WHERE true
            ON CONFLICT (account_sid, part) DO NOTHING",

        // The transaction already holds the only write lock.
        lock_progress: "
            SELECT part, through_ms, through_key FROM retention WHERE (account_sid, part) IN (
                SELECT value ->> 'account_sid', value ->> 'part' FROM json_each($1))",

        keep_progress: "
            UPDATE retention SET through_ms = input.value ->> 'through_ms',
                through_key = input.value ->> 'through_key'
            FROM json_each($1) AS input
            WHERE account_sid = input.value ->> 'account_sid' AND part = input.value ->> 'part'",

        rewind: "
            UPDATE retention SET through_ms = (input.value ->> 'at_ms') - 1, through_key = ''
            FROM json_each($1) AS input
            WHERE account_sid = input.value ->> 'account_sid' AND through_ms >= input.value ->> 'at_ms'",

        redact_events: "
            UPDATE events SET form = coalesce(input.value ->> 'form', form),
                answer = CASE WHEN input.value ->> 'no_answer' THEN NULL ELSE answer END,
                theirs = CASE WHEN input.value ->> 'no_address' THEN NULL ELSE theirs END,
                redacted = input.value ->> 'redacted', redacted_at_ms = input.value ->> 'now_ms'
            FROM json_each($1) AS input WHERE dedupe_key = input.value ->> 'dedupe_key'",

        delete_events: "
            DELETE FROM events WHERE dedupe_key IN (SELECT value ->> 'dedupe_key' FROM json_each($1))",

        unqueue: "
            DELETE FROM archive_queue WHERE dedupe_key IN (SELECT value ->> 'dedupe_key' FROM json_each($1))",
    },

    outbox: OutboxStatements {
        insert_events: "
            INSERT INTO operational_events
                (event_id, event_type, account_sid, channel, contact, subject, data, recorded_at_ms)
            SELECT value ->> 'event_id', value ->> 'event_type', value ->> 'account_sid', value ->> 'channel',
                value ->> 'contact', value ->> 'subject', value ->> 'data', value ->> 'recorded_at_ms'
            FROM json_each($1) WHERE true
            ON CONFLICT (event_id) DO NOTHING",

        insert: "
            INSERT INTO deliveries
                (sink, delivery_id, dedupe_key, replay_id, account_sid, lane, recorded_at_ms, facts)
            SELECT value ->> 'sink', value ->> 'delivery_id', value ->> 'dedupe_key', value ->> 'replay_id',
                value ->> 'account_sid', value ->> 'lane', value ->> 'recorded_at_ms', value ->> 'facts'
            FROM json_each($1) WHERE true ORDER BY key
            ON CONFLICT (sink, delivery_id) DO NOTHING",

        open_lanes: "
            INSERT INTO lanes (sink, lane, due_at_ms)
            SELECT value ->> 'sink', value ->> 'lane', value ->> 'recorded_at_ms' FROM json_each($1) WHERE true
            ON CONFLICT (sink, lane) DO NOTHING",

        // A LIMIT cannot refer to rows of its own query, so all values are read from the parameter.
        take: "
            UPDATE lanes SET held_by = $1 ->> '$[0].held_by', due_at_ms = $1 ->> '$[0].until_ms'
            WHERE sink = $1 ->> '$[0].sink' AND lane IN (
                SELECT lane FROM lanes WHERE sink = $1 ->> '$[0].sink' AND due_at_ms <= $1 ->> '$[0].now_ms'
                ORDER BY due_at_ms LIMIT $1 ->> '$[0].most')
            RETURNING lane",

        due: concat!(
            "SELECT ", due_columns!(), " FROM json_each($1) AS input \
                JOIN deliveries AS d ON d.sink = input.value ->> 'sink' AND d.lane = input.value ->> 'lane' \
                    AND d.state = 'waiting' AND d.seq IN (SELECT seq FROM deliveries AS w \
                        WHERE w.sink = input.value ->> 'sink' AND w.lane = input.value ->> 'lane' \
                            AND w.state = 'waiting' ORDER BY seq LIMIT $1 ->> '$[0].each') \
                LEFT JOIN events AS e ON e.dedupe_key = d.dedupe_key \
                LEFT JOIN operational_events AS o ON o.event_id = d.dedupe_key ORDER BY d.lane, d.seq"
        ),

        end: "
            UPDATE deliveries SET state = r.value ->> 'state', tries = r.value ->> 'tries',
                reason = r.value ->> 'reason', attempts = r.value ->> 'attempts',
                ended_at_ms = r.value ->> 'ended_at_ms',
                lane = CASE WHEN r.value ->> 'state' = 'done' THEN '' ELSE lane END
            FROM json_each($1) AS r
            WHERE sink = r.value ->> 'sink' AND delivery_id = r.value ->> 'delivery_id' AND state = 'waiting'
            RETURNING state, delivery_id, dedupe_key, account_sid, recorded_at_ms, tries, reason",

        // The transaction is the only writer: nothing to lock.
        lock_lanes: "SELECT '' AS lane FROM json_each($1) LIMIT 0",

        drop_lanes: "
            DELETE FROM lanes WHERE (sink, lane, held_by) IN (
                SELECT value ->> 'sink', value ->> 'lane', value ->> 'held_by' FROM json_each($1))
            AND NOT EXISTS (SELECT 1 FROM deliveries
                WHERE deliveries.sink = lanes.sink AND deliveries.lane = lanes.lane AND state = 'waiting')",

        free_lanes: "
            UPDATE lanes SET held_by = NULL, due_at_ms = r.value ->> 'due_at_ms' FROM json_each($1) AS r
            WHERE sink = r.value ->> 'sink' AND lane = r.value ->> 'lane' AND held_by = r.value ->> 'held_by'",

        dead: "
            SELECT seq, sink, delivery_id, dedupe_key, account_sid, lane, recorded_at_ms, tries, reason, ended_at_ms
            FROM deliveries
            WHERE state = 'dead' AND (ended_at_ms, seq) < ($1 ->> '$[0].before_ms', $1 ->> '$[0].before_seq')
                AND account_sid = coalesce($1 ->> '$[0].account_sid', account_sid)
                AND sink = coalesce($1 ->> '$[0].sink', sink)
            ORDER BY ended_at_ms DESC, seq DESC LIMIT $1 ->> '$[0].most'",

        letter: concat!(
            "SELECT d.state, d.sink, d.reason, d.ended_at_ms, ", due_columns!(), " FROM json_each($1) AS input \
                JOIN deliveries AS d ON d.seq = input.value ->> 'seq' \
                    AND (input.value ->> 'account_sid' IS NULL OR d.account_sid = input.value ->> 'account_sid') \
                LEFT JOIN events AS e ON e.dedupe_key = d.dedupe_key \
                LEFT JOIN operational_events AS o ON o.event_id = d.dedupe_key"
        ),

        of_event: "
            SELECT d.seq, d.sink, d.delivery_id, d.dedupe_key, d.account_sid, d.state, d.recorded_at_ms, d.tries,
                d.reason, d.attempts, d.ended_at_ms
            FROM json_each($1) AS input JOIN deliveries AS d ON d.dedupe_key = input.value ->> 'dedupe_key'
            WHERE input.value ->> 'account_sid' IS NULL OR d.account_sid = input.value ->> 'account_sid'
            ORDER BY d.seq",

        oldest_dead: "
            SELECT value ->> 'sink' AS sink, (SELECT min(ended_at_ms) FROM deliveries
                WHERE state = 'dead' AND sink = input.value ->> 'sink') AS ended_at_ms
            FROM json_each($1) AS input",

        backlog: "
            SELECT input.value ->> 'sink' AS sink,
                (SELECT count(*) FROM (SELECT 1 FROM deliveries
                    WHERE state = 'waiting' AND sink = input.value ->> 'sink' LIMIT 1000)) AS waiting,
                (SELECT min(first_ms) FROM (SELECT (SELECT recorded_at_ms FROM deliveries
                        WHERE state = 'waiting' AND deliveries.sink = lanes.sink AND deliveries.lane = lanes.lane
                        ORDER BY seq LIMIT 1) AS first_ms
                    FROM lanes WHERE lanes.sink = input.value ->> 'sink' ORDER BY due_at_ms LIMIT 1000)) AS oldest_waiting_ms,
                (SELECT count(*) FROM (SELECT 1 FROM deliveries
                    WHERE state = 'dead' AND sink = input.value ->> 'sink' LIMIT 1000)) AS dead,
                (SELECT min(ended_at_ms) FROM deliveries
                    WHERE state = 'dead' AND sink = input.value ->> 'sink') AS oldest_dead_ms
            FROM json_each($1) AS input",

        bring_back: "
            UPDATE deliveries SET state = 'waiting', tries = 0, recorded_at_ms = r.value ->> 'now_ms',
                ended_at_ms = NULL
            FROM json_each($1) AS r WHERE seq = r.value ->> 'seq' AND state = 'dead'
                AND account_sid = coalesce(r.value ->> 'account_sid', account_sid)
                AND sink = coalesce(r.value ->> 'sink', sink)
            RETURNING seq, sink, lane, recorded_at_ms, account_sid, recorded_at_ms AS received_at_ms",

        discard: "
            UPDATE deliveries SET state = 'discarded', ended_at_ms = r.value ->> 'now_ms', lane = ''
            FROM json_each($1) AS r WHERE seq = r.value ->> 'seq' AND state = 'dead'
                AND account_sid = coalesce(r.value ->> 'account_sid', account_sid)
                AND sink = coalesce(r.value ->> 'sink', sink)
            RETURNING seq, sink, lane, recorded_at_ms, account_sid, (SELECT received_at_ms FROM events
                WHERE events.dedupe_key = deliveries.dedupe_key) AS received_at_ms",

        withdraw: "
            UPDATE deliveries SET state = 'discarded', reason = 'redacted', ended_at_ms = r.value ->> 'now_ms', lane = ''
            FROM json_each($1) AS r
            WHERE deliveries.dedupe_key = r.value ->> 'dedupe_key' AND state IN ('waiting', 'dead')",

        forget_attempts: "
            UPDATE deliveries SET attempts = '' FROM json_each($1) AS r
            WHERE deliveries.dedupe_key = r.value ->> 'dedupe_key' AND attempts <> ''",

        standing: "
            SELECT sink, state, count(*) AS count, min(coalesce(ended_at_ms, recorded_at_ms)) AS oldest_ms
            FROM deliveries WHERE state IN ('waiting', 'dead') AND $1 IS NOT NULL
            GROUP BY sink, state",
    },

    api_keys: ApiKeyStatements {
        add_key: "
            INSERT INTO api_keys
                (id, name, scope, account_sid, secret_sha256, created_at_ms, created_by)
            SELECT value ->> 'id', value ->> 'name', value ->> 'scope', value ->> 'account_sid',
                value ->> 'secret_sha256', value ->> 'created_at_ms', value ->> 'created_by'
            FROM json_each($1)",

        find_key: "
            SELECT api_keys.* FROM json_each($1) AS input JOIN api_keys
                ON api_keys.id = input.value ->> 'id'
            WHERE input.value ->> 'account_sid' IS NULL
                OR api_keys.account_sid = input.value ->> 'account_sid'",

        find_scope: "
            SELECT * FROM api_keys WHERE scope IN (SELECT value ->> 'scope' FROM json_each($1)) LIMIT 1",

        list_keys: "
            SELECT api_keys.* FROM json_each($1) AS input JOIN api_keys
                ON (created_at_ms, api_keys.id) < (input.value ->> 'before_ms', input.value ->> 'before_id')
            WHERE input.value ->> 'account_sid' IS NULL
                OR account_sid = input.value ->> 'account_sid'
            ORDER BY created_at_ms DESC, api_keys.id DESC
            LIMIT (SELECT value ->> 'most' FROM json_each($1))",

        revoke_key: "
            UPDATE api_keys SET revoked_at_ms = input.value ->> 'now_ms' FROM json_each($1) AS input
            WHERE api_keys.id = input.value ->> 'id' AND revoked_at_ms IS NULL
                AND (input.value ->> 'account_sid' IS NULL
                    OR account_sid = input.value ->> 'account_sid')
            RETURNING api_keys.id, name, scope, account_sid, secret_sha256, created_at_ms, created_by,
                last_used_at_ms, revoked_at_ms",

        touch_key: "
            UPDATE api_keys SET last_used_at_ms = input.value ->> 'now_ms' FROM json_each($1) AS input
            WHERE api_keys.id = input.value ->> 'id'
                AND coalesce(last_used_at_ms, 0) < input.value ->> 'now_ms'",
    },

    sessions: SessionStatements {
        add: "
            INSERT INTO sessions (secret_sha256, key_id, created_at_ms, expires_at_ms)
            SELECT value ->> 'secret_sha256', value ->> 'key_id', value ->> 'created_at_ms',
                value ->> 'expires_at_ms'
            FROM json_each($1)",

        find: "
            SELECT sessions.* FROM json_each($1) AS input JOIN sessions
                ON sessions.secret_sha256 = input.value ->> 'secret_sha256'",

        end: "
            DELETE FROM sessions
            WHERE secret_sha256 IN (SELECT value ->> 'secret_sha256' FROM json_each($1))
            RETURNING secret_sha256, key_id, created_at_ms, expires_at_ms",

        prune: "
            DELETE FROM sessions WHERE secret_sha256 IN (
                SELECT secret_sha256 FROM sessions
                WHERE expires_at_ms <= (SELECT value ->> 'now_ms' FROM json_each($1))
                UNION ALL
                SELECT secret_sha256 FROM (
                    SELECT secret_sha256 FROM json_each($1) AS input JOIN sessions
                        ON key_id = input.value ->> 'key_id'
                    ORDER BY created_at_ms DESC
                    LIMIT -1 OFFSET (SELECT value ->> 'most' FROM json_each($1))))",
    },

    audit: AuditStatements {
        add: "
            INSERT INTO audit (at_ms, actor, source, action, subject, account_sid, detail)
            SELECT value ->> 'at_ms', value ->> 'actor', value ->> 'source', value ->> 'action',
                value ->> 'subject', value ->> 'account_sid', value ->> 'detail'
            FROM json_each($1)",
    },

    suppressions: SuppressionStatements {
        // BEGIN IMMEDIATE already holds the only write lock.
        lock: concat!("SELECT ", suppression_columns!(), suppressions_of!()),

        keep: concat!(
            "INSERT INTO suppressions (",
            suppression_columns!(),
            ") SELECT value ->> 'tenant', value ->> 'number', value ->> 'channel', value ->> 'source', \
                value ->> 'error_code', value ->> 'suppressed', value ->> 'since_ms', \
                value ->> 'expires_at_ms', value ->> 'changed_at_ms', \
                value ->> 'message_sid', value ->> 'route', value ->> 'origin_channel', value ->> 'sender', \
                value ->> 'service_sid', value ->> 'changed_by' \
            FROM json_each($1) WHERE true ",
            suppression_upsert!()
        ),

        of_contacts: concat!("SELECT ", suppression_columns!(), suppressions_of!()),
        list: suppressions_after!("", ""),
        list_of_source: suppressions_after!(
            "AND source = $1 ->> '$[0].source' ",
            "INDEXED BY suppressions_source"
        ),
        lock_expired: concat!(
            "SELECT ",
            suppression_columns!(),
            " FROM suppressions WHERE suppressed AND expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2"
        ),
    },

    peers: PeerStatements {
        heartbeat: "
            INSERT INTO sidecars (id, alive_until_ms, partition_until_ms, written_ms)
            SELECT value ->> 'id', CAST(unixepoch('subsec') * 1000 AS INTEGER) + (value ->> 'alive_ms'), 0,
                value ->> 'written_ms'
            FROM json_each($1) WHERE true
            ON CONFLICT (id) DO UPDATE SET alive_until_ms = excluded.alive_until_ms,
                written_ms = max(written_ms, excluded.written_ms)",

        enter_partition: "
            INSERT INTO sidecars (id, alive_until_ms, partition_until_ms, written_ms)
            SELECT value ->> 'id', CAST(unixepoch('subsec') * 1000 AS INTEGER) + (value ->> 'alive_ms'),
                CAST(unixepoch('subsec') * 1000 AS INTEGER) + (value ->> 'partition_ms'), 0
            FROM json_each($1) WHERE true
            ON CONFLICT (id) DO UPDATE SET alive_until_ms = excluded.alive_until_ms,
                partition_until_ms = max(partition_until_ms, excluded.partition_until_ms)",

        leave: "
            DELETE FROM sidecars WHERE id IN (SELECT value ->> 'id' FROM json_each($1))
                OR alive_until_ms < CAST(unixepoch('subsec') * 1000 AS INTEGER) - 86400000",

        state: "
            SELECT now_ms, (SELECT count(*) FROM sidecars WHERE partition_until_ms > now_ms) AS cut_off,
                (SELECT count(*) FROM sidecars WHERE id <> input.value ->> 'id' AND alive_until_ms > now_ms
                    AND written_ms <= input.value ->> 'since_ms') AS behind
            FROM json_each($1) AS input
                CROSS JOIN (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms) AS clock",
    },

    tenants: TenantStatements {
        changes: "
            SELECT coalesce(sum(revision), 0) AS changes FROM json_each($1) CROSS JOIN tenants",

        list: "
            SELECT tenants.* FROM json_each($1) AS input JOIN tenants
                ON tenants.account_sid > input.value ->> 'after'
            WHERE input.value ->> 'account_sid' IS NULL
                OR tenants.account_sid = input.value ->> 'account_sid'
            ORDER BY tenants.account_sid LIMIT (SELECT value ->> 'most' FROM json_each($1))",

        keep: "
            INSERT INTO tenants (account_sid, parent_sid, friendly_name, senders, services, policy, retention, revision,
                created_at_ms, updated_at_ms, closed_at_ms)
            SELECT value ->> 'account_sid', value ->> 'parent_sid', value ->> 'friendly_name', value ->> 'senders',
                value ->> 'services', value ->> 'policy', value ->> 'retention', value ->> 'revision', value ->>
                'created_at_ms', value ->> 'updated_at_ms', value ->> 'closed_at_ms'
            FROM json_each($1) WHERE true
            ON CONFLICT (account_sid) DO UPDATE SET parent_sid = excluded.parent_sid, friendly_name = excluded.friendly_name, senders =
                excluded.senders, services = excluded.services, policy = excluded.policy, retention =
                excluded.retention, revision = excluded.revision, created_at_ms = excluded.created_at_ms,
                updated_at_ms = excluded.updated_at_ms, closed_at_ms = excluded.closed_at_ms",
    },

    consents: ConsentStatements {
        record: concat!(
            "INSERT INTO consents (",
            consent_columns!(),
            ") SELECT value ->> 'id', value ->> 'tenant', value ->> 'number', value ->> 'channel', \
                value ->> 'category', value ->> 'state', value ->> 'at_ms', value ->> 'source', value ->> 'proof', \
                value ->> 'ip', value ->> 'user_agent', value ->> 'recorded_at_ms', value ->> 'recorded_by' \
            FROM json_each($1) WHERE true ON CONFLICT (id) DO NOTHING RETURNING id"
        ),

        of_contacts: "
            SELECT consents.* FROM json_each($1) AS input CROSS JOIN consents
                ON tenant = input.value ->> 'tenant' AND number = input.value ->> 'number'
            ORDER BY at_ms DESC, consents.id LIMIT 1000",

        // The request is one row and is not joined, so the order is that of the index.
        list: "
            SELECT consent.* FROM consents AS consent
            WHERE tenant = $1 ->> '$[0].tenant' AND (number, channel, category, at_ms, state, consent.id)
                > ($1 ->> '$[0].number', $1 ->> '$[0].channel', $1 ->> '$[0].category', $1 ->> '$[0].at_ms',
                    $1 ->> '$[0].state', $1 ->> '$[0].id')
                AND ($1 ->> '$[0].on_channel' IS NULL OR channel = $1 ->> '$[0].on_channel')
                AND ($1 ->> '$[0].in_category' IS NULL OR category = $1 ->> '$[0].in_category')
                AND ($1 ->> '$[0].history' OR NOT EXISTS (SELECT 1 FROM consents AS later
                    WHERE later.tenant = consent.tenant AND later.number = consent.number
                        AND later.channel = consent.channel AND later.category = consent.category
                        AND (later.at_ms, later.state, later.id) > (consent.at_ms, consent.state, consent.id)))
            ORDER BY number, channel, category, at_ms, state, consent.id
            LIMIT $1 ->> '$[0].most'",

        last_inbound: "
            SELECT ours, max(received_at_ms) AS last_inbound_ms
            FROM json_each($1) AS input CROSS JOIN events ON class = 'inbound'
                AND theirs = input.value ->> 'number' AND account_sid = input.value ->> 'tenant'
                AND channel = input.value ->> 'channel'
            WHERE ours IS NOT NULL AND received_at_ms IS NOT NULL
            GROUP BY ours",
    },

    idempotency: IdempotencyStatements {
        find: "
            SELECT fingerprint, held_until_ms, status, headers, body, created_at_ms, expires_at_ms
            FROM json_each($1) AS input CROSS JOIN idempotency_keys ON tenant = input.value ->> 'tenant'
                AND principal = input.value ->> 'principal'
                AND idempotency_key = input.value ->> 'idempotency_key'",

        take: "
            INSERT INTO idempotency_keys (tenant, principal, idempotency_key, fingerprint, owner, held_until_ms,
                created_at_ms, expires_at_ms)
            SELECT value ->> 'tenant', value ->> 'principal', value ->> 'idempotency_key', value ->> 'fingerprint',
                value ->> 'owner', value ->> 'held_until_ms', value ->> 'created_at_ms', value ->> 'expires_at_ms'
            FROM json_each($1) WHERE true
            ON CONFLICT (tenant, principal, idempotency_key) DO UPDATE SET fingerprint = excluded.fingerprint,
                owner = excluded.owner, held_until_ms = excluded.held_until_ms, status = NULL, headers = NULL,
                body = NULL, created_at_ms = excluded.created_at_ms, expires_at_ms = excluded.expires_at_ms",

        answer: "
            UPDATE idempotency_keys SET status = input.value ->> 'status', headers = input.value ->> 'headers',
                body = input.value ->> 'body'
            FROM json_each($1) AS input WHERE tenant = input.value ->> 'tenant'
                AND principal = input.value ->> 'principal'
                AND idempotency_key = input.value ->> 'idempotency_key'
                AND owner = input.value ->> 'owner' AND status IS NULL
            RETURNING idempotency_key",

        give_up: "
            DELETE FROM idempotency_keys WHERE status IS NULL AND (tenant, principal, idempotency_key, owner) IN (
                SELECT value ->> 'tenant', value ->> 'principal', value ->> 'idempotency_key', value ->> 'owner'
                FROM json_each($1))",

        let_go: "
            UPDATE idempotency_keys SET held_until_ms = 0
            FROM json_each($1) AS input WHERE tenant = input.value ->> 'tenant'
                AND principal = input.value ->> 'principal'
                AND idempotency_key = input.value ->> 'idempotency_key'
                AND owner = input.value ->> 'owner' AND status IS NULL",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger in memory with the current schema.
    pub(super) async fn ledger() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        connection
    }

    /// Panics unless a step of the statement's plan contains `index` and no step scans a table. Returns whether all rows are
    /// sorted before the first one is returned.
    pub(super) async fn assert_uses_index(
        ledger: &mut SqliteConnection,
        statement: &str,
        index: &str,
    ) -> bool {
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(plan).fetch_all(ledger).await.unwrap();
        let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
        // Only the request itself may be scanned, and the result of a subquery, whose own steps are in the plan too.
        for scan in plan.iter().filter(|step| step.starts_with("SCAN ")) {
            let own = ["input", "json_each", "(subquery"].iter().any(|it| scan.contains(it));
            assert!(own || scan.contains("CONSTANT ROW"), "{scan}: {plan:#?}");
        }
        plan.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY"))
    }

    /// Queries never scan a table that grows with messages or contacts. Other tests check the statements about webhooks by
    /// key, number and time, and those of retention.
    #[tokio::test]
    async fn lists_and_lookups_use_an_index() {
        let mut ledger = ledger().await;
        let Statements { suppressions, consents, api_keys, sessions, idempotency, .. } =
            &STATEMENTS;
        for (statement, index) in [
            (
                suppressions.of_contacts,
                "SEARCH suppressions USING PRIMARY KEY (tenant=? AND number=?)",
            ),
            (suppressions.list, "SEARCH suppressions USING PRIMARY KEY (tenant=? AND (number,"),
            (suppressions.list_of_source, "suppressions_source (tenant=? AND source=?"),
            (suppressions.lock_expired, "suppressions_expiring (expires_at_ms<?"),
            (consents.of_contacts, "consents_contact (tenant=? AND number=?)"),
            (consents.list, "SEARCH consent USING INDEX consents_contact (tenant=? AND (number,"),
            (consents.list, "consents_contact (tenant=? AND number=? AND channel=? AND category=?"),
            (consents.last_inbound, "events_pair (theirs=?"),
            (api_keys.find_key, "SEARCH api_keys"),
            (sessions.find, "SEARCH sessions USING PRIMARY KEY (secret_sha256=?)"),
            (sessions.prune, "sessions_expiry (expires_at_ms<?)"),
            (sessions.prune, "sessions_key (key_id=?)"),
            (idempotency.find, "PRIMARY KEY (tenant=? AND principal=? AND idempotency_key=?)"),
        ] {
            let sorts = assert_uses_index(&mut ledger, statement, index).await;
            // These sort few rows: the consents of the named contacts, and the sessions of one key.
            let few = [consents.of_contacts, sessions.prune];
            assert!(!sorts || few.contains(&statement), "{index}");
        }
    }
}
