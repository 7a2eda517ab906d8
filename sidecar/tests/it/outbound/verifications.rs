//! Verifications: Twilio Verify sends a code and checks it. The simulator acts as Twilio, and shows the codes. The worked example of
//! docs/NOTIFICATIONS.md is a test.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    outbound::templates,
    support::documented,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::{SERVICE, Simulator},
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    right_code_approves_a_verification_once,
    sms_replaces_whatsapp_that_refuses_or_does_not_deliver,
    limits_and_opt_outs_decline_a_verification,
    verification_without_a_clear_answer_is_found_and_not_sent_again,
}

const PERSON: &str = "+14155550123";
const STOPPED: &str = "+14155550177";

async fn started(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let soon =
        [("TWILIO_EDGE_SENDING_TIMEOUT_MS", "2000"), ("TWILIO_EDGE_VERIFY_STATUS_AFTER_S", "1")];
    templates::started(world, simulator, &[&soon[..], more].concat()).await
}

async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    Caller::app(sidecar, &token)
}

/// Starts a verification, and returns it once Twilio has decided.
async fn start(app: &Caller<'_>, body: Value) -> Value {
    let answer = app.send(Method::POST, "/v1/verifications?wait_ms=20000", body.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{body}");
    body
}

async fn code_of(simulator: &Simulator, to: &str) -> String {
    let all = simulator.verifications().await;
    let one = all.iter().find(|one| one["to"] == to).unwrap();
    one["code"].as_str().unwrap().to_owned()
}

async fn check(app: &Caller<'_>, verification: &Value, code: &str) -> Value {
    let place = verification["links"]["check"].as_str().unwrap();
    let answer = app.send(Method::POST, place, json!({"code": code}).to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{body}");
    body
}

fn wrong(code: &str) -> String {
    let number: u32 = code.parse().unwrap();
    format!("{:06}", (number + 1) % 1_000_000)
}

async fn right_code_approves_a_verification_once(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let metadata = json!({"login": "7"});
    let request = json!({"to": PERSON, "channel": "sms", "locale": "pt_BR", "metadata": metadata});
    let started = start(&app, request).await;
    assert_eq!(
        (&started["status"], &started["state"], &started["channel"], &started["to"]),
        (&json!("pending"), &json!("sent"), &json!("sms"), &json!(PERSON)),
        "{started}"
    );
    assert_eq!((&started["metadata"], &started["service_sid"]), (&metadata, &json!(SERVICE)));
    let code = code_of(&simulator, PERSON).await;
    let failed = check(&app, &started, &wrong(&code)).await;
    assert_eq!((&failed["valid"], &failed["status"]), (&json!(false), &json!("pending")));
    let approved = check(&app, &started, &code).await;
    assert_eq!((&approved["valid"], &approved["status"]), (&json!(true), &json!("approved")));

    // An approved verification accepts no code, and is part of the notification log.
    let place = started["links"]["self"].as_str().unwrap();
    let ended = coded(409, "verification_ended");
    let again = json!({"code": code});
    assert_eq!(app.refusal(Method::POST, &format!("{place}/check"), &again).await, ended);
    assert_eq!(app.refusal(Method::POST, &format!("{place}/cancel"), &json!({})).await, ended);
    let shown = app.get(place).await;
    assert_eq!((&shown["status"], &shown["links"]["check"]), (&json!("approved"), &Value::Null));
    let notification = app.get(shown["links"]["notification"].as_str().unwrap()).await;
    assert_eq!(
        (&notification["provider"], &notification["status"], &notification["category"]),
        (&json!("verify"), &json!("approved"), &json!("authentication")),
        "{notification}"
    );
    assert!(notification["attempts"][0]["provider_id"].as_str().unwrap().starts_with("VE"));
    let messages = app.get("/v1/messages").await;
    assert_eq!(messages["messages"], json!([]), "verifications are no messages");

    // No code is stored or logged.
    for table in ["outbound_messages", "idempotency_keys", "audit"] {
        let columns = match table {
            "outbound_messages" => "form || fallback || reason || metadata || recipient",
            "idempotency_keys" => "coalesce(body, '')",
            _ => "detail",
        };
        for row in world.stored(&format!("SELECT {columns} FROM {table}")).await {
            assert!(!row.contains(&code), "{table}: {row}");
        }
    }
    assert!(!sidecar.log().contains(&code), "{}", sidecar.log());

    // A pending one can be canceled. Another account has none of them.
    let started = start(&app, json!({"to": "+14155550124", "channel": "whatsapp"})).await;
    let place = started["links"]["cancel"].as_str().unwrap();
    for _ in 0..2 {
        let canceled = app.send(Method::POST, place, String::new()).await;
        let canceled: Value = canceled.json().await.unwrap();
        assert_eq!(canceled["status"], "canceled", "{canceled}");
    }
    let (_, token) = root.create("app", Some(OTHER), "another shop").await;
    let other = Caller::app(&sidecar, &token);
    let this = started["links"]["self"].as_str().unwrap();
    let none = coded(404, "no_such_verification");
    assert_eq!(other.refusal(Method::GET, this, &Value::Null).await, none);
    assert_eq!(other.refusal(Method::POST, place, &json!({})).await, none);
    let audit = root.get("/v1/audit").await;
    assert!(audit.to_string().contains("verification.canceled"), "{audit}");
}

async fn wait_for_channel(app: &Caller<'_>, started: &Value, channel: &str) -> Value {
    let place = started["links"]["self"].as_str().unwrap();
    eventually("the code is sent on the other channel", async || {
        let shown = app.get(place).await;
        shown["channel"] == channel && shown["state"] == "sent"
    })
    .await;
    app.get(place).await
}

async fn sms_replaces_whatsapp_that_refuses_or_does_not_deliver(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    for (number, code) in
        [("+14155559110", "60223"), ("+14155559111", "68008"), ("+14155559112", "63024")]
    {
        let started = start(&app, json!({"to": number})).await;
        let shown = wait_for_channel(&app, &started, "sms").await;
        let attempts = shown["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{shown}");
        assert_eq!(
            (&attempts[0]["channel"], &attempts[0]["error"]["code"]),
            (&json!("whatsapp"), &json!(code)),
            "{shown}"
        );
        let all = simulator.verifications().await;
        let of_number: Vec<&Value> = all.iter().filter(|one| one["to"] == number).collect();
        assert_eq!(of_number.len(), 1, "one verification, with one code: {all:#?}");
        let code = code_of(&simulator, number).await;
        assert_eq!(check(&app, &shown, &code).await["valid"], true);
    }
    // Without `auto`, no other channel is tried.
    let only = start(&app, json!({"to": "+14155559110", "channel": "whatsapp"})).await;
    assert_eq!((&only["status"], &only["error"]["code"]), (&json!("failed"), &json!("60223")));
    // A refusal that holds for every channel moves nothing.
    let refused = start(&app, json!({"to": "+14155559104"})).await;
    assert_eq!(
        (&refused["status"], &refused["error"]["code"]),
        (&json!("failed"), &json!("60410"))
    );
    assert_eq!(refused["attempts"].as_array().unwrap().len(), 1, "{refused}");
    assert_eq!(refused["error"]["actor"], "operator");
}

async fn limits_and_opt_outs_decline_a_verification(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let limits = [("TWILIO_EDGE_VERIFY_PER_NUMBER", "2"), ("TWILIO_EDGE_VERIFY_PER_ADDRESS", "3")];
    let sidecar = started(&world, &simulator, &limits).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    sidecar.claim(inbound("c1", "SM1", STOPPED, "STOP")).await;
    let refusal = async |body: Value| app.refusal(Method::POST, "/v1/verifications", &body).await;

    // The contact left SMS, so the code goes to WhatsApp only.
    let suppressed = coded(409, "suppressed");
    assert_eq!(refusal(json!({"to": STOPPED, "channel": "sms"})).await, suppressed);
    let started = start(&app, json!({"to": STOPPED, "channel": "whatsapp"})).await;
    assert_eq!(started["state"], "sent");

    for _ in 0..2 {
        start(&app, json!({"to": PERSON, "channel": "sms", "end_user_address": "192.0.2.7"})).await;
    }
    let limit = coded(429, "verification_limit");
    assert_eq!(refusal(json!({"to": PERSON, "channel": "sms"})).await, limit);
    let address = json!({"to": "+14155550125", "channel": "sms", "end_user_address": "192.0.2.7"});
    start(&app, address).await;
    let address = json!({"to": "+14155550126", "channel": "sms", "end_user_address": "192.0.2.7"});
    assert_eq!(refusal(address).await, limit);
    for (body, refused) in [
        (json!({"to": "12", "channel": "sms"}), coded(422, "invalid_recipient")),
        (json!({"to": PERSON, "channel": "call"}), coded(400, "malformed_request")),
        (json!({"to": PERSON, "end_user_address": "here"}), coded(422, "invalid_field")),
        (json!({"to": PERSON, "locale": "english"}), coded(400, "malformed_request")),
    ] {
        assert_eq!(refusal(body.clone()).await, refused, "{body}");
    }
    // Every declined one is in the log, with the channel.
    let log = app.get("/v1/notifications?state=declined").await;
    let codes: Vec<&str> = log["notifications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["error"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["verification_limit", "verification_limit", "suppressed"], "{log}");
    let number = "+14155550125";
    let answers = simulator.verifications().await;
    assert!(answers.iter().any(|one| one["to"] == number), "{answers:#?}");
}

async fn verification_without_a_clear_answer_is_found_and_not_sent_again(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    // Twilio starts the verification, and answers 500, or not at all.
    for number in ["+14155559005", "+14155559006"] {
        let body = json!({"to": number, "channel": "sms"}).to_string();
        let answer = app.send(Method::POST, "/v1/verifications", body).await;
        let started: Value = answer.json().await.unwrap();
        let place = started["links"]["self"].as_str().unwrap();
        eventually("the verification is found", async || app.get(place).await["state"] == "sent")
            .await;
        let all = simulator.verifications().await;
        let one = all.iter().find(|one| one["to"] == number).unwrap();
        assert_eq!(
            (&one["channels"], &app.get(place).await["sid"]),
            (&json!(["sms"]), &one["sid"])
        );
        let code = code_of(&simulator, number).await;
        assert_eq!(check(&app, &started, &code).await["valid"], true);
    }
    // Nothing left: the start is repeated until the code would be too old.
    let started = app
        .send(Method::POST, "/v1/verifications", json!({"to": "+14155559001"}).to_string())
        .await;
    assert_eq!(started.status(), 202);
    let started: Value = started.json().await.unwrap();
    assert_eq!(check(&app, &started, "000000").await["status"], "pending");
}

#[tokio::test]
async fn documented_verification_works() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let guide = include_str!("../../../../docs/NOTIFICATIONS.md");
    let script = documented::script(guide, "Start a verification");
    let shown = documented::run(&world, &app, &simulator, &script).await;
    assert!(shown.contains("\"status\": \"approved\""), "{shown}");
}
