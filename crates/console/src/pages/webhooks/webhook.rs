//! One webhook.

use axum::{
    Form, Router,
    extract::{Path, Query},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{EventSummary, PAGE, outcome};
use crate::{
    client::Api,
    components::{copyable, facts, form_key, state, success, text, time},
    console::Console,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/webhooks/{id}", get(show)).route("/webhooks/{id}/replay", post(replay))
}

/// A webhook with its parameters.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(flatten)]
    summary: EventSummary,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
struct Parameter {
    name: String,
    value: String,
}

/// Deliveries of a webhook to its sinks.
#[derive(Debug, Deserialize)]
struct DeliveryList {
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    sink: String,
    state: String,
    recorded_at: Option<String>,
    ended_at: Option<String>,
    tries: i64,
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    at: Option<String>,
    outcome: String,
    status: Option<u16>,
    latency_ms: u64,
    reason: Option<String>,
    answer: String,
}

#[derive(Debug, Deserialize)]
struct SinkList {
    sinks: Vec<Sink>,
}

#[derive(Debug, Deserialize)]
struct Sink {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Done {
    done: String,
}

async fn show(
    viewer: Viewer,
    Path(id): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "replayed" => success(
            "The replay has started. The webhook is delivered once more, marked as a replay.",
        ),
        _ => Markup::default(),
    };
    page(&viewer, &id, &notice).await
}

async fn page(viewer: &Viewer, id: &str, notice: &Markup) -> Result<Markup, Failure> {
    let event: Event = viewer.client.get(Api::Application, &join("/v1/events", id)).await?;
    let Event { summary, parameters } = &event;
    let title = format!("Webhook {} {}", summary.class, summary.sid);
    let form = raw_form(parameters);
    let body = html! {
        p { a href=(PAGE.path) { "All webhooks" } }
        (notice)
        div.panel {
            (facts([
                ("Received (UTC)", time(summary.received_at.as_deref())),
                ("Status", html! { (state(&summary.status)) @if let Some(code) = &summary.error_code { " error " code { (code) } } }),
                ("Outcome at the backend", outcome(summary)),
                ("Forwarded", html! { (summary.attempts) " time" @if summary.attempts != 1 { "s" } }),
                ("Settled (UTC)", time(summary.settled_at.as_deref())),
                ("Route", text(summary.route.as_deref())),
                ("From", text(summary.from.as_deref())),
                ("To", text(summary.to.as_deref())),
                ("Channel", text(summary.channel.as_deref())),
                ("Message", html! { a href=(join("/console/messages", &summary.sid)) { (summary.sid) } }),
                ("Account", html! { (summary.account_sid) }),
            ]))
            @if let Some(at) = &summary.redacted_at {
                p.small { "Parts were removed on " (time(Some(at))) ", by retention or on request." }
            }
        }
        @if viewer.is_administrator() { (deliveries(viewer, id).await?) }
        h2 { "Parameters" }
        (table(parameters))
        h2 { "Raw form" }
        (copyable("raw-form", "Body as Twilio sent it", &form))
        h2 { "Send it to your application" }
        (copyable("curl", "curl", &curl(summary, &form)))
        p.small { "The command calls your application directly, with the headers of the filter. Change the address to yours." }
    };
    Ok(viewer.page(&title, &body))
}

/// Renders the deliveries of the webhook to sinks, and the form of a replay.
async fn deliveries(viewer: &Viewer, id: &str) -> Result<Markup, Failure> {
    let path = format!("{}/deliveries", join("/v1/events", id));
    let DeliveryList { deliveries } = viewer.client.get(Api::Administration, &path).await?;
    let SinkList { sinks } = viewer.client.get(Api::Administration, "/v1/sinks").await?;
    Ok(html! {
        h2 { "Deliveries to sinks" }
        @if deliveries.is_empty() { p.none { "This webhook has none, or they were completed and deleted." } }
        @for delivery in &deliveries { (render_delivery(delivery)) }
        @if !sinks.is_empty() {
            form.actions method="post" action={ (join(PAGE.path, id)) "/replay" } {
                input type="hidden" name="form_key" value=(form_key());
                label for="sink" { "Deliver once more to" }
                select #sink name="sink" { @for sink in &sinks { option value=(sink.name) { (sink.name) } } }
                button type="submit" { "Replay" }
            }
        }
    })
}

fn render_delivery(delivery: &Delivery) -> Markup {
    html! {
        div.panel {
            h3 { (delivery.sink) " " (state(&delivery.state)) }
            p.small { "Queued " (time(delivery.recorded_at.as_deref())) ", ended " (time(delivery.ended_at.as_deref())) ", " (delivery.tries) " attempts" }
            ol.timeline {
                @for attempt in &delivery.attempts {
                    li {
                        (time(attempt.at.as_deref())) " " (state(&attempt.outcome)) " after " (attempt.latency_ms) " ms"
                        @if let Some(status) = attempt.status { ", HTTP " (status) }
                        @if let Some(reason) = &attempt.reason { p.small { (reason) } }
                        @if !attempt.answer.is_empty() { pre tabindex="0" aria-label="Answer" { (attempt.answer) } }
                    }
                }
            }
        }
    }
}

/// Form of a replay.
#[derive(Debug, Deserialize)]
struct Replay {
    sink: String,
    #[serde(default)]
    form_key: String,
}

/// Replays the webhooks of the message to one sink.
async fn replay(
    viewer: Viewer,
    Path(id): Path<String>,
    Form(replay): Form<Replay>,
) -> Result<Response, Failure> {
    let event: Event = viewer.client.get(Api::Application, &join("/v1/events", &id)).await?;
    let request = json!({
        "sink": replay.sink, "account_sid": event.summary.account_sid,
        "message_sid": event.summary.sid, "class": event.summary.class,
    });
    let started: Result<Value, Failure> = viewer
        .client
        .send_once(Api::Administration, "/v1/replays", &replay.form_key, &request)
        .await;
    match started.map_err(Failure::refusal) {
        Ok(_) => {
            let here = query(&join(PAGE.path, &id), [("done", Some("replayed"))]);
            Ok(Redirect::to(&here).into_response())
        }
        Err(refusal) => {
            let refusal = refusal?;
            Ok((refusal.status(), page(&viewer, &id, &refusal.notice()).await?).into_response())
        }
    }
}

fn table(parameters: &[Parameter]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Parameters" {
            table {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
                tbody {
                    @for Parameter { name, value } in parameters {
                        tr { td { code { (name) } } td.wide { (value) } }
                    }
                }
            }
        }
    }
}

