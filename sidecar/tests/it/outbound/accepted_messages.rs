//! Accepted messages: waiting for the outcome at Twilio, cancellation, the lists of an account, and the command `send`.
//! One test covers a STOP that another sidecar receives while a message is queued.

use std::{
    process::{Command, Output},
    time::Duration,
};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::OTHER,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, inbound},
    support::simulator::Simulator,
    support::world::{Kind, World, on_every_shared_store},
};

crate::support::world::on_every_store!(@ sqlite Sqlite
    waiting_request_gets_the_outcome_from_twilio queued_messages_are_listed_and_canceled send_command_uses_the_api_as_an_application);
crate::support::world::on_every_store!(@ redis_postgres RedisPostgres
    waiting_request_gets_the_outcome_from_twilio queued_messages_are_listed_and_canceled);
on_every_shared_store!(stop_at_one_sidecar_stops_queued_messages_of_another);

const OURS: &str = "+14155238886";

async fn started(world: &World, simulator: &Simulator) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "2000"),
    ];
    world.sidecar_with(&settings).await
}

fn text(to: &str) -> Value {
    json!({"account_sid": ACCOUNT, "to": to, "from": OURS, "body": "hi"})
}

fn later(to: &str, after: Duration) -> Value {
    let mut wanted = text(to);
    wanted["send_at"] = json!((jiff::Timestamp::now() + after).to_string());
    wanted
}

async fn status_and_body(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn waiting_request_gets_the_outcome_from_twilio(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let ask = async |query: &str, wanted: Value, key: &str| {
        let request = sidecar.client.post(format!("{}/v1/messages{query}", sidecar.base));
        let request = request.bearer_auth(&root.token).header("idempotency-key", key);
        request.body(wanted.to_string()).send().await.unwrap()
    };
    let (status, sent) =
        status_and_body(ask("?wait_ms=20000", text("+14155550101"), "a").await).await;
    assert_eq!((status, &sent["state"]), (200, &json!("sent")), "{sent}");
    let sid = sent["sid"].as_str().unwrap().to_owned();
    assert!(simulator.made().await.contains_key(&sid));
    let by_sid = app.get(&format!("/v1/messages/{sid}?account_sid={ACCOUNT}")).await;
    assert_eq!(by_sid["id"], sent["id"], "Twilio's SID leads to the same message");
    assert_eq!(sent["links"]["cancel"], Value::Null);
    // `wait_ms` may differ between copies of a request with the same idempotency key.
    for (query, expected) in [("", 202), ("?wait_ms=1", 200), ("?wait_ms=9000&wait_ms=1", 400)] {
        let copy = ask(query, text("+14155550101"), "a").await;
        if expected == 400 {
            assert_eq!(copy.status(), 400, "{query}");
            continue;
        }
        assert_eq!(copy.headers()["idempotent-replayed"], "true");
        let (status, copy) = status_and_body(copy).await;
        assert_eq!((status, &copy["id"]), (expected, &sent["id"]), "{query}");
    }
    let (status, refused) =
        status_and_body(ask("?wait_ms=20000", text("+14155559002"), "b").await).await;
    let outcome =
        (status, &refused["state"], &refused["error"]["code"], &refused["error"]["actor"]);
    assert_eq!(outcome, (200, &json!("refused"), &json!("21211"), &json!("caller")));
    let (status, unknown) =
        status_and_body(ask("?wait_ms=20000", text("+14155559005"), "c").await).await;
    assert_eq!(status, 202, "the outcome is unknown, and nothing says for how long: {unknown}");
    assert_eq!(unknown["state"], "unknown");
    let (status, scheduled) = status_and_body(
        ask("?wait_ms=50", later("+14155550102", Duration::from_secs(3600)), "d").await,
    )
    .await;
    assert_eq!((status, &scheduled["state"]), (202, &json!("queued")));
    // A message that a rule refuses gets its error response at once, despite `wait_ms`.
    let invalid = ask("?wait_ms=20000", text("+1555"), "e").await;
    assert_eq!(invalid.status(), 422);
    for query in ["?wait_ms=60001", "?wait_ms=-1", "?wait_ms=soon", "?wait_ms="] {
        assert_eq!(ask(query, text("+14155550103"), "f").await.status(), 400, "{query}");
    }
    // A GET of an accepted message can wait for the outcome, too.
    let wanted = later("+14155550104", Duration::from_secs(1)).to_string();
    let (_, taken) = status_and_body(app.send(Method::POST, "/v1/messages", wanted).await).await;
    let place = format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap());
    assert_eq!(app.get(&format!("{place}&wait_ms=20000")).await["state"], "sent");
    let too_long = app.send(Method::GET, &format!("{place}&wait_ms=60001"), String::new()).await;
    assert_eq!(too_long.status(), 400);
}

