//! Webhooks that are delivered once more, because an application lost them or could not do with them what it should. Decides
//! what may be asked for and by whom, and carries replays on: those somebody waits for, and those whose command or sidecar has
//! died. How it is asked for is not known here.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::json;
use twilio_edge_contract::Class;
use utoipa::ToSchema;

use crate::{
    access::api_keys::{Caller, Refusal},
    inbound::delivery_worker::Wakeup,
    operations::archive::{Archive, Walk, Wanted},
};
use twilio_edge_domain::{tenant::is_account_sid, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{ArchiveQueue, AuditEntry, Outbox, Replay, StoreError};

/// Webhooks of one transaction.
pub const STEP: u32 = 200;

/// How often it is looked whether there is a replay to carry on.
const LOOK: Duration = Duration::from_secs(1);

/// Longest message id, in bytes; Twilio's are 34.
const LONGEST_SID: usize = 255;

/// What somebody asks for. Of each that is named, and a message or a time is.
#[derive(Debug, Clone)]
pub struct Asked {
    /// To whom; that there is such a sink is known by whoever asks.
    pub sink: String,
    /// Only of this account; that of the caller, if they are bound to one.
    pub account_sid: Option<String>,
    /// Only of this message, whose account is named too.
    pub message_sid: Option<String>,
    /// Only of this class.
    pub class: Option<Class>,
    /// Received then or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Received before, in milliseconds since 1970; else until now.
    pub until_ms: Option<i64>,
    /// From where.
    pub from: Origin,
}

/// Where a replay takes its webhooks from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The database: what retention has left whole.
    #[default]
    Ledger,
    /// The archive: what it still has.
    Archive,
}

/// Why a replay is not carried on for now.
#[derive(Debug)]
pub enum Stopped {
    /// The database does not answer.
    Store(StoreError),
    /// The archive does not, or is not known here; in words for the operator.
    Archive(String),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Store(reason) => write!(f, "the database {reason}"),
            Stopped::Archive(reason) => write!(f, "the archive: {reason}"),
        }
    }
}

/// What was asked for as a replay that has not begun.
pub fn read(by: &Caller, asked: Asked, now_ms: i64) -> Result<Replay, Refusal> {
    let invalid = |problem: &str| Refusal::Invalid(problem.to_owned());
    let Asked { sink, account_sid, message_sid, class, since_ms, until_ms, from } = asked;
    if message_sid.is_none() && since_ms.is_none() && until_ms.is_none() {
        return Err(invalid("say what: message_sid, since or until"));
    }
    let account_sid = account_sid.or_else(|| by.account_sid.clone());
    if account_sid.as_deref().is_some_and(|sid| !by.sees(sid)) {
        return Err(Refusal::OtherAccount);
    }
    if account_sid.as_deref().is_some_and(|sid| !is_account_sid(sid)) {
        return Err(invalid("account_sid: must be AC and 32 lower-case hexadecimal digits"));
    }
    if let Some(sid) = &message_sid {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if sid.is_empty() || sid.len() > LONGEST_SID || !sid.bytes().all(is_plain) {
            return Err(invalid("message_sid: must be visible ASCII without a colon"));
        }
        if account_sid.is_none() {
            return Err(invalid("account_sid: missing; a message is found by its account"));
        }
    }
    // What comes while it runs is not part of it: it would never end.
    let until_ms = until_ms.unwrap_or(i64::MAX).min(now_ms.saturating_add(1));
    let dice = || getrandom::u64().map_err(|_| invalid("the system has no randomness for its id"));
    let id = format!("RP{:016x}{:016x}", dice()?, dice()?);
    let mut replay = Replay::new(id, sink, until_ms, now_ms, &by.actor);
    (replay.account_sid, replay.message_sid) = (account_sid, message_sid);
    replay.class = class.map(|class| class.as_str().to_owned());
    let replay = replay.since(since_ms.unwrap_or_default());
    Ok(if from == Origin::Archive { replay.of_archive() } else { replay })
}

/// Writes a replay down, and that it was asked for; from then on it is carried on, by whomever.
pub async fn begin(outbox: &Outbox, by: &Caller, replay: &Replay) -> Result<(), StoreError> {
    let detail = json!({
        "sink": replay.sink,
        "message_sid": replay.message_sid,
        "class": replay.class,
        "from": replay.origin,
        "since": rfc3339(replay.since_ms),
        "until": rfc3339(replay.until_ms),
    });
    let entry = AuditEntry {
        id: 0,
        at_ms: replay.created_at_ms,
        actor: by.actor.clone(),
        source: by.source.clone(),
        action: "replay.started".into(),
        subject: replay.id.clone(),
        account_sid: replay.account_sid.clone(),
        detail: detail.to_string(),
    };
    outbox.add_replay(replay, &entry).await
}

