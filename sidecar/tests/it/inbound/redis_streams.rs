//! Sink type `redis-stream`, tested on a real Redis, which one test kills.

use std::process::Command;

use serde_json::Value;
use twilio_edge_contract::Decision;

use crate::{
    inbound::deliveries::{accepted, from, start},
    support::servers::{Redis, eventually},
    support::sidecar::status,
    support::world::{Kind, World},
};

const INBOUND: &str = "twilio.inbound.v1";

fn sink(world: &World, redis: &Redis, more: &str) -> String {
    let path = world.directory.path().join("sinks.toml");
    let url = redis.url();
    let sink = format!(
        "[[sink]]\nname = \"live\"\ntype = \"redis-stream\"\nurl = \"{url}\"\n\
         timeout_ms = 2000\nlongest_pause_ms = 200\n{more}\n"
    );
    std::fs::write(&path, sink).unwrap();
    path.display().to_string()
}

/// Returns the entries of a stream, oldest first. An entry is a list of fields and values.
async fn entries(redis: &Redis, stream: &str) -> Vec<Vec<(String, String)>> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let found: Vec<(String, Vec<(String, String)>)> =
        redis::cmd("XRANGE").arg(&[stream, "-", "+"]).query_async(&mut connection).await.unwrap();
    found.into_iter().map(|(_, fields)| fields).collect()
}

async fn wait_for_empty_outbox(world: &World) {
    eventually("no lane has a pending delivery", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn accepted_webhooks_reach_their_stream_despite_an_outage_of_redis() {
    let world = World::new(Kind::Sqlite).await;
    let mut redis = Redis::start().await;
    let more = "streams = { status = \"st\" }\nevents = [\"window.opened\"]";
    let file = sink(&world, &redis, more);
    let sidecar = start(&world, &file).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    wait_for_empty_outbox(&world).await;
    let inbound = entries(&redis, INBOUND).await;
    let [fields] = inbound.as_slice() else { panic!("{inbound:?}") };
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["event", "key", "event_id", "delivery_id", "replay"]);
    let values: Vec<&str> = fields.iter().map(|(_, value)| value.as_str()).collect();
    let event: Value = serde_json::from_str(values[0]).unwrap();
    assert_eq!((&event["message_sid"], &event["body"]), (&"SM1x1".into(), &"1".into()));
    let id = event["event_id"].as_str().unwrap();
    assert_eq!(values[1..], ["+15550000001", id, id, "false"]);
    assert_eq!(entries(&redis, "st").await.len(), 1);
    let windows = entries(&redis, "twilio.events.v1").await;
    let [window] = windows.as_slice() else { panic!("{windows:?}") };
    assert_eq!(window[1], ("key".to_owned(), "+15550000001".to_owned()));
    assert!(window[0].1.contains("window.opened"), "{window:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    command.args(["sinks", "test", "live"]).env("TWILIO_EDGE_SINKS_FILE", &file);
    assert!(command.status().unwrap().success());
    let inbound = entries(&redis, INBOUND).await;
    assert_eq!(inbound[1].last(), Some(&("test".to_owned(), "true".to_owned())));

    redis.kill();
    for n in 2..12 {
        assert_eq!(sidecar.decide(from(1, n)).await, Decision::Accepted);
        assert_eq!(sidecar.decide(from(2, n)).await, Decision::Accepted);
    }
    let unavailable = "twilio_edge_sink_unavailable{sink=\"live\"}";
    eventually("the metric reports the sink as unavailable", async || {
        sidecar.metric(unavailable).await == 1.0
    })
    .await;
    redis.start_again().await;
    wait_for_empty_outbox(&world).await;
    let mut bodies: Vec<Vec<usize>> = vec![Vec::new(), Vec::new()];
    for fields in entries(&redis, INBOUND).await {
        let event: Value = serde_json::from_str(&fields[0].1).unwrap();
        let body = event["body"].as_str().unwrap().parse().unwrap();
        bodies[usize::from(fields[1].1.ends_with('2'))].push(body);
    }
    bodies.iter_mut().for_each(|sender| sender.dedup());
    assert_eq!(bodies, [(2..12).collect::<Vec<usize>>(), (2..12).collect()]);
}

#[tokio::test]
async fn stream_is_trimmed_to_its_limit_and_a_wrong_type_is_reported() {
    let world = World::new(Kind::Sqlite).await;
    let redis = Redis::start().await;
    let file =
        sink(&world, &redis, "max_length = 3\ntrim = \"exact\"\nstreams = { status = \"st\" }");
    assert!(redis.ask_all(&["SET", "st", "something else"]).await.is_some());
    let sidecar = start(&world, &file).await;
    for n in 0..8 {
        assert_eq!(sidecar.decide(from(1, n)).await, Decision::Accepted);
    }
    wait_for_empty_outbox(&world).await;
    let sids: Vec<Value> = entries(&redis, INBOUND)
        .await
        .iter()
        .map(|fields| serde_json::from_str::<Value>(&fields[0].1).unwrap()["body"].clone())
        .collect();
    assert_eq!(sids, ["5", "6", "7"], "the stream keeps the latest entries");

    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason IS NOT NULL";
    eventually("the delivery has failed once", async || !world.stored(reason).await.is_empty())
        .await;
    let failure = world.stored(reason).await.concat();
    assert!(
        failure.starts_with("the key st is not a stream: the operator of Redis has to rename"),
        "{failure}"
    );
    assert!(redis.ask_all(&["DEL", "st"]).await.is_some());
    wait_for_empty_outbox(&world).await;
    assert_eq!(entries(&redis, "st").await.len(), 1);
}
