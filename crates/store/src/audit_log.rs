//! Audit log: administrative changes, newest first. Each store writes the entry in the transaction of its change.

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Transaction},
    error::StoreError,
};

/// `$1` is the account, `$2` the actor and `$3` the action; each may be empty for any. `$4` and `$5` are the position to continue
/// from, `$6` the start of the period, `$7` the maximum number of rows. The first condition chooses the index.
macro_rules! entries {
    ($condition:literal) => {
        concat!(
            "SELECT * FROM audit WHERE ",
            $condition,
            "($1 = '' OR account_sid = $1) AND ($2 = '' OR actor = $2) AND ($3 = '' OR action = $3)
             AND at_ms <= $4 AND (at_ms < $4 OR id < $5) AND at_ms >= $6
             ORDER BY at_ms DESC, id DESC LIMIT $7"
        )
    };
}

const LIST: &str = entries!("");
const LIST_OF_ACCOUNT: &str = entries!("account_sid = $1 AND ");
const LIST_OF_ACTOR: &str = entries!("actor = $2 AND ");
const LIST_OF_ACTION: &str = entries!("action = $3 AND ");

/// One administrative change. An `id` of 0 means that the entry is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct AuditEntry {
    /// Ascending number of the entry.
    #[serde(skip)]
    pub id: i64,
    /// Time of the change, in milliseconds since 1970.
    pub at_ms: i64,
    /// Author of the change.
    pub actor: String,
    /// Source of the request.
    pub source: String,
    /// Action: `key.created`, ..
    pub action: String,
    /// Subject of the change.
    pub subject: String,
    /// Account of the subject.
    pub account_sid: Option<String>,
    /// Details as JSON, without secrets.
    pub detail: String,
}

/// Filter and position of a page of the audit log, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct AuditPage<'a> {
    /// Only this account.
    pub account_sid: Option<&'a str>,
    /// Only this author.
    pub actor: Option<&'a str>,
    /// Only this action.
    pub action: Option<&'a str>,
    /// Start of the period, inclusive, in milliseconds since 1970.
    pub since_ms: i64,
    /// End of the period, exclusive, in milliseconds since 1970.
    pub until_ms: i64,
    /// Position: entries before this time and id.
    pub after: Option<(i64, i64)>,
    /// Maximum number of entries.
    pub most: i64,
}

impl AuditPage<'_> {
    /// Returns the statement whose index leaves the fewest entries.
    fn statement(&self) -> &'static str {
        match (self.actor, self.action, self.account_sid) {
            (Some(_), ..) => LIST_OF_ACTOR,
            (None, Some(_), _) => LIST_OF_ACTION,
            (None, None, Some(_)) => LIST_OF_ACCOUNT,
            (None, None, None) => LIST,
        }
    }
}

/// Audit log of one database.
#[derive(Debug, Clone)]
pub struct AuditLog {
    database: Database,
}

impl AuditLog {
    pub(super) fn of(database: Database) -> AuditLog {
        AuditLog { database }
    }

    /// Returns a page of the audit log, newest first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(&self, page: &AuditPage<'_>) -> Result<Vec<AuditEntry>, StoreError> {
        let (at_ms, id) = page.after.unwrap_or((page.until_ms, i64::MIN));
        let binds = [
            Bind::Text(page.account_sid.unwrap_or_default()),
            Bind::Text(page.actor.unwrap_or_default()),
            Bind::Text(page.action.unwrap_or_default()),
            Bind::Whole(at_ms),
            Bind::Whole(id),
            Bind::Whole(page.since_ms),
            Bind::Whole(page.most),
        ];
        self.database.read_bound(page.statement(), &binds).await
    }
}

/// Adds entries in the transaction of the changes that they record.
pub(super) async fn add(tx: &mut Transaction, entries: &[AuditEntry]) -> Result<(), StoreError> {
    tx.execute(tx.statements().audit.add, entries).await
}
