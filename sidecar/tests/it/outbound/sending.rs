//! Outbound messages: each is sent once even if processes die, and only to contacts that may be written to. A message with an
//! unknown outcome is not sent again. A small server replaces Twilio; it counts messages and fails on request.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    inbound::deliveries::command,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::world::{World, on_every_store},
};

on_every_store! {
    message_is_sent_once,
    scheduled_message_waits_until_send_at,
    unwanted_messages_are_refused,
    sidecar_that_dies_sends_nothing_twice,
    message_that_may_have_been_sent_is_not_sent_again,
    operator_defines_the_meaning_of_a_code,
    message_takes_the_route_of_its_country,
}

const PERSON: &str = "whatsapp:+15550001234";
const OURS: &str = "whatsapp:+15557654321";

pub(crate) type Form = BTreeMap<String, String>;

/// Replacement for Twilio that creates messages.
#[derive(Clone, Default)]
pub(crate) struct Twilio {
    /// Every message it made, by its SID.
    pub(crate) made: Arc<Mutex<Vec<(String, Form)>>>,
    /// Failures of the next requests, the last first: a status, and whether Twilio creates the message all the same.
    moods: Arc<Mutex<Vec<(u16, bool)>>>,
}

async fn create(
    State(twilio): State<Twilio>,
    headers: axum::http::HeaderMap,
    body: String,
) -> axum::response::Response {
    // AC..:hush
    let expected = reqwest::Client::new().get("http://localhost").basic_auth(ACCOUNT, Some("hush"));
    let expected = expected.build().unwrap().headers()["authorization"].clone();
    if headers.get("authorization") != Some(&expected) {
        return (StatusCode::UNAUTHORIZED, r#"{"code":20003,"message":"Authenticate"}"#)
            .into_response();
    }
    let form: BTreeMap<String, String> =
        form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mood = twilio.moods.lock().unwrap().pop();
    if let Some((status, false)) = mood {
        let wait = [("retry-after", "0")];
        return (
            StatusCode::from_u16(status).unwrap(),
            wait,
            r#"{"code":20429,"message":"Too Many Requests"}"#,
        )
            .into_response();
    }
    let sid = {
        let mut made = twilio.made.lock().unwrap();
        let sid = format!("SM{:032x}", made.len());
        made.push((sid.clone(), form));
        sid
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    match mood {
        Some((status, _)) => StatusCode::from_u16(status).unwrap().into_response(),
        None => (StatusCode::CREATED, json!({"sid": sid, "status": "queued"}).to_string())
            .into_response(),
    }
}

impl Twilio {
    /// Starts the server; returns its address and a handle to its messages.
    pub(crate) async fn start() -> (String, Twilio) {
        let twilio = Twilio::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
        let app = Router::new().route(&path, post(create)).with_state(twilio.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (format!("http://{address}"), twilio)
    }

    fn bodies(&self) -> Vec<String> {
        self.made.lock().unwrap().iter().map(|(_, form)| form["Body"].clone()).collect()
    }
}

async fn started(world: &World, url: &str) -> Sidecar {
    started_with(world, url, &[]).await
}

pub(crate) async fn started_with(world: &World, url: &str, settings: &[(&str, &str)]) -> Sidecar {
    let file = world.directory.path().join("sending.toml");
    let account = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_token = \"hush\"\n");
    std::fs::write(&file, account).unwrap();
    let ours = [
        ("TWILIO_EDGE_SENDING_FILE", file.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_BASE_URL", url),
    ];
    world.sidecar_with(&[&ours[..], settings].concat()).await
}

fn text(body: &str) -> Value {
    json!({"account_sid": ACCOUNT, "to": PERSON, "from": OURS, "body": body})
}

/// Requests the message with an idempotency key that is made of its text. Returns status and body of the answer.
async fn ask(sidecar: &Sidecar, token: &str, wanted: &Value) -> Option<(u16, Value)> {
    let key = format!("key-{}", wanted["body"].as_str().unwrap());
    let request = sidecar
        .client
        .post(format!("{}/v1/messages", sidecar.base))
        .bearer_auth(token)
        .header("idempotency-key", key);
    let answer = request.body(wanted.to_string()).send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

/// Message on a channel without a conversation window.
fn sms(body: &str) -> Value {
    json!({"account_sid": ACCOUNT, "to": "+15550001234", "from": "+15557654321", "body": body})
}

pub(crate) async fn message_is_sent_once(world: World) {
    let (url, twilio) = Twilio::start().await;
    let sidecar = started(&world, &url).await;
    let root = administrator(&sidecar).await;
    twilio.moods.lock().unwrap().extend([(429, false), (429, false)]);
    let (status, taken) = ask(&sidecar, &root.token, &sms("hello")).await.unwrap();
    assert_eq!((status, &taken["state"]), (202, &json!("queued")), "{taken}");
    let copy = ask(&sidecar, &root.token, &sms("hello")).await.unwrap();
    assert_eq!(copy, (202, taken.clone()));
    let app = Caller::app(&sidecar, &root.token);
    let place = format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap());
    eventually("the message is sent", async || app.get(&place).await["state"] == "sent").await;
    let shown = app.get(&place).await;
    assert_eq!(shown["attempts"]["count"], 3, "Twilio answered 429 twice: {shown}");
    let made = twilio.made.lock().unwrap().clone();
    let [(sid, form)] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!(shown["sid"], *sid);
    assert_eq!((form["To"].as_str(), form["From"].as_str()), ("+15550001234", "+15557654321"));
    // Another account does not see the message.
    let (_, theirs) = root.create("app", Some(OTHER), "theirs").await;
    let theirs = Caller::app(&sidecar, &theirs);
    let place = taken["links"]["self"].as_str().unwrap();
    assert_eq!(
        theirs.refusal(Method::GET, place, &json!(null)).await,
        coded(404, "no_such_message")
    );
    // The form of a message that arrived is not stored, and its recipient is masked.
    let mut delivered = crate::support::sidecar::status("d1", sid, "delivered");
    delivered.message_id = Some(taken["id"].as_str().unwrap().to_owned());
    sidecar.claim(delivered).await;
    assert_eq!(world.stored("SELECT form FROM outbound_messages").await, [""]);
    assert_eq!(world.stored("SELECT recipient FROM outbound_messages").await, ["sms:..34"]);
    // Another body with the same key is refused.
    let other = sidecar.client.post(format!("{}/v1/messages", sidecar.base));
    let other = other.bearer_auth(&root.token).header("idempotency-key", "key-hello");
    let other = other.body(sms("other").to_string()).send().await.unwrap();
    assert_eq!(other.status(), 422);
    assert_eq!(twilio.bodies(), ["hello"]);
}

/// Twilio's error codes are data: a code that is retried by default is given up here, and the error names who must act.
async fn operator_defines_the_meaning_of_a_code(world: World) {
    let (url, twilio) = Twilio::start().await;
    let file = world.directory.path().join("errors.toml");
    std::fs::write(&file, "[20429]\naction = \"give_up\"\nactor = \"operator\"\n").unwrap();
    let ours = [("TWILIO_EDGE_SENDING_ERRORS_FILE", file.to_str().unwrap())];
    let sidecar = started_with(&world, &url, &ours).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    twilio.moods.lock().unwrap().push((400, false));
    let (_, taken) = ask(&sidecar, &root.token, &sms("hello")).await.unwrap();
    let place = format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap());
    eventually("the message is refused", async || app.get(&place).await["state"] == "refused")
        .await;
    let shown = app.get(&place).await;
    assert_eq!(
        (&shown["error"]["code"], &shown["error"]["actor"]),
        (&json!("20429"), &json!("operator")),
        "{shown}"
    );
    assert!(shown["error"]["remedy"].as_str().is_some_and(|how| !how.is_empty()), "{shown}");
    assert_eq!((&shown["attempts"]["count"], twilio.bodies().len()), (&json!(1), 0));
}

/// The routing file selects the sender. A new version takes effect at once, and an invalid one changes nothing.
async fn message_takes_the_route_of_its_country(world: World) {
    let (url, twilio) = Twilio::start().await;
    let file = world.directory.path().join("routing.yaml");
    let (one, two) = (format!("MG{}", "1".repeat(32)), format!("MG{}", "2".repeat(32)));
    let routes = |britain: &str| {
        format!("default: {one}\nby_country: {{GB: {britain}}}\ndeny_countries: [FR]\n")
    };
    std::fs::write(&file, routes(&two)).unwrap();
    let ours = [("TWILIO_EDGE_SENDING_ROUTING_FILE", file.to_str().unwrap())];
    let sidecar = started_with(&world, &url, &ours).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let wanted = |to: &str, body: &str| json!({"account_sid": ACCOUNT, "to": to, "body": body});
    for (to, body) in [("+15550001234", "one"), ("+447400123456", "two")] {
        let (status, taken) = ask(&sidecar, &root.token, &wanted(to, body)).await.unwrap();
        assert_eq!(status, 202, "{taken}");
    }
    eventually("both messages are sent", async || twilio.bodies().len() == 2).await;
    let by = || -> BTreeMap<String, String> {
        let made = twilio.made.lock().unwrap();
        made.iter()
            .map(|(_, form)| (form["Body"].clone(), form["MessagingServiceSid"].clone()))
            .collect()
    };
    assert_eq!((&by()["one"], &by()["two"]), (&one, &two));
    let refusal =
        async |to: &str| app.refusal(Method::POST, "/v1/messages", &wanted(to, "no")).await;
    assert_eq!(refusal("+33612345678").await, coded(409, "region_blocked"));
    assert_eq!(refusal("+493012345678").await, coded(422, "invalid_recipient"));

    let mut dry = wanted("+447400123456", "hi");
    dry["dry_run"] = json!(true);
    let sender_detail = async || {
        let response = app.send(Method::POST, "/v1/messages", dry.to_string()).await;
        response.json::<Value>().await.unwrap()["verdicts"][1]["detail"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(sender_detail().await, format!("the sender is {two}"));
    std::fs::write(&file, routes(&one)).unwrap();
    eventually("the new file is in effect", async || {
        sender_detail().await == format!("the sender is {one}")
    })
    .await;
    std::fs::write(&file, "default: [").unwrap();
    eventually("the failed reload is logged", async || {
        sidecar.log().contains("routing.reload_failed")
    })
    .await;
    assert_eq!(
        sender_detail().await,
        format!("the sender is {one}"),
        "the last valid file is in effect"
    );
}

/// The time after which a message is given up starts at `send_at`, not at the request.
async fn scheduled_message_waits_until_send_at(world: World) {
    let (url, twilio) = Twilio::start().await;
    let sidecar = started_with(&world, &url, &[("TWILIO_EDGE_SENDING_GIVE_UP_S", "1")]).await;
    let root = administrator(&sidecar).await;
    let mut later = sms("later");
    let at = jiff::Timestamp::now() + Duration::from_secs(2);
    later["send_at"] = json!(at.to_string());
    assert_eq!(ask(&sidecar, &root.token, &later).await.unwrap().0, 202);
    eventually("the message is sent", async || twilio.bodies() == ["later"]).await;
    assert!(jiff::Timestamp::now() >= at);
}

async fn unwanted_messages_are_refused(world: World) {
    let (url, twilio) = Twilio::start().await;
    let sidecar = started(&world, &url).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let refusal = async |wanted: &Value| app.refusal(Method::POST, "/v1/messages", wanted).await;
    assert_eq!(refusal(&text("hi")).await, coded(409, "window_closed"));
    let invalid = json!({"account_sid": ACCOUNT, "to": "+1555", "from": OURS, "body": "hi"});
    assert_eq!(refusal(&invalid).await, coded(422, "invalid_recipient"));
    let anonymous = json!({"account_sid": ACCOUNT, "to": "+15550001234", "body": "hi"});
    assert_eq!(refusal(&anonymous).await, coded(409, "sender_unknown"));
    let empty = json!({"account_sid": ACCOUNT, "to": "+15550001234", "from": "+15557654321"});
    assert_eq!(refusal(&empty).await, coded(409, "unclear_message"));
    let template = json!({"account_sid": ACCOUNT, "to": PERSON, "from": OURS,
        "content_sid": format!("HX{}", "0".repeat(32))});
    assert_eq!(refusal(&template).await, coded(409, "no_consent"));

    let mut dry = text("hi");
    dry["dry_run"] = json!(true);
    let response: Value =
        app.send(Method::POST, "/v1/messages", dry.to_string()).await.json().await.unwrap();
    let rules: Vec<&str> = response["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| verdict["rule"].as_str().unwrap())
        .collect();
    let order = [
        "credentials",
        "sender",
        "recipient",
        "content",
        "template",
        "region",
        "suppression",
        "consent",
        "freshness",
        "window",
        "media",
    ];
    assert_eq!((response["allowed"].as_bool(), rules.as_slice()), (Some(false), &order[..]));
    let guide = include_str!("../../../../docs/SENDING.md");
    let places: Vec<usize> =
        order.iter().map(|rule| guide.find(&format!("| `{rule}` |")).unwrap()).collect();
    assert!(places.is_sorted(), "docs/SENDING.md has the rules in their order");

    // The rules allow the message when it is requested; a STOP arrives before `send_at`.
    let at = jiff::Timestamp::now() + Duration::from_millis(1500);
    let mut later = sms("later");
    later["send_at"] = json!(at.to_string());
    let (status, taken) = ask(&sidecar, &root.token, &later).await.unwrap();
    assert_eq!(status, 202, "{taken}");
    sidecar.claim(inbound("c9", "SM9", "+15550001234", "STOP")).await;
    let place = format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap());
    eventually("the message is refused", async || {
        app.get(&place).await["error"]["code"] == "suppressed"
    })
    .await;
    assert_eq!(refusal(&sms("again")).await, coded(409, "suppressed"));
    assert_eq!(twilio.bodies(), [""; 0]);
}

async fn sidecar_that_dies_sends_nothing_twice(world: World) {
    const COUNT: usize = 120;
    let (url, twilio) = Twilio::start().await;
    let mut sidecar = started(&world, &url).await;
    let token = administrator(&sidecar).await.token.clone();
    let mut ids = BTreeMap::new();
    for n in 0..COUNT {
        let wanted = sms(&format!("m{n}"));
        // A client repeats the same request until it gets an answer.
        while !ids.contains_key(&n) {
            if let Some((202, taken)) = ask(&sidecar, &token, &wanted).await {
                ids.insert(n, taken["id"].as_str().unwrap().to_owned());
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if n % 20 == 13 {
            sidecar.kill();
            sidecar = started(&world, &url).await;
        }
    }
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), COUNT, "one message for each");
    eventually("no message is queued", async || {
        world.stored("SELECT id FROM outbound_messages WHERE state = 'queued'").await.is_empty()
    })
    .await;
    // A message that a killed sidecar was sending stays `attempting` until its lease ends.
    eventually("all other messages are sent", async || {
        let sent =
            world.stored("SELECT id FROM outbound_messages WHERE state = 'sent'").await.len();
        sent + 6 * 16 >= COUNT
    })
    .await;
    world
        .stored(
            "UPDATE outbound_messages SET due_at_ms = 0 WHERE state = 'attempting' RETURNING id",
        )
        .await;
    eventually("each message is sent or unknown", async || {
        world
            .stored("SELECT id FROM outbound_messages WHERE state IN ('queued', 'attempting')")
            .await
            .is_empty()
    })
    .await;
    let bodies = twilio.bodies();
    let once: BTreeSet<&String> = bodies.iter().collect();
    assert_eq!(bodies.len(), once.len(), "no message is sent twice");
    let sent = world.stored("SELECT message_sid FROM outbound_messages WHERE state = 'sent'").await;
    let unknown = world.stored("SELECT id FROM outbound_messages WHERE state = 'unknown'").await;
    assert_eq!(sent.len() + unknown.len(), COUNT);
    assert!(bodies.len() >= sent.len() && bodies.len() <= sent.len() + unknown.len());
    let made: BTreeSet<String> =
        twilio.made.lock().unwrap().iter().map(|(sid, _)| sid.clone()).collect();
    assert!(sent.iter().all(|sid| made.contains(sid)), "Twilio has every message in state `sent`");
}

async fn message_that_may_have_been_sent_is_not_sent_again(world: World) {
    let (url, twilio) = Twilio::start().await;
    let sidecar = started(&world, &url).await;
    let root = administrator(&sidecar).await;
    twilio.moods.lock().unwrap().push((503, true));
    let (_, taken) = ask(&sidecar, &root.token, &sms("once")).await.unwrap();
    let app = Caller::app(&sidecar, &root.token);
    let place = format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap());
    eventually("the outcome is unknown", async || app.get(&place).await["state"] == "unknown")
        .await;
    eventually("the metric counts the message", async || {
        sidecar.metric("twilio_edge_messages_unknown").await == 1.0
    })
    .await;
    assert_eq!(twilio.bodies(), ["once"], "the message is not sent again");
    let id = taken["id"].as_str().unwrap();
    let listed = command(&world, &["messages", "list", "--state", "unknown", "-o", "tsv"]);
    assert!(listed.contains(id), "{listed}");
    let sid = twilio.made.lock().unwrap()[0].0.clone();
    command(&world, &["messages", "resolve", id, "--sent", &sid]);
    let shown = app.get(&place).await;
    assert_eq!((&shown["state"], &shown["sid"]), (&json!("sent"), &json!(sid)));
    let audit = world.stored("SELECT subject FROM audit WHERE action = 'message.resolved'").await;
    assert_eq!(audit, [id]);
    assert_eq!(world.stored("SELECT form FROM outbound_messages").await, [""]);
}
