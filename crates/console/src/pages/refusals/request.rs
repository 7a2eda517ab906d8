//! One refused request with its explanation.

use axum::{Router, extract::Path, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{PAGE, kind};
use crate::{
    client::Api,
    components::{copyable, facts, prose, text, time},
    console::Console,
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/refusals/{id}", get(show))
}

/// A refused request. It has no value of a parameter.
#[derive(Debug, Deserialize)]
pub(super) struct RefusedRequest {
    pub(super) id: String,
    at: Option<String>,
    account_sid: Option<String>,
    message_sid: Option<String>,
    kind: String,
    reason: String,
    route: String,
    is_shadow: bool,
    method: String,
    path: String,
    authority: Option<String>,
    request_id: Option<String>,
}

/// A refused request with its explanation.
#[derive(Debug, Deserialize)]
struct ExplainedRequest {
    #[serde(flatten)]
    request: RefusedRequest,
    finding: String,
    remedy: String,
    parameters: Vec<String>,
    body_bytes: u64,
    explanation: Option<Value>,
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let body = html! {
        p { a href=(PAGE.path) { "All causes" } }
        (explanation(&viewer, &id).await?)
    };
    Ok(viewer.page("Refused request", &body))
}

/// Renders one request with its explanation.
pub(super) async fn explanation(viewer: &Viewer, id: &str) -> Result<Markup, Failure> {
    let path = join("/v1/refusals", id);
    let explained: ExplainedRequest = viewer.client.get(Api::Application, &path).await?;
    let request = &explained.request;
    let report = explained.explanation.as_ref();
    let report = report.and_then(|report| serde_json::to_string_pretty(report).ok());
    Ok(html! {
        div.panel {
            p { (kind(&request.kind)) }
            p { strong { "The request " (explained.finding) "." } }
            p { strong { "Change this: " } (prose(&explained.remedy)) }
        }
        h2 { "The latest request" }
        div.panel {
            (facts([
                ("Time (UTC)", time(request.at.as_deref())),
                ("Request", html! { code { (request.method) " " (request.path) } }),
                ("Host", text(request.authority.as_deref())),
                ("Route", text(Some(&request.route))),
                ("Reason of the filter", text(Some(&request.reason))),
                ("Effect", text(Some(if request.is_shadow { "forwarded: the route is in shadow mode" } else { "refused" }))),
                ("Account", text(request.account_sid.as_deref())),
                ("Message", message(request.message_sid.as_deref())),
                ("Parameters", text(Some(&explained.parameters.join(", ")))),
                ("Body", html! { (explained.body_bytes) " bytes" }),
                ("Request id", text(request.request_id.as_deref())),
            ]))
        }
        @if let Some(report) = report {
            details {
                summary { "Complete report" }
                (copyable("report", "Report of twilio-edge explain", &report))
            }
        }
    })
}

fn message(sid: Option<&str>) -> Markup {
    html! {
        @match sid {
            Some(sid) => a href=(join("/console/messages", sid)) { (sid) },
            None => (text(None)),
        }
    }
}

/// Renders refused requests as a table.
pub(super) fn table(requests: &[RefusedRequest]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Refused requests" {
            table {
                caption { "Refused requests, the latest first" }
                thead {
                    tr {
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Request" }
                        th scope="col" { "Host" }
                        th scope="col" { "Reason" }
                        th scope="col" { "Message" }
                    }
                }
                tbody {
                    @for request in requests {
                        tr data-row=(request.id) {
                            td { a href=(join(PAGE.path, &request.id)) { (time(request.at.as_deref())) } }
                            td.wide { code { (request.method) " " (request.path) } }
                            td { (text(request.authority.as_deref())) }
                            td { code { (request.reason) } }
                            td { (message(request.message_sid.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
