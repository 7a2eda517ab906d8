//! Drop-in requests that the sidecar passes on to Twilio. The tests check the answers, and that redaction and deletion reach
//! our store.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{asked, prepared, started};
use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::{accepted, status_callback},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

crate::support::world::on_every_store!(@ sqlite Sqlite
    redaction_and_deletion_reach_our_store status_of_twilio_is_passed_on
    senders_are_alike_and_a_later_failure_is_shown);
crate::support::world::on_every_store!(@ postgres Postgres
    redaction_and_deletion_reach_our_store status_of_twilio_is_passed_on
    senders_are_alike_and_a_later_failure_is_shown);

const PERSON: &str = "+14155550123";
const TEXT: &str = "a confidential text";

/// Sends a text, waits until the simulator has delivered it, and returns its SID.
async fn delivered(sidecar: &Sidecar, token: &str) -> String {
    let form = [("To", PERSON), ("From", "+14155238886"), ("Body", TEXT)];
    let messages = format!("Accounts/{ACCOUNT}/Messages.json");
    let (status, made) =
        asked(sidecar, (ACCOUNT, token), (Method::POST, &messages), &form, None).await;
    assert_eq!(status, 201, "{made}");
    let sid = made["sid"].as_str().unwrap().to_owned();
    let place = format!("Accounts/{ACCOUNT}/Messages/{sid}.json");
    eventually("the message is delivered", async || {
        let ours = (ACCOUNT, token);
        asked(sidecar, ours, (Method::GET, &place), &[], None).await.1["status"] == "delivered"
    })
    .await;
    sid
}

/// Deletes a message, and returns the HTTP status.
async fn deleted(sidecar: &Sidecar, token: &str, sid: &str) -> u16 {
    let place = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json", sidecar.base);
    let request = sidecar.client.delete(place).basic_auth(ACCOUNT, Some(token));
    request.send().await.unwrap().status().as_u16()
}

/// Returns the stored forms of all webhooks of a message, as one text.
async fn stored(world: &World, sid: &str) -> String {
    let query = format!("SELECT coalesce(form, '') FROM events WHERE message_sid = '{sid}'");
    world.stored(&query).await.join("\n")
}

async fn redaction_and_deletion_reach_our_store(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, [(_, token), _]) = prepared(&world, &simulator, &[]).await;
    let ours = (ACCOUNT, token.as_str());
    let sid = delivered(&sidecar, &token).await;
    accepted(&sidecar, &[inbound("d1", &sid, "whatsapp:+14155550123", TEXT)]).await;
    assert!(stored(&world, &sid).await.contains("confidential"));

    let place = format!("Accounts/{ACCOUNT}/Messages/{sid}.json");
    let redact = [("Body", "")];
    let (status, shown) = asked(&sidecar, ours, (Method::POST, &place), &redact, None).await;
    assert_eq!((status.as_u16(), &shown["body"]), (200, &json!("")), "{shown}");
    let left = stored(&world, &sid).await;
    assert!(!left.contains("confidential") && left.contains("14155550123"), "{left}");

    assert_eq!(deleted(&sidecar, &token, &sid).await, 204);
    let left = stored(&world, &sid).await;
    assert!(!left.contains("14155550123"), "{left}");
    let (status, said) = asked(&sidecar, ours, (Method::GET, &place), &[], None).await;
    assert_eq!((status.as_u16(), &said["code"]), (404, &json!(20404)));
    assert_eq!(deleted(&sidecar, &token, &sid).await, 404);

    // The message is deleted at Twilio only, as after an outage of our database. A repeated request deletes it in our store.
    let sid = delivered(&sidecar, &token).await;
    accepted(&sidecar, &[inbound("d2", &sid, "whatsapp:+14155550123", TEXT)]).await;
    let there = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json", simulator.base);
    let gone =
        sidecar.client.delete(there).basic_auth(ACCOUNT, Some(crate::support::simulator::SECRET));
    assert_eq!(gone.send().await.unwrap().status(), 204);
    assert_eq!(deleted(&sidecar, &token, &sid).await, 204);
    assert!(!stored(&world, &sid).await.contains("confidential"));
    assert_eq!(deleted(&sidecar, &token, &sid).await, 404);

    // A scheduled message exists in our store only.
    let messages = format!("Accounts/{ACCOUNT}/Messages.json");
    let later = (jiff::Timestamp::now() + Duration::from_secs(3600)).to_string();
    let form = [
        ("To", PERSON),
        ("From", "+14155238886"),
        ("Body", TEXT),
        ("ScheduleType", "fixed"),
        ("SendAt", later.as_str()),
    ];
    let (_, made) = asked(&sidecar, ours, (Method::POST, &messages), &form, None).await;
    let sid = made["sid"].as_str().unwrap();
    let place = format!("Accounts/{ACCOUNT}/Messages/{sid}.json");
    assert_eq!(deleted(&sidecar, &token, sid).await, 409, "the message waits for its time");
    let cancel = [("Status", "canceled")];
    asked(&sidecar, ours, (Method::POST, &place), &cancel, None).await;
    assert_eq!(deleted(&sidecar, &token, sid).await, 204);
    assert_eq!(deleted(&sidecar, &token, sid).await, 404);
    let audited = world.stored("SELECT subject FROM audit WHERE action = 'message.deleted'").await;
    assert_eq!(audited, [sid.replacen("SM", "ms_", 1)]);
}

