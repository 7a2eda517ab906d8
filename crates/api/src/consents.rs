//! `/v1/consents`: consents of contacts, with their evidence. Applications add single consents, administrators add lists.
//! Consents are never changed or deleted here.

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
    idempotency::{IdempotencyKeyHeader, as_of_ms},
    page::PageRequest,
    problem::Problem,
    query,
};
use crate::views::ConsentView;
use crate::{
    app::App,
    body::{json, object, whole},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    consent::{self, Consent},
    cursor::Cursor,
    period,
    policy::Category,
};
use twilio_edge_services::access::{
    api_keys::Caller,
    contact_records::ConsentRecords,
    permissions::{Checks, Permissions},
};
use twilio_edge_store::{ConsentsPage, IdempotencyClaim};

/// Filter of the consents of an account.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConsentsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Channel of the consents, such as `whatsapp`.
    #[param(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Category of the consents.
    category: Option<Category>,
    /// True: return the whole history. False, the default: return only the consents in effect.
    history: Option<bool>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// Account and channel of one number.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChannelQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Channel of the consents, such as `whatsapp`.
    #[param(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
}

/// A page of consents, ordered by number.
#[derive(Serialize, ToSchema)]
struct ConsentList {
    consents: Vec<ConsentView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// Consent of a contact, with its evidence.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecordConsentRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Number of the contact: `+15551234567`, `whatsapp:+15551234567`, or a common spelling of it.
    #[schema(min_length = 1, max_length = 255)]
    number: String,
    /// Channel of the number, such as `sms` or `whatsapp`, if the number has no channel prefix.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    category: Category,
    /// State of the consent. Defaults to `granted`.
    state: Option<consent::State>,
    /// Time at which the contact gave or withdrew the consent: RFC 3339, or a day in UTC. Defaults to now.
    at: Option<String>,
    /// Source of the evidence, such as a form, a call or a contract.
    #[schema(min_length = 1, max_length = 100)]
    source: String,
    /// Text that the contact was shown, and the reply.
    #[schema(max_length = 4000)]
    proof: Option<String>,
    /// IP address of the contact.
    ip: Option<String>,
    /// User agent of the contact.
    #[schema(max_length = 500)]
    user_agent: Option<String>,
}

/// A recorded consent.
#[derive(Serialize, ToSchema)]
struct RecordConsentResponse {
    consent: ConsentView,
    /// False if the same evidence was recorded before.
    new: bool,
}

/// Consents of a contact: those in effect, and the history.
#[derive(Serialize, ToSchema)]
struct ContactConsents {
    /// Consents in effect, one per channel and category.
    current: Vec<ConsentView>,
    /// All recorded consents, the latest first, at most 1000.
    history: Vec<ConsentView>,
}

/// Routes for applications, and for administrators who call that listener.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, record))
        .routes(routes!(export))
        .routes(routes!(fetch))
}

/// Route for administrators, with a body limit of its own.
pub(super) fn import_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Lists the consents of an account, ordered by number.
#[utoipa::path(
    get,
    path = "/v1/consents",
    tag = "consents",
    params(ConsentsQuery),
    operation_id = "list_consents",
    responses((status = 200, description = "A page of consents", body = ConsentList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ConsentsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let account_sid = query::account(&caller, query.account_sid)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Consent { .. });
    let page = PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let filter = ConsentsPage {
        account_sid: &account_sid,
        channel: addresses::one_channel(query.channel.as_deref())?,
        category: query.category,
        history: query.history.unwrap_or_default(),
        after: page.after.as_ref(),
        most: page.rows(),
    };
    let found = permissions.consents.list(&filter).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let view = |consent: Consent| ConsentView::of(&consent);
    let (consents, next_cursor) = page.page(found, Cursor::of_consent, view);
    Ok(json(&ConsentList { consents, next_cursor }))
}

