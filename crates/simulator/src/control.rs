//! Control endpoints without a counterpart at Twilio: inbound messages of contacts, and overviews of what has happened.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use twilio_edge_filter::signature::Key;

use super::answer::{Json, origin};
use super::content::Content;
use super::delivery;
use super::messages::{Message, content_type};
use super::request::{is_address, is_person, is_url, is_whatsapp};
use super::samples::sample;
use super::webhook::{self, set};
use crate::state::{Shared, fresh_sid, now_ms};

/// Largest number of messages in an overview.
const SHOWN: usize = 100;

/// Largest number of contents.
const MOST_CONTENTS: usize = 10_000;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/simulator/healthz", get(async || "ok\n"))
        .route("/simulator/inbound", post(inbound))
        .route("/simulator/repeat", post(repeat))
        .route("/simulator/contents", post(contents))
        .route("/simulator/messages", get(messages))
        .route("/simulator/requests", get(requests))
        .route("/simulator/verifications", get(verifications))
        .route("/simulator/senders", get(senders))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inbound {
    from: String,
    to: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    media: Vec<String>,
    /// Account of the number `to`; default: the first account.
    account: Option<String>,
    /// Origin that is signed instead of the called one: an application behind a proxy that Twilio does not call.
    signed_origin: Option<String>,
}

/// A message that Twilio sends once more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    sid: String,
}

async fn inbound(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let inbound: Inbound = match serde_json::from_slice(&body) {
        Ok(inbound) => inbound,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body: {error}")),
    };
    let account = match &inbound.account {
        Some(sid) => shared.account(sid),
        None => shared.settings.accounts.first(),
    };
    let Some(account) = account else {
        return problem(StatusCode::BAD_REQUEST, "account: not one of the simulator's".to_owned());
    };
    let mistake = if !is_person(&inbound.from) || !is_address(&inbound.to) {
        Some("from and to: E.164, like +14155550123 or whatsapp:+14155550123")
    } else if is_whatsapp(&inbound.from) != is_whatsapp(&inbound.to) {
        Some("from and to: both with whatsapp: before them, or none")
    } else if inbound.body.chars().count() > 1600 {
        Some("body: at most 1600 characters")
    } else if inbound.media.len() > 10
        || !inbound.media.iter().all(|medium| is_url(medium) || sample(medium).is_some())
    {
        Some("media: at most 10 URLs of http or https, or types with a sample, such as image/jpeg")
    } else {
        None
    };
    if let Some(mistake) = mistake {
        return problem(StatusCode::BAD_REQUEST, mistake.to_owned());
    }
    let now = now_ms();
    let message = Message {
        sid: fresh_sid(if inbound.media.is_empty() { "SM" } else { "MM" }),
        account: account.sid.clone(),
        service: None,
        from: Some(inbound.from),
        to: inbound.to,
        body: inbound.body,
        media: inbound.media,
        direction: "inbound",
        status: "received",
        error: None,
        status_callback: None,
        created_ms: now,
        updated_ms: now,
        sent_ms: Some(now),
    };
    if let Err(full) = shared.ledger().record_inbound(message.clone()) {
        return problem(StatusCode::INSUFFICIENT_STORAGE, full.to_owned());
    }
    deliver(&shared, &headers, &message, inbound.signed_origin.as_deref()).await
}

/// Sends the webhook of an inbound message once more, as Twilio does if it did not receive the answer.
async fn repeat(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let Repeat { sid } = match serde_json::from_slice(&body) {
        Ok(repeat) => repeat,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body: {error}")),
    };
    let found = shared.ledger().messages.get(&sid).cloned();
    match found.filter(|message| message.direction == "inbound") {
        Some(message) => deliver(&shared, &headers, &message, None).await,
        None => problem(StatusCode::NOT_FOUND, "sid: no such inbound message".to_owned()),
    }
}

