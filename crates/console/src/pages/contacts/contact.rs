//! One contact: whether it may be written to, its conversation, windows, suppressions and consents, and the changes of these.

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

use super::{PAGE, Suppression, Window, path_of, table_of_suppressions, table_of_windows};
use crate::{
    Console,
    client::Api,
    components::{empty, form_key, state, success, text, time},
    failure::Failure,
    pages::{messages, webhooks},
    path::{join, query},
    viewer::Viewer,
};

/// Purposes of a consent, as the API names them.
const CATEGORIES: [&str; 4] = ["marketing", "utility", "service", "authentication"];

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/contacts/{number}", get(show))
        .route("/contacts/{number}/suppress", post(suppress))
        .route("/contacts/{number}/end-suppressions", post(end_suppressions))
        .route("/contacts/{number}/consents", post(record_consent))
}

/// History of a number.
#[derive(Debug, Deserialize)]
struct History {
    suppressions: Vec<Suppression>,
    consents: Vec<Consent>,
    windows: Vec<Window>,
    messages: Vec<messages::MessageSummary>,
    events: Vec<webhooks::EventSummary>,
}

#[derive(Debug, Deserialize)]
struct Consent {
    id: String,
    channel: String,
    category: String,
    state: String,
    at: Option<String>,
    source: String,
    proof: Option<String>,
    ip: Option<String>,
    recorded_by: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Done {
    done: String,
}

async fn show(
    viewer: Viewer,
    Path(number): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "suppressed" => success("The contact is suppressed from now on."),
        "ended" => success("The suppressions have ended."),
        "recorded" => success("The consent is recorded."),
        _ => Markup::default(),
    };
    page(&viewer, &number, &notice).await
}

async fn page(viewer: &Viewer, number: &str, notice: &Markup) -> Result<Markup, Failure> {
    let path = viewer.of_account(&join("/v1/numbers", number), []);
    let history: History = viewer.client.get(Api::Application, &path).await?;
    let write = query("/console/messages/new", [("to", Some(number))]);
    let is_suppressed = history.suppressions.iter().any(|suppression| suppression.in_force);
    let body = html! {
        p { a href=(PAGE.path) { "All contacts" } }
        (notice)
        p.actions {
            @if is_suppressed { (state("suppressed")) } @else { span.badge.good { "not suppressed" } }
            a.button href=(write) { "Write to the contact" }
        }
        h2 { "Messages" }
        (messages::table(&history.messages))
        h2 { "Conversation windows" }
        (table_of_windows(&history.windows))
        h2 { "Suppressions" }
        (table_of_suppressions(&history.suppressions))
        (change_suppressions(viewer, number, is_suppressed))
        h2 { "Consents" }
        (table_of_consents(&history.consents))
        (consent_form(number))
        h2 { "Webhooks" }
        (webhooks::table(&history.events))
    };
    Ok(viewer.page(&format!("Contact {number}"), &body))
}

fn change_suppressions(viewer: &Viewer, number: &str, is_suppressed: bool) -> Markup {
    html! {
        div.actions {
            form method="post" action={ (path_of(number)) "/suppress" } {
                input type="hidden" name="form_key" value=(form_key());
                button.danger type="submit" { "Suppress on every channel" }
            }
            @if is_suppressed && viewer.is_administrator() {
                form method="post" action={ (path_of(number)) "/end-suppressions" } {
                    button type="submit" data-confirm="The contact asked not to be written to. End the suppressions anyway?" { "End the suppressions" }
                }
            }
        }
        @if is_suppressed && !viewer.is_administrator() {
            p.small { "Only an administrator can end a suppression, and the contact by START." }
        }
    }
}

