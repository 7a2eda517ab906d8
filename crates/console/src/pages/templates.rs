//! Templates: the catalogue of an account, and one template with a preview and a test message.

mod template;

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    client::Api,
    components::{Field, empty, next_page, search, state, text, time},
    console::{Console, Page},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/templates",
    title: "Templates",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// Approval statuses of WhatsApp, as the API names them.
const APPROVALS: [&str; 6] =
    ["approved", "pending", "unsubmitted", "paused", "rejected", "disabled"];

fn routes() -> Router<Console> {
    Router::new().route("/templates", get(list)).merge(template::routes())
}

/// A template in one language.
#[derive(Debug, Deserialize)]
struct Template {
    name: String,
    locale: String,
    content_sid: String,
    source: String,
    approval: String,
    reason: Option<String>,
    category: Option<String>,
    variables: Vec<String>,
    text: Option<String>,
    changed_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TemplateList {
    templates: Vec<Template>,
    next_cursor: Option<String>,
    synced_at: Option<String>,
    problem: Option<String>,
}

/// Search of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    approval: String,
    cursor: String,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let parameters: [(&str, &str); 2] =
        [("approval", &filter.approval), ("cursor", &filter.cursor)];
    let path =
        viewer.of_account("/v1/templates", parameters.map(|(name, value)| (name, Some(value))));
    let found = match viewer.client.get::<TemplateList>(Api::Application, &path).await {
        Ok(list) => html! {
            (synchronization(&list))
            @if list.templates.is_empty() {
                (empty("No template matches. Create templates in Twilio's Content Template Builder; the sidecar reads them every few minutes with the account's credentials (sending.file)."))
            } @else {
                (table(&list.templates))
                (next_page(PAGE.path, &parameters, list.next_cursor.as_deref()))
            }
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let field = Field::Choice {
        name: "approval",
        label: "Approval",
        options: &APPROVALS,
        value: &filter.approval,
    };
    Ok(viewer.page(PAGE.title, &html! { (search(PAGE.path, &[field])) (found) }))
}

fn synchronization(list: &TemplateList) -> Markup {
    html! {
        @match &list.synced_at {
            Some(at) => p.small { "Read from Twilio at " (time(Some(at))) " UTC." },
            None => p.small { "Not read from Twilio yet." },
        }
        @if let Some(problem) = &list.problem {
            div.notice.bad { p { strong { "The templates could not be read from Twilio since then. " } (problem) } }
        }
    }
}

fn table(templates: &[Template]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Templates" {
            table {
                caption { "Templates by name and language" }
                thead {
                    tr {
                        th scope="col" { "Name" }
                        th scope="col" { "Language" }
                        th scope="col" { "Approval" }
                        th scope="col" { "Category" }
                        th scope="col" { "Text" }
                        th scope="col" { "Changed (UTC)" }
                    }
                }
                tbody {
                    @for template in templates {
                        tr data-row=(template.content_sid) {
                            td.wide { a href=(join(PAGE.path, &template.name)) { (template.name) } }
                            td { (template.locale) }
                            td { (state(&template.approval)) }
                            td { (text(template.category.as_deref())) }
                            td.wide { (text(template.text.as_deref())) }
                            td { (time(template.changed_at.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
