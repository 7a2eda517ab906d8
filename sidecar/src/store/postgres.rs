//! The ledger in PostgreSQL: how it is reached, and every statement. Each statement takes one JSON array of rows, so
//! that a batch is one statement whatever its size; rows are always locked in the order of their key, so that
//! two batches cannot wait for each other. What the rows mean is the ledger's business.

use std::{str::FromStr, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use tokio::time::Instant;

use super::sql::{Statements, StoreError};
use crate::config;

/// How long to leave a server alone that is not up yet.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(super) struct Postgres {
    /// A commit survives the end of our process, but not of the server's within its next write (`synchronous_commit`).
    pub(super) quick: PgPool,
    /// A commit survives both.
    pub(super) durable: PgPool,
}

impl Postgres {
    pub(super) async fn open(settings: &config::Database) -> Result<Postgres, StoreError> {
        let options = PgConnectOptions::from_str(settings.url.expose())
            .map_err(|error| StoreError::Away(error.to_string()))?
            .application_name("twilio-edge");
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        let mut connection = reach(&options, Instant::now() + timeout).await?;
        // The migrator takes an advisory lock: sidecars that start together wait for each other.
        sqlx::migrate!("migrations/postgres")
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Refused(format!("to be migrated: {error}")))?;
        let _ = connection.close().await;
        let durable = (settings.max_connections / 3).max(1);
        let quick = settings.max_connections.saturating_sub(durable).max(1);
        let pool = |connections, synchronous_commit| {
            pool(&options, settings.timeout_ms, connections, synchronous_commit)
        };
        Ok(Postgres { quick: pool(quick, "off"), durable: pool(durable, "on") })
    }
}

/// The first connection: a server that is still starting is waited for, one that refuses us is not.
async fn reach(options: &PgConnectOptions, deadline: Instant) -> Result<PgConnection, StoreError> {
    loop {
        let failure = match tokio::time::timeout_at(deadline, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let starting =
            failure.contains("starting up") || !failure.contains("returned from database");
        if !starting || Instant::now() + RETRY >= deadline {
            return Err(StoreError::Away(failure));
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn pool(
    options: &PgConnectOptions,
    timeout_ms: u64,
    connections: u32,
    synchronous_commit: &'static str,
) -> PgPool {
    // We stop waiting after timeout_ms; the server must not go on for much longer with what nobody waits for.
    let limit_ms = timeout_ms.saturating_mul(2);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(timeout_ms))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let settings = format!(
                    "SET synchronous_commit = {synchronous_commit}; SET statement_timeout = {limit_ms}; \
                     SET idle_in_transaction_session_timeout = {limit_ms}"
                );
                sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(|_| ())
            })
        })
        .connect_lazy_with(options.clone())
}

