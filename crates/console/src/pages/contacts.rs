//! Contacts: the lists of suppressions and consents, and one contact with its conversation and its records.

mod contact;
mod forms;
mod records;

use axum::{
    Router,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;

use self::records::{Consent, Suppression, consents_table, suppressions_table};
use super::messages::MessageSummary;
use crate::{
    action::given,
    client::Api,
    components::{Field, empty, live, next_page, search, text, time},
    console::{Console, Page},
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

const SUPPRESSIONS: &str = "/console/contacts/suppressions";
const CONSENTS: &str = "/console/contacts/consents";

/// Number of messages in which contacts are searched, and of contacts that are shown.
const SEARCHED: &str = "200";
const SHOWN: usize = 20;

/// Sources of suppressions, as the API names them.
const SOURCES: [&str; 6] =
    ["keyword", "opt_out_type", "callback", "administrator", "application", "import"];

/// Purposes of messages, as the API names them.
const CATEGORIES: [&str; 4] = ["marketing", "utility", "authentication", "service"];

fn routes() -> Router<Console> {
    Router::new()
        .route("/contacts", get(find))
        .route("/contacts/suppressions", get(suppressions))
        .route("/contacts/consents", get(consents))
        .merge(contact::routes())
}

#[derive(Debug, Deserialize)]
struct MessageList {
    messages: Vec<MessageSummary>,
}

/// Number of a contact.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Number {
    number: String,
}

/// Shows the form for a number and the contacts who wrote last, or leads to the contact with that number.
async fn find(
    viewer: Viewer,
    Query(Number { number }): Query<Number>,
) -> Result<Response, Failure> {
    if let Some(number) = given(&number) {
        return Ok(Redirect::to(&contact::path(number)).into_response());
    }
    let inbound = [("direction", Some("inbound")), ("limit", Some(SEARCHED))];
    let inbound = viewer.of_account("/v1/messages", inbound);
    let recent = match viewer.client.get::<MessageList>(Api::Application, &inbound).await {
        Ok(list) => live("recent", &table_of_recent(&list.messages)),
        Err(failure) => failure.refusal()?.notice(),
    };
    let field =
        Field::Text { name: "number", label: "Number", example: "+14155550123", value: &number };
    let body = html! {
        p { "A contact is a person who writes to you or receives your messages. Enter a number, such as " code { "+14155550123" }
            ", or an address on one channel, such as " code { "whatsapp:+14155550123" } "." }
        (search(PAGE.path, &[field]))
        (lists())
        (recent)
    };
    Ok(viewer.page("Contacts", &body).into_response())
}

/// Renders the senders of messages, each once, with the time of the last message.
fn table_of_recent(messages: &[MessageSummary]) -> Markup {
    let mut contacts: Vec<(&str, &MessageSummary)> = Vec::new();
    for message in messages {
        let Some(from) = message.from.as_deref() else { continue };
        if contacts.len() < SHOWN && contacts.iter().all(|(contact, _)| *contact != from) {
            contacts.push((from, message));
        }
    }
    if contacts.is_empty() {
        return empty("No contact has written yet. Its first message makes a contact.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Contacts who wrote last" {
            table {
                caption { "Contacts who wrote last" }
                thead {
                    tr {
                        th scope="col" { "Contact" }
                        th scope="col" { "Channel" }
                        th scope="col" { "Last message (UTC)" }
                    }
                }
                tbody {
                    @for (contact, message) in contacts {
                        tr data-row=(contact) {
                            td { (link(contact)) }
                            td { (text(message.channel.as_deref())) }
                            td { (time(message.created_at.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the links to the lists.
fn lists() -> Markup {
    html! {
        p.actions {
            a.button href=(PAGE.path) { "Find a contact" }
            a.button href=(SUPPRESSIONS) { "Suppressions" }
            a.button href=(CONSENTS) { "Consents" }
        }
    }
}

/// Search of the suppressions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SuppressionFilter {
    channel: String,
    source: String,
    ended: String,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct SuppressionList {
    suppressions: Vec<Suppression>,
    next_cursor: Option<String>,
}

async fn suppressions(
    viewer: Viewer,
    Query(filter): Query<SuppressionFilter>,
) -> Result<Markup, Failure> {
    let SuppressionFilter { channel, source, ended, cursor } = &filter;
    let parameters: [(&str, &str); 4] =
        [("channel", channel), ("source", source), ("ended", ended), ("cursor", cursor)];
    let path =
        viewer.of_account("/v1/suppressions", parameters.map(|(name, value)| (name, Some(value))));
    let fields = [
        Field::Text { name: "channel", label: "Channel", example: "whatsapp", value: channel },
        Field::Choice { name: "source", label: "Source", options: &SOURCES, value: source },
        Field::Choice { name: "ended", label: "Ended ones, too", options: &["true"], value: ended },
    ];
    let found = match viewer.client.get::<SuppressionList>(Api::Application, &path).await {
        Ok(list) if list.suppressions.is_empty() => empty(
            "No suppression matches. A contact is suppressed when it sends STOP, or when you suppress it on its page.",
        ),
        Ok(list) => html! {
            (suppressions_table(&list.suppressions, true, |_| Markup::default()))
            (next_page(SUPPRESSIONS, &parameters, list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let body = html! { (lists()) (search(SUPPRESSIONS, &fields)) (found) };
    Ok(viewer.page("Suppressions", &body))
}

/// Search of the consents.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConsentFilter {
    channel: String,
    category: String,
    history: String,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct ConsentList {
    consents: Vec<Consent>,
    next_cursor: Option<String>,
}

async fn consents(viewer: Viewer, Query(filter): Query<ConsentFilter>) -> Result<Markup, Failure> {
    let ConsentFilter { channel, category, history, cursor } = &filter;
    let parameters: [(&str, &str); 4] =
        [("channel", channel), ("category", category), ("history", history), ("cursor", cursor)];
    let path =
        viewer.of_account("/v1/consents", parameters.map(|(name, value)| (name, Some(value))));
    let fields = [
        Field::Text { name: "channel", label: "Channel", example: "whatsapp", value: channel },
        Field::Choice { name: "category", label: "Purpose", options: &CATEGORIES, value: category },
        Field::Choice {
            name: "history",
            label: "Earlier ones, too",
            options: &["true"],
            value: history,
        },
    ];
    let found = match viewer.client.get::<ConsentList>(Api::Application, &path).await {
        Ok(list) if list.consents.is_empty() => empty(
            "No consent matches. Record a consent on the page of its contact, or import a list with twilio-edge consents import.",
        ),
        Ok(list) => html! {
            (consents_table("Consents", &list.consents, true))
            (next_page(CONSENTS, &parameters, list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let body = html! { (lists()) (search(CONSENTS, &fields)) (found) };
    Ok(viewer.page("Consents", &body))
}

/// Renders a number as the link to its contact.
fn link(number: &str) -> Markup {
    html! { a href=(join(PAGE.path, number)) { (number) } }
}
