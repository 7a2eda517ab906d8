//! Lease store in Redis, for many sidecars. A key holds the record of one webhook as text. The domain reads it and decides;
//! the result is written back if the record has not changed meanwhile. Nearly every claim is of an unknown webhook. For
//! that case one plain command does both: it sets the record if there is none, else it returns the existing one.
//!
//! Each batch is a few pipelines with one short timeout. After a failure the store does not use Redis for a while;
//! otherwise each batch of a long outage would wait for the timeout again.

mod record;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, Pipeline, Script, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use self::record::text;
use super::{
    leases::{LeaseClaim, LeaseRelease},
    scripts,
};
use crate::error::StoreError;
use crate::settlement_input::SettlementInput;
use twilio_edge_domain::{
    lease::{ClaimOutcome, LeaseRecord, Periods},
    webhook::Webhook,
};
use twilio_edge_platform::config;

/// Number of conflicts on a record after which its webhook is left to the other sidecars.
const TRIES: usize = 8;

/// Key of a write that only checks whether Redis accepts writes.
const PROBE: &str = "twilio-edge:probe";

#[derive(Clone)]
pub(super) struct Redis {
    connection: ConnectionManager,
    amend: Arc<Script>,
    timeout: Duration,
    retry_after_ms: i64,
    /// Time until which Redis is not used, in milliseconds since 1970; 0 while it is available.
    unavailable_until_ms: Arc<AtomicI64>,
    periods: Periods,
    keep_ms: i64,
}

/// Content of a webhook's key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct StoredRecord {
    text: String,
    record: LeaseRecord,
}

