//! Routes of the filter's configuration: JSON, or the Envoy configuration that contains it.

use std::env;
use std::path::Path;

use serde_json::{Value, json};
use twilio_edge_diagnosis::Routes;
use twilio_edge_filter::config::Config;

use twilio_edge_demo::EnvoyConfig;

/// Reads the routes of a file.
pub(super) fn routes(file: &Path) -> Result<Routes, String> {
    let file_name = file.display().to_string();
    let problem = |problem: String| format!("--filter-config {file_name}: {problem}");
    let text = std::fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
    let config = config(&text).map_err(problem)?;
    Ok(Routes::new(file_name, config))
}

/// Parses the routes alone: the secrets beside them are in Envoy's environment, not in this one.
fn config(text: &str) -> Result<Config, String> {
    let plugin = match serde_json::from_str::<Value>(text) {
        Ok(plugin) if plugin.get("routes").is_some() => plugin,
        _ => EnvoyConfig::parse(text).map_err(|error| error.to_string())?.plugin,
    };
    let mut routes = plugin.get("routes").cloned().unwrap_or_default();
    for route in routes.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        route.remove("accounts");
    }
    let plugin = json!({
        "origins": ["https://hooks.example.com"],
        "accounts": [{ "sid": format!("AC{}", "0".repeat(32)), "auth_tokens": ["0".repeat(32)] }],
        "sidecar": { "cluster": "sidecar", "token": "0".repeat(32) },
        "routes": routes,
    });
    Config::parse(plugin.to_string().as_bytes(), &|name| env::var(name).ok()).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}
