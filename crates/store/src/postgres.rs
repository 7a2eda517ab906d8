//! The ledger in PostgreSQL: the connections, and every statement. Rows are always locked in key order, so that two batches
//! cannot wait for each other. This module must not know what the rows mean.

mod copy;
mod lookups;

use std::{collections::HashMap, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Arguments as _, AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgExecutor,
    migrate::Migrator,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions},
};
use tokio::time::Instant;

pub(super) use self::lookups::look_up;
use super::event::Event;
use crate::connection_cache::{ConnectionCache, IDLE};
use crate::{
    columns::{
        consent_columns, due_columns, event_columns, merge, suppression_columns,
        suppression_upsert, webhook_columns,
    },
    database::JOURNAL_PATIENCE,
    error::StoreError,
    statements::{
        ApiKeyStatements, AuditStatements, ConsentStatements, IdempotencyStatements,
        OutboxStatements, PeerStatements, RetentionStatements, SessionStatements, Statements,
        SuppressionStatements, TenantStatements,
    },
};
use twilio_edge_platform::config;

/// Delay before another attempt to reach a server that is not up yet.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(super) struct Postgres {
    /// A commit survives the end of our process, but not a server crash before its next WAL write (`synchronous_commit`).
    pub(super) quick: PgPool,
    /// A commit survives both.
    pub(super) durable: PgPool,
    /// The connection on which the journal writes; as durable, with a longer time limit.
    pub(super) journal: PgPool,
    /// Connections for the reads of the claim path.
    pub(super) lookups: Arc<ConnectionCache>,
}

impl Postgres {
    pub(super) async fn open(settings: &config::Database) -> Result<Postgres, StoreError> {
        let options = PgConnectOptions::from_str(settings.url.expose())
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
            .application_name("twilio-edge");
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        let mut connection = reach(&options, Instant::now() + timeout).await?;
        let mut migrator = sqlx::migrate!("migrations/postgres");
        // Tables of a newer version serve this one: docs/adr/0025-deployment.md
        migrator.set_ignore_missing(true);
        if !is_up_to_date(&mut connection, &migrator).await {
            // The migrator takes an advisory lock: sidecars that start together wait for each other.
            migrator.run(&mut connection).await.map_err(|error| {
                StoreError::Refused(format!("its tables cannot be migrated: {error}"))
            })?;
        }
        let _ = connection.close().await;
        let durable = (settings.max_connections / 3).saturating_sub(1).max(1);
        let quick = settings.max_connections.saturating_sub(durable).saturating_sub(1).max(1);
        let timeout_ms = settings.timeout_ms;
        let journal_ms = timeout_ms.saturating_mul(JOURNAL_PATIENCE.into());
        let (quick, durable, journal) = (
            pool(&options, timeout_ms, quick, "off"),
            pool(&options, timeout_ms, durable, "on"),
            pool(&options, journal_ms, 1, "on"),
        );
        let lookups = Arc::new(ConnectionCache::of(&quick));
        Ok(Postgres { quick, durable, journal, lookups })
    }
}

/// Returns whether all our migrations were applied. The migrator would find out too, but its first statement requires the
/// permission to create tables.
async fn is_up_to_date(connection: &mut PgConnection, migrator: &Migrator) -> bool {
    const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success";
    let applied = sqlx::query_as(APPLIED).fetch_all(connection).await;
    let applied: HashMap<i64, Vec<u8>> =
        applied.map(|rows: Vec<(i64, Vec<u8>)>| rows.into_iter().collect()).unwrap_or_default();
    let is_applied = |version, checksum: &[u8]| {
        applied.get(&version).is_some_and(|applied| applied.as_slice() == checksum)
    };
    migrator.iter().all(|one| is_applied(one.version, one.checksum.as_ref()))
}

/// Opens read-only connections. The server cancels a query soon after our own timeout.
pub(super) async fn open_to_read(settings: &config::Database) -> Result<PgPool, StoreError> {
    let limit_ms = settings.read_timeout_ms.saturating_mul(2).to_string();
    let options = PgConnectOptions::from_str(settings.url.expose())
        .map_err(|error| StoreError::Unavailable(error.to_string()))?
        .application_name("twilio-edge reading")
        .options([("default_transaction_read_only", "on"), ("jit", "off")])
        .options([("statement_timeout", limit_ms)]);
    let timeout = Duration::from_millis(settings.connect_timeout_ms);
    let first = reach(&options, Instant::now() + timeout).await?;
    let _ = first.close().await;
    Ok(PgPoolOptions::new()
        .max_connections(settings.readers)
        .acquire_timeout(Duration::from_millis(settings.read_timeout_ms))
        .connect_lazy_with(options))
}