/// Returns the consents of one number: those in effect, and the history.
#[utoipa::path(
    get,
    path = "/v1/consents/{number}",
    tag = "consents",
    params(("number" = String, Path, description = "Number of the contact, such as `+15551234567`, or its address on another channel, such as `messenger:108`"), ChannelQuery),
    operation_id = "fetch_consents",
    responses((status = 200, description = "The current consents of the contact and their history", body = ContactConsents), Problem),
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
    let keys = permissions.consents.contacts().keys(&account_sid, &number).await;
    let keys = keys.map_err(|reason| Problem::unavailable(&reason))?;
    let recorded = permissions.consents.of_numbers(&account_sid, &keys.certain_keys()).await;
    let mut recorded = recorded.map_err(|reason| Problem::unavailable(&reason))?;
    recorded.retain(|recorded| {
        channel.as_ref().is_none_or(|channel| recorded.address.channel == *channel)
    });
    let history = recorded.iter().map(ConsentView::of).collect();
    let current = consent::current_of_each(recorded);
    Ok(json(&ContactConsents { current: current.iter().map(ConsentView::of).collect(), history }))
}

/// Records that a contact gave or withdrew a consent. Sending the same evidence again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/consents",
    tag = "consents",
    params(IdempotencyKeyHeader),
    operation_id = "record_consent",
    request_body = RecordConsentRequest,
    responses((status = 200, description = "The recorded consent", body = RecordConsentResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))), Problem),
    security(("key" = [])),
)]
async fn record(
    State(permissions): State<Arc<Permissions>>,
    State(checks): State<Arc<Checks>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let new: RecordConsentRequest = object(body)?;
    let now_ms = as_of_ms(turn);
    let region = addresses::region(new.region)?;
    let wrong_time = |problem: String| addresses::invalid_field("at", &problem);
    let at_ms = new.at.as_deref().map(period::instant).transpose().map_err(wrong_time)?;
    let account_sid = query::account(&caller, new.account_sid)?;
    let (number, channel) = (&new.number, new.channel.as_deref());
    let address =
        addresses::recipient(&checks, &account_sid, "number", number, channel, region).await?;
    let consent = Consent {
        account_sid,
        address,
        category: new.category,
        state: new.state.unwrap_or(consent::State::Granted),
        at_ms: at_ms.unwrap_or(now_ms),
        source: new.source,
        proof: new.proof,
        ip: new.ip,
        user_agent: new.user_agent,
        recorded_at_ms: now_ms,
        recorded_by: caller.actor.clone(),
        stored_id: None,
    };
    consent.check(now_ms).map_err(|problem| Problem::with(RefusalCode::InvalidField, problem))?;
    let new = permissions.record(&caller, &consent.account_sid, &consent, now_ms).await;
    let new = new.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&RecordConsentResponse { consent: ConsentView::of(&consent), new }))
}

/// Imports consents from CSV. The columns `number`, `category` and `source` are required; `channel`, `state`, `at`,
/// `proof`, `ip` and `user_agent` are optional.
#[utoipa::path(
    post,
    path = "/v1/consents/import",
    tag = "consents",
    params(ImportQuery, IdempotencyKeyHeader),
    operation_id = "import_consents",
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "The result of the import", body = ImportResponse, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))), Problem),
    security(("key" = [])),
)]
async fn import(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let import = query::read(query)?;
    csv::import::<ConsentRecords>(&permissions, &caller, import, whole(body)?, as_of_ms(turn)).await
}

/// Exports the whole history of consents as CSV, ordered by number.
#[utoipa::path(
    get,
    path = "/v1/consents/export",
    tag = "consents",
    params(query::AccountQuery),
    operation_id = "export_consents",
    responses((status = 200, description = "All consents as CSV, one line for each entry of the history", body = String, content_type = "text/csv"), Problem),
    security(("key" = [])),
)]
async fn export(
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<query::AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    csv::export::<ConsentRecords>(permissions, account_sid).await
}
