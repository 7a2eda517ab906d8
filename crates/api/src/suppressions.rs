//! `/v1/suppressions`: contacts that must not receive messages. Applications read and add suppressions; administrators
//! also end and import them, on their own listener.

use std::sync::Arc;

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
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    addresses,
    csv::{self, ImportQuery, ImportResponse},
    idempotency::IdempotencyKeyHeader,
    page::PageRequest,
    problem::Problem,
    query,
};
use crate::views::SuppressionView;
use crate::{
    app::App,
    body::{json, object, whole},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    api_key::Scope,
    cursor::Cursor,
    suppression::{NewSuppression, Source, Suppression, parse_expiry},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::{
    api_keys::Caller, contact_records::SuppressionRecords, permissions::Permissions,
};
use twilio_edge_store::SuppressionsPage;

/// Filter of the suppressions of an account.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SuppressionsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Number of the contact, in a common spelling. Write a `+` in a URL as `%2B`.
    #[param(min_length = 1, max_length = 255)]
    number: Option<String>,
    /// Channel of the suppressions; channels that share opt-outs with it match as well. `*` matches those for every
    /// channel.
    #[param(pattern = r"^([a-z_]{1,32}|\*)$")]
    channel: Option<String>,
    /// Source of the suppressions.
    source: Option<Source>,
    /// True: include suppressions that have ended. Defaults to false.
    ended: Option<bool>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of suppressions, ordered by number.
#[derive(Serialize, ToSchema)]
struct SuppressionList {
    suppressions: Vec<SuppressionView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Account and channel of one number.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChannelQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Channel of the suppressions. Suppressions for every channel always match.
    #[param(pattern = r"^([a-z_]{1,32}|\*)$")]
    channel: Option<String>,
}

/// Account and channel of the suppressions to end.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoveSuppressionsQuery {
    /// Account SID. It is required even if the key is bound to an account.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: String,
    /// Channel of the suppressions. Suppressions for every channel always match.
    #[param(pattern = r"^([a-z_]{1,32}|\*)$")]
    channel: Option<String>,
}

/// Contact to suppress.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSuppressionRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Number of the contact: `+15551234567`, `whatsapp:+15551234567`, or a common spelling of it.
    #[schema(min_length = 1, max_length = 255)]
    number: String,
    /// Channel of the number, if the number has no channel prefix; `*` means every channel.
    #[schema(pattern = r"^([a-z_]{1,32}|\*)$")]
    channel: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Time at which the suppression ends by itself: RFC 3339, in the future. Without it, the suppression lasts until it is
    /// removed. A suppression that is in effect already is prolonged, never shortened.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Routes for applications, and for administrators who call that listener.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(export)).routes(routes!(fetch))
}

/// Route for administrators.
pub(super) fn admin_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(remove))
}

/// Route for administrators, with a body limit of its own.
pub(super) fn import_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Lists the suppressions of an account, ordered by number.
#[utoipa::path(
    get,
    path = "/v1/suppressions",
    tag = "suppressions",
    params(SuppressionsQuery),
    operation_id = "list_suppressions",
    responses((status = 200, description = "A page of suppressions", body = SuppressionList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<SuppressionsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let account_sid = query::account(&caller, query.account_sid)?;
    let ended = query.ended.unwrap_or_default();
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Suppression { .. });
    let page = PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let channel = addresses::any_channel(query.channel.as_deref())?;
    let now_ms = now_ms();
    if let Some(number) = query.number {
        let number =
            addresses::contact(&permissions, &account_sid, &number, None, None).await?.number;
        let mut found = of_number(&permissions, &account_sid, &number, channel).await?;
        found.retain(|known| {
            (ended || known.is_in_force(now_ms))
                && query.source.is_none_or(|source| source == known.source)
        });
        return Ok(whole_list(&found, now_ms));
    }
    let policy = permissions.policies.of(&account_sid);
    let filter = SuppressionsPage {
        account_sid: &account_sid,
        source: query.source,
        channels: channel.map(|channel| policy.channels_with(channel).collect()),
        ended,
        now_ms,
        after: page.after.as_ref(),
        most: page.rows(),
    };
    let found = permissions.suppressions.list(&filter).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let view = |known: Suppression| SuppressionView::of(&known, now_ms);
    let (suppressions, next_cursor) = page.page(found, Cursor::of_suppression, view);
    Ok(json(&SuppressionList { suppressions, next_cursor }))
}

/// Returns the suppressions of one number, with those that have ended.
#[utoipa::path(
    get,
    path = "/v1/suppressions/{number}",
    tag = "suppressions",
    params(("number" = String, Path, description = "Number of the contact, such as `+15551234567`, or its address on another channel, such as `messenger:108`"), ChannelQuery),
    operation_id = "fetch_suppressions",
    responses((status = 200, description = "All suppressions of the number, with those that have ended", body = SuppressionList), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    number: Result<Path<String>, PathRejection>,
    query: Result<Query<ChannelQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let target = query::read(query)?;
    let account_sid = query::account(&caller, target.account_sid)?;
    let (number, channel) =
        addresses::in_path(&permissions, &account_sid, number, target.channel).await?;
    let found = of_number(&permissions, &account_sid, &number, channel.as_deref()).await?;
    Ok(whole_list(&found, now_ms()))
}

