//! Settings in effect of the sidecar that shows the page, without secrets.

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    client::Api,
    components::{Field, empty, search},
    console::{Console, Page},
    failure::Failure,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/settings",
    title: "Settings in effect",
    api: Api::Administration,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new().route("/settings", get(show))
}

#[derive(Debug, Deserialize)]
struct SettingList {
    settings: Vec<Setting>,
    warnings: Vec<String>,
}

/// A setting in effect.
#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    variable: String,
    value: Value,
    is_default: bool,
}

/// Search of the settings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    name: String,
    changed: String,
}

impl Filter {
    fn is_match(&self, setting: &Setting) -> bool {
        let name = self.name.trim().to_ascii_lowercase();
        let has_name =
            setting.name.contains(&name) || setting.variable.to_ascii_lowercase().contains(&name);
        has_name && (self.changed.is_empty() || !setting.is_default)
    }
}

async fn show(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let found = viewer.client.get::<SettingList>(Api::Administration, "/v1/settings").await;
    let found = match found {
        Ok(list) => {
            let matching: Vec<&Setting> =
                list.settings.iter().filter(|setting| filter.is_match(setting)).collect();
            html! {
                @for warning in &list.warnings { div.notice.bad { p { strong { "Warning. " } (warning) } } }
                @if matching.is_empty() {
                    (empty("No setting matches. Clear the search to see all settings."))
                } @else {
                    (table(&matching))
                }
            }
        }
        Err(failure) => failure.refusal()?.notice(),
    };
    let fields = [
        Field::Text {
            name: "name",
            label: "Name or variable",
            example: "sending",
            value: &filter.name,
        },
        Field::Choice {
            name: "changed",
            label: "Only changed ones",
            options: &["true"],
            value: &filter.changed,
        },
    ];
    let body = html! {
        p { "The settings of this sidecar since its start: the defaults, the settings file, and the environment. Secrets are "
            code { "***" } "." }
        (search(PAGE.path, &fields))
        (found)
    };
    Ok(viewer.page(PAGE.title, &body))
}

fn table(settings: &[&Setting]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Settings" {
            table {
                caption { "Settings in effect" }
                thead {
                    tr {
                        th scope="col" { "Setting" }
                        th scope="col" { "Value" }
                        th scope="col" { "Default" }
                        th scope="col" { "Environment variable" }
                    }
                }
                tbody {
                    @for setting in settings {
                        tr data-row=(setting.name) {
                            td { code { (setting.name) } }
                            td.wide { (value(&setting.value)) }
                            td { @if setting.is_default { "yes" } @else { span.badge.wait { "changed" } } }
                            td { code { (setting.variable) } }
                        }
                    }
                }
            }
        }
    }
}

fn value(value: &Value) -> Markup {
    html! {
        @match value {
            Value::String(text) if text.is_empty() => span.none { "empty" },
            Value::String(text) => (text),
            Value::Array(values) if values.is_empty() => span.none { "empty" },
            value => code { (value.to_string()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn setting_is_found_by_its_name_or_its_variable() {
        let setting: Setting = serde_json::from_value(json!({
            "name": "leases.period_ms", "variable": "TWILIO_EDGE_LEASES_PERIOD_MS", "value": 1, "is_default": true,
        }))
        .unwrap();
        let is_match = |name: &str, changed: &str| {
            Filter { name: name.into(), changed: changed.into() }.is_match(&setting)
        };
        assert!(is_match("", "") && is_match(" Period ", "") && is_match("EDGE_LEASES", ""));
        assert!(!is_match("sending", "") && !is_match("", "true"));
    }
}
