//! The other configurations we ship, each in the real Envoy: the static edge, the sidecar on a unix socket, tracing, and what
//! Istio and Envoy Gateway make of our resources. In each a signed webhook arrives proven, once, and an unsigned one
//! does not.

use anyhow::{Context, Result, ensure};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tempfile::TempDir;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Response, send};
use twilio_edge_wasm_tests::envoy::{Envoy, is_native, module};
use twilio_edge_wasm_tests::mesh;
use twilio_edge_wasm_tests::process::{Process, free_port, isolated, until};
use twilio_edge_wasm_tests::recorder::Recorder;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar;
use twilio_edge_wasm_tests::stack::{EDGE_TOKEN, Plan, SidecarPlan, Stack, environment};
use twilio_edge_wasm_tests::tls::{self, Certificate};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, Request};

use crate::expect::{arrived, arrives, is_refusal};
use crate::suite::{Scenario, Setting, scenarios};

/// The sidecar has the keys, as our resources for Kubernetes want it.
const RING: Plan = Plan {
    accounts: Some(
        "[[account]]\nsid = \"AC00112233445566778899aabbccddeeff\"\n\
         auth_tokens = [\"0123456789abcdef0123456789abcdef\"]\n",
    ),
    ..Plan::new(SidecarPlan::Sqlite)
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let variants = scenarios![Setting::Shared;
        each_file_is_valid_as_it_stands,
        static_edge_ends_tls_and_takes_up_a_renewed_certificate,
        sidecar_on_a_unix_socket_decides,
        webhook_continues_its_trace,
    ];
    let meshes = scenarios![Setting::Own(RING);
        istio_configuration_of_our_resources_works,
        envoy_gateway_configuration_of_our_resources_works,
    ]
    .map(|scenario| scenario.wasm_only("our resources load the wasm filter"));
    [variants.as_slice(), &meshes].concat()
}

async fn each_file_is_valid_as_it_stands(stack: &Stack) -> Result<()> {
    let files: &[&str] =
        if is_native() { &["native"] } else { &["envoy", "edge", "unix-socket", "tracing"] };
    for file in files {
        stack.envoy.validate(&repository().join(format!("envoy/{file}.yaml"))).await?;
    }
    Ok(())
}

const EDGE: Plan = Plan { file: "envoy/edge.yaml", ..Plan::new(SidecarPlan::Sqlite) };

