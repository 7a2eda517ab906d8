//! Retention of the notification log: the contact of an ended message is removed when the retention period of addresses is over,
//! and the row of a declined message when that of events is over. The rows of other messages stay, without content.

use std::collections::BTreeSet;

use super::Sweeper;
use crate::{
    database::{Bind, Durability},
    error::StoreError,
};
use twilio_edge_domain::sweep_counts::SweepCounts;

/// Returns each account with outbound messages once. The query jumps from account to account in the index.
pub(crate) const SENDING_ACCOUNTS: &str = "
    WITH RECURSIVE accounts(account_sid) AS (
        SELECT min(account_sid) FROM outbound_messages WHERE fallback_of = ''
        UNION ALL
        SELECT (SELECT min(account_sid) FROM outbound_messages
            WHERE outbound_messages.account_sid > accounts.account_sid AND fallback_of = '')
        FROM accounts WHERE accounts.account_sid IS NOT NULL)
    SELECT account_sid FROM accounts WHERE account_sid IS NOT NULL";

/// Removes the contacts of ended messages. `$1` is the account, `$2` the end, `$3` the maximum number of rows.
pub(crate) const FORGET_CONTACTS: &str = "
    UPDATE outbound_messages SET contact = '' WHERE id IN (SELECT id FROM outbound_messages
        WHERE account_sid = $1 AND contact <> '' AND created_at_ms <= $2 AND state NOT IN ('queued', 'attempting', 'unknown')
        ORDER BY created_at_ms LIMIT $3)";

/// Deletes declined messages. `$1` is the account, `$2` the end, `$3` the maximum number of rows.
pub(crate) const DELETE_DECLINED: &str = "
    DELETE FROM outbound_messages WHERE id IN (SELECT id FROM outbound_messages
        WHERE account_sid = $1 AND state = 'declined' AND created_at_ms <= $2 ORDER BY created_at_ms LIMIT $3)";

impl Sweeper {
    /// Returns all accounts with webhooks or outbound messages.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn all_accounts(&self) -> Result<BTreeSet<String>, StoreError> {
        let found: Vec<(String,)> = self.database.read_bound(SENDING_ACCOUNTS, &[]).await?;
        let mut accounts: BTreeSet<String> = self.accounts().await?.into_iter().collect();
        accounts.extend(found.into_iter().map(|(account_sid,)| account_sid));
        Ok(accounts)
    }

    /// Removes the contacts of up to `most` messages of an account that were requested until `until_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn forget_contacts(
        &self,
        account_sid: &str,
        until_ms: i64,
        most: u32,
    ) -> Result<SweepCounts, StoreError> {
        let rows = self.sweep_messages(FORGET_CONTACTS, account_sid, until_ms, most).await?;
        let more = rows >= usize::try_from(most).unwrap_or(usize::MAX);
        Ok(SweepCounts { rows, more, ..SweepCounts::default() })
    }

    /// Deletes up to `most` declined messages of an account that were requested until `until_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn delete_declined(
        &self,
        account_sid: &str,
        until_ms: i64,
        most: u32,
    ) -> Result<SweepCounts, StoreError> {
        let deleted = self.sweep_messages(DELETE_DECLINED, account_sid, until_ms, most).await?;
        let more = deleted >= usize::try_from(most).unwrap_or(usize::MAX);
        Ok(SweepCounts { deleted, more, ..SweepCounts::default() })
    }

    async fn sweep_messages(
        &self,
        statement: &'static str,
        account_sid: &str,
        until_ms: i64,
        most: u32,
    ) -> Result<usize, StoreError> {
        let binds = [Bind::Text(account_sid), Bind::Whole(until_ms), Bind::Whole(most.into())];
        let rows = self.database.execute_bound(Durability::Process, statement, &binds).await?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn retention_of_notifications_reads_indexes_only() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for statement in [SENDING_ACCOUNTS, FORGET_CONTACTS, DELETE_DECLINED] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let is_scan =
                |step: &str| step.starts_with("SCAN outbound_messages") && !step.contains("USING");
            assert!(!plan.iter().any(|(.., step)| is_scan(step)), "{plan:#?}");
        }
    }
}
