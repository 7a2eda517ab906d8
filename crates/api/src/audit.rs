//! `GET /v1/audit`: every administrative change, the newest first.

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{page::PageRequest, problem::Problem, query};
use crate::{app::App, body::json};
use twilio_edge_domain::{api_key::Scope, cursor::Cursor, window::rfc3339};
use twilio_edge_services::access::api_keys::{Caller, Keys};
use twilio_edge_store::{AuditEntry, AuditPage};

/// Longest name of an actor or an action.
const MAX_NAME: usize = 100;

/// Filter of the audit log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Account SID of the entries. If omitted, entries of all accounts that the key sees.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Actor of the entries, as they show it: `key 0123456789abcdef`, `command line`.
    #[param(pattern = "^[ -~]{1,100}$")]
    actor: Option<String>,
    /// Action of the entries, such as `key.created`.
    #[param(pattern = "^[ -~]{1,100}$")]
    action: Option<String>,
    /// Earliest time of the change, inclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Latest time of the change, exclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// One administrative change: the actor, the action, the object, the account, the time and the source address.
#[derive(Serialize, ToSchema)]
struct AuditLogEntry {
    /// Number of the entry, ascending.
    id: i64,
    /// Time of the change, in RFC 3339.
    at: Option<String>,
    /// Actor that made the change.
    actor: String,
    /// Address of the client, or user of the command line.
    source: String,
    /// Action, such as `key.created`.
    action: String,
    /// Object of the change.
    subject: String,
    /// Account of the object; `null` if it has none.
    account_sid: Option<String>,
    /// Details of the change as JSON, without secrets.
    detail: Value,
}

impl AuditLogEntry {
    fn of(entry: AuditEntry) -> AuditLogEntry {
        AuditLogEntry {
            id: entry.id,
            at: rfc3339(entry.at_ms),
            actor: entry.actor,
            source: entry.source,
            action: entry.action,
            subject: entry.subject,
            account_sid: entry.account_sid,
            detail: serde_json::from_str(&entry.detail).unwrap_or_default(),
        }
    }
}

/// A page of administrative changes, the newest first.
#[derive(Serialize, ToSchema)]
struct AuditLog {
    entries: Vec<AuditLogEntry>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the administrative changes, the newest first. With a session, for instance of the console, sending a message is one.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(AuditQuery),
    operation_id = "list_audit",
    responses(
        (status = 200, description = "A page of administrative changes", body = AuditLog),
        Problem,
    ),
    security(("key" = [])),
)]
async fn list(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let AuditQuery { account_sid, actor, action, since, until, limit, cursor } =
        query::read(query)?;
    let account_sid = query::one_account(account_sid)?;
    let (actor, action) = (name("actor", actor)?, name("action", action)?);
    let (since_ms, until_ms) = query::period(since, until, None)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Entry { at_ms, id } => Some((at_ms, id)),
        _ => None,
    })?;
    let filter = AuditPage {
        account_sid: account_sid.as_deref(),
        actor: actor.as_deref(),
        action: action.as_deref(),
        since_ms,
        until_ms,
        after: page.after,
        most: page.rows(),
    };
    let found = keys.audit(&caller, filter).await;
    let found = found.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    let cursor = |entry: &AuditEntry| Cursor::Entry { at_ms: entry.at_ms, id: entry.id };
    let (entries, next_cursor) = page.page(found, cursor, AuditLogEntry::of);
    Ok(json(&AuditLog { entries, next_cursor }))
}

/// Validates the name of an actor or an action, if there is one.
fn name(field: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let is_printable = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let is_name = |text: &String| (1..=MAX_NAME).contains(&text.len()) && is_printable(text);
    match text {
        Some(text) if !is_name(&text) => {
            let must = format!("{field}: must be 1 to {MAX_NAME} printable ASCII characters");
            Err(Problem::malformed(&must))
        }
        text => Ok(text),
    }
}