async fn queued_messages_are_listed_and_canceled(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let (_, mine) = root.create("app", Some(ACCOUNT), "mine").await;
    let (_, theirs) = root.create("app", Some(OTHER), "theirs").await;
    let (app, other) = (Caller::app(&sidecar, &mine), Caller::app(&sidecar, &theirs));
    let hour = Duration::from_secs(3600);
    let mut ids = Vec::new();
    for n in 0..5 {
        let wanted = later(&format!("+1415555020{n}"), hour).to_string();
        let (status, taken) =
            status_and_body(app.send(Method::POST, "/v1/messages", wanted).await).await;
        assert_eq!(status, 202, "{taken}");
        let id = taken["id"].as_str().unwrap().to_owned();
        assert_eq!(taken["links"]["cancel"], format!("/v1/messages/{id}/cancel"));
        ids.push(id);
    }
    let wanted = text("+14155550209").to_string();
    let sent =
        status_and_body(app.send(Method::POST, "/v1/messages?wait_ms=20000", wanted).await).await.1;
    let listed = async |query: &str| {
        let (mut all, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = app.get(&format!("/v1/messages?limit=2{query}{cursor}")).await;
            let rows = page["messages"].as_array().unwrap();
            assert!(rows.len() <= 2);
            all.extend(rows.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (all, pages),
            }
        }
    };
    let waiting: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(listed("&state=queued").await, (waiting.clone(), 3), "the latest first");
    let mut everything = listed("").await.0;
    everything.sort();
    let mut expected = [ids.clone(), vec![sent["id"].as_str().unwrap().to_owned()]].concat();
    expected.sort();
    assert_eq!(everything, expected);
    let shown = app.get("/v1/messages?state=sent").await;
    assert_eq!(shown["messages"][0]["to"], "sms:..09", "{shown}");
    assert_eq!(other.get("/v1/messages").await, json!({"messages": [], "next_cursor": null}));
    for path in ["/v1/sends", "/v1/sends?state=queued", "/v1/sends/ms_0"] {
        assert_eq!(app.refusal(Method::GET, path, &json!(null)).await, coded(404, "not_found"));
    }
    for query in ["?state=gone", "?limit=0", "?cursor=x", "?x=1"] {
        let path = format!("/v1/messages{query}");
        let status = app.send(Method::GET, &path, String::new()).await.status().as_u16();
        assert!((400..500).contains(&status), "{query} {status}");
    }

    let cancel = |id: &str| format!("/v1/messages/{id}/cancel");
    for _ in 0..2 {
        let (status, taken_back) =
            status_and_body(app.send(Method::POST, &cancel(&ids[0]), String::new()).await).await;
        assert_eq!((status, &taken_back["state"]), (200, &json!("canceled")), "{taken_back}");
        assert_eq!(taken_back["links"]["cancel"], Value::Null);
    }
    let audit = world.stored("SELECT subject FROM audit WHERE action = 'message.canceled'").await;
    assert_eq!(audit, [ids[0].as_str()], "one audit entry for two requests");
    let refusal = async |caller: &Caller<'_>, id: &str| {
        caller.refusal(Method::POST, &cancel(id), &json!(null)).await
    };
    assert_eq!(refusal(&app, sent["id"].as_str().unwrap()).await, coded(409, "not_cancelable"));
    assert_eq!(refusal(&other, &ids[1]).await, coded(404, "no_such_message"));
    for id in ["ms_0", "SM00112233445566778899aabbccddeeff", "%00", "ms_%00"] {
        assert_eq!(refusal(&app, id).await, coded(404, "no_such_message"), "{id}");
    }
    assert_eq!(listed("&state=queued").await.0, waiting[..4]);
    assert_eq!(listed("&state=canceled").await.0, [ids[0].as_str()]);
    assert_eq!(simulator.made().await.len(), 1);
}

