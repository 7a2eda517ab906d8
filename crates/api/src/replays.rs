//! `/v1/replays`: delivers recorded webhooks once more. The rules are those of
//! [`twilio_edge_services::inbound::replays`].

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    dead_letters::one_sink,
    idempotency::IdempotencyKeyHeader,
    page::PageRequest,
    problem::Problem,
    query::{self, Listing},
};
use crate::views::Class;
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{api_key::Scope, cursor::Cursor, period::instant, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::replays::{self, Origin, ReplayError, ReplayRequest, ReplaySources},
};
use twilio_edge_store::{Outbox, Replay};

/// Largest number of webhooks that one dry run counts.
const MOST: i64 = 20_000;

/// Selection of the webhooks to deliver once more. A message or a time is required; a webhook must match every given
/// field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateReplayRequest {
    /// Name of the sink that receives them.
    #[schema(min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9_-]+$")]
    sink: String,
    /// Account SID of the webhooks. Defaults to the account the key is bound to; required together with `message_sid`.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// SID of the message.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-9;-~]+$")]
    message_sid: Option<String>,
    /// Class of the webhooks: `inbound` or `status`.
    class: Option<Class>,
    /// Earliest time of receipt, inclusive, in RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Latest time of receipt, exclusive, in RFC 3339. Defaults to now.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// True: count the webhooks without delivering them.
    #[serde(default)]
    dry_run: bool,
    /// Source: `ledger`, with the webhooks that retention has not redacted, `archive`, or `events`, the operational events,
    /// which have no `class`.
    #[serde(default)]
    from: Origin,
}

/// A replay and its progress.
#[derive(Serialize, ToSchema)]
struct ReplayView {
    /// Id of the replay, `replay_id` in its events; `null` after a dry run.
    id: Option<String>,
    /// Name of the sink that receives the webhooks.
    sink: String,
    /// Account SID of the webhooks; `null` for all accounts.
    account_sid: Option<String>,
    /// SID of the message; `null` for all messages.
    message_sid: Option<String>,
    /// Class of the webhooks: `inbound` or `status`; `null` for both.
    class: Option<String>,
    /// Source: `ledger` or `archive` of webhooks, or `events`, the operational events.
    from: String,
    /// Earliest time of receipt, inclusive, in RFC 3339.
    since: Option<String>,
    /// Latest time of receipt, exclusive, in RFC 3339.
    until: Option<String>,
    /// Progress: `running`, or `done` when every webhook is queued, though not yet delivered. After a dry run, `done`
    /// means that all webhooks were counted.
    state: String,
    /// Number of webhooks that match.
    found: i64,
    /// Number of webhooks queued for the sink.
    queued: i64,
    /// Number of webhooks left out, because they were redacted or only their settlement was recorded.
    left_out: i64,
    /// Time of the request, in RFC 3339.
    created_at: Option<String>,
    /// Actor that started the replay.
    created_by: String,
    /// Time at which the last webhook was queued, in RFC 3339.
    ended_at: Option<String>,
}

