//! Media of inbound messages: which are to be fetched from Twilio or deleted there, and what became of each. A row is
//! written in the transaction of its webhook's event, so that no crash loses a medium. A sidecar holds a due row for a
//! limited time; another one continues after a crash. This module must not know how media are fetched, nor where their
//! bytes are.

pub(crate) mod erasure;
pub(crate) mod recording;
mod rows;

use sqlx::FromRow;

pub use self::rows::{InboundMediaJob, InboundMedium, TwilioDeletion};
use crate::{
    audit_log::{self, AuditEntry},
    database::{Bind, Database, Durability},
    error::StoreError,
    media::{Medium, USE, stage},
};
use twilio_edge_domain::media::inbound::{FetchFailure, FetchStep};
use twilio_edge_platform::config;

/// Maximum number of rows that one statement deletes.
const ROWS_PER_DELETE: u32 = 1000;

macro_rules! select_media {
    ($rest:literal) => {
        concat!(
            "SELECT i.id, i.account_sid, i.message_sid, i.media_sid, i.position, i.content_type, i.received_at_ms, \
             i.state, i.code, i.attempts, i.ended_at_ms, i.twilio_state, i.is_open, i.due_at_ms, \
             coalesce(m.bytes, 0) AS bytes, coalesce(m.digest, '') AS digest, coalesce(m.expires_at_ms, 0) AS expires_at_ms \
             FROM inbound_media AS i LEFT JOIN media AS m ON m.id = i.id AND m.is_stored = 1 ",
            $rest
        )
    };
}

const OF_MESSAGE: &str =
    select_media!("WHERE i.account_sid = $1 AND i.message_sid = $2 ORDER BY i.position");

const FIND: &str = select_media!("WHERE i.id = $1");

macro_rules! take {
    ($lock:literal) => {
        concat!(
            "UPDATE inbound_media SET held_by = $1, due_at_ms = $3 WHERE id IN ( \
                SELECT id FROM inbound_media WHERE is_open = 1 AND due_at_ms <= $2 ORDER BY due_at_ms LIMIT $4",
            $lock,
            ") RETURNING id, account_sid, message_sid, media_sid, channel, contact, content_type, received_at_ms, state, \
                attempts, twilio_attempts, deleted_by"
        )
    };
}

const TAKE_SQLITE: &str = take!("");
const TAKE_POSTGRES: &str = take!(" FOR UPDATE SKIP LOCKED");

const MARK_STORED: &str =
    "UPDATE media SET is_stored = 1 WHERE id = $1 AND is_stored = 0 AND expires_at_ms > 0";

/// `$3` is the time, `$4` the content type, `$5` the state at Twilio, `$6` whether a deletion is due, `$7` who wants it.
const COMPLETE: &str = "
    UPDATE inbound_media SET state = 'stored', code = '', attempts = attempts + 1, ended_at_ms = $3, content_type = $4,
        twilio_state = $5, is_open = $6, due_at_ms = $3, deleted_by = $7, held_by = ''
    WHERE id = $1 AND held_by = $2 AND state = 'pending'";

/// `$3` is the code, `$4` the state, `$5` its end, `$6` whether another fetch is due, `$7` when.
const FAIL: &str = "
    UPDATE inbound_media SET code = $3, attempts = attempts + 1, state = $4, ended_at_ms = $5, is_open = $6, due_at_ms = $7,
        held_by = ''
    WHERE id = $1 AND held_by = $2 AND state = 'pending'";

/// `$3` is the state at Twilio, `$4` whether another attempt is due, `$5` when.
const END_DELETION: &str = "
    UPDATE inbound_media SET twilio_state = $3, twilio_attempts = twilio_attempts + 1, is_open = $4, due_at_ms = $5, held_by = ''
    WHERE id = $1 AND held_by = $2 AND twilio_state = 'requested'";

