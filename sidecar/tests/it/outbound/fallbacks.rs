//! Fallbacks: if the channel does not accept a message, the sidecar checks every rule again and sends a template or an SMS
//! once. The simulator acts as Twilio, and the tests claim its statuses as the filter would.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Decision};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::accepted,
    inbound::deliveries::command,
    outbound::templates::{known, started},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, status},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    free_text_outside_of_the_window_becomes_a_template,
    fallback_of_a_late_failure_is_sent_once,
    every_rule_is_asked_again,
    sidecar_killed_during_a_fallback_sends_it_once,
}

/// Twilio refuses a free text to this contact at once.
const REFUSED: &str = "whatsapp:+14155559015";
/// Twilio accepts a free text to this contact and reports its failure later.
const FAILS: &str = "whatsapp:+14155559010";
/// Number without a WhatsApp user.
const NOT_ON_WHATSAPP: &str = "whatsapp:+14155559014";
const PERSON: &str = "whatsapp:+14155550123";
/// Our number, to which the contacts write in these tests.
const OURS: &str = "whatsapp:+15550001111";
const SMS: &str = "+15557654321";
const NEWS: &str = "There is news about your order. Answer this message to read it.";

/// Creates a key of the account. These contacts have agreed to its messages and have written on WhatsApp.
async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>, people: &[&str]) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let app = Caller::app(sidecar, &token);
    known(&app).await;
    for (n, person) in people.iter().enumerate() {
        let agreed = json!({"number": person, "category": "utility", "source": "form", "at": "2026-11-01T10:00:00Z"});
        let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
        assert!(recorded.status().is_success());
        accepted(sidecar, &[inbound(&format!("w{n}"), &format!("SMw{n}"), person, "hello")]).await;
    }
    app
}

fn text(to: &str, body: &str, fallback: Value) -> Value {
    json!({"to": to, "from": OURS, "body": body, "fallback": fallback})
}

fn template() -> Value {
    json!({"template": {"name": "may_we_write"}})
}

