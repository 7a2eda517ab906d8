//! `GET /v1/stream`: the webhooks that any sidecar of the database records, as they are recorded, as Server-Sent Events
//! (html.spec.whatwg.org/multipage/server-sent-events.html). The rules are those of
//! [`twilio_edge_services::inbound::live_feed`].

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName},
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, Sse},
    },
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    access::{Access, bearer},
    problem::Problem,
    query,
};
use crate::{
    app::App,
    views::{Class, Event},
};
use twilio_edge_domain::{
    cursor::Cursor,
    live_stream::{GapReason, StreamEnd, StreamFilter, StreamPosition},
    message::NumberQuery,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::live_feed::{LiveFeed, LiveStream, OpenError, StreamCaller, StreamItem},
};
use twilio_edge_store::message_history::MessageHistory;

/// Header with the id of the last event that a client has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Header that keeps nginx from collecting events before it forwards them.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// Pause of a client before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// Longest time for which a stream relies on an earlier check of its API key.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Filter of a stream. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Account SID. Defaults to the account the key is bound to. A key that is bound to none gets the webhooks of all accounts
    /// without it.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Sender or recipient of the message: `+15551234567` matches every channel, `whatsapp:+15551234567` only one. With
    /// `account_sid`, or with a key of one account, also the other ids of the contact.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    number: Option<String>,
    /// SID of the message.
    sid: Option<String>,
    /// Class of the webhooks: `inbound` or `status`.
    #[param(inline)]
    class: Option<Class>,
    /// Status in the webhook, such as `delivered` or `failed`.
    status: Option<String>,
}

/// Id of the last event that the client has. The stream continues after it, without a gap and without a repetition.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header; `last_event` reads it")]
struct LastEventIdHeader {
    /// Value of the last `id:` line, at most a day old. Clients of Server-Sent Events send it by themselves.
    #[param(rename = "Last-Event-ID", pattern = "^[A-Za-z0-9_-]*$")]
    last_event_id: Option<String>,
}

/// Data of an event `gap`: webhooks before this stream are missing.
#[derive(Serialize)]
struct Gap {
    reason: GapReason,
    /// Explanation, and the way to get the missing webhooks.
    detail: &'static str,
}

/// Data of the last event of a stream, `end`.
#[derive(Serialize)]
struct End {
    reason: StreamEnd,
    /// Explanation, and the action of the client.
    detail: &'static str,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Streams the webhooks of an account as they are recorded, with all their parameters. Each event `webhook` has the JSON of
/// `GET /v1/events/{id}` as its data. The last event is `end`; an event `gap` comes first if webhooks since Last-Event-ID are missing.
#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "events",
    params(StreamQuery, LastEventIdHeader),
    operation_id = "stream_events",
    responses((status = 200, description = "Events, until the client or the sidecar ends the stream", body = String, content_type = "text/event-stream"), Problem),
    security(("key" = [])),
)]
async fn open(
    State(feed): State<LiveFeed>,
    State(histories): State<MessageHistory>,
    State(access): State<Arc<Access>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let asked = last_event(&headers)?;
    let account_sid = match (query::one_account(query.account_sid)?, &caller.account_sid) {
        (None, None) => None,
        (account_sid, _) => Some(query::account(&caller, account_sid)?),
    };
    let number = query::number("number", query.number)?;
    let number = with_contact(&histories, account_sid.as_deref(), number).await?;
    let filter = StreamFilter {
        account_sid,
        number,
        message_sid: query.sid,
        is_status: query.class.map(|class| class == Class::Status),
        status: query.status,
    };
    let of_caller = StreamCaller { actor: caller.actor.clone(), source: caller.source.clone() };
    let stream = feed.open(of_caller, filter, asked).await.map_err(Problem::of_stream)?;
    let token = bearer(&headers).unwrap_or_default().to_vec();
    let checked = Instant::now();
    let body = Body { stream, access, token, source: caller.source, checked, has_begun: false };
    Ok(([UNBUFFERED], Sse::new(stream::unfold(body, Body::next))).into_response())
}

