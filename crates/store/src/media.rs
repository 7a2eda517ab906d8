//! Stored media: uploads for outbound messages, and media of inbound messages (`inbound_media.rs`). A row has the type, the
//! lifetime and the use in messages. It is inserted before its bytes are stored, and deleted after them. This module must
//! not know where the bytes are.

use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::media::{media_of_form, referenced_id};

/// Milliseconds after which an unfinished upload counts as the remains of a crash.
const LONGEST_UPLOAD_MS: i64 = 3_600_000;

macro_rules! select_media {
    ($rest:literal) => {
        concat!(
            "SELECT id, account_sid, content_type, bytes, digest, created_at_ms, created_by, keep_ms, expires_at_ms FROM media ",
            $rest
        )
    };
}

const ADD: &str = "
    INSERT INTO media (id, account_sid, content_type, bytes, digest, created_at_ms, created_by, keep_ms, expires_at_ms, is_stored)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0) ON CONFLICT (id) DO NOTHING";

/// Inserts a row, or refreshes that of an interrupted fetch, so that it is not deleted as the remains of a crash.
const STAGE: &str = "
    INSERT INTO media (id, account_sid, content_type, bytes, digest, created_at_ms, created_by, keep_ms, expires_at_ms, is_stored)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)
    ON CONFLICT (id) DO UPDATE SET content_type = excluded.content_type, bytes = excluded.bytes, digest = excluded.digest,
        created_at_ms = excluded.created_at_ms, keep_ms = excluded.keep_ms, expires_at_ms = excluded.expires_at_ms
    WHERE media.is_stored = 0";

const MARK_STORED: &str = "UPDATE media SET is_stored = 1 WHERE id = $1 AND expires_at_ms > 0";

const FETCH: &str = select_media!("WHERE id = $1 AND is_stored = 1 AND expires_at_ms > $2");

/// Expires a medium immediately.
const EXPIRE: &str =
    "UPDATE media SET expires_at_ms = 0 WHERE id = $1 AND account_sid = $2 AND expires_at_ms > 0";

const DUE: &str = select_media!(
    "WHERE expires_at_ms <= $1 OR (is_stored = 0 AND created_at_ms <= $2) ORDER BY expires_at_ms LIMIT $3"
);

/// Spares a row that was stored again meanwhile.
const DELETE: &str = "DELETE FROM media WHERE id = $1 AND (is_stored = 0 OR expires_at_ms <= $2)";
const DELETE_USES: &str = "DELETE FROM media_uses WHERE media_id = $1";

pub(crate) const USE: &str = "
    INSERT INTO media_uses (media_id, message_id, account_sid, channel, recipient, at_ms)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (media_id, message_id) DO NOTHING";

const EXTEND: &str = "
    UPDATE media SET expires_at_ms = $2 + keep_ms
    WHERE id = $1 AND expires_at_ms > 0 AND expires_at_ms < $2 + keep_ms";

/// Stored medium.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Medium {
    /// Media id: `md_..`.
    pub id: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Content type, for example `image/png`.
    pub content_type: String,
    /// Size in bytes.
    pub bytes: i64,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub digest: String,
    /// Time of the upload, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Author of the upload.
    pub created_by: String,
    /// Milliseconds for which it is kept after the upload, and after the due time of each message that uses it.
    pub keep_ms: i64,
    /// Expiry, in milliseconds since 1970.
    pub expires_at_ms: i64,
}

impl Medium {
    /// Returns the values of the columns of an INSERT.
    fn binds(&self) -> [Bind<'_>; 9] {
        [
            Bind::Text(&self.id),
            Bind::Text(&self.account_sid),
            Bind::Text(&self.content_type),
            Bind::Whole(self.bytes),
            Bind::Text(&self.digest),
            Bind::Whole(self.created_at_ms),
            Bind::Text(&self.created_by),
            Bind::Whole(self.keep_ms),
            Bind::Whole(self.expires_at_ms),
        ]
    }
}

/// The media of one database.
#[derive(Debug, Clone)]
pub struct MediaIndex {
    database: Database,
}

impl MediaIndex {
    pub(super) fn of(database: Database) -> MediaIndex {
        MediaIndex { database }
    }

