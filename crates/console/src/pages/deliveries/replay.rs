//! Replays: the form for a time range, and the progress of one replay.

use axum::{
    Form, Router,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Filter, PAGE, Sink};
use crate::{
    Console,
    client::Api,
    components::{facts, form_key, live, state, text, time},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries/replays", post(start))
        .route("/deliveries/replays/{id}", get(show))
}

#[derive(Debug, Deserialize)]
struct Replay {
    id: Option<String>,
    sink: String,
    account_sid: Option<String>,
    message_sid: Option<String>,
    class: Option<String>,
    from: String,
    since: Option<String>,
    until: Option<String>,
    state: String,
    found: i64,
    queued: i64,
    left_out: i64,
    created_at: Option<String>,
    created_by: String,
    ended_at: Option<String>,
}

/// Renders the form of a replay by time range.
pub(super) fn form(sinks: &[Sink]) -> Markup {
    html! {
        h2 { "Replay" }
        form.card method="post" action="/console/deliveries/replays" {
            p.small { "Delivers recorded webhooks once more to one sink, marked as a replay." }
            input type="hidden" name="form_key" value=(form_key());
            label for="replay-sink" { "Sink" }
            select #replay-sink name="sink" { @for sink in sinks { option value=(sink.name) { (sink.name) } } }
            label for="replay-from" { "Source" }
            select #replay-from name="from" {
                option value="ledger" { "ledger" } option value="archive" { "archive" } option value="events" { "operational events" }
            }
            label for="replay-class" { "Class" }
            select #replay-class name="class" {
                option value="" { "all" } option value="inbound" { "inbound" } option value="status" { "status" }
            }
            label for="since" { "From (UTC, inclusive)" }
            input #since name="since" required placeholder="2026-01-31T08:00:00Z" spellcheck="false";
            label for="until" { "Until (UTC, exclusive)" }
            input #until name="until" placeholder="now" spellcheck="false";
            button type="submit" name="dry_run" value="true" { "Count only" }
            " "
            button.primary type="submit" name="dry_run" value="" { "Start the replay" }
        }
    }
}

/// Form of a replay.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewReplay {
    sink: String,
    from: String,
    class: String,
    since: String,
    until: String,
    dry_run: String,
    form_key: String,
}

async fn start(viewer: Viewer, Form(form): Form<NewReplay>) -> Result<Response, Failure> {
    let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
    let fields: [(&str, Option<Value>); 6] = [
        ("account_sid", viewer.account.clone().map(Value::from)),
        ("class", given(&form.class).map(Value::from)),
        ("from", given(&form.from).map(Value::from)),
        ("since", given(&form.since).map(Value::from)),
        ("until", given(&form.until).map(Value::from)),
        ("dry_run", given(&form.dry_run).map(|_| true.into())),
    ];
    let mut request = json!({ "sink": form.sink });
    if let Some(object) = request.as_object_mut() {
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        object.extend(fields);
    }
    let started: Result<Replay, Failure> =
        viewer.client.send_once(Api::Administration, "/v1/replays", &form.form_key, &request).await;
    match started.map_err(Failure::refusal) {
        Ok(Replay { id: Some(id), .. }) => {
            Ok(Redirect::to(&join("/console/deliveries/replays", &id)).into_response())
        }
        Ok(count) => Ok(viewer.page("Count of a replay", &details(&count)).into_response()),
        Err(refusal) => {
            let refusal = refusal?;
            let page = super::page(&viewer, &Filter::default(), &refusal.notice()).await?;
            Ok((refusal.status(), page).into_response())
        }
    }
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let path = join("/v1/replays", &id);
    let replay: Replay = viewer.client.get(Api::Administration, &path).await?;
    Ok(viewer.page(&format!("Replay {id}"), &live("replay", &details(&replay))))
}

fn details(replay: &Replay) -> Markup {
    html! {
        p { a href=(PAGE.path) { "All deliveries" } }
        div.cards {
            div.panel { div.number { (replay.found) } "webhooks match" }
            div.panel { div.number { (replay.queued) } "queued for the sink" }
            div.panel { div.number { (replay.left_out) } "left out: redacted, or only their settlement is recorded" }
        }
        div.panel {
            (facts([
                ("State", state(&replay.state)),
                ("Sink", text(Some(&replay.sink))),
                ("Source", text(Some(&replay.from))),
                ("Class", text(replay.class.as_deref())),
                ("Message", text(replay.message_sid.as_deref())),
                ("Account", text(replay.account_sid.as_deref())),
                ("From (UTC)", time(replay.since.as_deref())),
                ("Until (UTC)", time(replay.until.as_deref())),
                ("Started (UTC)", time(replay.created_at.as_deref())),
                ("Started by", text(Some(&replay.created_by))),
                ("Ended (UTC)", time(replay.ended_at.as_deref())),
            ]))
        }
    }
}
