//! Sends each kind of request of the sidecar through Prism to the simulator. Prism refuses requests and answers that Twilio's
//! OpenAPI description does not allow.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::accepted,
    support::servers::{Guarded, eventually, eventually_within, free_port},
    support::sidecar::{ACCOUNT, inbound},
    support::simulator::{SECRET, Simulator},
    support::world::{Kind, World},
};

const TEMPLATE: &str = "HX00112233445566778899aabbccddeeff";
const SMS: &str = "+14155550123";
const WHATSAPP: &str = "whatsapp:+14155550123";
const OURS: &str = "+14155238886";

/// Maximum start time of Prism, which reads a long description on one core and compiles each validator at its first use.
const PATIENCE: Duration = Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Validating proxy between the client and the simulator.
struct Prism {
    _process: Guarded,
    base: String,
    log: PathBuf,
}

impl Prism {
    async fn start(world: &World, simulator: &Simulator) -> Prism {
        let description = world.directory.path().join("described.json");
        std::fs::write(&description, described().to_string()).unwrap();
        let log = world.directory.path().join("prism.log");
        let port = free_port();
        let program = repository().join(".tools/prism/node_modules/.bin/prism");
        assert!(program.exists(), "Prism is not installed: run `make setup-test`");
        let script = format!(
            "exec '{}' proxy '{}' '{}' --errors --host 127.0.0.1 --port {port} >'{}' 2>&1",
            program.display(),
            description.display(),
            simulator.base,
            log.display()
        );
        let process =
            Guarded::start(Path::new("sh"), &["-c", &script], &[], "KILL", None, Stdio::null());
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(&log).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Prism { _process: process, base: format!("http://127.0.0.1:{port}"), log }
    }

    /// Returns the log lines of refused requests and answers.
    fn refused(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let is_one = |line: &&str| line.contains("Request terminated with error");
        log.lines().filter(is_one).map(str::to_owned).collect()
    }
}

fn description(name: &str) -> Value {
    let file = repository().join(".tools/openapi").join(name);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Returns Twilio's descriptions of messages, templates and executions of flows, adapted to Prism. A list in a form repeats its name: OpenAPI has
/// this default, but Prism needs it explicitly. Twilio describes the addresses of pages as URIs but returns paths, also in
/// its examples. Prism does not check for undescribed parameters; `client.rs` does.
fn described() -> Value {
    let mut all = description("twilio_api_v2010.json");
    let paths = all["paths"].as_object_mut().unwrap();
    paths.retain(|path, _| path.contains("/Messages") || path.ends_with("/Accounts/{Sid}.json"));
    assert!(paths.len() >= 6);
    for (name, added) in [
        ("twilio_content_v1.json", &["/v1/ContentAndApprovals"][..]),
        (
            "twilio_studio_v2.json",
            &[
                "/v2/Flows/{FlowSid}/Executions",
                "/v2/Flows/{FlowSid}/Executions/{Sid}",
                "/v2/Flows/{FlowSid}/Executions/{ExecutionSid}/Context",
            ],
        ),
    ] {
        let mut other = description(name);
        let schemas = other["components"]["schemas"].take();
        let known = all["components"]["schemas"].as_object_mut().unwrap();
        known.extend(schemas.as_object().unwrap().clone());
        for path in added {
            all["paths"][*path] = other["paths"][*path].take();
        }
    }
    let paths = all["paths"].as_object_mut().unwrap();
    let operations = paths.values_mut().flat_map(|path| path.as_object_mut().unwrap().iter_mut());
    let is_one = |method: &str| ["get", "post", "delete"].contains(&method);
    for (_, operation) in operations.filter(|(method, _)| is_one(method)) {
        let form = &mut operation["requestBody"]["content"]["application/x-www-form-urlencoded"];
        if form.is_null() {
            if let Some(operation) = operation.as_object_mut() {
                operation.remove("requestBody");
            }
            continue;
        }
        let fields = form["schema"]["properties"].as_object().unwrap().clone();
        for (name, _) in fields.iter().filter(|(_, field)| field["type"] == "array") {
            form["encoding"][name] = json!({"style": "form", "explode": true});
        }
    }
    permit_paths_as_uris(&mut all);
    all
}

fn permit_paths_as_uris(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if name.ends_with("uri") && field["format"] == "uri" {
                    field.as_object_mut().unwrap().remove("format");
                }
                permit_paths_as_uris(field);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(permit_paths_as_uris),
        _ => {}
    }
}

