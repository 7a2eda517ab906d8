//! `/v1/dead-letters`: lists, shows, retries and discards dead letters. The rules are those of
//! [`twilio_edge_services::inbound::dead_letters`].

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    deliveries::AttemptView, idempotency::IdempotencyKeyHeader, page::PageRequest,
    problem::Problem, query,
};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{cursor::Cursor, media::inbound::MediaLinks, window::rfc3339};
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::dead_letters::{self, DeadLetterFilter, DecisionResult},
    outbound::media::library::Library,
    wakeup::Wakeup,
};
use twilio_edge_store::{DeadLetter, DeadLetterAction, DeadLetterDetail, DeadLetters, Outbox};

/// Largest number of dead letters that one request changes. The caller repeats the request for more.
const MOST: usize = 5000;

/// Longest sink name in a query, in bytes.
const LONGEST_SINK: usize = 100;

/// Filter of the dead letters.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeadLettersQuery {
    /// Account SID of the dead letters.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Name of the sink of the dead letters.
    #[param(min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9_-]+$")]
    sink: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A dead letter: a delivery that was given up.
#[derive(Serialize, ToSchema)]
struct DeadLetterSummary {
    /// Number of the dead letter.
    id: i64,
    /// Name of the sink.
    sink: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// Id of the webhook: `event_id` of the event.
    event_id: String,
    /// Value of the `webhook-id` header that the sink receives.
    delivery_id: String,
    /// Time at which the delivery was given up, in RFC 3339.
    given_up_at: Option<String>,
    /// Time at which the delivery was queued, or queued again by a retry, in RFC 3339.
    recorded_at: Option<String>,
    /// Number of attempts.
    tries: i64,
    /// Error of the last attempt.
    reason: Option<String>,
}

/// A page of dead letters, the latest first.
#[derive(Serialize, ToSchema)]
struct DeadLetterList {
    dead_letters: Vec<DeadLetterSummary>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// A dead letter in its current state.
#[derive(Serialize, ToSchema)]
struct DeadLetterView {
    /// Number of the dead letter.
    id: i64,
    /// Name of the sink.
    sink: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// Id of the webhook: `event_id` of the event.
    event_id: String,
    /// Value of the `webhook-id` header that the sink receives.
    delivery_id: String,
    /// State of the delivery: `dead`, or after a retry or discard `waiting`, `done` or `discarded`.
    state: String,
    /// Time at which the delivery was given up, delivered or discarded, in RFC 3339.
    ended_at: Option<String>,
    /// Time at which the delivery was queued, or queued again by a retry, in RFC 3339.
    recorded_at: Option<String>,
    /// Number of attempts.
    tries: i64,
    /// Error of the last attempt.
    reason: Option<String>,
    /// Latest attempts, at most 20, the oldest first.
    attempts: Vec<AttemptView>,
    /// Event that the sink receives; `null` if the ledger no longer has it.
    #[schema(value_type = Option<Object>)]
    event: Option<Value>,
}

/// Selection of dead letters. At least one field is required; a dead letter must match every given field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeadLetterSelection {
    /// Numbers of the dead letters. If omitted, all of the sink and account are selected.
    #[schema(min_items = 1, max_items = 5000)]
    ids: Option<Vec<i64>>,
    /// Name of the sink of the dead letters.
    #[schema(min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9_-]+$")]
    sink: Option<String>,
    /// Account SID of the dead letters.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
}

/// Result of a retry or discard.
#[derive(Serialize, ToSchema)]
struct DeadLetterDecision {
    /// Number of dead letters that were selected.
    found: usize,
    /// Number of deliveries that were dead letters until now and were changed.
    changed: usize,
    /// False if more dead letters match; repeat the request then.
    complete: bool,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Routes that heed `Idempotency-Key`.
pub(super) fn deciding_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(retry)).routes(routes!(discard))
}

/// Lists the dead letters, the latest first.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    tag = "dead letters",
    params(DeadLettersQuery),
    operation_id = "list_dead_letters",
    responses((status = 200, description = "A page of dead letters", body = DeadLetterList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<DeadLettersQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let DeadLettersQuery { account_sid, sink, limit, cursor } = query::read(query)?;
    let account_sid = query::account_or_all(&caller, account_sid)?;
    let sink = one_sink(sink)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::DeadLetter { ended_ms, seq } => Some((ended_ms, seq)),
        _ => None,
    })?;
    let (before_ms, before_seq) = page.after.unwrap_or((i64::MAX, i64::MAX));
    let (account_sid, sink) = (account_sid.as_deref(), sink.as_deref());
    let filter = DeadLetters { account_sid, sink, before_ms, before_seq, most: page.rows() };
    let found = outbox.dead_letters(filter).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let cursor =
        |last: &DeadLetter| Cursor::DeadLetter { ended_ms: last.ended_at_ms, seq: last.seq };
    let (dead_letters, next_cursor) = page.page(found, cursor, DeadLetterSummary::of);
    Ok(json(&DeadLetterList { dead_letters, next_cursor }))
}

