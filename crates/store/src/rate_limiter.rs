//! Rate limiter of senders: one token bucket per sender for all sidecars. The bucket is in Redis, by Redis's clock. Without
//! Redis, or while it is unavailable, it is in PostgreSQL, by the database's clock. With SQLite, which has one sidecar, it
//! is in memory. The domain decides what a bucket grants. This module reads a bucket and writes it back if it has not
//! changed meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Durability},
    error::StoreError,
    redis::Redis,
};
use twilio_edge_domain::sending::rate_limit::{Rate, TokenBucket, TokenGrant};

/// Number of conflicts with other sidecars after which nothing is granted for the moment.
const TRIES: usize = 8;

/// Milliseconds for which an unused bucket is kept after it is full.
const KEEP_MS: i64 = 60_000;

/// Upper bound of the clock difference between two sidecars and their database, in milliseconds.
const FAR_MS: i64 = 3_600_000;

const DELETE_FULL: &str = "DELETE FROM token_buckets WHERE full_at_ms < $1";

const OPEN: &str = "INSERT INTO token_buckets (name, bucket, full_at_ms) VALUES ($1, '', 0) ON CONFLICT (name) DO NOTHING";

const READ: &str = "
    SELECT bucket, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms FROM token_buckets WHERE name = $1 FOR UPDATE";

const WRITE: &str = "UPDATE token_buckets SET bucket = $2, full_at_ms = $3 WHERE name = $1";

/// Request for the permission to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRequest<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Sender. Buckets are per account, because a caller may name a sender of another account and must not slow it down.
    pub sender: &'a str,
    /// Rate of the sender.
    pub rate: Rate,
    /// Number of messages to send.
    pub count: u32,
}

/// Token buckets of all senders.
#[derive(Clone)]
pub struct RateLimiter {
    /// Buckets of this sidecar alone, each with the time at which it is full, in milliseconds.
    own: Arc<Mutex<HashMap<String, (TokenBucket, i64)>>>,
    /// The database, if several sidecars share it.
    shared: Option<Database>,
    redis: Option<Redis>,
}

#[derive(Debug, FromRow)]
struct BucketRow {
    bucket: String,
    now_ms: i64,
}

impl RateLimiter {
    pub(super) fn of(shared: Option<Database>, redis: Option<Redis>) -> RateLimiter {
        RateLimiter { own: Arc::default(), redis: redis.filter(|_| shared.is_some()), shared }
    }

    /// Takes tokens from the buckets. Returns the grant of each request, in order.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take(
        &self,
        requests: &[TokenRequest<'_>],
        now_ms: i64,
    ) -> Result<Vec<TokenGrant>, StoreError> {
        self.change(requests, now_ms, |bucket, request, at_ms| {
            bucket.take(request.rate, request.count, at_ms)
        })
        .await
    }

    /// Puts back the tokens of messages that were not sent.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn give_back(
        &self,
        requests: &[TokenRequest<'_>],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let back = |bucket: &mut TokenBucket, request: &TokenRequest<'_>, _| {
            bucket.give_back(request.rate, request.count);
            TokenGrant { count: request.count, ..TokenGrant::default() }
        };
        self.change(requests, now_ms, back).await.map(|_| ())
    }

    /// Deletes the buckets that are full by now, because callers choose the names of senders.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the change.
    pub async fn delete_full(&self, now_ms: i64) -> Result<(), StoreError> {
        let Some(database) = &self.shared else { return Ok(()) };
        let full_at_ms = now_ms.saturating_sub(FAR_MS);
        database
            .execute_bound(Durability::Power, DELETE_FULL, &[Bind::Whole(full_at_ms)])
            .await
            .map(|_| ())
    }

