//! Phone: a chat window in which the viewer is a contact of the simulator, beside what the sidecar recorded about that contact.

use axum::{
    Form, Router,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::{messages, webhooks};
use crate::{
    client::Api,
    components::{empty, form_key, live_from, state, success, time},
    console::{Console, Page},
    failure::Failure,
    path::{join, query},
    simulator::{Arrival, SimulatedMessage, Simulator},
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/phone",
    title: "Phone",
    api: Api::Application,
    needs_simulator: true,
    routes,
};

/// Number of the contact, and our own number, which the simulator uses by default.
const CONTACT: &str = "+14155550123";
const OWN: &str = "+14155238886";

/// Longest wait for Twilio's decision about an answer, so that the page shows the outcome at once.
const WAIT: &str = "3000";

/// Largest number of entries beside the phone.
const SHOWN: &str = "8";

fn routes() -> Router<Console> {
    Router::new()
        .route("/phone", get(show))
        .route("/phone/write", post(write))
        .route("/phone/repeat", post(repeat))
        .route("/phone/answer", post(answer))
}

/// Channel of the conversation, and the action that was done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    channel: String,
    done: String,
}

/// Channel of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    WhatsApp,
    Sms,
}

impl Channel {
    fn read(name: &str) -> Channel {
        if name == "sms" { Channel::Sms } else { Channel::WhatsApp }
    }

    fn name(self) -> &'static str {
        match self {
            Channel::WhatsApp => "whatsapp",
            Channel::Sms => "sms",
        }
    }

    /// Returns the address of a number on the channel.
    fn address(self, number: &str) -> String {
        match self {
            Channel::WhatsApp => format!("whatsapp:{number}"),
            Channel::Sms => number.to_owned(),
        }
    }

    fn page(self, done: Option<&str>) -> String {
        query(PAGE.path, [("channel", Some(self.name())), ("done", done)])
    }
}

async fn show(viewer: Viewer, Query(choice): Query<Choice>) -> Result<Markup, Failure> {
    let notice = match choice.done.as_str() {
        "written" => success("The webhook reached your application."),
        "repeated" => success(
            "The filter answered the copy. Your application did not receive the message again.",
        ),
        "answered" => success("The sidecar sent the answer."),
        _ => Markup::default(),
    };
    page(&viewer, Channel::read(&choice.channel), &notice, "").await
}

async fn page(
    viewer: &Viewer,
    channel: Channel,
    notice: &Markup,
    unsent: &str,
) -> Result<Markup, Failure> {
    let simulator = simulator(viewer)?;
    let conversation =
        simulator.conversation(&channel.address(CONTACT), &channel.address(OWN)).await?;
    let path = join("/v1/numbers", &channel.address(CONTACT));
    let path = viewer.of_account(&path, [("limit", Some(SHOWN))]);
    let history: History = viewer.client.get(Api::Application, &path).await?;
    let here = channel.page(None);
    let body = html! {
        p { "You are the customer " strong { (CONTACT) } ", and write to the business " strong { (OWN) }
            ". Twilio is simulated on this machine: nothing leaves it." }
        p.actions role="group" aria-label="Channel" {
            @for other in [Channel::WhatsApp, Channel::Sms] {
                a.button href=(other.page(None)) aria-current=[(other == channel).then_some("true")] {
                    (if other == Channel::WhatsApp { "WhatsApp" } else { "SMS" })
                }
            }
        }
        (notice)
        div.columns {
            section.phone aria-labelledby="phone-title" {
                h2 #phone-title { "The customer's phone" }
                div aria-live="polite" { (live_from(&here, "phone", &bubbles(&conversation))) }
                form.compose method="post" action="/console/phone/write" {
                    input type="hidden" name="channel" value=(channel.name());
                    input name="text" aria-label="Message of the customer" placeholder="Write as the customer"
                        maxlength="1600" required autocomplete="off";
                    button.primary type="submit" { "Send" }
                }
                form.actions method="post" action="/console/phone/write" {
                    input type="hidden" name="channel" value=(channel.name());
                    button type="submit" name="text" value="Where is my order?" { "\"Where is my order?\"" }
                    button type="submit" name="text" value="STOP" { "STOP" }
                    button type="submit" name="text" value="START" { "START" }
                }
                details {
                    summary { "What if ..." }
                    @if let Some(last) = conversation.iter().rev().find(|message| message.direction == "inbound") {
                        form.actions method="post" action="/console/phone/repeat" {
                            input type="hidden" name="channel" value=(channel.name());
                            input type="hidden" name="sid" value=(last.sid);
                            button type="submit" { "Twilio sends the last message again" }
                        }
                    }
                    form.actions method="post" action="/console/phone/write" {
                        input type="hidden" name="channel" value=(channel.name());
                        input type="hidden" name="text" value="Signed for another URL";
                        input type="hidden" name="signed_origin" value="https://old.example.com";
                        button type="submit" { "the signature is for another URL" }
                    }
                }
            }
            section aria-labelledby="business-title" {
                h2 #business-title { "Your side" }
                (live_from(&here, "business", &standing(&history)))
                form.compose method="post" action="/console/phone/answer" {
                    input type="hidden" name="channel" value=(channel.name());
                    input type="hidden" name="form_key" value=(form_key());
                    input name="text" value=(unsent) aria-label="Answer of the business" placeholder="Answer as the business"
                        maxlength="1600" required autocomplete="off";
                    button.primary type="submit" { "Send" }
                }
                (live_from(&here, "records", &html! {
                    h3 { "Messages" }
                    (messages::table(&history.messages))
                    h3 { "Webhooks" }
                    (webhooks::table(&history.events))
                }))
            }
        }
    };
    Ok(viewer.page("Phone", &body))
}

