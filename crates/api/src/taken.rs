//! Outbound messages and their progress: shows one at once or after its outcome, lists those of an account, and cancels
//! one. Module `sends` accepts them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    body::{Body, to_bytes},
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    finding::{self, AccountQuery},
    kinds,
    problem::Problem,
};
use crate::{
    app::{App, Timeouts},
    body::json,
};
use twilio_edge_domain::{
    address::Address, cursor::Cursor, sending::errors::ErrorTable, window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{self, Sending},
};
use twilio_edge_store::{OutboundMessage, OutboundMessagesPage, message_history::MessageHistory};

/// Upper bound of `wait_ms`.
const LONGEST_MS: u32 = 60_000;

/// Largest answer of `POST /v1/messages`, in bytes.
const LARGEST: usize = 64 << 10;

/// An outbound message and its progress.
#[derive(Serialize, ToSchema)]
pub(super) struct SendShown {
    /// Our id of the message, `ms_` and 32 hexadecimal digits; Twilio's SID is `message_sid`.
    id: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// State of sending: `queued`, `attempting`, `sent` (Twilio has it), `refused`, `unknown` (it is unknown whether
    /// Twilio has it), `not_sent` or `canceled`.
    state: String,
    /// Masked recipient: only its last characters are shown.
    to: String,
    /// Own number or sender, or the SID of the Messaging Service.
    sender: String,
    /// Purpose of the message.
    category: String,
    /// Kind of the message: `session` or `template`.
    kind: String,
    /// Twilio's SID of the message.
    message_sid: Option<String>,
    /// Status from Twilio's status callbacks, such as `delivered` or `failed`; `null` before the first callback and in
    /// lists.
    status: Option<String>,
    /// Twilio's error code of a failure after it had the message, such as 63018; `null` in lists.
    error_code: Option<String>,
    /// Reason why the message was not sent, or not yet: one of our codes or one of Twilio's.
    code: Option<String>,
    /// Explanation of `code`.
    reason: Option<String>,
    /// Actor who must act on a Twilio code: `operator`, `caller`, `recipient`, or `none` for a temporary error.
    actor: Option<&'static str>,
    /// Remedy for a Twilio code.
    remedy: Option<String>,
    /// Id of the message of which this one is the fallback.
    fallback_of: Option<String>,
    /// Id of the fallback that is sent instead of this message; `null` in lists.
    fallback: Option<String>,
    /// Number of attempts.
    attempts: i64,
    /// Twilio's id of the last API request, for Twilio's support.
    twilio_request_id: Option<String>,
    /// Time of the request, in RFC 3339.
    created_at: Option<String>,
    /// Time of the last change, in RFC 3339.
    changed_at: Option<String>,
    pub(super) links: Links,
}

/// Links to related resources.
#[derive(Serialize, ToSchema)]
pub(super) struct Links {
    /// Path of this message.
    #[serde(rename = "self")]
    pub(super) this: String,
    /// Path of the webhooks of the message; `null` until Twilio has it.
    message: Option<String>,
    /// Path of the fallback; `null` without one.
    fallback: Option<String>,
    /// Path that cancels the message; `null` unless it is `queued`.
    cancel: Option<String>,
}

twilio_edge_contract::string_enum! {
    /// State of an outbound message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
    #[schema(as = SendState)]
    enum Reached: serde {
        Queued = "queued",
        Attempting = "attempting",
        Sent = "sent",
        Refused = "refused",
        Unknown = "unknown",
        NotSent = "not_sent",
        Canceled = "canceled",
    }
}

/// Filter of the outbound messages.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// State of the messages.
    #[param(inline)]
    state: Option<Reached>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of outbound messages, the latest first.
#[derive(Serialize, ToSchema)]
struct SendList {
    sends: Vec<SendShown>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Wait for the outcome of a message.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// Longest wait for Twilio's decision, in milliseconds, at most four fifths of `http.request_timeout_ms`. The answer
    /// comes as soon as Twilio has decided. Without it, the answer comes at once.
    #[param(minimum = 0, maximum = 60000)]
    wait_ms: Option<u32>,
}

/// Account of a message, and wait for its outcome.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct One {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
    /// Longest wait for Twilio's decision about an outbound message, in milliseconds, at most four fifths of
    /// `http.request_timeout_ms`. The answer comes as soon as Twilio has decided.
    #[param(minimum = 0, maximum = 60000)]
    wait_ms: Option<u32>,
}