/// Suppresses a contact from now on, for ever or until `expires_at`. Sending the request again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/suppressions",
    tag = "suppressions",
    params(IdempotencyKeyHeader),
    operation_id = "add_suppression",
    request_body = CreateSuppressionRequest,
    responses((status = 200, description = "All suppressions of the number, with those that have ended", body = SuppressionList, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))), Problem),
    security(("key" = [])),
)]
async fn add(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let new: CreateSuppressionRequest = object(body)?;
    let account_sid = query::account(&caller, new.account_sid)?;
    let region = addresses::region(new.region)?;
    let channel = new.channel.as_deref();
    let contact =
        addresses::contact(&permissions, &account_sid, &new.number, channel, region).await?;
    let now_ms = now_ms();
    let expires_at = new.expires_at.as_deref();
    let expires_at_ms = expires_at.map(|text| parse_expiry(text, now_ms)).transpose();
    let expires_at_ms = expires_at_ms.map_err(|problem| {
        Problem::with(RefusalCode::InvalidField, format!("expires_at: {problem}"))
    })?;
    let source = match caller.scope {
        Scope::Admin => Source::Administrator,
        _ => Source::Application,
    };
    let new = NewSuppression { address: contact, expires_at_ms };
    let contacts = std::slice::from_ref(&new);
    let added = permissions.suppress(&caller, &account_sid, contacts, source, now_ms).await;
    added.map_err(|reason| Problem::unavailable(&reason))?;
    let found = of_number(&permissions, &account_sid, &new.address.number, None).await?;
    Ok(whole_list(&found, now_ms))
}

/// Ends all suppressions of a number, on one channel or on all. The answer lists the suppressions that ended.
#[utoipa::path(
    delete,
    path = "/v1/suppressions/{number}",
    tag = "suppressions",
    params(("number" = String, Path, description = "Number of the contact, such as `+15551234567`, or its address on another channel, such as `messenger:108`"), RemoveSuppressionsQuery),
    operation_id = "remove_suppressions",
    responses((status = 200, description = "The suppressions that this request ended", body = SuppressionList), Problem),
    security(("key" = [])),
)]
async fn remove(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    number: Result<Path<String>, PathRejection>,
    query: Result<Query<RemoveSuppressionsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let target = query::read(query)?;
    let account_sid = query::account(&caller, Some(target.account_sid))?;
    let (number, channel) =
        addresses::in_path(&permissions, &account_sid, number, target.channel).await?;
    let now_ms = now_ms();
    let ended =
        permissions.unsuppress(&caller, &account_sid, &number, channel.as_deref(), now_ms).await;
    let ended = ended.map_err(|reason| Problem::unavailable(&reason))?;
    if ended.is_empty() {
        return Err(Problem::of(RefusalCode::NotSuppressed));
    }
    Ok(whole_list(&ended, now_ms))
}

/// Imports suppressions from CSV. The column `number` is required; the column `channel` is required for numbers without a
/// channel prefix. The column `expires_at` is optional: the time at which the suppression ends by itself.
#[utoipa::path(
    post,
    path = "/v1/suppressions/import",
    tag = "suppressions",
    params(ImportQuery, IdempotencyKeyHeader),
    operation_id = "import_suppressions",
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "The result of the import", body = ImportResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))), Problem),
    security(("key" = [])),
)]
async fn import(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let import = query::read(query)?;
    csv::import::<SuppressionRecords>(&permissions, &caller, import, whole(body)?, now_ms()).await
}

/// Exports all suppressions in effect as CSV, ordered by number.
#[utoipa::path(
    get,
    path = "/v1/suppressions/export",
    tag = "suppressions",
    params(query::AccountQuery),
    operation_id = "export_suppressions",
    responses((status = 200, description = "All suppressions in effect as CSV, one line for each", body = String, content_type = "text/csv"), Problem),
    security(("key" = [])),
)]
async fn export(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<query::AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    csv::export::<SuppressionRecords>(permissions, account_sid).await
}

/// Renders a list that needs no second page.
fn whole_list(found: &[Suppression], now_ms: i64) -> Response {
    let suppressions = found.iter().map(|known| SuppressionView::of(known, now_ms)).collect();
    json(&SuppressionList { suppressions, next_cursor: None })
}

async fn of_number(
    permissions: &Permissions,
    account_sid: &str,
    number: &str,
    channel: Option<&str>,
) -> Result<Vec<Suppression>, Problem> {
    let keys = permissions.consents.contacts().keys(account_sid, number).await;
    let keys = keys.map_err(|reason| Problem::unavailable(&reason))?;
    let found = permissions.suppressions.of_numbers(account_sid, &keys.all()).await;
    let mut found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let policy = permissions.policies.of(account_sid);
    found.retain(|known| {
        channel.is_none_or(|channel| known.holds_for(&known.address.number, channel, &policy))
    });
    Ok(found)
}
