//! `/v1/tenants`, for administrators: profiles of accounts, which differ from the general settings. A change needs the
//! `ETag` of the current profile as its `If-Match`.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    page::PageRequest,
    problem::Problem,
    query::{self, Listing},
};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    api_key::Scope,
    cursor::Cursor,
    tenant::{Profile, ProfileError, Tenant},
    window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::{
    api_keys::Caller,
    tenants::{TenantError, Tenants},
};

/// Profile of an account. Times are in RFC 3339.
#[derive(Serialize, ToSchema)]
pub struct TenantView {
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// SID of the parent account, for a subaccount.
    parent_sid: Option<String>,
    /// Display name.
    friendly_name: String,
    /// Own numbers and senders of the account.
    senders: Vec<String>,
    /// SIDs of the account's Messaging Services.
    services: Vec<String>,
    /// Settings that replace those of `[policy]` in the configuration.
    policy: Value,
    /// Settings that replace those of `[retention]` in the configuration.
    retention: Value,
    /// Revision of the profile, increased by each change; also its `ETag`.
    revision: i64,
    /// Time of creation.
    created_at: Option<String>,
    /// Time of the last change.
    updated_at: Option<String>,
    /// Time since which the account is closed, so that its applications get no answers.
    closed_at: Option<String>,
}

impl TenantView {
    /// Renders a profile.
    pub fn of(tenant: Tenant) -> TenantView {
        let Profile { parent_sid, friendly_name, senders, services, policy, retention } =
            tenant.profile;
        TenantView {
            account_sid: tenant.account_sid,
            parent_sid,
            friendly_name,
            senders,
            services,
            policy,
            retention,
            revision: tenant.revision,
            created_at: rfc3339(tenant.created_at_ms),
            updated_at: rfc3339(tenant.updated_at_ms),
            closed_at: tenant.closed_at_ms.and_then(rfc3339),
        }
    }
}

/// New profile of an account. It replaces the current profile as a whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutTenantRequest {
    /// SID of the parent account, for a subaccount.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    parent_sid: Option<String>,
    /// Display name.
    #[serde(default)]
    #[schema(max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    friendly_name: String,
    /// Own numbers and senders of the account.
    #[serde(default)]
    #[schema(inline, max_items = 1000)]
    senders: Vec<Sender>,
    /// SIDs of the account's Messaging Services.
    #[serde(default)]
    #[schema(inline, max_items = 1000)]
    services: Vec<Service>,
    /// Settings that replace those of `[policy]` in the configuration.
    #[serde(default)]
    #[schema(value_type = Object)]
    policy: Map<String, Value>,
    /// Settings that replace those of `[retention]` in the configuration.
    #[serde(default)]
    #[schema(value_type = Object)]
    retention: Map<String, Value>,
}

/// Number or sender.
#[derive(Deserialize, ToSchema)]
#[schema(pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$")]
struct Sender(String);

/// SID of a Messaging Service.
#[derive(Deserialize, ToSchema)]
#[schema(pattern = "^MG[0-9a-f]{32}$")]
struct Service(String);

/// A page of profiles, ordered by account SID.
#[derive(Serialize, ToSchema)]
struct TenantList {
    tenants: Vec<TenantView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch, put, close))
}

/// Lists the accounts with a profile, with the closed ones.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    tag = "tenants",
    params(Listing),
    operation_id = "list_tenants",
    responses((status = 200, description = "A page of account profiles", body = TenantList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(tenants): State<Tenants>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let Listing { account_sid, limit, cursor } = query::read(query)?;
    let account_sid = query::one_account(account_sid)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Tenant { account_sid } => Some(account_sid),
        _ => None,
    })?;
    let after = page.after.as_deref().unwrap_or_default();
    let found = tenants.list(&caller, account_sid.as_deref(), after, page.rows()).await;
    let found = found.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    let cursor = |tenant: &Tenant| Cursor::Tenant { account_sid: tenant.account_sid.clone() };
    let (tenants, next_cursor) = page.page(found, cursor, TenantView::of);
    Ok(json(&TenantList { tenants, next_cursor }))
}