/// A page of replays, the latest first.
#[derive(Serialize, ToSchema)]
struct ReplayList {
    replays: Vec<ReplayView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Route that heeds `Idempotency-Key`.
pub(super) fn starting_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start))
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Starts a replay: delivers webhooks of the ledger or of the archive once more to one sink, in parallel to new events.
#[utoipa::path(
    post,
    path = "/v1/replays",
    tag = "replays",
    params(IdempotencyKeyHeader),
    operation_id = "start_replay",
    request_body = CreateReplayRequest,
    responses(
        (status = 200, description = "With `dry_run`: the replay that the request would start", body = ReplayView),
        (status = 202, description = "The replay has started", body = ReplayView, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn start(
    State(sinks): State<Sinks>,
    State(replay_sources): State<ReplaySources>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: CreateReplayRequest = object(body)?;
    let dry_run = request.dry_run;
    let filter = request.read()?;
    let has_account = filter.account_sid.is_some() || caller.account_sid.is_some();
    let is_clear = match &filter.message_sid {
        Some(_) => has_account,
        None => filter.since_ms.is_some() || filter.until_ms.is_some(),
    };
    if !is_clear {
        return Err(Problem::of(RefusalCode::SelectorRequired));
    }
    if filter.from == Origin::Events && filter.class.is_some() {
        return Err(Problem::with(RefusalCode::InvalidField, replays::CLASS_OF_EVENTS));
    }
    let replay = replays::validate(&caller, filter, now_ms());
    let replay = replay.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    if sinks.get(&replay.sink).is_none() {
        let detail = "sink: none of the sinks file of this sidecar has that name";
        return Err(Problem::with(RefusalCode::InvalidField, detail));
    }
    if replay.is_of_archive() && replay_sources.archive.is_none() {
        let detail = "from: this sidecar has no archive; set archive.url";
        return Err(Problem::with(RefusalCode::InvalidField, detail));
    }
    if dry_run {
        let counted = replay_sources.count(replay, MOST).await;
        let counted = counted.map_err(|stopped| match stopped {
            ReplayError::Store(reason) => Problem::unavailable(&reason),
            ReplayError::Archive(reason) => Problem::with(RefusalCode::ArchiveUnavailable, reason),
        })?;
        return Ok(json(&ReplayView { id: None, ..ReplayView::of(counted) }));
    }
    let started = replays::begin(&replay_sources.outbox, &caller, &replay).await;
    started.map_err(|reason| Problem::unavailable(&reason))?;
    let mut response = json(&ReplayView::of(replay));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Lists the replays with their progress, the latest first. A key that is bound to an account sees the replays of that account alone.
#[utoipa::path(
    get,
    path = "/v1/replays",
    tag = "replays",
    params(Listing),
    operation_id = "list_replays",
    responses((status = 200, description = "A page of replays", body = ReplayList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let Listing { account_sid, limit, cursor } = query::read(query)?;
    let account_sid = query::account_or_all(&caller, account_sid)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Replay { created_ms, id } => Some((created_ms, id)),
        _ => None,
    })?;
    let after = page.after.as_ref().map(|(created_ms, id)| (*created_ms, id.as_str()));
    let found = outbox.replays(account_sid.as_deref(), after, page.rows()).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let cursor =
        |last: &Replay| Cursor::Replay { created_ms: last.created_at_ms, id: last.id.clone() };
    let (replays, next_cursor) = page.page(found, cursor, ReplayView::of);
    Ok(json(&ReplayList { replays, next_cursor }))
}

/// Returns one replay and its progress.
#[utoipa::path(
    get,
    path = "/v1/replays/{id}",
    tag = "replays",
    params(("id" = String, Path, description = "Id of the replay")),
    operation_id = "fetch_replay",
    responses((status = 200, description = "The replay and its progress", body = ReplayView), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchReplay);
    let Path(id) = id.map_err(|_| not_found())?;
    // The databases reject a NUL character in text.
    if id.contains('\0') {
        return Err(not_found());
    }
    let found = outbox.replay(&id, caller.account_sid.as_deref()).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&ReplayView::of(found.ok_or_else(not_found)?)))
}

impl CreateReplayRequest {
    fn read(self) -> Result<ReplayRequest, Problem> {
        let time = |name: &str, text: Option<String>| {
            let read = |text: String| {
                instant(&text).map_err(|problem| Problem::malformed(&format!("{name}: {problem}")))
            };
            text.map(read).transpose()
        };
        let class = |class: Class| match class {
            Class::Inbound => twilio_edge_contract::Class::Inbound,
            Class::Status => twilio_edge_contract::Class::Status,
        };
        Ok(ReplayRequest {
            sink: one_sink(Some(self.sink))?.unwrap_or_default(),
            account_sid: self.account_sid,
            message_sid: self.message_sid,
            class: self.class.map(class),
            since_ms: time("since", self.since)?,
            until_ms: time("until", self.until)?,
            from: self.from,
        })
    }
}

impl ReplayView {
    fn of(replay: Replay) -> ReplayView {
        ReplayView {
            since: rfc3339(replay.since_ms),
            until: rfc3339(replay.until_ms),
            created_at: rfc3339(replay.created_at_ms),
            ended_at: replay.ended_at_ms.and_then(rfc3339),
            id: Some(replay.id),
            sink: replay.sink,
            account_sid: replay.account_sid,
            message_sid: replay.message_sid,
            class: replay.class,
            from: replay.origin,
            state: replay.state,
            found: replay.found,
            queued: replay.queued,
            left_out: replay.left_out,
            created_by: replay.created_by,
        }
    }
}
