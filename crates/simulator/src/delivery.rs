//! Delivery worker of the simulator: takes each step of the agenda when it is due and sends the callback, twice or in
//! reverse order if the recipient's number requests that fault.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use twilio_edge_filter::signature::Key;

use super::faults::Fault;
use super::messages::Message;
use super::post;
use super::request::is_whatsapp;
use super::webhook::{self, Channel, Content, Parameters};
use crate::state::{Shared, now_ms};

/// Largest number of concurrent callbacks; further due steps wait.
const MAX_AT_ONCE: usize = 256;

/// Runs until the task is cancelled.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut callbacks = JoinSet::new();
    // Messages whose callbacks are sent in reverse, held until their last status.
    let mut held: HashMap<String, Vec<Message>> = HashMap::new();
    loop {
        while callbacks.try_join_next().is_some() {}
        let advanced = shared.ledger().advance(now_ms());
        match advanced {
            Some(Some(message)) if message.status_callback.is_some() => {
                for message in due(message, &mut held, shared.settings.capacity) {
                    if callbacks.len() >= MAX_AT_ONCE {
                        callbacks.join_next().await;
                    }
                    callbacks.spawn(send_callback(Arc::clone(shared), message));
                }
            }
            Some(_) => {}
            None => {
                let next = shared.ledger().next_ms();
                let wait =
                    next.map_or(60_000, |next| next.saturating_sub(now_ms()).clamp(1, 60_000));
                let wait = Duration::from_millis(wait.unsigned_abs());
                // Waits for the due time or for a new plan; a notification in the meantime is not lost.
                let _ = tokio::time::timeout(wait, shared.planned.notified()).await;
            }
        }
    }
}

/// Returns the messages to report after the new status of `message`.
fn due(message: Message, held: &mut HashMap<String, Vec<Message>>, max: usize) -> Vec<Message> {
    match Fault::of(&message.to) {
        Some(Fault::Duplicates) => vec![message.clone(), message],
        Some(Fault::Disorder) if held.len() < max => {
            let last = if is_whatsapp(&message.to) { "read" } else { "delivered" };
            let (sid, is_last) = (message.sid.clone(), message.status == last);
            held.entry(sid.clone()).or_default().push(message);
            if !is_last {
                return Vec::new();
            }
            held.remove(&sid).unwrap_or_default().into_iter().rev().collect()
        }
        _ => vec![message],
    }
}

async fn send_callback(shared: Arc<Shared>, message: Message) {
    let (Some(url), Some(account)) = (&message.status_callback, shared.account(&message.account))
    else {
        return;
    };
    let Some(key) = Key::auth_token("the account's", &account.auth_token) else { return };
    let event = format!("{}{}", message.sid, message.status);
    let content = Content::Post(status_parameters(&message));
    let called = post::call(&shared.client, url, None, content, &key, &event).await;
    for outcome in called.outcomes {
        shared.count(
            "callback",
            if let post::Outcome::Status(status) = outcome { status } else { 0 },
        );
    }
}

fn status_parameters(message: &Message) -> Parameters {
    let parameters = webhook::Message {
        account_sid: &message.account,
        message_sid: &message.sid,
        channel: channel(&message.to),
        from: message.from.as_deref(),
        to: Some(&message.to),
    };
    let now = jiff::Timestamp::from_millisecond(message.updated_ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let code = message.error.map(|code| code.to_string());
    let mut parameters =
        parameters.status(message.status, code.as_deref(), &now.strftime("%y%m%d%H%M").to_string());
    if let Some(service) = &message.service {
        webhook::set(&mut parameters, "MessagingServiceSid", service);
    }
    parameters
}

/// Returns the channel of an address.
pub(super) fn channel(address: &str) -> Channel {
    if is_whatsapp(address) { Channel::Whatsapp } else { Channel::Sms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(to: &str, status: &'static str) -> Message {
        Message {
            sid: format!("SM{}", "0".repeat(32)),
            account: "AC1".to_owned(),
            service: Some("MG1".to_owned()),
            from: Some("+14155238886".to_owned()),
            to: to.to_owned(),
            body: "hi".to_owned(),
            media: Vec::new(),
            direction: "outbound-api",
            status,
            error: (status == "undelivered").then_some(30003),
            status_callback: None,
            created_ms: 0,
            updated_ms: 1_795_392_000_000,
            sent_ms: None,
        }
    }

    /// Returns the statuses that are reported for a message that reaches `statuses` in turn.
    fn delivered(to: &str, statuses: &[&'static str], max: usize) -> Vec<&'static str> {
        let mut held = HashMap::new();
        let messages = statuses.iter().flat_map(|status| due(at(to, status), &mut held, max));
        let delivered = messages.map(|message| message.status).collect();
        assert!(held.len() <= max);
        delivered
    }

    #[test]
    fn number_suffix_selects_duplicates_and_disorder() {
        let sms = ["sent", "delivered"];
        assert_eq!(delivered("+14155550123", &sms, 9), ["sent", "delivered"]);
        assert_eq!(delivered("+14155559020", &sms, 9), ["sent", "sent", "delivered", "delivered"]);
        assert_eq!(delivered("+14155559021", &sms, 9), ["delivered", "sent"]);
        let whatsapp = ["sent", "delivered", "read"];
        assert_eq!(delivered("whatsapp:+14155559021", &whatsapp, 9), ["read", "delivered", "sent"]);
        assert_eq!(
            delivered("+14155559021", &sms, 0),
            ["sent", "delivered"],
            "no callback can be held back"
        );
        assert_eq!(
            delivered("+14155559021", &["sent"], 9),
            [""; 0],
            "held back until the last status"
        );
    }

    #[test]
    fn status_has_the_parameters_of_twilio() {
        let parameters = status_parameters(&at("+14155550123", "undelivered"));
        let get = |name: &str| {
            parameters.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
        };
        for (name, value) in [
            ("MessageStatus", "undelivered"),
            ("ErrorCode", "30003"),
            ("MessagingServiceSid", "MG1"),
            ("RawDlrDoneDate", "2611230000"),
            ("To", "+14155550123"),
            ("From", "+14155238886"),
        ] {
            assert_eq!(get(name), Some(value), "{name}: {parameters:?}");
        }
        let fine = status_parameters(&at("whatsapp:+14155550123", "read"));
        assert!(!fine.iter().any(|(name, _)| name == "ErrorCode"));
        assert!(
            fine.iter().any(|(name, value)| name == "EventType" && value == "READ"),
            "{fine:?}"
        );
    }
}
