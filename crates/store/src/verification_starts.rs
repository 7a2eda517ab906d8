//! Limits of verifications: counts the starts of each number, and of each address of an end user, in a window of time. The counts of
//! one start are added together, or not at all.

use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Durability},
    error::StoreError,
};

const COUNT: &str = "
    INSERT INTO verification_starts (account_sid, subject, ends_at_ms, starts) VALUES ($1, $2, $3, 1)
    ON CONFLICT (account_sid, subject, ends_at_ms) DO UPDATE SET starts = verification_starts.starts + 1
    RETURNING starts";

/// Deletes ended windows. `$1` is now, `$2` the maximum number of rows.
pub(super) const DELETE_ENDED: &str = "
    DELETE FROM verification_starts WHERE (account_sid, subject, ends_at_ms) IN
        (SELECT account_sid, subject, ends_at_ms FROM verification_starts WHERE ends_at_ms <= $1 LIMIT $2)";

/// Limit of the starts of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartLimit {
    /// Digest of the number or address.
    pub subject: String,
    /// Largest number of starts in a window.
    pub most: u32,
}

/// Counters of verifications in one database.
#[derive(Debug, Clone)]
pub struct VerificationStarts {
    database: Database,
}

#[derive(Debug, FromRow)]
struct CountRow {
    starts: i64,
}

impl VerificationStarts {
    pub(super) fn of(database: Database) -> VerificationStarts {
        VerificationStarts { database }
    }

    /// Counts a start in the window that ends at `ends_at_ms`. Returns `false`, and counts nothing, if a limit is reached.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn count(
        &self,
        account_sid: &str,
        limits: &[StartLimit],
        ends_at_ms: i64,
    ) -> Result<bool, StoreError> {
        // Every transaction locks the counters in one order.
        let mut limits: Vec<&StartLimit> = limits.iter().collect();
        limits.sort_by(|one, other| one.subject.cmp(&other.subject));
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                for limit in limits {
                    let binds = [
                        Bind::Text(account_sid),
                        Bind::Text(&limit.subject),
                        Bind::Whole(ends_at_ms),
                    ];
                    let counted: Vec<CountRow> = tx.fetch_bound(COUNT, &binds).await?;
                    let starts = counted.first().map_or(0, |counted| counted.starts);
                    if starts > i64::from(limit.most) {
                        return Ok(false);
                    }
                }
                tx.commit().await?;
                Ok(true)
            })
            .await
    }
}
