//! Dead letters as administrators use them over HTTP: list, show, retry, discard.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::Decision;

use crate::{
    access::api_keys::{Caller, administrator, coded},
    api::message_lists::{OTHER, of_other},
    inbound::deliveries::{command, from, sinks, start},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::ACCOUNT,
    support::world::{World, on_every_store},
};

on_every_store! {
    administrator_manages_dead_letters,
    key_of_one_account_manages_its_own_dead_letters,
    command_for_one_account_manages_its_own_dead_letters,
}

async fn ask(of: &Caller<'_>, what: &str, body: Value) -> Value {
    let answer = of.send(Method::POST, &format!("/v1/dead-letters/{what}"), body.to_string()).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Returns the number of listed dead letters for a query.
async fn listed(of: &Caller<'_>, query: &str) -> usize {
    of.get(&format!("/v1/dead-letters?{query}")).await["dead_letters"].as_array().unwrap().len()
}

pub(crate) async fn administrator_manages_dead_letters(world: World) {
    let (app, crm) = (Receiver::start().await, Receiver::start().await);
    app.answers(|_| 422);
    crm.answers(|_| 400);
    let file = sinks(&world, &[("app", &app, ""), ("crm", &crm, "")]);
    let sidecar = start(&world, &file).await;
    let root = administrator(&sidecar).await;
    for person in 0..3 {
        assert_eq!(sidecar.decide(from(person, 1)).await, Decision::Accepted);
    }
    eventually("all is given up", async || listed(&root, "limit=200").await == 6).await;
    let sinks = root.get("/v1/sinks").await;
    for sink in sinks["sinks"].as_array().unwrap() {
        assert_eq!((&sink["dead_letters"], &sink["waiting"]), (&json!(3), &json!(0)), "{sink}");
        assert!(sink["oldest_dead_letter_at"].is_string(), "{sink}");
        assert!(sink["oldest_waiting_at"].is_null(), "{sink}");
    }

    // Page by page, each once.
    let mut ids = Vec::new();
    let mut page = root.get("/v1/dead-letters?limit=4").await;
    loop {
        ids.extend(
            page["dead_letters"].as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        page = root.get(&format!("/v1/dead-letters?limit=4&cursor={cursor}")).await;
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    assert_eq!(listed(&root, "sink=crm").await, 3);

    let of_app = root.get("/v1/dead-letters?sink=app&limit=1").await;
    let one = &of_app["dead_letters"][0];
    assert_eq!((&one["reason"], &one["tries"]), (&json!("422"), &json!(1)));
    let id = &one["id"];
    let letter = root.get(&format!("/v1/dead-letters/{id}")).await;
    assert_eq!(letter["state"], "dead");
    assert_eq!(letter["event"]["event_id"], letter["event_id"]);
    assert_eq!(letter["event"]["body"], "1");
    assert_eq!(letter["attempts"][0]["status"], 422);

    // The sink accepts deliveries again. The first retry names one dead letter, the second all others of the sink.
    app.answers(|_| 200);
    assert_eq!(
        ask(&root, "retry", json!({"ids": [id], "sink": "app"})).await,
        json!({"found": 1, "changed": 1, "complete": true})
    );
    eventually("it is delivered", async || app.taken().len() == 1).await;
    eventually("the delivery is recorded as done", async || {
        root.get(&format!("/v1/dead-letters/{id}")).await["state"] == "done"
    })
    .await;
    let none = json!({"found": 1, "changed": 0, "complete": true});
    assert_eq!(
        ask(&root, "retry", json!({"ids": [id]})).await,
        none,
        "it is no dead letter any more"
    );
    assert_eq!(
        ask(&root, "retry", json!({"sink": "app"})).await,
        json!({"found": 2, "changed": 2, "complete": true})
    );
    eventually("all of them are delivered", async || app.taken().len() == 3).await;
    assert_eq!(listed(&root, "sink=crm").await, 3, "the other sink's are as they were");
    assert_eq!(
        ask(&root, "discard", json!({"sink": "crm"})).await,
        json!({"found": 3, "changed": 3, "complete": true})
    );
    assert_eq!(listed(&root, "").await, 0);
    assert_eq!(crm.got().len(), 3, "and are not tried again");

    let audit = root.get(&format!("/v1/audit?account_sid={ACCOUNT}")).await;
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["delivery.discarded", "delivery.retried", "delivery.retried"]);
    assert_eq!(audit["entries"][2]["detail"], json!({"ids": [id]}));

    let refused = |what: &'static str, body: Value| {
        let root = &root;
        async move { root.refusal(Method::POST, &format!("/v1/dead-letters/{what}"), &body).await }
    };
    assert_eq!(refused("discard", json!({})).await, coded(409, "selector_required"));
    assert_eq!(refused("retry", json!({"ids": []})).await, coded(400, "malformed_request"));
    assert_eq!(refused("retry", json!({"sink": "a b"})).await, coded(400, "malformed_request"));
    for unknown in ["0", "999999", "x"] {
        let path = format!("/v1/dead-letters/{unknown}");
        let refusal = root.refusal(Method::GET, &path, &json!(null)).await;
        assert_eq!(refusal, coded(404, "no_such_dead_letter"), "{unknown}");
    }
}

async fn key_of_one_account_manages_its_own_dead_letters(world: World) {
    let app = Receiver::start().await;
    app.answers(|_| 422);
    let file = sinks(&world, &[("app", &app, "")]);
    let sidecar = start(&world, &file).await;
    let root = administrator(&sidecar).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    assert_eq!(sidecar.decide(of_other(from(1, 2))).await, Decision::Accepted);
    eventually("both are given up", async || listed(&root, "").await == 2).await;
    // Since when is asked every few seconds, and once at start.
    let token = root.token.clone();
    drop(sidecar);
    let sidecar = start(&world, &file).await;
    eventually("their age is known", async || {
        sidecar.metric("twilio_edge_dead_letter_oldest_age_seconds{sink=\"app\"}").await > 0.0
    })
    .await;

    let root = Caller::admin(&sidecar, &token);
    let (_, token) = root.create("admin", Some(ACCOUNT), "ours").await;
    let ours = Caller::admin(&sidecar, &token);
    assert_eq!(listed(&ours, "").await, 1);
    let theirs = root.get(&format!("/v1/dead-letters?account_sid={OTHER}")).await;
    let theirs = theirs["dead_letters"][0]["id"].clone();
    assert_eq!(
        ask(&ours, "discard", json!({"ids": [theirs]})).await,
        json!({"found": 1, "changed": 0, "complete": true})
    );
    let path = format!("/v1/dead-letters/{theirs}");
    let hidden = ours.refusal(Method::GET, &path, &json!(null)).await;
    assert_eq!(hidden, coded(404, "no_such_dead_letter"));
    assert_eq!(
        ask(&ours, "discard", json!({"sink": "app"})).await,
        json!({"found": 1, "changed": 1, "complete": true})
    );
    assert_eq!(listed(&root, "").await, 1, "the other's is still there");
}

async fn command_for_one_account_manages_its_own_dead_letters(world: World) {
    let app = Receiver::start().await;
    app.answers(|_| 422);
    let sidecar = start(&world, &sinks(&world, &[("app", &app, "")])).await;
    let root = administrator(&sidecar).await;
    for claim in [from(1, 1), of_other(from(1, 2)), of_other(from(2, 3))] {
        assert_eq!(sidecar.decide(claim).await, Decision::Accepted);
    }
    eventually("all are given up", async || listed(&root, "").await == 3).await;

    let letters = |tenant: &[&str]| -> Vec<Value> {
        let output = command(&world, &[&["deliveries", "list", "--json"], tenant].concat());
        serde_json::from_str(&output).unwrap()
    };
    assert_eq!(letters(&[]).len(), 3);
    let theirs = letters(&["--account", OTHER]);
    assert!(
        theirs.len() == 2 && theirs.iter().all(|one| one["account_sid"] == OTHER),
        "{theirs:?}"
    );

    // An id of another account finds nothing, and an account alone does not select any dead letter.
    let id = theirs[0]["id"].to_string();
    let deliveries = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.arg("deliveries").args(arguments).env("DATABASE_URL", &world.database_url);
        command.env("TWILIO_ACCOUNT_SID", ACCOUNT).output().unwrap()
    };
    let elsewhere = deliveries(&["discard", &id]);
    assert_eq!(
        String::from_utf8(elsewhere.stdout).unwrap(),
        "0 of 1 dead letters were discarded\n"
    );
    assert_eq!(deliveries(&["discard"]).status.code(), Some(2));
    assert_eq!(listed(&root, "").await, 3);

    let all = command(&world, &["deliveries", "discard", "--all", "--account", OTHER]);
    assert_eq!(all, "2 of 2 dead letters were discarded\n");
    assert_eq!(letters(&[])[0]["account_sid"], ACCOUNT);
    let audit = "SELECT action || ' ' || account_sid FROM audit WHERE action LIKE 'delivery.%'";
    assert_eq!(world.stored(audit).await, [format!("delivery.discarded {OTHER}")]);
}