async fn static_edge_ends_tls_and_takes_up_a_renewed_certificate(shared: &Stack) -> Result<()> {
    let folder = TempDir::new()?;
    let certificate = Certificate::install(folder.path())?;
    let shipped = std::fs::read_to_string(repository().join("envoy/certificate.yaml"))?;
    let here = shipped.replace("/etc/twilio-edge/tls", &folder.path().display().to_string());
    ensure!(here != shipped, "certificate.yaml names another folder");
    let secret = folder.path().join("certificate.yaml");
    std::fs::write(&secret, here)?;
    let edge = shared
        .another_with(EDGE, |config| {
            let place = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config\
                         /common_tls_context/tls_certificate_sds_secret_configs/0/sds_config\
                         /path_config_source/path";
            let path = config.bootstrap.pointer_mut(place).context(place)?;
            ensure!(*path == "envoy/certificate.yaml", "{path}");
            *path = json!(secret);
            Ok(())
        })
        .await?;
    let ask = async |version, request: &Request| {
        let answer = tls::send(edge.envoy.address(), &certificate, version, request).await?;
        let always = answer.header("strict-transport-security");
        ensure!(always.as_deref() == Some("max-age=63072000"), "{} has no HSTS", answer.status);
        anyhow::Ok(answer)
    };

    // A query is signed byte for byte, and stays so.
    let form = Form::inbound("over TLS").to("/twilio/inbound?x=%2B+1&y=%20z");
    let request = edge.post(&form).await?;
    assert_eq!(ask(&TLS13, &request).await?.status, 200);
    let seen = arrived(&edge, &request).await?;
    assert_eq!(seen.head.word(1), form.target);
    let other = edge.post(&Form::status("sent")).await?;
    assert_eq!(ask(&TLS12, &other).await?.status, 200);
    arrived(&edge, &other).await?;
    // The second copy is answered by the filter, and a stranger too: with the header all the same.
    assert_eq!(ask(&TLS13, &request).await?.status, 200);
    assert_eq!(edge.backend.seen(&request.case).len(), 1, "a duplicate arrived");
    let unsigned = request.clone().as_new_case().without_header("x-twilio-signature");
    let forged = unsigned.header("x-twilio-edge-message-sid", "SM-of-a-stranger");
    is_refusal(&ask(&TLS13, &forged).await?, Reason::MissingSignature)?;
    assert_eq!(ask(&TLS13, &Request::new("GET", "/", "")).await?.status, 404);
    // A post of SendGrid reaches the sidecar, also if it is larger than the webhooks that the filter accepts.
    for body in ["[]".to_owned(), "x".repeat(1 << 20)] {
        let post = Request::new("POST", &format!("/email/events/{ACCOUNT}"), body);
        let answer = ask(&TLS13, &post).await?;
        ensure!(answer.status == 403, "{}", answer.status);
        ensure!(answer.text().contains("invalid_event_signature"), "{}", answer.text());
    }
    let lines = until("their lines in the access log", async || {
        let log = edge.envoy.log()?;
        Ok([form.get("MessageSid"), Reason::MissingSignature.slug()]
            .iter()
            .all(|word| log.contains(word))
            .then_some(log))
    })
    .await?;
    ensure!(!lines.contains("of-a-stranger"), "the log has what was not proven");

    // Envoy normalizes other spellings of a webhook's path to it.
    for path in ["/twilio//inbound", "/twilio/%69nbound", "/twilio/x/../inbound"] {
        let smuggled = edge.post(&Form::inbound("smuggled").to(path)).await?;
        is_refusal(&ask(&TLS13, &smuggled).await?, Reason::InvalidSignature)?;
        let unsigned = smuggled.without_header("x-twilio-signature");
        is_refusal(&ask(&TLS13, &unsigned).await?, Reason::MissingSignature)?;
        assert!(edge.backend.seen(&unsigned.case).is_empty(), "{path}");
    }
    let twin = edge.post(&Form::inbound("twin")).await?.header("X_Twilio_Edge_Verified", ACCOUNT);
    let answer = tls::send(edge.envoy.address(), &certificate, &TLS13, &twin).await?;
    assert_eq!(answer.status, 400);

    let alert = tls::greet_with_tls_1_1(edge.envoy.address()).await?;
    assert_eq!((alert[0], alert[6]), (0x15, 70), "no alert `protocol version`: {alert:?}");

    let renewed = Certificate::install(folder.path())?;
    until("the renewed certificate", async || {
        let request = Request::new("GET", "/", "");
        Ok(tls::send(edge.envoy.address(), &renewed, &TLS13, &request).await.ok())
    })
    .await?;
    edge.envoy.check_no_trap().await
}

/// The scripted sidecar receives no requests.
const UNIX: Plan = Plan { file: "envoy/unix-socket.yaml", ..Plan::new(SidecarPlan::Scripted) };

