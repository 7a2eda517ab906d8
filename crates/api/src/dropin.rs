//! Drop-in replacement of Twilio's REST API, for applications that keep Twilio's SDK and change its base URL: messages
//! with their media and feedback, the account, verifications (`verify.rs`), and executions of flows
//! (`studio.rs`). A new message is accepted as by `POST /v1/messages`. Requests about
//! resources that Twilio has are forwarded to Twilio (`resources.rs`). Twilio's API description covers these paths, so
//! our OpenAPI document omits them. docs/DROP-IN.md lists the differences.

mod codes;
mod forwarding;
mod media;
mod refusals;
mod request;
mod resources;
mod studio;
mod verify;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::{Bytes, to_bytes},
    extract::{Path, RawQuery, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;

pub use self::codes::reference;
pub(super) use self::refusals::translate_refusals;
use self::{
    refusals::DropInRefusal,
    request::{OUR_KEY, TWILIO_KEY, category, pairs, with_status},
};
use super::{
    access, addresses,
    idempotency::{self, REPLAYED, StoredReplay, as_of_ms},
    messages::acceptance::{NewMessage, accept},
    page,
    problem::Problem,
    query,
};
use crate::{
    app::{App, Timeouts},
    body::{json, whole},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    address::Address,
    dropin::{
        DropInError, codes as ends, credentials,
        listing::{ListPosition, ListRequest},
        request::{MessageRequest, is_sid},
        resource::{self, StoredMessage},
    },
    idempotency::{Headers, StoredResponse},
    sending::{options::MessageOptions, request as outbound},
};
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};
use twilio_edge_store::{IdempotencyClaim, OutboundMessage, QueuedMessagesPage};

/// Largest stored answer for copies of a request, in bytes.
const LARGEST: usize = 256 << 10;

pub(super) fn router(app: &App) -> Router<App> {
    let account = "/2010-04-01/Accounts/{account_sid}";
    let message = format!("{account}/Messages/{{sid}}");
    Router::new()
        .route(account, get(resources::account))
        .route(&format!("{account}/Messages.json"), get(list).post(create))
        .route(&message, get(resources::fetch).post(resources::update).delete(resources::remove))
        .route(&format!("{message}/Media.json"), get(media::list))
        .route(&format!("{message}/Media/{{medium}}"), get(media::fetch).delete(media::remove))
        .route(&format!("{message}/Feedback.json"), post(resources::feedback))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::run_once))
        .layer(middleware::from_fn_with_state(app.clone(), refresh_replay))
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_application))
        .layer(middleware::from_fn(translate_credentials))
        .merge(verify::router(app))
        .merge(studio::router(app))
}

/// Translates Twilio's credentials and idempotency header into those that the layers below expect.
async fn translate_credentials(mut request: Request, next: Next) -> Response {
    let path = request.uri().path().strip_prefix(codes::PATHS).unwrap_or_default();
    let account_sid = path.split('/').nth(1).unwrap_or_default();
    let account_sid = account_sid.strip_suffix(".json").unwrap_or(account_sid).to_owned();
    let headers = request.headers_mut();
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(token) = authorization.and_then(|value| credentials::token(value, &account_sid))
        && let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    if let Some(key) = headers.remove(TWILIO_KEY) {
        headers.entry(OUR_KEY).or_insert(key);
    }
    next.run(request).await
}

