//! Delivery of messages that Twilio accepted: every reported status is shown in the API, on the command line, in the statistics
//! and in the metrics. A message that certainly was not delivered is sent again, once for each failure, also under kills.
//! The simulator acts as Twilio, and the tests claim its statuses as the filter would.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Decision};

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::command,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, status},
    support::simulator::Simulator,
    support::world::{World, on_every_store},
};

on_every_store! {
    failed_delivery_is_repeated_until_the_message_arrives,
    final_failure_is_shown_and_found_everywhere,
    message_that_arrived_is_never_repeated,
    status_without_a_callback_is_looked_up,
    sidecar_killed_during_a_repetition_repeats_once,
}

const OURS: &str = "+14155238886";
const RECIPIENT: &str = "+14155550101";

async fn started(world: &World, simulator: &Simulator, more: &[(&str, &str)]) -> Sidecar {
    let file = simulator.credentials(world);
    let mut settings = vec![
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", simulator.base.as_str()),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
        ("TWILIO_EDGE_SENDING_REPEAT_AFTER_S", "1"),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "1"),
    ];
    settings.extend(more);
    world.sidecar_with(&settings).await
}

async fn application<'a>(sidecar: &'a Sidecar, root: &Caller<'_>) -> Caller<'a> {
    let (_, token) = root.create("app", Some(ACCOUNT), "the shop").await;
    Caller::app(sidecar, &token)
}

/// Sends a message, and returns it once Twilio has accepted it.
async fn sent(app: &Caller<'_>, body: &str) -> Value {
    let wanted = json!({"to": RECIPIENT, "from": OURS, "body": body});
    let path = "/v1/messages?wait_ms=20000";
    let answer = app.send(Method::POST, path, wanted.to_string()).await;
    let message: Value = answer.json().await.unwrap();
    assert_eq!(message["state"], "sent", "{message}");
    message
}

/// Returns the claim of a status callback about a message.
fn reported(claim_id: &str, message: &Value, word: &str, code: Option<&str>) -> Claim {
    let mut claim = status(claim_id, message["sid"].as_str().unwrap(), word);
    claim.identity.error_code = code.map(str::to_owned);
    claim.message_id = Some(message["id"].as_str().unwrap().to_owned());
    claim
}

async fn shown(app: &Caller<'_>, message: &Value) -> Value {
    app.get(&format!("/v1/messages/{}", message["id"].as_str().unwrap())).await
}

