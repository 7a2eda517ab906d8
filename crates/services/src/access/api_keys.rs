//! Management of API keys: identifies callers, creates, lists and revokes keys, and reads the audit log. Every change
//! is stored with an audit entry. The format of a key and the permissions of a scope are decided in
//! [`twilio_edge_domain::api_key`]. This module knows neither HTTP nor SQL.

mod caller;
mod key_cache;
mod sessions;

use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::key_cache::KeyCache;
pub use self::{caller::Caller, sessions::StartedSession};
use twilio_edge_domain::{
    api_key::{self, KeyToken, Scope},
    session::SessionToken,
    tenant::is_account_sid,
};
use twilio_edge_store::{
    ApiKeyStore, AuditEntry, AuditPage, CompletedRequest, Key, KeysPage, NewKey, Sessions,
    StoreError,
};

/// Longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Reason why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessError {
    /// The credential is neither a valid API key nor the edge token.
    Unknown,
    /// The key is valid, but its scope does not permit the operation.
    Scope {
        /// Scope of the key.
        has: Scope,
        /// Scope that the operation requires.
        needed: Scope,
    },
    /// The caller presented the edge token for an administrative operation, but an administrator key exists already.
    BootstrapOver,
    /// The key is bound to one tenant, and the account is another tenant's.
    OtherAccount,
    /// The key does not exist, or it belongs to another tenant.
    NoSuchKey,
    /// The caller may not create a key of this scope, because its own scope does not include it.
    Grant(Scope),
    /// The caller tried to revoke its own key. This is refused so that callers cannot lock themselves out.
    OwnKey,
    /// The request is invalid; the text names the field and the problem.
    Invalid(String),
    /// The database failed or is unavailable.
    Store(StoreError),
}

impl From<StoreError> for AccessError {
    fn from(error: StoreError) -> AccessError {
        AccessError::Store(error)
    }
}

/// API keys, with a cache of recent lookups. Copies share the cache.
#[derive(Clone)]
pub struct Keys {
    store: ApiKeyStore,
    sessions: Sessions,
    token: Arc<[u8; 32]>,
    cache: Arc<KeyCache>,
}

impl Keys {
    /// Creates the service. `token` is the edge token that filters present; an empty token matches no caller.
    pub fn new(store: ApiKeyStore, token: &str) -> Keys {
        let cache = Arc::new(KeyCache::new(store.clone()));
        let sessions = store.sessions();
        Keys { store, sessions, token: Arc::new(digest(token.as_bytes())), cache }
    }

    /// Identifies the caller that presented this bearer token, and checks that its scope permits `needed`.
    ///
    /// # Errors
    /// Returns `Unknown`, `Scope` or `BootstrapOver` for a credential that is not sufficient, and `Store` if the
    /// database fails.
    pub async fn caller(
        &self,
        presented: &[u8],
        needed: Scope,
        source: String,
        now_ms: i64,
    ) -> Result<Caller, AccessError> {
        if self.is_token(presented) {
            return self.edge_caller(needed, source).await;
        }
        let (session, stored) = match SessionToken::read(presented) {
            Some(token) => {
                let (session, stored) = self.find_session(&token, now_ms).await?;
                (Some(session), stored)
            }
            None => {
                let presented = KeyToken::read(presented).ok_or(AccessError::Unknown)?;
                let stored = self.cache.find(presented.id).await?.ok_or(AccessError::Unknown)?;
                if !presented.matches_digest(&stored.secret_sha256) {
                    return Err(AccessError::Unknown);
                }
                (None, stored)
            }
        };
        if stored.key.revoked_at_ms.is_some() {
            return Err(AccessError::Unknown);
        }
        let key = stored.key;
        if !key.scope.permits(needed) {
            return Err(AccessError::Scope { has: key.scope, needed });
        }
        self.cache.record_use(&key, now_ms);
        Ok(Caller {
            actor: format!("key {}", key.id),
            source: match session {
                Some(_) => format!("{source}, session"),
                None => source,
            },
            scope: key.scope,
            account_sid: key.account_sid.clone(),
            key: Some(key),
            session,
        })
    }

    /// Returns whether this credential may be valid: it is the edge token, or its id is that of a stored key. The
    /// secret is not checked. The ids are in memory, so this starts at most one read of the ids per second.
    ///
    /// # Errors
    /// Returns `Store` if the id is not in memory and the database cannot list all ids.
    pub async fn may_be_valid(&self, presented: &[u8]) -> Result<bool, AccessError> {
        if self.is_token(presented) {
            return Ok(true);
        }
        let session_key = SessionToken::read(presented).map(|session| session.key_id);
        let id = session_key.or_else(|| KeyToken::read(presented).map(|key| key.id));
        match id {
            Some(id) => Ok(self.cache.has_id(id).await?),
            None => Ok(false),
        }
    }

    fn is_token(&self, presented: &[u8]) -> bool {
        // Digests are compared in constant time, so the comparison does not reveal the token or its length.
        !presented.is_empty() && bool::from(digest(presented).ct_eq(&*self.token))
    }

    /// Builds the caller for the edge token. The token is for filters. It also permits administration until the first
    /// administrator key exists.
    async fn edge_caller(&self, needed: Scope, source: String) -> Result<Caller, AccessError> {
        match needed {
            Scope::Edge => {}
            Scope::App => return Err(AccessError::Scope { has: Scope::Edge, needed }),
            Scope::Admin if self.store.has_any(Scope::Admin).await? => {
                return Err(AccessError::BootstrapOver);
            }
            Scope::Admin => {}
        }
        let actor = "TWILIO_EDGE_TOKEN".into();
        Ok(Caller { actor, source, scope: needed, account_sid: None, key: None, session: None })
    }

