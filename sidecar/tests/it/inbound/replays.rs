//! Replays: selection of webhooks, destination sink, permissions, and continuation after a process was killed.

use std::{collections::BTreeSet, process::Command};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{OTHER, accepted, of_other},
    inbound::deliveries::{command, sinks, start},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, inbound, status},
    support::world::{World, on_every_store},
};

on_every_store! {
    recorded_webhook_is_replayed,
    replay_continues_after_its_command_was_killed,
}

const PERSON: &str = "whatsapp:+15550001234";

async fn begin(of: &Caller<'_>, wanted: Value) -> (u16, Value) {
    let answer = of.send(Method::POST, "/v1/replays", wanted.to_string()).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn written(world: &World, count: usize) {
    eventually("all of it is in the ledger", async || {
        world.stored("SELECT dedupe_key FROM events WHERE form IS NOT NULL").await.len() == count
    })
    .await;
}

pub(crate) async fn recorded_webhook_is_replayed(world: World) {
    let app = Receiver::start().await;
    let file = sinks(&world, &[("app", &app, "")]);
    let sidecar = start(&world, &file).await;
    let root = administrator(&sidecar).await;
    // The backend received these webhooks, so no sink has a delivery of them.
    let ours = [
        inbound("c1", "SM1", PERSON, "one"),
        inbound("c2", "SM2", PERSON, "two"),
        status("c3", "SM3", "delivered"),
    ];
    accepted(&sidecar, &ours).await;
    accepted(&sidecar, &[of_other(inbound("c4", "SM4", PERSON, "theirs"))]).await;
    written(&world, 4).await;

    let all = json!({"sink": "app", "since": "2001-01-01"});
    let counted = |of| json!({"found": of, "queued": of, "left_out": 0});
    let counts = |replay: &Value| json!({"found": replay["found"], "queued": replay["queued"], "left_out": replay["left_out"]});
    let dry = json!({"sink": "app", "since": "2001-01-01", "dry_run": true});
    let (code, would) = begin(&root, dry).await;
    assert_eq!((code, counts(&would), &would["id"]), (200, counted(4), &Value::Null));
    assert!(app.got().is_empty() && world.stored("SELECT id FROM replays").await.is_empty());

    let (_, token) = root.create("admin", Some(ACCOUNT), "ours").await;
    let bound = Caller::admin(&sidecar, &token);
    let (code, begun) = begin(&bound, all.clone()).await;
    assert_eq!(code, 202);
    let id = begun["id"].as_str().unwrap().to_owned();
    eventually("it is delivered", async || app.taken().len() == 3).await;
    let replay = bound.get(&format!("/v1/replays/{id}")).await;
    assert_eq!((counts(&replay), &replay["state"]), (counted(3), &json!("done")));
    assert_eq!(bound.get("/v1/replays").await, json!({"replays": [replay], "next_cursor": null}));
    let mut said = Vec::new();
    for got in app.taken() {
        let event = got.event();
        assert_eq!((&event["replay"], &event["replay_id"]), (&json!(true), &json!(id)));
        assert_eq!(event["account_sid"], ACCOUNT);
        assert_eq!(got.header("x-twilio-edge-replay"), "true");
        assert_eq!(got.header("x-twilio-edge-replay-id"), id);
        assert_eq!(
            got.header("webhook-id"),
            format!("{}#{id}", event["event_id"].as_str().unwrap())
        );
        said.extend(event["body"].as_str().map(str::to_owned));
    }
    assert_eq!(said, ["one", "two"], "the webhooks of a contact arrive in order");

    // Another replay has other webhook ids, so no sink takes its deliveries for copies.
    let one = json!({"sink": "app", "message_sid": "SM1", "account_sid": ACCOUNT});
    assert_eq!(begin(&root, one).await.0, 202);
    eventually("the message is delivered again", async || app.taken().len() == 4).await;
    assert_eq!(app.taken()[3].event()["message_sid"], "SM1");

    // Redacted webhooks are left out, and `left_out` counts them.
    command(&world, &["redact", "--account", ACCOUNT, "--message-sid", "SM2"]);
    let dry = json!({"sink": "app", "since": "2001-01-01", "class": "inbound", "dry_run": true});
    let would = begin(&bound, dry).await.1;
    assert_eq!(counts(&would), json!({"found": 2, "queued": 1, "left_out": 1}));

    let refused = |wanted: Value| {
        let bound = &bound;
        async move { bound.refusal(Method::POST, "/v1/replays", &wanted).await }
    };
    assert_eq!(refused(json!({"sink": "app"})).await, coded(409, "selector_required"));
    let unknown_sink = json!({"sink": "missing", "since": "2001-01-01"});
    assert_eq!(refused(unknown_sink).await, coded(422, "invalid_field"));
    let other = json!({"sink": "app", "since": "2001-01-01", "account_sid": OTHER});
    assert_eq!(refused(other).await, coded(403, "other_account"));
    let (_, theirs) = begin(&root, json!({"sink": "app", "until": "2001-01-01"})).await;
    let path = format!("/v1/replays/{}", theirs["id"].as_str().unwrap());
    let hidden = bound.refusal(Method::GET, &path, &json!(null)).await;
    assert_eq!(hidden, coded(404, "no_such_replay"));
    // A bound key sees its replays alone, another key all of them, page by page.
    let seen = bound.get("/v1/replays").await["replays"].as_array().unwrap().len();
    assert_eq!(seen, 2);
    let first = root.get("/v1/replays?limit=2").await;
    assert_eq!(first["replays"][0]["id"], theirs["id"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = root.get(&format!("/v1/replays?limit=2&cursor={cursor}")).await;
    assert_eq!((&last["replays"][0]["id"], &last["next_cursor"]), (&json!(id), &json!(null)));
    let audit =
        world.stored("SELECT subject FROM audit WHERE action = 'replay.started' ORDER BY id").await;
    assert_eq!((audit.len(), &audit[0]), (3, &id));
}

async fn replay_continues_after_its_command_was_killed(world: World) {
    const COUNT: usize = 300;
    let app = Receiver::start().await;
    let file = sinks(&world, &[("app", &app, "concurrency = 64")]);
    let sidecar = start(&world, &file).await;
    let claims: Vec<_> = (0..COUNT)
        .map(|n| inbound(&format!("c{n}"), &format!("SM{n}"), &format!("+1555000{n:04}"), "x"))
        .collect();
    for some in claims.chunks(50) {
        accepted(&sidecar, some).await;
    }
    written(&world, COUNT).await;
    assert!(sidecar.stop().contains("stopped"));

    let mut killed = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["replay", "--since", "2001-01-01", "--to", "app", "--step", "1"])
        .env("DATABASE_URL", &world.database_url)
        .env("TWILIO_EDGE_SINKS_FILE", &file)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it has begun", async || {
        !world.stored("SELECT id FROM replays WHERE found > 0").await.is_empty()
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = world.stored("SELECT state FROM replays").await;
    assert_eq!(left, ["running"], "it was killed in the middle");
    let owed = world.stored("SELECT delivery_id FROM deliveries").await.len();
    let found = world.stored("SELECT CAST(found AS TEXT) FROM replays").await;
    assert_eq!(found, [owed.to_string()], "what is counted is owed, and nothing else");

    // Any sidecar carries it on.
    let _sidecar = start(&world, &file).await;
    eventually("everything is delivered", async || app.taken().len() >= COUNT).await;
    let ids: Vec<String> =
        app.taken().iter().map(|got| got.header("webhook-id").to_owned()).collect();
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (COUNT, COUNT), "each once");
    assert_eq!(
        world.stored("SELECT state || ' ' || queued FROM replays").await,
        [format!("done {COUNT}")]
    );

    // Resuming what is done changes nothing.
    let id = world.stored("SELECT id FROM replays").await;
    let said = command(&world, &["replay", "--resume", &id[0]]);
    assert_eq!(
        said,
        format!(
            "replay {}: {COUNT} webhooks found, 0 skipped that are no longer complete, {COUNT} on their way to app\n",
            id[0]
        )
    );
}
