//! Model of the control planes between the Kubernetes resources and Envoy: what istiod makes of an EnvoyFilter, what Istio's
//! agent makes of the filter's image, and what Envoy Gateway makes of an EnvoyPatchPolicy. It covers just enough that the
//! configuration in those resources runs unchanged in a real Envoy; an unknown operation is an error.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::envoy::module;
use crate::repository;

const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0";

/// Returns every resource of the YAML files in `folder`, a path from the root of the repository, ordered by file name.
pub fn resources(folder: &str) -> Result<Vec<Value>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(repository().join(folder)).with_context(|| folder.to_owned())? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    let mut resources = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| path.display().to_string())?;
        resources.extend(documents);
    }
    Ok(resources)
}

/// Returns the problems that the published schemas and types find in these resources; empty if there are none.
pub fn judged(resources: &[Value]) -> Result<String> {
    let folder = std::env::var_os("TWILIO_EDGE_MANIFESTS")
        .map_or_else(|| repository().join(".tools/manifests"), PathBuf::from);
    ensure!(folder.join("node_modules").exists(), "no schemas: run `make setup-test`");
    let script = std::fs::read_to_string(repository().join("wasm-tests/manifests/check.mjs"))?;
    let mut node = Command::new("node")
        .args(["--input-type=module", "--eval", &script])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("node")?;
    node.stdin
        .take()
        .context("its input")?
        .write_all(serde_json::to_string(resources)?.as_bytes())?;
    let output = node.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success() == text.is_empty(), "{}: {text}", output.status);
    Ok(text)
}

/// Returns the only resource of a kind.
pub fn the<'a>(resources: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found =
        resources.iter().filter(|resource| text(resource, "/kind").is_ok_and(|is| is == kind));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => bail!("there is not exactly one {kind}"),
    }
}

/// Returns a gateway as the control planes create one, as far as it concerns the filter: a listener, a router, and a route
/// of everything to the application.
pub fn gateway(edge: SocketAddr, admin: SocketAddr, application: SocketAddr) -> Value {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "node": { "id": "gateway", "cluster": "gateway" },
        "admin": { "address": address(admin) },
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": address(edge),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": manager,
                        "stat_prefix": "gateway",
                        "normalize_path": true,
                        "http_filters": [
                            { "name": "envoy.filters.http.router", "typed_config": { "@type": router } },
                        ],
                        "route_config": { "virtual_hosts": [{
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "application" } }],
                        }] },
                    },
                }] }],
            }],
            "clusters": [cluster("application", application)],
        },
    })
}

/// Returns a cluster of one endpoint, as control planes create them from Services.
pub fn cluster(name: &str, endpoint: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(endpoint) } }] }],
        },
    })
}

/// Applies an EnvoyFilter as istiod does, and the extensions it names as the gateway's agent does: ECDS, here from files in
/// `folder`, with the image replaced by the file that it contained.
pub fn apply_envoy_filter(bootstrap: &mut Value, filter: &Value, folder: &Path) -> Result<()> {
    for patch in list(filter, "/spec/configPatches")? {
        let mut value = patch.pointer("/patch/value").context("no value")?.clone();
        let name = text(&value, "/name").map(|name| folder.join(format!("{name}.json")));
        match (text(patch, "/applyTo")?, text(patch, "/patch/operation")?) {
            ("EXTENSION_CONFIG", "ADD") => {
                let code = value
                    .pointer_mut("/typed_config/config/vm_config/code")
                    .context("no code in the extension")?;
                let image = text(code, "/remote/http_uri/uri")?;
                ensure!(image.starts_with("oci://"), "{image}");
                *code = json!({ "local": { "filename": module()? } });
                let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
                let resource = value.as_object_mut().context("no object")?;
                resource.insert("@type".into(), kind.into());
                let response = json!({ "version_info": "1", "resources": [value] });
                std::fs::write(name?, response.to_string())?;
            }
            ("HTTP_FILTER", "INSERT_FIRST") => {
                let source = value
                    .pointer_mut("/config_discovery/config_source")
                    .and_then(Value::as_object_mut)
                    .context("no config_discovery in the filter")?;
                ensure!(source.remove("ads").is_some(), "not from istiod: {source:?}");
                source.insert("resource_api_version".into(), "V3".into());
                source.insert("path_config_source".into(), json!({ "path": name? }));
                filters(bootstrap)?.insert(0, value);
            }
            ("NETWORK_FILTER", "MERGE") => {
                let manager = bootstrap.pointer_mut(CONNECTION_MANAGER).context("no manager")?;
                merge(manager, value);
            }
            other => bail!("not understood: {other:?}"),
        }
    }
    Ok(())
}

/// Applies an EnvoyPatchPolicy as Envoy Gateway does: JSON patches of resources by their type.
pub fn apply_patch_policy(bootstrap: &mut Value, policy: &Value) -> Result<()> {
    for patch in list(policy, "/spec/jsonPatches")? {
        let (kind, path) = (text(patch, "/type")?, text(patch, "/operation/path")?);
        let value = patch.pointer("/operation/value").context("no value")?.clone();
        match (kind.rsplit('.').next(), text(patch, "/operation/op")?) {
            (Some("Cluster"), "add") if path.is_empty() => clusters(bootstrap)?.push(value),
            (Some("Listener"), "add") => {
                let listener = bootstrap
                    .pointer_mut("/static_resources/listeners/0")
                    .context("no listener")?;
                let (list, index) = path.rsplit_once('/').context("a place in a list")?;
                let list = listener.pointer_mut(list).and_then(Value::as_array_mut);
                let (list, index) = (list.context("no such list")?, index.parse::<usize>()?);
                ensure!(index <= list.len(), "{path} is beyond the end");
                list.insert(index, value);
            }
            other => bail!("not understood: {other:?} at {path:?}"),
        }
    }
    Ok(())
}

/// Returns the filters of the gateway's listener, in their order.
pub fn filters(bootstrap: &mut Value) -> Result<&mut Vec<Value>> {
    let place = format!("{CONNECTION_MANAGER}/typed_config/http_filters");
    bootstrap.pointer_mut(&place).and_then(Value::as_array_mut).context(place)
}

/// Returns the clusters of the gateway.
pub fn clusters(bootstrap: &mut Value) -> Result<&mut Vec<Value>> {
    let place = "/static_resources/clusters";
    bootstrap.pointer_mut(place).and_then(Value::as_array_mut).context(place)
}

/// Merges as protobuf does: single fields are replaced or merged, repeated ones are appended.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(old) => merge(old, value),
                    None => drop(into.insert(name, value)),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (into, from) => *into = from,
    }
}

fn text<'a>(value: &'a Value, place: &str) -> Result<&'a str> {
    let found = value.pointer(place).and_then(Value::as_str);
    found.with_context(|| format!("no text at {place}"))
}

fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>> {
    let found = value.pointer(place).and_then(Value::as_array);
    found.with_context(|| format!("no list at {place}"))
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
