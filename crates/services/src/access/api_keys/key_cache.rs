//! Cache of API keys in memory: recent lookups, and the ids of all keys, so that an invalid credential needs no query.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use twilio_edge_store::{ApiKeyStore, Key, KeysPage, StoreError, StoredKey};

/// Lifetime of a cached key. A revocation by another sidecar takes effect here after this time at the latest.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// Upper bound of cached keys. Only keys that exist are cached.
const MAX_CACHED: usize = 1024;

/// Number of key ids read per query, and the upper bound of ids in memory.
const IDS_PER_QUERY: usize = 500;
const MAX_IDS: usize = 100_000;

/// Resolution of a key's last use, in milliseconds.
const LAST_USE_RESOLUTION_MS: i64 = 60_000;

type IdRead = (Instant, Result<(), StoreError>);

/// Keys of one database, cached.
pub(super) struct KeyCache {
    store: ApiKeyStore,
    recent: Mutex<HashMap<String, (Instant, StoredKey)>>,
    /// Ids of stored keys, including revoked ones.
    ids: Mutex<HashSet<String>>,
    /// Time and result of the last read of the ids.
    last_id_read: tokio::sync::Mutex<Option<IdRead>>,
}

impl KeyCache {
    /// Creates an empty cache.
    pub(super) fn new(store: ApiKeyStore) -> KeyCache {
        KeyCache {
            store,
            recent: Mutex::default(),
            ids: Mutex::default(),
            last_id_read: tokio::sync::Mutex::default(),
        }
    }

    /// Returns whether a key with this id is stored, also a revoked one. Starts at most one read of the ids per second.
    ///
    /// # Errors
    /// Returns an error if the id is not in memory and the database cannot list all ids.
    pub(super) async fn has_id(&self, id: &str) -> Result<bool, StoreError> {
        if self.cached().contains_key(id) || self.stored_ids().contains(id) {
            return Ok(true);
        }
        self.read_ids().await?;
        Ok(self.stored_ids().contains(id))
    }

    /// Removes a key from the cache, so that the next lookup reads it from the database.
    pub(super) fn remove(&self, id: &str) {
        self.cached().remove(id);
    }

    /// Looks up a key by its id, in the cache or in the database. A cached key is at most [`CACHE_TTL`] old.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub(super) async fn find(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
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
    pub(super) fn record_use(&self, key: &Key, now_ms: i64) {
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

    fn cached(&self) -> MutexGuard<'_, HashMap<String, (Instant, StoredKey)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn stored_ids(&self) -> MutexGuard<'_, HashSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
