//! One contact: its conversation, windows, consents and suppressions, and the forms that change them.

use std::collections::BTreeMap;

use axum::{
    Form, Router,
    extract::{Path, Query},
    http::Method,
    response::Response,
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    PAGE,
    forms::{End, Forms, NewConsent, NewSuppression, consent_form, end_form, suppression_form},
    records::{Consent, Suppression, Window, consents_table, suppressions_table, windows_table},
};
use crate::{
    action::{Done, answer, given},
    client::Api,
    components::{empty, success, text, time},
    console::Console,
    failure::Failure,
    pages::{
        messages::{MessageSummary, current},
        webhooks::EventSummary,
    },
    path::{join, query},
    viewer::Viewer,
};

/// Largest number of messages of the conversation.
const SHOWN: &str = "30";

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/contacts/{number}", get(show))
        .route("/contacts/{number}/suppress", post(suppress))
        .route("/contacts/{number}/end-suppression", post(end_suppression))
        .route("/contacts/{number}/consent", post(record_consent))
}

/// Returns the path of a contact.
pub(super) fn path(number: &str) -> String {
    join(PAGE.path, number)
}

/// Data about a number in one account.
#[derive(Debug, Deserialize)]
struct History {
    suppressions: Vec<Suppression>,
    windows: Vec<Window>,
    messages: Vec<MessageSummary>,
    events: Vec<EventSummary>,
}

/// Consents of a contact.
#[derive(Debug, Deserialize)]
struct Consents {
    current: Vec<Consent>,
    history: Vec<Consent>,
}

/// Parameters of a webhook.
#[derive(Debug, Deserialize)]
struct Event {
    parameters: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
struct Parameter {
    name: String,
    value: String,
}

async fn show(
    viewer: Viewer,
    Path(number): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "suppressed" => success("The contact is suppressed. The API refuses every message to it."),
        "ended" => success("The suppression has ended. The contact may receive messages again."),
        "recorded" => success("The consent is recorded with its evidence."),
        _ => Markup::default(),
    };
    page(&viewer, &number, &Forms::default(), notice).await
}

async fn page(
    viewer: &Viewer,
    number: &str,
    forms: &Forms,
    notice: Markup,
) -> Result<Markup, Failure> {
    let of_number = viewer.of_account(&join("/v1/numbers", number), [("limit", Some(SHOWN))]);
    let history: History = match viewer.client.get(Api::Application, &of_number).await {
        Ok(history) => history,
        Err(failure) => {
            let refusal = failure.refusal()?.notice();
            let body = html! { p { a href=(PAGE.path) { "Find a contact" } } (notice) (refusal) };
            return Ok(viewer.page(&format!("Contact {number}"), &body));
        }
    };
    let of_number = viewer.of_account(&join("/v1/consents", number), []);
    let consents = match viewer.client.get::<Consents>(Api::Application, &of_number).await {
        Ok(consents) => render_consents(&consents),
        Err(failure) => failure.refusal()?.notice(),
    };
    let texts = texts(viewer, &history.events).await?;
    let search = |path: &str| query(path, [("number", Some(number))]);
    let body = html! {
        p { a href=(PAGE.path) { "Find a contact" } }
        (notice)
        (standing(&history.suppressions))
        p.actions {
            a.button href=(query("/console/messages/new", [("to", Some(number))])) { "Write to the contact" }
            a.button href=(search("/console/messages")) { "All messages" }
            a.button href=(search("/console/webhooks")) { "All webhooks" }
        }
        h2 { "Conversation" }
        (conversation(&history.messages, &texts))
        h2 { "Windows" }
        @if history.windows.is_empty() {
            (empty("The contact has not written yet. On WhatsApp only templates may be sent until it writes."))
        } @else {
            (windows_table(&history.windows))
        }
        h2 { "Consents" }
        (consents)
        (consent_form(number, &forms.consent))
        h2 { "Suppressions" }
        @if history.suppressions.is_empty() {
            (empty("The contact was never suppressed. It is suppressed when it sends STOP."))
        } @else {
            (suppressions_table(&history.suppressions, false, |one| end_form(viewer, number, one)))
        }
        (suppression_form(number, forms.suppression.as_ref()))
    };
    Ok(viewer.page(&format!("Contact {number}"), &body))
}

/// Fetches the texts of the inbound messages, by SID.
async fn texts(
    viewer: &Viewer,
    events: &[EventSummary],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut texts = BTreeMap::new();
    for event in events.iter().filter(|event| event.class == "inbound") {
        let path = join("/v1/events", &event.id);
        let parameters = match viewer.client.get::<Event>(Api::Application, &path).await {
            Ok(event) => event.parameters,
            // Retention may have deleted the webhook meanwhile.
            Err(failure) => failure.refusal().map(|_| Vec::new())?,
        };
        texts.insert(event.sid.clone(), text_of(&parameters));
    }
    Ok(texts)
}

