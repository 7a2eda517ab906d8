//! Webhooks that are delivered once more, because an application lost them or could not do with them what it should. Decides
//! what may be asked for and by whom, and carries replays on: those somebody waits for, and those whose command or sidecar has
//! died. How it is asked for is not known here.

use std::time::Duration;

use serde_json::json;
use twilio_edge_contract::Class;

use crate::{
    couriers::Bell,
    domain::{tenant::is_account_sid, window::rfc3339},
    http::now_ms,
    keys::{Caller, Refusal},
    store::{AuditEntry, Outbox, Replay, StoreError},
};

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
}

/// What was asked for as a replay that has not begun.
pub fn read(by: &Caller, asked: Asked, now_ms: i64) -> Result<Replay, Refusal> {
    let invalid = |problem: &str| Refusal::Invalid(problem.to_owned());
    let Asked { sink, account_sid, message_sid, class, since_ms, until_ms } = asked;
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
    Ok(replay.since(since_ms.unwrap_or_default()))
}

/// Writes a replay down, and that it was asked for; from then on it is carried on, by whomever.
pub async fn begin(outbox: &Outbox, by: &Caller, replay: &Replay) -> Result<(), StoreError> {
    let detail = json!({
        "sink": replay.sink,
        "message_sid": replay.message_sid,
        "class": replay.class,
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

/// Counts what it would deliver, in about `most` webhooks.
pub async fn count(outbox: &Outbox, mut replay: Replay, most: i64) -> Result<Replay, StoreError> {
    while !replay.is_done() && replay.found < most {
        replay = outbox.count_on(&replay, STEP.into(), now_ms()).await?;
    }
    Ok(replay)
}

/// Carries on whatever replay there is, until it is aborted: so none is lost with the command or the sidecar that began it.
pub async fn work(outbox: Outbox, bell: Bell) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Ok(Some(mut replay)) = outbox.running_replay().await else { continue };
        while !replay.is_done() {
            match outbox.carry_on(&replay, STEP.into(), now_ms()).await {
                Ok(next) => replay = next,
                Err(reason) => {
                    tracing::warn!(
                        event = "replay.waiting",
                        %reason,
                        replay.id,
                        "a replay waits for the database"
                    );
                    break;
                }
            }
            bell.ring();
        }
    }
}