fn raw_form(parameters: &[Parameter]) -> String {
    let pairs = parameters.iter().map(|Parameter { name, value }| (name, value));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Returns a command that sends the webhook to an application, as the filter forwards it.
fn curl(event: &EventSummary, form: &str) -> String {
    let route = event.route.as_deref().unwrap_or("/");
    let headers = [
        ("verified", Some(event.account_sid.as_str())),
        ("class", Some(event.class.as_str())),
        ("message-sid", Some(event.sid.as_str())),
        ("status", Some(event.status.as_str()).filter(|_| event.class == "status")),
        ("channel", event.channel.as_deref()),
    ];
    let mut command = format!("curl {}", quoted(&format!("http://127.0.0.1:8084{route}")));
    for (name, value) in headers {
        if let Some(value) = value {
            let header = format!("x-twilio-edge-{name}: {value}");
            command += &format!(" \\\n  -H {}", quoted(&header));
        }
    }
    command + &format!(" \\\n  --data-raw {}", quoted(form))
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_webhook_cannot_leave_the_quotes_of_the_command() {
        assert_eq!(quoted("a'; rm -rf / #"), r"'a'\''; rm -rf / #'");
    }

    #[test]
    fn raw_form_is_escaped_as_twilio_escapes_it() {
        let parameter =
            |name: &str, value: &str| Parameter { name: name.into(), value: value.into() };
        let form = raw_form(&[parameter("Body", "a b&c"), parameter("From", "whatsapp:+1")]);
        assert_eq!(form, "Body=a+b%26c&From=whatsapp%3A%2B1");
    }
}