async fn sidecar_on_a_unix_socket_decides(shared: &Stack) -> Result<()> {
    let folder = TempDir::new()?;
    let socket = folder.path().join("edge.sock");
    let mut command = isolated(sidecar::binary()?);
    command
        .arg("serve")
        .env("TWILIO_EDGE_LISTEN", format!("unix:{}", socket.display()))
        .env("TWILIO_EDGE_ADMIN_LISTEN", "off")
        .env("TWILIO_EDGE_TOKEN", EDGE_TOKEN)
        .env(
            "DATABASE_URL",
            format!("sqlite://{}", folder.path().join("data/ledger.db").display()),
        );
    let mut process = Process::start("sidecar", command, folder.path())?;
    let edge = shared
        .another_with(UNIX, |config| {
            let clusters = config.bootstrap["static_resources"]["clusters"].as_array_mut();
            let sidecar = clusters.and_then(|all| all.last_mut()).context("no cluster")?;
            assert_eq!(sidecar["name"], "twilio_edge_sidecar");
            let place = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
            let address = sidecar.pointer_mut(place).context(place)?;
            *address = json!({ "pipe": { "path": socket } });
            Ok(())
        })
        .await?;
    let request = until("the sidecar to decide", async || {
        process.check_alive()?;
        let request = edge.post(&Form::inbound("over a socket")).await?;
        let seen = arrives(&edge, &request).await?;
        Ok((seen.trusted()["dedupe"] == "first").then_some(request))
    })
    .await?;
    // The settlement of the first webhook follows its answer; until then a copy waits.
    assert_eq!(edge.send(&request).await?.status, 200);
    assert_eq!(edge.backend.seen(&request.case).len(), 1, "a duplicate arrived");
    ensure!(edge.scripted()?.all().is_empty(), "the filter sent a callout over TCP");
    edge.envoy.check_no_trap().await
}

const TRACING: Plan = Plan { file: "envoy/tracing.yaml", ..Plan::new(SidecarPlan::Sqlite) };

async fn webhook_continues_its_trace(shared: &Stack) -> Result<()> {
    const TRACE: [u8; 16] = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
    let trace: String = TRACE.iter().map(|byte| format!("{byte:02x}")).collect();
    let collector = Recorder::start().await?;
    let edge = shared
        .another_with(TRACING, |config| {
            Ok(config.set_cluster("otel_collector", collector.address())?)
        })
        .await?;
    // Envoy sends spans when it has five, or after five seconds; each worker has its own.
    for _ in 0..10 {
        let request = edge.post(&Form::inbound("traced")).await?;
        let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
        edge.send(&request).await?;
        let seen = arrived(&edge, &request).await?;
        let carried = seen.header("traceparent").context("no traceparent at the backend")?;
        ensure!(carried.contains(&trace) && !carried.contains("00f067aa0ba902b7"), "{carried}");
    }
    let spans = collector.wait("/v1/traces", 1).await?;
    let contains = |part: &[u8]| spans[0].bytes().windows(part.len()).any(|bytes| bytes == part);
    ensure!(contains(b"twilio-edge-envoy") && contains(&TRACE), "the span is of another trace");
    ensure!(!contains(b"traced"), "a span has what people wrote");
    edge.envoy.check_no_trap().await
}

