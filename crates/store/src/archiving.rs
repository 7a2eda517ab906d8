//! Queue of the archive, and the batches that are being archived. A database trigger queues a webhook in the transaction
//! that writes its form, whichever code writes it. A batch is created in one transaction and does not change until it is
//! archived: after a crash, the next holder writes the same object again under the same name. This module must not know
//! where objects are stored.

use std::{future::Future, time::Duration};

use sqlx::FromRow;

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

const SPAN: &str = "
    SELECT min(received_at_ms) AS first_ms, max(received_at_ms) AS last_ms FROM archive_queue WHERE batch_id = $1";

const NAME_BATCH: &str = "UPDATE archive_batches SET object = $2 WHERE batch_id = $1";

const LEFT: &str = "
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

const QUEUED: &str = "
    SELECT account_sid, min(received_at_ms) AS since_ms FROM archive_queue GROUP BY account_sid";

const NEXT_ERASURE: &str = "
    SELECT id, account_sid, message_sid, number, channel, since_ms, until_ms, held_by, held_until_ms
    FROM archive_erasures WHERE held_until_ms <= $1
        AND NOT EXISTS (SELECT 1 FROM archive_batches WHERE archive_batches.account_sid = archive_erasures.account_sid
            AND archive_batches.made_at_ms <= archive_erasures.made_at_ms)
    ORDER BY made_at_ms LIMIT 1";

/// `$1` is the erasure, `$2` and `$3` the new holder and the end of its hold, `$4` and `$5` the previous ones.
const HOLD_ERASURE: &str = "
    UPDATE archive_erasures SET held_by = $2, held_until_ms = $3
    WHERE id = $1 AND held_by = $4 AND held_until_ms = $5";

const END_ERASURE: &str = "DELETE FROM archive_erasures WHERE id = $1 AND held_by = $2";

/// `$1` is the account; empty for any account.
const ERASING: &str = "SELECT count(*) FROM archive_erasures WHERE $1 = '' OR account_sid = $1";

/// Only with an archive, which also contains what was redacted in the ledger. `$1` is the id, `$2` the account, `$3` the
/// message, `$4` the number, `$5` the channel (the last three may be empty for any), `$6` and `$7` the period, `$8` now.
pub(super) const ADD_ERASURE: &str = "
    INSERT INTO archive_erasures (id, account_sid, message_sid, number, channel, since_ms, until_ms, made_at_ms)
    SELECT $1, $2, NULLIF($3, ''), NULLIF($4, ''), NULLIF($5, ''), $6, $7, $8
    WHERE EXISTS (SELECT 1 FROM archive_switch)";

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
struct WaitingRow {
    account_sid: String,
    since_ms: i64,
}

#[derive(FromRow)]
struct SpanRow {
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

#[derive(FromRow)]
struct LeftRow {
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

/// Erasure in archived objects, held by one sidecar for a limited time.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct ArchiveErasure {
    /// Id of the erasure.
    pub id: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Erases only this message.
    pub message_sid: Option<String>,
    /// Erases only the data of this contact.
    pub number: Option<String>,
    /// Erases only data on this channel.
    pub channel: Option<String>,
    /// Erases only webhooks received at this time or later, in milliseconds since 1970.
    pub since_ms: i64,
    /// Erases only webhooks received at this time or earlier, in milliseconds since 1970.
    pub until_ms: i64,
    held_by: String,
    held_until_ms: i64,
}

/// The queue of the archive in one database.
#[derive(Debug, Clone)]
pub struct ArchiveQueue {
    pub(super) database: Database,
    timeout: Duration,
}

impl ArchiveQueue {
    pub(super) fn of(database: Database, timeout: Duration) -> ArchiveQueue {
        ArchiveQueue { database, timeout }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<ArchiveQueue, StoreError> {
        // A command is not urgent: it waits for the sidecar's writes instead of failing.
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        Ok(ArchiveQueue { database: Database::open_beside(settings).await?, timeout })
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
        self.bounded(async {
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
        let found: Vec<(i64,)> = self.bounded(self.database.read_bound(SINCE, &[])).await?;
        Ok(found.first().map(|(since_ms,)| *since_ms))
    }

    /// Disables the queue and drops its content. Returns the number of accounts that had queued webhooks.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn stop(&self) -> Result<usize, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let queued: Vec<WaitingRow> = tx.fetch_bound(QUEUED, &[]).await?;
            // Retention skipped the queued webhooks and must examine them again.
            let passed =
                queued.iter().map(|row| (row.account_sid.as_str(), row.since_ms)).collect();
            rewind(&mut tx, self.database.statements().retention.rewind, passed).await?;
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
        let found: Vec<(Option<i64>,)> =
            self.bounded(self.database.read_bound(OLDEST, &[])).await?;
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
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let name = match take_left(&mut tx, held_by, now_ms, until_ms).await? {
                Some(name) => Some(name),
                None => make(&mut tx, held_by, limits, now_ms, until_ms).await?,
            };
            let Some(name) = name else { return Ok(None) };
            let rows: Vec<LineRow> = tx.fetch_bound(LINES, &[Bind::Text(&name.batch_id)]).await?;
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
        let held = self.bounded(async {
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
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let which = [Bind::Text(&batch.name.batch_id)];
            tx.execute_bound(DEQUEUE, &which).await?;
            tx.execute_bound(DROP_BATCH, &which).await?;
            let first = [(batch.name.account_sid.as_str(), Some(batch.name.first_ms))];
            let late = late(first.into_iter(), now_ms);
            rewind(&mut tx, self.database.statements().retention.rewind, late).await?;
            tx.commit().await
        })
        .await
    }

    /// Takes the next erasure, held by `held_by` alone until `until_ms`. An erasure waits until the batches that existed at
    /// its request are written, because data that is not there yet cannot be erased.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take_erasure(
        &self,
        held_by: &str,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Option<ArchiveErasure>, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let found: Vec<ArchiveErasure> =
                tx.fetch_bound(NEXT_ERASURE, &[Bind::Whole(now_ms)]).await?;
            let Some(mut erasure) = found.into_iter().next() else { return Ok(None) };
            let held = hold_erasure(&mut tx, &mut erasure, held_by, until_ms).await?;
            tx.commit().await?;
            Ok(held.then_some(erasure))
        })
        .await
    }

