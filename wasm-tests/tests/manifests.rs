//! Files for Envoy, Istio and Envoy Gateway, without running them. Each resource has the schema of its project, the
//! variants of the Envoy configuration differ from it only in their purpose, and names that several files share
//! are equal.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond the end has failed, and may report it by a panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_demo::EnvoyConfig;
use twilio_edge_wasm_tests::mesh::{judged, resources, the};
use twilio_edge_wasm_tests::repository;

#[test]
fn each_resource_is_what_its_project_publishes() -> Result<()> {
    for folder in ["envoy/istio", "envoy/gateway"] {
        let resources = resources(folder)?;
        ensure!(resources.len() > 3, "{folder} has {}", resources.len());
        assert_eq!(judged(&resources)?, "", "{folder}");
    }
    Ok(())
}

#[test]
fn unpublished_resource_is_found() -> Result<()> {
    let resource = |kind: &str, version: &str, spec: Value| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x" }, "spec": spec });
    let wrong = [
        resource("PeerAuthentication", "security.istio.io/v1", json!({ "mtlss": {} })),
        resource("PeerAuthentication", "security.istio.io/v1", json!({ "mtls": { "mode": "ON" } })),
        resource("EnvoyFilters", "networking.istio.io/v1alpha3", json!({})),
        resource("EnvoyPatchPolicy", "gateway.envoyproxy.io/v1alpha1", json!({ "type": "X" })),
        resource("Deployment", "apps/v1", json!({ "replica": 2 })),
    ];
    for resource in wrong {
        let said = judged(std::slice::from_ref(&resource))?;
        ensure!(!said.is_empty(), "no result for {resource}");
    }
    Ok(())
}

/// Returns the paths at which `a` and `b` differ. Named objects are compared by name, others by order.
fn differences(a: &Value, b: &Value, place: &str, found: &mut BTreeSet<String>) {
    let parts = |value: &Value| -> Option<BTreeMap<String, Value>> {
        match value {
            Value::Object(all) => Some(all.clone().into_iter().collect()),
            Value::Array(all) => {
                let named = |(n, one): (usize, &Value)| {
                    let name = one["name"].as_str().map_or_else(|| n.to_string(), str::to_owned);
                    (name, one.clone())
                };
                Some(all.iter().enumerate().map(named).collect())
            }
            _ => None,
        }
    };
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => {
            for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let place = format!("{place}/{name}");
                match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => differences(a, b, &place, found),
                    _ => drop(found.insert(place)),
                }
            }
        }
        _ if a != b => drop(found.insert(place.to_owned())),
        _ => {}
    }
}

#[test]
fn variant_differs_from_the_shipped_configuration_in_one_part() -> Result<()> {
    const MANAGER: &str =
        "listeners/edge/filter_chains/0/filters/envoy.filters.network.http_connection_manager";
    const SIDECAR: &str =
        "clusters/twilio_edge_sidecar/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    let of_manager = |place: &str| format!("/static_resources/{MANAGER}/typed_config/{place}");
    let of_statics = |place: &str| format!("/static_resources/{place}");
    let variants = [
        (
            "unix-socket",
            vec![
                of_statics(&format!("{SIDECAR}/pipe")),
                of_statics(&format!("{SIDECAR}/socket_address")),
            ],
        ),
        ("tracing", vec![of_manager("tracing"), of_statics("clusters/otel_collector")]),
        (
            "edge",
            vec![
                "/node".to_owned(),
                of_statics("listeners/edge/address/socket_address/address"),
                of_statics("listeners/edge/address/socket_address/port_value"),
                of_statics("listeners/edge/filter_chains/0/transport_socket"),
                of_manager("common_http_protocol_options/headers_with_underscores_action"),
                of_manager("http_filters/envoy.filters.http.header_mutation"),
                of_manager("merge_slashes"),
                of_manager("normalize_path"),
                of_manager("path_with_escaped_slashes_action"),
            ],
        ),
        (
            "compose",
            vec![
                of_statics("listeners/edge/address/socket_address/address"),
                of_manager(
                    "http_filters/twilio_edge/typed_config/config/vm_config/code/local/filename",
                ),
                of_manager("http_filters/twilio_edge/typed_config/config/configuration/value"),
                of_statics("clusters/backend/dns_lookup_family"),
                of_statics("clusters/backend/type"),
                of_statics(&SIDECAR.replace("twilio_edge_sidecar", "backend"))
                    + "/socket_address/address",
                of_statics("clusters/twilio_edge_sidecar/dns_lookup_family"),
                of_statics("clusters/twilio_edge_sidecar/type"),
                of_statics(SIDECAR) + "/socket_address/address",
            ],
        ),
    ];
    let load = |name: &str| EnvoyConfig::load(&repository().join(format!("envoy/{name}.yaml")));
    let shipped = load("envoy")?;
    for (name, expected) in variants {
        let mut variant = load(name)?;
        if name == "compose" {
            // The simulator calls it by another name.
            let origins = variant.plugin["origins"].as_array_mut().context("origins")?;
            assert_eq!(origins.pop(), Some(json!("http://envoy:8080")));
        }
        assert_eq!(variant.plugin, shipped.plugin, "{name}");
        let mut found = BTreeSet::new();
        differences(&shipped.bootstrap, &variant.bootstrap, "", &mut found);
        assert_eq!(found, expected.into_iter().collect(), "{name}");
    }
    Ok(())
}

