//! Sessions of API keys. The start and the end of a session are each in one transaction with their audit entry. This module
//! must not know what a session permits.

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    audit_log::{self, AuditEntry},
    database::{Database, Durability},
    error::StoreError,
    statements::SessionStatements,
};

/// Session of an API key. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Session {
    /// SHA-256 of the secret, in hexadecimal digits.
    pub secret_sha256: String,
    /// Public part of the key.
    pub key_id: String,
    /// Time of the start.
    pub created_at_ms: i64,
    /// Time of the end, if nothing ends it earlier.
    pub expires_at_ms: i64,
}

#[derive(Serialize)]
struct SessionQuery<'a> {
    secret_sha256: &'a str,
}

#[derive(Serialize)]
struct Pruning<'a> {
    key_id: &'a str,
    now_ms: i64,
    most: u32,
}

/// Sessions of one database.
#[derive(Debug, Clone)]
pub struct Sessions {
    database: Database,
}

impl Sessions {
    pub(super) fn of(database: Database) -> Sessions {
        Sessions { database }
    }

    /// Starts a session with its audit entry, and deletes expired sessions and those of the key beyond the newest `most`.
    /// With `replaced`, the digest of another session, that session ends: if it has ended already, no session starts and the
    /// answer is false.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn start(
        &self,
        session: &Session,
        replaced: Option<&str>,
        most: u32,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                if let Some(secret_sha256) = replaced {
                    let query = [SessionQuery { secret_sha256 }];
                    let ended: Vec<Session> = tx.fetch(self.statements().end, &query).await?;
                    if ended.is_empty() {
                        return Ok(false);
                    }
                }
                tx.execute(self.statements().add, std::slice::from_ref(session)).await?;
                let Session { key_id, created_at_ms: now_ms, .. } = session;
                let pruning = [Pruning { key_id, now_ms: *now_ms, most }];
                tx.execute(self.statements().prune, &pruning).await?;
                audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                tx.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Returns the session with this digest, also an expired one.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find(&self, secret_sha256: &str) -> Result<Option<Session>, StoreError> {
        let query = [SessionQuery { secret_sha256 }];
        let found = self.database.read(self.statements().find, &query).await?;
        Ok(found.into_iter().next())
    }

    /// Ends a session and adds the audit entry. Ending it again changes nothing.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn end(&self, secret_sha256: &str, entry: &AuditEntry) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let query = [SessionQuery { secret_sha256 }];
                let ended: Vec<Session> = tx.fetch(self.statements().end, &query).await?;
                if !ended.is_empty() {
                    audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                }
                tx.commit().await
            })
            .await
    }

    fn statements(&self) -> &'static SessionStatements {
        &self.database.statements().sessions
    }
}