/// `$3` is 1 if the medium is deleted at Twilio as well, `$4` the time, `$5` who requests it.
const REMOVE: &str = "
    UPDATE inbound_media SET
        state = CASE WHEN state = 'erased' THEN state ELSE 'deleted' END, contact = '',
        ended_at_ms = CASE WHEN state IN ('deleted', 'erased') THEN ended_at_ms ELSE $4 END,
        twilio_state = CASE WHEN $3 = 1 AND media_sid <> '' AND twilio_state IN ('kept', 'failed') THEN 'requested' ELSE twilio_state END,
        is_open = CASE WHEN twilio_state = 'requested' OR ($3 = 1 AND media_sid <> '' AND twilio_state <> 'deleted') THEN 1 ELSE 0 END,
        deleted_by = CASE WHEN $3 = 1 THEN $5 ELSE deleted_by END,
        twilio_attempts = CASE WHEN $3 = 1 THEN 0 ELSE twilio_attempts END, due_at_ms = $4, held_by = ''
    WHERE id = $1 AND account_sid = $2 AND (state NOT IN ('deleted', 'erased')
        OR ($3 = 1 AND media_sid <> '' AND twilio_state IN ('kept', 'failed')))";

const EXPIRE: &str = "UPDATE media SET expires_at_ms = 0 WHERE id = $1";

/// Deletes no row whose deletion at Twilio is due.
const DELETE_OLD: &str = "
    DELETE FROM inbound_media WHERE id IN (
        SELECT id FROM inbound_media WHERE received_at_ms <= $1 AND is_open = 0 LIMIT $2)";

const BACKLOG: &str = "
    SELECT count(*) AS pending, coalesce(min(received_at_ms), 0) AS oldest_ms FROM inbound_media
    WHERE is_open = 1 AND state = 'pending'";

#[derive(FromRow)]
struct BacklogRow {
    pending: i64,
    oldest_ms: i64,
}

/// The media of inbound messages in one database.
#[derive(Debug, Clone)]
pub struct InboundMedia {
    database: Database,
}

impl InboundMedia {
    pub(super) fn of(database: Database) -> InboundMedia {
        InboundMedia { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<InboundMedia, StoreError> {
        Ok(InboundMedia::of(Database::open_beside(settings).await?))
    }

    /// Closes the connections. Only for an instance from [`InboundMedia::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns the media of a message, in order.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn of_message(
        &self,
        account_sid: &str,
        message_sid: &str,
    ) -> Result<Vec<InboundMedium>, StoreError> {
        let binds = [Bind::Text(account_sid), Bind::Text(message_sid)];
        self.database.read_bound(OF_MESSAGE, &binds).await
    }

    /// Returns one medium, of this account or of any.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<InboundMedium>, StoreError> {
        let found: Vec<InboundMedium> = self.database.read_bound(FIND, &[Bind::Text(id)]).await?;
        let is_theirs = |one: &InboundMedium| account_sid.is_none_or(|sid| sid == one.account_sid);
        Ok(found.into_iter().find(is_theirs))
    }

