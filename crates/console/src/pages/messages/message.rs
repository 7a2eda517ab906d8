//! One message: its facts, its timeline, and the actions on it.

use axum::{
    Form, Router,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MessageError, MessageSummary, PAGE, current, long, sender};
use crate::{
    client::Api,
    components::{facts, live, state, success, text, time},
    console::Console,
    failure::{Failure, Refusal},
    pages::webhooks::EventSummary,
    path::{join, query},
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/messages/{id}", get(show))
        .route("/messages/{id}/cancel", post(cancel))
        .route("/messages/{id}/resolve", post(resolve))
}

/// A message with its timeline.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(flatten)]
    summary: MessageSummary,
    fallback: Option<String>,
    timeline: Vec<TimelineEntry>,
}

#[derive(Debug, Deserialize)]
struct TimelineEntry {
    at: Option<String>,
    event: String,
    state: Option<String>,
    error: Option<MessageError>,
    webhook: Option<EventSummary>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    done: String,
}

async fn show(
    viewer: Viewer,
    Path(id): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "sent" => success("The message is accepted. Its timeline shows what becomes of it."),
        "canceled" => success("The message is canceled."),
        "resolved" => success("The outcome of the message is recorded."),
        _ => Markup::default(),
    };
    page(&viewer, &id, &notice).await
}

async fn page(viewer: &Viewer, id: &str, notice: &Markup) -> Result<Markup, Failure> {
    let path = viewer.of_account(&join("/v1/messages", id), []);
    let message: Message = viewer.client.get(Api::Application, &path).await?;
    let Message { summary, fallback, timeline } = &message;
    let body = html! {
        p { a href=(PAGE.path) { "All messages" } }
        (notice)
        (live("message", &html! {
            @if let Some(error) = &summary.error { (long(error)) }
            (details(summary, fallback.as_deref()))
            h2 { "Timeline" }
            ol.timeline { @for entry in timeline { (timeline_entry(entry)) } }
            (actions(summary))
        }))
        (resolution_form(summary))
    };
    Ok(viewer.page(&format!("Message {}", summary.id), &body))
}

fn details(summary: &MessageSummary, fallback: Option<&str>) -> Markup {
    let link = |id: Option<&str>| match id {
        Some(id) => html! { a href=(join(PAGE.path, id)) { (id) } },
        None => text(None),
    };
    html! {
        div.panel {
            (facts([
                ("Status", current(summary)),
                ("State", state(&summary.state)),
                ("Direction", text(Some(&summary.direction))),
                ("From", text(sender(summary))),
                ("To", text(summary.to.as_deref())),
                ("Channel", text(summary.channel.as_deref())),
                ("Created (UTC)", time(summary.created_at.as_deref())),
                ("Due (UTC)", time(summary.due_at.as_deref())),
                ("Valid until (UTC)", time(summary.valid_until.as_deref())),
                ("Template", text(summary.template.as_deref())),
                ("Category", text(summary.category.as_deref())),
                ("Twilio's SID", text(summary.sid.as_deref())),
                ("Fallback", link(fallback)),
                ("Fallback of", link(summary.fallback_of.as_deref())),
                ("Account", text(Some(&summary.account_sid))),
            ]))
        }
    }
}

fn timeline_entry(entry: &TimelineEntry) -> Markup {
    html! {
        li {
            (time(entry.at.as_deref())) " "
            @match (entry.event.as_str(), &entry.webhook) {
                ("accepted", _) => "The API accepted the message.",
                ("attempt", _) => "The sidecar called Twilio.",
                ("webhook", Some(webhook)) => {
                    a href=(join("/console/webhooks", &webhook.id)) { "Webhook" } " " (state(&webhook.status))
                    @if let Some(outcome) = &webhook.backend { " backend: " (state(outcome)) }
                }
                _ => { "State " (state(entry.state.as_deref().unwrap_or_default())) }
            }
            @if let Some(error) = &entry.error { (long(error)) }
        }
    }
}

fn actions(summary: &MessageSummary) -> Markup {
    let here = join(PAGE.path, &summary.id);
    let again = query(
        "/console/messages/new",
        [
            ("to", summary.to.as_deref().filter(|to| !to.contains(".."))),
            ("from", sender(summary)),
            ("template", summary.template.as_deref()),
            ("category", summary.category.as_deref()),
        ],
    );
    html! {
        @if summary.direction == "outbound" {
            h2 { "Actions" }
            div.actions {
                @if summary.state == "queued" {
                    form method="post" action={ (here) "/cancel" } {
                        button.danger type="submit" { "Cancel the message" }
                    }
                }
                a.button href=(again) { "Send it as a new message" }
            }
        }
    }
}

/// Renders the form of the decision about an unknown outcome.
fn resolution_form(summary: &MessageSummary) -> Markup {
    html! {
        @if summary.state == "unknown" {
            form.card method="post" action={ (join(PAGE.path, &summary.id)) "/resolve" } {
                h3 { "Resolve the unknown outcome" }
                p.small { "Look the message up in Twilio's console. If Twilio has it, enter its SID; otherwise leave the field empty." }
                label for="message-sid" { "Twilio's SID of the message" }
                input #message-sid name="message_sid" placeholder="SM.." spellcheck="false";
                button type="submit" { "Record the outcome" }
            }
        }
    }
}

async fn cancel(viewer: Viewer, Path(id): Path<String>) -> Result<Response, Failure> {
    let path = viewer.of_account(&format!("{}/cancel", join("/v1/messages", &id)), []);
    done(&viewer, &id, "canceled", viewer.client.act(Api::Application, Method::POST, &path).await)
        .await
}

/// Form of the decision about an unknown outcome.
#[derive(Debug, Deserialize)]
struct Resolution {
    #[serde(default)]
    message_sid: String,
}

async fn resolve(
    viewer: Viewer,
    Path(id): Path<String>,
    Form(Resolution { message_sid }): Form<Resolution>,
) -> Result<Response, Failure> {
    let path = viewer.of_account(&format!("{}/resolve", join("/v1/messages", &id)), []);
    let sid = Some(message_sid.trim()).filter(|sid| !sid.is_empty());
    let resolution = json!({ "message_sid": sid });
    let resolved =
        viewer.client.send::<Value>(Api::Application, Method::POST, &path, &resolution).await;
    done(&viewer, &id, "resolved", resolved.map(drop)).await
}

/// Redirects to the message after an action, or shows it with the refusal.
async fn done(
    viewer: &Viewer,
    id: &str,
    word: &str,
    result: Result<(), Failure>,
) -> Result<Response, Failure> {
    let here = join(PAGE.path, id);
    match result.map_err(Failure::refusal) {
        Ok(()) => Ok(Redirect::to(&query(&here, [("done", Some(word))])).into_response()),
        Err(refusal) => {
            let refusal: Refusal = refusal?;
            Ok((refusal.status(), page(viewer, id, &refusal.notice()).await?).into_response())
        }
    }
}