    /// Changes the end of an erasure's hold. Returns `false` if another sidecar holds the erasure.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn hold_erasure(
        &self,
        erasure: &mut ArchiveErasure,
        held_by: &str,
        until_ms: i64,
    ) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let held = hold_erasure(&mut tx, erasure, held_by, until_ms).await?;
            tx.commit().await?;
            Ok(held)
        })
        .await
    }

    /// Removes a completed erasure, unless another sidecar has taken it meanwhile; that sidecar then completes it.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn end_erasure(
        &self,
        erasure: &ArchiveErasure,
        held_by: &str,
    ) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let binds = [Bind::Text(&erasure.id), Bind::Text(held_by)];
            tx.execute_bound(END_ERASURE, &binds).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns whether an erasure of this account, or of any account, is pending.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn is_erasing(&self, account_sid: Option<&str>) -> Result<bool, StoreError> {
        let binds = [Bind::Text(account_sid.unwrap_or_default())];
        let found: Vec<(i64,)> = self.bounded(self.database.read_bound(ERASING, &binds)).await?;
        Ok(found.first().is_some_and(|(count,)| *count > 0))
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }
}

async fn hold_erasure(
    tx: &mut Transaction,
    erasure: &mut ArchiveErasure,
    held_by: &str,
    until_ms: i64,
) -> Result<bool, StoreError> {
    let binds = [
        Bind::Text(&erasure.id),
        Bind::Text(held_by),
        Bind::Whole(until_ms),
        Bind::Text(&erasure.held_by),
        Bind::Whole(erasure.held_until_ms),
    ];
    let held = tx.execute_bound(HOLD_ERASURE, &binds).await? > 0;
    if held {
        (erasure.held_by, erasure.held_until_ms) = (held_by.to_owned(), until_ms);
    }
    Ok(held)
}

/// Takes a batch whose hold has expired or was given up.
async fn take_left(
    tx: &mut Transaction,
    held_by: &str,
    now_ms: i64,
    until_ms: i64,
) -> Result<Option<ObjectName>, StoreError> {
    let left: Vec<LeftRow> = tx.fetch_bound(LEFT, &[Bind::Whole(now_ms)]).await?;
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

async fn make(
    tx: &mut Transaction,
    held_by: &str,
    limits: Limits,
    now_ms: i64,
    until_ms: i64,
) -> Result<Option<ObjectName>, StoreError> {
    let due_ms = now_ms.saturating_sub(limits.age_ms);
    let waiting: Vec<WaitingRow> = tx.fetch_bound(NEXT, &[Bind::Whole(due_ms)]).await?;
    let Some(WaitingRow { account_sid, since_ms }) = waiting.into_iter().next() else {
        return Ok(None);
    };
    let dice = getrandom::u64()
        .map_err(|_| StoreError::Away("the system has no randomness for a name".to_owned()))?;
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
    let span: Vec<SpanRow> = tx.fetch_bound(SPAN, &[Bind::Text(&batch_id)]).await?;
    let Some(SpanRow { first_ms: Some(first_ms), last_ms: Some(last_ms) }) = span.first() else {
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