impl Redis {
    /// Creates the client without waiting for Redis, which may become available or unavailable at any time.
    pub(super) fn open(
        settings: &config::Redis,
        periods: Periods,
        recall_ms: i64,
    ) -> Result<Redis, StoreError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        // No retries and no queueing in the client: SQL handles what Redis cannot do now.
        let limits = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_number_of_retries(0);
        let refused = |error: redis::RedisError| StoreError::Refused(error.to_string());
        let client = Client::open(settings.url.expose()).map_err(refused)?;
        Ok(Redis {
            connection: ConnectionManager::new_lazy_with_config(client, limits).map_err(refused)?,
            amend: Arc::new(Script::new(scripts::AMEND)),
            timeout,
            retry_after_ms: i64::try_from(settings.retry_after_ms).unwrap_or(i64::MAX),
            unavailable_until_ms: Arc::new(AtomicI64::new(0)),
            periods,
            keep_ms: periods.lease_ms.saturating_add(recall_ms),
        })
    }

    /// Claims each lease as far as Redis knows, in order.
    pub(super) async fn claim(
        &self,
        webhooks: &[&Webhook],
        now_ms: i64,
    ) -> Result<Vec<LeaseClaim>, StoreError> {
        let decide = |webhook: &Webhook, record: &mut LeaseRecord| {
            record.claim(&webhook.claim_id, now_ms, self.periods)
        };
        let mut pipeline = Pipeline::with_capacity(webhooks.len());
        let mut taken = Vec::with_capacity(webhooks.len());
        for webhook in webhooks {
            let mut after = LeaseRecord::default();
            let claimed = decide(webhook, &mut after);
            let mut set = self.set(&webhook.key, &after)?;
            set.arg("NX").arg("GET");
            pipeline.add_command(set);
            taken.push(LeaseClaim { claimed, before: LeaseRecord::default(), after });
        }
        let found: Vec<Option<String>> = self.send(&pipeline, webhooks.len(), now_ms).await?;
        let known = found.into_iter().enumerate();
        let known = known.filter_map(|(place, found)| Some((place, found?)));
        let known: Vec<(usize, StoredRecord)> =
            known.map(|(place, text)| (place, StoredRecord::read(text))).collect();
        let change = |place: usize, record: &mut LeaseRecord| {
            webhooks.get(place).map_or(ClaimOutcome::InFlight, |webhook| decide(webhook, record))
        };
        let key_of = |place: usize| webhooks.get(place).map_or("", |webhook| &webhook.key);
        let changed = self.change(known, key_of, change, now_ms).await?;
        for (place, answer) in changed {
            let Some(slot) = taken.get_mut(place) else { continue };
            *slot = match answer {
                Some((claimed, before, after)) => LeaseClaim { claimed, before, after },
                // Other sidecars are changing the record; the caller retries.
                None => LeaseClaim {
                    claimed: ClaimOutcome::InFlight,
                    before: LeaseRecord::default(),
                    after: LeaseRecord::default(),
                },
            };
        }
        Ok(taken)
    }

    /// Releases each lease as far as Redis knows, in order.
    pub(super) async fn release(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Result<Vec<LeaseRelease>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(settles.len());
        settles.iter().for_each(|settle| {
            pipeline.cmd("GET").arg(key(&settle.key));
        });
        let found: Vec<Option<String>> = self.send(&pipeline, settles.len(), now_ms).await?;
        let found = found.into_iter().map(|text| text.map(StoredRecord::read).unwrap_or_default());
        let change = |place: usize, record: &mut LeaseRecord| {
            settles.get(place).map(|settle| record.release(&settle.claim_id, now_ms, self.periods))
        };
        let key_of = |place: usize| settles.get(place).map_or("", |settle| &settle.key);
        let found = found.enumerate().collect();
        let mut changed = self.change(found, key_of, change, now_ms).await?;
        let released_leases = (0..settles.len()).map(|place| {
            let (result, before, after) = changed.remove(&place).flatten()?;
            Some((result?, before, after))
        });
        let released_leases: Option<Vec<LeaseRelease>> = released_leases.collect();
        released_leases.ok_or_else(|| StoreError::Unavailable("too many change one webhook".into()))
    }

    /// Replaces each record if it still equals the old version. Returns for each change whether it was applied.
    pub(super) async fn amend(
        &self,
        changes: &[(&str, &LeaseRecord, LeaseRecord)],
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
        let mut swaps = Vec::with_capacity(changes.len());
        for (key, before, after) in changes {
            swaps.push((*key, text(before)?, text(after)?));
        }
        let found = self.swap(&swaps, self.keep_ms, now_ms).await?;
        Ok(found.into_iter().map(|found| found.is_none()).collect())
    }

    /// Returns the values of these names, in order; they are not names of webhooks. Also returns the time of Redis in
    /// milliseconds since 1970, which is the same for every sidecar.
    pub(super) async fn read(
        &self,
        names: &[String],
        now_ms: i64,
    ) -> Result<(Vec<Option<String>>, i64), StoreError> {
        let mut pipeline = Pipeline::with_capacity(names.len().saturating_add(1));
        pipeline.cmd("TIME");
        names.iter().for_each(|name| {
            pipeline.cmd("GET").arg(key(name));
        });
        let answer = self.query::<Vec<redis::Value>>(&pipeline, now_ms).await?;
        let mut answers = self.judge(answer, now_ms)?.into_iter();
        let read = |value| <(i64, i64)>::from_redis_value(value).ok();
        let Some((seconds, micros)) = answers.next().and_then(read) else {
            return Err(StoreError::Unavailable("no time".into()));
        };
        let text = |value| Option::<String>::from_redis_value(value).ok().flatten();
        let found = counted(answers.map(text).collect(), names.len())?;
        Ok((found, seconds.saturating_mul(1000).saturating_add(micros / 1000)))
    }

    /// Stores the claims that the journal or the ledger has as accepted. The first response stays, as in the ledger; a later one is
    /// undone.
    pub(super) async fn commit(
        &self,
        settles: &[&SettlementInput],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(settles.len());
        let mut written = Vec::with_capacity(settles.len());
        let commit = |settle: &SettlementInput, record: &mut LeaseRecord| {
            record.commit(&settle.claim_id, settle.answer.clone(), now_ms, self.periods)
        };
        for settle in settles {
            let mut done = LeaseRecord::default();
            commit(settle, &mut done);
            let done = text(&done)?;
            let mut set = self.set_text(&settle.key, &done);
            set.arg("GET");
            pipeline.add_command(set);
            written.push(done);
        }
        let found: Vec<Option<String>> = self.send(&pipeline, settles.len(), now_ms).await?;
        let mut swaps = Vec::new();
        for ((settle, written), found) in settles.iter().zip(written).zip(found) {
            let Some(before) = found.map(StoredRecord::read) else { continue };
            let mut after = before.record.clone();
            commit(settle, &mut after);
            if after == before.record && before.text != written {
                swaps.push((settle.key.as_str(), written, before.text));
            }
        }
        if !swaps.is_empty() {
            self.swap(&swaps, self.keep_ms, now_ms).await?;
        }
        Ok(())
    }

    /// Returns whether Redis has failed and has not answered since.
    pub(super) fn is_unavailable(&self) -> bool {
        self.unavailable_until_ms.load(Ordering::Relaxed) != 0
    }

    /// Writes to Redis if it has failed and its pause is over, so that its return is noticed while no claim arrives. A PING
    /// would not do: a replica answers it, and refuses the writes of claims.
    pub(super) async fn probe(&self, now_ms: i64) {
        if self.is_unavailable() {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SET").arg(PROBE).arg("").arg("PX").arg(1000);
            // The failure is in the state.
            let _ = self.send(&pipeline, 1, now_ms).await;
        }
    }

    /// Returns the command that sets a webhook's record, with its lifetime.
    fn set(&self, dedupe_key: &str, record: &LeaseRecord) -> Result<Cmd, StoreError> {
        Ok(self.set_text(dedupe_key, &text(record)?))
    }

    fn set_text(&self, dedupe_key: &str, text: &str) -> Cmd {
        let key = key(dedupe_key);
        // Allocates the whole command at once, because each claim needs one.
        let mut set =
            Cmd::with_capacity(7, key.len().saturating_add(text.len()).saturating_add(64));
        set.arg("SET").arg(key).arg(text).arg("PX").arg(self.keep_ms);
        set
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let ping = async move { redis::cmd("PING").query_async::<String>(&mut connection).await };
        match tokio::time::timeout(self.timeout, ping).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {:?}", self.timeout))),
        }
    }

    /// Reads records, lets `change` decide on each one and writes it back, until no other sidecar changed it meanwhile.
    /// Returns by position the decision, the record before and the record now; `None` after too many conflicts.
    async fn change<'a, T>(
        &self,
        mut found: Vec<(usize, StoredRecord)>,
        key_of: impl Fn(usize) -> &'a str,
        change: impl Fn(usize, &mut LeaseRecord) -> T,
        now_ms: i64,
    ) -> Result<HashMap<usize, Option<(T, LeaseRecord, LeaseRecord)>>, StoreError> {
        let mut decided = HashMap::with_capacity(found.len());
        for _ in 0..TRIES {
            let (mut swaps, mut changes) = (Vec::new(), Vec::new());
            for (place, before) in found {
                let mut after = before.record.clone();
                let answer = change(place, &mut after);
                if after == before.record {
                    decided.insert(place, Some((answer, before.record, after)));
                } else {
                    swaps.push((key_of(place), before.text, text(&after)?));
                    changes.push((place, answer, before.record, after));
                }
            }
            if swaps.is_empty() {
                return Ok(decided);
            }
            let others = self.swap(&swaps, self.keep_ms, now_ms).await?;
            found = Vec::new();
            for ((place, answer, before, after), other) in changes.into_iter().zip(others) {
                match other {
                    None => {
                        decided.insert(place, Some((answer, before, after)));
                    }
                    Some(text) => found.push((place, StoredRecord::read(text))),
                }
            }
        }
        decided.extend(found.into_iter().map(|(place, _)| (place, None)));
        Ok(decided)
    }

    /// Writes each new text if the old one is still there, with its lifetime. Returns the text that is there instead.
    pub(super) async fn swap(
        &self,
        swaps: &[(&str, String, String)],
        keep_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(swaps.len());
        for (name, before, after) in swaps {
            let mut amend = self.amend.key(key(name));
            pipeline.invoke_script(amend.arg(before).arg(after).arg(keep_ms));
        }
        self.send_scripts(&pipeline, swaps.len(), now_ms).await
    }

    /// Loads the script into a restarted Redis and repeats the pipeline. Executing either one twice changes nothing.
    async fn send_scripts(
        &self,
        pipeline: &Pipeline,
        expected: usize,
        now_ms: i64,
    ) -> Result<Vec<Option<String>>, StoreError> {
        match self.query(pipeline, now_ms).await? {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut load = Pipeline::new();
                load.load_script(&self.amend).ignore();
                self.judge(self.query::<()>(&load, now_ms).await?, now_ms)?;
                self.send(pipeline, expected, now_ms).await
            }
            answer => counted(self.judge(answer, now_ms)?, expected),
        }
    }

    async fn send(
        &self,
        pipeline: &Pipeline,
        expected: usize,
        now_ms: i64,
    ) -> Result<Vec<Option<String>>, StoreError> {
        if expected == 0 {
            return Ok(Vec::new());
        }
        let answer = self.query(pipeline, now_ms).await?;
        counted(self.judge(answer, now_ms)?, expected)
    }

    /// Returns the answer of Redis within the timeout, unless Redis is unavailable.
    async fn query<T: redis::FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        now_ms: i64,
    ) -> Result<redis::RedisResult<T>, StoreError> {
        if now_ms < self.unavailable_until_ms.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("not used for a moment after a failure".into()));
        }
        let mut connection = self.connection.clone();
        match tokio::time::timeout(self.timeout, pipeline.query_async(&mut connection)).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.suspend(format!("no answer within {:?}", self.timeout), now_ms)),
        }
    }

    fn judge<T>(&self, answer: redis::RedisResult<T>, now_ms: i64) -> Result<T, StoreError> {
        match answer {
            Ok(replies) => {
                if self.is_unavailable()
                    && self.unavailable_until_ms.swap(0, Ordering::Relaxed) != 0
                {
                    tracing::info!(event = "redis.available", "Redis answered again");
                }
                Ok(replies)
            }
            Err(error) => Err(self.suspend(error.to_string(), now_ms)),
        }
    }

    fn suspend(&self, failure: String, now_ms: i64) -> StoreError {
        let until = now_ms.saturating_add(self.retry_after_ms);
        if self.unavailable_until_ms.swap(until, Ordering::Relaxed) == 0 {
            tracing::warn!(event = "redis.unavailable", reason = %failure, "Redis did not answer; the database alone decides claims");
        }
        StoreError::Unavailable(failure)
    }
}

impl StoredRecord {
    fn read(text: String) -> StoredRecord {
        let record = record::read(&text).unwrap_or_default();
        StoredRecord { text, record }
    }
}

fn counted(
    replies: Vec<Option<String>>,
    expected: usize,
) -> Result<Vec<Option<String>>, StoreError> {
    match replies.len() == expected {
        true => Ok(replies),
        false => Err(StoreError::Unavailable(format!(
            "{} replies to {expected} commands",
            replies.len()
        ))),
    }
}

fn key(dedupe_key: &str) -> String {
    // Concatenated instead of formatted, because each claim needs a key.
    ["twilio-edge:{", dedupe_key, "}"].concat()
}
