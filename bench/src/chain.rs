//! Variants of the shipped Envoy configuration with another filter chain: no filter, the filter without a sidecar, or
//! Envoy's own filter for authorization services. The rest of the file is as shipped.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use twilio_edge_demo::{EnvoyConfig, SIDECAR_CLUSTER};

const CHAIN: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// Returns the configuration without the filter.
pub(crate) fn without_filter(config: &EnvoyConfig) -> Result<String> {
    with_instead(config, None)
}

/// Returns the configuration of the filter without a sidecar.
pub(crate) fn without_sidecar(mut config: EnvoyConfig) -> Result<String> {
    let plugin = config.plugin.as_object_mut().context("the filter's configuration")?;
    plugin.remove("sidecar").context("no sidecar in the filter's configuration")?;
    Ok(config.to_json()?)
}

/// Returns the configuration with accept delivery; a webhook that the sidecar does not accept gets 503.
pub(crate) fn accepting(mut config: EnvoyConfig) -> Result<String> {
    let routes = config.plugin.get_mut("routes").and_then(Value::as_array_mut);
    let routes = routes.context("no routes in the filter's configuration")?.iter_mut();
    for route in routes.filter_map(Value::as_object_mut) {
        if route.get("class").is_none_or(|class| class == "other") {
            continue;
        }
        route.insert("delivery".to_owned(), "accept".into());
        route.insert("on_unavailable".to_owned(), "reject".into());
    }
    Ok(config.to_json()?)
}

/// Returns the configuration in which Envoy asks an authorization service in place of the sidecar. The limits are those of
/// the filter: a body of up to 64 KiB, half a second, and no unproven webhook is forwarded. Envoy sends only what the
/// service reads, in the HTTP form, which passes the request unchanged; the gRPC form would wrap it once more.
pub(crate) fn with_ext_authz(config: &EnvoyConfig) -> Result<String> {
    let filter = json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "http_service": {
                "server_uri": { "uri": "http://ext-authz", "cluster": SIDECAR_CLUSTER, "timeout": "0.5s" },
                "path_prefix": "/check",
                "authorization_response": {
                    "allowed_upstream_headers": { "patterns": [{ "prefix": "x-twilio-edge-" }] }
                }
            },
            "allowed_headers": {
                "patterns": [{ "exact": "content-type" }, { "exact": "x-twilio-signature" }]
            },
            "with_request_body": {
                "max_request_bytes": 65536,
                "allow_partial_message": false,
                "pack_as_bytes": true
            },
            "failure_mode_allow": false,
            "status_on_error": { "code": "ServiceUnavailable" }
        }
    });
    with_instead(config, Some(filter))
}

fn with_instead(config: &EnvoyConfig, filter: Option<Value>) -> Result<String> {
    let mut bootstrap: Value = serde_json::from_str(&config.to_json()?)?;
    let chain = bootstrap.pointer_mut(CHAIN).and_then(Value::as_array_mut);
    let chain = chain.context("the shipped configuration has no http_filters where they were")?;
    let ours = chain
        .iter()
        .position(|filter| filter.get("name").is_some_and(|name| name == "twilio_edge"))
        .context("the shipped configuration has no filter twilio_edge")?;
    chain.splice(ours..=ours, filter);
    Ok(bootstrap.to_string())
}