/// Returns one dead letter with its event and its current state.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    tag = "dead letters",
    params(("id" = i64, Path, description = "Id of the dead letter, as `GET /v1/dead-letters` lists it", minimum = 1)),
    operation_id = "fetch_dead_letter",
    responses((status = 200, description = "The dead letter with its event and its current state", body = DeadLetterView), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(outbox): State<Outbox>,
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchDeadLetter);
    let Path(id) = id.map_err(|_| not_found())?;
    let found = outbox.dead_letter(id, caller.account_sid.as_deref()).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let links = library.as_ref().and_then(Library::links);
    Ok(json(&DeadLetterView::of(found.ok_or_else(not_found)?, links.map(AsRef::as_ref))))
}

/// Queues dead letters for delivery again, with a fresh retry budget, before later deliveries of the same contact.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/retry",
    tag = "dead letters",
    params(IdempotencyKeyHeader),
    operation_id = "retry_dead_letters",
    request_body = DeadLetterSelection,
    responses(
        (status = 200, description = "The number of dead letters that match, and the number that changed", body = DeadLetterDecision, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn retry(
    State(outbox): State<Outbox>,
    State(wakeup): State<Wakeup>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let decided = decide(&outbox, &caller, DeadLetterAction::Retry, body).await;
    wakeup.wake();
    decided
}

/// Discards dead letters permanently: they are never delivered.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/discard",
    tag = "dead letters",
    params(IdempotencyKeyHeader),
    operation_id = "discard_dead_letters",
    request_body = DeadLetterSelection,
    responses(
        (status = 200, description = "The number of dead letters that match, and the number that changed", body = DeadLetterDecision, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn discard(
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    decide(&outbox, &caller, DeadLetterAction::Discard, body).await
}

async fn decide(
    outbox: &Outbox,
    caller: &Caller,
    fate: DeadLetterAction,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let selection: DeadLetterSelection = object(body)?;
    let selection = selection.read(caller)?;
    let done = dead_letters::decide(outbox, caller, fate, &selection, MOST).await;
    let DecisionResult { found, changed, complete } =
        done.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&DeadLetterDecision { found, changed, complete }))
}

impl DeadLetterSelection {
    fn read(self, caller: &Caller) -> Result<DeadLetterFilter, Problem> {
        if self.ids.is_none() && self.sink.is_none() && self.account_sid.is_none() {
            return Err(Problem::of(RefusalCode::SelectorRequired));
        }
        let ids = self.ids;
        if ids.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > MOST) {
            return Err(Problem::malformed(&format!("ids: must be 1 to {MOST}")));
        }
        let account_sid = query::account_or_all(caller, self.account_sid)?;
        Ok(DeadLetterFilter { ids, sink: one_sink(self.sink)?, account_sid })
    }
}

impl DeadLetterSummary {
    fn of(letter: DeadLetter) -> DeadLetterSummary {
        DeadLetterSummary {
            id: letter.seq,
            sink: letter.sink,
            account_sid: letter.account_sid,
            event_id: letter.dedupe_key,
            delivery_id: letter.delivery_id,
            given_up_at: rfc3339(letter.ended_at_ms),
            recorded_at: rfc3339(letter.recorded_at_ms),
            tries: letter.tries,
            reason: letter.reason,
        }
    }
}

impl DeadLetterView {
    fn of(letter: DeadLetterDetail, links: Option<&MediaLinks>) -> DeadLetterView {
        let delivery = letter.due.delivery(links);
        let event = delivery.and_then(|delivery| serde_json::to_value(delivery.event).ok());
        let DeadLetterDetail { state, sink, reason, ended_at_ms, due } = letter;
        DeadLetterView {
            id: due.seq,
            sink,
            account_sid: due.account_sid,
            event_id: due.dedupe_key,
            delivery_id: due.delivery_id,
            state,
            ended_at: ended_at_ms.and_then(rfc3339),
            recorded_at: rfc3339(due.recorded_at_ms),
            tries: due.tries,
            reason,
            attempts: AttemptView::read(&due.attempts),
            event,
        }
    }
}

/// Validates the sink name of a query, if there is one.
pub(super) fn one_sink(text: Option<String>) -> Result<Option<String>, Problem> {
    let is_name = |name: &String| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=LONGEST_SINK).contains(&name.len()) && name.bytes().all(is_letter)
    };
    match text {
        Some(text) if !is_name(&text) => {
            Err(Problem::malformed("sink: must be letters, digits, - and _"))
        }
        text => Ok(text),
    }
}