/// Returns the profile of an account.
#[utoipa::path(
    get,
    path = "/v1/tenants/{account_sid}",
    tag = "tenants",
    params(("account_sid" = String, Path, pattern = "^AC[0-9a-f]{32}$", description = "Account SID")),
    operation_id = "fetch_tenant",
    responses(
        (status = 200, description = "The account profile", body = TenantView, headers(("etag" = String, description = "ETag of the profile; send it in If-Match to change the profile"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn fetch(
    State(tenants): State<Tenants>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let found = tenants.get(&caller, &account(path)?).await;
    Ok(render(found.map_err(refusal)?))
}

/// Replaces the profile of an account. It is in effect here at once, and in all other sidecars within about two seconds. A
/// closed account becomes open again.
#[utoipa::path(
    put,
    path = "/v1/tenants/{account_sid}",
    tag = "tenants",
    params(
        ("account_sid" = String, Path, pattern = "^AC[0-9a-f]{32}$", description = "Account SID"),
        ("if-match" = Option<String>, Header, description = "ETag of the current profile; omit it for an account without a profile"),
    ),
    operation_id = "put_tenant",
    request_body = PutTenantRequest,
    responses(
        (status = 200, description = "The account profile", body = TenantView, headers(("etag" = String, description = "ETag of the profile; send it in If-Match to change the profile"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn put(
    State(tenants): State<Tenants>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = account(path)?;
    let request: PutTenantRequest = object(body)?;
    let profile = Profile {
        parent_sid: request.parent_sid,
        friendly_name: request.friendly_name,
        senders: request.senders.into_iter().map(|Sender(sender)| sender).collect(),
        services: request.services.into_iter().map(|Service(service)| service).collect(),
        policy: Value::Object(request.policy),
        retention: Value::Object(request.retention),
    };
    let revision = if_match(&headers)?;
    let saved = tenants.put(&caller, &account_sid, profile, revision, now_ms()).await;
    Ok(render(saved.map_err(refusal)?))
}

/// Closes an account: keys of scope app that are bound to it get no answers any more. Its webhooks are still verified,
/// claimed and recorded, and a STOP still takes effect.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{account_sid}",
    tag = "tenants",
    params(
        ("account_sid" = String, Path, pattern = "^AC[0-9a-f]{32}$", description = "Account SID"),
        ("if-match" = Option<String>, Header, description = "ETag of the current profile"),
    ),
    operation_id = "close_tenant",
    responses(
        (status = 200, description = "The profile of the closed account", body = TenantView, headers(("etag" = String, description = "ETag of the profile; send it in If-Match to change the profile"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn close(
    State(tenants): State<Tenants>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let account_sid = account(path)?;
    let closed = tenants.close(&caller, &account_sid, if_match(&headers)?, now_ms()).await;
    Ok(render(closed.map_err(refusal)?))
}

fn account(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let sid = path.map_or_else(|_| String::new(), |Path(sid)| sid);
    query::one_account(Some(sid)).map(Option::unwrap_or_default)
}

/// Returns the revision in `If-Match`, if there is one. A value that is not one of our ETags never matches.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let quoted = tag.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
    let revision = quoted.and_then(|tag| tag.parse().ok());
    revision.map(Some).ok_or_else(|| Problem::of(RefusalCode::EtagMismatch))
}

fn render(tenant: Tenant) -> Response {
    let tag = HeaderValue::try_from(format!("\"{}\"", tenant.revision));
    let mut response = json(&TenantView::of(tenant));
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn refusal(denied: TenantError) -> Problem {
    match denied {
        TenantError::Refused(refusal) => Problem::refused(refusal, Scope::Admin),
        TenantError::NotFound => Problem::of(RefusalCode::NoSuchTenant),
        TenantError::RevisionRequired(_) => Problem::of(RefusalCode::IfMatchRequired),
        TenantError::RevisionMismatch(_) => Problem::of(RefusalCode::EtagMismatch),
        TenantError::ProfileError(ProfileError::Syntax(problem)) => Problem::malformed(&problem),
        TenantError::ProfileError(ProfileError::Invalid(problem)) => {
            Problem::with(RefusalCode::InvalidField, problem)
        }
    }
}
