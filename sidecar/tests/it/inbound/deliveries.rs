//! Accepted webhooks: each one reaches its sinks, even if a sidecar or an application fails meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use sqlx::{Connection, Executor};
use twilio_edge_contract::{Claim, Decision, Delivery, Outcome, SettlementResult};

use crate::{
    access::api_keys::administrator,
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::{Sidecar, inbound, settlement, status},
    support::world::{World, on_every_shared_store, on_every_store},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

on_every_store! {
    accepted_webhook_is_delivered_once_and_signed,
    accepted_webhooks_survive_the_sidecar_and_wait_for_the_application,
    deliveries_of_a_number_are_in_order,
    refused_delivery_becomes_a_dead_letter_and_delays_nothing,
    every_sink_of_a_route_gets_it,
    pending_delivery_outlives_its_retention_until_it_is_delivered,
    redacted_webhook_is_not_delivered,
    unwritable_webhook_is_forwarded,
    sink_gets_only_the_classes_that_it_lists,
    event_has_the_facts_of_its_arrival,
}

on_every_shared_store! {
    deliveries_are_shared_by_sidecars_and_survive_one_that_dies,
    deliveries_keep_the_order_of_their_records,
}

pub(crate) fn accepted(claim: Claim) -> Claim {
    Claim { delivery: Delivery::Accept, ..claim }
}

pub(crate) fn from(person: usize, n: usize) -> Claim {
    let sid = format!("SM{person}x{n}");
    accepted(inbound(
        &format!("c{sid}"),
        &sid,
        &format!("whatsapp:+1555000{person:04}"),
        &n.to_string(),
    ))
}

/// Runs a command on the world's database and returns its standard output.
pub(crate) fn command(world: &World, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    let output = command.args(arguments).env("DATABASE_URL", &world.database_url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A sinks file with one sink per receiver, `more` added to each.
pub(crate) fn sinks(world: &World, receivers: &[(&str, &Receiver, &str)]) -> String {
    let path: PathBuf = world.directory.path().join("sinks.toml");
    let sinks: Vec<String> = receivers
        .iter()
        .map(|(name, receiver, more)| {
            format!(
                "[[sink]]\nname = \"{name}\"\ntype = \"http\"\nurl = \"{}\"\n{more}\n",
                receiver.url()
            )
        })
        .collect();
    std::fs::write(&path, sinks.concat()).unwrap();
    path.display().to_string()
}

pub(crate) async fn start(world: &World, file: &str) -> Sidecar {
    world.sidecar_with(&[("TWILIO_EDGE_SINKS_FILE", file)]).await
}

/// Makes the lanes of killed sidecars due at once. Otherwise a test would wait a minute until the lanes are released.
async fn release_lanes_of_killed_sidecars(world: &World) {
    world.stored("UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL RETURNING lane").await;
}

async fn accepted_webhook_is_delivered_once_and_signed(world: World) {
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, &format!("secrets = [\"{SECRET}\"]"))]);
    let sidecar = start(&world, &file).await;
    let claim = from(1, 1);
    assert_eq!(sidecar.decide(claim.clone()).await, Decision::Accepted);
    eventually("it is delivered", async || !receiver.got().is_empty()).await;
    let copy = Claim { claim_id: "again".into(), ..claim.clone() };
    assert_eq!(sidecar.decide(copy).await, Decision::Duplicate);
    // A filter that did not receive the answer releases the claim; the webhook stays accepted.
    let late = sidecar.settle(settlement(&claim, Outcome::Release)).await;
    assert_eq!(late, SettlementResult::Superseded);
    let copy = Claim { claim_id: "and again".into(), ..claim };
    assert_eq!(sidecar.decide(copy).await, Decision::Duplicate);

    // Deliveries of one number are in order: once the second is delivered, the first cannot come again.
    assert_eq!(sidecar.decide(from(1, 2)).await, Decision::Accepted);
    eventually("the next is delivered", async || receiver.got().len() > 1).await;
    let got = receiver.got();
    let [first, second] = got.as_slice() else { panic!("{got:?}") };
    let event = first.event();
    assert_eq!(event["event_id"], first.header("webhook-id"));
    assert_eq!(event["event_type"], "twilio_inbound");
    assert_eq!((&event["from"], &event["body"]), (&"whatsapp:+15550000001".into(), &"1".into()));
    assert_eq!(event["replay"], false);
    assert_eq!(second.event()["message_sid"], "SM1x2");
    for got in [first, second] {
        let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
        verifier.verify(got.body.as_bytes(), &got.headers).unwrap();
    }
    eventually("no delivery is pending", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    let states = world.stored("SELECT state || ' ' || tries FROM deliveries").await;
    assert_eq!(states, ["done 1", "done 1"]);
}

async fn accepted_webhooks_survive_the_sidecar_and_wait_for_the_application(world: World) {
    let mut receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "longest_pause_ms = 100")]);
    receiver.leave();
    let sidecar = start(&world, &file).await;
    for n in 0..20 {
        assert_eq!(sidecar.decide(from(n, 1)).await, Decision::Accepted);
    }
    let backlog = administrator(&sidecar).await.get("/v1/sinks").await;
    assert_eq!(backlog["sinks"][0]["waiting"], 20, "{backlog}");
    assert!(backlog["sinks"][0]["oldest_waiting_at"].is_string(), "{backlog}");
    sidecar.kill();
    release_lanes_of_killed_sidecars(&world).await;
    let sidecar = start(&world, &file).await;
    assert_eq!(sidecar.decide(from(0, 2)).await, Decision::Accepted);
    eventually("the sink is reported as unavailable", async || {
        sidecar.metric("twilio_edge_sink_unavailable{sink=\"app\"}").await == 1.0
    })
    .await;
    receiver.listen().await;
    eventually("everything is delivered", async || receiver.taken().len() >= 21).await;
    let mut sids: Vec<String> = receiver
        .taken()
        .iter()
        .map(|got| got.event()["message_sid"].as_str().unwrap().to_owned())
        .collect();
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), 21, "each of them");
    assert_eq!(sidecar.metric("twilio_edge_sink_unavailable{sink=\"app\"}").await, 0.0);
    let log = sidecar.log();
    assert!(log.contains("a sink failed repeatedly") && !log.contains("hush"), "{log}");
}

