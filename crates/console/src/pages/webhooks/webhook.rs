//! One webhook.

use axum::{Router, extract::Path, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use super::{EventSummary, PAGE, outcome};
use crate::{
    Console,
    client::Api,
    components::{copyable, facts, state, text, time},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/webhooks/{id}", get(show))
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

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let event: Event = viewer.client.get(Api::Application, &join("/v1/events", &id)).await?;
    let Event { summary, parameters } = &event;
    let title = format!("Webhook {} {}", summary.class, summary.sid);
    let form = raw_form(parameters);
    let body = html! {
        p { a href=(PAGE.path) { "All webhooks" } }
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
