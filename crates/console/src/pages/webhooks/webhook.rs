//! One webhook.

use axum::{
    Form, Router,
    extract::{Path, Query},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
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
        (table("Parameters", parameters.iter().map(|Parameter { name, value }| (name.as_str(), value.as_str()))))
        h2 { "Headers for your application" }
        @let headers = trusted_headers(summary);
        (table("Headers for your application", headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        p.small {
            "The filter sets these headers, and removes any that a client sends. Headers that depend on the verdict are not stored: "
            code { "opt" } ", " code { "suppressed" } ", " code { "window-expires" } ", " code { "media" } ", " code { "attempt" }
            " and " code { "key" } "."
        }
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

fn table<'a>(label: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
                tbody {
                    @for (name, value) in pairs {
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

/// Returns the headers that the filter sets for the application, as far as the record shows them.
fn trusted_headers(event: &EventSummary) -> Vec<(String, String)> {
    let headers = [
        ("verified", Some(event.account_sid.as_str())),
        ("class", Some(event.class.as_str())),
        ("message-sid", Some(event.sid.as_str())),
        ("status", Some(event.status.as_str()).filter(|_| event.class == "status")),
        ("from", event.from.as_deref()),
        ("to", event.to.as_deref()),
        ("channel", event.channel.as_deref()),
        ("dedupe", Some("first")),
    ];
    let header = |(name, value): (&str, Option<&str>)| {
        Some((format!("x-twilio-edge-{name}"), visible(value?)))
    };
    headers.into_iter().filter_map(header).collect()
}

/// Escapes a value as the filter does: a header has visible ASCII and spaces.
fn visible(value: &str) -> String {
    match value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        true => value.to_owned(),
        false => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
    }
}

/// Returns a command that sends the webhook to an application, as the filter forwards it.
fn curl(event: &EventSummary, form: &str) -> String {
    let route = event.route.as_deref().unwrap_or("/");
    let mut command = format!("curl {}", quoted(&format!("http://127.0.0.1:8084{route}")));
    for (name, value) in trusted_headers(event) {
        command += &format!(" \\\n  -H {}", quoted(&format!("{name}: {value}")));
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
    fn headers_are_those_of_the_filter() {
        let event: EventSummary = serde_json::from_value(json!({
            "id": "e", "account_sid": "AC1", "sid": "SM1", "class": "inbound", "channel": "sms",
            "from": "Caf\u{e9}", "to": "+14155550100", "status": "received", "attempts": 1,
        }))
        .unwrap();
        let headers = trusted_headers(&event);
        let lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert!(lines.contains(&"x-twilio-edge-from: Caf%C3%A9".to_owned()), "{lines:?}");
        assert!(lines.contains(&"x-twilio-edge-dedupe: first".to_owned()), "{lines:?}");
        // An inbound message has no status.
        assert!(!lines.iter().any(|line| line.contains("-status")), "{lines:?}");
    }

    #[test]
    fn raw_form_is_escaped_as_twilio_escapes_it() {
        let parameter =
            |name: &str, value: &str| Parameter { name: name.into(), value: value.into() };
        let form = raw_form(&[parameter("Body", "a b&c"), parameter("From", "whatsapp:+1")]);
        assert_eq!(form, "Body=a+b%26c&From=whatsapp%3A%2B1");
    }
}