impl One {
    /// Returns the wait, or refuses it.
    pub(super) fn patience(&self) -> Result<Duration, Problem> {
        patience(self.wait_ms)
    }
}

fn patience(wait_ms: Option<u32>) -> Result<Duration, Problem> {
    match wait_ms.unwrap_or_default() {
        wait_ms @ 0..=LONGEST_MS => Ok(Duration::from_millis(wait_ms.into())),
        _ => Err(Problem::unreadable(&format!("wait_ms: must be 0 to {LONGEST_MS}"))),
    }
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(cancel))
}

/// Lists outbound messages with their progress, the latest first. `GET /v1/messages` has the webhooks of those that
/// Twilio has.
#[utoipa::path(
    get,
    path = "/v1/sends",
    tag = "messages",
    params(Wanted),
    operation_id = "list_sends",
    responses((status = 200, description = "A page of outbound messages", body = SendList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Wanted { account_sid, state, limit, cursor } = finding::query(query)?;
    let account_sid = finding::account(&caller, account_sid)?;
    let limit = finding::limit(limit)?;
    let before = match finding::cursor(cursor, finding::is_send)? {
        Some(Cursor::Send { created_ms, id }) => (created_ms, id),
        _ => (i64::MAX, String::new()),
    };
    let page = OutboundMessagesPage {
        account_sid: &account_sid,
        state: state.map(Reached::as_str),
        before: (before.0, &before.1),
        most: finding::one_more(limit),
    };
    let found = sending.sends.list_page(&page).await;
    let mut found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let place = |last: &OutboundMessage| Cursor::Send {
        created_ms: last.created_at_ms,
        id: last.id.clone(),
    };
    let next_cursor = finding::cut(&mut found, limit, place);
    let errors = &sending.errors;
    let sends = found.into_iter().map(|send| SendShown::of(send, errors)).collect();
    Ok(json(&SendList { sends, next_cursor }))
}

/// Cancels an outbound message that is not being sent yet. Canceling it again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/messages/{id}/cancel",
    tag = "messages",
    params(("id" = String, Path, description = "Id of the outbound message, `ms_..`"), AccountQuery),
    operation_id = "cancel_message",
    responses((status = 200, description = "The canceled message", body = SendShown), Problem),
    security(("key" = [])),
)]
async fn cancel(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = finding::account(&caller, finding::query(query)?.account_sid)?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let send = found(&sending, &account_sid, &id, Duration::ZERO).await?;
    let away = |reason| Problem::unavailable(&reason);
    let canceled = sending::cancel(&sending.sends, &caller, &send, now_ms()).await;
    if canceled.map_err(away)? {
        sending.answers.tell(&id);
    }
    let send = found(&sending, &account_sid, &id, Duration::ZERO).await?;
    match send.state.as_str() {
        "canceled" => Ok(json(&SendShown::of(send, &sending.errors))),
        state => Err(Problem::with(kinds::NOT_CANCELABLE, format!("It is {state}."))),
    }
}

/// Returns an outbound message that the caller sees: once it has an outcome, or after `patience`.
pub(super) async fn told(
    sending: &Sending,
    histories: &MessageHistory,
    account_sid: &str,
    id: &str,
    patience: Duration,
) -> Result<Response, Problem> {
    let send = found(sending, account_sid, id, patience).await?;
    Ok(json(&shown(sending, histories, send).await?))
}

/// Renders an outbound message with its fallback.
async fn shown(
    sending: &Sending,
    histories: &MessageHistory,
    send: OutboundMessage,
) -> Result<SendShown, Problem> {
    let instead = sending.sends.find_fallback_of(&send.id).await;
    let instead = instead.map_err(|reason| Problem::unavailable(&reason))?;
    let sid = Some(send.message_sid.clone()).filter(|sid| !sid.is_empty());
    let account_sid = send.account_sid.clone();
    let mut shown = SendShown::of(send, &sending.errors);
    if let Some(sid) = sid {
        let heard = histories.message(&account_sid, &sid).await;
        if let Some(heard) = heard.map_err(|reason| Problem::unavailable(&reason))? {
            (shown.status, shown.error_code) = (Some(heard.status), heard.error_code);
        }
    }
    shown.fallback = instead.map(|instead| instead.id);
    shown.links.fallback = shown.fallback.as_ref().map(|id| format!("/v1/messages/{id}"));
    Ok(shown)
}