    /// Takes at most `most` due media, held by `held_by` alone until `until_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take(
        &self,
        held_by: &str,
        most: usize,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<InboundMediaJob>, StoreError> {
        let statement = self.database.choose(TAKE_SQLITE, TAKE_POSTGRES);
        let binds = [
            Bind::Text(held_by),
            Bind::Whole(now_ms),
            Bind::Whole(until_ms),
            Bind::Whole(i64::try_from(most).unwrap_or(i64::MAX)),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let taken = tx.fetch_bound(statement, &binds).await?;
                tx.commit().await?;
                Ok(taken)
            })
            .await
    }

    /// Inserts the row of the bytes before they are stored, or refreshes that of an interrupted fetch.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the row.
    pub async fn stage(&self, medium: &Medium) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                stage(&mut tx, medium).await?;
                tx.commit().await
            })
            .await
    }

    /// Records that all bytes are stored. `delete_by` requests the deletion at Twilio. Returns `false` and changes nothing
    /// if this sidecar does not hold the medium any more.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn complete(
        &self,
        job: &InboundMediaJob,
        held_by: &str,
        medium: &Medium,
        delete_by: Option<&str>,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let complete = [
            Bind::Text(&job.id),
            Bind::Text(held_by),
            Bind::Whole(now_ms),
            Bind::Text(&medium.content_type),
            Bind::Text(if delete_by.is_some() { "requested" } else { "kept" }),
            Bind::Whole(delete_by.is_some().into()),
            Bind::Text(delete_by.unwrap_or_default()),
        ];
        // The contact of the message is recorded like the recipient of a message, so that an erasure finds the bytes.
        let used = [
            Bind::Text(&job.id),
            Bind::Text(&job.message_sid),
            Bind::Text(&job.account_sid),
            Bind::Text(&job.channel),
            Bind::Text(&job.contact),
            Bind::Whole(job.received_at_ms),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                // The same lock order as in an erasure: media first.
                if tx.execute_bound(MARK_STORED, &[Bind::Text(&job.id)]).await? == 0
                    || tx.execute_bound(COMPLETE, &complete).await? == 0
                {
                    return Ok(false);
                }
                tx.execute_bound(USE, &used).await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Records a failed fetch and what follows.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn fail(
        &self,
        id: &str,
        held_by: &str,
        failure: FetchFailure,
        step: FetchStep,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (state, ended_at_ms, is_open, due_at_ms) = match step {
            FetchStep::RetryAt(at_ms) => ("pending", 0, 1, at_ms),
            FetchStep::Refuse => ("refused", now_ms, 0, now_ms),
        };
        let binds = [
            Bind::Text(id),
            Bind::Text(held_by),
            Bind::Text(failure.as_str()),
            Bind::Text(state),
            Bind::Whole(ended_at_ms),
            Bind::Whole(is_open),
            Bind::Whole(due_at_ms),
        ];
        self.database.execute_bound(Durability::Process, FAIL, &binds).await.map(|_| ())
    }

    /// Records the result of an attempt to delete a medium at Twilio, with its audit entry.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn end_deletion(
        &self,
        id: &str,
        held_by: &str,
        result: TwilioDeletion,
        entry: Option<&AuditEntry>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (state, is_open, due_at_ms) = match result {
            TwilioDeletion::Deleted => ("deleted", 0, now_ms),
            TwilioDeletion::RetryAt(at_ms) => ("requested", 1, at_ms),
            TwilioDeletion::Failed => ("failed", 0, now_ms),
        };
        let binds = [
            Bind::Text(id),
            Bind::Text(held_by),
            Bind::Text(state),
            Bind::Whole(is_open),
            Bind::Whole(due_at_ms),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if tx.execute_bound(END_DELETION, &binds).await? == 0 {
                    return Ok(());
                }
                if let Some(entry) = entry {
                    audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                }
                tx.commit().await
            })
            .await
    }

    /// Deletes a medium: its bytes expire immediately. With `at_twilio`, its deletion at Twilio is due. Returns `false` if
    /// there is nothing to delete.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn remove(
        &self,
        id: &str,
        account_sid: &str,
        at_twilio: bool,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let binds = [
            Bind::Text(id),
            Bind::Text(account_sid),
            Bind::Whole(at_twilio.into()),
            Bind::Whole(entry.at_ms),
            Bind::Text(&entry.actor),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.execute_bound(EXPIRE, &[Bind::Text(id)]).await?;
                if tx.execute_bound(REMOVE, &binds).await? == 0 {
                    return Ok(false);
                }
                audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Deletes the rows of messages that arrived at this time or earlier.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn delete_until(&self, until_ms: i64) -> Result<(), StoreError> {
        let binds = [Bind::Whole(until_ms), Bind::Whole(ROWS_PER_DELETE.into())];
        while self.database.execute_bound(Durability::Process, DELETE_OLD, &binds).await?
            >= u64::from(ROWS_PER_DELETE)
        {}
        Ok(())
    }

    /// Returns the number of media to fetch, and the arrival of the oldest one in milliseconds since 1970.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn backlog(&self) -> Result<(i64, Option<i64>), StoreError> {
        let found: Vec<BacklogRow> = self.database.read_bound(BACKLOG, &[]).await?;
        let row = found.first();
        let pending = row.map_or(0, |row| row.pending);
        Ok((pending, row.filter(|_| pending > 0).map(|row| row.oldest_ms)))
    }
}
