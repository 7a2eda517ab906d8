//! The fast path: Redis in front of the ledger. It answers what needs no second opinion (somebody has it, it is done,
//! it was released) and lets one claim of a webhook through to SQL. It never decides alone that a webhook may
//! proceed, so an empty, restarted or outdated Redis forgets nothing.
//!
//! Each batch is one pipeline with one short time limit. After a failure Redis is left alone for a while:
//! otherwise each batch of a long outage would wait for the limit again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, Pipeline, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use twilio_edge_contract::{Outcome, SettlementResult};

use super::{StoreError, ledger::Settle, scripts};
use crate::{
    config,
    domain::{lease::Claimed, lease::Periods, webhook::Webhook},
};

/// What Redis says about one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// Final.
    Known(Claimed),
    /// The ledger decides.
    AskLedger,
}

#[derive(Clone)]
pub(super) struct Redis {
    connection: ConnectionManager,
    scripts: Arc<Scripts>,
    timeout: Duration,
    retry_after_ms: i64,
    /// Left alone until then, in milliseconds since 1970; 0 while all is well.
    away_until_ms: Arc<AtomicI64>,
    periods: Periods,
}

struct Scripts {
    claim: Script,
    concede: Script,
    commit: Script,
    release: Script,
}

impl Redis {
    /// Does not wait for Redis to be there: it may come and go at any time.
    pub(super) fn open(settings: &config::Redis, periods: Periods) -> Result<Redis, StoreError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        // No retries and no queueing inside the client: what it cannot do now, SQL does.
        let limits = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_number_of_retries(0);
        let refused = |error: redis::RedisError| StoreError::Refused(error.to_string());
        let client = Client::open(settings.url.expose()).map_err(refused)?;
        Ok(Redis {
            connection: ConnectionManager::new_lazy_with_config(client, limits).map_err(refused)?,
            scripts: Arc::new(Scripts {
                claim: Script::new(scripts::CLAIM),
                concede: Script::new(scripts::CONCEDE),
                commit: Script::new(scripts::COMMIT),
                release: Script::new(scripts::RELEASE),
            }),
            timeout,
            retry_after_ms: i64::try_from(settings.retry_after_ms).unwrap_or(i64::MAX),
            away_until_ms: Arc::new(AtomicI64::new(0)),
            periods,
        })
    }

    /// Asks for each claim's lease, in order.
    pub(super) async fn claim(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<Vec<Hint>, StoreError> {
        let script = &self.scripts.claim;
        let until_ms = now_ms.saturating_add(self.periods.lease_ms);
        let keep_ms = self.periods.lease_ms.saturating_add(self.periods.result_ms);
        let mut pipeline = pipeline(script);
        for webhook in webhooks {
            pipeline.invoke_script(
                script
                    .key(key(&webhook.key))
                    .arg(&webhook.claim_id)
                    .arg(now_ms)
                    .arg(until_ms)
                    .arg(keep_ms),
            );
        }
        let replies = self.send(pipeline, webhooks.len(), now_ms).await?;
        Ok(replies.into_iter().map(hint).collect())
    }

    /// Takes back claims the ledger did not confirm, and tells Redis what it did not know to be done.
    pub(super) async fn correct(
        &self,
        answers: &[(&Webhook, Option<&Claimed>)],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let mut pipeline = pipeline(&self.scripts.concede);
        pipeline.load_script(&self.scripts.commit).ignore();
        for (webhook, claimed) in answers {
            let key = key(&webhook.key);
            match claimed {
                Some(Claimed::Duplicate(answer)) => {
                    self.add_commit(&mut pipeline, key, answer.as_deref());
                }
                _ => {
                    let mut concede = self.scripts.concede.key(key);
                    pipeline.invoke_script(concede.arg(&webhook.claim_id));
                }
            }
        }
        self.send(pipeline, answers.len(), now_ms).await.map(|_| ())
    }

    /// Tells Redis what the ledger has settled. A claim that was overtaken has changed nothing, here neither.
    pub(super) async fn settle(
        &self,
        settles: &[Settle],
        results: &[SettlementResult],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let told: Vec<&Settle> = settles
            .iter()
            .zip(results)
            .filter(|(_, result)| **result != SettlementResult::Superseded)
            .map(|(settle, _)| settle)
            .collect();
        let mut pipeline = pipeline(&self.scripts.commit);
        pipeline.load_script(&self.scripts.release).ignore();
        for settle in &told {
            let key = key(&settle.key);
            match settle.outcome {
                Outcome::Commit => self.add_commit(&mut pipeline, key, settle.answer.as_deref()),
                Outcome::Release => {
                    let mut release = self.scripts.release.key(key);
                    pipeline
                        .invoke_script(release.arg(&settle.claim_id).arg(self.periods.result_ms));
                }
            }
        }
        self.send(pipeline, told.len(), now_ms).await.map(|_| ())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let ping = async move { redis::cmd("PING").query_async::<String>(&mut connection).await };
        match tokio::time::timeout(self.timeout, ping).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Away(error.to_string())),
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }

    fn add_commit(&self, pipeline: &mut Pipeline, key: String, answer: Option<&str>) {
        let mut commit = self.scripts.commit.key(key);
        pipeline.invoke_script(commit.arg(self.periods.result_ms).arg(answer.unwrap_or_default()));
    }

    async fn send(
        &self,
        pipeline: Pipeline,
        expected: usize,
        now_ms: i64,
    ) -> Result<Vec<Vec<Option<String>>>, StoreError> {
        if now_ms < self.away_until_ms.load(Ordering::Relaxed) {
            return Err(StoreError::Away("left alone after a failure".into()));
        }
        let mut connection = self.connection.clone();
        let query = pipeline.query_async::<Vec<Vec<Option<String>>>>(&mut connection);
        let failure = match tokio::time::timeout(self.timeout, query).await {
            Ok(Ok(replies)) if replies.len() == expected => {
                if self.away_until_ms.swap(0, Ordering::Relaxed) != 0 {
                    tracing::info!("redis is back");
                }
                return Ok(replies);
            }
            Ok(Ok(replies)) => format!("{} replies to {expected} commands", replies.len()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        let until = now_ms.saturating_add(self.retry_after_ms);
        if self.away_until_ms.swap(until, Ordering::Relaxed) == 0 {
            tracing::warn!(reason = %failure, "redis is away, claims go to the database alone");
        }
        Err(StoreError::Away(failure))
    }
}

/// A pipeline that brings its script along: a restarted Redis knows none.
fn pipeline(script: &Script) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.load_script(script).ignore();
    pipeline
}

fn key(dedupe_key: &str) -> String {
    format!("twilio-edge:{{{dedupe_key}}}")
}

fn hint(reply: Vec<Option<String>>) -> Hint {
    let mut reply = reply.into_iter().map(Option::unwrap_or_default);
    match reply.next().as_deref() {
        Some("released") => Hint::Known(Claimed::Released),
        Some("in_flight") => Hint::Known(Claimed::InFlight),
        Some("duplicate") => {
            Hint::Known(Claimed::Duplicate(reply.next().filter(|answer| !answer.is_empty())))
        }
        _ => Hint::AskLedger,
    }
}
