//! Replays: webhooks that are delivered again, because an application lost them or processed them wrongly. Decides
//! which replays a caller may request. Continues the replays that a caller waits for, and those whose command or
//! sidecar has died. It knows neither HTTP nor the command line.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::json;
use twilio_edge_contract::Class;
use utoipa::ToSchema;

use crate::{
    access::api_keys::{AccessError, Caller},
    operations::archive::{Archive, ArchiveFilter, ArchiveWalk},
    wakeup::Wakeup,
};
use twilio_edge_domain::{tenant::is_account_sid, window::rfc3339};
use twilio_edge_platform::clock::{now_ms, ticks};
use twilio_edge_store::{ArchiveQueue, Outbox, Replay, StoreError};

/// Number of webhooks of one transaction.
pub const STEP: u32 = 200;

/// Interval between checks for a running replay.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Longest message id, in bytes; Twilio's are 34.
const MAX_SID_BYTES: usize = 255;

/// Request for a replay. All given filters must match; a message or a time is required.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    /// Sink to deliver to. The caller has checked that it exists.
    pub sink: String,
    /// Only webhooks of this account; the caller's own account if it is bound to one.
    pub account_sid: Option<String>,
    /// Only webhooks of this message; requires an account.
    pub message_sid: Option<String>,
    /// Only webhooks of this class.
    pub class: Option<Class>,
    /// Only webhooks received at this time or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only webhooks received before this time, in milliseconds since 1970; at most until now, which is the default.
    pub until_ms: Option<i64>,
    /// Source of the webhooks.
    pub from: Origin,
}

/// Problem of a replay of operational events that specifies a class.
pub const CLASS_OF_EVENTS: &str = "class: operational events have no class; remove the field";

/// Source of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The database: webhooks whose content retention has not removed.
    #[default]
    Ledger,
    /// The archive: webhooks that it still holds.
    Archive,
    /// Operational events that the database still has.
    Events,
}

/// Reason why a replay cannot continue now.
#[derive(Debug)]
pub enum ReplayError {
    /// The database failed or is unavailable.
    Store(StoreError),
    /// The archive is unavailable or not configured; the text is for the operator.
    Archive(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Store(reason) => write!(f, "the database {reason}"),
            ReplayError::Archive(reason) => write!(f, "the archive: {reason}"),
        }
    }
}

/// Validates a request. Returns a replay that has not started.
///
/// # Errors
/// Returns `OtherAccount` or `Invalid` if the caller may not request this replay or a field is wrong.
pub fn validate(by: &Caller, request: ReplayRequest, now_ms: i64) -> Result<Replay, AccessError> {
    let invalid = |problem: &str| AccessError::Invalid(problem.to_owned());
    let ReplayRequest { sink, account_sid, message_sid, class, since_ms, until_ms, from } = request;
    if message_sid.is_none() && since_ms.is_none() && until_ms.is_none() {
        return Err(invalid("a filter is missing: specify message_sid, since or until"));
    }
    let account_sid = account_sid.or_else(|| by.account_sid.clone());
    if account_sid.as_deref().is_some_and(|sid| !by.sees(sid)) {
        return Err(AccessError::OtherAccount);
    }
    if account_sid.as_deref().is_some_and(|sid| !is_account_sid(sid)) {
        return Err(invalid("account_sid: must be AC and 32 lower-case hexadecimal digits"));
    }
    if let Some(sid) = &message_sid {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if sid.is_empty() || sid.len() > MAX_SID_BYTES || !sid.bytes().all(is_plain) {
            return Err(invalid("message_sid: must be visible ASCII without a colon"));
        }
        if account_sid.is_none() {
            return Err(invalid("account_sid: missing; a message is found by its account"));
        }
    }
    // Webhooks that arrive while the replay runs are not part of it; otherwise it would never end.
    let until_ms = until_ms.unwrap_or(i64::MAX).min(now_ms.saturating_add(1));
    let random =
        || getrandom::u64().map_err(|_| invalid("the system has no randomness for its id"));
    let id = format!("RP{:016x}{:016x}", random()?, random()?);
    let mut replay = Replay::new(id, sink, until_ms, now_ms, &by.actor);
    (replay.account_sid, replay.message_sid) = (account_sid, message_sid);
    replay.class = class.map(|class| class.as_str().to_owned());
    let replay = replay.since(since_ms.unwrap_or_default());
    if from == Origin::Events && replay.class.is_some() {
        return Err(invalid(CLASS_OF_EVENTS));
    }
    Ok(match from {
        Origin::Ledger => replay,
        Origin::Archive => replay.of_archive(),
        Origin::Events => replay.of_events(),
    })
}

/// Stores a replay with its audit entry. From then on, any sidecar continues it.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn begin(outbox: &Outbox, by: &Caller, replay: &Replay) -> Result<(), StoreError> {
    let detail = json!({
        "sink": replay.sink,
        "message_sid": replay.message_sid,
        "class": replay.class,
        "from": replay.origin,
        "since": rfc3339(replay.since_ms),
        "until": rfc3339(replay.until_ms),
    });
    let entry = by.audit_entry(
        "replay.started",
        replay.id.clone(),
        replay.account_sid.clone(),
        &detail,
        replay.created_at_ms,
    );
    outbox.add_replay(replay, &entry).await
}