async fn create_message(app: &Caller<'_>, wanted: &Value) -> String {
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn wait_for_state(app: &Caller<'_>, id: &str, state: &str) -> Value {
    let place = format!("/v1/messages/{id}");
    eventually(&format!("{id} is {state}"), async || app.get(&place).await["state"] == state).await;
    app.get(&place).await
}

/// Waits until the fallback of message `id` has the state `state`, and returns the fallback.
async fn wait_for_fallback(app: &Caller<'_>, id: &str, state: &str) -> Value {
    let place = format!("/v1/messages/{id}");
    eventually("the message has a fallback", async || {
        app.get(&place).await["fallback"].is_string()
    })
    .await;
    let other = app.get(&place).await["fallback"].as_str().unwrap().to_owned();
    let other = wait_for_state(app, &other, state).await;
    assert_eq!(other["fallback_of"], id);
    other
}

async fn count_messages(simulator: &Simulator, text: &str) -> usize {
    simulator.made().await.values().filter(|made| *made == text).count()
}

/// Returns the claim with which the filter passes on that Twilio reports a failed message.
fn failed(claim_id: &str, send: &Value, code: &str) -> Claim {
    let mut claim = status(claim_id, send["sid"].as_str().unwrap(), "failed");
    claim.identity.error_code = Some(code.to_owned());
    claim.form = format!("{}&ErrorCode={code}", claim.form);
    claim.message_id = Some(send["id"].as_str().unwrap().to_owned());
    claim
}

async fn free_text_outside_of_the_window_becomes_a_template(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root, &[REFUSED]).await;
    // Twilio refuses the text, and the template is sent.
    let id = create_message(&app, &text(REFUSED, "one", template())).await;
    let other = wait_for_fallback(&app, &id, "sent").await;
    let first = wait_for_state(&app, &id, "refused").await;
    assert_eq!(
        (&first["error"]["code"], &other["kind"]),
        (&json!("63016"), &json!("template")),
        "{first}"
    );
    assert_eq!(
        first["links"]["fallback"],
        format!("/v1/messages/{}", other["id"].as_str().unwrap())
    );
    assert_eq!(
        (count_messages(&simulator, "one").await, count_messages(&simulator, NEWS).await),
        (0, 1)
    );

    // Our rules refuse the text. The sidecar accepts the message only if its fallback can be sent.
    let agreed = json!({"number": PERSON, "category": "utility", "source": "form", "at": "2026-11-01T10:00:00Z"});
    assert!(app.send(Method::POST, "/v1/consents", agreed.to_string()).await.status().is_success());
    let refusal = async |wanted: Value| app.refusal(Method::POST, "/v1/messages", &wanted).await;
    assert_eq!(refusal(text(PERSON, "two", json!({}))).await, coded(409, "window_closed"));
    let mut dry = text(PERSON, "two", template());
    dry["dry_run"] = json!(true);
    let answer = app.send(Method::POST, "/v1/messages", dry.to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    let step = &answer["fallback"][0];
    assert_eq!(
        (&answer["allowed"], &step["to"], &step["allowed"]),
        (&json!(true), &json!("template"), &json!(true))
    );
    let id = create_message(&app, &text(PERSON, "two", template())).await;
    wait_for_fallback(&app, &id, "sent").await;
    assert_eq!(wait_for_state(&app, &id, "refused").await["error"]["code"], "window_closed");
    assert_eq!(
        (count_messages(&simulator, "two").await, count_messages(&simulator, NEWS).await),
        (0, 2)
    );
    assert_eq!(sidecar.metric("twilio_edge_fallbacks_total{to=\"template\"}").await, 2.0);

    // The sidecar refuses a request at once if its fallback can never be sent.
    for (fallback, expected) in [
        (json!({"template": {"name": "nothing"}}), coded(422, "template_unknown")),
        (json!({"template": {"name": "shipping_update"}}), coded(422, "variables_rejected")),
        (json!({"template": {"name": "winter_sale"}}), coded(409, "template_not_approved")),
        (json!({"channel": "sms"}), coded(409, "sender_unknown")),
        (json!({"channel": "rcs"}), coded(400, "malformed_request")),
        (json!({"chanel": "sms"}), coded(400, "malformed_request")),
    ] {
        assert_eq!(refusal(text(REFUSED, "no", fallback.clone())).await, expected, "{fallback}");
    }
    let media = json!({"to": REFUSED, "from": OURS, "media": ["https://example.com/a.png"],
        "fallback": {"channel": "sms", "from": SMS}});
    assert_eq!(refusal(media).await, coded(422, "invalid_field"));
}

async fn fallback_of_a_late_failure_is_sent_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let routing = world.directory.path().join("routing.yaml");
    std::fs::write(&routing, format!("fallback: {{channel: sms, from: \"{SMS}\"}}\n")).unwrap();
    let errors = world.directory.path().join("errors.toml");
    std::fs::write(&errors, "[63018]\naction = \"switch\"\nactor = \"caller\"\nto = [\"channel\"]\n[63032]\naction = \"give_up\"\n").unwrap();
    let settings = [
        ("TWILIO_EDGE_SENDING_ROUTING_FILE", routing.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_ERRORS_FILE", errors.to_str().unwrap()),
    ];
    let sidecar = started(&world, &simulator, &settings).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root, &[FAILS, NOT_ON_WHATSAPP]).await;
    // Twilio reports the failure several times, partly at the same time; the fallback is sent once.
    let id = create_message(&app, &text(FAILS, "one", template())).await;
    let sent = wait_for_state(&app, &id, "sent").await;
    let claims: Vec<Claim> = (0..6).map(|n| failed(&format!("a{n}"), &sent, "63016")).collect();
    let replies = claims.chunks(2).map(|some| sidecar.claim_all(some.to_vec()));
    futures_util::future::join_all(replies).await;
    wait_for_fallback(&app, &id, "sent").await;
    sidecar.claim(failed("late", &sent, "63016")).await;
    let first = wait_for_state(&app, &id, "sent").await;
    assert_eq!(first["error"]["code"], "63016", "Twilio had it: {first}");
    assert_eq!(count_messages(&simulator, NEWS).await, 1);
    assert_eq!(world.stored("SELECT id FROM outbound_messages").await.len(), 2);

    // The number has no WhatsApp user: the operator's routing sends the same text by SMS.
    let id =
        create_message(&app, &json!({"to": NOT_ON_WHATSAPP, "from": OURS, "body": "two"})).await;
    let sent = wait_for_state(&app, &id, "sent").await;
    sidecar.claim(failed("b", &sent, "63024")).await;
    let other = wait_for_fallback(&app, &id, "sent").await;
    assert_eq!((&other["from"], &other["kind"]), (&json!(SMS), &json!("session")), "{other}");
    assert_eq!(
        count_messages(&simulator, "two").await,
        2,
        "on WhatsApp, where it failed, and by SMS"
    );

    // The operator's error table decides. A message with `fallback: {}` and one that was delivered are not sent again.
    for (n, (body, code, fallback, is_sent)) in [
        ("three", "63018", Value::Null, true),
        ("four", "63032", Value::Null, false),
        ("five", "30003", Value::Null, false),
        ("six", "63024", json!({}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wanted = text(NOT_ON_WHATSAPP, body, fallback.clone());
        if fallback.is_null() {
            wanted.as_object_mut().unwrap().remove("fallback");
        }
        let id = create_message(&app, &wanted).await;
        let sent = wait_for_state(&app, &id, "sent").await;
        sidecar.claim(failed(&format!("c{n}"), &sent, code)).await;
        if is_sent {
            wait_for_fallback(&app, &id, "sent").await;
        }
        assert_eq!(
            app.get(&format!("/v1/messages/{id}")).await["fallback"].is_string(),
            is_sent,
            "{body}"
        );
    }
    let id =
        create_message(&app, &json!({"to": NOT_ON_WHATSAPP, "from": OURS, "body": "seven"})).await;
    let sent = wait_for_state(&app, &id, "sent").await;
    let mut arrived = failed("d1", &sent, "63024");
    (arrived.identity.status, arrived.identity.error_code) = (Some("delivered".into()), None);
    sidecar.claim(arrived).await;
    sidecar.claim(failed("d2", &sent, "63024")).await;
    assert!(app.get(&format!("/v1/messages/{id}")).await["fallback"].is_null());
    // The sidecar has deleted the stored fallback data.
    assert_eq!(
        world
            .stored("SELECT id FROM outbound_messages WHERE fallback <> '' OR fallback_to <> ''")
            .await,
        [""; 0]
    );
}

async fn every_rule_is_asked_again(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root, &[FAILS, NOT_ON_WHATSAPP]).await;
    let id = create_message(&app, &text(FAILS, "one", template())).await;
    let sent = wait_for_state(&app, &id, "sent").await;
    sidecar.claim(inbound("stop", "SMstop", FAILS, "STOP")).await;
    sidecar.claim(failed("a", &sent, "63016")).await;
    let other = wait_for_fallback(&app, &id, "refused").await;
    assert_eq!(
        (&other["error"]["code"], count_messages(&simulator, NEWS).await),
        (&json!("suppressed"), 0),
        "{other}"
    );
    let number = FAILS.trim_start_matches("whatsapp:");
    assert!(!other.to_string().contains(number), "{other}");

    // A redacted contact receives no fallback.
    let both = json!({"channel": "sms", "from": SMS});
    let id = create_message(&app, &text(NOT_ON_WHATSAPP, "two", both)).await;
    let sent = wait_for_state(&app, &id, "sent").await;
    let number = NOT_ON_WHATSAPP.trim_start_matches("whatsapp:");
    assert_eq!(
        world.stored("SELECT fallback_to FROM outbound_messages WHERE fallback <> ''").await,
        [number]
    );
    command(&world, &["redact", "--account", ACCOUNT, "--number", number]);
    assert_eq!(
        world
            .stored("SELECT id FROM outbound_messages WHERE fallback <> '' OR fallback_to <> ''")
            .await,
        [""; 0]
    );
    sidecar.claim(failed("b", &sent, "63024")).await;
    assert!(app.get(&format!("/v1/messages/{id}")).await["fallback"].is_null());
}

/// The sidecar is killed around the start of the fallback, and Twilio repeats the status until it receives an answer.
async fn sidecar_killed_during_a_fallback_sends_it_once(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    // The reconciler looks for the attempt of a killed sidecar after its hold.
    let soon =
        [("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"), ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "1")];
    let mut token = String::new();
    for n in 0..5_u64 {
        let sidecar = started(&world, &simulator, &soon).await;
        if token.is_empty() {
            let root = administrator(&sidecar).await;
            token = application(&sidecar, &root, &[FAILS]).await.token;
        }
        let app = Caller::app(&sidecar, &token);
        let id = create_message(&app, &text(FAILS, &format!("text {n}"), template())).await;
        let sent = wait_for_state(&app, &id, "sent").await;
        let claim = failed(&format!("k{n}"), &sent, "63016");
        let body = json!({"v": twilio_edge_contract::PROTOCOL_VERSION, "claims": [claim]});
        let asked =
            sidecar.client.post(format!("{}{}", sidecar.base, twilio_edge_contract::EXCHANGE_PATH));
        let asked = asked.bearer_auth(crate::support::sidecar::TOKEN).body(body.to_string());
        let request = tokio::spawn(asked.send());
        tokio::time::sleep(Duration::from_millis(n * 7)).await;
        sidecar.kill();
        let _ = request.await;
        // Ends the hold of the interrupted attempt.
        let end_hold = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state = 'attempting' RETURNING id";
        world.stored(end_hold).await;
        let sidecar = started(&world, &simulator, &soon).await;
        let app = Caller::app(&sidecar, &token);
        let again = failed(&format!("again{n}"), &sent, "63016");
        assert_ne!(sidecar.decide(again).await, Decision::Unavailable);
        let first = app.get(&format!("/v1/messages/{id}")).await;
        let place = first["links"]["fallback"].as_str().unwrap().to_owned();
        let deadline = Instant::now() + Duration::from_secs(120);
        while app.get(&place).await["state"] != "sent" {
            assert!(Instant::now() < deadline, "{}", app.get(&place).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let count = usize::try_from(n).unwrap() + 1;
        assert_eq!(count_messages(&simulator, NEWS).await, count, "one fallback for each message");
        sidecar.stop();
    }
}
