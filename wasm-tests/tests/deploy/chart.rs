//! The Helm chart and the plain manifests. Helm renders them for several sets of values, Kubernetes' schemas accept the
//! result, the sidecar accepts the settings of its pod, and the chart refuses invalid values.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_demo::EnvoyConfig;
use twilio_edge_wasm_tests::mesh::{self, judged, the};
use twilio_edge_wasm_tests::process::isolated;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar::binary;

use crate::{file, said, tool};

const CHART: &str = "deploy/helm/twilio-edge";

/// The oldest that has `preStop.sleep`, the newest whose schemas we have, one between.
const KUBERNETES: [&str; 3] = ["1.30.0", "1.33.0", "1.37.0"];

/// Returns Helm's result for each of these values: `files` and `invalid`, or a `problem`.
fn helm(values: &[Value]) -> Result<Vec<Value>> {
    let requests = values.iter().map(|values| {
        json!({
            "chart": repository().join(CHART), "name": "twilio-edge", "namespace": "twilio-edge",
            "values": values, "versions": KUBERNETES,
        })
    });
    let mut python = Command::new(tool("charts", "python")?)
        .arg(repository().join("wasm-tests/deploy/chart.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let requests = Value::Array(requests.collect()).to_string();
    python.stdin.take().context("its input")?.write_all(requests.as_bytes())?;
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The resources that Helm renders.
fn rendered(answer: &Value) -> Result<Vec<Value>> {
    ensure!(answer["problem"].is_null(), "{}", answer["problem"]);
    let files = answer["files"].as_object().context("no files")?;
    let mut resources = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".yaml")) {
        let text = text.as_str().unwrap_or_default();
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context(path.clone())?;
        resources.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    Ok(resources)
}

fn yaml(path: &str) -> Result<Value> {
    serde_saphyr::from_str(&file(path)?).with_context(|| path.to_owned())
}

/// Values that enable all parts.
fn everything() -> Value {
    json!({
        "nameOverride": "edge",
        "image": { "tag": "v1.2.3_rc.1", "digest": format!("sha256:{}", "0".repeat(64)), "pullSecrets": [{ "name": "registry" }] },
        "autoscaling": { "enabled": false },
        "extraEnv": [{ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318" }],
        "secret": { "keys": { "sinks": "sinks.toml", "sending": "sending.toml", "email": "email.toml", "redactionHashKey": "key" } },
        "sending": { "statusCallbackUrl": "https://hooks.example.com/twilio/status" },
        "service": { "annotations": { "a": "b" } },
        "admin": { "expose": true },
        "serviceAccount": { "annotations": { "a": "b" } },
        "podAnnotations": { "a": "b" }, "podLabels": { "a": "b" }, "nodeSelector": { "a": "b" },
        "tolerations": [{ "key": "a", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "priorityClassName": "high",
        "networkPolicy": { "administrators": [{ "podSelector": {} }] },
        "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
        "prometheusRule": { "enabled": true, "labels": { "release": "prometheus" } },
        "grafanaDashboard": { "enabled": true },
        "postgresql": { "enabled": true, "password": "0123456789abcdef", "storageClassName": "fast" },
        "redis": { "enabled": true, "password": "0123456789abcdef" },
        "demo": { "enabled": true },
    })
}

/// Values that disable all optional parts.
fn least() -> Value {
    let off = json!({ "enabled": false });
    json!({
        "autoscaling": off, "podDisruptionBudget": off, "networkPolicy": off, "topologySpread": off, "migrations": off,
        "serviceAccount": { "create": false },
        "secret": { "keys": { "redisUrl": "", "accounts": "" } },
    })
}

fn pods(resources: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    resources.iter().filter(|one| one["spec"]["template"]["spec"]["containers"].is_array()).map(
        |one| {
            let name = format!("{} {}", one["kind"], one["metadata"]["name"]);
            (name, &one["spec"]["template"]["spec"])
        },
    )
}

#[test]
fn rendered_resources_match_their_schema_and_are_confined() -> Result<()> {
    let tryout = yaml("deploy/kubernetes/tryout.values.yaml")?;
    let sets = [json!({}), least(), everything(), tryout];
    for (answer, values) in helm(&sets)?.iter().zip(&sets) {
        let resources = rendered(answer)?;
        assert_eq!(answer["invalid"], json!([]), "{values}");
        for resource in &resources {
            // Schemas do not say what a name may be.
            let name = resource["metadata"]["name"].as_str().context("a name")?;
            let may = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            ensure!(name.len() < 64 && name.bytes().all(may) && !name.ends_with('-'), "{name}");
        }
        for (name, pod) in pods(&resources) {
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{name}"
            );
            for container in pod["containers"].as_array().into_iter().flatten() {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
                ensure!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            }
        }
    }
    // Resources without a schema of Kubernetes, and the others again by their types.
    let resources = rendered(&helm(&[everything()])?[0])?;
    assert_eq!(judged(&resources)?, "");
    let files = mesh::resources("envoy/alerts")?;
    let groups: Vec<&Value> =
        files.iter().flat_map(|file| file["groups"].as_array()).flatten().collect();
    assert_eq!(the(&resources, "PrometheusRule")?["spec"]["groups"], json!(groups));
    let shown = resources.iter().find_map(|one| one["data"]["twilio-edge.json"].as_str());
    let shown: Value = serde_json::from_str(shown.context("no dashboard")?)?;
    assert_eq!(shown, serde_json::from_str::<Value>(&file("envoy/dashboards/twilio-edge.json")?)?);
    Ok(())
}

#[test]
fn invalid_value_is_refused() -> Result<()> {
    let wrong = [
        (json!({ "replica": 3 }), "replica"),
        (json!({ "replicas": "three" }), "/replicas"),
        (json!({ "image": { "tag": "latest" } }), "/image/tag"),
        (json!({ "image": { "digest": "0123" } }), "/image/digest"),
        (json!({ "postgresql": { "enabled": true } }), "/postgresql/password"),
        (json!({ "postgresql": { "enabled": true, "password": "short" } }), "/postgresql/password"),
        (json!({ "redis": { "enabled": true } }), "/redis/password"),
        (json!({ "redis": { "enabled": true, "password": "a@b" } }), "/redis/password"),
        (json!({ "secret": { "keys": { "token": "" } } }), "/secret/keys/token"),
        (json!({ "sending": { "baseUrl": "api.twilio.com" } }), "/sending/baseUrl"),
        (json!({ "shutdownTimeoutMs": -1 }), "/shutdownTimeoutMs"),
        (json!({ "service": { "port": 80 } }), "/service/port"),
    ];
    let values: Vec<Value> = wrong.iter().map(|(values, _)| values.clone()).collect();
    for (answer, (values, place)) in helm(&values)?.iter().zip(&wrong) {
        let problem = answer["problem"].as_str().with_context(|| format!("{values} is taken"))?;
        ensure!(problem.contains(place), "{values}: {problem}");
    }
    Ok(())
}

/// Each value is in the schema with what it means, and the schema has no other.
#[test]
fn schema_describes_each_value() -> Result<()> {
    fn compare(values: &Value, schema: &Value, place: &str) -> Result<()> {
        ensure!(place.is_empty() || schema["description"].is_string(), "{place} is not described");
        let (Some(values), Some(known)) = (values.as_object(), schema["properties"].as_object())
        else {
            return Ok(());
        };
        assert_eq!(schema["additionalProperties"], false, "{place}");
        let known_names = known.keys().filter(|name| *name != "global").collect::<BTreeSet<_>>();
        assert_eq!(values.keys().collect::<BTreeSet<_>>(), known_names, "{place}");
        values
            .iter()
            .try_for_each(|(name, value)| compare(value, &known[name], &format!("{place}/{name}")))
    }
    let schema = serde_json::from_str(&file(&format!("{CHART}/values.schema.json"))?)?;
    compare(&yaml(&format!("{CHART}/values.yaml"))?, &schema, "")
}

#[test]
fn plain_manifests_are_what_the_chart_renders() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut python = Command::new(tool("charts", "python")?);
    python.arg(repository().join("wasm-tests/deploy/plain.py")).arg(repository());
    said(python.arg(folder.path()))?;
    for name in ["production.yaml", "tryout.yaml"] {
        let made = std::fs::read_to_string(folder.path().join(name))?;
        ensure!(made == file(&format!("deploy/kubernetes/{name}"))?, "{name}: `make manifests`");
    }
    Ok(())
}

/// The manifests of a try-out hold no password, and the script makes each Secret that they name, with another one each time.
#[test]
fn secrets_of_the_tryout_are_random_and_complete() -> Result<()> {
    let script = repository().join("deploy/kubernetes/secrets.sh");
    let text = file("deploy/kubernetes/tryout.yaml")?;
    let made = || -> Result<(String, Vec<Value>)> {
        let text = said(Command::new("sh").arg(&script))?;
        Ok((text.clone(), serde_saphyr::from_multiple(&text)?))
    };
    let ((_, first), (_, second)) = (made()?, made()?);
    let secrets = |all: &[Value]| -> BTreeMap<(String, String), String> {
        let secrets = all.iter().filter(|one| one["kind"] == "Secret");
        let keys = secrets.flat_map(|one| {
            let name = one["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let keys = one["stringData"].as_object().cloned().unwrap_or_default().into_iter();
            keys.map(move |(key, value)| {
                ((name.clone(), key), value.as_str().unwrap_or_default().to_owned())
            })
        });
        keys.collect()
    };
    let (first, second) = (secrets(&first), secrets(&second));
    let names = first.keys().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
    assert_eq!(names, ["twilio-edge", "twilio-edge-postgresql", "twilio-edge-redis"].into());
    let mut random = BTreeSet::new();
    for (place, secret) in &first {
        if place.1 != "sending.toml" {
            assert_ne!(Some(secret), second.get(place), "{place:?} is the same again");
        }
        if place.1 == "password" || place.1 == "edge-token" {
            ensure!(secret.len() == 64 && secret.bytes().all(|it| it.is_ascii_hexdigit()));
            random.insert(secret.as_str());
        }
        if place.1.ends_with("-url") {
            let password = &first[&(place.0.clone(), "password".to_owned())];
            ensure!(secret.contains(&format!(":{password}@")), "{place:?}");
        }
    }
    assert_eq!(random.len(), 3);
    // The Secrets that the manifests read exist, and the only Secret in the manifests is the demo's account.
    let resources: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let own = resources.iter().filter(|one| one["kind"] == "Secret");
    let own: Vec<&Value> = own.map(|one| &one["metadata"]["name"]).collect();
    assert_eq!(own, [&json!("twilio-edge-demo")]);
    let mut read = BTreeSet::new();
    for (_, pod) in pods(&resources) {
        read_secrets(pod, &mut read);
    }
    ensure!(read.len() >= 6, "{read:?}");
    for place in read {
        ensure!(first.contains_key(&place), "{place:?} is read, and not made");
    }
    Ok(())
}

/// Every key of a Secret that a pod reads by its name.
fn read_secrets(part: &Value, found: &mut BTreeSet<(String, String)>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for name in ["secret", "secretKeyRef"] {
        let source = &part[name];
        let secret = text(&source["name"]).or_else(|| text(&source["secretName"]));
        let items = source["items"].as_array().into_iter().flatten().map(|item| &item["key"]);
        for key in items.chain([&source["key"]]) {
            if let (Some(secret), Some(key)) = (secret.clone(), text(key)) {
                found.insert((secret, key));
            }
        }
    }
    match part {
        Value::Object(all) => all.values().for_each(|value| read_secrets(value, found)),
        Value::Array(all) => all.iter().for_each(|value| read_secrets(value, found)),
        _ => {}
    }
}

/// Returns the environment of the container, with its files in a temporary folder.
#[test]
fn sidecar_reads_the_environment_of_its_pod() -> Result<()> {
    for answer in helm(&[json!({}), least(), everything()])? {
        let resources = rendered(&answer)?;
        let (_, pod) = pods(&resources)
            .find(|(_, pod)| pod["containers"][0]["name"] == "sidecar")
            .context("no sidecar")?;
        let container = &pod["containers"][0];
        let folder = tempfile::tempdir()?;
        let here = |path: &str| {
            path.replace("/etc/twilio-edge", &folder.path().join("etc").display().to_string())
                .replace("/var/lib/twilio-edge", &folder.path().display().to_string())
        };
        std::fs::create_dir_all(here("/etc/twilio-edge/config"))?;
        std::fs::create_dir_all(here("/etc/twilio-edge/secrets"))?;
        let config = resources
            .iter()
            .find_map(|one| one["data"]["twilio-edge.toml"].as_str())
            .context("no settings")?;
        std::fs::write(here("/etc/twilio-edge/config/twilio-edge.toml"), config)?;
        let mut mounted = BTreeSet::new();
        for source in pod["volumes"][1]["projected"]["sources"].as_array().context("secrets")? {
            for item in source["secret"]["items"].as_array().context("items")? {
                let name = item["path"].as_str().context("a path")?;
                let holds = match name {
                    "database-url" => "postgres://edge:secret@postgres/edge",
                    "redis-url" => "redis://:secret@redis:6379",
                    _ => "a-secret",
                };
                let secret = here(&format!("/etc/twilio-edge/secrets/{name}"));
                std::fs::write(&secret, holds)?;
                // As the volume's defaultMode.
                std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o440))?;
                mounted.insert(format!("/etc/twilio-edge/secrets/{name}"));
            }
        }
        let mut environment = BTreeMap::new();
        for variable in container["env"].as_array().context("variables")? {
            let text = |field: &str| variable[field].as_str().context("a name and a value");
            environment.insert(text("name")?, text("value")?);
        }
        // Every mounted file is read, and every file that is read is mounted.
        let read =
            environment.values().filter(|value| value.starts_with("/etc/twilio-edge/secrets/"));
        assert_eq!(read.map(|value| (*value).to_owned()).collect::<BTreeSet<_>>(), mounted);
        let mut args = container["args"].as_array().context("arguments")?.iter();
        assert_eq!(args.next(), Some(&json!("serve")));
        let mut program = isolated(binary()?);
        program.arg("print-config").args(args.filter_map(Value::as_str).map(here));
        program.envs(environment.iter().map(|(name, value)| (name, here(value))));
        let shown: toml::Table = said(program.as_std_mut())?.parse()?;
        assert_eq!(shown["listen"].as_str(), environment.get("TWILIO_EDGE_LISTEN").copied());
        assert_eq!(shown["log"]["format"].as_str(), Some("json"));
        let spool = shown["events"]["spool_dir"].as_str().context("a spool")?;
        ensure!(spool.starts_with(&folder.path().display().to_string()), "{spool}");
        // No secret is in a manifest's variables, and no pod is killed while it still works.
        ensure!(
            !environment.values().any(|value| value.contains("postgres://")),
            "{environment:?}"
        );
        let grace = pod["terminationGracePeriodSeconds"].as_i64().context("a grace period")?;
        let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64();
        let shutdown = shown["http"]["shutdown_timeout_ms"].as_integer().context("a limit")?;
        ensure!(grace * 1000 > before.context("preStop")? * 1000 + shutdown + 5000, "{grace}");
    }
    Ok(())
}

/// The meshes' files call a Service and read Secrets that are made elsewhere: here.
#[test]
fn chart_renders_the_services_that_mesh_files_name() -> Result<()> {
    let resources = rendered(&helm(&[json!({})])?[0])?;
    let service = the(&resources, "Service")?;
    let port = service["spec"]["ports"][0]["port"].as_u64().context("a port")?;
    let host = format!(
        "{}.{}.svc.cluster.local",
        service["metadata"]["name"].as_str().context("a name")?,
        service["metadata"]["namespace"].as_str().context("a namespace")?,
    );
    let istio = mesh::resources("envoy/istio")?;
    let gateway = mesh::resources("envoy/gateway")?;
    let asked = json!([istio, gateway]).to_string();
    ensure!(asked.contains(&format!("outbound|{port}||{host}")), "not {host}");
    ensure!(asked.contains(&format!("\"address\":\"{host}\",\"port_value\":{port}")), "not {host}");
    let (_, pod) =
        pods(&resources).find(|(name, _)| name.contains("Deployment")).context("a pod")?;
    ensure!(pod["volumes"][1]["projected"]["sources"][0]["secret"]["name"] == "twilio-edge");
    let labels = the(&resources, "Deployment")?["spec"]["template"]["metadata"]["labels"].clone();
    for policy in ["PeerAuthentication", "NetworkPolicy"] {
        let all = istio.iter().chain(&gateway).filter(|one| one["kind"] == policy);
        let one = all.into_iter().find(|one| one["metadata"]["namespace"] == "twilio-edge");
        let spec = &one.with_context(|| policy.to_owned())?["spec"];
        let wanted = [&spec["selector"]["matchLabels"], &spec["podSelector"]["matchLabels"]];
        for (name, value) in wanted.into_iter().filter_map(Value::as_object).flatten() {
            assert_eq!(labels[name], *value, "{policy}");
        }
    }
    // And what else the chart runs has another name, or those policies would be about it.
    for answer in helm(&[everything()])? {
        let resources = rendered(&answer)?;
        let named = pods(&resources).count();
        let ours = resources.iter().filter(|one| {
            one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "twilio-edge"
        });
        assert_eq!((ours.count(), named > 5), (1, true));
    }
    Ok(())
}

/// The demo's Envoy calls Services that are there, and is called by one of its origins.
#[test]
fn demo_of_the_chart_finds_its_parts() -> Result<()> {
    let renamed = json!({ "nameOverride": "edge", "demo": { "enabled": true } });
    for answer in helm(&[renamed, yaml("deploy/kubernetes/tryout.values.yaml")?])? {
        let resources = rendered(&answer)?;
        let services = resources.iter().filter(|one| one["kind"] == "Service").map(|one| {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), one["spec"]["ports"][0]["port"].clone())
        });
        let services: BTreeMap<String, Value> = services.collect();
        let text = resources.iter().find_map(|one| one["data"]["envoy.yaml"].as_str());
        let edge = EnvoyConfig::parse(text.context("no configuration of Envoy")?)?;
        let clusters = edge.bootstrap["static_resources"]["clusters"].as_array();
        for cluster in clusters.context("clusters")? {
            let place =
                "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
            let address = cluster.pointer(place).context(place)?;
            let host = address["address"].as_str().context("a name")?;
            assert_eq!(services.get(host), Some(&address["port_value"]), "{host}: {services:?}");
        }
        let origin = edge.plugin["origins"][1].as_str().context("a second origin")?;
        let (host, port) = origin.rsplit_once(':').context("a port")?;
        let host = host.trim_start_matches("http://");
        assert_eq!(services.get(host), Some(&json!(port.parse::<u64>()?)), "{services:?}");
        ensure!(
            resources
                .iter()
                .any(|one| one.to_string().contains(&format!("{origin}/twilio/status")))
        );
    }
    Ok(())
}

/// The addresses that a policy lets out to, beside selectors of pods: each block and what it leaves out.
fn opened(resources: &[Value]) -> Vec<(String, Vec<String>)> {
    let policies = resources.iter().filter(|one| one["kind"] == "NetworkPolicy");
    let rules = policies.flat_map(|one| one["spec"]["egress"].as_array().into_iter().flatten());
    let peers = rules.flat_map(|rule| rule["to"].as_array().into_iter().flatten());
    let blocks = peers.filter_map(|peer| peer.get("ipBlock"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let block = |block: &Value| {
        let except = block["except"].as_array().into_iter().flatten().map(text).collect();
        (text(&block["cidr"]), except)
    };
    blocks.map(block).collect()
}

#[test]
fn private_addresses_are_closed_by_default() -> Result<()> {
    let stores =
        json!({ "networkPolicy": { "stores": [{ "ipBlock": { "cidr": "10.1.2.0/24" } }] } });
    let dns = json!({ "networkPolicy": { "dns": [{ "ipBlock": { "cidr": "10.96.0.10/32" } }] } });
    let answers = helm(&[json!({}), stores, dns])?;
    let private = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
    ];
    let usual = opened(&rendered(&answers[0])?);
    ensure!(!usual.is_empty(), "Twilio is not reached");
    for (cidr, except) in &usual {
        assert_eq!(cidr, "0.0.0.0/0");
        for range in private {
            ensure!(except.iter().any(|it| it == range), "{range} is open");
        }
    }
    for (answer, cidr) in answers.iter().skip(1).zip(["10.1.2.0/24", "10.96.0.10/32"]) {
        let more = opened(&rendered(answer)?);
        ensure!(more.iter().any(|(opened, _)| opened == cidr), "{cidr} is not open: {more:?}");
    }
    let plain: Vec<Value> =
        serde_saphyr::from_multiple(&file("deploy/kubernetes/production.yaml")?)?;
    for (cidr, except) in opened(&plain) {
        let is_narrow = cidr
            .rsplit_once('/')
            .is_some_and(|(_, bits)| bits.parse::<u8>().is_ok_and(|bits| bits >= 24));
        ensure!(
            is_narrow || private.iter().all(|range| except.iter().any(|it| it == range)),
            "{cidr}"
        );
    }
    Ok(())
}

#[test]
fn command_lines_contain_no_password() -> Result<()> {
    let secret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let stores = json!({
        "postgresql": { "enabled": true, "password": secret },
        "redis": { "enabled": true, "password": secret },
    });
    for resource in rendered(&helm(&[stores])?[0])? {
        if resource["kind"] == "Secret" {
            continue;
        }
        let text = resource.to_string();
        ensure!(!text.contains(secret), "{} has a password", resource["metadata"]);
        ensure!(!text.contains("$(REDISCLI_AUTH)"), "Kubernetes writes it into the command line");
    }
    Ok(())
}