/// Sends requests with one error each directly to Prism, and checks that Prism refuses them.
async fn assert_invalid_requests_are_refused(prism: &Prism) {
    let messages = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages.json", prism.base);
    let client = reqwest::Client::new();
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:{SECRET}")));
    let right = "To=%2B14155550123&From=%2B14155238886&Body=judge";
    for (form, authorization, expected) in [
        (right.to_owned(), basic.as_str(), 201),
        (format!("{right}&ValidityPeriod=soon"), &basic, 422),
        (format!("{right}&ContentRetention=maybe"), &basic, 422),
        (format!("{right}&MessagingServiceSid=MG1"), &basic, 422),
        ("From=%2B14155238886&Body=judge".to_owned(), &basic, 422),
        (right.to_owned(), "", 401),
    ] {
        let asked = client.post(&messages).header("authorization", authorization);
        let asked = asked.header("content-type", "application/x-www-form-urlencoded");
        let answer = asked.body(form.clone()).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{form}");
    }
    let asked = client.get(format!("{messages}?PageSize=many")).header("authorization", &basic);
    assert_eq!(asked.send().await.unwrap().status(), 422);
    // Prism answers before it writes its log.
    eventually("Prism has logged six refusals", async || prism.refused().len() >= 6).await;
    assert_eq!(prism.refused().len(), 6, "{:?}", prism.refused());
}

