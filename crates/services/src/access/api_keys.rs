//! Management of API keys: identifies callers, creates, lists and revokes keys, and reads the audit log. Every change
//! is stored with an audit entry. The format of a key and the permissions of a scope are decided in
//! [`twilio_edge_domain::api_key`]. This module knows neither HTTP nor SQL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use twilio_edge_domain::{
    api_key::{self, KeyToken, Scope},
    tenant::is_account_sid,
};
use twilio_edge_store::{
    ApiKeyStore, AuditEntry, CompletedRequest, Key, KeysPage, NewKey, StoreError, StoredKey,
};

/// Lifetime of a cached key. A revocation by another sidecar takes effect here after this time at the latest.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// Upper bound of cached keys. Only keys that exist are cached.
const MAX_CACHED: usize = 1024;

/// Number of key ids read per query, and the upper bound of ids in memory.
const IDS_PER_QUERY: usize = 500;
const MAX_IDS: usize = 100_000;

/// Resolution of a key's last use, in milliseconds.
const LAST_USE_RESOLUTION_MS: i64 = 60_000;

/// Longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Authenticated caller of an operation, and the origin of the call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the caller in the audit log.
    pub actor: String,
    /// Client address, or the user of the command line.
    pub source: String,
    /// Scope of the caller.
    pub scope: Scope,
    /// The only tenant that the caller can see; `None` for all tenants.
    pub account_sid: Option<String>,
    /// API key of the caller, if it presented one.
    pub key: Option<Key>,
}

impl Caller {
    /// Caller for a command on a machine that can reach the database.
    pub fn command_line(user: &str) -> Caller {
        Caller {
            actor: "command line".into(),
            source: format!("user {}", user.escape_debug()),
            scope: Scope::Admin,
            account_sid: None,
            key: None,
        }
    }

    /// Builds the audit entry of a change by this caller, at `now_ms` milliseconds since 1970. Without an
    /// `account_sid`, only callers that see all accounts see the entry.
    pub(crate) fn audit_entry(
        &self,
        action: &str,
        subject: String,
        account_sid: Option<String>,
        detail: &Value,
        now_ms: i64,
    ) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_ms: now_ms,
            actor: self.actor.clone(),
            source: self.source.clone(),
            action: action.to_owned(),
            subject,
            account_sid,
            detail: detail.to_string(),
        }
    }

    /// Returns whether the caller may see this account.
    pub fn sees(&self, account_sid: &str) -> bool {
        self.account_sid.as_deref().is_none_or(|own| own == account_sid)
    }
}

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

type IdRead = (Instant, Result<(), StoreError>);

/// API keys, with a cache of recent lookups. Copies share the cache.
#[derive(Clone)]
pub struct Keys {
    store: ApiKeyStore,
    token: Arc<[u8; 32]>,
    recent: Arc<Mutex<HashMap<String, (Instant, StoredKey)>>>,
    /// Ids of stored keys, including revoked ones.
    ids: Arc<Mutex<HashSet<String>>>,
    /// Time and result of the last read of the ids.
    last_id_read: Arc<tokio::sync::Mutex<Option<IdRead>>>,
}