    /// Inserts the row before the bytes are stored. A second insert with the same id changes nothing.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the row.
    pub async fn add(&self, medium: &Medium) -> Result<(), StoreError> {
        self.database.execute_bound(Durability::Power, ADD, &medium.binds()).await.map(|_| ())
    }

    /// Records that all bytes are stored.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn mark_stored(&self, id: &str) -> Result<(), StoreError> {
        self.database
            .execute_bound(Durability::Power, MARK_STORED, &[Bind::Text(id)])
            .await
            .map(|_| ())
    }

    /// Returns a complete medium that has not expired, of this account or of any.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn fetch(
        &self,
        id: &str,
        account_sid: Option<&str>,
        now_ms: i64,
    ) -> Result<Option<Medium>, StoreError> {
        let binds = [Bind::Text(id), Bind::Whole(now_ms)];
        let found: Vec<Medium> = self.database.read_bound(FETCH, &binds).await?;
        let is_theirs = |one: &Medium| account_sid.is_none_or(|sid| sid == one.account_sid);
        Ok(found.into_iter().find(is_theirs))
    }

    /// Expires a medium immediately; its bytes are deleted later. Returns `false` if there is no such medium.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn expire(&self, id: &str, account_sid: &str) -> Result<bool, StoreError> {
        let binds = [Bind::Text(id), Bind::Text(account_sid)];
        self.database.execute_bound(Durability::Power, EXPIRE, &binds).await.map(|rows| rows == 1)
    }

    /// Returns the media whose bytes must be deleted: expired ones, and unfinished uploads after their time limit.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn due_for_deletion(
        &self,
        now_ms: i64,
        most: u32,
    ) -> Result<Vec<Medium>, StoreError> {
        let binds = [
            Bind::Whole(now_ms),
            Bind::Whole(now_ms.saturating_sub(LONGEST_UPLOAD_MS)),
            Bind::Whole(most.into()),
        ];
        self.database.read_bound(DUE, &binds).await
    }

    /// Deletes the row of a medium whose bytes are deleted.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn delete(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if tx.execute_bound(DELETE, &[Bind::Text(id), Bind::Whole(now_ms)]).await? == 1 {
                    tx.execute_bound(DELETE_USES, &[Bind::Text(id)]).await?;
                }
                tx.commit().await
            })
            .await
    }
}

/// Inserts the row of a medium of an inbound message before its bytes are stored.
pub(crate) async fn stage(tx: &mut Transaction, medium: &Medium) -> Result<(), StoreError> {
    tx.execute_bound(STAGE, &medium.binds()).await.map(|_| ())
}

/// Message whose form may refer to stored media.
#[derive(Clone, Copy)]
pub(super) struct MediaUser<'a> {
    pub(super) message_id: &'a str,
    pub(super) account_sid: &'a str,
    pub(super) channel: &'a str,
    pub(super) recipient: &'a str,
    /// Form of the request to Twilio.
    pub(super) form: &'a str,
    pub(super) created_at_ms: i64,
    pub(super) due_at_ms: i64,
}

/// Records the use of stored media in these messages. A medium is kept for `keep_ms` after the due time of its last
/// message.
pub(super) async fn record_uses<'a>(
    tx: &mut Transaction,
    users: impl Iterator<Item = MediaUser<'a>>,
) -> Result<(), StoreError> {
    let mut uses: Vec<(String, MediaUser<'_>)> = users
        .flat_map(|user| media_of_form(user.form).into_iter().map(move |name| (name, user)))
        .filter_map(|(name, user)| Some((referenced_id(&name)?.to_owned(), user)))
        .collect();
    uses.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (id, user) in uses {
        let binds = [
            Bind::Text(&id),
            Bind::Text(user.message_id),
            Bind::Text(user.account_sid),
            Bind::Text(user.channel),
            Bind::Text(user.recipient),
            Bind::Whole(user.created_at_ms),
        ];
        tx.execute_bound(USE, &binds).await?;
        tx.execute_bound(EXTEND, &[Bind::Text(&id), Bind::Whole(user.due_at_ms)]).await?;
    }
    Ok(())
}