async fn status_of_twilio_is_passed_on(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, [(_, token), _]) = prepared(&world, &simulator, &[]).await;
    let ours = (ACCOUNT, token.as_str());
    let messages = format!("Accounts/{ACCOUNT}/Messages.json");
    for (to, status, code) in
        [("+14155559002", 400, 21211), ("+14155559008", 404, 20404), ("+14155559009", 401, 20003)]
    {
        let form = [("To", to), ("From", "+14155238886"), ("Body", "hi")];
        // A repeated request gets the same answer.
        for _ in 0..2 {
            let place = (Method::POST, messages.as_str());
            let (answered, said) = asked(&sidecar, ours, place, &form, Some(to)).await;
            let expected = (status, &json!(code), &json!(status));
            assert_eq!((answered.as_u16(), &said["code"], &said["status"]), expected, "{said}");
        }
    }
    // Our API key does not reveal Twilio's auth token of the account.
    let place = format!("Accounts/{ACCOUNT}.json");
    let (status, account) = asked(&sidecar, ours, (Method::GET, &place), &[], None).await;
    assert_eq!((status.as_u16(), &account["sid"]), (200, &json!(ACCOUNT)));
    assert_eq!(account["auth_token"], Value::Null);
    assert!(!account.to_string().contains(crate::support::simulator::SECRET), "{account}");
}

/// Our own API accepts short codes, names and Messaging Services as senders too. A message shows a failure that only a
/// callback reports.
async fn senders_are_alike_and_a_later_failure_is_shown(world: World) {
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let (sidecar, [(_, token), _]) = prepared(&world, &simulator, &[]).await;
    let app = Caller::app(&sidecar, &token);
    for (from, expected) in [
        ("ACME", json!({"from": "ACME", "service": null})),
        ("89292", json!({"from": "89292", "service": null})),
        (
            "MG00000000000000000000000000000000",
            json!({"from": null, "service": "MG00000000000000000000000000000000"}),
        ),
    ] {
        let wanted = json!({"to": "+447400123456", "from": from, "body": from});
        let answer = app.send(Method::POST, "/v1/messages?wait_ms=5000", wanted.to_string()).await;
        assert!(answer.status().is_success(), "{from}: {:?}", answer.text().await);
        let shown = app
            .get(&format!(
                "/v1/messages/{}",
                answer.json::<Value>().await.unwrap()["id"].as_str().unwrap()
            ))
            .await;
        assert_eq!(shown["state"], "sent", "{shown}");
        let made = simulator.listed(ACCOUNT).await;
        let made = made.iter().find(|one| one["body"] == from).unwrap();
        let service = expected["service"].clone();
        assert_eq!(made["messaging_service_sid"], service, "{made}");
        if service.is_null() {
            assert_eq!(made["from"], expected["from"], "{made}");
        }
        let sid = shown["sid"].as_str().unwrap();
        assert_eq!((&shown["status"], &shown["error"]), (&Value::Null, &Value::Null));
        accepted(&sidecar, &[status_callback(sid, "failed", Some("30005"), "+447400123456")]).await;
        let shown = app.get(shown["links"]["self"].as_str().unwrap()).await;
        let failed = (&json!("failed"), &json!("30005"));
        assert_eq!((&shown["status"], &shown["error"]["code"]), failed, "{shown}");
    }
    let wanted = json!({"to": "whatsapp:+14155550123", "from": "ACME", "body": "hi"});
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    assert_eq!(answer.status(), 422, "WhatsApp accepts no names as senders");
}

/// If Twilio accepts connections and never answers, each request ends with an error after the timeout.
#[tokio::test]
async fn silence_of_twilio_is_an_error_in_time() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", silent.local_addr().unwrap());
    let settings = [
        ("TWILIO_EDGE_SENDING_BASE_URL", base.as_str()),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
    ];
    let sidecar = started(&world, &simulator, &settings).await;
    let (_, token) = administrator(&sidecar).await.create("app", Some(ACCOUNT), "shop").await;
    let sid = format!("SM{}", "0".repeat(32));
    for (method, path) in [
        (Method::GET, format!("Accounts/{ACCOUNT}.json")),
        (Method::DELETE, format!("Accounts/{ACCOUNT}/Messages/{sid}.json")),
        (Method::GET, format!("Accounts/{ACCOUNT}/Messages/{sid}/Media.json")),
        (Method::POST, format!("Accounts/{ACCOUNT}/Messages/{sid}/Feedback.json")),
    ] {
        let begun = Instant::now();
        let (status, said) = asked(&sidecar, (ACCOUNT, &token), (method, &path), &[], None).await;
        assert_eq!((status.as_u16(), &said["code"]), (503, &json!(20503)), "{path}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
