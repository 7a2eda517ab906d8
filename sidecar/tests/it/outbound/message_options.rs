//! Options of a message: callback URL, validity period, metadata, bounds of the send time, batches and quiet hours.

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Decision;

use crate::{
    access::api_keys::{Caller, administrator, coded},
    inbound::deliveries::{accepted, sinks},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, status},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    options_reach_twilio_and_metadata_is_returned,
    metadata_is_in_the_status_events_of_sinks,
    message_is_not_sent_after_its_validity_period,
    batch_has_one_verdict_for_each_message,
    marketing_waits_for_the_end_of_quiet_hours,
}

const OURS: &str = "+14155238886";
const RECIPIENT: &str = "+14155550101";

async fn started(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let file = simulator.credentials(world);
    let mut settings = vec![
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", simulator.base.as_str()),
    ];
    settings.extend(more);
    world.sidecar_with(&settings).await
}

async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    Caller::app(sidecar, &token)
}

fn text(more: Value) -> Value {
    let mut wanted = json!({"to": RECIPIENT, "from": OURS, "body": "hi"});
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    wanted
}

async fn created(app: &Caller<'_>, wanted: &Value) -> Value {
    let answer = app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 202, "{body}");
    body
}

/// Returns a time in RFC 3339, some seconds from now.
fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

async fn options_reach_twilio_and_metadata_is_returned(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let metadata = json!({"order": "17", "campaign": "advent"});
    let options = json!({
        "status_callback": "https://app.example/status#rc=3", "validity_period_s": 600,
        "max_price": "0.05", "metadata": metadata, "send_at": in_seconds(3600),
    });
    let message = created(&app, &text(options)).await;
    assert_eq!(message["metadata"], metadata, "{message}");
    let form = world.stored("SELECT form FROM outbound_messages").await.remove(0);
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    for (name, value) in [
        ("StatusCallback", "https://app.example/status#rc=3"),
        ("ValidityPeriod", "600"),
        ("MaxPrice", "0.05"),
    ] {
        assert!(pairs.contains(&(name.to_owned(), value.to_owned())), "{name}: {pairs:?}");
    }
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await["metadata"], metadata);
    assert_eq!(app.get("/v1/messages").await["messages"][0]["metadata"], metadata);
    let without = created(&app, &text(json!({"send_at": in_seconds(3600)}))).await;
    assert_eq!(without["metadata"], json!({}));

    let too_many: serde_json::Map<String, Value> =
        (0..21).map(|n| (n.to_string(), json!("x"))).collect();
    for (wrong, expected) in [
        (json!({"status_callback": "app.example"}), coded(422, "invalid_field")),
        (json!({"validity_period_s": 0}), coded(422, "invalid_field")),
        (json!({"validity_period_s": 36_001}), coded(422, "invalid_field")),
        (json!({"max_price": "cheap"}), coded(422, "invalid_field")),
        (json!({"metadata": too_many}), coded(422, "invalid_field")),
        (json!({"metadata": {"order": 17}}), coded(400, "malformed_request")),
        (json!({"send_at": in_seconds(-3600)}), coded(422, "invalid_field")),
        (json!({"send_at": in_seconds(36 * 86_400)}), coded(422, "invalid_field")),
    ] {
        let refusal = app.refusal(Method::POST, "/v1/messages", &text(wrong.clone())).await;
        assert_eq!(refusal, expected, "{wrong}");
    }
}