pub(super) const STATEMENTS: Statements = Statements {
    begin: "BEGIN",

    // Inserts what is missing, so that there is a row to lock, and locks what is there.
    lock_leases: "
        INSERT INTO leases AS kept (dedupe_key, state, attempt, first_seen_ms, forget_at_ms)
        SELECT dedupe_key, 'free', 0, now_ms, forget_at_ms
        FROM json_to_recordset($1::json) AS r(dedupe_key text, now_ms bigint, forget_at_ms bigint)
        ORDER BY dedupe_key COLLATE \"C\"
        ON CONFLICT (dedupe_key) DO UPDATE SET dedupe_key = kept.dedupe_key
        RETURNING dedupe_key, state, claim_id, attempt, first_seen_ms, lease_until_ms, answer, forget_at_ms",

    keep_leases: "
        UPDATE leases SET state = r.state, claim_id = r.claim_id, attempt = r.attempt,
            first_seen_ms = r.first_seen_ms, lease_until_ms = r.lease_until_ms, answer = r.answer,
            forget_at_ms = r.forget_at_ms
        FROM json_to_recordset($1::json) AS r(dedupe_key text, state text, claim_id text, attempt bigint,
            first_seen_ms bigint, lease_until_ms bigint, answer text, forget_at_ms bigint)
        WHERE leases.dedupe_key = r.dedupe_key",

    find_endings: "
        SELECT endings.dedupe_key, endings.claim_id, endings.ending, endings.forget_at_ms
        FROM endings JOIN json_to_recordset($1::json) AS r(dedupe_key text, claim_id text, now_ms bigint)
            ON endings.dedupe_key = r.dedupe_key AND endings.claim_id = r.claim_id
        WHERE endings.forget_at_ms > r.now_ms",

    keep_endings: "
        INSERT INTO endings (dedupe_key, claim_id, ending, forget_at_ms)
        SELECT dedupe_key, claim_id, ending, forget_at_ms
        FROM json_to_recordset($1::json)
            AS r(dedupe_key text, claim_id text, ending text, forget_at_ms bigint)
        ON CONFLICT (dedupe_key, claim_id) DO UPDATE
            SET ending = excluded.ending, forget_at_ms = excluded.forget_at_ms",

    open_windows: "
        INSERT INTO windows AS kept (account_sid, channel, theirs, ours, last_inbound_ms)
        SELECT account_sid, channel, theirs, ours, last_inbound_ms
        FROM json_to_recordset($1::json)
            AS r(account_sid text, channel text, theirs text, ours text, last_inbound_ms bigint)
        ORDER BY account_sid COLLATE \"C\", channel COLLATE \"C\", theirs COLLATE \"C\", ours COLLATE \"C\"
        ON CONFLICT (account_sid, channel, theirs, ours) DO UPDATE
            SET last_inbound_ms = greatest(kept.last_inbound_ms, excluded.last_inbound_ms)
        RETURNING account_sid, channel, theirs, ours, last_inbound_ms",

    find_suppressions: "
        SELECT tenant, channel, number, suppressed, message_sid, changed_at_ms
        FROM suppressions WHERE (tenant, channel, number) IN (
            SELECT tenant, channel, number
            FROM json_to_recordset($1::json) AS r(tenant text, channel text, number text))",

    lock_suppressions: "
        SELECT tenant, channel, number, suppressed, message_sid, changed_at_ms
        FROM suppressions WHERE (tenant, channel, number) IN (
            SELECT tenant, channel, number
            FROM json_to_recordset($1::json) AS r(tenant text, channel text, number text))
        ORDER BY tenant, channel, number FOR UPDATE",

    keep_suppressions: "
        INSERT INTO suppressions (tenant, channel, number, suppressed, message_sid, changed_at_ms)
        SELECT tenant, channel, number, suppressed, message_sid, changed_at_ms
        FROM json_to_recordset($1::json) AS r(tenant text, channel text, number text, suppressed boolean,
            message_sid text, changed_at_ms bigint)
        ORDER BY tenant COLLATE \"C\", channel COLLATE \"C\", number COLLATE \"C\"
        ON CONFLICT (tenant, channel, number) DO UPDATE SET suppressed = excluded.suppressed,
            message_sid = excluded.message_sid, changed_at_ms = excluded.changed_at_ms",

    record_opts: "
        INSERT INTO opt_events
            (account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms)
        SELECT account_sid, message_sid, channel, number, opt, cause, route, recorded_at_ms
        FROM json_to_recordset($1::json) AS r(account_sid text, message_sid text, channel text,
            number text, opt text, cause text, route text, recorded_at_ms bigint)
        ORDER BY account_sid COLLATE \"C\", message_sid COLLATE \"C\"
        ON CONFLICT (account_sid, message_sid) DO NOTHING
        RETURNING account_sid, message_sid",

    // In whatever order a webhook's arrival and its end are written, the row ends up the same.
    keep_events: "
        INSERT INTO events AS kept (dedupe_key, class, account_sid, message_sid, status, error_code, route,
            form, received_at_ms, attempts, outcome, settled_at_ms)
        SELECT dedupe_key, class, account_sid, message_sid, status, error_code, route, form,
            received_at_ms, attempts, outcome, settled_at_ms
        FROM json_to_recordset($1::json) AS r(dedupe_key text, class text, account_sid text,
            message_sid text, status text, error_code text, route text, form text, received_at_ms bigint,
            attempts bigint, outcome text, settled_at_ms bigint)
        ORDER BY dedupe_key COLLATE \"C\"
        ON CONFLICT (dedupe_key) DO UPDATE SET
            route = coalesce(kept.route, excluded.route),
            form = coalesce(kept.form, excluded.form),
            received_at_ms = least(kept.received_at_ms, excluded.received_at_ms),
            attempts = greatest(kept.attempts, excluded.attempts),
            outcome = CASE WHEN kept.outcome = 'accepted' THEN kept.outcome
                ELSE coalesce(excluded.outcome, kept.outcome) END,
            settled_at_ms = CASE WHEN kept.outcome = 'accepted' THEN kept.settled_at_ms
                ELSE coalesce(excluded.settled_at_ms, kept.settled_at_ms) END",

    forget: &[
        "DELETE FROM leases WHERE dedupe_key IN (SELECT dedupe_key FROM leases
            WHERE forget_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM endings WHERE (dedupe_key, claim_id) IN (SELECT dedupe_key, claim_id FROM endings
            WHERE forget_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    ],
};
