//! `POST /edge/v1/refusals`: reports of filters. `GET /v1/refusals`: refused requests by their cause.
//! `GET /v1/refusals/requests` and `GET /v1/refusals/{id}`: single requests with their explanation.

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use twilio_edge_contract::{
    DecodeError, EXCHANGE_MEDIA_TYPE, MAX_REPORTED, PROTOCOL_VERSION, RefusalReport,
    RefusalReportReply,
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{page::PageRequest, problem::Problem, query};
use crate::{
    app::App,
    body::{json, read, whole},
    views::{ExplainedRequest, RefusalGroup, RefusedRequestSummary},
};
use twilio_edge_domain::{
    cursor::Cursor,
    refusal::RefusalCode,
    refused_request::{Cause, RefusalKind},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{access::api_keys::Caller, inbound::refused_requests::RefusedRequests};
use twilio_edge_store::{RefusedGroup, RefusedRequestsPage, StoredRefusedRequest};

/// Filter of the groups.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GroupsQuery {
    /// Account whose key signed the requests. If omitted, all groups that the key sees; a key that is bound to an account
    /// sees no requests of strangers.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Kind of the requests.
    #[param(inline)]
    kind: Option<RefusalKind>,
    /// Cause of the refusals.
    #[param(inline)]
    cause: Option<Cause>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// Filter of the requests.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RequestsQuery {
    /// Account whose key signed the requests. If omitted, all requests that the key sees.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Id of the group, as `GET /v1/refusals` lists it.
    #[param(pattern = "^rg_[0-9a-f]{32}$")]
    group_id: Option<String>,
    /// Kind of the requests.
    #[param(inline)]
    kind: Option<RefusalKind>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of groups, the one with the latest request first.
#[derive(Serialize, ToSchema)]
struct RefusalGroupList {
    refusals: Vec<RefusalGroup>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// A page of refused requests, the latest first.
#[derive(Serialize, ToSchema)]
struct RefusedRequestList {
    requests: Vec<RefusedRequestSummary>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Route for filters.
pub(super) fn edge_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(report))
}

/// Routes for applications and administrators.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(requests)).routes(routes!(fetch))
}

/// Receives a sample of the requests that a filter refused. The sidecar finds out the causes afterwards.
///
/// Filters send the compact form `application/vnd.twilio-edge.exchange` (`contract/src/binary.rs`); the answer is JSON.
#[utoipa::path(
    post,
    path = "/edge/v1/refusals",
    tag = "edge",
    operation_id = "report_refusals",
    request_body = RefusalReport,
    responses((status = 200, description = "The number of requests that the sidecar examines", body = RefusalReportReply), Problem),
    security(("key" = [])),
)]
async fn report(
    State(refused): State<RefusedRequests>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let report = match kind.is_some_and(|kind| kind == EXCHANGE_MEDIA_TYPE) {
        true => decode(&whole(body)?)?,
        false => read(body, |report: &RefusalReport| report.v)?,
    };
    let count = report.requests.len();
    if count > MAX_REPORTED {
        let detail =
            format!("The report has {count} requests; split it to {MAX_REPORTED} at most.");
        return Err(Problem::with(RefusalCode::BatchTooLarge, detail));
    }
    if let Some(problem) = report.excess() {
        return Err(Problem::malformed(&problem));
    }
    let accepted = refused.report(report, caller.account_sid.as_deref(), now_ms());
    Ok(json(&RefusalReportReply { v: PROTOCOL_VERSION, accepted }))
}

fn decode(body: &[u8]) -> Result<RefusalReport, Problem> {
    RefusalReport::decode(body).map_err(|error| match error {
        DecodeError::OtherVersion(version) => Problem::unknown_version(version.into()),
        DecodeError::NotAnExchange | DecodeError::Malformed { .. } => {
            Problem::malformed(&error.to_string())
        }
    })
}

/// Lists the causes for which filters refused requests, with the one change that would make the requests pass.
#[utoipa::path(
    get,
    path = "/v1/refusals",
    tag = "refusals",
    params(GroupsQuery),
    operation_id = "list_refusals",
    responses((status = 200, description = "A page of groups, the one with the latest request first", body = RefusalGroupList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(refused): State<RefusedRequests>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<GroupsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let GroupsQuery { account_sid, kind, cause, limit, cursor } = query::read(query)?;
    let account_sid = query::account_or_all(&caller, account_sid)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::RefusedGroup { .. });
    let page = PageRequest::by_cursor(limit, cursor, is_of_list)?;
    let filter = RefusedRequestsPage {
        account_sid: account_sid.as_deref(),
        kind,
        cause,
        group_id: None,
        after: page.after.as_ref(),
        most: page.rows(),
    };
    let found = refused.store().groups(&filter).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let cursor =
        |last: &RefusedGroup| Cursor::RefusedGroup { at_ms: last.last_at_ms, id: last.id.clone() };
    let (refusals, next_cursor) = page.page(found, cursor, RefusalGroup::of);
    Ok(json(&RefusalGroupList { refusals, next_cursor }))
}

/// Lists the latest refused requests; the sidecar stores 20 of each group.
#[utoipa::path(
    get,
    path = "/v1/refusals/requests",
    tag = "refusals",
    params(RequestsQuery),
    operation_id = "list_refused_requests",
    responses((status = 200, description = "A page of refused requests", body = RefusedRequestList), Problem),
    security(("key" = [])),
)]
async fn requests(
    State(refused): State<RefusedRequests>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let RequestsQuery { account_sid, group_id, kind, limit, cursor } = query::read(query)?;
    let account_sid = query::account_or_all(&caller, account_sid)?;
    if group_id.as_deref().is_some_and(|id| !is_id(id, "rg_")) {
        let problem = "group_id: must be rg_ and 32 lower-case hexadecimal digits";
        return Err(Problem::malformed(problem));
    }
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::RefusedRequest { .. });
    let page = PageRequest::by_cursor(limit, cursor, is_of_list)?;
    let filter = RefusedRequestsPage {
        account_sid: account_sid.as_deref(),
        kind,
        cause: None,
        group_id: group_id.as_deref(),
        after: page.after.as_ref(),
        most: page.rows(),
    };
    let found = refused.store().requests(&filter).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let cursor = |last: &StoredRefusedRequest| Cursor::RefusedRequest {
        at_ms: last.at_ms,
        id: last.id.clone(),
    };
    let (requests, next_cursor) = page.page(found, cursor, RefusedRequestSummary::of);
    Ok(json(&RefusedRequestList { requests, next_cursor }))
}

/// Returns one refused request with its complete explanation.
#[utoipa::path(
    get,
    path = "/v1/refusals/{id}",
    tag = "refusals",
    params(("id" = String, Path, description = "Id of the request, as `GET /v1/refusals/requests` lists it")),
    operation_id = "fetch_refused_request",
    responses((status = 200, description = "The request with its explanation", body = ExplainedRequest), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(refused): State<RefusedRequests>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchRefusedRequest);
    let Path(id) = id.map_err(|_| not_found())?;
    if !is_id(&id, "rr_") {
        return Err(not_found());
    }
    let found = refused.store().find(&id, caller.account_sid.as_deref()).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&ExplainedRequest::of(found.ok_or_else(not_found)?)))
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