    /// Creates a key. Returns it with its token, which cannot be retrieved later. `once` builds the record of an
    /// idempotent request; that record is stored in the same transaction.
    ///
    /// # Errors
    /// Returns `Invalid`, `Grant` or `OtherAccount` if the caller may not create this key, and `Store` if the database
    /// fails.
    pub async fn create(
        &self,
        by: &Caller,
        scope: Scope,
        account_sid: Option<String>,
        name: &str,
        now_ms: i64,
        once: impl FnOnce(&Key) -> Option<CompletedRequest>,
    ) -> Result<(Key, String), AccessError> {
        let is_long = name.chars().count() > MAX_NAME_CHARS;
        let name = name.trim();
        if name.is_empty() || is_long || name.chars().any(char::is_control) {
            return Err(AccessError::Invalid(format!(
                "name: must be 1 to {MAX_NAME_CHARS} characters, none of them a control character"
            )));
        }
        if let Some(sid) = account_sid.as_deref().filter(|sid| !is_account_sid(sid)) {
            return Err(AccessError::Invalid(format!(
                "account_sid: {sid:?} is not AC and 32 lower-case hexadecimal digits"
            )));
        }
        // A key can create only keys whose scope its own scope permits. The edge token and the command line can create
        // any.
        if by.key.as_ref().is_some_and(|own| !own.scope.permits(scope)) {
            return Err(AccessError::Grant(scope));
        }
        // A caller that is bound to an account creates keys of that account, also when the request does not name it.
        let account_sid = account_sid.or_else(|| by.account_sid.clone());
        if by.account_sid.is_some() && by.account_sid != account_sid {
            return Err(AccessError::OtherAccount);
        }
        let mut random = [0; api_key::RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
        let minted = api_key::mint(random);
        let new = NewKey {
            id: minted.id,
            name: name.to_owned(),
            scope,
            account_sid,
            secret_sha256: minted.secret_sha256,
            created_at_ms: now_ms,
            created_by: by.actor.clone(),
        };
        let key = Key {
            id: new.id.clone(),
            name: new.name.clone(),
            scope,
            account_sid: new.account_sid.clone(),
            created_at_ms: now_ms,
            created_by: new.created_by.clone(),
            last_used_at_ms: None,
            revoked_at_ms: None,
        };
        let (entry, done) = (entry(by, "key.created", &key, now_ms), once(&key));
        self.store.add_key(&new, &entry, done.as_ref()).await?;
        tracing::info!(event = "key.created", key.id = key.id, key.scope = %scope, by = by.actor, "an administrator created an API key");
        Ok((key, minted.token))
    }

    /// Revokes a key. Revoking it again changes nothing.
    ///
    /// # Errors
    /// Returns `NoSuchKey` or `OwnKey` if the key cannot be revoked, and `Store` if the database fails.
    pub async fn revoke(&self, by: &Caller, id: &str, now_ms: i64) -> Result<Key, AccessError> {
        if !api_key::is_id(id) {
            return Err(AccessError::NoSuchKey);
        }
        if by.key.as_ref().is_some_and(|own| own.id == id) {
            return Err(AccessError::OwnKey);
        }
        let account_sid = by.account_sid.as_deref();
        let audit_entry = |key: &Key| entry(by, "key.revoked", key, now_ms);
        let revoked = self.store.revoke_key(id, account_sid, now_ms, audit_entry).await?;
        self.cache.remove(id);
        match revoked {
            Some(key) => {
                tracing::info!(
                    event = "key.revoked",
                    key.id = key.id,
                    by = by.actor,
                    "an administrator revoked an API key"
                );
                Ok(key)
            }
            None => self.get(by, id).await,
        }
    }

    /// Returns one key.
    ///
    /// # Errors
    /// Returns `NoSuchKey` if the caller can see no such key, and `Store` if the database fails.
    pub async fn get(&self, by: &Caller, id: &str) -> Result<Key, AccessError> {
        if !api_key::is_id(id) {
            return Err(AccessError::NoSuchKey);
        }
        let found = self.store.find_key(id, by.account_sid.as_deref()).await?;
        found.map(|stored| stored.key).ok_or(AccessError::NoSuchKey)
    }

    /// Lists keys, the newest first: those of `account_sid`, if given, and those older than `before`, if given.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn list(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        before: Option<(i64, &str)>,
        most: i64,
    ) -> Result<Vec<Key>, AccessError> {
        let account_sid = of_account(by, account_sid)?;
        let (before_ms, before_id) = before.unwrap_or((i64::MAX, ""));
        let page = KeysPage { account_sid, before_ms, before_id, most };
        Ok(self.store.list_keys(page).await?)
    }

    /// Lists entries of the audit log, the newest first. A caller that is bound to an account sees its entries only.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn audit(
        &self,
        by: &Caller,
        page: AuditPage<'_>,
    ) -> Result<Vec<AuditEntry>, AccessError> {
        let account_sid = of_account(by, page.account_sid)?;
        Ok(self.store.audit_log().list(&AuditPage { account_sid, ..page }).await?)
    }
}

/// Returns the account whose rows to list: the requested one or the caller's own; `None` for all accounts.
fn of_account<'a>(
    by: &'a Caller,
    account_sid: Option<&'a str>,
) -> Result<Option<&'a str>, AccessError> {
    match account_sid {
        Some(sid) if !by.sees(sid) => Err(AccessError::OtherAccount),
        account_sid => Ok(account_sid.or(by.account_sid.as_deref())),
    }
}

fn entry(by: &Caller, action: &str, key: &Key, now_ms: i64) -> AuditEntry {
    by.audit_entry(
        action,
        format!("key {}", key.id),
        key.account_sid.clone(),
        &json!({"name": key.name, "scope": key.scope}),
        now_ms,
    )
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}