/// The filter's entry in a chain, and its own configuration.
fn plugin(resources: &[Value]) -> Result<(Value, Value)> {
    fn find(value: &Value) -> Option<&Value> {
        let is_plugin = value.get("vm_config").is_some() && value.get("root_id").is_some();
        match value {
            _ if is_plugin => Some(value),
            Value::Object(all) => all.values().find_map(find),
            Value::Array(all) => all.iter().find_map(find),
            _ => None,
        }
    }
    let found = resources.iter().find_map(find).context("no entry of the filter")?;
    let text = found["configuration"]["value"].as_str().context("no configuration")?;
    Ok((found.clone(), serde_json::from_str(text)?))
}

fn texts<'a>(values: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    values.into_iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A webhook's path that is routed but not proven would reach the application from any sender; a variable that is not set is a
/// filter that does not start.
#[test]
fn files_of_a_mesh_agree() -> Result<()> {
    let istio = resources("envoy/istio")?;
    let service = the(&istio, "VirtualService")?;
    let routed = service["spec"]["http"].as_array().into_iter().flatten();
    let routed = routed.flat_map(|rule| rule["match"].as_array().into_iter().flatten());
    let routed = texts(routed.map(|matched| &matched["uri"]["exact"]));
    let deployment = the(&istio, "Deployment")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    meets_the_laws(&istio, &routed, container)?;

    // The sidecar and the application trust the identity of the gateway, and the filter runs in that gateway.
    let pod = &deployment["spec"]["template"];
    let identity = format!(
        "cluster.local/ns/{}/sa/{}",
        deployment["metadata"]["namespace"].as_str().context("a namespace")?,
        pod["spec"]["serviceAccountName"].as_str().context("an account")?,
    );
    let policies = istio.iter().filter(|one| one["kind"] == "AuthorizationPolicy");
    for policy in policies {
        let from = policy["spec"]["rules"][0]["from"][0]["source"].as_object().context("from")?;
        assert_eq!(from.values().next(), Some(&json!([identity])), "{}", policy["metadata"]);
    }
    check_fence(&istio, service, &identity)?;
    let selected = &the(&istio, "EnvoyFilter")?["spec"]["workloadSelector"]["labels"]["istio"];
    assert_eq!(&pod["metadata"]["labels"]["istio"], selected);
    assert_eq!(&the(&istio, "Gateway")?["spec"]["selector"]["istio"], selected);

    let gateway = resources("envoy/gateway")?;
    let rules = the(&gateway, "HTTPRoute")?["spec"]["rules"].as_array().into_iter().flatten();
    let matches = rules.flat_map(|rule| rule["matches"].as_array().into_iter().flatten());
    let exact = matches.filter(|matched| matched["path"]["type"] == "Exact");
    let routed = texts(exact.map(|matched| &matched["path"]["value"]));
    let proxy = the(&gateway, "EnvoyProxy")?;
    let deployment = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"];
    meets_the_laws(&gateway, &routed, &deployment["container"])?;
    let patches = the(&gateway, "EnvoyPatchPolicy")?["spec"]["jsonPatches"].as_array();
    let names = texts(patches.into_iter().flatten().map(|patch| &patch["name"]));
    let owner = the(&gateway, "Gateway")?;
    let listener = format!(
        "{}/{}/{}",
        owner["metadata"]["namespace"].as_str().context("a namespace")?,
        owner["metadata"]["name"].as_str().context("a name")?,
        owner["spec"]["listeners"][0]["name"].as_str().context("a listener")?,
    );
    ensure!(names.contains(&listener), "{names:?} lack {listener}");
    Ok(())
}

