//! Notifications: the log of every message with its attempts, also of one that a rule declined, for the account and for a person;
//! its retention and its erasure. The simulator acts as Twilio.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    inbound::deliveries::{command, sinks},
    outbound::templates::{application, started},
    support::receiver::{Received, Receiver},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    every_message_is_a_notification_with_its_attempts,
    declined_message_is_logged_once_for_copies_of_a_request,
    notifications_end_with_their_retention_and_on_request,
}

const PERSON: &str = "+14155550123";
const STOPPED: &str = "+14155550177";
const OURS: &str = "+14155238886";

fn text(to: &str, body: &str) -> Value {
    let from = if to.starts_with("whatsapp:") { "whatsapp:+14155238886" } else { OURS };
    json!({"to": to, "from": from, "body": body})
}

async fn send(app: &Caller<'_>, wanted: &Value) -> Value {
    let place = "/v1/messages?wait_ms=20000";
    let answer = app.send(Method::POST, place, wanted.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{body}");
    body
}

async fn listed(app: &Caller<'_>, query: &str) -> Vec<Value> {
    let page = app.get(&format!("/v1/notifications{query}")).await;
    assert_eq!(page["next_cursor"], Value::Null, "{page}");
    page["notifications"].as_array().unwrap().clone()
}

fn texts(found: &[Value], name: &str) -> Vec<String> {
    found.iter().map(|one| one[name].as_str().unwrap_or("-").to_owned()).collect()
}

async fn every_message_is_a_notification_with_its_attempts(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;

    send(&app, &text(PERSON, "hello")).await;
    let declined = text(STOPPED, "not wanted");
    assert_eq!(
        app.refusal(Method::POST, "/v1/messages", &declined).await,
        coded(409, "suppressed")
    );
    // The SMS replaces a text that WhatsApp does not accept, although the contact wrote there.
    let mut refused = text("whatsapp:+14155559015", "either way");
    refused["from"] = json!("whatsapp:+15550001111");
    refused["fallback"] = json!({"channel": "sms", "from": OURS});
    crate::api::message_lists::accepted(
        &sidecar,
        &[inbound("c2", "SM2", "whatsapp:+14155559015", "hello")],
    )
    .await;
    let id = send(&app, &refused).await["id"].as_str().unwrap().to_owned();
    eventually("the SMS is sent", async || {
        let message = app.get(&format!("/v1/messages/{id}")).await;
        let Some(other) = message["fallback"].as_str() else { return false };
        app.get(&format!("/v1/messages/{other}")).await["state"] == "sent"
    })
    .await;

    let all = listed(&app, "").await;
    assert_eq!(texts(&all, "state"), ["sent", "declined", "sent"], "{all:#?}");
    let [switched, declined, sent] = <[Value; 3]>::try_from(all).unwrap();
    assert_eq!(
        (sent["to"].as_str(), sent["attempts"].as_array().unwrap().len()),
        (Some(PERSON), 1)
    );
    assert!(sent["attempts"][0]["provider_id"].as_str().unwrap().starts_with("SM"), "{sent}");
    assert_eq!(
        (
            &declined["error"]["code"],
            &declined["error"]["actor"],
            &declined["attempts"][0]["calls"]
        ),
        (&json!("suppressed"), &json!("caller"), &json!(0)),
        "{declined}"
    );
    assert!(declined["error"]["remedy"].is_string(), "{declined}");
    let attempts = switched["attempts"].as_array().unwrap();
    assert_eq!(texts(attempts, "channel"), ["whatsapp", "sms"], "{switched}");
    assert_eq!(texts(attempts, "state"), ["refused", "sent"]);
    assert_eq!(attempts[0]["error"]["code"], "63016");

    // One of them, by state, by person, and of no other account.
    let id = switched["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/v1/notifications/{id}")).await, switched);
    assert_eq!(listed(&app, "?state=declined").await, std::slice::from_ref(&declined));
    let person = PERSON.replace('+', "%2B");
    let of_person = async |more: &str| listed(&app, &format!("?person={more}")).await;
    assert_eq!(of_person(&person).await.len(), 1);
    assert_eq!(of_person(&format!("sms:{person}")).await.len(), 1);
    assert_eq!(of_person(&format!("whatsapp:{person}")).await, [] as [Value; 0]);
    let both = of_person("%2B14155559015").await;
    assert_eq!(texts(&both, "id"), [id], "a notification with two messages is listed once");
    let (_, token) = root.create("app", Some(OTHER), "another shop").await;
    let other = Caller::app(&sidecar, &token);
    assert_eq!(listed(&other, "").await, [] as [Value; 0]);
    let place = format!("/v1/notifications/{id}");
    let none = coded(404, "no_such_notification");
    assert_eq!(other.refusal(Method::GET, &place, &Value::Null).await, none);

    // Pages, and the lists of messages, which have accepted messages only.
    let first = app.get("/v1/notifications?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = app.get(&format!("/v1/notifications?limit=2&cursor={cursor}")).await;
    assert_eq!(texts(rest["notifications"].as_array().unwrap(), "state"), ["sent"]);
    let messages = app.get("/v1/messages?direction=outbound").await;
    assert!(!messages.to_string().contains("declined"), "{messages}");

    // The history of the person, and the command line.
    let history = app.get(&format!("/v1/numbers/{}", STOPPED.replace('+', "%2B"))).await;
    assert_eq!(texts(history["notifications"].as_array().unwrap(), "state"), ["declined"]);
    let of_account = ["--account", ACCOUNT, "-o", "json"];
    let shown = command(&world, &[&["notifications", "list"][..], &of_account].concat());
    let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
    assert_eq!(texts(&shown, "state"), ["sent", "declined", "sent"]);
    let shown = command(&world, &["notifications", "show", id, "--account", ACCOUNT]);
    assert!(shown.contains("63016") && shown.contains("whatsapp"), "{shown}");
}

