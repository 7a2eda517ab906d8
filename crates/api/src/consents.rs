//! `/v1/consents`: what people agreed to be written about, with the evidence. It is added to, by applications and in lists by
//! administrators; nothing is changed or deleted here.

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
    csv::{self, Import, Imported},
    finding,
    idempotency::{Repeatable, as_of_ms},
    kinds, people,
    problem::Problem,
};
use crate::views::ConsentView;
use crate::{
    app::App,
    body::{json, object, whole},
};
use twilio_edge_domain::{
    consent::{self, Consent},
    csv_import as lists,
    csv_import::List,
    cursor::Cursor,
    period,
    policy::Category,
};
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::{ConsentsPage, Turn};

/// Which of an account's.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Only on this channel.
    #[param(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Only of this category.
    category: Option<Category>,
    /// Everything that was ever said, not only what counts of it.
    history: Option<bool>,
    /// How many, 50 if not said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// One number.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AccountQuery {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Only on this channel.
    #[param(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
}

/// A page of consents, in the order of numbers.
#[derive(Serialize, ToSchema)]
struct ConsentList {
    consents: Vec<ConsentView>,
    next_cursor: Option<String>,
}

/// What a person said, and the evidence of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConsent {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// `+15551234567`, `whatsapp:+15551234567`, or as people write it.
    #[schema(min_length = 1, max_length = 255)]
    number: String,
    /// Where the number does not say.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Of a number without a country code: two letters.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    category: Category,
    /// `granted` if not said.
    state: Option<consent::State>,
    /// When they said so: an instant of RFC 3339 or a day of UTC; now if not said.
    at: Option<String>,
    /// Where: a form, a call, a contract.
    #[schema(min_length = 1, max_length = 100)]
    source: String,
    /// What they were shown, and said.
    #[schema(max_length = 4000)]
    proof: Option<String>,
    ip: Option<String>,
    #[schema(max_length = 500)]
    user_agent: Option<String>,
}

/// What was recorded.
#[derive(Serialize, ToSchema)]
struct RecordedConsent {
    consent: ConsentView,
    /// False if the same evidence was known already.
    new: bool,
}

/// What a person said, and what counts of it.
#[derive(Serialize, ToSchema)]
struct ContactConsents {
    /// By channel and category.
    current: Vec<ConsentView>,
    /// Everything, the latest first: a thousand pieces at most.
    history: Vec<ConsentView>,
}

/// For applications, and for administrators who call there.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, record))
        .routes(routes!(export))
        .routes(routes!(fetch))
}

