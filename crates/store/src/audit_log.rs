//! Audit log: administrative changes, newest first. Each store writes the entry in the transaction of its change.

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    database::{Database, Transaction},
    error::StoreError,
};

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

#[derive(Serialize)]
struct EntriesQuery<'a> {
    account_sid: Option<&'a str>,
    before_id: i64,
    most: i64,
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

    /// Returns a page of the audit log, newest first: the entries with smaller ids than `before_id`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(
        &self,
        account_sid: Option<&str>,
        before_id: i64,
        most: i64,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let query = [EntriesQuery { account_sid, before_id, most }];
        self.database.read(self.database.statements().audit.list, &query).await
    }
}

/// Adds entries in the transaction of the changes that they record.
pub(super) async fn add(tx: &mut Transaction, entries: &[AuditEntry]) -> Result<(), StoreError> {
    tx.execute(tx.statements().audit.add, entries).await
}
