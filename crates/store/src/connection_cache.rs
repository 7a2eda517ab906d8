//! Connections that stay at hand between two questions of the main path. What goes back to sqlx's pool is asked there whether
//! it still lives: a round trip and a task of its own for each question, as much as asking it. Which connections these are and
//! how long one may stay is decided here; what they are asked is not.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

/// One nobody used for so long goes back, to be asked whether it is still there before it is relied on.
pub(super) const IDLE: Duration = Duration::from_millis(250);

/// One goes back after so long in any case: the pool ends what has lived too long.
const STAY: Duration = Duration::from_secs(60);

/// Up to half of a pool, so that whoever else asks it finds the other half.
pub(super) struct ConnectionCache {
    pool: PgPool,
    most: usize,
    idle: Mutex<Vec<Held>>,
}

/// A connection for one question. Put back only after a whole answer: the pool looks after what became of it otherwise.
pub(super) struct Held {
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

    pub(super) async fn take(&self) -> Result<Held, sqlx::Error> {
        if let Some(held) = self.used_last() {
            return Ok(held);
        }
        let connection = self.pool.acquire().await?;
        let now = Instant::now();
        Ok(Held { connection, taken_at: now, used_at: now })
    }

    pub(super) fn put_back(&self, held: Held) {
        let now = Instant::now();
        let mut idle = self.idle();
        if idle.len() < self.most && now.duration_since(held.taken_at) < STAY {
            idle.push(Held { used_at: now, ..held });
        }
    }

    /// How many wait here, which the pool takes for busy.
    pub(super) fn count(&self) -> usize {
        self.idle().len()
    }

    /// All go back: a pool that closes waits for them.
    pub(super) fn give_back(&self) {
        drop(std::mem::take(&mut *self.idle()));
    }

    fn used_last(&self) -> Option<Held> {
        let mut idle = self.idle();
        let held = idle.pop()?;
        if held.used_at.elapsed() < IDLE {
            return Some(held);
        }
        // The others were used before it.
        idle.clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Held>> {
        // Nothing panics while it holds this.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl fmt::Debug for ConnectionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtHand").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Drop for ConnectionCache {
    /// Going back takes a task; where there is nobody to run it any more, connections simply end.
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        if tokio::runtime::Handle::try_current().is_err() {
            idle.into_iter().for_each(|held| drop(held.connection.leak()));
        }
    }
}
