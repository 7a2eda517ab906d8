//! Executions of Studio flows: each starts once, after every rule permits it, on request or for an inbound message. The simulator acts
//! as Twilio; its flows send one message each.

use std::{path::Path, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use twilio_edge_contract::{Claim, Decision, Outcome};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    support::documented,
    support::servers::{eventually, eventually_within},
    support::sidecar::{ACCOUNT, Sidecar, inbound, unclaimed},
    support::simulator::{SECRET, Simulator},
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    execution_starts_once_and_is_in_the_notification_log,
    declined_execution_is_a_notification_and_reaches_no_one,
    execution_without_a_clear_answer_is_found_and_not_started_again,
    inbound_message_starts_its_flow_once,
    killed_sidecars_start_each_flow_once,
}

const FLOW: &str = "FW00112233445566778899aabbccddeeff";
const PERSON: &str = "whatsapp:+14155550123";
const OURS: &str = "whatsapp:+14155238886";
const STOPPED: &str = "+14155550177";

async fn started(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "2000"),
    ];
    world.sidecar_with(&[&settings[..], more].concat()).await
}

async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    Caller::app(sidecar, &token)
}

/// Returns the executions of the flow that the simulator has, newest first.
async fn at_twilio(simulator: &Simulator) -> Vec<Value> {
    let url = format!("{}/v2/Flows/{FLOW}/Executions", simulator.base);
    let request = reqwest::Client::new().get(url).basic_auth(ACCOUNT, Some(SECRET));
    let page: Value = request.send().await.unwrap().json().await.unwrap();
    page["executions"].as_array().unwrap().clone()
}

