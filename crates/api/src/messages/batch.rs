//! `POST /v1/messages/batch` and `POST /v1/emails/batch`: accept up to 1,000 messages or e-mails with one request and one
//! idempotency key. Each has a verdict of its own; the accepted ones are stored together. The module `acceptance` evaluates each.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::Response,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    acceptance::{NewMessage, prepare},
    create_email::CreateEmailRequest,
    create_request::CreateMessageRequest,
};
use crate::{
    app::App,
    body::{json, object},
    idempotency::{IdempotencyKeyHeader, StoredReplay, as_of_ms},
    problem::Problem,
};
use twilio_edge_domain::idempotency::{Headers, StoredResponse};
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, OutboundMessage};

/// Largest number of messages in one request.
const MAX_MESSAGES: usize = 1000;

/// Number of messages of a batch that are evaluated at the same time.
const CONCURRENCY: usize = 16;

/// Request to send messages.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateMessagesRequest {
    /// Messages, each as in `POST /v1/messages`, without `dry_run`. A malformed message has a refusal of its own.
    #[schema(value_type = Vec<Value>, min_items = 1, max_items = 1000)]
    messages: Vec<Value>,
}

/// Request to send e-mails.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateEmailsRequest {
    /// E-mails, each as in `POST /v1/emails`, without `dry_run`. A malformed e-mail has a refusal of its own.
    #[schema(value_type = Vec<Value>, min_items = 1, max_items = 1000)]
    emails: Vec<Value>,
}

/// Verdicts of a batch.
#[derive(Serialize, ToSchema)]
struct CreateMessagesResponse {
    /// Number of accepted messages or e-mails.
    accepted: usize,
    /// Number of refused messages or e-mails.
    refused: usize,
    /// One verdict for each message or e-mail, in the order of the request.
    results: Vec<MessageVerdict>,
}

/// Verdict about one message or e-mail of a batch.
#[derive(Serialize, ToSchema)]
struct MessageVerdict {
    /// Index of the message in the request, from 0.
    index: usize,
    /// Id of the accepted message, `ms_..`; `null` if it is refused.
    id: Option<String>,
    /// Refusal, as `POST /v1/messages` or `POST /v1/emails` answers it; `null` if the message is accepted.
    problem: Option<Problem>,
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(send)).routes(routes!(send_emails))
}

