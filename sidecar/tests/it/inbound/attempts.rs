//! Attempts to deliver, as an operator sees them, and test events.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Decision;

use crate::{
    access::api_keys::{administrator, coded},
    inbound::deliveries::{command, from, sinks, start},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::ACCOUNT,
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    attempts_are_shown_with_status_latency_and_answer,
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn attempts_are_shown_with_status_latency_and_answer(world: World) {
    let mut app = Receiver::start().await;
    app.answers(|_| 503);
    app.says(&format!("try\nlater {}", "é".repeat(200)));
    let file = sinks(&world, &[("app", &app, "longest_pause_ms = 100")]);
    let sidecar = start(&world, &file).await;
    let root = administrator(&sidecar).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    eventually("the sink has refused twice", async || app.got().len() >= 2).await;
    app.leave();
    let event = format!("inbound:{ACCOUNT}:SM1x1");
    let path = format!("/v1/events/{event}/deliveries");
    eventually("an attempt has failed without an answer", async || {
        let deliveries = root.get(&path).await;
        let attempts = deliveries["deliveries"][0]["attempts"].as_array().cloned();
        attempts.unwrap_or_default().iter().any(|attempt| attempt["status"].is_null())
    })
    .await;
    app.answers(|_| 202);
    app.says("thanks");
    app.listen().await;
    eventually("the delivery is done", async || {
        root.get(&path).await["deliveries"][0]["state"] == "done"
    })
    .await;
    let deliveries = root.get(&path).await;
    let delivery = &deliveries["deliveries"][0];
    assert_eq!((&delivery["sink"], &delivery["delivery_id"]), (&json!("app"), &json!(event)));
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(delivery["tries"], attempts.len());
    let (first, last) = (&attempts[0], attempts.last().unwrap());
    assert_eq!((&first["status"], &first["outcome"]), (&json!(503), &json!("failed")));
    let answer = first["answer"].as_str().unwrap();
    assert!(answer.starts_with("try later éé") && answer.len() <= 256 + 3, "{answer}");
    assert_eq!((&last["status"], &last["outcome"]), (&json!(202), &json!("delivered")));
    assert_eq!((&last["answer"], &last["reason"]), (&json!("thanks"), &Value::Null));
    let silent = attempts.iter().find(|attempt| attempt["status"].is_null()).unwrap();
    assert!(silent["reason"].as_str().unwrap().contains("onnect"), "{silent}");
    let times: Vec<&str> = attempts.iter().map(|one| one["at"].as_str().unwrap()).collect();
    assert!(
        times.is_sorted() && attempts.iter().all(|one| one["latency_ms"].is_u64()),
        "{times:?}"
    );

    let shown = command(&world, &["deliveries", "show", &event]);
    assert!(
        shown.contains("delivered") && shown.contains("202") && shown.contains("thanks"),
        "{shown}"
    );
    let id = delivery["id"].to_string();
    let shown = command(&world, &["deliveries", "show", &id, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["attempts"].as_array().unwrap(), attempts);

    // An answer may repeat what the contact wrote.
    command(&world, &["redact", "--account", ACCOUNT, "--message-sid", "SM1x1"]);
    assert_eq!(root.get(&path).await["deliveries"][0]["attempts"], json!([]));
}

#[tokio::test]
async fn test_event_reaches_the_sink_signed_and_shows_the_answer() {
    let world = World::new(Kind::Sqlite).await;
    let app = Receiver::start().await;
    app.says("thanks");
    let more =
        format!("secrets = [\"{SECRET}\"]\nbearer_token = \"hush-token\"\nclasses = [\"status\"]");
    let file = sinks(&world, &[("app", &app, &more)]);
    let sidecar = start(&world, &file).await;
    let root = administrator(&sidecar).await;
    let listed = root.get("/v1/sinks").await;
    let sink = json!({
        "name": "app", "type": "http", "available": true, "waiting": 0, "oldest_waiting_at": null,
        "dead_letters": 0, "oldest_dead_letter_at": null,
    });
    assert_eq!(listed, json!({ "sinks": [sink] }));
    let tested = root.send(Method::POST, "/v1/sinks/app/test", String::new()).await;
    assert_eq!(tested.status(), 200);
    let tested: Value = tested.json().await.unwrap();
    let attempt = &tested["attempt"];
    assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("delivered"), &json!(200)));
    assert_eq!(attempt["answer"], "thanks");
    let got = app.got().remove(0);
    assert_eq!(got.header("webhook-id"), tested["delivery_id"].as_str().unwrap());
    assert_eq!(got.header("x-twilio-edge-test"), "true");
    assert_eq!(got.header("authorization"), "Bearer hush-token");
    assert_eq!(
        (&got.event()["event_type"], &got.event()["replay"]),
        (&json!("test"), &json!(false))
    );
    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
    verifier.verify(got.body.as_bytes(), &got.headers).unwrap();
    assert!(world.stored("SELECT delivery_id FROM deliveries").await.is_empty(), "no delivery");
    let audit = root.get("/v1/audit?limit=1").await;
    assert_eq!(audit["entries"][0]["action"], "sink.tested");
    let refusal = root.refusal(Method::POST, "/v1/sinks/crm/test", &Value::Null).await;
    assert_eq!(refusal, coded(404, "no_such_sink"));

    // The command needs neither a sidecar nor a database.
    sidecar.stop();
    app.answers(|_| 401);
    app.says("who are you?");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(arguments).env("TWILIO_EDGE_SINKS_FILE", &file).output().unwrap()
    };
    let listed = run(&["sinks", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed, json!([{"name": "app", "type": "http"}]));
    let tested = run(&["sinks", "test", "app", "--json"]);
    assert!(!tested.status.success(), "the sink did not accept the event");
    let tested: Value = serde_json::from_slice(&tested.stdout).unwrap();
    assert_eq!((&tested[0]["status"], &tested[0]["answer"]), (&json!(401), &json!("who are you?")));
    app.answers(|_| 204);
    app.says("");
    let tested = run(&["sinks", "test", "app"]);
    let table = String::from_utf8(tested.stdout).unwrap();
    assert!(
        tested.status.success() && table.contains("delivered") && !table.contains("hush"),
        "{table}"
    );
    let unknown = run(&["sinks", "test", "crm"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("has no sink crm"));
}