fn table_of_consents(consents: &[Consent]) -> Markup {
    if consents.is_empty() {
        return empty("No consent is recorded.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Consents" {
            table {
                thead { tr {
                    th scope="col" { "Time (UTC)" } th scope="col" { "Channel" } th scope="col" { "Purpose" } th scope="col" { "State" }
                    th scope="col" { "Source" } th scope="col" { "Proof" } th scope="col" { "IP address" } th scope="col" { "Recorded by" }
                } }
                tbody {
                    @for consent in consents {
                        tr data-row=(consent.id) {
                            td { (time(consent.at.as_deref())) }
                            td { (consent.channel) }
                            td { (consent.category) }
                            td { (state(&consent.state)) }
                            td { (consent.source) }
                            td.wide { (text(consent.proof.as_deref())) }
                            td { (text(consent.ip.as_deref())) }
                            td { (consent.recorded_by) }
                        }
                    }
                }
            }
        }
    }
}

fn consent_form(number: &str) -> Markup {
    html! {
        details {
            summary { "Record a consent or its withdrawal" }
            form.card method="post" action={ (path_of(number)) "/consents" } {
                input type="hidden" name="form_key" value=(form_key());
                label for="channel" { "Channel" }
                select #channel name="channel" { option value="sms" { "sms" } option value="whatsapp" selected { "whatsapp" } option value="rcs" { "rcs" } }
                label for="category" { "Purpose" }
                select #category name="category" { @for category in CATEGORIES { option value=(category) { (category) } } }
                label for="state" { "State" }
                select #state name="state" { option value="granted" { "granted" } option value="withdrawn" { "withdrawn" } }
                label for="source" { "Source" }
                input #source name="source" required maxlength="100" placeholder="call with support";
                label for="proof" { "Proof: the text that the contact was shown, and the reply" }
                textarea #proof name="proof" rows="3" maxlength="4000" {}
                button.primary type="submit" { "Record" }
            }
        }
    }
}

/// Form of a suppression.
#[derive(Debug, Deserialize)]
struct Suppress {
    #[serde(default)]
    form_key: String,
}

async fn suppress(
    viewer: Viewer,
    Path(number): Path<String>,
    Form(Suppress { form_key }): Form<Suppress>,
) -> Result<Response, Failure> {
    let plain = number.rsplit(':').next().unwrap_or_default();
    let request = json!({ "account_sid": viewer.account, "number": plain, "channel": "*" });
    let added: Result<Value, Failure> =
        viewer.client.send_once(Api::Application, "/v1/suppressions", &form_key, &request).await;
    done(&viewer, &number, "suppressed", added.map(drop)).await
}

async fn end_suppressions(viewer: Viewer, Path(number): Path<String>) -> Result<Response, Failure> {
    let path = viewer.of_account(&join("/v1/suppressions", &number), []);
    let ended = viewer.client.act(Api::Administration, Method::DELETE, &path).await;
    done(&viewer, &number, "ended", ended).await
}

/// Form of a consent.
#[derive(Debug, Deserialize)]
struct RecordConsent {
    channel: String,
    category: String,
    state: String,
    source: String,
    #[serde(default)]
    proof: String,
    #[serde(default)]
    form_key: String,
}

async fn record_consent(
    viewer: Viewer,
    Path(number): Path<String>,
    Form(form): Form<RecordConsent>,
) -> Result<Response, Failure> {
    let plain = number.rsplit(':').next().unwrap_or_default();
    let proof = Some(form.proof.trim()).filter(|proof| !proof.is_empty());
    let request = json!({
        "account_sid": viewer.account, "number": plain, "channel": form.channel,
        "category": form.category, "state": form.state, "source": form.source, "proof": proof,
    });
    let recorded: Result<Value, Failure> =
        viewer.client.send_once(Api::Application, "/v1/consents", &form.form_key, &request).await;
    done(&viewer, &number, "recorded", recorded.map(drop)).await
}

/// Redirects to the contact after a change, or shows it with the refusal.
async fn done(
    viewer: &Viewer,
    number: &str,
    word: &str,
    result: Result<(), Failure>,
) -> Result<Response, Failure> {
    match result.map_err(Failure::refusal) {
        Ok(()) => {
            Ok(Redirect::to(&query(&path_of(number), [("done", Some(word))])).into_response())
        }
        Err(refusal) => {
            let refusal = refusal?;
            Ok((refusal.status(), page(viewer, number, &refusal.notice()).await?).into_response())
        }
    }
}