async fn deliveries_of_a_number_are_in_order(world: World) {
    let receiver = Receiver::start().await;
    // Every third delivery attempt fails.
    let tries = std::sync::atomic::AtomicUsize::new(0);
    receiver.answers(move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 {
        2 => 404,
        _ => 200,
    });
    let file = sinks(&world, &[("app", &receiver, "longest_pause_ms = 100")]);
    let sidecar = start(&world, &file).await;
    for n in 0..30 {
        let batch = (0..4).map(|person| from(person, n)).collect();
        let verdicts = sidecar.claim_all(batch).await;
        assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
    }
    eventually("everything is delivered", async || receiver.taken().len() >= 120).await;
    let mut received: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for got in receiver.taken() {
        let event = got.event();
        let bodies = received.entry(event["from"].as_str().unwrap().to_owned()).or_default();
        bodies.push(event["body"].as_str().unwrap().parse().unwrap());
    }
    assert_eq!(received.len(), 4);
    for (number, bodies) in received {
        assert_eq!(bodies, (0..30).collect::<Vec<usize>>(), "{number}");
    }
}

async fn refused_delivery_becomes_a_dead_letter_and_delays_nothing(world: World) {
    let receiver = Receiver::start().await;
    receiver.answers(|body| if body.contains("SM1x1") { 422 } else { 200 });
    let file = sinks(&world, &[("app", &receiver, "")]);
    let sidecar = start(&world, &file).await;
    for n in 0..3 {
        assert_eq!(sidecar.decide(from(1, n)).await, Decision::Accepted);
    }
    eventually("the other deliveries arrive", async || receiver.taken().len() == 2).await;
    assert_eq!(receiver.got().len(), 3);
    eventually("the outcome of each delivery is stored", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    let dead = world
        .stored("SELECT delivery_id || ' ' || reason FROM deliveries WHERE state = 'dead'")
        .await;
    assert_eq!(dead, [format!("inbound:{}:SM1x1 422", crate::support::sidecar::ACCOUNT)]);
    assert_eq!(
        sidecar.metric("twilio_edge_deliveries_total{sink=\"app\",outcome=\"dead\"}").await,
        1.0
    );

    // The operator lists the dead letter, repairs the application, and retries the delivery.
    let output = command(&world, &["deliveries", "list", "--json"]);
    let dead_letters: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&dead_letters[0]["reason"], &dead_letters[0]["sink"]),
        (&"422".into(), &"app".into())
    );
    let id = dead_letters[0]["id"].to_string();
    let standing = command(&world, &["deliveries", "status", "-o", "tsv"]);
    assert!(standing.contains("app\tdead\t1\t"), "{standing}");
    receiver.answers(|_| 200);
    let retried = command(&world, &["deliveries", "retry", &id]);
    assert_eq!(retried, "1 of 1 dead letters were queued again\n");
    eventually("the retried delivery arrives", async || receiver.taken().len() == 3).await;
    let audit = world.stored("SELECT action || ' ' || detail FROM audit").await;
    assert_eq!(audit, [format!("delivery.retried {{\"ids\":[{id}]}}")]);
}

