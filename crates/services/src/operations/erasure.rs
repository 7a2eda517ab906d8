//! The right to be forgotten, carried out: what an administrator asked to have taken out of the ledger at once, and the
//! entry of it in the audit. What stays is decided in [`twilio_edge_store`]; who may ask and in which words, where they ask.

use crate::access::api_keys::{Caller, Refusal};
use twilio_edge_domain::sweep_counts::Swept;
use twilio_edge_domain::{
    message::Number, redaction::masked_address, tenant::is_account_sid, window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{AuditEntry, Erasure, Sweeper};

/// Rows of one step.
const STEP: u32 = 200;

/// Longest message id, in bytes; Twilio's are 34.
const LONGEST_SID: usize = 255;

/// What somebody asks for, as they say it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The account, whose they all are; that of the caller, if that one is bound.
    pub account_sid: Option<String>,
    /// Only of this message.
    pub message_sid: Option<String>,
    /// Only of this person.
    pub number: Option<Number>,
    /// Only what was heard then or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what was heard before, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Take out what was written, and leave who wrote it to whom.
    pub text_only: bool,
    /// Only count.
    pub dry_run: bool,
    /// Delete what no copy can come of any more.
    pub delete: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// How much.
    pub swept: Swept,
    /// From when on there is more to do, in milliseconds since 1970.
    pub continue_ms: Option<i64>,
}

/// Takes out what is asked for, but looks at about `most` rows.
pub async fn erase(
    sweeper: &Sweeper,
    by: &Caller,
    asked: Asked,
    most: usize,
) -> Result<Done, Refusal> {
    let erasure = read(by, asked)?;
    let entry = entry(by, &erasure, now_ms());
    let mut entry = Some(&entry).filter(|_| !erasure.dry_run);
    let mut done = Swept::default();
    let mut reached = None;
    loop {
        let (swept, on) =
            sweeper.erase(&erasure, reached.as_ref(), entry.take(), STEP, now_ms()).await?;
        done = done.and(swept);
        reached = on;
        if reached.is_none() || done.found >= most {
            let continue_ms = reached.map(|reached| reached.at_ms);
            return Ok(Done { swept: done, continue_ms });
        }
    }
}

fn read(by: &Caller, asked: Asked) -> Result<Erasure, Refusal> {
    let invalid = |problem: &str| Refusal::Invalid(problem.to_owned());
    let account_sid = asked.account_sid.clone().or_else(|| by.account_sid.clone());
    let Some(account_sid) = account_sid else {
        return Err(invalid("account_sid: missing; this key is bound to no account"));
    };
    if !by.sees(&account_sid) {
        return Err(Refusal::OtherAccount);
    }
    if !is_account_sid(&account_sid) {
        return Err(invalid("account_sid: must be AC and 32 lower-case hexadecimal digits"));
    }
    if asked.is_everything() {
        return Err(invalid("say what: message_sid, number, since or until"));
    }
    let is_sid = |sid: &String| !sid.is_empty() && sid.len() <= LONGEST_SID && is_plain(sid);
    if !asked.message_sid.as_ref().is_none_or(is_sid) {
        return Err(invalid("message_sid: must be visible ASCII without a colon"));
    }
    Ok(Erasure {
        account_sid,
        message_sid: asked.message_sid,
        number: asked.number,
        since_ms: asked.since_ms.unwrap_or_default(),
        until_ms: asked.until_ms.map_or(i64::MAX, |until_ms| until_ms.saturating_sub(1)),
        text_only: asked.text_only,
        dry_run: asked.dry_run,
        delete: asked.delete,
    })
}

impl Asked {
    /// Whether it names nothing: all there is of an account is nobody's right, and somebody's mistake.
    pub fn is_everything(&self) -> bool {
        let times = self.since_ms.is_some() || self.until_ms.is_some();
        !times && self.message_sid.is_none() && self.number.is_none()
    }
}

fn is_plain(sid: &str) -> bool {
    sid.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// Says what was asked for, without the number that is to be forgotten.
fn entry(by: &Caller, erasure: &Erasure, now_ms: i64) -> AuditEntry {
    let number = erasure.number.as_ref().map(|number| {
        let channel = number.channel.as_ref().map(|channel| format!("{channel}:"));
        masked_address(&(channel.unwrap_or_default() + &number.number))
    });
    let subject =
        erasure.message_sid.clone().or(number.clone()).unwrap_or_else(|| "all".to_owned());
    let detail = serde_json::json!({
        "number": number,
        "since": rfc3339(erasure.since_ms),
        "until": rfc3339(erasure.until_ms),
        "text_only": erasure.text_only,
        "delete": erasure.delete,
    });
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: by.actor.clone(),
        source: by.source.clone(),
        action: "events.redacted".into(),
        subject,
        account_sid: Some(erasure.account_sid.clone()),
        detail: detail.to_string(),
    }
}
