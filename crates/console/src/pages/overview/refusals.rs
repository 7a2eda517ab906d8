//! Requests that filters refused, by cause, the latest cause first.

use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    chart::share,
    client::Api,
    components::{empty, time},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

/// Number of causes.
const SHOWN: &str = "5";

#[derive(Debug, Deserialize)]
struct GroupList {
    refusals: Vec<Group>,
}

/// Refused requests of one cause.
#[derive(Debug, Deserialize)]
struct Group {
    id: String,
    kind: String,
    cause: String,
    route: String,
    requests: u64,
    skipped: u64,
    last_at: Option<String>,
}

impl Group {
    fn total(&self) -> u64 {
        self.requests.saturating_add(self.skipped)
    }

    /// Returns the class of the colour: refusals of genuine webhooks are a mistake of the configuration.
    fn class(&self) -> &'static str {
        match self.kind.as_str() {
            "misconfiguration" => "bad",
            "stranger" => "plain",
            _ => "wait",
        }
    }
}

/// Renders the latest causes.
pub(super) async fn section(viewer: &Viewer) -> Result<Markup, Failure> {
    let path = viewer.of_account("/v1/refusals", [("limit", Some(SHOWN))]);
    Ok(match viewer.client.get::<GroupList>(Api::Application, &path).await {
        Ok(list) if list.refusals.is_empty() => {
            empty("No filter has reported a refused request that this key may see.")
        }
        Ok(list) => html! {
            (table(&list.refusals))
            p.small { a href="/console/refusals" { "All causes, each with the change that would make its requests pass" } }
        },
        Err(failure) => failure.refusal()?.notice(),
    })
}

fn table(groups: &[Group]) -> Markup {
    let highest = groups.iter().map(Group::total).max().unwrap_or_default();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Refused webhooks by cause" {
            table {
                thead {
                    tr {
                        th scope="col" { "Cause" }
                        th scope="col" { "Kind" }
                        th scope="col" { "Route" }
                        th scope="col" { "Requests" }
                        th scope="col" { "Last (UTC)" }
                    }
                }
                tbody {
                    @for group in groups {
                        tr data-row=(group.id) {
                            td { a href=(join("/console/refusals/groups", &group.id)) { (group.cause.replace('_', " ")) } }
                            td { span class={ "badge " (group.class()) } { (group.kind) } }
                            td { code { (group.route) } }
                            td.number-cell { (group.total()) (share(group.class(), group.total(), highest)) }
                            td { (time(group.last_at.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