async fn every_sink_of_a_route_gets_it(world: World) {
    let (app, mut crm) = (Receiver::start().await, Receiver::start().await);
    let file = sinks(
        &world,
        &[
            ("app", &app, "routes = [\"/twilio/inbound\"]"),
            ("crm", &crm, "format = \"form\"\nlongest_pause_ms = 100"),
        ],
    );
    crm.leave();
    let sidecar = start(&world, &file).await;
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    assert_eq!(sidecar.decide(callback.clone()).await, Decision::Accepted);
    // A sink that is unavailable does not delay the other one.
    eventually("the available sink has its delivery", async || app.taken().len() == 1).await;
    crm.listen().await;
    eventually("the other sink has both deliveries", async || crm.taken().len() == 2).await;
    let mut bodies: Vec<String> = crm.taken().into_iter().map(|got| got.body).collect();
    bodies.sort();
    let mut forms = [from(1, 1).form, callback.form];
    forms.sort();
    assert_eq!(bodies, forms, "as Twilio sent them");
    assert_eq!(app.got().len(), 1, "only its own route");
    // A webhook of a route without a sink is forwarded.
    let other = Claim { route: "/twilio/other".into(), ..from(2, 1) };
    drop(sidecar);
    let file = sinks(&world, &[("app", &app, "routes = [\"/twilio/inbound\"]")]);
    let sidecar = start(&world, &file).await;
    assert_eq!(sidecar.decide(other.clone()).await, Decision::Proceed);
    eventually("the forwarded webhook is recorded", async || {
        world.stored("SELECT form FROM events WHERE message_sid = 'SM2x1'").await == [&*other.form]
    })
    .await;
}

async fn sink_gets_only_the_classes_that_it_lists(world: World) {
    let (messages, statuses) = (Receiver::start().await, Receiver::start().await);
    let both = [
        ("messages", &messages, "classes = [\"inbound\"]"),
        ("statuses", &statuses, "classes = [\"status\"]"),
    ];
    let sidecar = start(&world, &sinks(&world, &both)).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let delivered = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(delivered).await, Decision::Accepted);
    eventually("each sink has the webhook of its class", async || {
        messages.taken().len() == 1 && statuses.taken().len() == 1
    })
    .await;
    assert_eq!(messages.got()[0].event()["event_type"], "twilio_inbound");
    assert_eq!(statuses.got()[0].event()["event_type"], "twilio_status");
    // A killed sidecar would keep its lanes for a minute.
    sidecar.stop();

    // No sink takes statuses any more: they are forwarded.
    let sidecar = start(&world, &sinks(&world, &both[..1])).await;
    let read = accepted(status("s2", "SM9", "read"));
    assert_eq!(sidecar.decide(read).await, Decision::Proceed);
    assert_eq!(sidecar.decide(from(1, 2)).await, Decision::Accepted);
    eventually("the next message is delivered", async || messages.taken().len() == 2).await;
    assert_eq!((messages.got().len(), statuses.got().len()), (2, 1), "of its own class only");
}

