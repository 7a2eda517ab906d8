//! Follows the agenda: takes each step when it is due and tells whoever asked to be told, twice or in the wrong order where
//! the recipient's number asks for that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use twilio_edge_filter::signature::Key;

use super::faults::Fault;
use super::messages::Message;
use super::request::is_whatsapp;
use super::webhook::{self, Channel, Parameters};
use super::{Shared, now_ms, post};

/// Most callbacks under way; what is due meanwhile waits.
const MAX_AT_ONCE: usize = 256;

/// Never ends.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut telling = JoinSet::new();
    // Of messages whose callbacks come in reverse, those held back until the last.
    let mut held: HashMap<String, Vec<Message>> = HashMap::new();
    loop {
        while telling.try_join_next().is_some() {}
        let advanced = shared.ledger().advance(now_ms());
        match advanced {
            Some(Some(message)) if message.status_callback.is_some() => {
                for message in due(message, &mut held, shared.settings.capacity) {
                    if telling.len() >= MAX_AT_ONCE {
                        telling.join_next().await;
                    }
                    telling.spawn(tell(Arc::clone(shared), message));
                }
            }
            Some(_) => {}
            None => {
                let next = shared.ledger().next_ms();
                let wait =
                    next.map_or(60_000, |next| next.saturating_sub(now_ms()).clamp(1, 60_000));
                let wait = Duration::from_millis(wait.unsigned_abs());
                // Whichever comes first; a notice given meanwhile is kept.
                let _ = tokio::time::timeout(wait, shared.planned.notified()).await;
            }
        }
    }
}

/// What is to be told now that `message` is where it is.
fn due(message: Message, held: &mut HashMap<String, Vec<Message>>, most: usize) -> Vec<Message> {
    match Fault::of(&message.to) {
        Some(Fault::Duplicates) => vec![message.clone(), message],
        Some(Fault::Disorder) if held.len() < most => {
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

async fn tell(shared: Arc<Shared>, message: Message) {
    let (Some(url), Some(account)) = (&message.status_callback, shared.account(&message.account))
    else {
        return;
    };
    let Some(key) = Key::auth_token("the account's", &account.auth_token) else { return };
    let event = format!("{}{}", message.sid, message.status);
    let outcomes =
        post::tell(&shared.client, url, None, status_parameters(&message), &key, &event).await;
    for outcome in outcomes {
        shared.count(
            "callback",
            if let post::Outcome::Status(status) = outcome { status } else { 0 },
        );
    }
}

fn status_parameters(message: &Message) -> Parameters {
    let told = webhook::Message {
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
        told.status(message.status, code.as_deref(), &now.strftime("%y%m%d%H%M").to_string());
    if let Some(service) = &message.service {
        webhook::set(&mut parameters, "MessagingServiceSid", service);
    }
    parameters
}

/// The channel of an address.
pub(super) fn channel(address: &str) -> Channel {
    if is_whatsapp(address) { Channel::Whatsapp } else { Channel::Sms }
}
