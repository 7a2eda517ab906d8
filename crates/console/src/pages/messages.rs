//! Messages of both directions: the list with its search, one message, and the form for a new one.

mod compose;
mod message;

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    client::Api,
    components::{Field, empty, live, next_page, search, state, text, time},
    console::{Console, Page},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/messages",
    title: "Messages",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// States of messages, as the API names them.
const STATES: [&str; 8] =
    ["received", "queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

fn routes() -> Router<Console> {
    Router::new()
        .route("/messages", get(list).post(compose::send))
        .route("/messages/new", get(compose::show))
        .merge(message::routes())
}

/// Search of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    number: String,
    direction: String,
    state: String,
    status: String,
    error_code: String,
    since: String,
    until: String,
    cursor: String,
}

impl Filter {
    fn parameters(&self) -> [(&str, &str); 8] {
        [
            ("number", &self.number),
            ("direction", &self.direction),
            ("state", &self.state),
            ("status", &self.status),
            ("error_code", &self.error_code),
            ("since", &self.since),
            ("until", &self.until),
            ("cursor", &self.cursor),
        ]
    }

    fn form(&self) -> Markup {
        let text = |name, label, example, value| Field::Text { name, label, example, value };
        let choice = |name, label, options, value| Field::Choice { name, label, options, value };
        search(
            PAGE.path,
            &[
                text("number", "Number", "+14155550123", &self.number),
                choice("direction", "Direction", &["inbound", "outbound"], &self.direction),
                choice("state", "State", &STATES, &self.state),
                text("status", "Status", "delivered", &self.status),
                text("error_code", "Error code", "30003", &self.error_code),
                text("since", "From (UTC)", "2026-01-31", &self.since),
                text("until", "Until (UTC)", "2026-02-01", &self.until),
            ],
        )
    }
}

/// A message in a list.
#[derive(Debug, Deserialize)]
pub(super) struct MessageSummary {
    pub(super) id: String,
    pub(super) sid: Option<String>,
    pub(super) account_sid: String,
    pub(super) direction: String,
    pub(super) channel: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) messaging_service_sid: Option<String>,
    pub(super) state: String,
    pub(super) status: Option<String>,
    pub(super) error: Option<MessageError>,
    pub(super) template: Option<String>,
    pub(super) category: Option<String>,
    pub(super) fallback_of: Option<String>,
    pub(super) due_at: Option<String>,
    pub(super) valid_until: Option<String>,
    pub(super) created_at: Option<String>,
}

/// Error of a message.
#[derive(Debug, Deserialize)]
pub(super) struct MessageError {
    pub(super) code: String,
    pub(super) reason: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) remedy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MessageList {
    messages: Vec<MessageSummary>,
    next_cursor: Option<String>,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters = filter.parameters().map(|(name, value)| (name, Some(value)));
    let path = viewer.of_account("/v1/messages", parameters);
    let found = match viewer.client.get::<MessageList>(Api::Application, &path).await {
        Ok(list) => {
            let next = list.next_cursor.as_deref();
            html! {
                (live("messages", &table(&list.messages)))
                (next_page(PAGE.path, &filter.parameters(), next))
            }
        }
        Err(failure) => failure.refusal()?.notice(),
    };
    let body = html! {
        p.actions { a.button href="/console/messages/new" { "New message" } }
        (filter.form())
        (found)
    };
    Ok(viewer.page("Messages", &body))
}

/// Renders messages as a table.
pub(super) fn table(messages: &[MessageSummary]) -> Markup {
    if messages.is_empty() {
        return empty("No message matches.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Messages" {
            table {
                thead {
                    tr {
                        th scope="col" { "Created (UTC)" }
                        th scope="col" { "Direction" }
                        th scope="col" { "From" }
                        th scope="col" { "To" }
                        th scope="col" { "State" }
                        th scope="col" { "Error" }
                    }
                }
                tbody {
                    @for message in messages {
                        tr data-row=(message.id) {
                            td { a href=(join(PAGE.path, &message.id)) { (time(message.created_at.as_deref())) } }
                            td { (message.direction) }
                            td { (text(sender(message))) }
                            td { (text(message.to.as_deref())) }
                            td { (current(message)) }
                            td.wide { @match &message.error { Some(error) => (short(error)), None => (text(None)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the sender of a message, or the Messaging Service that chooses it.
fn sender(message: &MessageSummary) -> Option<&str> {
    message.from.as_deref().or(message.messaging_service_sid.as_deref())
}

/// Renders the delivery status, or the state as long as Twilio has reported none.
pub(super) fn current(message: &MessageSummary) -> Markup {
    state(message.status.as_deref().unwrap_or(&message.state))
}

fn short(error: &MessageError) -> Markup {
    html! { code { (error.code) } @if let Some(reason) = &error.reason { " " (reason) } }
}

/// Renders an error with the actor and the remedy.
pub(super) fn long(error: &MessageError) -> Markup {
    html! {
        div.notice.bad {
            p { "Error " (short(error)) }
            @if let Some(remedy) = &error.remedy { p { (remedy) } }
            @if let Some(actor) = &error.actor { p.small { "Must act: " strong { (actor) } } }
        }
    }
}