/// Only the gateway reaches the port to which webhooks are routed, and no other client sends a header of the filter to another. No policy that
/// denies goes by a path, which an application may read in more spellings than Istio.
fn check_fence(istio: &[Value], service: &Value, identity: &str) -> Result<()> {
    let mut fenced = (BTreeSet::new(), BTreeSet::new());
    for policy in istio.iter().filter(|one| one["spec"]["action"] == "DENY") {
        for rule in policy["spec"]["rules"].as_array().into_iter().flatten() {
            let text = rule.to_string();
            for way in ["paths", "notPaths", "request.url_path"] {
                ensure!(!text.contains(way), "a policy goes by {way}: {text}");
            }
            assert_eq!(rule["from"][0]["source"], json!({ "notPrincipals": [identity] }), "{text}");
            fenced.0.extend(texts(
                rule["to"][0]["operation"]["ports"].as_array().into_iter().flatten(),
            ));
            let keys = rule["when"].as_array().into_iter().flatten();
            let present = keys.filter(|key| key["values"] == json!(["*"]));
            fenced.1.extend(texts(present.map(|key| &key["key"])));
        }
    }
    for rule in service["spec"]["http"].as_array().into_iter().flatten() {
        let destination = &rule["route"][0]["destination"];
        if destination["host"].as_str().is_some_and(|host| host.starts_with("twilio-edge.")) {
            check_permission(istio, &rule["match"][0]["uri"]["prefix"], identity)?;
            continue;
        }
        let port = destination["port"]["number"].to_string();
        ensure!(fenced.0.contains(&port), "port {port} is open: {fenced:?}");
    }
    for name in ["x-twilio-edge-verified", "x_twilio_edge_verified"] {
        ensure!(fenced.1.contains(&format!("request.headers[{name}]")), "{name}: {fenced:?}");
    }
    Ok(())
}

/// Checks that the gateway may send requests below this path to the sidecar.
fn check_permission(istio: &[Value], prefix: &Value, identity: &str) -> Result<()> {
    let prefix = prefix.as_str().context("a prefix")?;
    let allowing = istio.iter().filter(|one| one["spec"]["action"] == "ALLOW");
    let mut rules = allowing.flat_map(|one| one["spec"]["rules"].as_array().into_iter().flatten());
    let permits = rules.any(|rule| {
        let paths = rule["to"][0]["operation"]["paths"].as_array().into_iter().flatten();
        rule["from"][0]["source"]["principals"] == json!([identity])
            && texts(paths).contains(&format!("{prefix}*"))
    });
    ensure!(permits, "no policy permits the gateway to reach {prefix}");
    Ok(())
}

fn meets_the_laws(resources: &[Value], routed: &BTreeSet<String>, container: &Value) -> Result<()> {
    let (entry, configuration) = plugin(resources)?;
    assert_eq!(entry["allow_on_headers_stop_iteration"], true);
    assert_eq!(entry["failure_policy"], "FAIL_RELOAD");
    let environment = &entry["vm_config"]["environment_variables"];
    ensure!(environment["key_values"].is_null(), "values where /config_dump shows them");
    let wanted = texts(environment["host_env_keys"].as_array().into_iter().flatten());
    let set = container["env"].as_array().into_iter().flatten().map(|one| &one["name"]);
    assert_eq!(texts(set), wanted);
    let proven = configuration["routes"].as_array().into_iter().flatten();
    assert_eq!(&texts(proven.map(|route| &route["path"])), routed);
    ensure!(routed.len() == 3, "{routed:?}");
    Ok(())
}

/// The document's commands make a canary: the same but for its names, its track and how many there are.
#[test]
fn canary_gateway_differs_in_its_track_only() -> Result<()> {
    let document = std::fs::read_to_string(repository().join("docs/INSTALL-ISTIO.md"))?;
    let (_, rest) = document.split_once("2. **Canary.**").context("no canary")?;
    let (_, rest) = rest.split_once("```sh\n").context("no commands")?;
    let (commands, _) = rest.split_once("```").context("no end of commands")?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(repository().join("envoy"), folder.path().join("envoy"))?;
    let ran = Command::new("sh").args(["-euc", commands]).current_dir(folder.path()).status()?;
    ensure!(ran.success(), "{commands}");

    let stable = resources("envoy/istio")?;
    for (file, kind, places) in [
        ("filter", "EnvoyFilter", vec!["/metadata/name", "/spec/workloadSelector/labels/track"]),
        (
            "gateway",
            "Deployment",
            vec![
                "/metadata/name",
                "/spec/replicas",
                "/spec/selector/matchLabels/track",
                "/spec/template/metadata/labels/track",
            ],
        ),
    ] {
        let text = std::fs::read_to_string(folder.path().join(format!("canary-{file}.yaml")))?;
        let canary: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        assert_eq!(judged(&canary)?, "", "{kind}");
        let mut found = BTreeSet::new();
        differences(the(&stable, kind)?, the(&canary, kind)?, "", &mut found);
        assert_eq!(found, places.into_iter().map(str::to_owned).collect(), "{kind}");
        // No pod has two filters, and none has none.
        for (track, one) in [("stable", the(&stable, kind)?), ("canary", &canary[0])] {
            ensure!(one.to_string().contains(&format!("\"track\":\"{track}\"")), "{one}");
        }
    }
    Ok(())
}
