//! `/v1/keys`, for administrators: creates, lists and revokes API keys. `/v1/key`, for every key: describes the key
//! itself.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    idempotency::{IdempotencyKeyHeader, StoredReplay},
    page::PageRequest,
    problem::Problem,
    query::{self, Listing},
};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::{
    api_key::Scope,
    cursor::Cursor,
    idempotency::{Headers, StoredResponse},
    window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::api_keys::{AccessError, Caller, Keys};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, Key};

/// An API key. Times are in RFC 3339.
#[derive(Serialize, ToSchema)]
pub(super) struct ApiKey {
    /// Public part of the key.
    id: String,
    /// Display name.
    name: String,
    scope: Scope,
    /// The only account the key sees; `null` if it sees all accounts.
    account_sid: Option<String>,
    /// Time of creation.
    created_at: Option<String>,
    /// Actor that created the key.
    created_by: String,
    /// Time of the last use, to the minute; `null` if it was never used.
    last_used_at: Option<String>,
    /// Time of revocation; `null` if the key is valid.
    revoked_at: Option<String>,
}

impl ApiKey {
    pub(super) fn of(key: Key) -> ApiKey {
        ApiKey {
            id: key.id,
            name: key.name,
            scope: key.scope,
            account_sid: key.account_sid,
            created_at: rfc3339(key.created_at_ms),
            created_by: key.created_by,
            last_used_at: key.last_used_at_ms.and_then(rfc3339),
            revoked_at: key.revoked_at_ms.and_then(rfc3339),
        }
    }
}

/// Request to create an API key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateApiKeyRequest {
    /// Display name, at most 100 characters.
    #[schema(
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
    /// Scope of the new key, at most that of the key that creates it. Keys of scope `edge` are made on the command line,
    /// or with the edge token as long as no admin key exists.
    scope: Scope,
    /// The only account the new key sees: `AC` and 32 hexadecimal digits. Defaults to the account of the key that creates
    /// it.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
}

/// A new key with its token.
#[derive(Serialize, ToSchema)]
struct CreateApiKeyResponse {
    key: ApiKey,
    /// Bearer token of the key. It is shown once: `null` in the answer to a copy of the request.
    token: Option<String>,
}

/// A page of API keys, the newest first.
#[derive(Serialize, ToSchema)]
struct ApiKeyList {
    keys: Vec<ApiKey>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Routes for administrators.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(fetch, revoke))
}

/// Route for every key.
pub(super) fn own_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(own))
}

/// Creates an API key. The answer is the only one that contains the token; if the token is lost, revoke the key and
/// create another.
#[utoipa::path(
    post,
    path = "/v1/keys",
    tag = "keys",
    params(IdempotencyKeyHeader),
    operation_id = "create_key",
    request_body = CreateApiKeyRequest,
    responses(
        (status = 201, description = "The API key", body = CreateApiKeyResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn create(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let CreateApiKeyRequest { name, scope, account_sid } = object(body)?;
    let is_kept = turn.is_some();
    let once = |key: &Key| {
        turn.map(|Extension(turn)| CompletedRequest { turn, answer: answer_without_token(key) })
    };
    let created = keys.create(&caller, scope, account_sid, &name, now_ms(), once).await;
    let (key, token) = created.map_err(refused)?;
    let location = HeaderValue::try_from(path(&key));
    let mut response = json(&CreateApiKeyResponse { key: ApiKey::of(key), token: Some(token) });
    *response.status_mut() = StatusCode::CREATED;
    if is_kept {
        response.extensions_mut().insert(StoredReplay);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = location {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Returns the answer for copies of the request: it lacks the token, which is not stored.
fn answer_without_token(key: &Key) -> StoredResponse {
    let created = CreateApiKeyResponse { key: ApiKey::of(key.clone()), token: None };
    StoredResponse {
        status: StatusCode::CREATED.as_u16(),
        headers: Headers {
            content_type: Some("application/json".to_owned()),
            location: Some(path(key)),
        },
        body: serde_json::to_string(&created).unwrap_or_default(),
    }
}

fn path(key: &Key) -> String {
    format!("/v1/keys/{}", key.id)
}

/// Lists API keys, the newest first, with the revoked ones.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    params(Listing),
    operation_id = "list_keys",
    responses(
        (status = 200, description = "A page of API keys", body = ApiKeyList),
        Problem,
    ),
    security(("key" = [])),
)]
async fn list(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let Listing { account_sid, limit, cursor } = query::read(query)?;
    let account_sid = query::one_account(account_sid)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Key { created_ms, id } => Some((created_ms, id)),
        _ => None,
    })?;
    let before = page.after.as_ref().map(|(created_ms, id)| (*created_ms, id.as_str()));
    let found = keys.list(&caller, account_sid.as_deref(), before, page.rows()).await;
    let cursor = |key: &Key| Cursor::Key { created_ms: key.created_at_ms, id: key.id.clone() };
    let (keys, next_cursor) = page.page(found.map_err(refused)?, cursor, ApiKey::of);
    Ok(json(&ApiKeyList { keys, next_cursor }))
}

/// Returns one API key.
#[utoipa::path(
    get,
    path = "/v1/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, description = "Id of the API key: its public part")),
    operation_id = "fetch_key",
    responses(
        (status = 200, description = "The API key", body = ApiKey),
        Problem,
    ),
    security(("key" = [])),
)]
async fn fetch(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let key = keys.get(&caller, &id).await.map_err(refused)?;
    Ok(json(&ApiKey::of(key)))
}

/// Revokes an API key permanently. Revoking it again changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, description = "Id of the API key: its public part")),
    operation_id = "revoke_key",
    responses(
        (status = 200, description = "The revoked API key", body = ApiKey),
        Problem,
    ),
    security(("key" = [])),
)]
async fn revoke(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let key = keys.revoke(&caller, &id, now_ms()).await.map_err(refused)?;
    Ok(json(&ApiKey::of(key)))
}

/// Returns the API key that the request was sent with.
#[utoipa::path(
    get,
    path = "/v1/key",
    tag = "keys",
    operation_id = "get_own_key",
    responses(
        (status = 200, description = "The API key", body = ApiKey),
        Problem,
    ),
    security(("key" = [])),
)]
async fn own(Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let key = caller.key.ok_or_else(|| Problem::refused(AccessError::NoSuchKey, Scope::App))?;
    Ok(json(&ApiKey::of(key)))
}

fn refused(refusal: AccessError) -> Problem {
    Problem::refused(refusal, Scope::Admin)
}
