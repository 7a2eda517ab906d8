//! Overview: health of the dependencies, and the messages of the last day.

use axum::{Router, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use super::Page;
use crate::{
    Console,
    chart::{Series, bars},
    client::Api,
    components::{live, state},
    failure::Failure,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: crate::ROOT,
    title: "Overview",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new().route("/", get(show))
}

#[derive(Debug, Deserialize)]
struct Statistics {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    hour: Option<String>,
    sent: u64,
    delivered: u64,
    failed: u64,
    refused: u64,
}

#[derive(Debug, Deserialize)]
struct Readiness {
    database: String,
    redis: Option<String>,
    accounts: Option<String>,
}

async fn show(viewer: Viewer) -> Result<Markup, Failure> {
    let path = viewer.of_account("/v1/statistics", [("by", Some("hour"))]);
    let messages = match viewer.client.get::<Statistics>(Api::Application, &path).await {
        Ok(statistics) => messages(&statistics.groups),
        Err(failure) => failure.refusal()?.notice(),
    };
    let health: Readiness = viewer.client.get(Api::Application, "/readyz").await?;
    let body = html! {
        h2 { "Dependencies" }
        div.cards {
            (dependency("Database", Some(&health.database)))
            (dependency("Redis", health.redis.as_deref()))
            (dependency("Accounts file", health.accounts.as_deref()))
        }
        h2 { "Messages of the last day" }
        (messages)
    };
    Ok(viewer.page("Overview", &live("overview", &body)))
}

fn dependency(name: &str, health: Option<&str>) -> Markup {
    html! {
        div.panel { (name) " " @match health { Some(health) => (state(health)), None => span.none { "not configured" } } }
    }
}

fn messages(groups: &[Group]) -> Markup {
    let time = |group: &Group| group.hour.as_deref().unwrap_or_default().chars().skip(11).take(5).collect();
    let times: Vec<String> = groups.iter().map(time).collect();
    let series = |name, class, value: fn(&Group) -> u64| Series {
        name,
        class,
        values: groups.iter().map(value).collect(),
    };
    bars(
        "By hour (UTC)",
        &times,
        &[
            series("delivered", "good", |group| group.delivered),
            series("sent", "plain", |group| group.sent),
            series("failed", "bad", |group| group.failed),
            series("refused", "wait", |group| group.refused),
        ],
    )
}
