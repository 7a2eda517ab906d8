//! `GET /v1/audit`: every administrative change, the newest first.

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    page::PageRequest,
    problem::Problem,
    query::{self, Listing},
};
use crate::{app::App, body::json};
use twilio_edge_domain::{api_key::Scope, cursor::Cursor, window::rfc3339};
use twilio_edge_services::access::api_keys::{Caller, Keys};
use twilio_edge_store::AuditEntry;

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

/// Lists the administrative changes, the newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    params(Listing),
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
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let Listing { account_sid, limit, cursor } = query::read(query)?;
    let account_sid = query::one_account(account_sid)?;
    let page = PageRequest::read(limit, cursor, |cursor| match cursor {
        Cursor::Entry { id } => Some(id),
        _ => None,
    })?;
    let found = keys.audit(&caller, account_sid.as_deref(), page.after, page.rows()).await;
    let found = found.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    let cursor = |entry: &AuditEntry| Cursor::Entry { id: entry.id };
    let (entries, next_cursor) = page.page(found, cursor, AuditLogEntry::of);
    Ok(json(&AuditLog { entries, next_cursor }))
}
