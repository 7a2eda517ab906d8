//! `/v1/media`: uploads media for later messages, shows them with a link of limited lifetime, and deletes them. It also has
//! the media of inbound messages. The media library stores the bytes.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    idempotency::{IdempotencyKeyHeader, as_of_ms},
    problem::Problem,
    query::{self, AccountQuery},
};
use crate::{
    app::App,
    body::{json, whole},
    views::InboundMediaItem,
};
use twilio_edge_domain::{
    media::{limits::content_type, link::is_inbound_id},
    refusal::RefusalCode,
    window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound,
    outbound::media::library::{Library, LibraryError, LinkTarget, Upload},
};
use twilio_edge_store::{IdempotencyClaim, InboundMedium, Medium, message_history::MessageHistory};

/// A stored medium.
#[derive(Serialize, ToSchema)]
struct MediaItem {
    /// Id by which a message refers to the medium: `"media": [{"id": ".."}]`.
    id: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// Content type, such as `image/png`.
    content_type: String,
    /// Size in bytes.
    bytes: i64,
    /// SHA-256 of the bytes, in hexadecimal digits.
    digest: String,
    /// Time of the upload, in RFC 3339.
    created_at: Option<String>,
    /// Time at which the medium is deleted, in RFC 3339; later if a message with it still waits then.
    expires_at: Option<String>,
    /// Public link to the bytes. Each message gets a link of its own.
    url: String,
    /// Time until which `url` is valid, in RFC 3339.
    url_expires_at: Option<String>,
}

/// Media of an inbound message that the sidecar fetches from Twilio, in order.
#[derive(Serialize, ToSchema)]
struct InboundMediaList {
    media: Vec<InboundMediaItem>,
}

/// Options of a deletion.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// `true` also deletes the medium at Twilio, in the background. Only for media of inbound messages.
    #[serde(default)]
    at_twilio: bool,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch, remove)).routes(routes!(of_message))
}

/// Route of the upload, which has a body limit of its own.
pub(super) fn upload_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(add))
}

/// Limits concurrent uploads: each waits for a free slot before its body is read.
pub(super) async fn limit_uploads(
    State(library): State<Option<Library>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(library) = library else {
        return Problem::of(RefusalCode::NoMediaStore).into_response();
    };
    let _permit = library.upload_permit().await;
    next.run(request).await
}