/// Waits until the message is at Twilio again, under another SID.
async fn repeated(app: &Caller<'_>, message: &Value) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let now = shown(app, message).await;
        if now["state"] == "sent" && now["sid"] != message["sid"] {
            return now;
        }
        assert!(Instant::now() < deadline, "it was not repeated: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn count_made(simulator: &Simulator, text: &str) -> usize {
    simulator.made().await.values().filter(|made| *made == text).count()
}

async fn failed_delivery_is_repeated_until_the_message_arrives(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let first = sent(&app, "one").await;
    // Twilio reports the failure several times, partly at the same time; the message is repeated once.
    let claims: Vec<Claim> =
        (0..6).map(|n| reported(&format!("a{n}"), &first, "failed", Some("63018"))).collect();
    let replies = claims.chunks(2).map(|some| sidecar.claim_all(some.to_vec()));
    futures_util::future::join_all(replies).await;
    let waiting = shown(&app, &first).await;
    assert_eq!(
        (&waiting["state"], &waiting["error"]["code"], &waiting["error"]["actor"]),
        (&json!("queued"), &json!("63018"), &json!("none")),
        "{waiting}"
    );
    assert_eq!(waiting["attempts"]["replaced_sids"], json!([first["sid"]]));
    let second = repeated(&app, &first).await;
    assert_eq!((&second["error"], &second["status"]), (&Value::Null, &Value::Null), "{second}");
    // A late report about the first delivery changes nothing.
    sidecar.claim(reported("late", &first, "failed", Some("63018"))).await;
    sidecar.claim(reported("later", &first, "undelivered", Some("30003"))).await;
    assert_eq!(shown(&app, &first).await["sid"], second["sid"]);
    // The second delivery fails too; the third one arrives.
    sidecar.claim(reported("b", &second, "undelivered", Some("30022"))).await;
    let third = repeated(&app, &second).await;
    assert_eq!(third["attempts"]["repetitions"], 2);
    let stored = world.stored("SELECT form FROM outbound_messages").await;
    assert!(stored[0].contains("one"), "the text is stored until the end: {stored:?}");
    sidecar.claim(reported("c", &third, "delivered", None)).await;
    let delivered = shown(&app, &first).await;
    assert_eq!(
        (&delivered["status"], &delivered["error"], &delivered["sid"]),
        (&json!("delivered"), &Value::Null, &third["sid"]),
        "{delivered}"
    );
    assert_eq!(count_made(&simulator, "one").await, 3);
    let stored = world.stored("SELECT form || recipient FROM outbound_messages").await;
    assert_eq!(stored, ["sms:..01"], "the text is deleted at the end");
    // The message is found by each of its SIDs, and its timeline has every webhook.
    for sid in [&first["sid"], &second["sid"], &third["sid"]] {
        let found = app.get(&format!("/v1/messages/{}", sid.as_str().unwrap())).await;
        assert_eq!(found["id"], first["id"], "{found}");
    }
    eventually("every webhook is written", async || {
        let timeline = shown(&app, &first).await["timeline"].clone();
        let webhooks = timeline.as_array().unwrap().iter();
        let sids: BTreeSet<String> = webhooks
            .filter_map(|entry| Some(entry["webhook"]["sid"].as_str()?.to_owned()))
            .collect();
        sids.len() == 3
    })
    .await;
    let listed = app.get("/v1/messages?direction=outbound").await;
    assert_eq!(listed["messages"].as_array().unwrap().len(), 1, "{listed}");
    let printed = command(
        &world,
        &["messages", "show", first["id"].as_str().unwrap(), "--account", ACCOUNT, "--json"],
    );
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed, shown(&app, &first).await);
    for (series, expected) in [
        ("{status=\"repeated\",code=\"63018\",channel=\"sms\"}", 1.0),
        ("{status=\"repeated\",code=\"30022\",channel=\"sms\"}", 1.0),
        ("{status=\"delivered\",code=\"none\",channel=\"sms\"}", 1.0),
        ("{status=\"failed\",code=\"none\",channel=\"sms\"}", 0.0),
    ] {
        let name = format!("twilio_edge_message_outcomes_total{series}");
        assert_eq!(sidecar.metric(&name).await, expected, "{series}");
    }
    let totals = app.get("/v1/statistics").await["totals"].clone();
    let expected = json!({"accepted": 1, "sent": 1, "delivered": 1, "read": 0, "failed": 0, "refused": 0, "repeated": 2});
    assert_eq!(totals, expected);
}