    async fn change(
        &self,
        requests: &[TokenRequest<'_>],
        now_ms: i64,
        change: impl Fn(&mut TokenBucket, &TokenRequest<'_>, i64) -> TokenGrant,
    ) -> Result<Vec<TokenGrant>, StoreError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let Some(database) = &self.shared else {
            return Ok(self.change_in_memory(requests, now_ms, change));
        };
        if let Some(redis) = &self.redis
            && let Ok(granted) = change_in_redis(redis, requests, now_ms, &change).await
        {
            return Ok(granted);
        }
        change_in_sql(database, requests, change).await
    }

    fn change_in_memory(
        &self,
        requests: &[TokenRequest<'_>],
        now_ms: i64,
        change: impl Fn(&mut TokenBucket, &TokenRequest<'_>, i64) -> TokenGrant,
    ) -> Vec<TokenGrant> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = requests.iter().map(|request| {
            let entry = own.entry(name(request));
            let (bucket, full_at_ms) = entry.or_insert_with(|| (TokenBucket::new(now_ms), now_ms));
            *full_at_ms = now_ms.saturating_add(request.rate.fills_in_ms());
            change(bucket, request, now_ms)
        });
        let granted = granted.collect();
        own.retain(|_, (_, full_at_ms)| *full_at_ms > now_ms);
        granted
    }
}

/// Changes the buckets in Redis. A bucket that another sidecar changed meanwhile is read again.
async fn change_in_redis(
    redis: &Redis,
    requests: &[TokenRequest<'_>],
    now_ms: i64,
    change: impl Fn(&mut TokenBucket, &TokenRequest<'_>, i64) -> TokenGrant,
) -> Result<Vec<TokenGrant>, StoreError> {
    let keep_ms =
        requests.iter().map(|request| request.rate.fills_in_ms()).max().unwrap_or_default();
    let keep_ms = keep_ms.saturating_add(KEEP_MS);
    let mut granted = vec![TokenGrant::default(); requests.len()];
    let mut left: Vec<(usize, &TokenRequest<'_>)> = requests.iter().enumerate().collect();
    for _ in 0..TRIES {
        let names: Vec<String> = left.iter().map(|(_, request)| name(request)).collect();
        let (found, at_ms) = redis.read(&names, now_ms).await?;
        let (mut swaps, mut changed) = (Vec::new(), Vec::new());
        for (((place, request), name), text) in left.into_iter().zip(&names).zip(found) {
            let before = text.unwrap_or_default();
            let mut bucket = TokenBucket::read(&before).unwrap_or_else(|| TokenBucket::new(at_ms));
            let answer = change(&mut bucket, request, at_ms);
            // A bucket that grants nothing need not be written; time alone fills it.
            if answer.count == 0
                && !before.is_empty()
                && let Some(slot) = granted.get_mut(place)
            {
                *slot = answer;
            } else {
                swaps.push((name.as_str(), before, bucket.written()));
                changed.push((place, request, answer));
            }
        }
        if swaps.is_empty() {
            return Ok(granted);
        }
        let others = redis.swap(&swaps, keep_ms, now_ms).await?;
        left = Vec::new();
        for ((place, request, answer), other) in changed.into_iter().zip(others) {
            match (other, granted.get_mut(place)) {
                (None, Some(slot)) => *slot = answer,
                _ => left.push((place, request)),
            }
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(granted)
}

async fn change_in_sql(
    database: &Database,
    requests: &[TokenRequest<'_>],
    change: impl Fn(&mut TokenBucket, &TokenRequest<'_>, i64) -> TokenGrant,
) -> Result<Vec<TokenGrant>, StoreError> {
    let mut names: Vec<(usize, String)> = requests.iter().map(name).enumerate().collect();
    // All transactions use the same order, so that no two of them wait for each other.
    names.sort_by(|(_, one), (_, other)| one.cmp(other));
    database
        .within_timeout(async {
            let mut granted = vec![TokenGrant::default(); requests.len()];
            // A bucket that is lost in a power loss starts anew with one message.
            let mut tx = database.begin(Durability::Process).await?;
            for (place, name) in &names {
                tx.execute_bound(OPEN, &[Bind::Text(name)]).await?;
                let rows: Vec<BucketRow> = tx.fetch_bound(READ, &[Bind::Text(name)]).await?;
                let (Some(row), Some(request)) = (rows.first(), requests.get(*place)) else {
                    continue;
                };
                let bucket = TokenBucket::read(&row.bucket);
                let mut bucket = bucket.unwrap_or_else(|| TokenBucket::new(row.now_ms));
                let answer = change(&mut bucket, request, row.now_ms);
                let full_at_ms = row.now_ms.saturating_add(request.rate.fills_in_ms());
                let written = bucket.written();
                let binds = [Bind::Text(name), Bind::Text(&written), Bind::Whole(full_at_ms)];
                tx.execute_bound(WRITE, &binds).await?;
                if let Some(slot) = granted.get_mut(*place) {
                    *slot = answer;
                }
            }
            tx.commit().await?;
            Ok(granted)
        })
        .await
}

fn name(request: &TokenRequest<'_>) -> String {
    ["pace:", request.account_sid, ":", request.sender].concat()
}