async fn deliveries_are_shared_by_sidecars_and_survive_one_that_dies(world: World) {
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "concurrency = 4\nlongest_pause_ms = 100")]);
    let (one, other) = (start(&world, &file).await, start(&world, &file).await);
    for n in 0..40 {
        let sidecar = if n % 2 == 0 { &one } else { &other };
        for person in 0..5 {
            assert_eq!(sidecar.decide(from(person, n)).await, Decision::Accepted);
        }
        if n == 20 {
            receiver.answers(|_| 404);
        }
    }
    one.kill();
    receiver.answers(|_| 200);
    release_lanes_of_killed_sidecars(&world).await;
    let distinct = || {
        let bodies = receiver.taken().into_iter().map(|got| got.event()["message_sid"].to_string());
        bodies.collect::<BTreeSet<String>>().len()
    };
    eventually("everything is delivered", async || distinct() == 200).await;
    let mut received: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for got in receiver.taken() {
        let event = got.event();
        let bodies = received.entry(event["from"].as_str().unwrap().to_owned()).or_default();
        let n = event["body"].as_str().unwrap().parse().unwrap();
        // At least once: a delivery in flight at the kill may come again, but never before an earlier one.
        if !bodies.contains(&n) {
            bodies.push(n);
        }
    }
    for (number, bodies) in received {
        assert_eq!(bodies, (0..40).collect::<Vec<usize>>(), "{number}");
    }
}

/// While one sidecar records webhooks of two contacts, another sidecar records a webhook of one of these contacts.
async fn deliveries_keep_the_order_of_their_records(world: World) {
    let receiver = Receiver::start().await;
    receiver.answers(|body| if body.contains("+15550000001") { 503 } else { 200 });
    let file = sinks(&world, &[("app", &receiver, "longest_pause_ms = 100")]);
    let (slow, quick) = (start(&world, &file).await, start(&world, &file).await);
    assert_eq!(slow.decide(from(1, 0)).await, Decision::Accepted);
    let mut holder = sqlx::PgConnection::connect(&world.database_url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    held.execute("SELECT FROM lanes FOR UPDATE").await.unwrap();
    let recording = tokio::spawn(async move {
        let verdicts = slow.claim_all(vec![from(1, 1), from(2, 1)]).await;
        // Returned, so that it is not killed while it holds a lane.
        (slow, verdicts)
    });
    eventually("the slow sidecar waits for the first contact's lane", async || {
        let waiting = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database() AND query LIKE '%INSERT INTO lanes%'";
        !world.stored(waiting).await.is_empty()
    })
    .await;
    assert_eq!(quick.decide(from(2, 2)).await, Decision::Accepted);
    eventually("the recorded webhook is delivered", async || !receiver.taken().is_empty()).await;
    held.rollback().await.unwrap();
    let (_slow, verdicts) = recording.await.unwrap();
    assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
    eventually("the remaining webhook is delivered", async || receiver.taken().len() == 2).await;
    let came: Vec<String> =
        receiver.taken().iter().map(|got| got.header("webhook-id").to_owned()).collect();
    let recorded =
        "SELECT delivery_id FROM deliveries WHERE delivery_id LIKE '%SM2x%' ORDER BY seq";
    assert_eq!(world.stored(recorded).await, came);
}

async fn pending_delivery_outlives_its_retention_until_it_is_delivered(world: World) {
    let mut receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "longest_pause_ms = 100")]);
    receiver.leave();
    let sidecar = start(&world, &file).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    sidecar.stop();
    let old = 500_i64 * 86_400_000;
    let age = format!(
        "UPDATE events SET received_at_ms = received_at_ms - {old}, settled_at_ms = settled_at_ms - {old} \
         RETURNING dedupe_key"
    );
    assert_eq!(world.stored(&age).await.len(), 1);

    let keeping = [("TWILIO_EDGE_SINKS_FILE", &*file), ("TWILIO_EDGE_REDACTION_EVERY_S", "1")];
    let sidecar = world.sidecar_with(&keeping).await;
    eventually("the retention job has run", async || {
        sidecar.metric("twilio_edge_retention_last_run_timestamp_seconds").await > 0.0
    })
    .await;
    let whole = world.stored("SELECT form FROM events WHERE redacted IS NULL").await;
    assert_eq!(whole, [from(1, 1).form], "a pending webhook stays complete");
    receiver.listen().await;
    eventually("it is delivered", async || !receiver.taken().is_empty()).await;
    assert_eq!(receiver.taken()[0].event()["body"], "1");
    eventually("the webhook is deleted", async || {
        world.stored("SELECT dedupe_key FROM events").await.is_empty()
    })
    .await;
    assert_eq!(world.stored("SELECT state || lane FROM deliveries").await, ["done"]);
}