async fn declined_message_is_logged_once_for_copies_of_a_request(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let receiver = Receiver::start().await;
    let taken = "classes = []\nevents = [\"message.declined\"]";
    let sinks = sinks(&world, &[("events", &receiver, taken)]);
    let sidecar = started(&world, &simulator, &[("TWILIO_EDGE_SINKS_FILE", &sinks)]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    let copies = async |place: &str, key: &str, body: &Value| {
        let request = app.client().post(format!("{}{place}", app.base)).bearer_auth(&app.token);
        let request = request.header("idempotency-key", key).body(body.to_string());
        request.send().await.unwrap().status().as_u16()
    };
    for _ in 0..2 {
        assert_eq!(copies("/v1/messages", "one", &text(STOPPED, "again")).await, 409);
    }
    assert_eq!(listed(&app, "").await.len(), 1);
    let batch = json!({"messages": [text(STOPPED, "a"), text(PERSON, "b"), text(STOPPED, "c")]});
    assert_eq!(copies("/v1/messages/batch", "two", &batch).await, 200);
    let all = listed(&app, "?state=declined").await;
    assert_eq!(all.len(), 3, "{all:#?}");
    // A declined message has no content, and is reported once.
    let stored = world
        .stored("SELECT form || fallback || fallback_to FROM outbound_messages WHERE state = 'declined'")
        .await;
    assert_eq!(stored, ["", "", ""]);
    eventually("the events arrive", async || receiver.got().len() >= 3).await;
    let events = receiver.got();
    assert_eq!(events.len(), 3, "{events:#?}");
    for body in events.iter().map(Received::event) {
        assert_eq!(
            (&body["event_type"], &body["data"]["error"]["code"], &body["data"]["provider"]),
            (&json!("message.declined"), &json!("suppressed"), &json!("messaging")),
            "{body}"
        );
    }
}

async fn notifications_end_with_their_retention_and_on_request(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let short = [("TWILIO_EDGE_REDACTION_EVERY_S", "1")];
    let sidecar = started(&world, &simulator, &short).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    send(&app, &text(PERSON, "hello")).await;
    app.refusal(Method::POST, "/v1/messages", &text(STOPPED, "a")).await;
    let contacts = async || {
        world
            .stored("SELECT contact FROM outbound_messages WHERE contact <> '' ORDER BY contact")
            .await
    };
    assert_eq!(contacts().await, [PERSON, STOPPED]);

    // On request, the person is removed and the fact that something was sent stays.
    let request = json!({"account_sid": ACCOUNT, "number": PERSON});
    let answer = root.send(Method::POST, "/v1/redactions", request.to_string()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(contacts().await, [STOPPED]);
    assert_eq!(listed(&app, &format!("?person={}", PERSON.replace('+', "%2B"))).await.len(), 0);
    let all = listed(&app, "").await;
    assert_eq!(texts(&all, "to"), [STOPPED, "sms:..23"]);

    // After their periods, contacts are removed, and declined messages are deleted.
    age_messages(&world, 500).await;
    eventually("the retention job runs", async || {
        contacts().await.is_empty() && listed(&app, "?state=declined").await.is_empty()
    })
    .await;
    assert_eq!(texts(&listed(&app, "").await, "state"), ["sent"]);
}

/// Makes every message this many days older.
async fn age_messages(world: &World, days: i64) {
    let ms = days * 86_400_000;
    let changed = "RETURNING CAST(1 AS TEXT)";
    let update =
        format!("UPDATE outbound_messages SET created_at_ms = created_at_ms - {ms} {changed}");
    assert!(!world.stored(&update).await.is_empty());
}
