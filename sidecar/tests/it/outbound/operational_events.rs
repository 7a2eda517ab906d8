//! Operational events: each change that a sink asks for reaches it once, signed, in order per contact, also after a kill. The
//! simulator acts as Twilio, and the tests claim its statuses as the filter would.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Claim;

use crate::{
    access::api_keys::{Caller, administrator},
    api::message_lists::accepted,
    inbound::deliveries::{command, sinks},
    inbound::event_formats::{judged, python},
    outbound::templates::{known, started},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound, status},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    each_change_reaches_the_sink_that_asks_for_it,
    changes_before_a_kill_reach_the_sink,
    dead_letter_of_an_operational_event_is_retried,
    erased_contact_is_in_no_operational_event,
    operational_events_are_replayed_and_deleted,
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OURS: &str = "whatsapp:+15550001111";
const SMS: &str = "+15557654321";
const PERSON: &str = "+14155550101";
/// Twilio answers 500 after it accepted a message to this number.
const UNKNOWN: &str = "+14155559005";
/// Twilio refuses a message to this number with 21211.
const REFUSED: &str = "+14155559002";
/// Twilio refuses a free text to this contact with 63016.
const SWITCHED: &str = "whatsapp:+14155559015";
const ALL: &str = "classes = []\nevents = [\"*\"]";

/// Starts a sidecar with these sinks, and returns it with the keys of the administrator and of the account.
async fn begin(world: &World, simulator: &Simulator, file: &str) -> (Sidecar, String, String) {
    let settings = [("TWILIO_EDGE_SINKS_FILE", file), ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "1")];
    let sidecar = started(world, simulator, &settings).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    let root = root.token.clone();
    (sidecar, root, token)
}

