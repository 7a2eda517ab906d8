//! Audit: every administrative change, the newest first.

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    client::Api,
    components::{empty, live, next_page, text, time},
    console::{Console, Page},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/audit",
    title: "Audit",
    api: Api::Administration,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new().route("/audit", get(list))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct AuditLog {
    entries: Vec<Entry>,
    next_cursor: Option<String>,
}

/// An administrative change.
#[derive(Debug, Deserialize)]
struct Entry {
    id: i64,
    at: Option<String>,
    actor: String,
    source: String,
    action: String,
    subject: String,
    account_sid: Option<String>,
    detail: Value,
}

async fn list(viewer: Viewer, Query(Filter { cursor }): Query<Filter>) -> Result<Markup, Failure> {
    let path = viewer.of_account("/v1/audit", [("cursor", Some(cursor.as_str()))]);
    let found = match viewer.client.get::<AuditLog>(Api::Administration, &path).await {
        Ok(log) if log.entries.is_empty() => {
            empty("There is no entry for this account. Every administrative change adds one.")
        }
        Ok(log) => html! {
            (live("audit-log", &table(&log.entries)))
            (next_page(PAGE.path, &[], log.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let body = html! {
        p { "Changes that people made with a key, with the console or on the command line"
            @match &viewer.account {
                Some(account) => { ", to account " code { (account) } "." },
                None => ", to all accounts.",
            }
        }
        (found)
    };
    Ok(viewer.page(PAGE.title, &body))
}

fn table(entries: &[Entry]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Audit log" {
            table {
                caption { "Changes, the newest first" }
                thead {
                    tr {
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Actor" }
                        th scope="col" { "Action" }
                        th scope="col" { "Object" }
                        th scope="col" { "Account" }
                        th scope="col" { "Source" }
                        th scope="col" { "Details" }
                    }
                }
                tbody {
                    @for entry in entries {
                        tr data-row=(entry.id) {
                            td { (time(entry.at.as_deref())) }
                            td { (entry.actor) }
                            td { code { (entry.action) } }
                            td.wide { (subject(entry)) }
                            td { (text(entry.account_sid.as_deref())) }
                            td { (entry.source) }
                            td.wide { (detail(&entry.detail)) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the object of a change, as a link if the console has a page for it.
fn subject(entry: &Entry) -> Markup {
    let page = match entry.action.split('.').next() {
        Some("replay") => Some("/console/deliveries/replays"),
        Some("tenant") => Some("/console/accounts"),
        Some("key") => Some("/console/accounts/keys"),
        _ => None,
    };
    html! {
        @match page {
            Some(page) => a href=(join(page, &entry.subject)) { (entry.subject) },
            None => (text(Some(&entry.subject))),
        }
    }
}

/// Renders the details of a change: each name with its value.
fn detail(detail: &Value) -> Markup {
    let Some(fields) = detail.as_object().filter(|fields| !fields.is_empty()) else {
        return text(None);
    };
    html! {
        @for (index, (name, value)) in fields.iter().enumerate() {
            @if index > 0 { ", " }
            (name.replace('_', " ")) ": "
            @match value { Value::String(value) => (value), value => (value.to_string()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_are_names_with_values() {
        let shown = detail(&json!({"dry_run": false, "sink": "<app>"})).into_string();
        assert_eq!(shown, "dry run: false, sink: &lt;app&gt;");
        assert!(detail(&Value::Null).into_string().contains('-'));
    }
}
