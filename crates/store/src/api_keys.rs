//! API keys. A change and its audit entry are in one transaction, so that no change is without an entry. A caller bound to
//! an account never sees keys of another account. This module must not know what a key permits.

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    audit_log::{self, AuditEntry, AuditLog},
    database::{Database, Durability},
    error::StoreError,
    idempotency::{CompletedRequest, finish},
    sessions::Sessions,
    statements::ApiKeyStatements,
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
struct KeyQuery<'a> {
    id: &'a str,
    account_sid: Option<&'a str>,
    now_ms: i64,
}

#[derive(Serialize)]
struct ScopeQuery {
    scope: Scope,
}

/// API keys of one database.
#[derive(Debug, Clone)]
pub struct ApiKeyStore {
    database: Database,
}

impl ApiKeyStore {
    pub(super) fn of(database: Database) -> ApiKeyStore {
        ApiKeyStore { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<ApiKeyStore, StoreError> {
        Ok(ApiKeyStore::of(Database::open_beside(settings).await?))
    }

    /// Closes the connections. Only for an instance from [`ApiKeyStore::open`].
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
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.execute(self.statements().add_key, std::slice::from_ref(key)).await?;
                audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                if let Some(done) = done {
                    finish(&mut tx, done).await?;
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
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let query = [KeyQuery { id, account_sid, now_ms }];
                let revoked: Vec<Key> = tx.fetch(self.statements().revoke_key, &query).await?;
                let Some(key) = revoked.into_iter().next() else { return Ok(None) };
                audit_log::add(&mut tx, &[entry(&key)]).await?;
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
        let query = [KeyQuery { id, account_sid, now_ms: 0 }];
        let found = self.database.read(self.statements().find_key, &query).await?;
        Ok(found.into_iter().next())
    }

    /// Returns whether a key of this scope has ever existed.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn has_any(&self, scope: Scope) -> Result<bool, StoreError> {
        let query = [ScopeQuery { scope }];
        let found: Vec<Key> = self.database.read(self.statements().find_scope, &query).await?;
        Ok(!found.is_empty())
    }

    /// Returns a page of keys, newest first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list_keys(&self, page: KeysPage<'_>) -> Result<Vec<Key>, StoreError> {
        self.database.read(self.statements().list_keys, &[page]).await
    }

    /// Records the use of a key.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn touch_key(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        let query = [KeyQuery { id, account_sid: None, now_ms }];
        self.database.execute(Durability::Process, self.statements().touch_key, &query).await
    }

    /// Returns the sessions, in the same database.
    pub fn sessions(&self) -> Sessions {
        Sessions::of(self.database.clone())
    }

    /// Returns the audit log, in the same database.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::of(self.database.clone())
    }

    fn statements(&self) -> &'static ApiKeyStatements {
        &self.database.statements().api_keys
    }
}