async fn metadata_is_in_the_status_events_of_sinks(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "")]);
    let sidecar = started(&world, &simulator, &[("TWILIO_EDGE_SINKS_FILE", &file)]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let mut sids = Vec::new();
    for metadata in [json!({"order": "17"}), json!({})] {
        let message = created(&app, &text(json!({"metadata": metadata}))).await;
        let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
        eventually("it is sent", async || app.get(&path).await["state"] == "sent").await;
        let sid = app.get(&path).await["sid"].as_str().unwrap().to_owned();
        let claim = accepted(status(&sid, &sid, "delivered"));
        assert_eq!(sidecar.decide(claim).await, Decision::Accepted);
        sids.push(sid);
    }
    eventually("both are delivered", async || receiver.got().len() == 2).await;
    let event = |sid: &str| {
        let mut events = receiver.got().into_iter().map(|got| got.event());
        events.find(|event| event["message_sid"] == sid).unwrap()
    };
    assert_eq!(event(&sids[0])["metadata"], json!({"order": "17"}));
    assert_eq!(event(&sids[1]).get("metadata"), None);
}

async fn message_is_not_sent_after_its_validity_period(world: World) {
    let simulator = Simulator::start(&world, &[]);
    // Nothing is sent before the validity period ends: the sender has no token.
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let message =
        created(&app, &text(json!({"validity_period_s": 60, "send_at": in_seconds(3600)}))).await;
    let time = |field: &str| message[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let period = time("valid_until").duration_since(time("due_at"));
    assert_eq!(period, jiff::SignedDuration::from_secs(60), "{message}");
    // As if the message had waited for longer than a minute after its time.
    let wait = "UPDATE outbound_messages SET due_at_ms = 1, first_due_at_ms = 1, valid_until_ms = 60001 RETURNING id";
    world.stored(wait).await;
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    eventually("it has expired", async || app.get(&path).await["error"]["code"] == "expired").await;
    let expired = app.get(&path).await;
    assert_eq!(
        (&expired["state"], &expired["due_at"], &expired["valid_until"]),
        (&json!("refused"), &Value::Null, &json!("1970-01-01T00:01:00.001Z"))
    );
    assert!(simulator.made().await.is_empty());
    // Twilio gets the rest of the period.
    let message = created(&app, &text(json!({"validity_period_s": 3600.0}))).await;
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    eventually("it is sent", async || app.get(&path).await["state"] == "sent").await;
}

async fn batch_has_one_verdict_for_each_message(world: World) {
    let simulator = Simulator::start(&world, &["--mps", "1000"]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let stop = crate::support::sidecar::inbound("stop", "SMstop", "+14155550105", "STOP");
    sidecar.claim(stop).await;
    let mut messages: Vec<Value> = (0..20)
        .map(|n| json!({"to": format!("+14155550{:03}", 100 + n), "from": OURS, "body": format!("m{n}")}))
        .collect();
    messages[7] = json!({"to": RECIPIENT, "from": OURS});
    messages[8] = json!({"to": "no number", "from": OURS, "body": "hi"});
    messages[9] = json!({"to": RECIPIENT, "from": OURS, "body": "hi", "colour": "red"});
    messages[10] = json!({"to": RECIPIENT, "from": OURS, "body": "hi", "dry_run": true});
    messages[11] = json!(17);
    let wanted = json!({"messages": messages}).to_string();
    let send = async || {
        let request = app.client().post(format!("{}/v1/messages/batch", app.base));
        let request = request.bearer_auth(&app.token).header("idempotency-key", "batch-1");
        request.body(wanted.clone()).send().await.unwrap()
    };
    let answer = send().await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(14), &json!(6)), "{answer}");
    assert_eq!(results.len(), 20);
    for (n, code) in [
        (5, "suppressed"),
        (7, "unclear_message"),
        (8, "invalid_recipient"),
        (9, "malformed_request"),
        (10, "malformed_request"),
        (11, "malformed_request"),
    ] {
        assert_eq!(results[n]["problem"]["code"], code, "{}", results[n]);
        assert_eq!((&results[n]["index"], &results[n]["id"]), (&json!(n), &Value::Null));
    }
    // A copy of the request gets the same answer, and sends nothing.
    let copy = send().await;
    assert_eq!(copy.headers()["idempotent-replayed"], "true");
    assert_eq!(copy.json::<Value>().await.unwrap(), answer);
    eventually("all are sent", async || simulator.made().await.len() == 14).await;
    let id = results[0]["id"].as_str().unwrap();
    assert!(id.starts_with("ms_"));
    let path = format!("/v1/messages/{id}");
    eventually("it is known", async || app.get(&path).await["state"] == "sent").await;
    for (wrong, expected) in [
        (json!({"messages": []}), coded(400, "malformed_request")),
        (json!({"messages": vec![json!({}); 1001]}), coded(400, "malformed_request")),
        (json!([]), coded(400, "malformed_request")),
    ] {
        assert_eq!(app.refusal(Method::POST, "/v1/messages/batch", &wrong).await, expected);
    }
    // A thousand messages are one request, larger than other requests may be.
    let body = "x".repeat(200);
    let many: Vec<Value> =
        (0..1000).map(|n| json!({"to": RECIPIENT, "from": OURS, "body": format!("{body}{n}"), "send_at": in_seconds(3600)})).collect();
    let answer =
        app.send(Method::POST, "/v1/messages/batch", json!({"messages": many}).to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["accepted"], 1000);
    assert_eq!(
        world.stored("SELECT id FROM outbound_messages WHERE state = 'queued'").await.len(),
        1000
    );
}

