//! Refusals: the causes for which filters refused requests, with the one change that would make them pass, and one request
//! with its explanation.

mod request;

use axum::{
    Router,
    extract::{Path, Query},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;

use self::request::{RefusedRequest, table};
use crate::{
    client::Api,
    components::{Field, empty, live, next_page, prose, search, text, time},
    console::{Console, Page},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/refusals",
    title: "Refusals",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// Kinds of refused requests, as the API names them.
const KINDS: [&str; 3] = ["misconfiguration", "stranger", "unexamined"];

fn routes() -> Router<Console> {
    Router::new()
        .route("/refusals", get(list))
        .route("/refusals/groups/{id}", get(group))
        .merge(request::routes())
}

/// Refused requests of one cause.
#[derive(Debug, Deserialize)]
struct Group {
    id: String,
    account_sid: Option<String>,
    kind: String,
    route: String,
    reason: String,
    summary: String,
    remedy: String,
    skipped: i64,
    last_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct GroupList {
    refusals: Vec<Group>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RequestList {
    requests: Vec<RefusedRequest>,
    next_cursor: Option<String>,
}

/// Search of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    kind: String,
    cursor: String,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters: [(&str, &str); 2] = [("kind", &filter.kind), ("cursor", &filter.cursor)];
    let path =
        viewer.of_account("/v1/refusals", parameters.map(|(name, value)| (name, Some(value))));
    let found = match viewer.client.get::<GroupList>(Api::Application, &path).await {
        Ok(list) => html! {
            (live("causes", &groups(&list.refusals)))
            (next_page(PAGE.path, &parameters, list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let field = Field::Choice { name: "kind", label: "Kind", options: &KINDS, value: &filter.kind };
    let body = html! {
        p { "Requests that a filter refused, by cause. Each cause names the one change that would make its requests pass." }
        (search(PAGE.path, &[field]))
        (found)
    };
    Ok(viewer.page(PAGE.title, &body))
}

fn groups(groups: &[Group]) -> Markup {
    if groups.is_empty() {
        return empty(
            "No refused request matches. If webhooks are missing and nothing is here, Twilio does not reach your filter: check the URL in Twilio's console.",
        );
    }
    html! {
        @for group in groups {
            article.panel.group aria-labelledby=(group.id) data-row=(group.id) {
                h2 id=(group.id) { (group.summary) }
                p { (kind(&group.kind)) }
                p { strong { "Change this: " } (prose(&group.remedy)) }
                p.small {
                    "Route " code { (group.route) } ", reason " code { (group.reason) } ", account "
                    (text(group.account_sid.as_deref())) ", last at " (time(group.last_at.as_deref())) " UTC"
                    @if group.skipped > 0 { ", " (group.skipped) " more were counted only" }
                    "."
                }
                p { a.button href=(join("/console/refusals/groups", &group.id)) { "Explain" } }
            }
        }
    }
}

/// Renders the kind of refused requests with its meaning.
fn kind(kind: &str) -> Markup {
    let (class, meaning) = match kind {
        "misconfiguration" => ("bad", "Twilio signed these requests. Webhooks may be lost."),
        "stranger" => ("plain", "Twilio did not sign these requests. They are refused rightly."),
        _ => ("wait", "The sidecar could not examine these requests."),
    };
    html! { span class={ "badge " (class) } { (kind) } " " (meaning) }
}

/// Shows the latest request of a cause with its explanation, and the others.
async fn group(
    viewer: Viewer,
    Path(id): Path<String>,
    Query(Filter { cursor, .. }): Query<Filter>,
) -> Result<Markup, Failure> {
    let parameters = [("group_id", Some(id.as_str())), ("cursor", Some(cursor.as_str()))];
    let path = viewer.of_account("/v1/refusals/requests", parameters);
    let list: RequestList = viewer.client.get(Api::Application, &path).await?;
    let explanation = match list.requests.first() {
        Some(latest) => request::explanation(&viewer, &latest.id).await?,
        None => empty("The requests of this cause are no longer stored."),
    };
    let here = join("/console/refusals/groups", &id);
    let body = html! {
        p { a href=(PAGE.path) { "All causes" } }
        (explanation)
        @if !list.requests.is_empty() {
            h2 { "Requests with this cause" }
            (table(&list.requests))
            (next_page(&here, &[], list.next_cursor.as_deref()))
        }
    };
    Ok(viewer.page("Refused requests of one cause", &body))
}
