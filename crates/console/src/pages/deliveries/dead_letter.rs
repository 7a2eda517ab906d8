//! One dead letter, with its attempts and the event that the sink would receive.

use axum::{Router, extract::Path, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::PAGE;
use crate::{
    Console,
    client::Api,
    components::{copyable, facts, form_key, state, text, time},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/deliveries/dead-letters/{id}", get(show))
}

#[derive(Debug, Deserialize)]
struct DeadLetter {
    id: i64,
    sink: String,
    account_sid: String,
    event_id: String,
    delivery_id: String,
    state: String,
    ended_at: Option<String>,
    recorded_at: Option<String>,
    tries: i64,
    reason: Option<String>,
    attempts: Vec<Attempt>,
    event: Option<Value>,
}

/// One attempt of a delivery.
#[derive(Debug, Deserialize)]
pub(crate) struct Attempt {
    at: Option<String>,
    pub(crate) outcome: String,
    status: Option<u16>,
    latency_ms: u64,
    reason: Option<String>,
    answer: String,
}

impl Attempt {
    /// Renders the attempt with the answer of the sink.
    pub(crate) fn render(&self) -> Markup {
        html! {
            (time(self.at.as_deref())) " " (state(&self.outcome)) " after " (self.latency_ms) " ms"
            @if let Some(status) = self.status { ", HTTP " (status) }
            @if let Some(reason) = &self.reason { p.small { (reason) } }
            @if !self.answer.is_empty() { pre tabindex="0" aria-label="Answer" { (self.answer) } }
        }
    }
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let path = join("/v1/dead-letters", &id);
    let letter: DeadLetter = viewer.client.get(Api::Administration, &path).await?;
    let event = letter.event.as_ref().map(|event| format!("{event:#}"));
    let body = html! {
        p { a href=(PAGE.path) { "All deliveries" } }
        div.panel {
            (facts([
                ("State", state(&letter.state)),
                ("Sink", text(Some(&letter.sink))),
                ("Reason", text(letter.reason.as_deref())),
                ("Ended (UTC)", time(letter.ended_at.as_deref())),
                ("Queued (UTC)", time(letter.recorded_at.as_deref())),
                ("Attempts", html! { (letter.tries) }),
                ("Event", html! { code { (letter.event_id) } }),
                ("Delivery", html! { code { (letter.delivery_id) } }),
                ("Account", text(Some(&letter.account_sid))),
            ]))
        }
        @if letter.state == "dead" {
            form.actions method="post" action="/console/deliveries/decide" {
                input type="hidden" name="id" value=(letter.id);
                input type="hidden" name="form_key" value=(form_key());
                button type="submit" name="action" value="retry-selected" { "Retry" }
                button.danger type="submit" name="action" value="discard-selected" data-confirm="Discard this dead letter? It is never delivered." { "Discard" }
            }
        }
        h2 { "Attempts" }
        ol.timeline { @for attempt in &letter.attempts { li { (attempt.render()) } } }
        h2 { "Event" }
        @match event {
            Some(event) => (copyable("event", "Event as JSON", &event)),
            None => p.none { "The ledger no longer has it." },
        }
    };
    Ok(viewer.page(&format!("Dead letter {}", letter.id), &body))
}