/// Sends up to 1,000 messages, each once. A refused message does not affect the others. The answer comes as soon as the accepted
/// messages are durably stored. A copy with the same `Idempotency-Key` gets the same verdicts.
#[utoipa::path(
    post,
    path = "/v1/messages/batch",
    tag = "messages",
    params(IdempotencyKeyHeader),
    operation_id = "send_messages",
    request_body = CreateMessagesRequest,
    responses(
        (status = 200, description = "One verdict for each message", body = CreateMessagesResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn send(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let CreateMessagesRequest { messages } = object(body)?;
    check_size("messages", &messages)?;
    accept::<CreateMessageRequest>(&sending, &caller, turn, messages).await
}

/// Sends up to 1,000 e-mails, each once. A refused e-mail does not affect the others. The answer comes as soon as the accepted
/// e-mails are durably stored; the provider gets one call for each. A copy with the same `Idempotency-Key` gets the same verdicts.
#[utoipa::path(
    post,
    path = "/v1/emails/batch",
    tag = "messages",
    params(IdempotencyKeyHeader),
    operation_id = "send_emails",
    request_body = CreateEmailsRequest,
    responses(
        (status = 200, description = "One verdict for each e-mail", body = CreateMessagesResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn send_emails(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let CreateEmailsRequest { emails } = object(body)?;
    check_size("emails", &emails)?;
    accept::<CreateEmailRequest>(&sending, &caller, turn, emails).await
}

/// Message or e-mail of a batch.
trait BatchEntry: DeserializeOwned + Send {
    fn is_dry_run(&self) -> bool;

    /// Reads the message of a caller.
    fn read(
        self,
        sending: &Sending,
        caller: &Caller,
        now_ms: i64,
    ) -> impl Future<Output = Result<NewMessage, Problem>> + Send;
}

impl BatchEntry for CreateMessageRequest {
    fn is_dry_run(&self) -> bool {
        CreateMessageRequest::is_dry_run(self)
    }

    async fn read(
        self,
        sending: &Sending,
        caller: &Caller,
        now_ms: i64,
    ) -> Result<NewMessage, Problem> {
        self.into_message(sending, caller, now_ms).await
    }
}

impl BatchEntry for CreateEmailRequest {
    fn is_dry_run(&self) -> bool {
        CreateEmailRequest::is_dry_run(self)
    }

    async fn read(
        self,
        _sending: &Sending,
        caller: &Caller,
        now_ms: i64,
    ) -> Result<NewMessage, Problem> {
        self.into_message(caller, now_ms)
    }
}

/// Decides about each entry of a batch, and stores the accepted ones.
async fn accept<T: BatchEntry>(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    messages: Vec<Value>,
) -> Result<Response, Problem> {
    let now_ms = as_of_ms(turn.clone());
    let copies = |index| turn.as_ref().map(|Extension(turn)| turn.digest(index));
    let prepared = stream::iter(messages.into_iter().enumerate())
        .map(|(index, message)| decide::<T>(sending, caller, message, now_ms, copies(index)));
    let prepared: Vec<Result<OutboundMessage, Problem>> =
        prepared.buffered(CONCURRENCY).collect().await;
    let (mut rows, mut results) = (Vec::new(), Vec::new());
    for (index, prepared) in prepared.into_iter().enumerate() {
        match prepared {
            Ok(row) => {
                results.push(MessageVerdict { index, id: Some(row.id.clone()), problem: None });
                rows.push(row);
            }
            // Nothing has been stored, so a copy of the request is decided anew.
            Err(problem) if problem.is_failure() => return Err(problem),
            Err(problem) => {
                results.push(MessageVerdict { index, id: None, problem: Some(problem) });
            }
        }
    }
    let accepted = rows.len();
    let refused = results.len().saturating_sub(accepted);
    let answer = CreateMessagesResponse { accepted, refused, results };
    let is_kept = turn.is_some();
    let done = turn.map(|Extension(turn)| CompletedRequest { turn, answer: stored(&answer) });
    let added = sending.add_all(caller, &rows, done.as_ref()).await;
    added.map_err(|reason| Problem::unavailable(&reason))?;
    let mut response = json(&answer);
    if is_kept {
        response.extensions_mut().insert(StoredReplay);
    }
    Ok(response)
}

fn check_size(field: &str, messages: &[Value]) -> Result<(), Problem> {
    if (1..=MAX_MESSAGES).contains(&messages.len()) {
        return Ok(());
    }
    Err(Problem::malformed(&format!("{field}: must be a list of 1 to {MAX_MESSAGES}")))
}

async fn decide<T: BatchEntry>(
    sending: &Sending,
    caller: &Caller,
    message: Value,
    now_ms: i64,
    copies: Option<String>,
) -> Result<OutboundMessage, Problem> {
    if !message.is_object() {
        return Err(Problem::malformed("each entry must be a JSON object"));
    }
    let entry: T =
        serde_json::from_value(message).map_err(|error| Problem::malformed(&error.to_string()))?;
    if entry.is_dry_run() {
        return Err(Problem::malformed("dry_run: is not possible in a batch"));
    }
    let message = entry.read(sending, caller, now_ms).await?;
    prepare(sending, caller, message, now_ms, copies).await
}

fn stored(answer: &CreateMessagesResponse) -> StoredResponse {
    StoredResponse {
        status: StatusCode::OK.as_u16(),
        headers: Headers { content_type: Some("application/json".to_owned()), location: None },
        body: serde_json::to_string(answer).unwrap_or_default(),
    }
}
