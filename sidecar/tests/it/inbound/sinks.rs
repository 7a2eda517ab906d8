//! Limits of the load on a sink: the number of concurrent deliveries, their duration, and the attempts while the sink is down.

use twilio_edge_contract::Decision;

use crate::{
    inbound::deliveries::{from, sinks, start},
    support::receiver::Receiver,
    support::servers::eventually,
    support::sidecar::Sidecar,
    support::world::{World, on_every_store},
};

on_every_store! {
    sink_gets_no_more_concurrent_deliveries_than_configured,
    slow_sink_is_retried_and_delays_no_other_sink,
    sink_that_is_down_is_probed_by_one_delivery,
}

const PEOPLE: usize = 12;

/// Accepts one message of each person.
async fn accept(sidecar: &Sidecar, n: usize) {
    let batch = (0..PEOPLE).map(|person| from(person, n)).collect();
    let verdicts = sidecar.claim_all(batch).await;
    assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
}

async fn is_unavailable(sidecar: &Sidecar) -> bool {
    sidecar.metric("twilio_edge_sink_unavailable{sink=\"app\"}").await == 1.0
}

async fn sink_gets_no_more_concurrent_deliveries_than_configured(world: World) {
    let app = Receiver::start().await;
    app.is_slow(true);
    let file = sinks(&world, &[("app", &app, "concurrency = 3\ntimeout_ms = 60000")]);
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 1).await;
    eventually("the limit of concurrent deliveries is reached", async || app.waiting() == 3).await;
    app.is_slow(false);
    eventually("all deliveries arrive", async || app.taken().len() == PEOPLE).await;
    assert_eq!(app.most_at_a_time(), 3);
}

async fn slow_sink_is_retried_and_delays_no_other_sink(world: World) {
    let (app, crm) = (Receiver::start().await, Receiver::start().await);
    app.is_slow(true);
    let slow = "timeout_ms = 100\nlongest_pause_ms = 100";
    let file = sinks(&world, &[("app", &app, slow), ("crm", &crm, "timeout_ms = 20000")]);
    let sidecar = start(&world, &file).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    eventually("the other sink receives the webhook", async || crm.taken().len() == 1).await;
    let reason = "SELECT reason FROM deliveries WHERE reason IS NOT NULL AND tries > 1";
    eventually("the delivery times out and is retried", async || {
        !world.stored(reason).await.is_empty()
    })
    .await;
    let said = world.stored(reason).await.concat();
    assert!(said.contains("time"), "{said}");
    assert!(app.got().is_empty() && app.most_at_a_time() <= 1, "in order, so one at a time");
    app.is_slow(false);
    eventually("the delivery arrives once the sink is fast", async || app.taken().len() == 1).await;
    assert_eq!(crm.got().len(), 1);
}

async fn sink_that_is_down_is_probed_by_one_delivery(world: World) {
    let app = Receiver::start().await;
    app.answers(|_| 503);
    let file = sinks(&world, &[("app", &app, "concurrency = 8\nlongest_pause_ms = 100")]);
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 1).await;
    eventually("the sink is unavailable", async || {
        is_unavailable(&sidecar).await && app.waiting() == 0
    })
    .await;
    let (before, _) = (app.got().len(), app.most_at_a_time());
    assert!(
        before <= 5 + 8,
        "{before} attempts for {PEOPLE} people before the circuit breaker opened"
    );
    eventually("single deliveries test the sink", async || app.got().len() >= before + 2).await;
    assert_eq!(app.most_at_a_time(), 1, "one at a time");
    assert!(is_unavailable(&sidecar).await);
    app.answers(|_| 200);
    eventually("all deliveries arrive once the sink is up", async || app.taken().len() == PEOPLE)
        .await;
    eventually("the sink is available again", async || !is_unavailable(&sidecar).await).await;
}
