//! Replays: the form for one by time range, and one with its progress.

use axum::{
    Form, Router,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Response},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PAGE, Sink, sinks};
use crate::{
    action::{answer, given},
    client::Api,
    components::{empty, facts, form_key, live, next_page, state, text, time},
    console::Console,
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PATH: &str = "/console/deliveries/replays";

const API: &str = "/v1/replays";

/// Number of replays on the page of deliveries, and on a page of the list.
const LATEST: &str = "5";
const PAGE_SIZE: &str = "25";

/// Sources of webhooks, as the API names them, and their meanings.
const SOURCES: [(&str, &str); 3] = [
    ("ledger", "webhooks of the database"),
    ("archive", "webhooks of the archive"),
    ("events", "operational events"),
];

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries/replays", get(compose).post(start))
        .route("/deliveries/replays/{id}", get(show))
}

/// Fields of the form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewReplay {
    sink: String,
    since: String,
    until: String,
    class: String,
    message_sid: String,
    from: String,
    action: String,
    form_key: String,
}

impl NewReplay {
    fn request(&self, account: Option<&str>, dry_run: bool) -> Value {
        let from = given(&self.from).unwrap_or("ledger");
        let mut request = json!({ "sink": self.sink, "from": from, "dry_run": dry_run });
        let fields = [
            ("account_sid", account),
            ("since", given(&self.since)),
            ("until", given(&self.until)),
            ("class", given(&self.class)),
            ("message_sid", given(&self.message_sid)),
        ];
        for (name, value) in fields {
            if let (Some(value), Some(request)) = (value, request.as_object_mut()) {
                request.insert(name.to_owned(), value.into());
            }
        }
        request
    }
}

/// A replay with its progress.
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
    found: u64,
    queued: u64,
    left_out: u64,
    created_at: Option<String>,
    created_by: String,
    ended_at: Option<String>,
}

/// A page of replays, the latest first.
#[derive(Debug, Deserialize)]
struct ReplayList {
    replays: Vec<Replay>,
    next_cursor: Option<String>,
}

/// Position in the list of replays.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Position {
    cursor: String,
}

/// Renders a page of replays with their progress. `next` renders the link to the next page.
async fn list(
    viewer: &Viewer,
    limit: &str,
    cursor: &str,
    next: impl FnOnce(Option<&str>) -> Markup,
) -> Result<Markup, Failure> {
    let path = viewer.of_account(API, [("limit", Some(limit)), ("cursor", Some(cursor))]);
    Ok(match viewer.client.get::<ReplayList>(Api::Administration, &path).await {
        Ok(list) if list.replays.is_empty() => live(
            "replays",
            &empty(
                "There is no replay. A replay delivers recorded webhooks once more to one sink.",
            ),
        ),
        Ok(list) => {
            let next = next(list.next_cursor.as_deref());
            html! { (live("replays", &table(&list.replays, viewer.account.is_none()))) (next) }
        }
        Err(failure) => failure.refusal()?.notice(),
    })
}

/// Renders the latest replays for the page of deliveries.
pub(super) async fn latest(viewer: &Viewer) -> Result<Markup, Failure> {
    let all = |cursor: Option<&str>| {
        html! { @if cursor.is_some() { p.next { a.button href=(PATH) { "All replays" } } } }
    };
    list(viewer, LATEST, "", all).await
}

/// Renders the replays; those of one account need no column for it.
fn table(replays: &[Replay], has_accounts: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Replays" {
            table {
                caption { "Replays, the latest first" }
                thead {
                    tr {
                        th scope="col" { "Started (UTC)" }
                        th scope="col" { "Sink" }
                        th scope="col" { "Progress" }
                        th scope="col" { "Queued" }
                        th scope="col" { "Left out" }
                        @if has_accounts { th scope="col" { "Account" } }
                        th scope="col" { "From (UTC)" }
                        th scope="col" { "Until (UTC)" }
                        th scope="col" { "Started by" }
                    }
                }
                tbody {
                    @for replay in replays {
                        @let id = replay.id.as_deref().unwrap_or_default();
                        tr data-row=(id) {
                            td { a href=(join(PATH, id)) { (time(replay.created_at.as_deref())) } }
                            td { (replay.sink) }
                            td { (state(&replay.state)) }
                            td.number-cell { (replay.queued) " of " (replay.found) }
                            td.number-cell { (replay.left_out) }
                            @if has_accounts { td { (text(replay.account_sid.as_deref())) } }
                            td { (time(replay.since.as_deref())) }
                            td { (time(replay.until.as_deref())) }
                            td { (replay.created_by) }
                        }
                    }
                }
            }
        }
    }
}

async fn compose(
    viewer: Viewer,
    Query(replay): Query<NewReplay>,
    Query(Position { cursor }): Query<Position>,
) -> Result<Markup, Failure> {
    form(&viewer, &replay, &cursor, Markup::default()).await
}

