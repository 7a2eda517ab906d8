//! API keys and the audit log. A change and its audit entry are in one transaction, so that no change is without an entry.
//! A caller bound to an account never sees rows of another account. This module must not know what a key permits.

use std::{future::Future, time::Duration};

use serde::Serialize;
use sqlx::FromRow;

use super::idempotency::{Done, finish};
use crate::{
    database::{Database, Durability},
    error::StoreError,
    statements::RegisterStatements,
};
use twilio_edge_domain::api_key::Scope;
use twilio_edge_platform::config;

/// API key without its secret. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Key {
    /// Public part of the key.
    pub id: String,
    /// Name for display.
    pub name: String,
    /// Scope: the operations that the key permits.
    #[sqlx(try_from = "String")]
    pub scope: Scope,
    /// Only account that the key can access; `None` for all accounts.
    pub account_sid: Option<String>,
    /// Time of creation.
    pub created_at_ms: i64,
    /// Author of the key.
    pub created_by: String,
    /// Time of the last use, to the minute.
    pub last_used_at_ms: Option<i64>,
    /// Time of revocation.
    pub revoked_at_ms: Option<i64>,
}

/// API key with the digest of its secret.
#[derive(Debug, Clone, FromRow)]
pub struct StoredKey {
    /// The key.
    #[sqlx(flatten)]
    pub key: Key,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub secret_sha256: String,
}

/// API key to insert.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the fields of Key, and the digest of its secret")]
pub struct NewKey {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    pub account_sid: Option<String>,
    pub secret_sha256: String,
    pub created_at_ms: i64,
    pub created_by: String,
}

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

/// Filter and position of a page of keys, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct KeysPage<'a> {
    /// Returns only keys of this account.
    pub account_sid: Option<&'a str>,
    /// Returns only keys created before this time, or at this time with a smaller id than `before_id`.
    pub before_ms: i64,
    /// See `before_ms`.
    pub before_id: &'a str,
    /// Maximum number of keys.
    pub most: i64,
}

#[derive(Serialize)]
struct Asked<'a> {
    id: &'a str,
    account_sid: Option<&'a str>,
    now_ms: i64,
}

#[derive(Serialize)]
struct EntriesAsked<'a> {
    account_sid: Option<&'a str>,
    before_id: i64,
    most: i64,
}

#[derive(Serialize)]
struct ScopeAsked {
    scope: Scope,
}

/// The API keys and the audit log of one database.
#[derive(Debug, Clone)]
pub struct Register {
    database: Database,
    timeout: Duration,
}

impl Register {
    pub(super) fn of(database: Database, timeout: Duration) -> Register {
        Register { database, timeout }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<Register, StoreError> {
        // A command is not urgent: it waits for the sidecar's writes instead of failing.
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        let patient = config::Database {
            timeout_ms: settings.timeout_ms.max(settings.connect_timeout_ms),
            ..settings.clone()
        };
        Ok(Register { database: Database::open_beside(&patient).await?, timeout })
    }

    /// Closes the connections. Only for an instance from [`Register::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Inserts a key, its audit entry and, for a request with an idempotency key, its response: all of them, or none.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn add_key(
        &self,
        key: &NewKey,
        entry: &AuditEntry,
        done: Option<&Done>,
    ) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            tx.execute(self.statements().add_key, std::slice::from_ref(key)).await?;
            tx.execute(self.statements().add_entry, std::slice::from_ref(entry)).await?;
            if let Some(done) = done {
                finish(&mut tx, &self.database.statements().idempotency, done).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Revokes a key and adds the audit entry. Returns `None` if the account has no such key to revoke.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn revoke_key(
        &self,
        id: &str,
        account_sid: Option<&str>,
        now_ms: i64,
        entry: impl FnOnce(&Key) -> AuditEntry,
    ) -> Result<Option<Key>, StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let asked = [Asked { id, account_sid, now_ms }];
            let revoked: Vec<Key> = tx.fetch(self.statements().revoke_key, &asked).await?;
            let Some(key) = revoked.into_iter().next() else { return Ok(None) };
            tx.execute(self.statements().add_entry, &[entry(&key)]).await?;
            tx.commit().await?;
            Ok(Some(key))
        })
        .await
    }

    /// Returns the key if it belongs to this account, revoked or not.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find_key(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<StoredKey>, StoreError> {
        let asked = [Asked { id, account_sid, now_ms: 0 }];
        self.bounded(async {
            let found = self.database.read(self.statements().find_key, &asked).await?;
            Ok(found.into_iter().next())
        })
        .await
    }

    /// Returns whether a key of this scope has ever existed.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn has_any(&self, scope: Scope) -> Result<bool, StoreError> {
        self.bounded(async {
            let asked = [ScopeAsked { scope }];
            let found: Vec<Key> = self.database.read(self.statements().find_scope, &asked).await?;
            Ok(!found.is_empty())
        })
        .await
    }

    /// Returns a page of keys, newest first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list_keys(&self, page: KeysPage<'_>) -> Result<Vec<Key>, StoreError> {
        self.bounded(self.database.read(self.statements().list_keys, &[page])).await
    }

    /// Records the use of a key.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn touch_key(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let asked = [Asked { id, account_sid: None, now_ms }];
            tx.execute(self.statements().touch_key, &asked).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns a page of the audit log, newest first: the entries with smaller ids than `before_id`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list_entries(
        &self,
        account_sid: Option<&str>,
        before_id: i64,
        most: i64,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let asked = [EntriesAsked { account_sid, before_id, most }];
        self.bounded(self.database.read(self.statements().list_entries, &asked)).await
    }

    fn statements(&self) -> &'static RegisterStatements {
        &self.database.statements().register
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
