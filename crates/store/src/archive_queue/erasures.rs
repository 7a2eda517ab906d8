//! Erasures in archived objects that an operator requested. One sidecar holds an erasure for a limited time and carries it out.

use sqlx::FromRow;

use super::ArchiveQueue;
use crate::{
    database::{Bind, Durability, Transaction},
    error::StoreError,
};

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
pub(crate) const ADD_ERASURE: &str = "
    INSERT INTO archive_erasures (id, account_sid, message_sid, number, channel, since_ms, until_ms, made_at_ms)
    SELECT $1, $2, NULLIF($3, ''), NULLIF($4, ''), NULLIF($5, ''), $6, $7, $8
    WHERE EXISTS (SELECT 1 FROM archive_switch)";

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

impl ArchiveQueue {
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
        self.database
            .within_timeout(async {
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
        self.database
            .within_timeout(async {
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
        self.database
            .within_timeout(async {
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
        let found: Vec<(i64,)> = self.database.read_bound(ERASING, &binds).await?;
        Ok(found.first().is_some_and(|(count,)| *count > 0))
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
