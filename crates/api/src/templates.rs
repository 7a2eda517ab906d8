//! `/v1/templates`: the template catalogue of an account, for applications, and the entries of administrators that
//! supplement Twilio's. It is answered from memory, with the time of the last synchronization.

use std::collections::BTreeSet;

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    messages::create_request::locale,
    page::PageRequest,
    problem::Problem,
    query::{self, AccountQuery},
};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    api_key::Scope,
    cursor::Cursor,
    policy::Category,
    template::{
        Approval, MAX_TEXT_CHARS, Source, Template, is_content_sid, is_name, locale::Locale,
        variables,
    },
    window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::{AccessError, Caller},
    outbound::templates::Templates,
};

/// Largest number of languages shown for one name.
const MOST: usize = 200;

/// A template in one language. Times are in RFC 3339.
#[derive(Serialize, ToSchema)]
pub struct TemplateView {
    /// Name of the template, the same in every language.
    name: String,
    /// Language, such as `pt_BR`.
    locale: String,
    /// Twilio's content SID.
    content_sid: String,
    /// Source of the entry. An administrator's entry takes precedence over Twilio's.
    source: Source,
    /// WhatsApp's approval status.
    approval: Approval,
    /// WhatsApp's reason for a rejection.
    reason: Option<String>,
    /// Category of the template, if known. Without it, messages default to `marketing`.
    category: Option<Category>,
    /// Names of the variables. Each takes a text.
    variables: Vec<String>,
    /// Text of the template, if it has one and it is known.
    text: Option<String>,
    /// Time of the last change.
    changed_at: Option<String>,
}

impl TemplateView {
    /// Renders a template.
    pub fn of(template: &Template) -> TemplateView {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        TemplateView {
            name: template.name.clone(),
            locale: template.locale.to_string(),
            content_sid: template.content_sid.clone(),
            source: template.source,
            approval: template.approval,
            reason: some(&template.reason),
            category: template.category,
            variables: template.variables.iter().cloned().collect(),
            text: some(&template.text),
            changed_at: rfc3339(template.changed_at_ms),
        }
    }
}

/// A page of templates, ordered by name and language.
#[derive(Serialize, ToSchema)]
struct TemplateList {
    templates: Vec<TemplateView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
    /// Time of the last synchronization with Twilio, in RFC 3339.
    synced_at: Option<String>,
    /// Error of the synchronizations since then.
    problem: Option<String>,
}

/// The languages of one template.
#[derive(Serialize, ToSchema)]
struct TemplateLanguages {
    templates: Vec<TemplateView>,
}

/// Entry of an administrator for a template.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutTemplateRequest {
    /// Twilio's content SID.
    #[schema(pattern = "^HX[0-9a-fA-F]{32}$")]
    content_sid: String,
    /// Names of the variables: `1`, `2`, ..
    #[serde(default)]
    #[schema(inline, max_items = 100)]
    variables: Vec<VariableName>,
    /// Category for which the template is registered.
    category: Option<Category>,
    /// WhatsApp's approval status. Defaults to `approved`.
    approval: Option<Approval>,
    /// Text with variables as in `Hello {{1}}`, for display and for the length limit.
    #[schema(max_length = 1600)]
    text: Option<String>,
}

/// Name of a variable.
#[derive(Deserialize, ToSchema)]
#[schema(pattern = r"^[^\s{}\x00-\x1f\x7f-\x9f]{1,64}$")]
struct VariableName(String);

/// Filter of the templates.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TemplatesQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// WhatsApp's approval status of the templates.
    approval: Option<Approval>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

pub(super) fn admin_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(put, remove))
}

/// Lists the templates of an account in every language, approved or not.
#[utoipa::path(
    get,
    path = "/v1/templates",
    tag = "templates",
    params(TemplatesQuery),
    operation_id = "list_templates",
    responses((status = 200, description = "A page of templates", body = TemplateList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(templates): State<Templates>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<TemplatesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let TemplatesQuery { account_sid, approval, limit, cursor } = query::read(query)?;
    let account_sid = query::account(&caller, account_sid)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Template { name, locale, reference } => Some((name, locale, reference)),
        _ => None,
    })?;
    let position = |one: &Template| {
        // An administrator has at most one entry per name and language.
        let reference = match one.source {
            Source::Administrator => String::new(),
            Source::Twilio => one.content_sid.clone(),
        };
        (one.name.clone(), one.locale.to_string(), reference)
    };
    let catalogue = templates.of(&account_sid);
    let mut found: Vec<&Template> = catalogue
        .all()
        .filter(|one| approval.is_none_or(|approval| approval == one.approval))
        .filter(|one| page.after.as_ref().is_none_or(|after| position(one) > *after))
        .collect();
    found.sort_by_key(|one| position(one));
    let cursor = |last: &&Template| {
        let (name, locale, reference) = position(last);
        Cursor::Template { name, locale, reference }
    };
    let (found, next_cursor) = page.page(found, cursor, TemplateView::of);
    let age = templates.age(&account_sid);
    Ok(json(&TemplateList {
        templates: found,
        next_cursor,
        synced_at: Some(age.synced_at_ms).filter(|at_ms| *at_ms > 0).and_then(rfc3339),
        problem: Some(age.problem).filter(|problem| !problem.is_empty()),
    }))
}

