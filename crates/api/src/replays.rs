//! `/v1/replays`: what is delivered once more, as [`twilio_edge_services::inbound::replays`] says.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{dead_letters::one_sink, idempotency::Repeatable, kinds, problem::Problem};
use crate::views::Class;
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::{api_key::Scope, period::instant, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::replays::{self, Asked, Origin, Stopped},
};
use twilio_edge_store::Replay;

/// Webhooks counted for one answer.
const MOST: i64 = 20_000;

/// What to deliver once more: of each that is named, and a message or a time is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedReplay {
    /// To whom: the name of a sink.
    #[schema(min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9_-]+$")]
    sink: String,
    /// Only of this account; that of the key, if it is bound to one. A message needs it.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Only what was heard of this message.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-9;-~]+$")]
    message_sid: Option<String>,
    /// Only of this class.
    class: Option<Class>,
    /// Received then or later, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Received before, RFC 3339; else until now.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// From where: `ledger`, what retention has left whole, or `archive`, what that still has.
    #[serde(default)]
    from: Origin,
}

/// A replay, and how far it is.
#[derive(Serialize, ToSchema)]
struct ReplayShown {
    /// `replay_id` of its events; `null` if it was only counted.
    id: Option<String>,
    sink: String,
    account_sid: Option<String>,
    message_sid: Option<String>,
    class: Option<String>,
    /// From where: `ledger` or `archive`.
    from: String,
    since: Option<String>,
    until: Option<String>,
    /// `running`, or `done`: everything is on its way, though not yet delivered. Of one that was only counted: whether that
    /// was all.
    state: String,
    /// Webhooks that were asked for.
    found: i64,
    /// Of these, on their way to the sink.
    queued: i64,
    /// Of these, left out: something was taken out of them, or only their end was heard.
    left_out: i64,
    created_at: Option<String>,
    created_by: String,
    ended_at: Option<String>,
}

/// What may be sent twice and is done once.
pub(super) fn starting_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start))
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch))
}

/// Delivers webhooks of the ledger, or of the archive, once more, to one sink, beside whatever comes meanwhile.
#[utoipa::path(
    post,
    path = "/v1/replays",
    tag = "replays",
    params(Repeatable),
    operation_id = "start_replay",
    request_body = WantedReplay,
    responses(
        (status = 200, description = "What it would be", body = ReplayShown),
        (status = 202, description = "It has begun", body = ReplayShown, headers(("idempotent-replayed" = String, description = "`true` if it was answered before, and nothing was done now"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn start(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let wanted: WantedReplay = object(body)?;
    let dry_run = wanted.dry_run;
    let asked = wanted.read()?;
    let has_account = asked.account_sid.is_some() || caller.account_sid.is_some();
    let is_clear = match &asked.message_sid {
        Some(_) => has_account,
        None => asked.since_ms.is_some() || asked.until_ms.is_some(),
    };
    if !is_clear {
        return Err(Problem::of(kinds::UNCLEAR_CHOICE));
    }
    let replay = replays::read(&caller, asked, now_ms());
    let replay = replay.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    if app.claims.sinks.get(&replay.sink).is_none() {
        let detail = "sink: none of the sinks file of this sidecar has that name";
        return Err(Problem::with(kinds::IMPOSSIBLE, detail));
    }
    let shelves = &app.shelves;
    if replay.is_of_archive() && shelves.archive.is_none() {
        let detail = "from: this sidecar has no archive; set archive.url";
        return Err(Problem::with(kinds::IMPOSSIBLE, detail));
    }
    if dry_run {
        let counted = shelves.count(replay, MOST).await;
        let counted = counted.map_err(|stopped| match stopped {
            Stopped::Store(reason) => Problem::unavailable(&reason),
            Stopped::Archive(reason) => Problem::with(kinds::ARCHIVE_AWAY, reason),
        })?;
        return Ok(json(&ReplayShown { id: None, ..ReplayShown::of(counted) }));
    }
    let begun = replays::begin(&shelves.outbox, &caller, &replay).await;
    begun.map_err(|reason| Problem::unavailable(&reason))?;
    let mut response = json(&ReplayShown::of(replay));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// One replay, and how far it is.
#[utoipa::path(
    get,
    path = "/v1/replays/{id}",
    tag = "replays",
    params(("id" = String, Path, description = "Its id")),
    operation_id = "fetch_replay",
    responses((status = 200, description = "The replay", body = ReplayShown), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let nowhere = || Problem::of(kinds::NO_SUCH_REPLAY);
    let Path(id) = id.map_err(|_| nowhere())?;
    // The databases reject a NUL character in text.
    if id.contains('\0') {
        return Err(nowhere());
    }
    let found = app.claims.stores.outbox().replay(&id, caller.account_sid.as_deref()).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&ReplayShown::of(found.ok_or_else(nowhere)?)))
}

impl WantedReplay {
    fn read(self) -> Result<Asked, Problem> {
        let time = |name: &str, text: Option<String>| {
            let read = |text: String| {
                instant(&text).map_err(|problem| Problem::unreadable(&format!("{name}: {problem}")))
            };
            text.map(read).transpose()
        };
        let class = |class: Class| match class {
            Class::Inbound => twilio_edge_contract::Class::Inbound,
            Class::Status => twilio_edge_contract::Class::Status,
        };
        Ok(Asked {
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

impl ReplayShown {
    fn of(replay: Replay) -> ReplayShown {
        ReplayShown {
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