/// Parses the Last-Event-ID of a request.
fn last_event(headers: &HeaderMap) -> Result<Option<(StreamPosition, i64)>, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match id.to_str().ok().map(str::parse) {
        // A client that has received no id sends an empty one.
        Some(_) if id.is_empty() => Ok(None),
        Some(Ok(Cursor::Stream { position, at_ms })) => Ok(Some((position, at_ms))),
        _ => Err(Problem::malformed("Last-Event-ID: must be the id of an event of this stream")),
    }
}

/// Adds the other ids of the contact to a number, if the account is known.
async fn with_contact(
    histories: &MessageHistory,
    account_sid: Option<&str>,
    number: Option<NumberQuery>,
) -> Result<Option<NumberQuery>, Problem> {
    let (Some(account_sid), Some(number)) = (account_sid, &number) else { return Ok(number) };
    let contact = histories.with_contact(account_sid, number).await;
    contact.map(Some).map_err(|reason| Problem::unavailable(&reason))
}

/// Body of the response: the events of a stream.
struct Body {
    stream: LiveStream,
    access: Arc<Access>,
    token: Vec<u8>,
    source: String,
    /// Time of the last check of the token.
    checked: Instant,
    has_begun: bool,
}

impl Body {
    async fn next(mut self) -> Option<(Result<SseEvent, Infallible>, Body)> {
        if !self.has_begun {
            self.has_begun = true;
            // The first block has the position, so that a client which loses the connection at once misses nothing.
            let first = at(self.stream.reached()).retry(RETRY);
            let first = match self.stream.gap() {
                None => first.comment("twilio-edge"),
                Some(reason) => data(first.event("gap"), &Gap { reason, detail: detail(reason) }),
            };
            return Some((Ok(first), self));
        }
        let item = self.stream.next().await?;
        let item = match item {
            StreamItem::End(_) => item,
            _ if self.is_admitted().await => item,
            _ => self.stream.end(StreamEnd::Unauthorized),
        };
        let event = match item {
            StreamItem::Webhook(next) => {
                data(at(&next.position).event("webhook"), &Event::of(&next.webhook))
            }
            StreamItem::Heartbeat(position) => at(&position).comment("heartbeat"),
            StreamItem::End(reason) => {
                data(SseEvent::default().event("end"), &End { reason, detail: reason.detail() })
            }
        };
        Some((Ok(event), self))
    }

    /// Returns whether the caller may still read, by a check that is at most a second old.
    async fn is_admitted(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_INTERVAL {
            return true;
        }
        self.checked = Instant::now();
        self.access.still_admits(&self.token, &self.source).await
    }
}

/// Creates an event with the id of a position.
fn at(position: &StreamPosition) -> SseEvent {
    let cursor = Cursor::Stream { position: position.clone(), at_ms: now_ms() };
    SseEvent::default().id(cursor.to_string())
}

fn data(event: SseEvent, data: &impl Serialize) -> SseEvent {
    event.data(serde_json::to_string(data).unwrap_or_default())
}

fn detail(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Expired => {
            "Last-Event-ID is more than a day old. The stream starts now; GET /v1/events has the webhooks before it."
        }
        GapReason::Unknown => {
            "Last-Event-ID is of another database. The stream starts now; GET /v1/events has the webhooks before it."
        }
    }
}

impl Problem {
    fn of_stream(error: OpenError) -> Problem {
        match error {
            OpenError::TooManyOfCaller(max) => Problem::too_many_streams(&format!(
                "The key has {max} open streams, as many as it may have (stream.max_per_key)."
            )),
            OpenError::TooMany(max) => Problem::too_many_streams(&format!(
                "The sidecar has {max} open streams, as many as it may have (stream.max)."
            )),
            OpenError::Stopping => Problem::stopping(),
            OpenError::Store(reason) => Problem::unavailable(&reason),
        }
    }
}