/// Starts an execution, and returns it once Twilio has decided.
async fn start(app: &Caller<'_>, body: Value) -> Value {
    let path = format!("/v1/flows/{FLOW}/executions?wait_ms=20000");
    let answer = app.send(Method::POST, &path, body.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{body}");
    body
}

async fn notifications(app: &Caller<'_>) -> Vec<Value> {
    app.get("/v1/notifications").await["notifications"].as_array().unwrap().clone()
}

async fn execution_starts_once_and_is_in_the_notification_log(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(Claim { form: to_ours("SM1", "Hi"), ..inbound("c1", "SM1", PERSON, "Hi") }).await;
    sidecar.until_written().await;
    // As at Twilio, the contact's message opens the window there too.
    let opened = json!({"from": PERSON, "to": OURS, "body": "Hi"}).to_string();
    let url = format!("{}/simulator/inbound", simulator.base);
    reqwest::Client::new().post(url).body(opened).send().await.unwrap();

    let request = json!({"to": PERSON, "from": OURS, "parameters": {"text": "Hello Ada", "order": 7},
        "metadata": {"order": "7"}});
    let path = format!("{}/v1/flows/{FLOW}/executions", sidecar.base);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = sidecar.client.post(&path).bearer_auth(&app.token);
        let answer = answer.header("idempotency-key", "order-7").body(request.to_string());
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let accepted: Value = answer.json().await.unwrap();
        ids.push(accepted["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let place = format!("/v1/flows/{FLOW}/executions/{}", ids[0]);
    eventually("the execution has ended", async || app.get(&place).await["status"] == "ended")
        .await;
    let shown = app.get(&place).await;
    assert_eq!(
        (&shown["state"], &shown["to"], &shown["category"], &shown["metadata"]),
        (&json!("sent"), &json!(PERSON), &json!("service"), &json!({"order": "7"})),
        "{shown}"
    );
    let executions = at_twilio(&simulator).await;
    assert_eq!(executions.len(), 1, "{executions:?}");
    assert_eq!(executions[0]["sid"], shown["sid"]);
    let made = simulator.made().await;
    assert_eq!(made.into_values().filter(|text| text == "Hello Ada").count(), 1);

    let notification = app.get(shown["links"]["notification"].as_str().unwrap()).await;
    assert_eq!(
        (&notification["provider"], &notification["state"], &notification["to"]),
        (&json!("studio"), &json!("sent"), &json!(PERSON)),
        "{notification}"
    );
    assert_eq!(notification["attempts"][0]["provider_id"], shown["sid"]);
    let messages = app.get("/v1/messages?direction=outbound").await;
    assert_eq!(messages["messages"], json!([]), "executions are no messages");

    // Another account, another flow or another id has no such execution.
    let (_, other) = root.create("app", Some(OTHER), "another shop").await;
    let other = Caller::app(&sidecar, &other);
    let missing = coded(404, "no_such_execution");
    assert_eq!(other.refusal(Method::GET, &place, &Value::Null).await, missing);
    let elsewhere = format!("/v1/flows/FW{}/executions/{}", "1".repeat(32), ids[0]);
    assert_eq!(app.refusal(Method::GET, &elsewhere, &Value::Null).await, missing);
}

async fn declined_execution_is_a_notification_and_reaches_no_one(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    let path = format!("/v1/flows/{FLOW}/executions");
    let template = json!({"to": PERSON, "from": OURS, "first_message": "template"});
    let sms = "+14155238886";
    for (body, refusal) in [
        (json!({"to": STOPPED, "from": sms}), coded(409, "suppressed")),
        (json!({"to": PERSON, "from": OURS}), coded(409, "window_closed")),
        (template, coded(409, "no_consent")),
        (json!({"to": "+14155550123"}), coded(409, "sender_unknown")),
    ] {
        assert_eq!(app.refusal(Method::POST, &path, &body).await, refusal, "{body}");
    }
    let declined: Vec<Value> = notifications(&app).await;
    let states: Vec<&Value> = declined.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, [&json!("declined"); 4], "{declined:?}");
    assert!(declined.iter().all(|one| one["provider"] == "studio"));
    for (body, refusal) in [
        (json!({"to": "Ada", "from": sms}), coded(422, "invalid_recipient")),
        (
            json!({"to": PERSON, "from": OURS, "parameters": {"twilio_edge_id": "x"}}),
            coded(422, "invalid_field"),
        ),
    ] {
        assert_eq!(app.refusal(Method::POST, &path, &body).await, refusal, "{body}");
    }
    let wrong = app.refusal(Method::POST, "/v1/flows/FW1/executions", &json!({"to": sms})).await;
    assert_eq!(wrong.0, 400);
    // Twilio's own refusal ends the execution.
    let refused = start(&app, json!({"to": "+14155559008", "from": sms})).await;
    assert_eq!(
        (&refused["state"], &refused["error"]["code"]),
        (&json!("refused"), &json!("20404"))
    );
    assert_eq!(at_twilio(&simulator).await, Vec::<Value>::new());
    assert!(simulator.made().await.is_empty());
}

async fn execution_without_a_clear_answer_is_found_and_not_started_again(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let settings = [("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2")];
    let sidecar = started(&world, &simulator, &settings).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    // Twilio starts both executions for each number, but answers 500, or not at all.
    let mut places = Vec::new();
    for to in ["+14155559005", "+14155559006", "+14155559005"] {
        let path = format!("/v1/flows/{FLOW}/executions");
        let body = json!({"to": to, "from": "+14155238886"}).to_string();
        let answer = app.send(Method::POST, &path, body).await;
        assert_eq!(answer.status(), 202);
        places.push(answer.headers()["location"].to_str().unwrap().to_owned());
    }
    let mut sids = Vec::new();
    for place in &places {
        eventually("the execution is found", async || app.get(place).await["state"] == "sent")
            .await;
        sids.push(app.get(place).await["sid"].as_str().unwrap().to_owned());
    }
    let mut known: Vec<String> = at_twilio(&simulator)
        .await
        .iter()
        .map(|one| one["sid"].as_str().unwrap().to_owned())
        .collect();
    known.sort();
    let same = (sids[0] != sids[2]).then_some(());
    sids.sort();
    assert_eq!((sids, same), (known, Some(())), "each execution is found by its id");
}

/// Returns the form of a message to our number on WhatsApp.
fn to_ours(message_sid: &str, body: &str) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([
        ("MessageSid", message_sid),
        ("From", PERSON),
        ("To", OURS),
        ("Body", body),
    ]);
    form.finish()
}

fn message(claim_id: &str, message_sid: &str, body: &str) -> Claim {
    Claim { form: to_ours(message_sid, body), ..inbound(claim_id, message_sid, PERSON, body) }
}

async fn inbound_message_starts_its_flow_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let routing = world.directory.path().join("routing.yaml");
    let trigger = format!(
        "flows:\n  - flow: {FLOW}\n    channels: [whatsapp]\n    texts: [book]\n    parameters: {{source: edge}}\n"
    );
    std::fs::write(&routing, trigger).unwrap();
    let settings = [("TWILIO_EDGE_SENDING_ROUTING_FILE", routing.to_str().unwrap())];
    let sidecar = started(&world, &simulator, &settings).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;

    // Twilio and the filter repeat the webhook; another one comes without a verdict.
    for copy in ["c1", "c2", "c3"] {
        sidecar.claim(message(copy, "SM1", " Book ")).await;
    }
    let late = message("c4", "SM2", "BOOK");
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    // Other texts and keywords start no flow.
    sidecar.claim(message("c5", "SM3", "book a table")).await;
    sidecar.claim(message("c6", "SM4", "HELP")).await;
    eventually("two executions", async || at_twilio(&simulator).await.len() == 2).await;
    let listed = notifications(&app).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let id = listed[1]["attempts"][0]["id"].as_str().unwrap().replace("ms_", "fx_");
    let place = format!("/v1/flows/{FLOW}/executions/{id}");
    let shown = app.get(&place).await;
    assert_eq!(
        (&shown["started_by_message"], &shown["created_by"]),
        (&json!("SM1"), &json!("inbound message")),
        "{shown}"
    );
    let sid = shown["sid"].as_str().unwrap();
    let url = format!("{}/v2/Flows/{FLOW}/Executions/{sid}/Context", simulator.base);
    let request = reqwest::Client::new().get(url).basic_auth(ACCOUNT, Some(SECRET));
    let context: Value = request.send().await.unwrap().json().await.unwrap();
    let data = &context["context"]["flow"]["data"];
    assert_eq!(data["source"], "edge");
    assert_eq!(data["message"], json!({"sid": "SM1", "body": " Book "}));
    assert_eq!(context["context"]["flow"]["channel"]["address"], OURS);
    let counted = sidecar.metric("twilio_edge_flows_started_total{state=\"queued\"}").await;
    assert!((counted - 2.0).abs() < f64::EPSILON, "{counted}");

    // A contact who opted out is not reached, even if the contact writes.
    sidecar.claim(message("c7", "SM5", "STOP")).await;
    sidecar.claim(message("c8", "SM6", "book")).await;
    eventually("the execution is refused", async || {
        notifications(&app).await.first().is_some_and(|one| one["state"] == "refused")
    })
    .await;
    let refused = &notifications(&app).await[0];
    assert_eq!(refused["error"]["code"], "suppressed", "{refused}");
    assert_eq!(at_twilio(&simulator).await.len(), 2);
}

