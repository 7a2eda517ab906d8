//! Requests of the sidecar to SendGrid and the simulator's answers, validated with SendGrid's own OpenAPI document, and SendGrid's
//! own SDK as a client of the simulator.

use std::process::Command;

use serde_json::{Value, json};

use super::{SHOP, Shop, count_to, smtp};
use crate::support::{
    recorder::Recorder,
    servers::eventually,
    simulator::{SECRET, Simulator},
    world::{Kind, World},
};

#[tokio::test]
async fn requests_to_send_grid_match_its_description() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let recorder = Recorder::start(&simulator).await;
    let accounts = Shop::account(&simulator).await;
    let sidecar = Shop::serve_through(&world, &accounts, &simulator, &recorder.base).await;
    let shop = Shop::open(sidecar).await;
    let template = format!("d-{}", "0".repeat(32));
    let mut ids = Vec::new();
    for email in [
        json!({"to": "ava@example.com", "subject": "\u{dc}n\u{ef} & \u{1f600}", "text": "It is on its way."}),
        json!({"to": "bob@b\u{fc}cher.example", "subject": "x", "html": "<p>\u{f6}", "from": "news@example.com",
            "from_name": "N\u{eb}ws, \"daily\"", "reply_to": "help@example.com"}),
        json!({"to": "o'hara+1@mail.example.com", "subject": "x".repeat(300), "text": "x", "html": "<p>x"}),
        json!({"to": "eve@example.com", "template_id": template, "category": "service",
            "data": {"name": "Eve", "lines": [{"n": 1, "price": 2.5, "isNew": true, "note": null}]}}),
        json!({"to": "dan@example.com", "template_id": template, "category": "service"}),
    ] {
        ids.push((shop.send_email(email).await, "sent"));
    }
    for (to, state) in [
        ("throttled@example.com", "sent"),
        ("error@example.com", "unknown"),
        ("unavailable@example.com", "unknown"),
        ("unauthorized@example.com", "refused"),
        ("too-large@example.com", "refused"),
    ] {
        ids.push((shop.send(to).await, state));
    }
    for (id, state) in &ids {
        shop.wait_for(id, "state", state).await;
    }
    let exchanges = recorder.exchanges();
    assert_eq!(
        exchanges.len(),
        ids.len() + 1,
        "one call for each e-mail, and the throttled one twice"
    );
    waits_for_the_reset(&exchanges);

    let seen = world.directory.path().join("seen.json");
    std::fs::write(&seen, Value::from(exchanges).to_string()).unwrap();
    let judged = Command::new(smtp::root().join(".tools/webhooks/bin/python"))
        .arg(smtp::script("judge.py"))
        .arg(smtp::root().join(".tools/openapi/sendgrid.com.json"))
        .arg(&seen)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if anything is missing: {errors}");
    let counted: Value = serde_json::from_slice(&judged.stdout).unwrap();
    let expected = json!({"202": 6, "401": 1, "413": 1, "429": 1, "500": 1, "503": 1});
    assert_eq!(counted, expected, "answers by status");
}

/// Checks that the second call for the throttled e-mail comes after the time in `X-RateLimit-Reset`.
fn waits_for_the_reset(exchanges: &[Value]) {
    let is_throttled =
        |exchange: &&Value| exchange["body"].as_str().unwrap().contains("throttled@example.com");
    let calls: Vec<&Value> = exchanges.iter().filter(is_throttled).collect();
    let headers = &calls[0]["answer"]["headers"];
    assert_eq!(headers.get("retry-after"), None, "{headers}");
    let reset_s: i64 = headers["x-ratelimit-reset"].as_str().unwrap().parse().unwrap();
    let second_ms = calls[1]["at_ms"].as_i64().unwrap();
    assert!(second_ms >= reset_s * 1000, "{second_ms} is before {reset_s}");
}

#[tokio::test]
async fn other_emails_of_the_sender_wait_while_send_grid_throttles() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let recorder = Recorder::start(&simulator).await;
    let accounts = Shop::account(&simulator).await;
    let sidecar = Shop::serve_through(&world, &accounts, &simulator, &recorder.base).await;
    let shop = Shop::open(sidecar).await;
    let throttled = shop.send("throttled@example.com").await;
    eventually("the first call was throttled", async || !recorder.exchanges().is_empty()).await;
    shop.wait_for(&throttled, "state", "queued").await;
    let id = shop.send("ava@example.com").await;
    let other =
        json!({"to": "bob@example.com", "from": "news@example.com", "subject": "x", "text": "x"});
    let of_other_sender = shop.send_email(other).await;
    for id in [&throttled, &id, &of_other_sender] {
        shop.wait_for(id, "state", "sent").await;
    }
    let exchanges = recorder.exchanges();
    let reset_s = exchanges[0]["answer"]["headers"]["x-ratelimit-reset"].as_str().unwrap();
    let reset_ms = reset_s.parse::<i64>().unwrap() * 1000;
    let first_to = |to: &str| {
        let mut calls = exchanges.iter().filter(|call| call["body"].as_str().unwrap().contains(to));
        calls.next().unwrap()["at_ms"].as_i64().unwrap()
    };
    assert!(first_to("ava@example.com") >= reset_ms, "the sender pauses: {exchanges:?}");
    assert!(first_to("bob@example.com") < reset_ms, "the other sender does not: {exchanges:?}");
}

#[tokio::test]
async fn sdk_of_send_grid_sends_to_the_simulator() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let sent = Command::new(smtp::python())
        .arg(smtp::script("send.py"))
        .args([&simulator.base, SECRET, SHOP])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success(), "run `make setup-test` if anything is missing: {errors}");
    assert_eq!(count_to(&simulator, "ava@example.com").await, 2);
    assert_eq!(count_to(&simulator, "bob@example.com").await, 1);
}