async fn create(app: &Caller<'_>, to: &str, more: Value) -> String {
    let from = if to.starts_with("whatsapp:") { OURS } else { SMS };
    let mut wanted = json!({"to": to, "from": from, "body": "one"});
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let (code, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(code, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn until(app: &Caller<'_>, id: &str, state: &str) -> Value {
    let path = format!("/v1/messages/{id}");
    eventually(&format!("{id} is {state}"), async || app.get(&path).await["state"] == state).await;
    app.get(&path).await
}

/// Returns the claim of a status callback about a message.
fn failed(message: &Value, to: &str, code: &str) -> Claim {
    let mut claim = status("failed", message["sid"].as_str().unwrap(), "failed");
    claim.identity.error_code = Some(code.to_owned());
    let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
    claim.form = format!("{}&ErrorCode={code}&To={to}&From=%2B15557654321", claim.form);
    claim.message_id = Some(message["id"].as_str().unwrap().to_owned());
    claim
}

/// Returns the accepted events about this message and its fallback, or with this text in their content, in order.
fn events(sink: &Receiver, subject: &str) -> Vec<Value> {
    let is_about = |event: &Value| match subject.starts_with("ms_") {
        true => event["data"]["id"] == subject || event["data"]["fallback_of"] == subject,
        false => event["data"].to_string().contains(subject),
    };
    sink.taken().into_iter().map(|got| got.event()).filter(is_about).collect()
}

fn types(sink: &Receiver, subject: &str) -> Vec<String> {
    let events = events(sink, subject);
    events.iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
}

async fn each_change_reaches_the_sink_that_asks_for_it(world: World) {
    let (all, crm) = (Receiver::start().await, Receiver::start().await);
    crm.answers(|_| 422);
    let signed = format!("{ALL}\nsecrets = [\"{SECRET}\"]");
    let refusals = "classes = []\nevents = [\"message.refused\"]";
    let file = sinks(&world, &[("all", &all, &signed), ("crm", &crm, refusals)]);
    let simulator = Simulator::start(&world, &["--no-windows"]);
    let (sidecar, root, token) = begin(&world, &simulator, &file).await;
    let root = Caller::admin(&sidecar, &root);
    let app = Caller::app(&sidecar, &token);
    known(&app).await;

    // An account, a consent, a window.
    let profile = json!({"friendly_name": "Shop"}).to_string();
    let put = root.send(Method::PUT, &format!("/v1/tenants/{ACCOUNT}"), profile).await;
    assert_eq!(put.status(), 200);
    let agreed = json!({"number": SWITCHED, "category": "utility", "source": "form", "proof": "yes", "at": "2026-11-01T10:00:00Z"});
    for _ in 0..2 {
        let recorded = app.send(Method::POST, "/v1/consents", agreed.to_string()).await;
        assert!(recorded.status().is_success());
    }
    let hello =
        [inbound("w1", "SMw1", SWITCHED, "hello"), inbound("w2", "SMw2", SWITCHED, "again")];
    accepted(&sidecar, &hello).await;

    // Messages with each end.
    let metadata = json!({"metadata": {"order": "17"}});
    let sent = create(&app, PERSON, metadata).await;
    let message = until(&app, &sent, "sent").await;
    sidecar.claim(failed(&message, PERSON, "30005")).await;
    let unknown = create(&app, UNKNOWN, json!({})).await;
    let refused = create(&app, REFUSED, json!({})).await;
    let fallback = json!({"fallback": {"template": {"name": "may_we_write"}}});
    let switched = create(&app, SWITCHED, fallback).await;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let late = json!({"validity_period_s": 60, "send_at": later.to_string()});
    let expired = create(&app, PERSON, late).await;
    let wait = format!(
        "UPDATE outbound_messages SET due_at_ms = 1, first_due_at_ms = 1, valid_until_ms = 60001 WHERE id = '{expired}' RETURNING id"
    );
    world.stored(&wait).await;
    until(&app, &expired, "refused").await;
    until(&app, &unknown, "sent").await;
    let instead = until(&app, &switched, "refused").await["fallback"].clone();
    let instead = instead.as_str().unwrap().to_owned();
    until(&app, &instead, "sent").await;
    until(&app, &refused, "refused").await;
    // An opt-out, at last.
    accepted(&sidecar, &[inbound("w3", "SMw3", SWITCHED, "STOP")]).await;

    // Each event, by its object: the sink gets it once.
    let table: &[(&str, &[&str])] = &[
        (&sent, &["message.sent", "message.failed"]),
        (&unknown, &["message.unknown", "message.sent"]),
        (&refused, &["message.refused"]),
        (&expired, &["message.expired"]),
        (&switched, &["message.refused", "message.switched", "message.sent"]),
        ("\"friendly_name\":\"Shop\"", &["account.changed"]),
        ("\"source\":\"form\"", &["consent.changed"]),
        ("\"opened_at\"", &["window.opened"]),
        ("\"source\":\"keyword\"", &["suppression.changed"]),
        ("\"name\":\"may_we_write\"", &["template.changed"]),
        ("\"sink\":\"crm\"", &["delivery.dead", "delivery.dead"]),
    ];
    for (subject, expected) in table {
        eventually(&format!("the sink has {expected:?}"), async || {
            types(&all, subject).len() >= expected.len()
        })
        .await;
    }
    eventually("no delivery waits", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    for (subject, expected) in table {
        // Two messages to one contact may be in any order, and so may the deaths of two deliveries.
        let mut found = types(&all, subject);
        if *subject == switched {
            found.retain(|one| one != "message.sent");
            found.push("message.sent".to_owned());
        }
        assert_eq!(found, *expected, "{subject}: {:#?}", events(&all, subject));
    }
    let judgements = judged(python(), &[SECRET], &all.taken());
    for (judgement, got) in judgements.iter().zip(all.taken()) {
        assert!(judgement.problems.is_empty(), "{:?} of {}", judgement.problems, got.body);
    }
    for got in all.taken() {
        let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
        verifier.verify(got.body.as_bytes(), &got.headers).unwrap();
        let event = got.event();
        assert_eq!(
            (&event["event_id"], &event["replay"]),
            (&got.header("webhook-id").into(), &json!(false))
        );
        assert_eq!(event["account_sid"], ACCOUNT);
        assert!(event["recorded_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{event}");
        assert!(!event["event_id"].as_str().unwrap().contains("+1415"), "{event}");
    }
    let taken = events(&crm, "");
    assert!(taken.is_empty() && crm.got().len() == 2, "the other sink gets only refusals");

    // The content.
    let [first, second] = &events(&all, &sent)[..] else { panic!() };
    assert_eq!(
        (&first["data"]["to"], &first["data"]["metadata"], &first["data"]["sid"]),
        (&json!(PERSON), &json!({"order": "17"}), &message["sid"])
    );
    let error = &second["data"]["error"];
    assert_eq!((&error["code"], &second["data"]["status"]), (&json!("30005"), &json!("failed")));
    assert!(error["actor"].is_string() && error["remedy"].is_string(), "{second}");
    let changed = &events(&all, "\"source\":\"keyword\"")[0]["data"];
    assert_eq!((&changed["suppressed"], &changed["channel"]), (&json!(true), &json!("whatsapp")));
    let window = &events(&all, "\"opened_at\"")[0]["data"];
    assert_eq!(
        (&window["message_sid"], &window["sender"]),
        (&json!("SMw1"), &json!("+15550001111"))
    );
    assert!(events(&all, "yes").is_empty(), "the proof of a consent is not delivered");
    let dead = &events(&all, "\"sink\":\"crm\"")[0]["data"];
    assert_eq!((&dead["reason"], &dead["tries"]), (&json!("422"), &json!(1)));
}

async fn changes_before_a_kill_reach_the_sink(world: World) {
    let mut app_sink = Receiver::start().await;
    let messages = "classes = []\nevents = [\"message.*\"]\nlongest_pause_ms = 100";
    let file = sinks(&world, &[("app", &app_sink, messages)]);
    app_sink.leave();
    let simulator = Simulator::start(&world, &[]);
    let (sidecar, _, token) = begin(&world, &simulator, &file).await;
    let app = Caller::app(&sidecar, &token);
    let mut ids = Vec::new();
    for _ in 0..8 {
        let id = create(&app, PERSON, json!({})).await;
        until(&app, &id, "sent").await;
        ids.push(id);
    }
    let stored = "SELECT event_id FROM operational_events";
    assert_eq!(world.stored(stored).await.len(), 8);
    sidecar.kill();
    world.stored("UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL RETURNING lane").await;
    app_sink.listen().await;
    let settings = [("TWILIO_EDGE_SINKS_FILE", file.as_str())];
    let _sidecar = started(&world, &simulator, &settings).await;
    eventually("all events arrive", async || app_sink.taken().len() == 8).await;
    let taken = app_sink.taken().into_iter().map(|got| got.event()["data"]["id"].clone());
    assert_eq!(taken.collect::<Vec<_>>(), ids, "in the order of the messages");
}

async fn dead_letter_of_an_operational_event_is_retried(world: World) {
    let sink = Receiver::start().await;
    sink.answers(|_| 400);
    let events = "classes = []\nevents = [\"account.changed\"]";
    let file = sinks(&world, &[("app", &sink, events)]);
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", &file)]).await;
    let root = administrator(&sidecar).await;
    let profile = json!({"friendly_name": "Shop"}).to_string();
    root.send(Method::PUT, &format!("/v1/tenants/{ACCOUNT}"), profile).await;
    let listed = async || root.get("/v1/dead-letters").await["dead_letters"].clone();
    eventually("it is given up", async || listed().await.as_array().unwrap().len() == 1).await;
    let letter = listed().await[0].clone();
    assert_eq!(letter["event_id"], format!("account.changed:{ACCOUNT}:1"));
    let shown = root.get(&format!("/v1/dead-letters/{}", letter["id"])).await;
    assert_eq!(shown["event"]["data"]["friendly_name"], "Shop", "{shown}");
    sink.answers(|_| 200);
    command(&world, &["deliveries", "retry", "--all"]);
    eventually("it is delivered", async || sink.taken().len() == 1).await;
    assert_eq!(sink.taken()[0].event(), shown["event"]);
}

async fn erased_contact_is_in_no_operational_event(world: World) {
    let mut sink = Receiver::start().await;
    let file = sinks(
        &world,
        &[(
            "app",
            &sink,
            "classes = []\nevents = [\"suppression.changed\"]\nlongest_pause_ms = 100",
        )],
    );
    sink.leave();
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", &file)]).await;
    let stops = [
        inbound("s1", "SMs1", "whatsapp:+14155550101", "STOP"),
        inbound("s2", "SMs2", "whatsapp:+14155550102", "STOP"),
    ];
    accepted(&sidecar, &stops).await;
    let stored = "SELECT contact FROM operational_events ORDER BY contact";
    assert_eq!(world.stored(stored).await, ["+14155550101", "+14155550102"]);
    command(&world, &["redact", "--account", ACCOUNT, "--number", "whatsapp:+14155550101"]);
    assert_eq!(world.stored(stored).await, ["+14155550102"]);
    sink.listen().await;
    eventually("the other event arrives", async || sink.taken().len() == 1).await;
    assert_eq!(sink.taken()[0].event()["data"]["contact"], "+14155550102");
    let states = "SELECT state FROM deliveries ORDER BY state";
    eventually("no delivery waits", async || world.stored(states).await == ["discarded", "done"])
        .await;
}

async fn operational_events_are_replayed_and_deleted(world: World) {
    let sink = Receiver::start().await;
    let file = sinks(&world, &[("app", &sink, "classes = []\nevents = [\"suppression.changed\"]")]);
    let settings =
        [("TWILIO_EDGE_SINKS_FILE", file.as_str()), ("TWILIO_EDGE_REDACTION_EVERY_S", "1")];
    let sidecar = world.sidecar_with(&settings).await;
    let stops = [
        inbound("s1", "SMs1", "whatsapp:+14155550101", "STOP"),
        inbound("s2", "SMs2", "whatsapp:+14155550102", "STOP"),
    ];
    accepted(&sidecar, &stops).await;
    eventually("both arrive", async || sink.taken().len() == 2).await;
    let replay = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["replay", "--from", "events", "--since", "2026-01-01", "--to", "app"])
        .envs([("DATABASE_URL", &world.database_url), ("TWILIO_EDGE_SINKS_FILE", &file)])
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    eventually("both arrive again", async || sink.taken().len() == 4).await;
    let mut taken: Vec<Value> = sink.taken().iter().map(|got| got.event()).collect();
    // The events of two contacts may arrive in any order.
    for half in taken.chunks_mut(2) {
        half.sort_by_key(|event| event["event_id"].to_string());
    }
    for (first, again) in taken[..2].iter().zip(&taken[2..]) {
        assert_eq!((&first["event_id"], &first["data"]), (&again["event_id"], &again["data"]));
        assert_eq!((&first["replay"], &again["replay"]), (&json!(false), &json!(true)));
        assert!(again["replay_id"].is_string(), "{again}");
    }
    // As if the deliveries had ended long ago.
    eventually("no delivery waits", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    let stored = "SELECT event_id FROM operational_events";
    assert_eq!(world.stored(stored).await.len(), 2);
    world.stored("UPDATE deliveries SET ended_at_ms = 1 RETURNING lane").await;
    eventually("they are deleted", async || {
        world.stored(stored).await.is_empty()
            && world.stored("SELECT state FROM deliveries").await.is_empty()
    })
    .await;
}