/// Returns the languages of one template.
#[utoipa::path(
    get,
    path = "/v1/templates/{name}",
    tag = "templates",
    params(("name" = String, Path, description = "Name of the template"), AccountQuery),
    operation_id = "fetch_template",
    responses((status = 200, description = "The template in each of its languages", body = TemplateLanguages), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(templates): State<Templates>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let name = path.map_or_else(|_| String::new(), |Path(name)| name);
    let catalogue = templates.of(&account_sid);
    let templates: Vec<TemplateView> =
        catalogue.of_name(&name).take(MOST).map(TemplateView::of).collect();
    match templates.is_empty() {
        true => Err(Problem::of(RefusalCode::NoSuchTemplate)),
        false => Ok(json(&TemplateLanguages { templates })),
    }
}

/// Sets the content of a template in one language, if Twilio does not list it or lists it wrong. It is in effect here at
/// once, and in all other sidecars within about two seconds. Twilio's entry for the same name and language is ignored.
#[utoipa::path(
    put,
    path = "/v1/templates/{name}/{locale}",
    tag = "templates",
    params(
        ("name" = String, Path, min_length = 1, max_length = 512, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", description = "Name of the template"),
        ("locale" = String, Path, pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$", description = "Language of the template, such as `en` or `pt_BR`"),
        AccountQuery,
    ),
    operation_id = "put_template",
    request_body = PutTemplateRequest,
    responses((status = 200, description = "The template", body = TemplateView), Problem),
    security(("key" = [])),
)]
async fn put(
    State(templates): State<Templates>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let (name, locale) = place(path)?;
    let request: PutTemplateRequest = object(body)?;
    if !is_content_sid(&request.content_sid) {
        return Err(Problem::malformed("content_sid: must be HX and 32 hexadecimal digits"));
    }
    let variables: BTreeSet<String> =
        request.variables.into_iter().map(|VariableName(name)| name).collect();
    if !variables::are_variable_names(&variables) {
        let must = "variables: at most 100 names of 1 to 64 characters, without blanks and braces";
        return Err(Problem::malformed(must));
    }
    let text = request.text.unwrap_or_default();
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(Problem::malformed("text: at most 1600 characters"));
    }
    let at_ms = now_ms();
    let template = Template {
        source: Source::Administrator,
        content_sid: request.content_sid,
        name,
        locale,
        approval: request.approval.unwrap_or(Approval::Approved),
        reason: String::new(),
        category: request.category,
        variables,
        text,
        has_others: false,
        digest: String::new(),
        changed_at_ms: at_ms,
    };
    let stored = templates.put(&caller, &account_sid, &template, at_ms).await;
    stored.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    Ok(json(&TemplateView::of(&template)))
}

/// Deletes an administrator's entry. Twilio's entry for the same name and language is in effect again.
#[utoipa::path(
    delete,
    path = "/v1/templates/{name}/{locale}",
    tag = "templates",
    params(
        ("name" = String, Path, min_length = 1, max_length = 512, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$", description = "Name of the template"),
        ("locale" = String, Path, pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$", description = "Language of the template, such as `en` or `pt_BR`"),
        AccountQuery,
    ),
    operation_id = "remove_template",
    responses((status = 204, description = "The administrator's entry is deleted"), Problem),
    security(("key" = [])),
)]
async fn remove(
    State(templates): State<Templates>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let (name, locale) = place(path)?;
    let removed: Result<bool, AccessError> =
        templates.remove(&caller, &account_sid, &name, &locale, now_ms()).await;
    match removed.map_err(|refusal| Problem::refused(refusal, Scope::Admin))? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Problem::of(RefusalCode::NoSuchTemplate)),
    }
}

fn place(path: Result<Path<(String, String)>, PathRejection>) -> Result<(String, Locale), Problem> {
    let Path((name, language)) = path.map_err(|error| Problem::malformed(&error.body_text()))?;
    if !is_name(&name) {
        return Err(Problem::malformed("name: must be one line of at most 512 characters"));
    }
    Ok((name, locale(&language)?))
}