/// From where replays take webhooks, and where they put them on their way.
#[derive(Debug, Clone)]
pub struct ReplaySources {
    /// What sinks are owed.
    pub outbox: Outbox,
    /// What waits for the archive, or to be taken out of it.
    pub queue: ArchiveQueue,
    /// The archive, if it is known here.
    pub archive: Option<Archive>,
}

/// One replay under way, step by step.
#[derive(Debug)]
pub struct Steps<'a> {
    outbox: &'a Outbox,
    /// None: through the ledger.
    walk: Option<Walk<'a>>,
    is_overtaken: bool,
}

impl ReplaySources {
    /// Carries a replay on from where it is. What was redacted may still be in the archive for a moment: until it is out,
    /// nothing of its account is taken from there.
    pub async fn steps(&self, replay: &Replay) -> Result<Steps<'_>, Stopped> {
        let outbox = &self.outbox;
        if !replay.is_of_archive() {
            return Ok(Steps { outbox, walk: None, is_overtaken: false });
        }
        let missing = "there is none here: set archive.url";
        let archive = self.archive.as_ref().ok_or_else(|| Stopped::Archive(missing.to_owned()))?;
        let erasing = self.queue.is_erasing(replay.account_sid.as_deref()).await;
        if erasing.map_err(Stopped::Store)? {
            let waits = "what was redacted is still being taken out of it; try again in a moment";
            return Err(Stopped::Archive(waits.to_owned()));
        }
        let wanted = Wanted {
            account_sid: replay.account_sid.clone(),
            message_sid: replay.message_sid.clone(),
            class: replay.class.clone(),
            since_ms: replay.since_ms,
            until_ms: replay.until_ms,
        };
        let walk = Walk::begin(archive, wanted, replay.place()).await.map_err(Stopped::Archive)?;
        Ok(Steps { outbox, walk: Some(walk), is_overtaken: false })
    }

    /// Counts what it would deliver, in about `most` webhooks.
    pub async fn count(&self, mut replay: Replay, most: i64) -> Result<Replay, Stopped> {
        let mut steps = self.steps(&replay).await?;
        while !replay.is_done() && replay.found < most {
            replay = match &mut steps.walk {
                Some(walk) => {
                    let found = walk.next(STEP as usize).await.map_err(Stopped::Archive)?;
                    replay.counted(&found)
                }
                None => {
                    let counted = self.outbox.count_on(&replay, STEP.into(), now_ms()).await;
                    counted.map_err(Stopped::Store)?
                }
            };
        }
        Ok(replay)
    }
}

impl Steps<'_> {
    /// Puts up to `most` webhooks on their way; where the replay is then.
    pub async fn carry_on(&mut self, replay: &Replay, most: u32) -> Result<Replay, Stopped> {
        let Some(walk) = &mut self.walk else {
            let carried = self.outbox.carry_on(replay, most.into(), now_ms()).await;
            return carried.map_err(Stopped::Store);
        };
        let found = walk.next(most as usize).await.map_err(Stopped::Archive)?;
        let counted = replay.counted(&found);
        let carried = self.outbox.carry_on_archived(replay, found, now_ms()).await;
        let carried = carried.map_err(Stopped::Store)?;
        self.is_overtaken = carried.place() != counted.place();
        Ok(carried)
    }

    /// Whether somebody else carries it on: this way through the archive is not where the replay is any more.
    pub fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    /// Objects of the archive that were read, and how many there are; none of the ledger.
    pub fn objects(&self) -> Option<(usize, usize)> {
        self.walk.as_ref().map(Walk::progress)
    }
}

/// Carries on whatever replay there is, until it is aborted: so none is lost with the command or the sidecar that began it.
pub async fn work(shelves: ReplaySources, bell: Wakeup) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for replay in shelves.outbox.running_replays().await.unwrap_or_default() {
            let id = replay.id.clone();
            if let Err(reason) = finish(&shelves, replay, &bell).await {
                tracing::warn!(event = "replay.waiting", %reason, replay.id = id, "a replay waits");
            }
        }
    }
}

/// Carries one on to its end, or until somebody else does.
async fn finish(shelves: &ReplaySources, mut replay: Replay, bell: &Wakeup) -> Result<(), Stopped> {
    let mut steps = shelves.steps(&replay).await?;
    while !replay.is_done() && !steps.is_overtaken() {
        replay = steps.carry_on(&replay, STEP).await?;
        bell.ring();
    }
    Ok(())
}
