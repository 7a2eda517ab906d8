//! Outcome of outbound messages: lets requests wait for it, and cancels messages that wait. The module `create` accepts
//! messages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{
        Path, Query, Request, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::view;
use crate::{
    app::{App, Timeouts},
    body::{json, object},
    problem::Problem,
    query::{self, AccountQuery},
    views::Message,
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{self, Sending},
};
use twilio_edge_store::{OutboundMessage, message_history::MessageHistory};

/// Upper bound of `wait_ms`.
const LONGEST_MS: u32 = 60_000;

/// Largest answer of `POST /v1/messages`, in bytes.
const LARGEST: usize = 64 << 10;

/// Wait for the outcome of a message.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Longest wait for Twilio's decision, in milliseconds, at most four fifths of `http.request_timeout_ms`. The answer
    /// comes as soon as Twilio has decided. Without it, the answer comes at once.
    #[param(minimum = 0, maximum = 60000)]
    wait_ms: Option<u32>,
}

/// Account of a message, and wait for its outcome.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MessageQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
    /// Longest wait for Twilio's decision about an outbound message, in milliseconds, at most four fifths of
    /// `http.request_timeout_ms`. The answer comes as soon as Twilio has decided.
    #[param(minimum = 0, maximum = 60000)]
    wait_ms: Option<u32>,
}

impl MessageQuery {
    /// Returns the wait, or refuses it.
    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        wait(self.wait_ms)
    }
}

fn wait(wait_ms: Option<u32>) -> Result<Duration, Problem> {
    match wait_ms.unwrap_or_default() {
        wait_ms @ 0..=LONGEST_MS => Ok(Duration::from_millis(wait_ms.into())),
        _ => Err(Problem::malformed(&format!("wait_ms: must be 0 to {LONGEST_MS}"))),
    }
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(cancel)).routes(routes!(resolve))
}

/// Cancels an outbound message that is not being sent yet. Canceling it again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/messages/{id}/cancel",
    tag = "messages",
    params(("id" = String, Path, description = "Id of the outbound message, `ms_..`"), AccountQuery),
    operation_id = "cancel_message",
    responses((status = 200, description = "The canceled message", body = Message), Problem),
    security(("key" = [])),
)]
async fn cancel(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let message = row(&sending, &account_sid, &id, Duration::ZERO).await?;
    let canceled = sending::cancel(&sending.messages, &caller, &message, now_ms()).await;
    if canceled.map_err(|reason| Problem::unavailable(&reason))? {
        sending.outcome_waiters.notify(&id);
    }
    let message = row(&sending, &account_sid, &id, Duration::ZERO).await?;
    match message.state.as_str() {
        "canceled" => Ok(json(&view(&sending, &message.into()).await?)),
        state => Err(Problem::with(RefusalCode::NotCancelable, format!("It is {state}."))),
    }
}

/// Decision about a message whose outcome is unknown.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResolveMessageRequest {
    /// Id of the message at its provider, if the provider has it: for Twilio its SID, `SM..` or `MM..` (`VE..` of a verification,
    /// `FN..` of an execution). `null` if the provider does not have it, so that the message was not sent.
    #[schema(required = true)]
    message_sid: Option<String>,
}

/// Resolves an outbound message whose outcome is unknown: Twilio has it under this SID, or it was not sent.
#[utoipa::path(
    post,
    path = "/v1/messages/{id}/resolve",
    tag = "messages",
    params(("id" = String, Path, description = "Id of the outbound message, `ms_..`"), AccountQuery),
    operation_id = "resolve_message",
    request_body = ResolveMessageRequest,
    responses((status = 200, description = "The message with its outcome", body = Message), Problem),
    security(("key" = [])),
)]
async fn resolve(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let ResolveMessageRequest { message_sid } = object(body)?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let message = row(&sending, &account_sid, &id, Duration::ZERO).await?;
    let sid = message_sid.as_deref();
    let provider = message.provider();
    if sid.is_some_and(|sid| !provider.is_id(sid)) {
        let must = format!("message_sid: must be {}, or null", provider.id_form());
        return Err(Problem::with(RefusalCode::InvalidField, must));
    }
    let resolved = sending::resolve(&sending.messages, &caller, &message, sid, now_ms()).await;
    if !resolved.map_err(|reason| Problem::unavailable(&reason))? {
        return Err(Problem::of(RefusalCode::NotUnknown));
    }
    sending.outcome_waiters.notify(&id);
    let message = row(&sending, &account_sid, &id, Duration::ZERO).await?;
    Ok(json(&view(&sending, &message.into()).await?))
}

/// Returns the row of an outbound message: once it has an outcome, or after `wait`.
pub(super) async fn row(
    sending: &Sending,
    account_sid: &str,
    id: &str,
    wait: Duration,
) -> Result<OutboundMessage, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchMessage);
    // The databases reject a NUL character in text.
    if !id.starts_with(sending::PREFIX) || id.contains('\0') {
        return Err(not_found());
    }
    let found = sending.outcome_waiters.wait(&sending.messages, account_sid, id, wait).await;
    found.map_err(|reason| Problem::unavailable(&reason))?.ok_or_else(not_found)
}

/// Waits for the outcome of an accepted message, and replaces the answer with the message as it is then.
pub(crate) async fn waited(
    State(sending): State<Arc<Sending>>,
    State(histories): State<MessageHistory>,
    State(timeouts): State<Timeouts>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    after_wait(timeouts, request, next, async move |accepted: Accepted, wait| {
        let row = row(&sending, &accepted.account_sid, &accepted.id, wait).await?;
        let record = histories.with_webhooks(row).await;
        let record = record.map_err(|reason| Problem::unavailable(&reason))?;
        let current = view(&sending, &record).await?;
        let state = current.summary.state.as_str();
        let has_outcome = matches!(state, "sent" | "refused" | "not_sent" | "canceled");
        Ok((json(&current), has_outcome))
    })
    .await
}

/// Replaces the answer that something was accepted with its state after `wait_ms`. `current` returns that state, and whether it has an
/// outcome. `wait_ms` is not part of the idempotent request: a copy may have a different one.
pub(crate) async fn after_wait<C>(
    timeouts: Timeouts,
    mut request: Request,
    next: Next,
    current: C,
) -> Result<Response, Problem>
where
    C: AsyncFnOnce(Accepted, Duration) -> Result<(Response, bool), Problem>,
{
    let begun = Instant::now();
    let Query(WaitQuery { wait_ms }) = Query::try_from_uri(request.uri())
        .map_err(|error| Problem::malformed(&error.body_text()))?;
    let wait = wait(wait_ms)?;
    if wait_ms.is_some() {
        *request.uri_mut() = without_wait(request.uri());
    }
    let response = next.run(request).await;
    if wait.is_zero() || response.status() != StatusCode::ACCEPTED {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let as_it_was = |parts, body| Response::from_parts(parts, Body::from(body));
    let Ok(accepted) = serde_json::from_slice::<Accepted>(&body) else {
        return Ok(as_it_was(parts, body));
    };
    let wait = wait.min(timeouts.wait).saturating_sub(begun.elapsed());
    // It is accepted in any case. If the database is slow now, the answer stays as it was.
    let deadline = wait + Duration::from_millis(200);
    let current = tokio::time::timeout(deadline, current(accepted, wait)).await;
    let Ok(Ok((current, has_outcome))) = current else { return Ok(as_it_was(parts, body)) };
    if has_outcome {
        parts.status = StatusCode::OK;
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok((parts.status, parts.headers, current.into_body()).into_response())
}

/// Fields of an answer that identify what was accepted.
#[derive(Deserialize)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) account_sid: String,
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