fn simulator(viewer: &Viewer) -> Result<&Simulator, Failure> {
    viewer.console.simulator().ok_or(Failure::NoSuchPage)
}

/// History of the contact, as the API has it.
#[derive(Debug, Deserialize)]
struct History {
    suppressions: Vec<Suppression>,
    windows: Vec<Window>,
    messages: Vec<messages::MessageSummary>,
    events: Vec<webhooks::EventSummary>,
}

#[derive(Debug, Deserialize)]
struct Suppression {
    source: String,
    in_force: bool,
    since: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Window {
    sender: String,
    expires_at: Option<String>,
    open: bool,
}

fn bubbles(conversation: &[SimulatedMessage]) -> Markup {
    if conversation.is_empty() {
        return empty("No message yet. Write the first one below.");
    }
    html! {
        ol.conversation tabindex="0" aria-label="Conversation" {
            @for message in conversation {
                @let is_own = message.direction == "inbound";
                li class=[is_own.then_some("mine")] data-row=(message.sid) {
                    (message.body)
                    span.small {
                        (if is_own { "you" } else { "business" })
                        @if !is_own { ", " (message.status) }
                        @if let Some(code) = message.error_code { ", error " (code) }
                    }
                }
            }
        }
    }
}

/// Renders whether the contact may be written to.
fn standing(history: &History) -> Markup {
    let suppression = history.suppressions.iter().find(|suppression| suppression.in_force);
    let window = history.windows.iter().find(|window| window.sender.ends_with(OWN));
    html! {
        p {
            @match suppression {
                Some(suppression) => {
                    (state("suppressed")) " The customer opted out (" (suppression.source) ") at "
                    (time(suppression.since.as_deref())) ": every message is refused."
                }
                None => { span.badge.good { "not suppressed" } " The customer has not opted out." }
            }
        }
        p {
            @match window {
                Some(window) if window.open => {
                    span.badge.good { "window open" } " Free text may be sent until " (time(window.expires_at.as_deref())) " UTC."
                }
                _ => { span.badge.wait { "window closed" } " On WhatsApp only templates may be sent until the customer writes." }
            }
        }
    }
}

/// Message of the customer.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    channel: String,
    text: String,
    /// Origin that is signed instead of the real one; empty for the real one.
    #[serde(default)]
    signed_origin: String,
}

async fn write(viewer: Viewer, Form(written): Form<Written>) -> Result<Response, Failure> {
    let channel = Channel::read(&written.channel);
    let simulator = simulator(&viewer)?;
    let (contact, own) = (channel.address(CONTACT), channel.address(OWN));
    let origin = Some(written.signed_origin.as_str()).filter(|origin| !origin.is_empty());
    let arrival = simulator.write(&contact, &own, &written.text, origin).await?;
    arrived(&viewer, channel, &arrival, "written").await
}

/// Message that Twilio sends again.
#[derive(Debug, Deserialize)]
struct Repeat {
    #[serde(default)]
    channel: String,
    sid: String,
}

async fn repeat(viewer: Viewer, Form(repeat): Form<Repeat>) -> Result<Response, Failure> {
    let channel = Channel::read(&repeat.channel);
    let arrival = simulator(&viewer)?.repeat(&repeat.sid).await?;
    arrived(&viewer, channel, &arrival, "repeated").await
}

/// Shows what became of a webhook.
async fn arrived(
    viewer: &Viewer,
    channel: Channel,
    arrival: &Arrival,
    word: &str,
) -> Result<Response, Failure> {
    if arrival.delivered {
        return Ok(Redirect::to(&channel.page(Some(word))).into_response());
    }
    let notice = html! {
        div.notice.bad role="alert" {
            p { strong { "The webhook did not arrive. " } "Twilio's calls of your URL ended with " (arrival.calls()) "." }
            p { "403 means that the filter refused the signature: nothing reached your application." }
            p { a.button href="/console/refusals" { "Explain the refusal" } }
        }
    };
    Ok(page(viewer, channel, &notice, "").await?.into_response())
}

/// Answer of the business.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    channel: String,
    text: String,
    #[serde(default)]
    form_key: String,
}

async fn answer(viewer: Viewer, Form(answer): Form<Answer>) -> Result<Response, Failure> {
    let channel = Channel::read(&answer.channel);
    let request = json!({
        "account_sid": viewer.account,
        "to": channel.address(CONTACT),
        "from": channel.address(OWN),
        "body": answer.text,
    });
    let path = query("/v1/messages", [("wait_ms", Some(WAIT))]);
    let sent: Result<messages::MessageSummary, Failure> =
        viewer.client.send_once(Api::Application, &path, &answer.form_key, &request).await;
    match sent.map_err(Failure::refusal) {
        Ok(message) => match &message.error {
            Some(error) => {
                let notice = messages::long(error);
                Ok(page(&viewer, channel, &notice, &answer.text).await?.into_response())
            }
            None => Ok(Redirect::to(&channel.page(Some("answered"))).into_response()),
        },
        Err(refusal) => {
            let refusal = refusal?;
            let page = page(&viewer, channel, &refusal.notice(), &answer.text).await?;
            Ok((refusal.status(), page).into_response())
        }
    }
}