/// Stores a medium for later messages. The body has its bytes, and the Content-Type header has its type.
#[utoipa::path(
    post,
    path = "/v1/media",
    tag = "media",
    params(AccountQuery, IdempotencyKeyHeader),
    operation_id = "add_media",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Bytes of the media item, in a Content-Type that a channel accepts"),
    responses(
        (status = 201, description = "The media item is stored", body = MediaItem, headers(("location" = String, description = "Path of the media item"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn add(
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    query: Result<Query<AccountQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let library = configured(library.as_ref())?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(content_type);
    let kind = kind.ok_or_else(|| {
        Problem::malformed("Content-Type: must be the type of the body, such as image/png")
    })?;
    let bytes = whole(body)?;
    if bytes.is_empty() {
        return Err(Problem::malformed("the body is empty"));
    }
    let upload = Upload {
        account_sid,
        by: caller.actor.clone(),
        content_type: kind,
        bytes,
        is_repeatable: turn.is_some(),
        at_ms: as_of_ms(turn),
    };
    let medium = library.add(upload).await.map_err(refusal)?;
    let path = format!("/v1/media/{}", medium.id);
    let mut response = render(library, medium).await?;
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(path) = HeaderValue::try_from(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    Ok(response)
}

/// Returns a stored medium with a new link.
#[utoipa::path(
    get,
    path = "/v1/media/{id}",
    tag = "media",
    params(("id" = String, Path, description = "Id of the media item"), AccountQuery),
    operation_id = "fetch_media",
    responses((status = 200, description = "The description of the media item", body = MediaItem), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let library = configured(library.as_ref())?;
    let found = library.fetch(&id, &account_sid).await;
    match found.map_err(|reason| Problem::unavailable(&reason))? {
        Some(medium) => render(library, medium).await,
        None if is_inbound_id(&id) => Err(absent(library, &id, &account_sid).await),
        None => Err(Problem::of(RefusalCode::NoSuchMedia)),
    }
}

/// Returns why a medium of an inbound message has no bytes.
async fn absent(library: &Library, id: &str, account_sid: &str) -> Problem {
    match library.inbound().find(id, Some(account_sid)).await {
        Err(reason) => Problem::unavailable(&reason),
        Ok(None) => Problem::of(RefusalCode::NoSuchMedia),
        Ok(Some(medium)) => match LinkTarget::without_bytes(&medium) {
            LinkTarget::Pending => Problem::media_pending(),
            LinkTarget::Refused(failure) => Problem::media_refused(failure),
            _ => Problem::of(RefusalCode::MediaGone),
        },
    }
}

/// Lists the media of an inbound message that the sidecar fetches from Twilio, with their states and links. The list is
/// empty for a message without such media.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}/media",
    tag = "media",
    params(("id" = String, Path, description = "SID of the inbound message"), AccountQuery),
    operation_id = "list_message_media",
    responses((status = 200, description = "The media of the message", body = InboundMediaList), Problem),
    security(("key" = [])),
)]
async fn of_message(
    State(library): State<Option<Library>>,
    State(histories): State<MessageHistory>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let library = configured(library.as_ref())?;
    let unavailable = |reason| Problem::unavailable(&reason);
    let found = library.inbound().of_message(&account_sid, &id).await.map_err(unavailable)?;
    if found.is_empty() {
        let message = histories.message(&account_sid, &id).await.map_err(unavailable)?;
        message.ok_or_else(|| Problem::of(RefusalCode::NoSuchMessage))?;
    }
    let (links, now_ms) = (library.links().map(AsRef::as_ref), now_ms());
    let item = |medium: &InboundMedium| InboundMediaItem::of(medium, links, now_ms);
    Ok(json(&InboundMediaList { media: found.iter().map(item).collect() }))
}

/// Deletes a medium: it is not served any more, and its bytes are deleted within `redaction.every_s`. Messages that wait
/// with it are refused when they are due. With `at_twilio`, the sidecar also deletes a medium of an inbound message at Twilio,
/// in the background, and repeats failed attempts.
#[utoipa::path(
    delete,
    path = "/v1/media/{id}",
    tag = "media",
    params(("id" = String, Path, description = "Id of the media item"), DeleteQuery),
    operation_id = "delete_media",
    responses((status = 204, description = "The media item is deleted"), Problem),
    security(("key" = [])),
)]
async fn remove(
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let DeleteQuery { account_sid, at_twilio } = query::read(query)?;
    let account_sid = query::account(&caller, account_sid)?;
    let library = configured(library.as_ref())?;
    let dropped = match is_inbound_id(&id) {
        true => {
            let (media, now_ms) = (library.inbound(), now_ms());
            inbound::media::remove(media, &caller, &account_sid, &id, at_twilio, now_ms).await
        }
        false if at_twilio => {
            return Err(Problem::malformed(
                "at_twilio: only media of inbound messages are at Twilio",
            ));
        }
        false => library.drop(&id, &account_sid).await,
    };
    match dropped.map_err(|reason| Problem::unavailable(&reason))? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Problem::of(RefusalCode::NoSuchMedia)),
    }
}

fn configured(library: Option<&Library>) -> Result<&Library, Problem> {
    library.ok_or_else(|| Problem::of(RefusalCode::NoMediaStore))
}

async fn render(library: &Library, medium: Medium) -> Result<Response, Problem> {
    let link = library.link(&medium).await;
    let (url, until_ms) = link.map_err(|reason| refusal(LibraryError::Bucket(reason)))?;
    Ok(json(&MediaItem {
        id: medium.id,
        account_sid: medium.account_sid,
        content_type: medium.content_type,
        bytes: medium.bytes,
        digest: medium.digest,
        created_at: rfc3339(medium.created_at_ms),
        expires_at: rfc3339(medium.expires_at_ms),
        url,
        url_expires_at: rfc3339(until_ms),
    }))
}

fn refusal(failure: LibraryError) -> Problem {
    match failure {
        LibraryError::MediaProblem(unfit) => {
            Problem::with(RefusalCode::MediaRejected, format!("the body: {}", unfit.detail))
        }
        LibraryError::Store(reason) => Problem::unavailable(&reason),
        LibraryError::Bucket(reason) => {
            tracing::warn!(
                event = "media.bucket_failed",
                reason,
                "the bucket of media.store failed an operation"
            );
            Problem::with(
                RefusalCode::Unavailable,
                "The media store failed; the log has the reason. A retry of the request is safe.",
            )
        }
    }
}