impl Keys {
    /// Creates the service. `token` is the edge token that filters present; an empty token matches no caller.
    pub fn new(store: ApiKeyStore, token: &str) -> Keys {
        Keys {
            store,
            token: Arc::new(digest(token.as_bytes())),
            recent: Arc::default(),
            ids: Arc::default(),
            last_id_read: Arc::default(),
        }
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
        let presented = KeyToken::read(presented).ok_or(AccessError::Unknown)?;
        let stored = self.look_up(presented.id).await?.ok_or(AccessError::Unknown)?;
        if !presented.matches_digest(&stored.secret_sha256) || stored.key.revoked_at_ms.is_some() {
            return Err(AccessError::Unknown);
        }
        let key = stored.key;
        if !key.scope.permits(needed) {
            return Err(AccessError::Scope { has: key.scope, needed });
        }
        self.record_use(&key, now_ms);
        Ok(Caller {
            actor: format!("key {}", key.id),
            source,
            scope: key.scope,
            account_sid: key.account_sid.clone(),
            key: Some(key),
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
        let Some(presented) = KeyToken::read(presented) else { return Ok(false) };
        if self.cached().contains_key(presented.id) || self.stored_ids().contains(presented.id) {
            return Ok(true);
        }
        self.read_ids().await?;
        Ok(self.stored_ids().contains(presented.id))
    }

    /// Reads the ids of keys that were added since the last read. Returns the last result if the last read was less than
    /// [`CACHE_TTL`] ago.
    async fn read_ids(&self) -> Result<(), StoreError> {
        let mut last = self.last_id_read.lock().await;
        if let Some((at, result)) = &*last
            && at.elapsed() < CACHE_TTL
        {
            return result.clone();
        }
        let result = self.read_new_ids().await;
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// Reads pages, newest keys first, until a page has no new id: the older pages then hold no new id either. The ids of
    /// an incomplete list are not stored, because the next read would end at them.
    async fn read_new_ids(&self) -> Result<(), StoreError> {
        let mut new = HashSet::new();
        let (mut before_ms, mut before_id) = (i64::MAX, String::new());
        loop {
            let page = KeysPage {
                account_sid: None,
                before_ms,
                before_id: &before_id,
                most: i64::try_from(IDS_PER_QUERY).unwrap_or(i64::MAX),
            };
            let keys = self.store.list_keys(page).await?;
            let mut ids = self.stored_ids();
            let count = keys.len();
            if let Some(last) = keys.last() {
                (before_ms, before_id) = (last.created_at_ms, last.id.clone());
            }
            let unknown = keys.into_iter().map(|key| key.id).filter(|id| !ids.contains(id));
            let added = unknown.filter(|id| new.insert(id.clone())).count();
            let is_full = ids.len().saturating_add(new.len()) >= MAX_IDS;
            if added == 0 || is_full || count < IDS_PER_QUERY {
                ids.extend(new);
                return Ok(());
            }
        }
    }

    fn stored_ids(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(Caller { actor, source, scope: needed, account_sid: None, key: None })
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
        self.cached().remove(id);
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

    /// Lists entries of the audit log, the newest first: those of `account_sid`, if given, and those older than
    /// `before`, if given.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn audit(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        before: Option<i64>,
        most: i64,
    ) -> Result<Vec<AuditEntry>, AccessError> {
        let account_sid = of_account(by, account_sid)?;
        Ok(self.store.audit_log().list(account_sid, before.unwrap_or(i64::MAX), most).await?)
    }

    /// Looks up a key by its id, in the cache or in the database. A cached key is at most [`CACHE_TTL`] old.
    async fn look_up(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        let recent = self.cached().get(id).cloned();
        if let Some((at, stored)) = recent
            && at.elapsed() < CACHE_TTL
        {
            return Ok(Some(stored));
        }
        let read_at = Instant::now();
        let found = self.store.find_key(id, None).await?;
        if let Some(stored) = &found {
            let mut cached = self.cached();
            if cached.len() >= MAX_CACHED {
                cached.clear();
            }
            cached.insert(id.to_owned(), (read_at, stored.clone()));
        }
        Ok(found)
    }

    /// Stores the last use of a key in the background, at most once a minute. A failed write is logged and loses no
    /// more than this minute.
    fn record_use(&self, key: &Key, now_ms: i64) {
        if key
            .last_used_at_ms
            .is_some_and(|last| now_ms.saturating_sub(last) < LAST_USE_RESOLUTION_MS)
        {
            return;
        }
        if let Some((_, stored)) = self.cached().get_mut(&key.id) {
            stored.key.last_used_at_ms = Some(now_ms);
        }
        let (store, id) = (self.store.clone(), key.id.clone());
        tokio::spawn(async move {
            if let Err(reason) = store.touch_key(&id, now_ms).await {
                tracing::warn!(event = "key.last_use_failed", %reason, key.id = id, "the sidecar could not store the time of the last use of an API key");
            }
        });
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, StoredKey)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
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