async fn killed_sidecars_start_each_flow_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows", "--latency-ms", "50"]);
    let routing = world.directory.path().join("routing.yaml");
    std::fs::write(&routing, format!("flows: [{{flow: {FLOW}}}]\n")).unwrap();
    let settings = [
        ("TWILIO_EDGE_SENDING_ROUTING_FILE", routing.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2"),
        ("TWILIO_EDGE_LEASES_PERIOD_MS", "1000"),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "5000"),
    ];
    let mut sidecar = started(&world, &simulator, &settings).await;
    let people: Vec<String> = (0..6).map(|n| format!("whatsapp:+1415555020{n}")).collect();
    for (n, person) in people.iter().enumerate() {
        let sid = format!("SM{n}");
        // The sidecar dies before, during and after the row is stored, and before, during and after the call of Twilio.
        let pause = Duration::from_millis(20 * u64::try_from(n).unwrap());
        let claiming = async {
            sidecar.claim(inbound(&format!("{sid}-1"), &sid, person, "Hi")).await;
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(pause, claiming).await;
        sidecar.kill();
        sidecar = started(&world, &simulator, &settings).await;
        // The filter asks until the lease of the first claim is over.
        eventually("the webhook may be forwarded", async || {
            let again = inbound(&format!("{sid}-2"), &sid, person, "Hi");
            sidecar.decide(again).await == Decision::Proceed
        })
        .await;
    }
    let open = "SELECT id FROM outbound_messages WHERE state <> 'sent'";
    eventually_within(Duration::from_secs(120), "each execution is started", async || {
        // As if the holds of the killed attempts were over. A call of the living sidecar takes at most two seconds.
        let before = jiff::Timestamp::now().as_millisecond() - 4000;
        let age = format!(
            "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 2000 \
             WHERE state IN ('attempting', 'unknown') AND attempted_at_ms < {before} RETURNING id"
        );
        world.stored(&age).await;
        world.stored(open).await.is_empty()
    })
    .await;
    let started = at_twilio(&simulator).await;
    let mut contacts: Vec<&str> =
        started.iter().map(|one| one["contact_channel_address"].as_str().unwrap()).collect();
    contacts.sort_unstable();
    assert_eq!(contacts, people.iter().map(String::as_str).collect::<Vec<_>>(), "each once");
}

/// Runs a script with an SDK against the sidecar. The script prints `judged` if all its checks pass.
#[tokio::test]
async fn documented_flow_works() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let guide = include_str!("../../../../docs/NOTIFICATIONS.md");
    let shown =
        documented::run(&world, &app, &simulator, &documented::script(guide, "Start a flow")).await;
    let listed: Value = serde_json::from_str(&shown).unwrap();
    let attempt = &listed["notifications"][0]["attempts"][0];
    assert_eq!(
        (&attempt["provider"], &attempt["state"]),
        (&json!("studio"), &json!("sent")),
        "{listed}"
    );
    assert_eq!(at_twilio(&simulator).await.len(), 1);
}

async fn judged(program: &str, script: &str, sdk: &str) {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let wait = [("TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS", "5000")];
    let sidecar = started(&world, &simulator, &wait).await;
    let root_key = administrator(&sidecar).await;
    let (id, token) = root_key.create("app", Some(ACCOUNT), "the shop").await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let config = json!({
        "base": sidecar.base, "account": ACCOUNT, "key": id, "token": token, "flow": FLOW,
        "stopped": STOPPED, "other": OTHER, "sdk": root.join(sdk),
    });
    let mut run = match program.contains('/') {
        true => Command::new(root.join(program)),
        false => Command::new(program),
    };
    run.arg(root.join("sidecar/tests/it/outbound/dropin").join(script)).arg(config.to_string());
    let run = run.kill_on_drop(true).output();
    let judged = tokio::time::timeout(Duration::from_secs(120), run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    let log = sidecar.log();
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {said}\n{log}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged");
}

#[tokio::test]
async fn python_sdk_runs_flows() {
    judged(".venv/bin/python", "studio.py", ".venv").await;
}

#[tokio::test]
async fn node_sdk_runs_flows() {
    judged("node", "studio.mjs", "wasm-tests/signers").await;
}