/// For administrators, with a limit of its own.
pub(super) fn import_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Consents, in the order of numbers.
#[utoipa::path(
    get,
    path = "/v1/consents",
    tag = "consents",
    params(Wanted),
    operation_id = "list_consents",
    responses((status = 200, description = "A page of them", body = ConsentList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = finding::query(query)?;
    let account_sid = finding::account(&caller, wanted.account_sid)?;
    let limit = finding::limit(wanted.limit)?;
    let after = finding::cursor(wanted.cursor, finding::is_consent)?;
    let asked = ConsentsPage {
        account_sid: &account_sid,
        channel: people::one_channel(wanted.channel.as_deref())?,
        category: wanted.category,
        history: wanted.history.unwrap_or_default(),
        after: after.as_ref(),
        most: finding::one_more(limit),
    };
    let found = app.permissions.consents.list(&asked).await;
    let mut found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let next_cursor = finding::cut(&mut found, limit, Cursor::of_consent);
    Ok(json(&ConsentList { consents: found.iter().map(ConsentView::of).collect(), next_cursor }))
}

/// What a number said, and what counts of it.
#[utoipa::path(
    get,
    path = "/v1/consents/{number}",
    tag = "consents",
    params(("number" = String, Path, description = "`+15551234567`, or `messenger:108`"), AccountQuery),
    operation_id = "fetch_consents",
    responses((status = 200, description = "All of it", body = ContactConsents), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    number: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let whose = finding::query(query)?;
    let account_sid = finding::account(&caller, whose.account_sid)?;
    let (number, channel) = people::in_path(&app, &account_sid, number, whose.channel).await?;
    let keys = app.permissions.consents.contacts().keys(&account_sid, &number).await;
    let keys = keys.map_err(|reason| Problem::unavailable(&reason))?;
    let said = app.permissions.consents.of_numbers(&account_sid, &keys.sure()).await;
    let mut said = said.map_err(|reason| Problem::unavailable(&reason))?;
    said.retain(|said| channel.as_ref().is_none_or(|channel| said.address.channel == *channel));
    let history = said.iter().map(ConsentView::of).collect();
    let current = consent::current_of_each(said);
    Ok(json(&ContactConsents { current: current.iter().map(ConsentView::of).collect(), history }))
}

/// Records that a person agreed, or took it back. The same evidence again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/consents",
    tag = "consents",
    params(Repeatable),
    operation_id = "record_consent",
    request_body = NewConsent,
    responses((status = 200, description = "What was recorded", body = RecordedConsent, headers(("idempotent-replayed" = String, description = "`true` if it was answered before, and nothing was done now"))), Problem),
    security(("key" = [])),
)]
async fn record(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<Turn>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let new: NewConsent = object(body)?;
    let now_ms = as_of_ms(turn);
    let region = people::region(new.region)?;
    let wrong_time = |problem: String| people::impossible("at", &problem);
    let at_ms = new.at.as_deref().map(period::instant).transpose().map_err(wrong_time)?;
    let account_sid = finding::account(&caller, new.account_sid)?;
    let (number, channel) = (&new.number, new.channel.as_deref());
    let address =
        people::known_address(&app, &account_sid, "number", number, channel, region).await?;
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
    };
    consent.check(now_ms).map_err(|problem| Problem::with(kinds::IMPOSSIBLE, problem))?;
    let new = app.permissions.record(&caller, &consent.account_sid, &consent, now_ms).await;
    let new = new.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&RecordedConsent { consent: ConsentView::of(&consent), new }))
}

/// Records everything on a list: CSV with columns `number`, `category`, `source` and, where there is something to say,
/// `channel`, `state`, `at`, `proof`, `ip`, `user_agent`.
#[utoipa::path(
    post,
    path = "/v1/consents/import",
    tag = "consents",
    params(Import, Repeatable),
    operation_id = "import_consents",
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, description = "What became of it", body = Imported, headers(("idempotent-replayed" = String, description = "`true` if it was answered before, and nothing was done now"))), Problem),
    security(("key" = [])),
)]
async fn import(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<Turn>>,
    query: Result<Query<Import>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (import, now_ms) = (finding::query(query)?, as_of_ms(turn));
    let account_sid = finding::account(&caller, Some(import.account_sid.clone()))?;
    let list = List::of_consents(whole(body)?, import.about(&account_sid, &caller, now_ms)?);
    let (list, checked) =
        csv::checked(&app.permissions, &account_sid, list, import.partial).await?;
    let said = list.good();
    let added = app.permissions.record_list(&caller, &account_sid, said, now_ms).await;
    csv::report(checked, added)
}

/// Everything that was ever said, as CSV, in the order of numbers.
#[utoipa::path(
    get,
    path = "/v1/consents/export",
    tag = "consents",
    params(finding::AccountQuery),
    operation_id = "export_consents",
    responses((status = 200, description = "A line for each", body = String, content_type = "text/csv"), Problem),
    security(("key" = [])),
)]
async fn export(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<finding::AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = finding::account(&caller, finding::query(query)?.account_sid)?;
    let consents = app.permissions.consents.clone();
    let names = lists::written([lists::CONSENT_COLUMNS.map(str::to_owned)]);
    csv::streamed(names, move |after: Option<Cursor>| {
        let (consents, account_sid) = (consents.clone(), account_sid.clone());
        async move {
            let page = ConsentsPage {
                account_sid: &account_sid,
                channel: None,
                category: None,
                history: true,
                after: after.as_ref(),
                most: csv::PAGE,
            };
            let found = consents.list(&page).await?;
            let text = lists::written(found.iter().map(lists::consent_line));
            Ok((text, found.last().map(Cursor::of_consent)))
        }
    })
    .await
}
