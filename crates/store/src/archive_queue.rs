//! Queue of the archive, and the batches that are being archived. A database trigger queues a webhook in the transaction
//! that writes its form, whichever code writes it. A batch is created in one transaction and does not change until it is
//! archived: after a crash, the next holder writes the same object again under the same name. This module must not know
//! where objects are stored.

mod erasures;

use sqlx::FromRow;

pub(crate) use self::erasures::ADD_ERASURE;
pub use self::erasures::ArchiveErasure;
use super::retention::{late, rewind};
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::{
    archive::{ArchivedWebhook, Envelope, ObjectName, day_of},
    window::rfc3339,
};
use twilio_edge_platform::config;

/// Enables the queue; only the first execution has an effect.
const BEGIN: &str = "
    INSERT INTO archive_switch (id, since_ms) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";

const SINCE: &str = "SELECT since_ms FROM archive_switch";

/// Accounts with queued webhooks, and the age of the oldest one. The query jumps from account to account in the index
/// instead of scanning all rows.
macro_rules! waiting {
    ($select:literal) => {
        concat!(
            "WITH RECURSIVE accounts(account_sid) AS (
                SELECT min(account_sid) FROM archive_queue
                UNION ALL
                SELECT (SELECT min(account_sid) FROM archive_queue
                    WHERE archive_queue.account_sid > accounts.account_sid)
                FROM accounts WHERE accounts.account_sid IS NOT NULL),
            waiting AS (
                SELECT account_sid, (SELECT min(received_at_ms) FROM archive_queue
                    WHERE archive_queue.account_sid = accounts.account_sid) AS since_ms
                FROM accounts WHERE account_sid IS NOT NULL) ",
            $select
        )
    };
}

pub(super) const OLDEST: &str = waiting!("SELECT min(since_ms) FROM waiting");

/// `$1` is the time: what has waited since then or longer is due.
pub(super) const NEXT: &str = waiting!(
    "SELECT account_sid, since_ms FROM waiting WHERE since_ms <= $1
        AND NOT EXISTS (SELECT 1 FROM archive_batches WHERE archive_batches.account_sid = waiting.account_sid)
     ORDER BY since_ms LIMIT 1"
);

const ADD_BATCH: &str = "
    INSERT INTO archive_batches (account_sid, batch_id, object, made_at_ms, held_by, held_until_ms)
    VALUES ($1, $2, '', $3, $4, $5) ON CONFLICT (account_sid) DO NOTHING";

/// `$1` is the batch, `$2` the account, `$3` the start, `$4` the end, `$5` the maximum number of rows, `$6` of bytes. At
/// least one row is taken.
pub(super) const FILL_BATCH: &str = "
    UPDATE archive_queue SET batch_id = $1 WHERE dedupe_key IN (
        SELECT dedupe_key FROM (
            SELECT dedupe_key, sum(bytes) OVER (ORDER BY received_at_ms, dedupe_key) - bytes AS before FROM (
                SELECT dedupe_key, received_at_ms, bytes FROM archive_queue
                WHERE account_sid = $2 AND received_at_ms >= $3 AND received_at_ms < $4
                ORDER BY received_at_ms, dedupe_key LIMIT $5) AS first) AS summed
        WHERE before < $6)";

const PERIOD: &str = "
    SELECT min(received_at_ms) AS first_ms, max(received_at_ms) AS last_ms FROM archive_queue WHERE batch_id = $1";

const NAME_BATCH: &str = "UPDATE archive_batches SET object = $2 WHERE batch_id = $1";

const ABANDONED: &str = "
    SELECT account_sid, batch_id, object, held_by, held_until_ms FROM archive_batches
    WHERE held_until_ms <= $1 ORDER BY held_until_ms LIMIT 1";

/// `$1` is the batch, `$2` and `$3` the new holder and the end of its hold, `$4` and `$5` the previous ones.
const HOLD: &str = "
    UPDATE archive_batches SET held_by = $2, held_until_ms = $3
    WHERE batch_id = $1 AND held_by = $4 AND held_until_ms = $5";

pub(super) const LINES: &str = "
    SELECT events.dedupe_key, class, events.account_sid, message_sid, status, error_code, route, envelope, form, theirs,
        archive_queue.received_at_ms AS queued_ms
    FROM archive_queue JOIN events ON events.dedupe_key = archive_queue.dedupe_key
    WHERE batch_id = $1 AND form IS NOT NULL ORDER BY archive_queue.received_at_ms, events.dedupe_key";

const DEQUEUE: &str = "DELETE FROM archive_queue WHERE batch_id = $1";

const DROP_BATCH: &str = "DELETE FROM archive_batches WHERE batch_id = $1";

