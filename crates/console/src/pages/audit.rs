//! Audit: every administrative change, the newest first.

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    client::Api,
    components::{Field, empty, live, next_page, search, text, time},
    console::{Console, Page},
    failure::Failure,
    path::{join, query},
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
    actor: String,
    action: String,
    since: String,
    until: String,
    cursor: String,
}

impl Filter {
    fn parameters(&self) -> [(&str, &str); 5] {
        [
            ("actor", &self.actor),
            ("action", &self.action),
            ("since", &self.since),
            ("until", &self.until),
            ("cursor", &self.cursor),
        ]
    }

    fn form(&self) -> Markup {
        let text = |name, label, example, value| Field::Text { name, label, example, value };
        search(
            PAGE.path,
            &[
                text("actor", "Actor", "key 0123456789abcdef", &self.actor),
                text("action", "Action", "key.created", &self.action),
                text("since", "From (UTC)", "2026-01-31", &self.since),
                text("until", "Until (UTC)", "2026-02-01", &self.until),
            ],
        )
    }
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

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters = filter.parameters().map(|(name, value)| (name, Some(value.trim())));
    let path = viewer.of_account("/v1/audit", parameters);
    let found = match viewer.client.get::<AuditLog>(Api::Administration, &path).await {
        Ok(log) if log.entries.is_empty() => empty(
            "No entry matches. Every administrative change adds one, and so does every message that a person sends here.",
        ),
        Ok(log) => html! {
            (live("audit-log", &table(&log.entries, viewer.account.is_none())))
            (next_page(PAGE.path, &filter.parameters(), log.next_cursor.as_deref()))
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
        (filter.form())
        (found)
    };
    Ok(viewer.page(PAGE.title, &body))
}

/// Renders the entries; those of one account need no column for it.
fn table(entries: &[Entry], has_accounts: bool) -> Markup {
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
                        @if has_accounts { th scope="col" { "Account" } }
                        th scope="col" { "Source" }
                        th scope="col" { "Details" }
                    }
                }
                tbody {
                    @for entry in entries {
                        tr data-row=(entry.id) {
                            td { (time(entry.at.as_deref())) }
                            td { a href=(query(PAGE.path, [("actor", Some(entry.actor.as_str()))])) { (entry.actor) } }
                            td { a href=(query(PAGE.path, [("action", Some(entry.action.as_str()))])) { code { (entry.action) } } }
                            td.wide { (subject(entry)) }
                            @if has_accounts { td { (text(entry.account_sid.as_deref())) } }
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
        Some("key" | "session") => Some("/console/accounts/keys"),
        Some("message") if entry.action != "message.deleted" => Some("/console/messages"),
        _ => None,
    };
    // The object of a key's change is "key" and its id.
    let id = entry.subject.strip_prefix("key ").unwrap_or(&entry.subject);
    html! {
        @match page {
            Some(page) => a href=(join(page, id)) { (entry.subject) },
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
