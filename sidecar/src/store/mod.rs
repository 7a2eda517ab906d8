//! The stores as one thing: the ledger (SQL, the truth) and, if there is one, Redis in front of it. What a claim costs
//! and what happens when one of them is away is decided here; what a claim means is not.
//!
//! ```text
//! claim    Redis: done? held? released? --no--> SQL: decide   (--disagrees--> tell Redis)
//!          Redis away -----------------------> SQL: decide
//! settle   SQL first, then Redis
//! ```

mod group;
mod ledger;
mod postgres;
mod redis;
mod rows;
mod scripts;
mod sql;
mod sqlite;

use std::{sync::Arc, time::Duration};

use self::{
    group::Group,
    ledger::{Ask, Ledger},
    redis::{Hint, Redis},
};
pub use self::{
    ledger::{Grant, OptSaid, Settle},
    rows::EventRow,
    sql::StoreError,
};
use crate::{
    config::Config,
    domain::{
        lease::{Claimed, Periods},
        webhook::Webhook,
    },
    metrics::Metrics,
};
use twilio_edge_contract::SettlementResult;

/// The stores a sidecar runs on.
#[derive(Clone)]
pub struct Stores {
    ledger: Arc<Ledger>,
    claims: Group<Ask, Grant>,
    settles: Group<Settle, SettlementResult>,
    opts: Group<OptSaid, bool>,
    redis: Option<Redis>,
    metrics: Arc<Metrics>,
}

/// Whether each store answers, for `/readyz`.
#[derive(Debug, Clone)]
pub struct Health {
    /// Without it nothing works.
    pub ledger: Result<(), StoreError>,
    /// None when there is no Redis; without it everything works, slower.
    pub redis: Option<Result<(), StoreError>>,
}

impl Stores {
    /// Reaches the database, brings its tables up to date and prepares Redis, which may be away.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Stores, StoreError> {
        let periods = Periods {
            lease_ms: i64::from(config.leases.period_ms),
            result_ms: i64::from(config.leases.result_ttl_s).saturating_mul(1000),
        };
        let redis = match config.redis.url.is_empty() {
            true => None,
            false => Some(Redis::open(&config.redis, periods)?),
        };
        let timeout = Duration::from_millis(config.database.timeout_ms);
        let ledger = Arc::new(Ledger::open(&config.database, periods).await?);
        let (claiming, settling, recording) = (ledger.clone(), ledger.clone(), ledger.clone());
        Ok(Stores {
            claims: Group::start(timeout, move |asks: Vec<Ask>, now_ms| {
                let ledger = claiming.clone();
                async move { ledger.claim(&asks, now_ms).await }
            }),
            settles: Group::start(timeout, move |settles: Vec<Settle>, now_ms| {
                let ledger = settling.clone();
                async move { ledger.settle(&settles, now_ms).await }
            }),
            opts: Group::start(timeout, move |said: Vec<OptSaid>, now_ms| {
                let ledger = recording.clone();
                async move { ledger.record_opts(&said, now_ms).await }
            }),
            ledger,
            redis,
            metrics,
        })
    }

    /// What it runs on, for people: `sqlite`, `redis+postgres`, ..
    pub fn describe(&self) -> String {
        let front = if self.redis.is_some() { "redis+" } else { "" };
        format!("{front}{}", self.ledger.name())
    }

    /// Decides each claim, in order; none where no store could say.
    pub async fn claim(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<Grant>> {
        let hints = self.hints(webhooks, now_ms).await;
        let asked = webhooks.iter().zip(&hints).filter(|(_, hint)| **hint == Hint::AskLedger);
        let asked: Vec<&Webhook> = asked.map(|(webhook, _)| *webhook).collect();
        let decided = self.decide(&asked, now_ms).await;

        if let Some(redis) = &self.redis {
            let claimed = decided.iter().map(|grant| grant.as_ref().map(|grant| &grant.claimed));
            let disagreed: Vec<(&Webhook, Option<&Claimed>)> = asked
                .iter()
                .copied()
                .zip(claimed)
                .filter(|(_, claimed)| !matches!(claimed, Some(Claimed::Proceed { .. })))
                .collect();
            if !disagreed.is_empty() {
                // Best effort: what is not taken back ends by itself, what is not told is asked again.
                let _ = redis.correct(&disagreed, now_ms).await;
            }
        }
        let mut decided = decided.into_iter();
        let grants = hints.into_iter().map(|hint| match hint {
            Hint::Known(claimed) => Some(Grant::without_person(claimed)),
            Hint::AskLedger => decided.next().flatten(),
        });
        grants.collect()
    }

    /// Settles each claim, in order: in the ledger, and then in Redis as far as it is there. Nothing at all when the
    /// ledger cannot.
    pub async fn settle(&self, settles: Vec<Settle>, now_ms: i64) -> Vec<SettlementResult> {
        if settles.is_empty() {
            return Vec::new();
        }
        let results = match self.settles.ask(settles.clone(), now_ms).await {
            Ok(results) => results,
            Err(reason) => {
                tracing::warn!(%reason, count = settles.len(), "settlements have to be sent again");
                return Vec::new();
            }
        };
        if let Some(redis) = &self.redis {
            // What Redis misses it asks the ledger about once the lease it knows has ended.
            if redis.settle(&settles, &results, now_ms).await.is_err() {
                self.metrics.redis_fell_through();
            }
        }
        results
    }

    /// Records every STOP and START before it returns; of each, whether it changed who is suppressed.
    pub async fn record_opts(
        &self,
        said: Vec<OptSaid>,
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        self.opts.ask(said, now_ms).await
    }

    /// Writes events; the same event again changes nothing.
    pub async fn keep_events(&self, events: Vec<EventRow>) -> Result<(), StoreError> {
        self.ledger.keep_events(events).await
    }

    /// Deletes what need not be remembered any longer, a bounded number of rows; how many.
    pub async fn forget(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.ledger.forget(now_ms).await
    }

    /// Asks each store whether it is there.
    pub async fn health(&self) -> Health {
        let redis = async {
            match &self.redis {
                Some(redis) => Some(redis.ping().await),
                None => None,
            }
        };
        let (ledger, redis) = tokio::join!(self.ledger.ping(), redis);
        Health { ledger, redis }
    }

    /// Ends all connections, orderly.
    pub async fn close(&self) {
        self.ledger.close().await;
    }

    async fn hints(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Hint> {
        if let Some(redis) = &self.redis {
            match redis.claim(webhooks, now_ms).await {
                Ok(hints) => return hints,
                Err(_) => self.metrics.redis_fell_through(),
            }
        }
        vec![Hint::AskLedger; webhooks.len()]
    }

    async fn decide(&self, webhooks: &[&Webhook], now_ms: i64) -> Vec<Option<Grant>> {
        if webhooks.is_empty() {
            return Vec::new();
        }
        let asks = webhooks.iter().map(|webhook| Ask::of(webhook)).collect();
        match self.claims.ask(asks, now_ms).await {
            Ok(grants) => grants.into_iter().map(Some).collect(),
            Err(reason) => {
                tracing::warn!(%reason, count = webhooks.len(), "claims could not be decided");
                vec![None; webhooks.len()]
            }
        }
    }
}
