//! Webhooks: the live list with its search, and one webhook with its parameters, its outcome and its deliveries.

mod stream;
mod webhook;

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    action::given,
    client::Api,
    components::{Field, empty, live, next_page, search, state, streamed, text, time},
    console::{Console, Page},
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/webhooks",
    title: "Webhooks",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new().route("/webhooks", get(list)).merge(stream::routes()).merge(webhook::routes())
}

/// Search of the list.
#[derive(Debug, Default, Deserialize)]
struct Filter {
    #[serde(default)]
    number: String,
    #[serde(default)]
    sid: String,
    #[serde(default)]
    class: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    cursor: String,
}

impl Filter {
    fn parameters(&self) -> [(&str, &str); 7] {
        [
            ("number", &self.number),
            ("sid", &self.sid),
            ("class", &self.class),
            ("status", &self.status),
            ("since", &self.since),
            ("until", &self.until),
            ("cursor", &self.cursor),
        ]
    }

    /// Returns the path of the stream with the webhooks that join this page; `None` if the page is about the past.
    fn stream(&self) -> Option<String> {
        let is_of_past = [&self.cursor, &self.until].into_iter().any(|text| given(text).is_some());
        let names = ["number", "sid", "class", "status"];
        let parameters = self.parameters().into_iter().filter(|(name, _)| names.contains(name));
        let parameters = parameters.map(|(name, value)| (name, Some(value)));
        (!is_of_past).then(|| query(stream::PATH, parameters))
    }

    fn form(&self) -> Markup {
        let text = |name, label, example, value| Field::Text { name, label, example, value };
        search(
            PAGE.path,
            &[
                text("number", "Number", "+14155550123", &self.number),
                text("sid", "Message SID", "SM..", &self.sid),
                Field::Choice {
                    name: "class",
                    label: "Class",
                    options: &["inbound", "status"],
                    value: &self.class,
                },
                text("status", "Status", "delivered", &self.status),
                text("since", "From (UTC)", "2026-01-31", &self.since),
                text("until", "Until (UTC)", "2026-02-01", &self.until),
            ],
        )
    }
}

/// A webhook in a list.
#[derive(Debug, Deserialize)]
pub(super) struct EventSummary {
    pub(super) id: String,
    pub(super) account_sid: String,
    pub(super) sid: String,
    pub(super) class: String,
    pub(super) channel: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) status: String,
    pub(super) error_code: Option<String>,
    pub(super) received_at: Option<String>,
    pub(super) route: Option<String>,
    pub(super) attempts: i64,
    pub(super) backend: Option<String>,
    pub(super) settled_at: Option<String>,
    pub(super) redacted_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EventList {
    events: Vec<EventSummary>,
    next_cursor: Option<String>,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters = filter.parameters().map(|(name, value)| (name, Some(value)));
    let path = viewer.of_account("/v1/events", parameters);
    let found = match viewer.client.get::<EventList>(Api::Application, &path).await {
        Ok(list) => {
            let next = list.next_cursor.as_deref();
            let table = table(&list.events);
            html! {
                @match filter.stream() {
                    Some(stream) => (streamed(&stream, "webhooks", &table)),
                    None => (live("webhooks", &table)),
                }
                (next_page(PAGE.path, &filter.parameters(), next))
            }
        }
        Err(failure) => failure.refusal()?.notice(),
    };
    Ok(viewer.page("Webhooks", &html! { (filter.form()) (found) }))
}

/// Renders webhooks as a table.
pub(super) fn table(events: &[EventSummary]) -> Markup {
    if events.is_empty() {
        return empty("No webhook matches.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Webhooks" {
            table {
                thead {
                    tr {
                        th scope="col" { "Received (UTC)" }
                        th scope="col" { "Class" }
                        th scope="col" { "From" }
                        th scope="col" { "To" }
                        th scope="col" { "Status" }
                        th scope="col" { "Backend" }
                        th scope="col" { "Forwarded" }
                    }
                }
                tbody {
                    @for event in events {
                        tr data-row=(event.id) {
                            td { a href=(join(PAGE.path, &event.id)) { (time(event.received_at.as_deref())) } }
                            td { (event.class) }
                            td { (text(event.from.as_deref())) }
                            td { (text(event.to.as_deref())) }
                            td { (state(&event.status)) @if let Some(code) = &event.error_code { " " code { (code) } } }
                            td { (outcome(event)) }
                            td.number-cell { (event.attempts) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the outcome of a webhook at the backend.
pub(super) fn outcome(event: &EventSummary) -> Markup {
    match event.backend.as_deref() {
        Some(outcome) => state(outcome),
        None => state("no answer yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_follows_a_stream_unless_it_is_about_the_past() {
        let filter =
            Filter { number: "+1".into(), since: "2026-01-31".into(), ..Filter::default() };
        assert_eq!(filter.stream().as_deref(), Some("/console/webhooks/stream?number=%2B1"));
        let earlier = Filter { cursor: "c".into(), ..Filter::default() };
        assert_eq!(earlier.stream(), None);
        let ended = Filter { until: "2026-01-31".into(), ..Filter::default() };
        assert_eq!(ended.stream(), None);
    }
}