async fn redacted_webhook_is_not_delivered(world: World) {
    let mut receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "longest_pause_ms = 100")]);
    receiver.leave();
    let sidecar = start(&world, &file).await;
    for person in [1, 2] {
        assert_eq!(sidecar.decide(from(person, 1)).await, Decision::Accepted);
    }
    let account = crate::support::sidecar::ACCOUNT;
    let erase = ["redact", "--account", account, "--number", "+15550000001"];
    command(&world, &erase);
    let state = "SELECT state || ' ' || coalesce(reason, '') || lane FROM deliveries \
                 WHERE dedupe_key LIKE '%SM1x1'";
    assert_eq!(world.stored(state).await, ["discarded redacted"]);
    receiver.listen().await;
    eventually("no delivery is pending", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    let sids: Vec<Value> =
        receiver.taken().iter().map(|got| got.event()["message_sid"].clone()).collect();
    assert_eq!(sids, ["SM2x1"]);
}

async fn unwritable_webhook_is_forwarded(world: World) {
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "")]);
    let settings =
        [("TWILIO_EDGE_SINKS_FILE", &*file), ("TWILIO_EDGE_RETENTION_BODY_KEEP", "none")];
    let sidecar = world.sidecar_with(&settings).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Proceed);
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted, "it has no body");
}

async fn event_has_the_facts_of_its_arrival(world: World) {
    let receiver = Receiver::start().await;
    let file = sinks(&world, &[("app", &receiver, "")]);
    let sidecar = start(&world, &file).await;
    let mut tapped = from(1, 1);
    tapped.form.push_str("&ButtonText=Yes&ButtonPayload=yes-1");
    let stop = accepted(inbound("c2", "SM1x2", "whatsapp:+15550000001", "STOP"));
    for claim in [tapped, stop] {
        assert_eq!(sidecar.decide(claim).await, Decision::Accepted);
    }
    eventually("both are delivered", async || receiver.taken().len() == 2).await;
    let [first, second] = &receiver.taken()[..] else { panic!() };
    let (first, second) = (first.event(), second.event());
    assert_eq!(first["button"], serde_json::json!({"text": "Yes", "payload": "yes-1"}));
    assert_eq!((&first["suppressed"], first.get("opt")), (&Value::Bool(false), None));
    assert!(first["window_expires"].as_str().is_some_and(|at| at.ends_with('Z')), "{first}");
    assert_eq!((&second["suppressed"], &second["opt"]), (&Value::Bool(true), &"stop".into()));
}