async fn start(viewer: Viewer, Form(replay): Form<NewReplay>) -> Result<Response, Failure> {
    let account = viewer.account.as_deref();
    if replay.action == "count" {
        let request = replay.request(account, true);
        let counted = viewer.client.send(Api::Administration, Method::POST, API, &request).await;
        let notice = match counted {
            Ok(replay) => count(&replay),
            Err(failure) => failure.refusal()?.notice(),
        };
        return Ok(form(&viewer, &replay, "", notice).await?.into_response());
    }
    let (request, key) = (replay.request(account, false), &replay.form_key);
    let started = viewer.client.send_once::<Replay>(Api::Administration, API, key, &request).await;
    let next = |started: Replay| join(PATH, &started.id.unwrap_or_default());
    answer(started, next, async |notice| form(&viewer, &replay, "", notice).await).await
}

fn count(replay: &Replay) -> Markup {
    let is_complete = replay.state == "done";
    html! {
        div.notice.hint role="status" {
            p {
                strong { (if is_complete { "" } else { "At least " }) (replay.queued) }
                " would be delivered to " (replay.sink) ". " (replay.left_out) " would be left out, because they were redacted."
            }
        }
    }
}

async fn form(
    viewer: &Viewer,
    replay: &NewReplay,
    cursor: &str,
    notice: Markup,
) -> Result<Markup, Failure> {
    let sinks = sinks(viewer).await?;
    let next = |next: Option<&str>| next_page(PATH, &[], next);
    let replays = list(viewer, PAGE_SIZE, cursor, next).await?;
    let body = html! {
        p { a href=(PAGE.path) { "Sinks and dead letters" } }
        (notice)
        p { "A replay delivers recorded webhooks once more to one sink, beside new ones. Each has " code { "replay: true" } " and the same event id." }
        @if sinks.is_empty() {
            (empty("This sidecar has no sinks to replay to. Name a sinks file in sinks.file."))
        } @else {
            (fields(replay, &sinks))
        }
        h2 { "Replays" }
        (replays)
    };
    Ok(viewer.page("Replay webhooks", &body))
}

fn fields(replay: &NewReplay, sinks: &[Sink]) -> Markup {
    html! {
        form.card method="post" action=(PATH) {
            input type="hidden" name="form_key" value=(form_key());
            label for="replay-sink" { "Sink" }
            select #replay-sink name="sink" {
                @for sink in sinks { option value=(sink.name) selected[sink.name == replay.sink] { (sink.name) } }
            }
            label for="replay-since" { "From (UTC)" }
            input #replay-since name="since" value=(replay.since) placeholder="2026-01-31T12:00:00Z" spellcheck="false";
            label for="replay-until" { "Until (UTC), empty for now" }
            input #replay-until name="until" value=(replay.until) placeholder="2026-01-31T13:00:00Z" spellcheck="false";
            label for="replay-class" { "Class" }
            select #replay-class name="class" {
                option value="" { "all" }
                @for class in ["inbound", "status"] { option value=(class) selected[class == replay.class] { (class) } }
            }
            label for="replay-message" { "Message SID, empty for all" }
            input #replay-message name="message_sid" value=(replay.message_sid) placeholder="SM.." spellcheck="false";
            label for="replay-from" { "Source" }
            select #replay-from name="from" {
                @for (name, meaning) in SOURCES { option value=(name) selected[name == replay.from] { (meaning) } }
            }
            div.actions {
                button type="submit" name="action" value="count" { "Count only" }
                button.primary type="submit" name="action" value="start" { "Start the replay" }
            }
        }
    }
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let replay: Replay = viewer.client.get(Api::Administration, &join(API, &id)).await?;
    let body = html! {
        p { a href=(PATH) { "Replay webhooks" } }
        (live("replay", &html! {
            div.cards role="status" {
                div.panel { div.number { (replay.found) } "webhooks found" }
                div.panel { div.number { (replay.queued) } "queued for the sink" }
                div.panel { div.number { (replay.left_out) } "left out: redacted, or without content" }
            }
            div.panel {
                (facts([
                    ("Progress", state(&replay.state)),
                    ("Sink", text(Some(&replay.sink))),
                    ("From (UTC)", time(replay.since.as_deref())),
                    ("Until (UTC)", time(replay.until.as_deref())),
                    ("Class", text(replay.class.as_deref().or(Some("all")))),
                    ("Message", text(replay.message_sid.as_deref().or(Some("all")))),
                    ("Account", text(replay.account_sid.as_deref().or(Some("all")))),
                    ("Source", text(Some(&replay.from))),
                    ("Started (UTC)", time(replay.created_at.as_deref())),
                    ("Started by", text(Some(&replay.created_by))),
                    ("Ended (UTC)", time(replay.ended_at.as_deref())),
                ]))
            }
        }))
        p.small { "A replay continues when this page is closed, and when a sidecar restarts. Its sink receives the queued webhooks one by one." }
    };
    Ok(viewer.page(&format!("Replay {id}"), &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_a_value_are_left_out_of_the_request() {
        let replay =
            NewReplay { sink: "app".into(), since: " 2026-01-31 ".into(), ..NewReplay::default() };
        let request = replay.request(Some("AC1"), true);
        let expected = json!({
            "sink": "app", "from": "ledger", "dry_run": true, "account_sid": "AC1", "since": "2026-01-31",
        });
        assert_eq!(request, expected);
    }
}
