//! Deliveries: the sinks with their backlog, dead letters with the decisions about them, and replays.

mod dead_letters;
mod replay;

use axum::{
    Router,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use self::dead_letters::{Attempt, attempt_facts};
use crate::{
    client::Api,
    components::{empty, live, state, time},
    console::{Console, Page},
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/deliveries",
    title: "Deliveries",
    api: Api::Administration,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries", get(show))
        .route("/deliveries/sinks/{name}/test", post(test))
        .merge(dead_letters::routes())
        .merge(replay::routes())
}

/// A sink with its backlog.
#[derive(Debug, Deserialize)]
pub(super) struct Sink {
    pub(super) name: String,
    #[serde(rename = "type")]
    type_name: String,
    pub(super) available: bool,
    pub(super) waiting: u64,
    pub(super) oldest_waiting_at: Option<String>,
    pub(super) dead_letters: u64,
    oldest_dead_letter_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SinkList {
    sinks: Vec<Sink>,
}

/// Answer of a sink to a test event.
#[derive(Debug, Deserialize)]
struct SinkTest {
    sink: String,
    attempt: Attempt,
}

/// Fetches the sinks.
pub(super) async fn sinks(viewer: &Viewer) -> Result<Vec<Sink>, Failure> {
    let list: SinkList = viewer.client.get(Api::Administration, "/v1/sinks").await?;
    Ok(list.sinks)
}

async fn show(
    viewer: Viewer,
    Query(filter): Query<dead_letters::Filter>,
    Query(decided): Query<dead_letters::Decided>,
) -> Result<Markup, Failure> {
    page(&viewer, &filter, decided.notice()).await
}

async fn page(
    viewer: &Viewer,
    filter: &dead_letters::Filter,
    notice: Markup,
) -> Result<Markup, Failure> {
    let sinks = sinks(viewer).await?;
    let dead_letters = dead_letters::section(viewer, filter, &sinks).await?;
    let replays = replay::latest(viewer).await?;
    let body = html! {
        (notice)
        h2 { "Sinks" }
        @if sinks.is_empty() {
            (empty("This sidecar has no sinks. Describe a sink in a file, and name the file in sinks.file (docs/DELIVERY.md)."))
        } @else {
            (live("sinks", &table(&sinks)))
            p.small { "Counts are those of all accounts; 1000 means 1000 or more." }
        }
        h2 { "Dead letters" }
        (dead_letters)
        h2 { "Replays" }
        @if !sinks.is_empty() { p.actions { a.button href=(replay::PATH) { "Replay webhooks" } } }
        (replays)
    };
    Ok(viewer.page(PAGE.title, &body))
}

fn table(sinks: &[Sink]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Sinks" {
            table {
                caption { "Sinks of this sidecar" }
                thead {
                    tr {
                        th scope="col" { "Sink" }
                        th scope="col" { "Type" }
                        th scope="col" { "State" }
                        th scope="col" { "Waiting" }
                        th scope="col" { "Oldest waits since (UTC)" }
                        th scope="col" { "Dead letters" }
                        th scope="col" { "Oldest given up (UTC)" }
                        th scope="col" { "Action" }
                    }
                }
                tbody {
                    @for sink in sinks {
                        tr data-row=(sink.name) {
                            td { (sink.name) }
                            td { (sink.type_name) }
                            td { (state(if sink.available { "ok" } else { "unavailable" })) }
                            td.number-cell { (sink.waiting) }
                            td { (time(sink.oldest_waiting_at.as_deref())) }
                            td.number-cell {
                                @if sink.dead_letters > 0 {
                                    a href=(query(PAGE.path, [("sink", Some(sink.name.as_str()))])) { (sink.dead_letters) }
                                } @else { "0" }
                            }
                            td { (time(sink.oldest_dead_letter_at.as_deref())) }
                            td {
                                form method="post" action={ (join("/console/deliveries/sinks", &sink.name)) "/test" } {
                                    button type="submit" { "Send a test event" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

async fn test(viewer: Viewer, Path(name): Path<String>) -> Result<Response, Failure> {
    let path = format!("{}/test", join("/v1/sinks", &name));
    let tested =
        viewer.client.send::<SinkTest>(Api::Administration, Method::POST, &path, &json!({})).await;
    let notice = match tested {
        Ok(SinkTest { sink, attempt }) => {
            let is_delivered = attempt.outcome == "delivered";
            html! {
                div.notice.good[is_delivered].bad[!is_delivered] role="status" {
                    p { strong { "Test event for " (sink) ": " } (attempt.outcome) "." }
                    (attempt_facts(&attempt))
                }
            }
        }
        Err(failure) => failure.refusal()?.notice(),
    };
    Ok(page(&viewer, &dead_letters::Filter::default(), notice).await?.into_response())
}