async fn final_failure_is_shown_and_found_everywhere(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator, &[]).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let fails = sent(&app, "fails").await;
    let arrives = sent(&app, "arrives").await;
    // The second callback was configured at Twilio, so its URL has no id of ours.
    sidecar.claim(reported("a", &fails, "sent", None)).await;
    let mut without_id = reported("b", &fails, "undelivered", Some("30003"));
    without_id.message_id = None;
    sidecar.claim(without_id).await;
    // The message shows its webhooks at once. The counters change together with its row.
    eventually("the status without an id is applied", async || {
        app.get("/v1/statistics").await["totals"]["failed"] == 1
    })
    .await;
    sidecar.claim(reported("c", &fails, "sent", None)).await;
    sidecar.claim(reported("d", &arrives, "read", None)).await;
    sidecar.claim(reported("e", &arrives, "delivered", None)).await;
    let failed = shown(&app, &fails).await;
    assert_eq!(
        (&failed["state"], &failed["status"], &failed["error"]["code"], &failed["error"]["actor"]),
        (&json!("sent"), &json!("undelivered"), &json!("30003"), &json!("caller")),
        "a failure that may be a delivery is not repeated: {failed}"
    );
    assert!(failed["error"]["remedy"].as_str().unwrap().ends_with('.'));
    let refused =
        json!({"to": RECIPIENT, "from": "+15550000000", "body": "hi", "template": {"name": "x"}});
    let answer = app.send(Method::POST, "/v1/messages", refused.to_string()).await;
    assert!(answer.status().is_client_error());
    // A rule refuses these requests, and the statistics count them.
    let refused = json!({"to": RECIPIENT, "from": OURS, "template": {"name": "missing"}});
    let (code, _) = app.refusal(Method::POST, "/v1/messages", &refused).await;
    assert_eq!(code, 422);

    let (failed, arrived) = (fails["id"].as_str().unwrap(), arrives["id"].as_str().unwrap());
    for (query, expected) in [
        ("status=undelivered", vec![failed]),
        ("status=read", vec![arrived]),
        ("status=delivered", vec![]),
        ("error_code=30003", vec![failed]),
        ("error_code=30003&status=read", vec![]),
        ("error_code=30003&direction=inbound", vec![]),
        ("sender=%2B14155238886", vec![arrived, failed]),
        ("sender=%2B14155238886&status=read", vec![arrived]),
        ("sender=%2B15550000000", vec![]),
        ("template=shipping_update", vec![]),
        ("error_code=%00", vec![]),
        ("error_code=30003&state=queued", vec![]),
    ] {
        let page = app.get(&format!("/v1/messages?{query}")).await;
        let ids: Vec<&str> = page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{query}");
    }
    let listed = command(
        &world,
        &["messages", "list", "--account", ACCOUNT, "--error-code", "30003", "--json"],
    );
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["id"], &listed[1]), (&json!(failed), &Value::Null));
    let all = command(&world, &["-o", "tsv", "messages", "list", "--state", "sent"]);
    assert!(all.lines().any(|line| line.contains(failed) && line.contains("30003")), "{all}");

    eventually("the refusal is counted", async || {
        app.get("/v1/statistics").await["totals"]["refused"] == 1
    })
    .await;
    let statistics = app.get("/v1/statistics?by=sender,code,country").await;
    let totals = json!({"accepted": 2, "sent": 2, "delivered": 1, "read": 1, "failed": 1, "refused": 1, "repeated": 0});
    assert_eq!(statistics["totals"], totals);
    let groups = statistics["groups"].as_array().unwrap();
    let of = |code: &str| groups.iter().find(|group| group["code"] == code).unwrap();
    assert_eq!(
        (&of("30003")["failed"], &of("30003")["sender"], &of("30003")["country"]),
        (&json!(1), &json!(OURS), &json!("US"))
    );
    assert_eq!(of("template_unknown")["refused"], 1, "{statistics}");
    assert_eq!((&of("")["sent"], &of("")["hour"]), (&json!(2), &Value::Null));
    assert_eq!(app.get("/v1/statistics?code=30003").await["totals"]["failed"], 1);
    assert_eq!(app.get("/v1/statistics?until=2001-01-01").await["totals"]["accepted"], 0);
    let printed = command(&world, &["stats", "--account", ACCOUNT, "--by", "code", "--json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["totals"], totals);
    let table = command(&world, &["-o", "table", "stats", "--account", ACCOUNT, "--by", "sender"]);
    assert!(table.lines().last().unwrap().starts_with("total"), "{table}");
}

async fn message_that_arrived_is_never_repeated(world: World) {
    let simulator = Simulator::start(&world, &[]);
    // Long enough that the repetition waits.
    let later = [("TWILIO_EDGE_SENDING_REPEAT_AFTER_S", "600")];
    let sidecar = started(&world, &simulator, &later).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let arrived = sent(&app, "one").await;
    sidecar.claim(reported("a", &arrived, "delivered", None)).await;
    sidecar.claim(reported("b", &arrived, "failed", Some("63018"))).await;
    let now = shown(&app, &arrived).await;
    assert_eq!((&now["state"], &now["status"]), (&json!("sent"), &json!("failed")), "{now}");
    // Both reports come in one batch, the failure first.
    let both = sent(&app, "two").await;
    let claims = [("c", "failed", Some("63018")), ("d", "delivered", None)];
    let claims = claims.map(|(id, word, code)| reported(id, &both, word, code));
    sidecar.claim_all(claims.to_vec()).await;
    assert_eq!(shown(&app, &both).await["state"], "sent");
    // The failure comes first, and the delivery while the repetition waits: the repetition ends.
    let late = sent(&app, "three").await;
    sidecar.claim(reported("e", &late, "failed", Some("63018"))).await;
    assert_eq!(shown(&app, &late).await["state"], "queued");
    sidecar.claim(reported("f", &late, "delivered", None)).await;
    let now = shown(&app, &late).await;
    assert_eq!(
        (&now["state"], &now["status"], &now["sid"]),
        (&json!("sent"), &json!("delivered"), &late["sid"]),
        "{now}"
    );
    sidecar.claim(reported("f2", &late, "failed", Some("63018"))).await;
    sidecar.claim(reported("f3", &late, "read", None)).await;
    assert_eq!(shown(&app, &late).await["status"], "read", "copies of the failure say nothing new");
    // A waiting repetition can be canceled and redacted like any waiting message.
    let canceled = sent(&app, "four").await;
    sidecar.claim(reported("g", &canceled, "failed", Some("63018"))).await;
    let path = format!("/v1/messages/{}/cancel", canceled["id"].as_str().unwrap());
    assert!(app.send(Method::POST, &path, String::new()).await.status().is_success());
    let redacted = sent(&app, "five").await;
    command(&world, &["redact", "--account", ACCOUNT, "--number", RECIPIENT]);
    sidecar.claim(reported("h", &redacted, "failed", Some("63018"))).await;
    assert_eq!(shown(&app, &redacted).await["status"], "failed", "its text is gone");
    let texts = world.stored("SELECT form FROM outbound_messages WHERE form <> ''").await;
    assert_eq!(texts, [""; 0]);
    assert_eq!(simulator.made().await.len(), 5, "each once");
}

async fn status_without_a_callback_is_looked_up(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let soon = [("TWILIO_EDGE_SENDING_STATUS_AFTER_S", "1")];
    let sidecar = started(&world, &simulator, &soon).await;
    let root = administrator(&sidecar).await;
    let app = application(&sidecar, &root).await;
    let message = sent(&app, "one").await;
    eventually("the status is known", async || {
        shown(&app, &message).await["status"] == "delivered"
    })
    .await;
    let looked_up = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"status\"}").await;
    assert_eq!(looked_up, 1.0);
    let stored = world.stored("SELECT form || recipient FROM outbound_messages").await;
    assert_eq!(stored, ["sms:..01"]);
}