async fn found(
    sending: &Sending,
    account_sid: &str,
    id: &str,
    patience: Duration,
) -> Result<OutboundMessage, Problem> {
    let nowhere = || Problem::of(kinds::NO_SUCH_MESSAGE);
    // The databases reject a NUL character in text.
    if !id.starts_with(sending::PREFIX) || id.contains('\0') {
        return Err(nowhere());
    }
    let found = sending.answers.of(&sending.sends, account_sid, id, patience).await;
    found.map_err(|reason| Problem::unavailable(&reason))?.ok_or_else(nowhere)
}

/// Waits for the outcome of an accepted message, and replaces the answer with the message as it is then. `wait_ms` is not
/// part of the idempotent request: a copy may have a different one.
pub(super) async fn waited(
    State(sending): State<Arc<Sending>>,
    State(histories): State<MessageHistory>,
    State(timeouts): State<Timeouts>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let Query(Patience { wait_ms }) = Query::try_from_uri(request.uri())
        .map_err(|error| Problem::unreadable(&error.body_text()))?;
    let patience = patience(wait_ms)?;
    if wait_ms.is_some() {
        *request.uri_mut() = without_wait(request.uri());
    }
    let response = next.run(request).await;
    if patience.is_zero() || response.status() != StatusCode::ACCEPTED {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let as_it_was = |parts, body| Response::from_parts(parts, Body::from(body));
    let Ok(Taken { id, account_sid }) = serde_json::from_slice(&body) else {
        return Ok(as_it_was(parts, body));
    };
    let patience = patience.min(timeouts.wait).saturating_sub(begun.elapsed());
    // The message is accepted in any case. If the database is slow now, the answer stays as it was.
    let spare = patience + Duration::from_millis(200);
    let told = async {
        let send = found(&sending, &account_sid, &id, patience).await?;
        shown(&sending, &histories, send).await
    };
    let told = tokio::time::timeout(spare, told).await;
    let Ok(Ok(shown)) = told else { return Ok(as_it_was(parts, body)) };
    if matches!(shown.state.as_str(), "sent" | "refused" | "not_sent" | "canceled") {
        parts.status = StatusCode::OK;
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok((parts.status, parts.headers, json(&shown).into_body()).into_response())
}

/// Fields of the answer that identify the message.
#[derive(Deserialize)]
struct Taken {
    id: String,
    account_sid: String,
}

fn without_wait(uri: &Uri) -> Uri {
    let query = uri.query().unwrap_or_default();
    let others: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("wait_ms=")).collect();
    let target = match others.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), others.join("&")),
    };
    target.parse().unwrap_or_else(|_| uri.clone())
}

impl SendShown {
    pub(super) fn of(send: OutboundMessage, errors: &ErrorTable) -> SendShown {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let message_sid = some(send.message_sid);
        let known = send.code.parse().ok().and_then(|code| errors.get(code));
        // The recipient of a message with an outcome is already stored in masked form.
        let masked = send.recipient.contains("..");
        let to = Address { channel: send.channel, number: send.recipient.clone() };
        SendShown {
            links: Links {
                this: format!("/v1/messages/{}", send.id),
                message: message_sid.as_ref().map(|sid| format!("/v1/messages/{sid}")),
                fallback: None,
                cancel: (send.state == "queued")
                    .then(|| format!("/v1/messages/{}/cancel", send.id)),
            },
            to: if masked { send.recipient } else { to.to_string() },
            created_at: rfc3339(send.created_at_ms),
            changed_at: rfc3339(send.changed_at_ms),
            id: send.id,
            account_sid: send.account_sid,
            state: send.state,
            sender: send.sender,
            category: send.category,
            kind: send.kind,
            message_sid,
            status: None,
            error_code: None,
            actor: known.map(|entry| entry.actor.as_str()),
            remedy: known.map(|entry| entry.remedy.clone()),
            code: some(send.code),
            reason: some(send.reason),
            fallback_of: some(send.fallback_of),
            fallback: None,
            attempts: send.attempts,
            twilio_request_id: some(send.request_id),
        }
    }
}