/// Updates the replayed answer of a copy: the stored answer was written before Twilio was called.
async fn refresh_replay(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    request: Request,
    next: Next,
) -> Result<Response, DropInRefusal> {
    let settle_by = Instant::now() + timeouts.drop_in_wait;
    let response = next.run(request).await;
    let Some(replayed) = response.headers().get(REPLAYED).cloned() else { return Ok(response) };
    let status = response.status();
    let body = to_bytes(response.into_body(), LARGEST).await.unwrap_or_default();
    let message: Value = serde_json::from_slice(&body)
        .map_err(|error| Problem::internal(&format!("the stored answer of a message: {error}")))?;
    let mut response = match await_outcome(&sending, message, settle_by).await {
        Ok(message) => with_status(status, &message),
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(REPLAYED, replayed);
    Ok(response)
}

/// Accepts a message, and returns Twilio's result if it arrives in time.
async fn create(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    Path(account_sid): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, DropInRefusal> {
    let settle_by = Instant::now() + timeouts.drop_in_wait;
    let account_sid = query::account(&caller, Some(account_sid))?;
    let pairs = pairs(&whole(body)?);
    let to = pairs.iter().find(|(name, _)| name == "To").map(|(_, to)| to.as_str());
    let writer = match to.filter(|to| Address::given(to, None, None).is_err()) {
        Some(to) => {
            addresses::recipient(&sending.checks, &account_sid, "To", to, None, None).await.ok()
        }
        None => None,
    };
    let form = MessageRequest::read(&pairs, as_of_ms(turn.clone()), writer)?;
    let (send_at_ms, other_parameters) = (form.send_at_ms, form.other_parameters);
    let status_callback = form.status_callback;
    let request = outbound::Request {
        sender: form.sender,
        category: category(&headers)?,
        options: MessageOptions { status_callback, ..MessageOptions::default() },
        ..outbound::Request::new(account_sid, form.to, form.content)
    };
    let is_kept = turn.is_some();
    let answer = |message: &OutboundMessage| StoredResponse {
        status: StatusCode::CREATED.as_u16(),
        headers: Headers { content_type: Some("application/json".to_owned()), location: None },
        body: resource::message_resource(&known(message)).to_string(),
    };
    let message = NewMessage { request, send_at_ms, other_parameters, is_repeatable: false };
    let message = accept(&sending, &caller, turn, message, answer).await?;
    let mut response = match await_outcome(
        &sending,
        resource::message_resource(&known(&message)),
        settle_by,
    )
    .await
    {
        Ok(message) => with_status(StatusCode::CREATED, &message),
        Err(refusal) => refusal.into_response(),
    };
    if is_kept {
        response.extensions_mut().insert(StoredReplay);
    }
    Ok(response)
}

/// Lists the messages that wait here, followed by those that Twilio lists.
async fn list(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path(account_sid): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, DropInRefusal> {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let listing = ListRequest::read(query.as_deref().unwrap_or_default())?;
    let (before_ms, before_id) = match &listing.place {
        ListPosition::Waiting(at_ms, id) => (*at_ms, id.as_str()),
        ListPosition::Twilio(query) => {
            return forwarding::get(
                &sending.twilio,
                &account_sid,
                &format!("/Messages.json?{query}"),
            )
            .await;
        }
    };
    let page = QueuedMessagesPage {
        account_sid: &account_sid,
        to: listing.to.as_ref(),
        from: &listing.from,
        before: (before_ms, before_id),
        most: page::one_more(listing.size),
    };
    let found = sending.messages.list_queued(&page).await;
    let mut found = found.map_err(|reason| Problem::unavailable(&reason))?;
    if found.is_empty() {
        let query = listing.twilio_query();
        return forwarding::get(&sending.twilio, &account_sid, &format!("/Messages.json?{query}"))
            .await;
    }
    let has_more = found.len() > listing.size;
    found.truncate(listing.size);
    let resources: Vec<Value> =
        found.iter().map(|message| resource::message_resource(&known(message))).collect();
    let last = found
        .last()
        .filter(|_| has_more)
        .map(|message| (message.created_at_ms, message.id.as_str()));
    Ok(json(&listing.page(&account_sid, &resources, last)))
}

/// Returns the resource of an accepted message once Twilio has decided, or at `settle_by`. The message is accepted
/// in any case, so errors of the lookup are ignored: a client that received one would send a second message.
async fn await_outcome(
    sending: &Sending,
    mut resource: Value,
    settle_by: Instant,
) -> Result<Value, DropInRefusal> {
    let text =
        |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (account_sid, mut id) =
        (text("account_sid"), resource::id_of_sid(&text("sid")).unwrap_or_default());
    let mut ended = Vec::new();
    let wait = settle_by.saturating_duration_since(Instant::now());
    // The deadline also bounds a slow database.
    let deadline = Instant::now() + wait + Duration::from_millis(200);
    let message = loop {
        let wait = settle_by.saturating_duration_since(Instant::now());
        let answered = sending.outcome_waiters.wait(&sending.messages, &account_sid, &id, wait);
        let Ok(Ok(Some(message))) = tokio::time::timeout_at(deadline.into(), answered).await else {
            return Ok(resource);
        };
        // The outcome of a message that was replaced is the outcome of its fallback.
        let fallback = sending.messages.find_fallback_of(&message.id);
        let Ok(fallback) = tokio::time::timeout_at(deadline.into(), fallback).await else {
            return Ok(resource);
        };
        match fallback {
            Ok(Some(fallback)) if message.state == "refused" => {
                ended.push(message.id);
                resource = resource::message_resource(&known(&fallback));
                id = fallback.id;
            }
            _ => break message,
        }
    };
    if matches!(message.state.as_str(), "refused" | "not_sent") {
        let code = ends::of_end(&message.code).unwrap_or(ends::UNKNOWN);
        ended.push(message.id);
        // The caller learns the end from this answer. If the database fails, the caller also gets the callback.
        let _ = sending.messages.withdraw_callbacks(&ended).await;
        let mistake = DropInError::new(code, message.reason);
        // If Twilio refused the message, the answer has Twilio's own status.
        return Err(match u16::try_from(message.twilio_status) {
            Ok(status @ 400..=499) => mistake.with_status(status),
            _ => mistake,
        }
        .into());
    }
    resource::update(&mut resource, &known(&message));
    Ok(resource)
}

/// Finds one of our messages by the SID that is derived from its id.
async fn find_own(
    sending: &Sending,
    account_sid: &str,
    sid: &str,
) -> Result<Option<OutboundMessage>, Problem> {
    let Some(id) = resource::id_of_sid(sid) else { return Ok(None) };
    let unavailable = |reason| Problem::unavailable(&reason);
    let mut found = sending.messages.fetch(&id, Some(account_sid)).await.map_err(unavailable)?;
    // The outcome of a refused message that has a fallback is that of its fallback.
    while let Some(refused) = found.as_ref().filter(|message| message.state == "refused") {
        match sending.messages.find_fallback_of(&refused.id).await.map_err(unavailable)? {
            Some(fallback) => found = Some(fallback),
            None => break,
        }
    }
    Ok(found)
}

fn message_sid(last: &str) -> Result<&str, Problem> {
    let sid = last.strip_suffix(".json").unwrap_or(last);
    match is_sid(sid, "SM") || is_sid(sid, "MM") {
        true => Ok(sid),
        false => Err(Problem::of(RefusalCode::NoSuchMessage)),
    }
}

fn known(message: &OutboundMessage) -> StoredMessage<'_> {
    let is_unexplained = message.state == "not_sent" && message.code.is_empty();
    StoredMessage {
        id: &message.id,
        account_sid: &message.account_sid,
        form: &message.form,
        state: &message.state,
        message_sid: &message.message_sid,
        error_code: ends::of_end(&message.code).or(is_unexplained.then_some(ends::UNKNOWN)),
        reason: &message.reason,
        status: &message.status,
        is_scheduled: message.first_due_at_ms > message.created_at_ms && message.repetitions == 0,
        created_ms: message.created_at_ms,
        updated_ms: message.changed_at_ms,
    }
}