/// The command uses the sidecar's API with an API key of scope `app`.
async fn send_command_uses_the_api_as_an_application(world: World) {
    let simulator = Simulator::start(&world, &[]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let (_, token) = root.create("app", Some(ACCOUNT), "cli").await;
    let file = world.directory.path().join("app.key");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let run = |arguments: &[&str]| -> Output {
        let to = ["send", "--to", "+14155550301", "--url", &sidecar.base, "--key-file"];
        Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
            .args(to)
            .arg(&file)
            .args(arguments)
            .output()
            .unwrap()
    };
    let shown = |output: &Output| -> Value {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let error_of = |output: &Output| {
        assert!(!output.status.success());
        String::from_utf8(output.stderr.clone()).unwrap()
    };
    let dry = shown(&run(&["--from", OURS, "--body", "hi", "--dry-run"]));
    assert_eq!(dry["allowed"], true, "{dry}");
    assert!(simulator.made().await.is_empty());
    let once = ["--from", OURS, "--body", "hi", "--wait", "20", "--idempotency-key", "a"];
    let sent = shown(&run(&once));
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_eq!(shown(&run(&once))["id"], sent["id"], "the same request");
    assert_eq!(simulator.made().await.len(), 1);
    let no_sender = error_of(&run(&["--body", "hi"]));
    assert!(no_sender.starts_with("twilio-edge: sender_unknown: "), "{no_sender}");
    assert!(error_of(&run(&["--from", OURS])).contains("--body"), "the message has no content");
    let elsewhere = format!("http://127.0.0.1:{}", crate::support::servers::free_port());
    let unreachable = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["send", "--to", "+14155550301", "--body", "hi", "--url", &elsewhere, "--key-file"])
        .arg(&file)
        .output()
        .unwrap();
    let stderr = error_of(&unreachable);
    assert!(stderr.contains("--idempotency-key cli-") && !stderr.contains(&token), "{stderr}");
}

/// One sidecar accepts the message. Another sidecar receives the STOP while Redis, if the world has one, is unavailable.
async fn stop_at_one_sidecar_stops_queued_messages_of_another(mut world: World) {
    world.own_redis().await;
    let simulator = Simulator::start(&world, &[]);
    let (one, two) = (started(&world, &simulator).await, started(&world, &simulator).await);
    let root = administrator(&one).await;
    let app = Caller::app(&one, &root.token);
    let wait = Duration::from_secs(3);
    let mut places = Vec::new();
    for to in ["+14155550401", "+14155550402"] {
        let (status, taken) = status_and_body(
            app.send(Method::POST, "/v1/messages", later(to, wait).to_string()).await,
        )
        .await;
        assert_eq!(status, 202, "{taken}");
        places.push(format!("{}?account_sid={ACCOUNT}", taken["links"]["self"].as_str().unwrap()));
    }
    if let Some(redis) = &mut world.redis {
        redis.kill();
    }
    two.claim(inbound("c1", "SM1", "+14155550401", "STOP")).await;
    eventually("the message to the suppressed contact is refused", async || {
        app.get(&places[0]).await["error"]["code"] == "suppressed"
    })
    .await;
    eventually("the message to the other contact is sent", async || {
        app.get(&places[1]).await["state"] == "sent"
    })
    .await;
    let to: Vec<Value> =
        simulator.listed(ACCOUNT).await.iter().map(|one| one["to"].clone()).collect();
    assert_eq!(to, ["+14155550402"]);
    let refused = "twilio_edge_message_refusals_total{code=\"suppressed\"}";
    assert_eq!(one.metric(refused).await + two.metric(refused).await, 1.0);
}

/// The metrics of sending are exported. Only senders from the sending file have their own series; `other` counts the rest.
#[tokio::test]
async fn sender_has_its_own_series_if_the_operator_has_named_it() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--requests-per-second", "3"]);
    let file = world.directory.path().join("sending.toml");
    let rates = format!("[[account.sender]]\nname = \"{OURS}\"\nper_second = 400\n");
    std::fs::write(&file, [crate::support::simulator::account(ACCOUNT), rates].concat()).unwrap();
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    for n in 0..6 {
        let mut wanted = text(&format!("+1415555050{n}"));
        if n % 2 == 1 {
            wanted["from"] = json!(format!("+1415555990{n}"));
        }
        app.send(Method::POST, "/v1/messages", wanted.to_string()).await;
    }
    app.send(Method::POST, "/v1/messages", text("+14155559002").to_string()).await;
    app.send(Method::POST, "/v1/messages", text("+493012345678").to_string()).await;
    let metric = async |series: &str| sidecar.metric(&format!("twilio_edge_{series}")).await;
    eventually("each message has an outcome", async || {
        let open = "SELECT id FROM outbound_messages WHERE state IN ('queued', 'attempting')";
        world.stored(open).await.is_empty()
    })
    .await;
    assert_eq!(metric(&format!("sender_messages_total{{sender=\"{OURS}\"}}")).await, 3.0);
    assert_eq!(metric("sender_messages_total{sender=\"other\"}").await, 3.0);
    assert_eq!(metric(&format!("sender_rate{{sender=\"{OURS}\"}}")).await, 400.0);
    assert_eq!(metric("sender_rate{sender=\"other\"}").await, 80.0);
    assert_eq!(metric("message_refusals_total{code=\"invalid_recipient\"}").await, 1.0);
    assert_eq!(metric("twilio_errors_total{class=\"caller\"}").await, 1.0);
    assert!(
        metric("twilio_errors_total{class=\"throttled\"}").await >= 1.0,
        "more than 3 requests a second"
    );
    let calls = metric("twilio_call_seconds_count").await;
    assert!(calls >= 8.0, "{calls}");
    // The limit of concurrent calls decreases with the first 429, and may have increased again.
    let allowed = metric("twilio_calls_allowed").await;
    assert!((1.0..=30.0).contains(&allowed), "{allowed}");
    assert!(
        !sidecar.get("/metrics").await.1.contains("+141555599"),
        "senders that the operator has not named"
    );
    let log = sidecar.log();
    let sent = log.lines().find(|line| line.contains("message.sent")).unwrap();
    assert!(sent.contains("RQ") && !sent.contains("+1415555"), "{sent}");
}
