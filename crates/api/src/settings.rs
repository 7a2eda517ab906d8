//! `GET /v1/settings`: the settings in effect of this sidecar, as `twilio-edge print-config` shows them.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{
    app::{App, EffectiveSettings},
    body::json,
};
use twilio_edge_platform::config::Setting;
use twilio_edge_services::access::api_keys::Caller;

/// A setting in effect.
#[derive(Serialize, ToSchema)]
struct SettingView {
    /// Path of the setting, such as `leases.period_ms`.
    name: String,
    /// Environment variable that sets it.
    variable: String,
    /// Value in effect. Secrets, and the passwords, paths and queries of URLs, are replaced by `***`.
    value: Value,
    /// True if the value is the default.
    is_default: bool,
}

impl SettingView {
    fn of(setting: &Setting) -> SettingView {
        SettingView {
            name: setting.name.clone(),
            variable: setting.variable.clone(),
            value: serde_json::to_value(&setting.value).unwrap_or_default(),
            is_default: setting.is_default,
        }
    }
}

/// The settings in effect of one sidecar, ordered by name.
#[derive(Serialize, ToSchema)]
struct SettingList {
    settings: Vec<SettingView>,
    /// Settings that are valid but rarely intended.
    warnings: Vec<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the settings in effect of this sidecar, without secrets. They concern all accounts: a key that is bound to an account
/// is refused.
#[utoipa::path(
    get,
    path = "/v1/settings",
    tag = "settings",
    operation_id = "list_settings",
    responses((status = 200, description = "The settings in effect", body = SettingList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(effective): State<Arc<EffectiveSettings>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    if caller.account_sid.is_some() {
        return Err(Problem::other_account());
    }
    let settings = effective.settings.iter().map(SettingView::of).collect();
    Ok(json(&SettingList { settings, warnings: effective.warnings.clone() }))
}