const OLDEST_BY_ACCOUNT: &str = "
    SELECT account_sid, min(received_at_ms) AS since_ms FROM archive_queue GROUP BY account_sid";

/// Object to write, held by one sidecar for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Name of the object.
    pub name: ObjectName,
    /// Lines in order of arrival; empty when all were withdrawn.
    pub lines: Vec<ArchivedWebhook>,
    /// End of the hold, in milliseconds since 1970.
    pub held_until_ms: i64,
}

/// Limits of a batch: its size, and its waiting time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of lines.
    pub lines: i64,
    /// Maximum bytes of forms; a batch ends with the form that reaches it.
    pub bytes: i64,
    /// Maximum age of the first webhook, in milliseconds.
    pub age_ms: i64,
    /// Milliseconds during which a new webhook is left out, because earlier ones may still be in other transactions.
    pub settle_ms: i64,
}

#[derive(FromRow)]
struct OldestRow {
    account_sid: String,
    since_ms: i64,
}

#[derive(FromRow)]
struct PeriodRow {
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

#[derive(FromRow)]
struct AbandonedBatchRow {
    account_sid: String,
    batch_id: String,
    object: String,
    held_by: String,
    held_until_ms: i64,
}

#[derive(FromRow)]
struct LineRow {
    dedupe_key: String,
    class: String,
    account_sid: String,
    message_sid: String,
    status: Option<String>,
    error_code: Option<String>,
    route: Option<String>,
    envelope: Option<String>,
    form: String,
    theirs: Option<String>,
    queued_ms: i64,
}

/// The queue of the archive in one database.
#[derive(Debug, Clone)]
pub struct ArchiveQueue {
    pub(super) database: Database,
}

impl ArchiveQueue {
    pub(super) fn of(database: Database) -> ArchiveQueue {
        ArchiveQueue { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<ArchiveQueue, StoreError> {
        Ok(ArchiveQueue::of(Database::open_beside(settings).await?))
    }

    /// Closes the connections. Only for an instance from [`ArchiveQueue::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Enables the queue: from now on every webhook of every sidecar is queued.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn begin(&self, now_ms: i64) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.execute_bound(BEGIN, &[Bind::Whole(now_ms)]).await?;
                tx.commit().await
            })
            .await
    }

    /// Returns the time since which webhooks are queued, in milliseconds since 1970.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn since(&self) -> Result<Option<i64>, StoreError> {
        let found: Vec<(i64,)> = self.database.read_bound(SINCE, &[]).await?;
        Ok(found.first().map(|(since_ms,)| *since_ms))
    }

    /// Disables the queue and drops its content. Returns the number of accounts that had queued webhooks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn stop(&self) -> Result<usize, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let queued: Vec<OldestRow> = tx.fetch_bound(OLDEST_BY_ACCOUNT, &[]).await?;
                // Retention skipped the queued webhooks and must examine them again.
                let passed =
                    queued.iter().map(|row| (row.account_sid.as_str(), row.since_ms)).collect();
                rewind(&mut tx, passed).await?;
                for statement in [
                    "DELETE FROM archive_switch",
                    "DELETE FROM archive_queue",
                    "DELETE FROM archive_batches",
                ] {
                    tx.execute_bound(statement, &[]).await?;
                }
                tx.commit().await?;
                Ok(queued.len())
            })
            .await
    }

    /// Returns the arrival time of the oldest webhook that is not archived, in milliseconds since 1970.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn oldest(&self) -> Result<Option<i64>, StoreError> {
        let found: Vec<(Option<i64>,)> = self.database.read_bound(OLDEST, &[]).await?;
        Ok(found.first().and_then(|(since_ms,)| *since_ms))
    }

    /// Takes the next batch, held by `held_by` alone until `until_ms`: an abandoned batch, else a new one if one is due.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take(
        &self,
        held_by: &str,
        limits: Limits,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Option<Batch>, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let name = match take_abandoned(&mut tx, held_by, now_ms, until_ms).await? {
                    Some(name) => Some(name),
                    None => create_batch(&mut tx, held_by, limits, now_ms, until_ms).await?,
                };
                let Some(name) = name else { return Ok(None) };
                let rows: Vec<LineRow> =
                    tx.fetch_bound(LINES, &[Bind::Text(&name.batch_id)]).await?;
                tx.commit().await?;
                let lines = rows.into_iter().map(LineRow::line).collect();
                Ok(Some(Batch { name, lines, held_until_ms: until_ms }))
            })
            .await
    }

    /// Changes the end of a batch's hold, which may be now. Returns `false` if another sidecar holds the batch.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn hold(
        &self,
        batch: &mut Batch,
        held_by: &str,
        until_ms: i64,
    ) -> Result<bool, StoreError> {
        let held = self.database.within_timeout(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let binds = [
                Bind::Text(&batch.name.batch_id),
                Bind::Text(held_by),
                Bind::Whole(until_ms),
                Bind::Text(held_by),
                Bind::Whole(batch.held_until_ms),
            ];
            let held = tx.execute_bound(HOLD, &binds).await? > 0;
            tx.commit().await?;
            Ok(held)
        });
        let held = held.await?;
        if held {
            batch.held_until_ms = until_ms;
        }
        Ok(held)
    }

    /// Removes an archived batch from the queue; from then on retention applies to its webhooks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn end(&self, batch: &Batch, now_ms: i64) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let which = [Bind::Text(&batch.name.batch_id)];
                tx.execute_bound(DEQUEUE, &which).await?;
                tx.execute_bound(DROP_BATCH, &which).await?;
                let first = [(batch.name.account_sid.as_str(), Some(batch.name.first_ms))];
                let late = late(first.into_iter(), now_ms);
                rewind(&mut tx, late).await?;
                tx.commit().await
            })
            .await
    }
}

