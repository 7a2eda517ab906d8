//! Contacts: finds one by number, and lists the contacts who wrote last and the suppressions.

mod contact;

use axum::{
    Router,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Page, messages};
use crate::{
    Console,
    client::Api,
    components::{Field, empty, next_page, search, state, text, time},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/contacts",
    title: "Contacts",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// Number of messages in which contacts are searched, and of contacts that are shown.
const SEARCHED: &str = "200";
const SHOWN: usize = 20;

fn routes() -> Router<Console> {
    Router::new().route("/contacts", get(list)).merge(contact::routes())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    number: String,
    cursor: String,
}

/// A suppression of a contact.
#[derive(Debug, Deserialize)]
pub(super) struct Suppression {
    number: String,
    channel: String,
    source: String,
    error_code: Option<String>,
    in_force: bool,
    since: Option<String>,
    expires_at: Option<String>,
    changed_by: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SuppressionList {
    suppressions: Vec<Suppression>,
    next_cursor: Option<String>,
}

/// A conversation window.
#[derive(Debug, Deserialize)]
pub(super) struct Window {
    channel: String,
    person: String,
    sender: String,
    last_inbound_at: Option<String>,
    expires_at: Option<String>,
    open: bool,
}

#[derive(Debug, Deserialize)]
struct MessageList {
    messages: Vec<messages::MessageSummary>,
}

/// Returns the path of the page of a contact.
fn path_of(number: &str) -> String {
    join(PAGE.path, number)
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Response, Failure> {
    let number = filter.number.trim();
    if !number.is_empty() {
        return Ok(Redirect::to(&path_of(number)).into_response());
    }
    let inbound = [("direction", Some("inbound")), ("limit", Some(SEARCHED))];
    let inbound = viewer.of_account("/v1/messages", inbound);
    let recent = match viewer.client.get::<MessageList>(Api::Application, &inbound).await {
        Ok(MessageList { messages }) => table_of_recent(&messages),
        Err(failure) => failure.refusal()?.notice(),
    };
    let cursor = Some(filter.cursor.as_str());
    let suppressed = viewer.of_account("/v1/suppressions", [("cursor", cursor)]);
    let suppressions =
        match viewer.client.get::<SuppressionList>(Api::Application, &suppressed).await {
            Ok(list) => html! {
                (table_of_suppressions(&list.suppressions))
                (next_page(PAGE.path, &[], list.next_cursor.as_deref()))
            },
            Err(failure) => failure.refusal()?.notice(),
        };
    let field = Field::Text { name: "number", label: "Number", example: "+14155550123", value: "" };
    let body = html! {
        (search(PAGE.path, &[field]))
        h2 { "Contacts who wrote last" }
        (recent)
        h2 { "Suppressed contacts" }
        (suppressions)
    };
    Ok(viewer.page("Contacts", &body).into_response())
}

/// Renders the contacts of messages, each once, with the time of the last message.
fn table_of_recent(messages: &[messages::MessageSummary]) -> Markup {
    let mut contacts: Vec<(&str, Option<&str>)> = Vec::new();
    for message in messages {
        let Some(from) = message.from.as_deref() else { continue };
        if contacts.len() < SHOWN && contacts.iter().all(|(contact, _)| *contact != from) {
            contacts.push((from, message.created_at.as_deref()));
        }
    }
    if contacts.is_empty() {
        return empty("No contact has written.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Contacts who wrote last" {
            table {
                thead { tr { th scope="col" { "Contact" } th scope="col" { "Last message (UTC)" } } }
                tbody {
                    @for (contact, at) in contacts {
                        tr data-row=(contact) {
                            td { a href=(path_of(contact)) { (contact) } }
                            td { (time(at)) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders conversation windows as a table.
pub(super) fn table_of_windows(windows: &[Window]) -> Markup {
    if windows.is_empty() {
        return empty("No conversation window.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Conversation windows" {
            table {
                thead { tr {
                    th scope="col" { "Contact" } th scope="col" { "Channel" } th scope="col" { "Own number" }
                    th scope="col" { "Last message (UTC)" } th scope="col" { "Free text until (UTC)" } th scope="col" { "Window" }
                } }
                tbody {
                    @for window in windows {
                        tr data-row={ (window.channel) (window.person) (window.sender) } {
                            td { a href=(path_of(&window.person)) { (window.person) } }
                            td { (window.channel) }
                            td { (window.sender) }
                            td { (time(window.last_inbound_at.as_deref())) }
                            td { (time(window.expires_at.as_deref())) }
                            td { (state(if window.open { "open" } else { "closed" })) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders suppressions as a table.
pub(super) fn table_of_suppressions(suppressions: &[Suppression]) -> Markup {
    if suppressions.is_empty() {
        return empty("No suppression.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Suppressions" {
            table {
                thead { tr {
                    th scope="col" { "Contact" } th scope="col" { "Channel" } th scope="col" { "Source" }
                    th scope="col" { "Since (UTC)" } th scope="col" { "Until (UTC)" } th scope="col" { "State" } th scope="col" { "Changed by" }
                } }
                tbody {
                    @for suppression in suppressions {
                        tr data-row={ (suppression.number) (suppression.channel) (suppression.source) } {
                            td { a href=(path_of(&suppression.number)) { (suppression.number) } }
                            td { (if suppression.channel == "*" { "every" } else { &suppression.channel }) }
                            td { (suppression.source.replace('_', " ")) @if let Some(code) = &suppression.error_code { " " code { (code) } } }
                            td { (time(suppression.since.as_deref())) }
                            td { (time(suppression.expires_at.as_deref())) }
                            td { (state(if suppression.in_force { "suppressed" } else { "ended" })) }
                            td { (text(suppression.changed_by.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