/// Opens the first connection. Waits for a server that is still starting, but not for one that refuses us.
async fn reach(options: &PgConnectOptions, deadline: Instant) -> Result<PgConnection, StoreError> {
    loop {
        let (failure, is_refusal) = match tokio::time::timeout_at(deadline, options.connect()).await
        {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => (error.to_string(), refuses(&error)),
            Err(_) => ("no answer".to_owned(), false),
        };
        if is_refusal || Instant::now() + RETRY >= deadline {
            return Err(StoreError::Unavailable(failure));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns whether a running server refused us. A server that starts, recovers from a crash or shuts down reports a code of
/// class 57P, with a text in any language.
fn refuses(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| !code.starts_with("57P"))
}

fn pool(
    options: &PgConnectOptions,
    timeout_ms: u64,
    connections: u32,
    synchronous_commit: &'static str,
) -> PgPool {
    // We stop waiting after timeout_ms; the server must not work much longer on an abandoned statement.
    let limit_ms = timeout_ms.saturating_mul(2);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(timeout_ms))
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            Box::pin(async move {
                Ok(metadata.idle_for < IDLE || connection.ping().await.is_ok())
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                // Every statement here looks rows up by a key. PostgreSQL must not plan it again for each batch, nor choose
                // a scan because the table was small at the time of planning.
                let settings = format!(
                    "SET synchronous_commit = {synchronous_commit}; SET statement_timeout = {limit_ms}; \
                     SET idle_in_transaction_session_timeout = {limit_ms}; \
                     SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
                     SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
                );
                sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(|_| ())
            })
        })
        .connect_lazy_with(options.clone())
}

const WRITE_EVENTS: &str = concat!(
    "INSERT INTO events AS stored (",
    event_columns!(),
    ") SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
     $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::text[], $15::bigint[], \
     $16::text[], $17::bigint[], $18::text[], $19::text[])",
    merge!("least", "greatest", "$20")
);

/// Writes events, which must be in key order; the rows are locked in that order.
pub(super) async fn write_events(
    executor: impl PgExecutor<'_>,
    events: &[Event<'_>],
    forgotten_ms: i64,
) -> Result<(), StoreError> {
    let text = |column: for<'a> fn(&Event<'a>) -> Option<&'a str>| -> Vec<Option<&str>> {
        events.iter().map(column).collect()
    };
    let number = |column: fn(&Event<'_>) -> Option<i64>| -> Vec<Option<i64>> {
        events.iter().map(column).collect()
    };
    // Allocates everything at once: growing would copy some hundred kilobytes several times.
    let lengths = events.iter().flat_map(|event| event.texts()).flatten().map(str::len);
    let bytes = lengths.sum::<usize>().saturating_add(events.len().saturating_mul(200));
    let mut arguments = PgArguments::default();
    arguments.reserve(20, bytes);
    let query = sqlx::query_with(WRITE_EVENTS, arguments)
        .bind(text(|event| Some(event.dedupe_key)))
        .bind(text(|event| Some(event.class)))
        .bind(text(|event| Some(event.account_sid)))
        .bind(text(|event| Some(event.message_sid)))
        .bind(text(|event| event.status))
        .bind(text(|event| event.error_code))
        .bind(text(|event| event.route))
        .bind(text(|event| event.form))
        .bind(text(|event| event.channel))
        .bind(text(|event| event.theirs))
        .bind(text(|event| event.ours))
        .bind(number(|event| event.received_at_ms))
        .bind(number(|event| Some(event.attempts)))
        .bind(text(|event| event.claim_id))
        .bind(number(|event| event.held_until_ms))
        .bind(text(|event| event.outcome))
        .bind(number(|event| event.settled_at_ms))
        .bind(text(|event| event.answer))
        .bind(text(|event| event.envelope))
        .bind(forgotten_ms);
    query.execute(executor).await.map(|_| ())?;
    Ok(())
}