/// Number of messages whose repetition a kill interrupts; `NEVER_TWICE` sets more for the long test.
fn rounds() -> u64 {
    let words = std::env::var("NEVER_TWICE").unwrap_or_default();
    words.split_whitespace().nth(1).map_or(6, |kills| kills.parse::<u64>().unwrap() / 4)
}

/// The sidecar is killed at every moment around the repetition: while it stores the failure, while the message waits, and while
/// it calls Twilio. Twilio repeats the status until it receives an answer.
async fn sidecar_killed_during_a_repetition_repeats_once(world: World) {
    let simulator = Simulator::start(&world, &["--latency-ms", "60"]);
    let mut token = String::new();
    for n in 0..rounds() {
        let sidecar = started(&world, &simulator, &[]).await;
        if token.is_empty() {
            let root = administrator(&sidecar).await;
            token = application(&sidecar, &root).await.token;
        }
        let app = Caller::app(&sidecar, &token);
        let first = sent(&app, &format!("text {n}")).await;
        let claim = reported(&format!("k{n}"), &first, "failed", Some("63018"));
        let body = json!({"v": twilio_edge_contract::PROTOCOL_VERSION, "claims": [claim], "settlements": []});
        let path = twilio_edge_contract::EXCHANGE_PATH;
        let asked = sidecar.client.post(format!("{}{path}", sidecar.base)).json(&body);
        let asked = asked.bearer_auth(crate::support::sidecar::TOKEN);
        let request = tokio::spawn(asked.send());
        // The repetition is due after one second and up to a quarter more; the call of Twilio takes 60 ms.
        let pause = if n % 2 == 0 { n * 5 } else { 1000 + (n * 97) % 400 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        sidecar.kill();
        let _ = request.await;
        // Ends the hold of an interrupted attempt.
        let end_hold = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state = 'attempting' RETURNING id";
        world.stored(end_hold).await;
        let sidecar = started(&world, &simulator, &[]).await;
        let app = Caller::app(&sidecar, &token);
        let again = reported(&format!("again{n}"), &first, "failed", Some("63018"));
        assert_ne!(sidecar.decide(again).await, Decision::Unavailable);
        let second = repeated(&app, &first).await;
        assert_eq!(second["attempts"]["repetitions"], 1, "{second}");
        assert_eq!(
            count_made(&simulator, &format!("text {n}")).await,
            2,
            "the failed one, and one more"
        );
        sidecar.stop();
    }
}
