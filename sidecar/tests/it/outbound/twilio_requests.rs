//! Requests of the sidecar to Twilio, validated with Twilio's own OpenAPI documents: each request, parameter and value is
//! described there. The requests go to the simulator through a recorder.

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::accepted,
    support::recorder::Recorder,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

const TEMPLATE: &str = "HX00112233445566778899aabbccddeeff";

/// Twilio's OpenAPI documents.
const SPECS: [&str; 4] = [
    "twilio_api_v2010.json",
    "twilio_content_v1.json",
    "twilio_studio_v2.json",
    "twilio_verify_v2.json",
];

#[tokio::test]
async fn requests_to_twilio_match_its_description() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let recorder = Recorder::start(&simulator).await;
    let url = recorder.base.clone();
    let file = simulator.credentials(&world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", url.as_str()),
        ("TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL", "https://hooks.example.com/twilio/status#rc=3"),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "2000"),
        ("TWILIO_EDGE_VERIFY_STATUS_AFTER_S", "1"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    accepted(&sidecar, &[inbound("c1", "SM1", "whatsapp:+14155550123", "hello")]).await;
    let service = format!("MG{}", "0".repeat(32));
    let (sms, whatsapp) = ("+14155550123", "whatsapp:+14155550123");
    let (ours, brand) = ("+14155238886", "whatsapp:+15550001111");
    // As the template is registered.
    eventually("the templates are known", async || {
        let known = app.get("/v1/templates").await;
        known["templates"].as_array().is_some_and(|known| !known.is_empty())
    })
    .await;
    let agreed = json!({"number": whatsapp, "category": "utility", "source": "form",
        "at": "2026-11-01T10:00:00Z"});
    let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
    assert!(recorded.status().is_success());
    let wanted = [
        json!({"to": sms, "from": ours, "body": "Ünï & 😀+ = %"}),
        json!({"to": sms, "messaging_service_sid": service, "body": "hi"}),
        json!({"to": whatsapp, "from": brand, "body": "hi",
            "media": ["https://media.example.com/a.png?b=c&d"]}),
        json!({"to": whatsapp, "from": brand, "content_sid": TEMPLATE,
            "content_variables": {"1": "Ada \"A\"", "2": "7"}}),
        // Twilio makes it and says 500: its list is asked.
        json!({"to": "+14155559005", "from": ours, "body": "once"}),
    ];
    let mut places = Vec::new();
    for one in &wanted {
        let answer = app.send(Method::POST, "/v1/messages", one.to_string()).await;
        assert_eq!(answer.status(), 202, "{one}");
        let taken: Value = answer.json().await.unwrap();
        places.push(taken["links"]["self"].as_str().unwrap().to_owned());
    }
    // In Twilio's words, with what no rule of ours asks about.
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:{token}")));
    let path = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages", sidecar.base);
    let form = [
        ("To", sms),
        ("From", ours),
        ("MessagingServiceSid", &service),
        ("Body", "hi"),
        ("MediaUrl", "https://media.example.com/1"),
        ("MediaUrl", "https://media.example.com/2"),
        ("ValidityPeriod", "60"),
        ("SmartEncoded", "true"),
        ("ContentRetention", "discard"),
        ("StatusCallback", "https://own.example.com/s?a=b"),
    ];
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let asked = sidecar.client.post(format!("{path}.json")).header("authorization", &basic);
    let made: Value = asked.body(form).send().await.unwrap().json().await.unwrap();
    let sid = made["sid"].as_str().unwrap();
    let list = "?To=%2B14155550123&From=%2B14155238886&DateSent%3E=2026-11-01&PageSize=2";
    for more in [format!("/{sid}.json"), format!(".json{list}")] {
        let asked = sidecar.client.get(format!("{path}{more}")).header("authorization", &basic);
        assert_eq!(asked.send().await.unwrap().status(), 200, "{more}");
    }
    eventually("each message is sent", async || {
        let mut sent = 0;
        for place in &places {
            sent += usize::from(app.get(place).await["state"] == "sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent == places.len()
    })
    .await;

    verify_numbers(&app).await;
    run_flows(&app).await;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let seen_file = world.directory.path().join("seen.json");
    std::fs::write(&seen_file, Value::from(recorder.exchanges()).to_string()).unwrap();
    let specs = root.join(".tools/openapi");
    let judged = Command::new(root.join(".tools/webhooks/bin/python"))
        .arg(root.join("sidecar/tests/it/outbound/twilio_requests/judge.py"))
        .args(SPECS.map(|name| specs.join(name)))
        .arg(&seen_file)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if anything is missing: {said}");
    let said = String::from_utf8(judged.stdout).unwrap();
    let counted: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(counted["POST Messages.json"], 6, "each message was requested once: {counted}");
    assert_eq!(counted["GET /v1/ContentAndApprovals"], 1, "{counted}");
    assert_eq!(counted["GET Messages/{Sid}.json"], 1, "{counted}");
    assert_eq!(counted["POST /v2/Services/{ServiceSid}/Verifications"], 4, "{counted}");
    assert_eq!(counted["POST /v2/Services/{ServiceSid}/VerificationCheck"], 1, "{counted}");
    assert_eq!(counted["POST /v2/Services/{ServiceSid}/Verifications/{Sid}"], 1, "{counted}");
    assert_eq!(counted["POST /v2/Flows/{FlowSid}/Executions"], 2, "{counted}");
    for search in [
        "GET /v2/Flows/{FlowSid}/Executions",
        "GET /v2/Flows/{FlowSid}/Executions/{Sid}",
        "GET /v2/Flows/{FlowSid}/Executions/{ExecutionSid}/Context",
    ] {
        assert!(counted[search].as_u64() > Some(0), "{search}: {counted}");
    }
    assert!(counted["GET /v2/Attempts"].as_u64() > Some(1), "{counted}");
    assert!(
        counted["GET Messages.json"].as_u64() > Some(1),
        "the sidecar's own request, and the forwarded one: {counted}"
    );
}

/// Sends each kind of request to Twilio Studio: starts, a search for one without a clear answer, and a fetch.
async fn run_flows(app: &Caller<'_>) {
    let mut places = Vec::new();
    for to in ["+14155550123", "+14155559005"] {
        let body = json!({"to": to, "from": "+14155238886", "parameters": {"name": "Ünï & 😀+"}});
        let path = "/v1/flows/FW00112233445566778899aabbccddeeff/executions";
        let answer = app.send(Method::POST, path, body.to_string()).await;
        assert_eq!(answer.status(), 202);
        places.push(answer.headers()["location"].to_str().unwrap().to_owned());
    }
    for place in &places {
        eventually("the execution has ended", async || app.get(place).await["status"] == "ended")
            .await;
    }
}

/// Sends each kind of request to Twilio Verify: starts, a search for one without a clear answer, a status, a check, a cancellation.
async fn verify_numbers(app: &Caller<'_>) {
    let start = async |body: Value| {
        let answer = app.send(Method::POST, "/v1/verifications", body.to_string()).await;
        let started: Value = answer.json().await.unwrap();
        started["links"].clone()
    };
    let metadata = json!({"login": "7"});
    let whole = json!({"to": "+14155550123", "locale": "pt_BR", "end_user_address": "192.0.2.1", "metadata": metadata});
    let whole = start(whole).await;
    // Twilio starts it and answers 500: its list of attempts is asked.
    let unclear = start(json!({"to": "+14155559005", "channel": "sms"})).await;
    // WhatsApp does not deliver, so an SMS follows.
    let undelivered = start(json!({"to": "+14155559112"})).await;
    let state = async |links: &Value| app.get(links["self"].as_str().unwrap()).await;
    eventually("the codes are sent", async || {
        state(&unclear).await["state"] == "sent"
            && state(&whole).await["state"] == "sent"
            && state(&undelivered).await["channel"] == "sms"
            && state(&undelivered).await["state"] == "sent"
    })
    .await;
    let place = whole["check"].as_str().unwrap();
    let checked = app.send(Method::POST, place, json!({"code": "000000"}).to_string()).await;
    assert_eq!(checked.status(), 200);
    let canceled = app.send(Method::POST, unclear["cancel"].as_str().unwrap(), String::new()).await;
    assert_eq!(canceled.status(), 200);
}
