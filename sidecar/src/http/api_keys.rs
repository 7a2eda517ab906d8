//! `/v1/keys`, for administrators: make, list and revoke API keys. `/v1/key`, for everybody: which key this is.

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{App, json, now_ms, paging::Listing, problem::Problem, whole};
use crate::{
    domain::{api_key::Scope, window::rfc3339},
    keys::{Caller, Refusal},
    store::Key,
};

/// An API key. Times are RFC 3339.
#[derive(Serialize)]
struct ApiKey {
    id: String,
    name: String,
    scope: Scope,
    account_sid: Option<String>,
    created_at: Option<String>,
    created_by: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

impl ApiKey {
    fn of(key: Key) -> ApiKey {
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

/// A key to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedKey {
    name: String,
    scope: Scope,
    account_sid: Option<String>,
}

/// A new key, with what its owner has to send: shown this once.
#[derive(Serialize)]
struct CreatedKey {
    key: ApiKey,
    token: String,
}

/// A page of keys, the newest first.
#[derive(Serialize)]
struct KeyList {
    keys: Vec<ApiKey>,
    next_cursor: Option<String>,
}

/// For administrators.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/keys", get(list).post(create))
        .route("/v1/keys/{id}", get(fetch).delete(revoke))
}

/// For everybody who has a key.
pub(super) fn own_router() -> Router<App> {
    Router::new().route("/v1/key", get(own))
}

async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let wanted: WantedKey = serde_json::from_slice(&whole(body)?)
        .map_err(|error| Problem::unreadable(&error.to_string()))?;
    let WantedKey { name, scope, account_sid } = wanted;
    let created = app.keys.create(&caller, scope, account_sid, &name, now_ms()).await;
    let (key, token) = created.map_err(refused)?;
    let place = HeaderValue::try_from(format!("/v1/keys/{}", key.id));
    let mut response = json(&CreatedKey { key: ApiKey::of(key), token });
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(place) = place {
        headers.insert(header::LOCATION, place);
    }
    Ok(response)
}

async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let listing = Listing::read(query)?;
    let before = listing.cursor(|cursor| {
        let (ms, id) = cursor.split_once('-')?;
        Some((ms.parse().ok()?, id.to_owned()))
    })?;
    let before = before.as_ref().map(|(ms, id)| (*ms, id.as_str()));
    let account_sid = listing.account_sid.as_deref();
    let found = app.keys.list(&caller, account_sid, before, listing.most()).await;
    let mut found = found.map_err(refused)?;
    let next_cursor = listing.cut(&mut found, |key| format!("{}-{}", key.created_at_ms, key.id));
    Ok(json(&KeyList { keys: found.into_iter().map(ApiKey::of).collect(), next_cursor }))
}

async fn fetch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let key = app.keys.get(&caller, &id).await.map_err(refused)?;
    Ok(json(&ApiKey::of(key)))
}

async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let key = app.keys.revoke(&caller, &id, now_ms()).await.map_err(refused)?;
    Ok(json(&ApiKey::of(key)))
}

async fn own(Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let key = caller.key.ok_or_else(|| Problem::refused(Refusal::NoSuchKey, Scope::App))?;
    Ok(json(&ApiKey::of(key)))
}

fn refused(refusal: Refusal) -> Problem {
    Problem::refused(refusal, Scope::Admin)
}