#[tokio::test]
async fn every_request_passes_twilios_own_description() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let prism = Prism::start(&world, &simulator).await;
    let file = simulator.credentials(&world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", prism.base.as_str()),
        ("TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL", "https://hooks.example.com/twilio/status#rc=3"),
        ("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "10000"),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "20000"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    accepted(&sidecar, &[inbound("c1", "SM1", WHATSAPP, "hello")]).await;
    let agreed = json!({"number": WHATSAPP, "category": "marketing", "source": "form", "at": "2026-11-01T10:00:00Z"});
    let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
    assert!(recorded.status().is_success());

    let service = format!("MG{}", "0".repeat(32));
    let brand = "whatsapp:+15550001111";
    let soon = (jiff::Timestamp::now() + Duration::from_secs(1)).to_string();
    let wanted = [
        json!({"to": SMS, "from": OURS, "body": "Ünï & 😀+ = %"}),
        json!({"to": SMS, "messaging_service_sid": service, "body": "by a service"}),
        json!({"to": SMS, "from": OURS, "body": "later", "send_at": soon}),
        json!({"to": WHATSAPP, "from": brand, "category": "marketing", "content_sid": TEMPLATE,
            "content_variables": {"1": "Ada \"A\"", "2": "7"}}),
        // Twilio makes it and says 500: its list is asked.
        json!({"to": "+14155559005", "from": OURS, "body": "once"}),
    ];
    let mut places = Vec::new();
    for one in &wanted {
        let answer = app.send(Method::POST, "/v1/messages", one.to_string()).await;
        let status = answer.status();
        let taken: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{one} {taken}");
        places.push(taken["links"]["self"].as_str().unwrap().to_owned());
    }
    eventually_within(PATIENCE, "each is sent", async || {
        let mut sent = 0;
        for place in &places {
            sent += usize::from(app.get(place).await["state"] == "sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent == places.len()
    })
    .await;

    // Twilio starts both executions. The second answer is 500, so the list and the context are asked.
    let mut executions = Vec::new();
    for to in [SMS, "+14155559005"] {
        let body = json!({"to": to, "from": OURS, "parameters": {"name": "Ünï & 😀+"}}).to_string();
        let path = "/v1/flows/FW00112233445566778899aabbccddeeff/executions";
        let answer = app.send(Method::POST, path, body).await;
        assert_eq!(answer.status(), 202);
        executions.push(answer.headers()["location"].to_str().unwrap().to_owned());
    }
    for place in &executions {
        eventually_within(PATIENCE, "the execution has ended", async || {
            app.get(place).await["status"] == "ended"
        })
        .await;
    }

    // In Twilio's words: each parameter that is handed on as it came.
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:{token}")));
    let path = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages", sidecar.base);
    let other_parameters = [
        ("StatusCallback", "https://own.example.com/s?a=b"),
        ("ApplicationSid", "AP00112233445566778899aabbccddeeff"),
        ("MaxPrice", "0.5"),
        ("ProvideFeedback", "true"),
        ("Attempt", "1"),
        ("ValidityPeriod", "60"),
        ("ForceDelivery", "false"),
        ("ContentRetention", "discard"),
        ("AddressRetention", "obfuscate"),
        ("SmartEncoded", "true"),
        ("PersistentAction", "geo:37.78,-122.40|Office"),
        ("TrafficType", "free"),
        ("ShortenUrls", "true"),
        ("SendAsMms", "false"),
        ("RiskCheck", "disable"),
        ("MessagingServiceSid", &service),
    ];
    let plain = [("To", SMS), ("From", OURS), ("Body", "hi")];
    let mut sids = Vec::new();
    for more in other_parameters.iter().map(std::slice::from_ref).chain([&other_parameters[..]]) {
        let form = plain.iter().chain(more);
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let asked = sidecar.client.post(format!("{path}.json")).header("authorization", &basic);
        let answer = asked.body(form).send().await.unwrap();
        let status = answer.status();
        let made: Value = answer.json().await.unwrap();
        assert_eq!(status, 201, "{more:?} {made}");
        sids.push(made["sid"].as_str().unwrap().to_owned());
    }
    let shown = async |more: String| {
        let asked = sidecar.client.get(format!("{path}{more}")).header("authorization", &basic);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{more}");
        answer.json::<Value>().await.unwrap()
    };
    shown(format!("/{}.json", sids[0])).await;
    for filter in [
        "DateSent%3E=2026-11-01T00:00:00Z",
        "DateSent%3C=2036-11-01T00:00:00Z",
        "DateSent=2026-11-27T00:00:00Z",
    ] {
        shown(format!(".json?To=%2B14155550123&From=%2B14155238886&{filter}&PageSize=2")).await;
    }
    // Page by page, by Twilio's own tokens.
    let mut next =
        Some(format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json?To=%2B14155550123&PageSize=5"));
    let mut pages = 0;
    while let Some(uri) = next {
        let more = uri.split_once("/Messages").unwrap().1.to_owned();
        next = shown(more).await["next_page_uri"].as_str().map(str::to_owned);
        pages += 1;
    }
    assert!(pages >= 3, "{pages}");
    // What Twilio carries out is passed on as Twilio describes it.
    let form = [("To", SMS), ("From", OURS), ("MediaUrl", "https://example.com/a.png")];
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let asked = sidecar.client.post(format!("{path}.json")).header("authorization", &basic);
    let made: Value = asked.body(form).send().await.unwrap().json().await.unwrap();
    let sid = made["sid"].as_str().unwrap().to_owned();
    eventually_within(PATIENCE, "it is delivered", async || {
        shown(format!("/{sid}.json")).await["status"] == "delivered"
    })
    .await;
    let media = shown(format!("/{sid}/Media.json?PageSize=5")).await;
    let medium = media["media_list"][0]["sid"].as_str().unwrap().to_owned();
    shown(format!("/{sid}/Media/{medium}.json")).await;
    let account = format!("{}/2010-04-01/Accounts/{ACCOUNT}.json", sidecar.base);
    for (method, url, form, expected) in [
        (Method::GET, account, "", 200),
        (Method::POST, format!("{path}/{sid}/Feedback.json"), "Outcome=confirmed", 200),
        (Method::POST, format!("{path}/{sid}.json"), "Body=", 200),
        (Method::DELETE, format!("{path}/{sid}/Media/{medium}.json"), "", 204),
        (Method::DELETE, format!("{path}/{sid}.json"), "", 204),
    ] {
        let asked = sidecar.client.request(method, &url).header("authorization", &basic);
        let answer = asked.body(form).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{url}");
    }
    assert_eq!(prism.refused(), [""; 0]);
    assert_eq!(simulator.listed(ACCOUNT).await.len(), wanted.len() + sids.len() + executions.len());
    assert_invalid_requests_are_refused(&prism).await;
}
