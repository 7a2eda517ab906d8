//! Cache of PostgreSQL connections between two queries of the main path. sqlx's pool tests each returned connection, which
//! costs a round trip and a task per query: as much as the query. This module decides which connections it caches and for
//! how long; it must not know the queries.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

/// Idle time after which a connection returns to the pool, which tests it before its next use.
pub(super) const IDLE: Duration = Duration::from_millis(250);

/// Maximum time in the cache; the pool closes connections that are too old.
const STAY: Duration = Duration::from_secs(60);

/// Cache of up to half of a pool's connections, so that other users of the pool find the other half.
pub(super) struct ConnectionCache {
    pool: PgPool,
    most: usize,
    idle: Mutex<Vec<CachedConnection>>,
}

/// A connection for one query. It is put back only after a complete answer; otherwise it returns to the pool, which checks
/// it.
pub(super) struct CachedConnection {
    connection: PoolConnection<Postgres>,
    taken_at: Instant,
    used_at: Instant,
}

impl ConnectionCache {
    pub(super) fn of(pool: &PgPool) -> ConnectionCache {
        let most = pool.options().get_max_connections() / 2;
        let most = usize::try_from(most).unwrap_or_default();
        ConnectionCache { pool: pool.clone(), most, idle: Mutex::default() }
    }

    pub(super) async fn take(&self) -> Result<CachedConnection, sqlx::Error> {
        if let Some(held) = self.used_last() {
            return Ok(held);
        }
        let connection = self.pool.acquire().await?;
        let now = Instant::now();
        Ok(CachedConnection { connection, taken_at: now, used_at: now })
    }

    pub(super) fn put_back(&self, held: CachedConnection) {
        let now = Instant::now();
        let mut idle = self.idle();
        if idle.len() < self.most && now.duration_since(held.taken_at) < STAY {
            idle.push(CachedConnection { used_at: now, ..held });
        }
    }

    /// Returns the number of cached connections, which the pool counts as busy.
    pub(super) fn count(&self) -> usize {
        self.idle().len()
    }

    /// Returns all connections to the pool; a closing pool waits for them.
    pub(super) fn empty(&self) {
        drop(std::mem::take(&mut *self.idle()));
    }

    fn used_last(&self) -> Option<CachedConnection> {
        let mut idle = self.idle();
        let held = idle.pop()?;
        if held.used_at.elapsed() < IDLE {
            return Some(held);
        }
        // The other connections were used before this one, so they have expired too.
        idle.clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<CachedConnection>> {
        // No code panics while it holds this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedConnection {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl fmt::Debug for ConnectionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCache").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Drop for ConnectionCache {
    /// A return to the pool needs a task. Without a runtime, the connections are closed instead.
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        if tokio::runtime::Handle::try_current().is_err() {
            idle.into_iter().for_each(|held| drop(held.connection.leak()));
        }
    }
}