/// Takes a batch whose hold has expired or was given up.
async fn take_abandoned(
    tx: &mut Transaction,
    held_by: &str,
    now_ms: i64,
    until_ms: i64,
) -> Result<Option<ObjectName>, StoreError> {
    let left: Vec<AbandonedBatchRow> = tx.fetch_bound(ABANDONED, &[Bind::Whole(now_ms)]).await?;
    let Some(left) = left.into_iter().next() else { return Ok(None) };
    let binds = [
        Bind::Text(&left.batch_id),
        Bind::Text(held_by),
        Bind::Whole(until_ms),
        Bind::Text(&left.held_by),
        Bind::Whole(left.held_until_ms),
    ];
    // Another sidecar has taken it first.
    if tx.execute_bound(HOLD, &binds).await? == 0 {
        return Ok(None);
    }
    let unreadable = || StoreError::Refused(format!("the archive's batch of {}", left.account_sid));
    ObjectName::parse(&left.object).map(Some).ok_or_else(unreadable)
}

async fn create_batch(
    tx: &mut Transaction,
    held_by: &str,
    limits: Limits,
    now_ms: i64,
    until_ms: i64,
) -> Result<Option<ObjectName>, StoreError> {
    let due_ms = now_ms.saturating_sub(limits.age_ms);
    let waiting: Vec<OldestRow> = tx.fetch_bound(NEXT, &[Bind::Whole(due_ms)]).await?;
    let Some(OldestRow { account_sid, since_ms }) = waiting.into_iter().next() else {
        return Ok(None);
    };
    let dice = getrandom::u64().map_err(|_| {
        StoreError::Unavailable("the system has no randomness for a name".to_owned())
    })?;
    let batch_id = format!("{dice:016x}");
    let binds = [
        Bind::Text(&account_sid),
        Bind::Text(&batch_id),
        Bind::Whole(now_ms),
        Bind::Text(held_by),
        Bind::Whole(until_ms),
    ];
    if tx.execute_bound(ADD_BATCH, &binds).await? == 0 {
        return Ok(None);
    }
    // An object covers one day.
    let (_, day_ends_ms) = day_of(since_ms);
    let binds = [
        Bind::Text(&batch_id),
        Bind::Text(&account_sid),
        Bind::Whole(since_ms),
        Bind::Whole(day_ends_ms.min(now_ms.saturating_sub(limits.settle_ms).saturating_add(1))),
        Bind::Whole(limits.lines),
        Bind::Whole(limits.bytes),
    ];
    tx.execute_bound(FILL_BATCH, &binds).await?;
    let span: Vec<PeriodRow> = tx.fetch_bound(PERIOD, &[Bind::Text(&batch_id)]).await?;
    let Some(PeriodRow { first_ms: Some(first_ms), last_ms: Some(last_ms) }) = span.first() else {
        return Ok(None);
    };
    let name = ObjectName { account_sid, first_ms: *first_ms, last_ms: *last_ms, batch_id };
    let object = name.key();
    let binds = [Bind::Text(&name.batch_id), Bind::Text(&object)];
    tx.execute_bound(NAME_BATCH, &binds).await?;
    Ok(Some(name))
}

impl LineRow {
    fn line(self) -> ArchivedWebhook {
        let envelope = self.envelope.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let envelope: Envelope = envelope.unwrap_or_default();
        ArchivedWebhook {
            event_id: self.dedupe_key,
            class: self.class,
            account_sid: self.account_sid,
            message_sid: self.message_sid,
            status: self.status,
            error_code: self.error_code,
            received_at: rfc3339(self.queued_ms).unwrap_or_default(),
            route: self.route,
            envelope,
            form: self.form,
            contact: self.theirs,
        }
    }
}