async fn istio_configuration_of_our_resources_works(stack: &Stack) -> Result<()> {
    let resources = mesh::resources("envoy/istio")?;
    let folder = TempDir::new()?;
    let gateway = Gateway::new(stack)?;
    let mut bootstrap = gateway.bootstrap.clone();
    // The cluster that istiod creates for the Service, with the name in the filter's configuration.
    let service = the_destination(&resources)?;
    let sidecar = mesh::cluster(&format!("outbound|8081||{service}"), stack.sidecar()?.address());
    mesh::clusters(&mut bootstrap)?.push(sidecar);
    let filter = mesh::the(&resources, "EnvoyFilter")?;
    mesh::apply_envoy_filter(&mut bootstrap, filter, folder.path())?;
    ensure!(mesh::filters(&mut bootstrap)?[0]["name"] == "twilio_edge", "not the first");
    let envoy = gateway.start(stack, &bootstrap, &folder).await?;
    proves(stack, &envoy).await?;

    let log = until("the line of the access log", async || {
        let log = envoy.log()?;
        Ok(log.lines().any(|line| line.contains(r#""verdict":"first""#)).then_some(log))
    })
    .await?;
    let line = log.lines().find(|line| line.contains(r#""verdict":"first""#)).context("a line")?;
    let line: Value = serde_json::from_str(line)?;
    ensure!(line["account"] == ACCOUNT && line["message_sid"].is_string(), "{line}");
    Ok(())
}

/// The Service that the gateway calls, with the settings of its rule.
fn the_destination(resources: &[Value]) -> Result<String> {
    let hosts = resources
        .iter()
        .filter(|resource| resource["kind"] == "DestinationRule")
        .filter_map(|rule| rule["spec"]["host"].as_str());
    let inside = hosts.into_iter().find(|host| host.ends_with(".svc.cluster.local"));
    Ok(inside.context("no rule for the sidecar's Service")?.to_owned())
}

async fn envoy_gateway_configuration_of_our_resources_works(stack: &Stack) -> Result<()> {
    let resources = mesh::resources("envoy/gateway")?;
    let folder = TempDir::new()?;
    let gateway = Gateway::new(stack)?;
    let mut bootstrap = gateway.bootstrap.clone();
    let policy = mesh::the(&resources, "EnvoyPatchPolicy")?;
    mesh::apply_patch_policy(&mut bootstrap, policy)?;

    // The module is where the proxy's volume is mounted.
    let container = "/spec/provider/kubernetes/envoyDeployment/container";
    let container = mesh::the(&resources, "EnvoyProxy")?.pointer(container).context(container)?;
    let mounted = container["volumeMounts"][0]["mountPath"].as_str().context("no volume")?;
    let filter = &mut mesh::filters(&mut bootstrap)?[0];
    let code = "/typed_config/config/vm_config/code/local/filename";
    let code = filter.pointer_mut(code).context(code)?;
    assert_eq!(*code, format!("{mounted}/plugin.wasm"));
    *code = json!(module()?);
    let place = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let clusters = mesh::clusters(&mut bootstrap)?;
    let address = clusters.last_mut().and_then(|last| last.pointer_mut(place)).context(place)?;
    let sidecar = stack.sidecar()?.address();
    *address = json!({ "address": sidecar.ip().to_string(), "port_value": sidecar.port() });

    let envoy = gateway.start(stack, &bootstrap, &folder).await?;
    proves(stack, &envoy).await
}

/// A gateway without the filter, and where it will be.
struct Gateway {
    places: [std::net::SocketAddr; 2],
    bootstrap: Value,
}

impl Gateway {
    fn new(stack: &Stack) -> Result<Self> {
        let [edge, admin] = [free_port()?, free_port()?].map(|port| ([127, 0, 0, 1], port).into());
        let bootstrap = mesh::gateway(edge, admin, stack.backend.address());
        Ok(Self { places: [edge, admin], bootstrap })
    }

    async fn start(&self, stack: &Stack, bootstrap: &Value, folder: &TempDir) -> Result<Envoy> {
        let version = stack.version();
        // No auth token of Twilio's: the keys are the sidecar's.
        let wanted = ["TWILIO_EDGE_TOKEN", "PUBLIC_ORIGIN"];
        let environment = environment();
        let environment: Vec<_> =
            environment.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect();
        Envoy::start_with(version, bootstrap, environment, folder.path(), self.places).await
    }
}

/// A signed webhook arrives, proven, once; an unsigned one does not.
async fn proves(stack: &Stack, envoy: &Envoy) -> Result<()> {
    let ask =
        async |request: &Request| -> Result<Response> { send(envoy.address(), request).await };
    // Until it has received keys from the sidecar, it answers with that reason.
    let first = until("the keys", async || {
        let request = stack.post(&Form::inbound("through a mesh")).await?;
        Ok(match ask(&request).await? {
            answer if answer.status == 200 => Some(request),
            answer => {
                is_refusal(&answer, Reason::NoKeys)?;
                None
            }
        })
    })
    .await?;
    let seen = arrived(stack, &first).await?;
    assert_eq!(seen.trusted()["dedupe"], "first");
    assert_eq!(ask(&first).await?.status, 200);
    assert_eq!(stack.backend.seen(&first.case).len(), 1, "a duplicate arrived");
    let unsigned =
        stack.post(&Form::inbound("unsigned")).await?.without_header("x-twilio-signature");
    is_refusal(&ask(&unsigned).await?, Reason::MissingSignature)?;
    ensure!(stack.backend.seen(&unsigned.case).is_empty(), "the unsigned one arrived");
    envoy.check_no_trap().await
}