/// Sources that replays read webhooks from, and the outbox that they add deliveries to.
#[derive(Debug, Clone)]
pub struct ReplaySources {
    /// Pending deliveries of the sinks.
    pub outbox: Outbox,
    /// Webhooks that wait to be archived, or to be erased from the archive.
    pub queue: ArchiveQueue,
    /// The archive, if it is configured.
    pub archive: Option<Archive>,
}

/// One replay in progress.
#[derive(Debug)]
pub struct ReplayRun<'a> {
    outbox: &'a Outbox,
    /// Position in the archive; `None` for a replay from the ledger.
    walk: Option<ArchiveWalk<'a>>,
    is_overtaken: bool,
}

impl ReplaySources {
    /// Continues a replay from its current position. While the archive still has to erase redacted content of the
    /// account, the replay waits.
    ///
    /// # Errors
    /// Returns [`ReplayError`] if the database or the archive is unavailable, the archive is not configured, or an erasure
    /// is in progress.
    pub async fn resume(&self, replay: &Replay) -> Result<ReplayRun<'_>, ReplayError> {
        let outbox = &self.outbox;
        if !replay.is_of_archive() {
            return Ok(ReplayRun { outbox, walk: None, is_overtaken: false });
        }
        let missing = "no archive is configured: set archive.url";
        let archive =
            self.archive.as_ref().ok_or_else(|| ReplayError::Archive(missing.to_owned()))?;
        let erasing = self.queue.is_erasing(replay.account_sid.as_deref()).await;
        if erasing.map_err(ReplayError::Store)? {
            let problem = "an erasure is in progress; retry later";
            return Err(ReplayError::Archive(problem.to_owned()));
        }
        let filter = ArchiveFilter {
            account_sid: replay.account_sid.clone(),
            message_sid: replay.message_sid.clone(),
            class: replay.class.clone(),
            since_ms: replay.since_ms,
            until_ms: replay.until_ms,
        };
        let walk = ArchiveWalk::begin(archive, filter, replay.place())
            .await
            .map_err(ReplayError::Archive)?;
        Ok(ReplayRun { outbox, walk: Some(walk), is_overtaken: false })
    }

    /// Counts the webhooks that the replay would deliver; stops after about `most`.
    ///
    /// # Errors
    /// Returns [`ReplayError`] if the database or the archive is unavailable.
    pub async fn count(&self, mut replay: Replay, most: i64) -> Result<Replay, ReplayError> {
        let mut run = self.resume(&replay).await?;
        while !replay.is_done() && replay.found < most {
            replay = match &mut run.walk {
                Some(walk) => {
                    let found = walk.next(STEP as usize).await.map_err(ReplayError::Archive)?;
                    replay.counted(&found)
                }
                None => {
                    let counted = self.outbox.count_replay(&replay, STEP.into(), now_ms()).await;
                    counted.map_err(ReplayError::Store)?
                }
            };
        }
        Ok(replay)
    }
}

impl ReplayRun<'_> {
    /// Adds deliveries for up to `most` webhooks. Returns the replay with its new position.
    ///
    /// # Errors
    /// Returns [`ReplayError`] if the database or the archive is unavailable.
    pub async fn advance_replay(
        &mut self,
        replay: &Replay,
        most: u32,
    ) -> Result<Replay, ReplayError> {
        let Some(walk) = &mut self.walk else {
            let advanced = self.outbox.advance_replay(replay, most.into(), now_ms()).await;
            return advanced.map_err(ReplayError::Store);
        };
        let found = walk.next(most as usize).await.map_err(ReplayError::Archive)?;
        let counted = replay.counted(&found);
        let advanced = self.outbox.advance_archive_replay(replay, found, now_ms()).await;
        let advanced = advanced.map_err(ReplayError::Store)?;
        self.is_overtaken = advanced.place() != counted.place();
        Ok(advanced)
    }

    /// Returns whether another process continues this replay: its stored position has changed.
    pub fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    /// Number of archive objects that were read, and their total; `None` for a replay from the ledger.
    pub fn objects(&self) -> Option<(usize, usize)> {
        self.walk.as_ref().map(ArchiveWalk::progress)
    }
}

/// Continues every running replay until the task is aborted, so that no replay ends with the command or the sidecar
/// that started it.
pub async fn run_all(replay_sources: ReplaySources, wakeup: Wakeup) {
    let mut poll = ticks(POLL_INTERVAL);
    loop {
        poll.tick().await;
        for replay in replay_sources.outbox.running_replays().await.unwrap_or_default() {
            let id = replay.id.clone();
            if let Err(reason) = run_to_end(&replay_sources, replay, &wakeup).await {
                tracing::warn!(event = "replay.step_failed", %reason, replay.id = id, "the sidecar could not continue a replay; it retries");
            }
        }
    }
}

/// Continues one replay to its end, or until another process continues it.
async fn run_to_end(
    replay_sources: &ReplaySources,
    mut replay: Replay,
    wakeup: &Wakeup,
) -> Result<(), ReplayError> {
    let mut run = replay_sources.resume(&replay).await?;
    while !replay.is_done() && !run.is_overtaken() {
        replay = run.advance_replay(&replay, STEP).await?;
        wakeup.wake();
    }
    Ok(())
}