async fn marketing_waits_for_the_end_of_quiet_hours(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let routing = world.directory.path().join("routing.yaml");
    // Quiet from an hour ago until an hour from now, in UTC.
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let (from, to) =
        (&now - jiff::SignedDuration::from_hours(1), &now + jiff::SignedDuration::from_hours(1));
    let rule = |from: &jiff::ZonedDateTime, to: &jiff::ZonedDateTime| {
        format!(
            "quiet_hours:\n  - {{countries: [US], categories: [marketing, service], from: \"{}\", to: \"{}\", time_zones: [UTC]}}\n",
            from.strftime("%H:%M"),
            to.strftime("%H:%M")
        )
    };
    std::fs::write(&routing, rule(&from, &to)).unwrap();
    let settings = [("TWILIO_EDGE_SENDING_ROUTING_FILE", routing.to_str().unwrap())];
    let sidecar = started(&world, &simulator, &settings).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let held = created(&app, &text(json!({}))).await;
    assert_eq!(
        (&held["state"], &held["error"]["code"]),
        (&json!("queued"), &json!("quiet_hours")),
        "{held}"
    );
    let until = held["error"]["reason"].as_str().unwrap();
    let end = to.strftime("%Y-%m-%dT%H:%M").to_string();
    assert!(until.contains(&end), "{until}");
    assert!(held["due_at"].as_str().unwrap().starts_with(&end), "{held}");
    // Other categories and countries do not wait.
    let consent = json!({"number": RECIPIENT, "category": "utility", "source": "form", "at": "2026-11-01T10:00:00Z"});
    assert!(
        app.send(Method::POST, "/v1/consents", consent.to_string()).await.status().is_success()
    );
    let utility = created(&app, &text(json!({"category": "utility"}))).await;
    let abroad = created(&app, &text(json!({"to": "+4915123456789"}))).await;
    for message in [utility, abroad] {
        let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
        eventually("it is sent", async || app.get(&path).await["state"] == "sent").await;
    }
    // A message that becomes due during quiet hours waits as well, and is sent after they were removed.
    let due = "UPDATE outbound_messages SET due_at_ms = 1 WHERE state = 'queued' RETURNING id";
    world.stored(due).await;
    let path = format!("/v1/messages/{}", held["id"].as_str().unwrap());
    eventually("it is held again", async || {
        let due = "SELECT id FROM outbound_messages WHERE state = 'queued' AND due_at_ms > 1000";
        world.stored(due).await.len() == 1
    })
    .await;
    assert_eq!(app.get(&path).await["attempts"]["count"], 0);
    std::fs::write(&routing, "quiet_hours: []\n").unwrap();
    // Until the sidecar has read the new file, it holds the message again.
    eventually("it is sent", async || {
        world.stored(due).await;
        app.get(&path).await["state"] == "sent"
    })
    .await;
}
