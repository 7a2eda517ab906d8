//! Notifications: everything that was said to contacts, or should have been, with the attempts to send it.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, Query},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::messages::{MessageError, long};
use crate::{
    client::Api,
    components::{Field, empty, facts, live, next_page, search, state, text, time},
    console::Console,
    console::Page,
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/notifications",
    title: "Notifications",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// States of notifications, as the API names them.
const STATES: [&str; 8] =
    ["declined", "queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

fn routes() -> Router<Console> {
    Router::new().route("/notifications", get(list)).route("/notifications/{id}", get(show))
}

/// Search of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    person: String,
    state: String,
    since: String,
    until: String,
    cursor: String,
}

impl Filter {
    fn parameters(&self) -> [(&str, &str); 5] {
        [
            ("person", &self.person),
            ("state", &self.state),
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
                text("person", "Recipient", "+14155550123", &self.person),
                Field::Choice {
                    name: "state",
                    label: "State",
                    options: &STATES,
                    value: &self.state,
                },
                text("since", "From (UTC)", "2026-01-31", &self.since),
                text("until", "Until (UTC)", "2026-02-01", &self.until),
            ],
        )
    }
}

/// A notification with its attempts.
#[derive(Debug, Deserialize)]
struct Notification {
    id: String,
    account_sid: String,
    to: String,
    category: String,
    channel: String,
    provider: String,
    state: String,
    status: Option<String>,
    error: Option<MessageError>,
    metadata: BTreeMap<String, String>,
    created_by: String,
    created_at: Option<String>,
    changed_at: Option<String>,
    attempts: Vec<Attempt>,
}

/// One message of a notification.
#[derive(Debug, Deserialize)]
struct Attempt {
    id: String,
    channel: String,
    provider: String,
    sender: Option<String>,
    provider_id: Option<String>,
    state: String,
    status: Option<String>,
    error: Option<MessageError>,
    calls: i64,
    created_at: Option<String>,
    changed_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NotificationList {
    notifications: Vec<Notification>,
    next_cursor: Option<String>,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters = filter.parameters().map(|(name, value)| (name, Some(value)));
    let path = viewer.of_account("/v1/notifications", parameters);
    let found = match viewer.client.get::<NotificationList>(Api::Application, &path).await {
        Ok(list) => {
            let next = list.next_cursor.as_deref();
            html! {
                (live("notifications", &table(&list.notifications)))
                (next_page(PAGE.path, &filter.parameters(), next))
            }
        }
        Err(failure) => failure.refusal()?.notice(),
    };
    Ok(viewer.page(PAGE.title, &html! { (filter.form()) (found) }))
}

fn table(notifications: &[Notification]) -> Markup {
    if notifications.is_empty() {
        return empty(
            "No notification matches. Each message that you send adds one, also a message that a rule declines.",
        );
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Notifications" {
            table {
                caption { "Notifications, the latest first" }
                thead {
                    tr {
                        th scope="col" { "Created (UTC)" }
                        th scope="col" { "Recipient" }
                        th scope="col" { "Purpose" }
                        th scope="col" { "Channels" }
                        th scope="col" { "State" }
                        th scope="col" { "Error" }
                    }
                }
                tbody {
                    @for notification in notifications {
                        tr data-row=(notification.id) {
                            td { a href=(join(PAGE.path, &notification.id)) { (time(notification.created_at.as_deref())) } }
                            td { (notification.to) }
                            td { (notification.category) }
                            td { (channels(&notification.attempts)) }
                            td { (state(notification.status.as_deref().unwrap_or(&notification.state))) }
                            td.wide { @match &notification.error { Some(error) => code { (error.code) }, None => (text(None)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the channels of the attempts in their order.
fn channels(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| attempt.channel.as_str()).collect::<Vec<_>>().join(", then ")
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let path = viewer.of_account(&join("/v1/notifications", &id), []);
    let notification: Notification = viewer.client.get(Api::Application, &path).await?;
    let metadata: Vec<String> =
        notification.metadata.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let body = html! {
        p { a href=(PAGE.path) { "All notifications" } }
        (live("notification", &html! {
            @if let Some(error) = &notification.error { (long(error)) }
            div.panel {
                (facts([
                    ("State", state(&notification.state)),
                    ("Delivery", text(notification.status.as_deref())),
                    ("Recipient", text(Some(&notification.to))),
                    ("Purpose", text(Some(&notification.category))),
                    ("Channel", text(Some(&notification.channel))),
                    ("Provider", text(Some(&notification.provider))),
                    ("Created (UTC)", time(notification.created_at.as_deref())),
                    ("Created by", text(Some(&notification.created_by))),
                    ("Changed (UTC)", time(notification.changed_at.as_deref())),
                    ("Metadata", text(Some(&metadata.join(", ")))),
                    ("Account", text(Some(&notification.account_sid))),
                ]))
            }
            h2 { "Attempts" }
            ol.timeline { @for attempt in &notification.attempts { li { (render_attempt(attempt)) } } }
        }))
    };
    Ok(viewer.page(&format!("Notification {}", notification.id), &body))
}

fn render_attempt(attempt: &Attempt) -> Markup {
    html! {
        a href=(join("/console/messages", &attempt.id)) { (time(attempt.created_at.as_deref())) }
        " " (attempt.channel) " with " (attempt.provider) " " (state(attempt.status.as_deref().unwrap_or(&attempt.state)))
        p.small {
            "From " (text(attempt.sender.as_deref())) ", id at the provider " (text(attempt.provider_id.as_deref()))
            ", calls " (attempt.calls) ", changed " (time(attempt.changed_at.as_deref())) "."
        }
        @if let Some(error) = &attempt.error { (long(error)) }
    }
}
