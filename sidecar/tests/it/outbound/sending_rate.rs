//! Rate of a sender: one sidecar, or two that share a database, send many messages as fast as the sender may, and no faster. The
//! simulator limits the rate and measures times with its own clock. `make burst` sends 5,000 messages at 80 a second; `BURST`
//! sets the number.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    access::api_keys::administrator,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

const OURS: &str = "+14155238886";
const PER_SECOND: usize = 80;

/// Number of concurrent requests for messages.
const CLIENTS: usize = 8;

/// Number of messages, and whether the test measures their duration.
fn size() -> (usize, bool) {
    match std::env::var("BURST") {
        Ok(count) => (count.parse().unwrap(), true),
        Err(_) => (200, false),
    }
}

async fn ask(sidecar: &Sidecar, token: &str, n: usize) {
    let wanted = json!({"account_sid": ACCOUNT, "to": format!("+1415556{:04}", n % 9000), "from": OURS, "body": format!("m{n}")});
    let asked = sidecar.client.post(format!("{}/v1/messages", sidecar.base)).bearer_auth(token);
    let answer = asked.body(wanted.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

async fn as_fast_as_it_may(kind: Kind, sidecars: usize) {
    let (count, at_length) = size();
    let world = World::new(kind).await;
    let simulator = Simulator::start(&world, &["--mps", &PER_SECOND.to_string()]);
    let file = simulator.credentials(&world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "1000000"),
        ("TWILIO_EDGE_API_BURST", "1000000"),
    ];
    let mut all = Vec::new();
    for _ in 0..sidecars {
        all.push(world.sidecar_with(&settings).await);
    }
    let token = administrator(&all[0]).await.token.clone();
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let client = async || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            ask(&all[n % sidecars], &token, n).await;
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(|_| client())).await;
    let asked = begun.elapsed();
    let left = "SELECT id FROM outbound_messages WHERE state <> 'sent' LIMIT 1";
    let deadline =
        begun + Duration::from_secs(60) + Duration::from_millis(1000 / 80 * count as u64 * 2);
    while !world.stored(left).await.is_empty() {
        assert!(Instant::now() < deadline, "some are not sent");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let made = simulator.listed(ACCOUNT).await;
    let texts: BTreeSet<&str> = made.iter().map(|one| one["body"].as_str().unwrap()).collect();
    assert_eq!((made.len(), texts.len()), (count, count), "each once");
    let url = format!("{}/simulator/senders", simulator.base);
    let seen: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let seen = &seen["senders"][OURS];
    let number = |name: &str| seen[name].as_i64().unwrap();
    let took =
        Duration::from_millis(u64::try_from(number("last_ms") - number("first_ms")).unwrap());
    let theory = Duration::from_secs_f64(count as f64 / PER_SECOND as f64);
    println!(
        "{kind:?}, {sidecars} sidecars: {count} messages asked for in {asked:.1?}, made in {took:.1?} of {theory:.1?}, one waited {} ms",
        number("longest_wait_ms")
    );
    assert_eq!(number("messages"), i64::try_from(count).unwrap());
    // The token bucket holds the messages of one second. This is the largest possible excess at any time.
    assert!(number("longest_wait_ms") <= 1000, "faster than it may: {seen}");
    let second = Duration::from_secs(1);
    assert!(took + second >= theory, "{took:?} is less than {theory:?} and one bucket");
    if at_length {
        assert!(took <= theory.mul_f64(1.1), "{took:?} is more than {theory:?} and a tenth");
    }
    let answered = simulator.answered().await;
    let refused = answered["requests"].as_array().unwrap().iter().find(|one| one["status"] == 429);
    assert_eq!(refused, None, "a request got status 429");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sidecar_on_sqlite_sends_as_fast_as_it_may() {
    as_fast_as_it_may(Kind::Sqlite, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sidecars_with_redis_send_as_fast_as_one_may() {
    as_fast_as_it_may(Kind::RedisPostgres, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sidecars_without_redis_send_as_fast_as_one_may() {
    as_fast_as_it_may(Kind::Postgres, 2).await;
}

/// Redis is killed meanwhile. Both sidecars use the database then, and Redis again after its restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_of_redis_loses_nothing_and_keeps_the_rate() {
    let mut world = World::new(Kind::RedisPostgres).await;
    world.own_redis().await;
    let simulator = Simulator::start(&world, &["--mps", "20"]);
    let file = simulator.credentials(&world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_PER_SECOND", "20"),
        ("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "200"),
    ];
    let one = world.sidecar_with(&settings).await;
    let two = world.sidecar_with(&settings).await;
    let token = administrator(&one).await.token.clone();
    for n in 0..100 {
        ask(if n % 2 == 0 { &one } else { &two }, &token, n).await;
        if n == 40 {
            world.redis.as_mut().unwrap().kill();
        }
        if n == 80 {
            world.redis.as_mut().unwrap().start_again().await;
        }
    }
    eventually("all are sent", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world
            .stored("SELECT id FROM outbound_messages WHERE state <> 'sent' LIMIT 1")
            .await
            .is_empty()
    })
    .await;
    let made = simulator.listed(ACCOUNT).await;
    let texts: BTreeSet<&str> = made.iter().map(|one| one["body"].as_str().unwrap()).collect();
    assert_eq!((made.len(), texts.len()), (100, 100), "each once");
    let url = format!("{}/simulator/senders", simulator.base);
    let seen: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    // Each change of the store may bring a bucket's worth.
    assert!(seen["senders"][OURS]["longest_wait_ms"].as_i64() <= Some(3000), "{seen}");
}
