//! Who may call the API, and what administrators did: both in the same transaction, so that no change is without its
//! entry. What a key permits is not known here; a reader bound to an account is never shown another's rows.

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

/// One API key, as it may be shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Key {
    /// Its public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it permits.
    #[sqlx(try_from = "String")]
    pub scope: Scope,
    /// The only tenant it sees; all of them without.
    pub account_sid: Option<String>,
    /// When it was made.
    pub created_at_ms: i64,
    /// By whom.
    pub created_by: String,
    /// When it was last used, to the minute.
    pub last_used_at_ms: Option<i64>,
    /// Since when it is no key any more.
    pub revoked_at_ms: Option<i64>,
}

/// A key as it is stored.
#[derive(Debug, Clone, FromRow)]
pub struct StoredKey {
    /// The key.
    #[sqlx(flatten)]
    pub key: Key,
    /// Hexadecimal.
    pub secret_sha256: String,
}

/// A key to be.
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

/// One administrative change. An `id` of 0 has not been given one yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct AuditEntry {
    /// Counts up.
    #[serde(skip)]
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who did it.
    pub actor: String,
    /// From where.
    pub source: String,
    /// What was done: `key.created`, ..
    pub action: String,
    /// To what.
    pub subject: String,
    /// To whose.
    pub account_sid: Option<String>,
    /// JSON, without secrets.
    pub detail: String,
}

/// Which keys to list: the newest first, those before one that was seen already.
#[derive(Debug, Clone, Serialize)]
pub struct KeysPage<'a> {
    /// Of this account only.
    pub account_sid: Option<&'a str>,
    /// Made before, or then and with a smaller id.
    pub before_ms: i64,
    /// See `before_ms`.
    pub before_id: &'a str,
    /// How many.
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

/// The keys and the audit of one database.
#[derive(Debug, Clone)]
pub struct Register {
    database: Database,
    timeout: Duration,
}

impl Register {
    pub(super) fn of(database: Database, timeout: Duration) -> Register {
        Register { database, timeout }
    }

    /// Reaches it for a command, beside the sidecar that may have it open.
    pub async fn open(settings: &config::Database) -> Result<Register, StoreError> {
        // A command has time: it waits for the sidecar's writes rather than failing.
        let timeout = Duration::from_millis(settings.connect_timeout_ms);
        let patient = config::Database {
            timeout_ms: settings.timeout_ms.max(settings.connect_timeout_ms),
            ..settings.clone()
        };
        Ok(Register { database: Database::open_beside(&patient).await?, timeout })
    }

    /// Ends its connections. Only for one that was opened by [`Register::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Adds a key, that it was added and, if it was asked for once, what was answered: all of it or nothing.
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

    /// Revokes a key, and writes down that it was revoked. None if there is none to revoke, in this account.
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

    /// A key, if it is of this account, revoked or not.
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

    /// Whether there ever was a key of this scope.
    pub async fn has_any(&self, scope: Scope) -> Result<bool, StoreError> {
        self.bounded(async {
            let asked = [ScopeAsked { scope }];
            let found: Vec<Key> = self.database.read(self.statements().find_scope, &asked).await?;
            Ok(!found.is_empty())
        })
        .await
    }

    /// A page of the keys, the newest first.
    pub async fn list_keys(&self, page: KeysPage<'_>) -> Result<Vec<Key>, StoreError> {
        self.bounded(self.database.read(self.statements().list_keys, &[page])).await
    }

    /// Writes down that a key was used.
    pub async fn touch_key(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            let asked = [Asked { id, account_sid: None, now_ms }];
            tx.execute(self.statements().touch_key, &asked).await?;
            tx.commit().await
        })
        .await
    }

    /// A page of the audit, the newest entries first, those with smaller ids than `before_id`.
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