/// Returns the text of an inbound message, with the number of its media.
fn text_of(parameters: &[Parameter]) -> String {
    let value = |name: &str| {
        let found = parameters.iter().find(|parameter| parameter.name == name);
        found.map(|parameter| parameter.value.as_str()).unwrap_or_default()
    };
    let media = match value("NumMedia") {
        "" | "0" => String::new(),
        count => format!("[media: {count}]"),
    };
    let parts = [value("Body"), media.as_str()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Renders whether the contact may be written to.
fn standing(suppressions: &[Suppression]) -> Markup {
    let mut channels: Vec<&str> =
        suppressions.iter().filter(|one| one.in_force).map(|one| one.channel.as_str()).collect();
    channels.dedup();
    html! {
        @if channels.is_empty() {
            p { span.badge.good { "not suppressed" } " The contact has not opted out." }
        } @else {
            p {
                span.badge.bad { "suppressed" } " The API refuses messages on "
                (channels.join(", ").replace('*', "every channel")) "."
            }
        }
    }
}

/// Renders the messages as a conversation, the oldest first. The service stores the text of received messages only.
fn conversation(messages: &[MessageSummary], texts: &BTreeMap<String, String>) -> Markup {
    if messages.is_empty() {
        return empty(
            "No message from or to this number is stored. Write to the contact, or wait for its first message.",
        );
    }
    html! {
        ol.conversation tabindex="0" aria-label="Conversation" {
            @for message in messages.iter().rev() {
                @let is_inbound = message.direction == "inbound";
                li class=[(!is_inbound).then_some("mine")] data-row=(message.id) {
                    @if is_inbound {
                        @match message.sid.as_ref().and_then(|sid| texts.get(sid)).filter(|text| !text.is_empty()) {
                            Some(text) => (text),
                            None => span.none { "text not stored" },
                        }
                    } @else {
                        @match &message.template {
                            Some(template) => { "Template " (template) },
                            None => span.none { "The text of a sent message is not stored." },
                        }
                    }
                    span.small {
                        a href=(join("/console/messages", &message.id)) { (time(message.created_at.as_deref())) }
                        " " (if is_inbound { "from the contact" } else { "from you" })
                        ", " (text(message.channel.as_deref())) " " (current(message))
                    }
                }
            }
        }
    }
}

fn render_consents(consents: &Consents) -> Markup {
    html! {
        @if consents.history.is_empty() {
            (empty("No consent is recorded. Record it with its evidence below."))
        } @else {
            (consents_table("Consents in effect", &consents.current, false))
            details {
                summary { "History of the consents (" (consents.history.len()) ")" }
                (consents_table("All consents, the latest first", &consents.history, false))
            }
        }
    }
}

async fn record_consent(
    viewer: Viewer,
    Path(number): Path<String>,
    Form(new): Form<NewConsent>,
) -> Result<Response, Failure> {
    let request = json!({
        "account_sid": viewer.account,
        "number": number,
        "channel": given(&new.channel),
        "category": new.category,
        "state": new.state,
        "at": given(&new.at),
        "source": new.source.trim(),
        "proof": given(&new.proof),
    });
    let sent = send(&viewer, "/v1/consents", &new.form_key, &request).await;
    let forms = Forms { consent: new, ..Forms::default() };
    done(&viewer, &number, "recorded", &forms, sent).await
}

async fn suppress(
    viewer: Viewer,
    Path(number): Path<String>,
    Form(new): Form<NewSuppression>,
) -> Result<Response, Failure> {
    let request = json!({
        "account_sid": viewer.account,
        "number": number,
        "channel": given(&new.channel),
        "expires_at": given(&new.expires_at),
    });
    let sent = send(&viewer, "/v1/suppressions", &new.form_key, &request).await;
    let forms = Forms { suppression: Some(new), ..Forms::default() };
    done(&viewer, &number, "suppressed", &forms, sent).await
}

async fn end_suppression(
    viewer: Viewer,
    Path(number): Path<String>,
    Form(End { channel }): Form<End>,
) -> Result<Response, Failure> {
    let account = viewer.account.as_deref();
    // The path names one channel already if the number has a prefix.
    let channel = given(&channel).filter(|_| !number.contains(':'));
    let path =
        query(&join("/v1/suppressions", &number), [("account_sid", account), ("channel", channel)]);
    let ended = viewer.client.act(Api::Administration, Method::DELETE, &path).await;
    done(&viewer, &number, "ended", &Forms::default(), ended).await
}

async fn send(viewer: &Viewer, path: &str, key: &str, request: &Value) -> Result<(), Failure> {
    let sent = viewer.client.send_once::<Value>(Api::Application, path, key, request).await;
    sent.map(drop)
}

async fn done(
    viewer: &Viewer,
    number: &str,
    word: &str,
    forms: &Forms,
    result: Result<(), Failure>,
) -> Result<Response, Failure> {
    let next = |()| query(&path(number), [("done", Some(word))]);
    answer(result, next, async |notice| page(viewer, number, forms, notice).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_message_names_its_media() {
        let parameter =
            |name: &str, value: &str| Parameter { name: name.into(), value: value.into() };
        let text = text_of(&[parameter("Body", "hi"), parameter("NumMedia", "2")]);
        assert_eq!(text, "hi\n[media: 2]");
        assert_eq!(text_of(&[parameter("NumMedia", "0")]), "");
    }
}
