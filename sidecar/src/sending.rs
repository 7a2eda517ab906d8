//! A message somebody wants to send, at work: what every rule says of it, the row that is written if none speaks against it,
//! and what an operator decides about one of which nobody knows. It adds no rule of its own, and knows neither HTTP nor SQL.

use std::sync::Arc;

use serde_json::{Value, json};
use toml::Table;

use crate::{
    answers::Answers,
    domain::{
        address::Address,
        phone,
        sending::{
            errors::Errors,
            pace::priority,
            request::{Content, Request, Sender},
            rules::{Facts, Verdict, judge, media},
        },
    },
    keys::Caller,
    media::Media,
    permissions::{Checks, Intent},
    routes::Routes,
    senders::Bell,
    store::{AuditEntry, Done, Send, Sends, StoreError},
    twilio::Twilio,
};

/// What every id of ours begins with: Twilio's are SM.. and MM..
pub const PREFIX: &str = "ms_";

/// Takes messages on.
#[derive(Clone)]
pub struct Sending {
    /// Where they are written.
    pub sends: Sends,
    /// Who may be written to.
    pub checks: Checks,
    /// Through which accounts.
    pub twilio: Twilio,
    /// Tells who sends.
    pub bell: Bell,
    /// What Twilio's codes mean.
    pub errors: Arc<Errors>,
    /// Who sends where nobody says.
    pub routes: Routes,
    /// Who waits for what Twilio says.
    pub answers: Answers,
    /// Whether Twilio can fetch what is sent.
    pub media: Media,
}

impl Sending {
    /// The message with who sends it, if that is said by a route only.
    pub fn routed(&self, request: Request) -> Request {
        let country = phone::country(&request.to.number);
        let routing = self.routes.current();
        let route =
            routing.of(&request.account_sid).sender(&request.to.channel, country.as_deref());
        Request { sender: request.sender.or_else(|| route.cloned()), ..request }
    }

    /// What every rule says of a message. Its media are fetched if nothing else speaks against it: nobody makes us call anywhere
    /// for a message that is not sent.
    pub async fn judge(&self, request: &Request, now_ms: i64) -> Result<Vec<Verdict>, StoreError> {
        let intent = Intent {
            account_sid: request.account_sid.clone(),
            from: match &request.sender {
                Some(Sender::From(from)) => Some(from.number.clone()),
                Some(Sender::Service(_)) | None => None,
            },
            to: request.to.clone(),
            category: request.category,
            kind: request.kind(),
        };
        let urls: &[String] = match &request.content {
            Content::Session { media, .. } => media,
            Content::Template { .. } => &[],
        };
        let spelled = self.media.spelled(&request.to.channel, urls);
        let routing = self.routes.current();
        let facts = Facts {
            has_credentials: self.twilio.knows(&request.account_sid),
            routes: routing.of(&request.account_sid),
            checks: self.checks.may_send(&intent, now_ms).await?,
            media: &spelled,
        };
        let mut verdicts = judge(request, facts);
        if !urls.is_empty() && verdicts.iter().all(|verdict| verdict.ok) {
            verdicts.pop();
            let looked = self.media.look(&request.account_sid, &request.to.channel, urls).await;
            verdicts.push(media(&looked));
        }
        Ok(verdicts)
    }

    /// The row of a message that may be sent. Nothing is written.
    pub fn prepared(
        &self,
        request: &Request,
        by: &Caller,
        send_at_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<Send, StoreError> {
        let dice = || {
            getrandom::u64().map_err(|error| StoreError::Away(format!("no random bytes: {error}")))
        };
        Ok(Send {
            id: format!("{PREFIX}{:016x}{:016x}", dice()?, dice()?),
            account_sid: request.account_sid.clone(),
            channel: request.to.channel.clone(),
            recipient: request.to.number.clone(),
            sender: request.sender_name(),
            category: request.category.as_str().to_owned(),
            kind: match request.kind() {
                crate::domain::check::Kind::Session => "session".to_owned(),
                crate::domain::check::Kind::Template => "template".to_owned(),
            },
            form: request.form(),
            state: "queued".to_owned(),
            due_at_ms: send_at_ms.unwrap_or(now_ms).max(now_ms),
            wanted_at_ms: send_at_ms.unwrap_or(now_ms).max(now_ms),
            attempt_id: String::new(),
            tries: 0,
            message_sid: String::new(),
            code: String::new(),
            reason: String::new(),
            created_at_ms: now_ms,
            created_by: by.actor.clone(),
            changed_at_ms: now_ms,
            attempted_at_ms: 0,
            looks: 0,
            request_id: String::new(),
        })
    }

    /// Takes it on: durable, with what copies of its request are answered.
    pub async fn add(
        &self,
        send: &Send,
        request: &Request,
        done: Option<&Done>,
    ) -> Result<(), StoreError> {
        self.sends.add(send, priority(request.category), done).await?;
        self.bell.ring();
        Ok(())
    }
}

/// What Twilio's codes mean, with what the file says of them; no file has no name. Every problem with it.
pub fn errors(file: &str) -> Result<Errors, Vec<String>> {
    let over = match file {
        "" => Table::new(),
        file => {
            let text = std::fs::read_to_string(file).map_err(|error| vec![error.to_string()])?;
            crate::config::parse(&text).map_err(|problem| vec![problem])?
        }
    };
    Errors::of(over)
}

/// Twilio has told a status of messages of ours: it has them, whatever is believed of them. By the ids that came with the signed
/// URLs; how many were not known to be sent.
pub async fn heard(
    sends: &Sends,
    told: &[(&str, &str, &str)],
    now_ms: i64,
) -> Result<u64, StoreError> {
    let ids: Vec<&str> = told.iter().map(|(id, ..)| *id).collect();
    let mut learned = 0;
    for send in sends.open_of(&ids).await? {
        let theirs = |(id, account_sid, _): &&(&str, &str, &str)| {
            *id == send.id && *account_sid == send.account_sid
        };
        let Some((_, _, message_sid)) = told.iter().find(theirs) else { continue };
        let reason = "its status was told";
        learned +=
            u64::from(sends.learn(&send, &masked(&send), message_sid, reason, now_ms).await?);
    }
    Ok(learned)
}

/// To whom it went, as it is shown once it has ended.
pub fn masked(send: &Send) -> String {
    if send.recipient.contains("..") {
        return send.recipient.clone();
    }
    Address { channel: send.channel.clone(), number: send.recipient.clone() }.to_string()
}

/// Takes back a message that nobody has begun to send. False if it is too late.
pub async fn cancel(
    sends: &Sends,
    by: &Caller,
    send: &Send,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let entry = entry(by, send, "send.canceled", &json!({}), now_ms);
    sends.cancel(send, &masked(send), &entry).await
}

/// Decides about a message of which nobody knows whether it was sent: it was, by that name, or it was not. False if it is no
/// such one.
pub async fn resolve(
    sends: &Sends,
    by: &Caller,
    send: &Send,
    message_sid: Option<&str>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let detail = json!({"sent": message_sid.is_some(), "message_sid": message_sid});
    let entry = entry(by, send, "send.resolved", &detail, now_ms);
    sends.resolve(send, &masked(send), message_sid, &entry).await
}

fn entry(by: &Caller, send: &Send, action: &str, detail: &Value, now_ms: i64) -> AuditEntry {
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: by.actor.clone(),
        source: by.source.clone(),
        action: action.into(),
        subject: send.id.clone(),
        account_sid: Some(send.account_sid.clone()),
        detail: detail.to_string(),
    }
}