/// Sends the webhook of an inbound message, and returns what became of it.
async fn deliver(
    shared: &Shared,
    headers: &HeaderMap,
    message: &Message,
    signed_origin: Option<&str>,
) -> Response {
    let token = shared.account(&message.account).map(|account| account.auth_token.as_str());
    let Some(key) = token.and_then(|token| Key::auth_token("the account's", token)) else {
        return problem(StatusCode::BAD_REQUEST, "account: it has no token".to_owned());
    };
    let parameters = webhook::Message {
        account_sid: &message.account,
        message_sid: &message.sid,
        channel: delivery::channel(&message.to),
        from: message.from.as_deref(),
        to: Some(&message.to),
    };
    let mut parameters =
        parameters.inbound(&message.body, u32::try_from(message.media.len()).unwrap_or(0));
    // As at Twilio, each URL is one of the API and needs credentials.
    for (index, medium) in (0_u32..).zip(&message.media) {
        let sid = message.media_sid(index);
        let url = format!("{}{}/Media/{sid}", origin(headers), message.uri());
        set(&mut parameters, &format!("MediaUrl{index}"), &url);
        set(&mut parameters, &format!("MediaContentType{index}"), content_type(medium));
    }
    let conversation = super::inbound::run(shared, message, parameters, &key, signed_origin).await;
    let is_delivered = conversation.error.is_none();
    shared.count("inbound", if is_delivered { 200 } else { 0 });
    Json(json!({
        "sid": message.sid, "delivered": is_delivered, "calls": conversation.calls,
        "replies": conversation.replies, "error_code": conversation.error,
    }))
    .into_response()
}

async fn messages(State(shared): State<Arc<Shared>>) -> Json {
    let ledger = shared.ledger();
    let shown: Vec<Value> = ledger.messages.all().take(SHOWN).map(Message::to_json).collect();
    Json(json!({ "messages": shown }))
}

/// Replaces WhatsApp and Twilio's console: adds the given content, or removes the one with the SID.
async fn contents(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum CatalogueChange {
        Set(Content),
        Removed { removed: String },
    }
    let change: CatalogueChange = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(_) => {
            let expected =
                "body: must be a content in the format of --catalogue, or {\"removed\": \"HX..\"}";
            return problem(StatusCode::BAD_REQUEST, expected.to_owned());
        }
    };
    let mut catalogue = shared.catalogue();
    let sid = match &change {
        CatalogueChange::Set(content) => content.sid.clone(),
        CatalogueChange::Removed { removed } => removed.clone(),
    };
    catalogue.retain(|content| content.sid != sid);
    if let CatalogueChange::Set(content) = change {
        if catalogue.len() >= MOST_CONTENTS {
            return problem(StatusCode::INSUFFICIENT_STORAGE, "there are too many".to_owned());
        }
        catalogue.push(content);
    }
    Json(json!({ "contents": catalogue.len() })).into_response()
}

/// Returns the newest verifications, with their codes.
async fn verifications(State(shared): State<Arc<Shared>>) -> Json {
    Json(json!({ "verifications": shared.verifications().with_codes(SHOWN) }))
}

/// Returns the number of requests by answer; status 0 means that no answer was sent.
async fn requests(State(shared): State<Arc<Shared>>) -> Json {
    let counts = shared.counts();
    let shown: Vec<Value> = counts
        .iter()
        .map(|((what, status), count)| json!({ "what": what, "status": status, "count": count }))
        .collect();
    Json(json!({ "requests": shown }))
}

/// Returns the rate at which each sender's messages came, by the simulator's clock.
async fn senders(State(shared): State<Arc<Shared>>) -> Json {
    let ledger = shared.ledger();
    let shown: serde_json::Map<String, Value> =
        ledger.senders().map(|(sender, line)| (sender.to_owned(), json!(line))).collect();
    Json(json!({ "senders": shown }))
}

fn problem(status: StatusCode, detail: String) -> Response {
    (status, Json(json!({ "status": status.as_u16(), "detail": detail }))).into_response()
}