/// Writes events, which must be in key order, in transactions of their own: those that are probably new by COPY. Writing an
/// event again changes nothing, so a failure between two transactions loses nothing.
pub(super) async fn add_events(
    connection: &mut PoolConnection<sqlx::Postgres>,
    events: &[Event<'_>],
    forgotten_ms: i64,
) -> Result<(), StoreError> {
    let (first, others): (Vec<Event<'_>>, Vec<Event<'_>>) =
        events.iter().partition(|event| event.is_first);
    if first.len() < copy::FEWEST || !copy::insert(connection, &first).await? {
        return write_events(&mut **connection, events, forgotten_ms).await;
    }
    match others.is_empty() {
        true => Ok(()),
        false => write_events(&mut **connection, &others, forgotten_ms).await,
    }
}

/// Page of an account's suppressions from a position on. LATERAL makes PostgreSQL read the page in index order up to its
/// limit. With a plain join it would read and sort the whole account, because it expects a hundred rows of any JSON.
macro_rules! suppressions_after {
    ($source:literal) => {
        concat!(
            "WITH input AS MATERIALIZED (SELECT r.*, \
                    (SELECT array_agg(named.value) FROM json_array_elements_text(on_channels) AS named(value)) AS channels \
                FROM json_to_recordset($1::json) AS r(tenant text, source text, on_channels json, \
                    ended boolean, now_ms bigint, number text, channel text, error_code text, after_source text, most bigint) LIMIT 1) \
            SELECT found.* FROM input CROSS JOIN LATERAL (\
                SELECT * FROM suppressions WHERE suppressions.tenant = input.tenant ",
            $source,
            "AND (suppressions.number, suppressions.channel, suppressions.error_code, suppressions.source) \
                    > (input.number, input.channel, input.error_code, input.after_source) \
                AND (input.ended OR (suppressions.suppressed \
                    AND coalesce(suppressions.expires_at_ms > input.now_ms, true))) \
                AND (input.channels IS NULL OR suppressions.channel = ANY(input.channels)) \
                ORDER BY suppressions.number, suppressions.channel, suppressions.error_code, suppressions.source \
                LIMIT input.most) AS found \
            ORDER BY found.number, found.channel, found.error_code, found.source"
        )
    };
}

pub(super) const STATEMENTS: Statements = Statements {
    begin: "BEGIN",

    // The rows may not exist yet, so the keys themselves are locked, always in the same order.
    lock_keys: "
        SELECT count(pg_advisory_xact_lock(hash)) FROM (
            SELECT hashtextextended(key, 0) AS hash FROM json_array_elements_text($1::json) AS key ORDER BY 1
        ) AS hashes",

    last_inbound: "
        SELECT account_sid, channel, theirs, ours, max(received_at_ms) AS last_inbound_ms
        FROM events JOIN json_to_recordset($1::json)
            AS r(account_sid text, channel text, theirs text, ours text)
            USING (theirs, ours, account_sid, channel)
        WHERE class = 'inbound' AND received_at_ms IS NOT NULL
        GROUP BY account_sid, channel, theirs, ours",

    following_inbound: "
        SELECT r.dedupe_key FROM json_to_recordset($1::json) AS r(dedupe_key text, account_sid text, channel text,
            theirs text, ours text, since_ms bigint, received_at_ms bigint)
        WHERE EXISTS (SELECT FROM events AS earlier WHERE earlier.class = 'inbound'
            AND earlier.theirs = r.theirs AND earlier.ours = r.ours
            AND earlier.account_sid = r.account_sid AND earlier.channel = r.channel
            AND earlier.received_at_ms > r.since_ms
            AND (earlier.received_at_ms, earlier.dedupe_key) < (r.received_at_ms, r.dedupe_key))",

    histories: concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM json_to_recordset($1::json) AS input(first text, last text) \
            JOIN events ON dedupe_key BETWEEN input.first AND input.last"
    ),

    // The oldest running transaction.
    end_of_recording: "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint",

    find_claim_ends: "
        SELECT claim_ends.dedupe_key, claim_ends.claim_id, claim_ends.ending, claim_ends.expires_at_ms
        FROM claim_ends JOIN json_to_recordset($1::json) AS r(dedupe_key text, claim_id text, now_ms bigint)
            ON claim_ends.dedupe_key = r.dedupe_key AND claim_ends.claim_id = r.claim_id
        WHERE claim_ends.expires_at_ms > r.now_ms",

    keep_claim_ends: "
        INSERT INTO claim_ends (dedupe_key, claim_id, ending, expires_at_ms)
        SELECT dedupe_key, claim_id, ending, expires_at_ms
        FROM json_to_recordset($1::json)
            AS r(dedupe_key text, claim_id text, ending text, expires_at_ms bigint)
        ON CONFLICT (dedupe_key, claim_id) DO UPDATE
            SET ending = excluded.ending, expires_at_ms = excluded.expires_at_ms",

    inbound_media: "
        INSERT INTO inbound_media (id, account_sid, message_sid, media_sid, position, channel, contact, content_type,
            received_at_ms, state, code, attempts, ended_at_ms, twilio_state, twilio_attempts, deleted_by, is_open, due_at_ms, held_by)
        SELECT id, account_sid, message_sid, media_sid, position, channel, contact, content_type, received_at_ms,
            'pending', '', 0, 0, 'kept', 0, '', 1, due_at_ms, ''
        FROM json_to_recordset($1::json) AS r(id text, account_sid text, message_sid text, media_sid text, position bigint,
            channel text, contact text, content_type text, received_at_ms bigint, due_at_ms bigint)
        ON CONFLICT (id) DO NOTHING",

    record_opts: "
        INSERT INTO opt_events
            (account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms)
        SELECT account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms
        FROM json_to_recordset($1::json) AS r(account_sid text, message_sid text, channel text,
            number text, opt text, cause text, route text, recorded_at_ms bigint)
        ORDER BY account_sid COLLATE \"C\", message_sid COLLATE \"C\"
        ON CONFLICT (account_sid, message_sid) DO NOTHING
        RETURNING account_sid, message_sid",

    retention: RetentionStatements {
        begin_progress: "
            INSERT INTO retention (account_sid, part, through_ms, through_key)
            SELECT account_sid, part, through_ms, through_key FROM json_to_recordset($1::json)
                AS r(account_sid text, part text, through_ms bigint, through_key text)
            ON CONFLICT (account_sid, part) DO NOTHING",

        // One sidecar at a time: the others find nothing to do.
        lock_progress: "
            SELECT part, through_ms, through_key FROM retention WHERE (account_sid, part) IN (
                SELECT account_sid, part FROM json_to_recordset($1::json) AS r(account_sid text, part text))
            ORDER BY account_sid, part FOR UPDATE SKIP LOCKED",

        keep_progress: "
            UPDATE retention SET through_ms = input.through_ms, through_key = input.through_key
            FROM json_to_recordset($1::json)
                AS input(account_sid text, part text, through_ms bigint, through_key text)
            WHERE retention.account_sid = input.account_sid AND retention.part = input.part",

        // The same order as in the other statements that lock these rows.
        rewind: "
            UPDATE retention SET through_ms = late.at_ms - 1, through_key = ''
            FROM (SELECT account_sid, part, input.at_ms
                FROM json_to_recordset($1::json) AS input(account_sid text, at_ms bigint)
                    JOIN retention USING (account_sid) ORDER BY account_sid, part FOR UPDATE OF retention) AS late
            WHERE retention.account_sid = late.account_sid AND retention.part = late.part
                AND through_ms >= late.at_ms",

        redact_events: "
            UPDATE events SET form = coalesce(input.form, events.form),
                answer = CASE WHEN input.no_answer THEN NULL ELSE events.answer END,
                theirs = CASE WHEN input.no_address THEN NULL ELSE events.theirs END,
                redacted = input.redacted, redacted_at_ms = input.now_ms
            FROM json_to_recordset($1::json) AS input(dedupe_key text, form text, no_answer boolean,
                no_address boolean, redacted bigint, now_ms bigint)
            WHERE events.dedupe_key = input.dedupe_key",

        delete_events: "
            DELETE FROM events USING json_to_recordset($1::json) AS input(dedupe_key text)
            WHERE events.dedupe_key = input.dedupe_key",

        unqueue: "
            DELETE FROM archive_queue USING json_to_recordset($1::json) AS input(dedupe_key text)
            WHERE archive_queue.dedupe_key = input.dedupe_key",
    },

    outbox: OutboxStatements {
        insert_events: "
            INSERT INTO operational_events
                (event_id, event_type, account_sid, channel, contact, subject, data, recorded_at_ms)
            SELECT event_id, event_type, account_sid, channel, contact, subject, data, recorded_at_ms
            FROM json_to_recordset($1::json) AS r(event_id text, event_type text, account_sid text, channel text,
                contact text, subject text, data text, recorded_at_ms bigint)
            ON CONFLICT (event_id) DO NOTHING",

        insert: "
            INSERT INTO deliveries
                (sink, delivery_id, dedupe_key, replay_id, account_sid, lane, recorded_at_ms, facts)
            SELECT sink, delivery_id, dedupe_key, replay_id, account_sid, lane, recorded_at_ms, facts
            FROM ROWS FROM (json_to_recordset($1::json) AS (sink text, delivery_id text, dedupe_key text,
                replay_id text, account_sid text, lane text, recorded_at_ms bigint, facts text)) WITH ORDINALITY
                AS r(sink, delivery_id, dedupe_key, replay_id, account_sid, lane, recorded_at_ms, facts, nth)
            ORDER BY nth
            ON CONFLICT (sink, delivery_id) DO NOTHING",

        // The update that changes nothing locks the row: a delivery worker that is about to drop the lane waits for us.
        open_lanes: "
            INSERT INTO lanes (sink, lane, due_at_ms)
            SELECT DISTINCT ON (sink COLLATE \"C\", lane COLLATE \"C\") sink, lane, recorded_at_ms
            FROM json_to_recordset($1::json) AS r(sink text, lane text, recorded_at_ms bigint)
            ORDER BY sink COLLATE \"C\", lane COLLATE \"C\", recorded_at_ms
            ON CONFLICT (sink, lane) DO UPDATE SET due_at_ms = lanes.due_at_ms",

        take: "
            UPDATE lanes SET held_by = picked.held_by, due_at_ms = picked.until_ms
            FROM (
                SELECT lanes.sink, lanes.lane, r.held_by, r.until_ms
                FROM json_to_recordset($1::json)
                    AS r(sink text, held_by text, now_ms bigint, until_ms bigint, most bigint)
                    CROSS JOIN LATERAL (
                        SELECT sink, lane FROM lanes WHERE sink = r.sink AND due_at_ms <= r.now_ms
                        ORDER BY due_at_ms LIMIT r.most FOR UPDATE SKIP LOCKED
                    ) AS lanes
            ) AS picked
            WHERE lanes.sink = picked.sink AND lanes.lane = picked.lane
            RETURNING lanes.lane",

        due: concat!(
            "SELECT ", due_columns!(), " FROM json_to_recordset($1::json) AS r(sink text, lane text, each bigint) \
                CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE sink = r.sink AND lane = r.lane \
                    AND state = 'waiting' ORDER BY seq LIMIT r.each) AS d \
                LEFT JOIN events AS e ON e.dedupe_key = d.dedupe_key \
                LEFT JOIN operational_events AS o ON o.event_id = d.dedupe_key ORDER BY d.lane, d.seq"
        ),

        end: "
            UPDATE deliveries SET state = r.state, tries = r.tries, reason = r.reason, attempts = r.attempts,
                ended_at_ms = r.ended_at_ms, lane = CASE WHEN r.state = 'done' THEN '' ELSE deliveries.lane END
            FROM json_to_recordset($1::json) AS r(sink text, delivery_id text, state text, tries bigint,
                reason text, attempts text, ended_at_ms bigint)
            WHERE deliveries.sink = r.sink AND deliveries.delivery_id = r.delivery_id
                AND deliveries.state = 'waiting'
            RETURNING deliveries.state, deliveries.delivery_id, deliveries.dedupe_key, deliveries.account_sid,
                deliveries.recorded_at_ms, deliveries.tries, deliveries.reason",

        lock_lanes: "
            SELECT lane FROM lanes WHERE (sink, lane, held_by) IN (
                SELECT sink, lane, held_by
                FROM json_to_recordset($1::json) AS r(sink text, lane text, held_by text))
            ORDER BY sink, lane FOR UPDATE",

        drop_lanes: "
            DELETE FROM lanes USING json_to_recordset($1::json) AS r(sink text, lane text, held_by text)
            WHERE lanes.sink = r.sink AND lanes.lane = r.lane AND lanes.held_by = r.held_by
                AND NOT EXISTS (SELECT FROM deliveries WHERE deliveries.sink = r.sink
                    AND deliveries.lane = r.lane AND state = 'waiting')",

        free_lanes: "
            UPDATE lanes SET held_by = NULL, due_at_ms = r.due_at_ms
            FROM json_to_recordset($1::json) AS r(sink text, lane text, held_by text, due_at_ms bigint)
            WHERE lanes.sink = r.sink AND lanes.lane = r.lane AND lanes.held_by = r.held_by",

        dead: "
            SELECT d.seq, d.sink, d.delivery_id, d.dedupe_key, d.account_sid, d.lane, d.recorded_at_ms, d.tries,
                d.reason, d.ended_at_ms
            FROM json_to_recordset($1::json)
                AS r(account_sid text, sink text, before_ms bigint, before_seq bigint, most bigint)
                CROSS JOIN LATERAL (SELECT * FROM deliveries
                    WHERE state = 'dead' AND (ended_at_ms, seq) < (r.before_ms, r.before_seq)
                        AND (r.account_sid IS NULL OR account_sid = r.account_sid)
                        AND (r.sink IS NULL OR sink = r.sink)
                    ORDER BY ended_at_ms DESC, seq DESC LIMIT r.most) AS d
            ORDER BY d.ended_at_ms DESC, d.seq DESC",

        letter: concat!(
            "SELECT d.state, d.sink, d.reason, d.ended_at_ms, ", due_columns!(), " \
                FROM json_to_recordset($1::json) AS r(seq bigint, account_sid text) \
                JOIN deliveries AS d ON d.seq = r.seq AND (r.account_sid IS NULL OR d.account_sid = r.account_sid) \
                LEFT JOIN events AS e ON e.dedupe_key = d.dedupe_key \
                LEFT JOIN operational_events AS o ON o.event_id = d.dedupe_key"
        ),

        of_event: "
            SELECT d.seq, d.sink, d.delivery_id, d.dedupe_key, d.account_sid, d.state, d.recorded_at_ms, d.tries,
                d.reason, d.attempts, d.ended_at_ms
            FROM json_to_recordset($1::json) AS r(dedupe_key text, account_sid text)
                JOIN deliveries AS d ON d.dedupe_key = r.dedupe_key
            WHERE r.account_sid IS NULL OR d.account_sid = r.account_sid
            ORDER BY d.seq",

        oldest_dead: "
            SELECT r.sink, (SELECT min(ended_at_ms) FROM deliveries
                WHERE state = 'dead' AND deliveries.sink = r.sink) AS ended_at_ms
            FROM json_to_recordset($1::json) AS r(sink text)",

        backlog: "
            SELECT r.sink,
                (SELECT count(*) FROM (SELECT 1 FROM deliveries
                    WHERE state = 'waiting' AND deliveries.sink = r.sink LIMIT 1000) AS waiting) AS waiting,
                (SELECT min(first_ms) FROM (SELECT (SELECT recorded_at_ms FROM deliveries
                        WHERE state = 'waiting' AND deliveries.sink = lanes.sink AND deliveries.lane = lanes.lane
                        ORDER BY seq LIMIT 1) AS first_ms
                    FROM lanes WHERE lanes.sink = r.sink ORDER BY due_at_ms LIMIT 1000) AS firsts) AS oldest_waiting_ms,
                (SELECT count(*) FROM (SELECT 1 FROM deliveries
                    WHERE state = 'dead' AND deliveries.sink = r.sink LIMIT 1000) AS dead) AS dead,
                (SELECT min(ended_at_ms) FROM deliveries
                    WHERE state = 'dead' AND deliveries.sink = r.sink) AS oldest_dead_ms
            FROM json_to_recordset($1::json) AS r(sink text)",

        bring_back: "
            UPDATE deliveries SET state = 'waiting', tries = 0, recorded_at_ms = r.now_ms, ended_at_ms = NULL
            FROM json_to_recordset($1::json) AS r(seq bigint, account_sid text, sink text, now_ms bigint)
            WHERE deliveries.seq = r.seq AND state = 'dead'
                AND (r.account_sid IS NULL OR deliveries.account_sid = r.account_sid)
                AND (r.sink IS NULL OR deliveries.sink = r.sink)
            RETURNING deliveries.seq, deliveries.sink, lane, recorded_at_ms, deliveries.account_sid,
                recorded_at_ms AS received_at_ms",

        discard: "
            UPDATE deliveries SET state = 'discarded', ended_at_ms = r.now_ms, lane = ''
            FROM json_to_recordset($1::json) AS r(seq bigint, account_sid text, sink text, now_ms bigint)
            WHERE deliveries.seq = r.seq AND state = 'dead'
                AND (r.account_sid IS NULL OR deliveries.account_sid = r.account_sid)
                AND (r.sink IS NULL OR deliveries.sink = r.sink)
            RETURNING deliveries.seq, deliveries.sink, lane, recorded_at_ms, deliveries.account_sid,
                (SELECT received_at_ms FROM events
                    WHERE events.dedupe_key = deliveries.dedupe_key) AS received_at_ms",

        withdraw: "
            UPDATE deliveries SET state = 'discarded', reason = 'redacted', ended_at_ms = r.now_ms, lane = ''
            FROM json_to_recordset($1::json) AS r(dedupe_key text, now_ms bigint)
            WHERE deliveries.dedupe_key = r.dedupe_key AND state IN ('waiting', 'dead')",

        forget_attempts: "
            UPDATE deliveries SET attempts = '' FROM json_to_recordset($1::json) AS r(dedupe_key text)
            WHERE deliveries.dedupe_key = r.dedupe_key AND attempts <> ''",

        standing: "
            SELECT sink, state, count(*) AS count, min(coalesce(ended_at_ms, recorded_at_ms)) AS oldest_ms
            FROM deliveries WHERE state IN ('waiting', 'dead') AND $1::text IS NOT NULL
            GROUP BY sink, state",
    },

    api_keys: ApiKeyStatements {
        add_key: "
            INSERT INTO api_keys
                (id, name, scope, account_sid, secret_sha256, created_at_ms, created_by)
            SELECT id, name, scope, account_sid, secret_sha256, created_at_ms, created_by
            FROM json_to_recordset($1::json) AS r(id text, name text, scope text, account_sid text,
                secret_sha256 text, created_at_ms bigint, created_by text)",

        find_key: "
            SELECT api_keys.* FROM json_to_recordset($1::json) AS input(id text, account_sid text)
                JOIN api_keys ON api_keys.id = input.id
            WHERE input.account_sid IS NULL OR api_keys.account_sid = input.account_sid",

        find_scope: "
            SELECT api_keys.* FROM json_to_recordset($1::json) AS input(scope text)
                JOIN api_keys ON api_keys.scope = input.scope LIMIT 1",

        list_keys: "
            WITH input AS (SELECT * FROM json_to_recordset($1::json)
                AS r(account_sid text, before_ms bigint, before_id text, most bigint))
            SELECT api_keys.* FROM input JOIN api_keys
                ON (api_keys.created_at_ms, api_keys.id) < (input.before_ms, input.before_id)
            WHERE input.account_sid IS NULL OR api_keys.account_sid = input.account_sid
            ORDER BY api_keys.created_at_ms DESC, api_keys.id DESC
            LIMIT (SELECT most FROM input)",

        revoke_key: "
            UPDATE api_keys SET revoked_at_ms = input.now_ms
            FROM json_to_recordset($1::json) AS input(id text, account_sid text, now_ms bigint)
            WHERE api_keys.id = input.id AND revoked_at_ms IS NULL
                AND (input.account_sid IS NULL OR api_keys.account_sid = input.account_sid)
            RETURNING api_keys.*",

        touch_key: "
            UPDATE api_keys SET last_used_at_ms = input.now_ms
            FROM json_to_recordset($1::json) AS input(id text, now_ms bigint)
            WHERE api_keys.id = input.id AND coalesce(last_used_at_ms, 0) < input.now_ms",

        // One writer at a time, so that ids become visible in order and a reader's cursor skips none.
    },

    sessions: SessionStatements {
        add: "
            INSERT INTO sessions (secret_sha256, key_id, created_at_ms, expires_at_ms)
            SELECT secret_sha256, key_id, created_at_ms, expires_at_ms
            FROM json_to_recordset($1::json) AS r(secret_sha256 text, key_id text, created_at_ms bigint,
                expires_at_ms bigint)",

        find: "
            SELECT sessions.* FROM json_to_recordset($1::json) AS input(secret_sha256 text)
                JOIN sessions ON sessions.secret_sha256 = input.secret_sha256",

        end: "
            DELETE FROM sessions USING json_to_recordset($1::json) AS input(secret_sha256 text)
            WHERE sessions.secret_sha256 = input.secret_sha256
            RETURNING sessions.*",

        prune: "
            WITH input AS (SELECT * FROM json_to_recordset($1::json)
                AS r(key_id text, now_ms bigint, most bigint)),
            extra AS (SELECT sessions.secret_sha256 FROM input JOIN sessions
                    ON sessions.expires_at_ms <= input.now_ms
                UNION ALL
                SELECT secret_sha256 FROM (
                    SELECT sessions.secret_sha256 FROM input JOIN sessions
                        ON sessions.key_id = input.key_id
                    ORDER BY sessions.created_at_ms DESC
                    OFFSET (SELECT most FROM input)) AS oldest)
            DELETE FROM sessions USING extra WHERE sessions.secret_sha256 = extra.secret_sha256",
    },

    audit: AuditStatements {
        add: "
            WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(20019141, 1))
            INSERT INTO audit (at_ms, actor, source, action, subject, account_sid, detail)
            SELECT at_ms, actor, source, action, subject, account_sid, detail
            FROM turn CROSS JOIN json_to_recordset($1::json) AS r(at_ms bigint, actor text, source text,
                action text, subject text, account_sid text, detail text)",
    },

    suppressions: SuppressionStatements {
        lock: concat!(
            "SELECT ",
            suppression_columns!(),
            " FROM suppressions WHERE (tenant, number) IN (SELECT tenant, number \
                FROM json_to_recordset($1::json) AS r(tenant text, number text)) \
            ORDER BY tenant, number, channel, error_code, source FOR UPDATE"
        ),

        keep: concat!(
            "INSERT INTO suppressions (",
            suppression_columns!(),
            ") SELECT ",
            suppression_columns!(),
            " FROM json_to_recordset($1::json) AS r(tenant text, number text, channel text, source text, \
                error_code text, suppressed boolean, since_ms bigint, expires_at_ms bigint, changed_at_ms bigint, message_sid text, \
                route text, origin_channel text, sender text, service_sid text, changed_by text) \
            ORDER BY tenant COLLATE \"C\", number COLLATE \"C\", channel COLLATE \"C\", source COLLATE \"C\", \
                error_code COLLATE \"C\" ",
            suppression_upsert!()
        ),

        // OFFSET 0 keeps the query going person by person. PostgreSQL expects a hundred rows of any JSON, and would read
        // the whole table for so many.
        of_contacts: concat!(
            "SELECT found.* FROM json_to_recordset($1::json) AS input(tenant text, number text) \
                CROSS JOIN LATERAL (SELECT ",
            suppression_columns!(),
            " FROM suppressions WHERE suppressions.tenant = input.tenant \
                AND suppressions.number = input.number OFFSET 0) AS found"
        ),

        list: suppressions_after!(""),
        list_of_source: suppressions_after!(
            "AND suppressions.source = input.source \
                AND (suppressions.number, suppressions.channel, suppressions.error_code) \
                    >= (input.number, input.channel, input.error_code) "
        ),
        // A row that another transaction changes is examined next time.
        lock_expired: concat!(
            "SELECT ",
            suppression_columns!(),
            " FROM suppressions WHERE suppressed AND expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2 \
            FOR UPDATE SKIP LOCKED"
        ),
    },

    peers: PeerStatements {
        heartbeat: "
            INSERT INTO sidecars AS known (id, alive_until_ms, partition_until_ms, written_ms)
            SELECT id, now_ms + alive_ms, 0, written_ms
            FROM json_to_recordset($1::json) AS r(id text, alive_ms bigint, written_ms bigint),
                (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms) AS clock
            ON CONFLICT (id) DO UPDATE SET alive_until_ms = excluded.alive_until_ms,
                written_ms = greatest(known.written_ms, excluded.written_ms)",

        enter_partition: "
            INSERT INTO sidecars AS known (id, alive_until_ms, partition_until_ms, written_ms)
            SELECT id, now_ms + alive_ms, now_ms + partition_ms, 0
            FROM json_to_recordset($1::json) AS r(id text, alive_ms bigint, partition_ms bigint),
                (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms) AS clock
            ON CONFLICT (id) DO UPDATE SET alive_until_ms = excluded.alive_until_ms,
                partition_until_ms = greatest(known.partition_until_ms, excluded.partition_until_ms)",

        leave: "
            DELETE FROM sidecars USING json_to_recordset($1::json) AS input(id text)
            WHERE sidecars.id = input.id
                OR alive_until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 86400000",

        state: "
            SELECT now_ms, (SELECT count(*) FROM sidecars WHERE partition_until_ms > now_ms) AS cut_off,
                (SELECT count(*) FROM sidecars WHERE sidecars.id <> input.id AND alive_until_ms > now_ms
                    AND written_ms <= input.since_ms) AS behind
            FROM json_to_recordset($1::json) AS input(id text, since_ms bigint),
                (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms) AS clock",
    },

    tenants: TenantStatements {
        changes: "
            SELECT coalesce(sum(revision), 0)::bigint AS changes
            FROM json_array_elements($1::json) CROSS JOIN tenants",

        list: "
            WITH input AS (SELECT * FROM json_to_recordset($1::json)
                AS r(account_sid text, after text, most bigint))
            SELECT tenants.* FROM input JOIN tenants
                ON tenants.account_sid > input.after
            WHERE input.account_sid IS NULL OR tenants.account_sid = input.account_sid
            ORDER BY tenants.account_sid LIMIT (SELECT most FROM input)",

        keep: "
            INSERT INTO tenants (account_sid, parent_sid, friendly_name, senders, services, policy, retention, revision,
                created_at_ms, updated_at_ms, closed_at_ms)
            SELECT account_sid, parent_sid, friendly_name, senders, services, policy, retention, revision,
                created_at_ms, updated_at_ms, closed_at_ms
            FROM json_to_recordset($1::json) AS r(account_sid text, parent_sid text, friendly_name text, senders text, services text, policy text,
                retention text, revision bigint, created_at_ms bigint, updated_at_ms bigint, closed_at_ms bigint)
            ON CONFLICT (account_sid) DO UPDATE SET parent_sid = excluded.parent_sid, friendly_name = excluded.friendly_name, senders =
                excluded.senders, services = excluded.services, policy = excluded.policy, retention =
                excluded.retention, revision = excluded.revision, created_at_ms = excluded.created_at_ms,
                updated_at_ms = excluded.updated_at_ms, closed_at_ms = excluded.closed_at_ms",
    },

    consents: ConsentStatements {
        record: concat!(
            "INSERT INTO consents (",
            consent_columns!(),
            ") SELECT ",
            consent_columns!(),
            " FROM json_to_recordset($1::json) AS r(id text, tenant text, number text, channel text, category text, \
                state text, at_ms bigint, source text, proof text, ip text, user_agent text, recorded_at_ms bigint, \
                recorded_by text) \
            ORDER BY id COLLATE \"C\" ON CONFLICT (id) DO NOTHING RETURNING id"
        ),

        of_contacts: concat!(
            "SELECT found.* FROM json_to_recordset($1::json) AS input(tenant text, number text) \
                CROSS JOIN LATERAL (SELECT ",
            consent_columns!(),
            " FROM consents WHERE consents.tenant = input.tenant \
                AND consents.number = input.number OFFSET 0) AS found \
                ORDER BY at_ms DESC, id LIMIT 1000"
        ),

        // Read in index order up to the limit, like the page of suppressions.
        list: "
            WITH input AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS r(tenant text, on_channel text,
                in_category text, history boolean, number text, channel text, category text, at_ms bigint,
                state text, id text, most bigint) LIMIT 1)
            SELECT found.* FROM input CROSS JOIN LATERAL (
                SELECT consent.* FROM consents AS consent WHERE consent.tenant = input.tenant
                    AND (consent.number, consent.channel, consent.category, consent.at_ms, consent.state, consent.id)
                        > (input.number, input.channel, input.category, input.at_ms, input.state, input.id)
                    AND (on_channel IS NULL OR consent.channel = on_channel)
                    AND (in_category IS NULL OR consent.category = in_category)
                    AND (input.history OR NOT EXISTS (SELECT 1 FROM consents AS later
                        WHERE later.tenant = consent.tenant AND later.number = consent.number
                            AND later.channel = consent.channel AND later.category = consent.category
                            AND (later.at_ms, later.state, later.id) > (consent.at_ms, consent.state, consent.id)))
                ORDER BY consent.number, consent.channel, consent.category, consent.at_ms, consent.state, consent.id
                LIMIT input.most) AS found
            ORDER BY found.number, found.channel, found.category, found.at_ms, found.state, found.id",

        last_inbound: "
            SELECT ours, max(received_at_ms) AS last_inbound_ms
            FROM json_to_recordset($1::json) AS input(tenant text, channel text, number text) JOIN events
                ON theirs = input.number AND account_sid = input.tenant AND events.channel = input.channel
            WHERE class = 'inbound' AND ours IS NOT NULL AND received_at_ms IS NOT NULL
            GROUP BY ours",
    },

    idempotency: IdempotencyStatements {
        find: "
            SELECT fingerprint, held_until_ms, status, headers, body, created_at_ms, expires_at_ms
            FROM json_to_recordset($1::json) AS input(tenant text, principal text, idempotency_key text)
                JOIN idempotency_keys USING (tenant, principal, idempotency_key)",

        take: "
            INSERT INTO idempotency_keys (tenant, principal, idempotency_key, fingerprint, owner, held_until_ms,
                created_at_ms, expires_at_ms)
            SELECT tenant, principal, idempotency_key, fingerprint, owner, held_until_ms, created_at_ms, expires_at_ms
            FROM json_to_recordset($1::json) AS r(tenant text, principal text, idempotency_key text, fingerprint text,
                owner text, held_until_ms bigint, created_at_ms bigint, expires_at_ms bigint)
            ON CONFLICT (tenant, principal, idempotency_key) DO UPDATE SET fingerprint = excluded.fingerprint,
                owner = excluded.owner, held_until_ms = excluded.held_until_ms, status = NULL, headers = NULL,
                body = NULL, created_at_ms = excluded.created_at_ms, expires_at_ms = excluded.expires_at_ms",

        answer: "
            UPDATE idempotency_keys AS stored SET status = input.status, headers = input.headers, body = input.body
            FROM json_to_recordset($1::json) AS input(tenant text, principal text, idempotency_key text, owner text,
                status bigint, headers text, body text)
            WHERE stored.tenant = input.tenant AND stored.principal = input.principal
                AND stored.idempotency_key = input.idempotency_key AND stored.owner = input.owner AND stored.status IS NULL
            RETURNING stored.idempotency_key",

        give_up: "
            DELETE FROM idempotency_keys AS stored
            USING json_to_recordset($1::json)
                AS input(tenant text, principal text, idempotency_key text, owner text)
            WHERE stored.tenant = input.tenant AND stored.principal = input.principal
                AND stored.idempotency_key = input.idempotency_key AND stored.owner = input.owner AND stored.status IS NULL",

        let_go: "
            UPDATE idempotency_keys AS stored SET held_until_ms = 0
            FROM json_to_recordset($1::json)
                AS input(tenant text, principal text, idempotency_key text, owner text)
            WHERE stored.tenant = input.tenant AND stored.principal = input.principal
                AND stored.idempotency_key = input.idempotency_key AND stored.owner = input.owner AND stored.status IS NULL",
    },
};
