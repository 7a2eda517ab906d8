//! Outages of the stores during operation: by `kill -9`, by hanging, and by loss of all data.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use twilio_edge_contract::{Decision, Outcome, SettlementResult};

use crate::{
    inbound::concurrent_claims::{Backend, one_request},
    support::servers::{Postgres, Redis, eventually},
    support::sidecar::{Sidecar, inbound, message, settlement, unclaimed},
    support::world::{Kind, World, private_files},
};

const ALICE: &str = "whatsapp:+15551230001";
const FELL_THROUGH: &str = "twilio_edge_store_fallthroughs_total{store=\"redis\"}";

/// As shipped: the sidecar gives up on its database before the filter gives up on the sidecar.
const IMPATIENT: (&str, &str) = ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "400");

/// Far below any time limit that is not ours (Redis clients wait for many seconds), far above a busy machine's whims.
const SOON: Duration = Duration::from_secs(2);

/// PostgreSQL after a crash: it listens, but refuses clients until it has recovered.
#[tokio::test]
async fn sidecar_waits_for_a_database_that_recovers() {
    let world = World::new(Kind::Postgres).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let (_, place) = world.database_url.split_once('@').unwrap();
    let there = place.split('/').next().unwrap().to_owned();
    let url = world.database_url.replace(&there, &here);
    let refused = Arc::new(Mutex::new(0));
    let counted = refused.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let recovering = {
                let mut refused = counted.lock().unwrap();
                *refused += 1;
                *refused <= 3
            };
            if !recovering {
                let mut server = TcpStream::connect(&there).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
                continue;
            }
            // The request for TLS has eight bytes; a start without TLS has more.
            let mut said = [0; 8];
            client.read_exact(&mut said).await.unwrap();
            if said == [0, 0, 0, 8, 4, 210, 22, 47] {
                client.write_all(b"N").await.unwrap();
                client.read_exact(&mut said).await.unwrap();
            }
            let fields = "SFATAL\0VFATAL\0C57P03\0Mnoch nicht\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let refusal = [b"E", &length[..], fields.as_bytes()].concat();
            client.write_all(&refusal).await.unwrap();
        }
    });
    let sidecar = world.sidecar_with(&[("DATABASE_URL", &url)]).await;
    assert!(*refused.lock().unwrap() > 3);
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
}

#[tokio::test]
async fn redis_killed_and_back_in_the_middle_of_a_storm_hands_nothing_out_twice() {
    for kind in [Kind::RedisSqlite, Kind::RedisPostgres] {
        let mut world = World::new(kind).await;
        world.own_redis().await;
        let sidecar =
            Arc::new(world.sidecar_with(&[("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "50")]).await);
        let backend = Arc::new(Mutex::new(Backend::default()));
        let mut requests = Vec::new();
        for wave in 0..5 {
            match wave {
                1 | 3 => world.redis.as_mut().unwrap().kill(),
                2 | 4 => world.redis.as_mut().unwrap().start_again().await,
                _ => {}
            }
            for i in 0..100 {
                let (sidecar, backend) = (sidecar.clone(), backend.clone());
                requests.push(tokio::spawn(async move {
                    one_request(&sidecar, &backend, i % 20, wave * 100 + i).await;
                }));
            }
        }
        for request in requests {
            request.await.unwrap();
        }
        let backend = Arc::into_inner(backend).unwrap().into_inner().unwrap();
        assert_eq!(backend.together, 0, "a webhook was with the backend twice at once");
        assert_eq!(backend.accepted, (0..20).map(|key| (key, 1)).collect(), "accepted once each");
        assert!(sidecar.metric(FELL_THROUGH).await >= 1.0);
        assert_eq!(unavailable(&sidecar).await, 0.0);
    }
}

#[tokio::test]
async fn redis_is_used_again_as_soon_as_it_is_back() {
    let mut world = World::new(Kind::RedisSqlite).await;
    world.own_redis().await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "50")]).await;
    world.redis.as_mut().unwrap().kill();
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    assert_eq!(sidecar.get("/readyz").await, (200, readiness("unavailable")));

    world.redis.as_mut().unwrap().start_again().await;
    let redis = world.redis.as_ref().unwrap();
    eventually("redis knows leases again", || async {
        sidecar.claim(message("c2", "SM2")).await;
        redis.ask("DBSIZE").await.is_some_and(|size| size != redis::Value::Int(0))
    })
    .await;
    assert_eq!(sidecar.get("/readyz").await, (200, readiness("ok")));
    assert_eq!(sidecar.decide(message("c3", "SM1")).await, Decision::InFlight);
}

#[tokio::test]
async fn emptied_redis_forgets_nothing() {
    let world = World::new(Kind::RedisPostgres).await;
    let sidecar = world.sidecar().await;
    let (held, freed, done) = (message("c1", "SM1"), message("c2", "SM2"), message("c3", "SM3"));
    sidecar.claim_all(vec![held.clone(), freed.clone(), done.clone()]).await;
    sidecar.release(&freed).await;
    sidecar.commit(&done).await;
    // In flight at the moment of the loss, it might be handed out once more; who has what is written soon after.
    let written =
        "SELECT message_sid || ' ' || coalesce(outcome, 'held by ' || claim_id) FROM events
        ORDER BY message_sid";
    eventually("it is written who has what", || async {
        world.stored(written).await == ["SM1 held by c1", "SM2 refused", "SM3 accepted"]
    })
    .await;
    for round in 0..2 {
        world.redis.as_ref().unwrap().ask("FLUSHDB").await.unwrap();
        // The second question finds what the first one left in Redis.
        for again in 0..2 {
            let id = |n: u32| format!("d{n}-{round}-{again}");
            let batch = vec![message(&id(1), "SM1"), message(&id(3), "SM3")];
            let verdicts = sidecar.claim_all(batch).await;
            let decisions: Vec<_> = verdicts.iter().map(|verdict| verdict.decision).collect();
            assert_eq!(decisions, [Decision::InFlight, Decision::Duplicate]);
        }
    }
    let verdict = sidecar.claim(message("e2", "SM2")).await;
    assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(2)));
    assert_eq!(sidecar.release(&held).await, SettlementResult::Settled);
    assert_eq!(sidecar.decide(message("e1", "SM1")).await, Decision::Proceed);
}

#[tokio::test]
async fn redis_that_hangs_costs_one_short_wait() {
    let mut world = World::new(Kind::RedisSqlite).await;
    world.own_redis().await;
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_REDIS_TIMEOUT_MS", "150")]).await;
    sidecar.claim(message("c0", "SM0")).await;
    world.redis.as_ref().unwrap().signal("STOP");
    for i in 1..20 {
        let asked = Instant::now();
        let decision = sidecar.decide(message(&format!("c{i}"), &format!("SM{i}"))).await;
        assert_eq!(decision, Decision::Proceed);
        assert!(asked.elapsed() < SOON, "claim {i} took {:?}", asked.elapsed());
    }
    assert_eq!(sidecar.commit(&message("c1", "SM1")).await, SettlementResult::Settled);
    world.redis.as_ref().unwrap().signal("CONT");
    assert_eq!(sidecar.decide(message("d1", "SM1")).await, Decision::Duplicate);
    eventually("redis is used again", || async {
        let before = sidecar.metric(FELL_THROUGH).await;
        sidecar.claim(message("d2", "SM1")).await;
        sidecar.metric(FELL_THROUGH).await == before
    })
    .await;
}

#[tokio::test]
async fn slow_redis_is_used_while_it_answers_in_time() {
    let mut world = World::new(Kind::RedisSqlite).await;
    world.own_redis().await;
    let network = world.redis.as_ref().unwrap().behind_a_slow_network().await;
    let url = format!("redis://127.0.0.1:{}", network.port);
    let settings = [
        ("REDIS_URL", url.as_str()),
        ("TWILIO_EDGE_REDIS_TIMEOUT_MS", "500"),
        ("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "300"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    sidecar.claim(message("c0", "SM0")).await;
    let fell_through = sidecar.metric(FELL_THROUGH).await;
    network.set_delay_ms(5);
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    assert_eq!(sidecar.metric(FELL_THROUGH).await, fell_through, "slow, but in time");

    network.set_delay_ms(3000);
    for i in 2..10 {
        let asked = Instant::now();
        let claim = message(&format!("c{i}"), &format!("SM{i}"));
        assert_eq!(sidecar.decide(claim).await, Decision::Proceed);
        assert!(asked.elapsed() < SOON, "claim {i} took {:?}", asked.elapsed());
    }
    assert_eq!(sidecar.decide(message("d1", "SM1")).await, Decision::InFlight);
    assert!(sidecar.metric(FELL_THROUGH).await > fell_through);

    network.set_delay_ms(0);
    eventually("redis is used again", || async {
        let before = sidecar.metric(FELL_THROUGH).await;
        sidecar.claim(message("d2", "SM1")).await;
        sidecar.metric(FELL_THROUGH).await == before
    })
    .await;
    assert_eq!(sidecar.decide(message("d3", "SM5")).await, Decision::InFlight);
}

/// Every command and script stays within a slot: a cluster's node refuses nothing.
#[tokio::test]
async fn redis_cluster_is_supported() {
    let mut world = World::new(Kind::Sqlite).await;
    world.redis = Some(Redis::start_cluster().await);
    let sidecar = world.sidecar().await;
    let batch = |name: &str| -> Vec<_> {
        (0..50).map(|i| message(&format!("{name}{i}"), &format!("SM{i}"))).collect()
    };
    let decided = async |claims: Vec<_>| -> Vec<Decision> {
        sidecar.claim_all(claims).await.into_iter().map(|verdict| verdict.decision).collect()
    };
    assert_eq!(decided(batch("a")).await, [Decision::Proceed; 50]);
    assert_eq!(decided(batch("b")).await, [Decision::InFlight; 50]);
    let ended = |outcome| batch("a").iter().map(|claim| settlement(claim, outcome)).collect();
    let settled = sidecar.settle_all(ended(Outcome::Release)).await;
    assert_eq!(settled, [SettlementResult::Settled; 50]);
    assert_eq!(decided(batch("c")).await, [Decision::Proceed; 50]);
    assert_eq!(sidecar.settle_all(ended(Outcome::Commit)).await, settled);
    assert_eq!(decided(batch("d")).await, [Decision::Duplicate; 50]);
    assert_eq!(sidecar.metric(FELL_THROUGH).await, 0.0, "all of it by Redis");
    let size = world.redis.as_ref().unwrap().ask("DBSIZE").await;
    assert_eq!(size, Some(redis::Value::Int(50)));
}

#[tokio::test]
async fn sidecar_starts_without_its_redis() {
    let mut world = World::new(Kind::RedisSqlite).await;
    world.own_redis().await;
    world.redis.as_mut().unwrap().kill();
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    assert_eq!(sidecar.commit(&message("c1", "SM1")).await, SettlementResult::Settled);
    assert_eq!(sidecar.decide(message("c2", "SM1")).await, Decision::Duplicate);
}

#[tokio::test]
async fn sidecar_without_its_database_reports_unavailable_in_time_and_recovers() {
    private_files();
    let mut postgres = Postgres::start().await;
    for redis in [None, Some(Redis::start().await)] {
        let directory = tempfile::TempDir::new().unwrap();
        let kind = if redis.is_some() { Kind::RedisPostgres } else { Kind::Postgres };
        let world = World { kind, directory, database_url: postgres.database().await, redis };
        let sidecar = world.sidecar_with(&[IMPATIENT]).await;
        sidecar.claim(message("c1", "SM1")).await;
        sidecar.claim(message("c2", "SM2")).await;
        sidecar.commit(&message("c2", "SM2")).await;

        postgres.signal("QUIT");
        eventually("the database is gone", || async { sidecar.get("/readyz").await.0 == 503 })
            .await;
        for claim in [message("c3", "SM3"), inbound("c4", "SM4", ALICE, "STOP")] {
            let asked = Instant::now();
            let verdict = sidecar.claim(claim.clone()).await;
            assert_eq!(verdict.decision, Decision::Unavailable);
            assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
            let settled = sidecar.settle(unclaimed(&claim, Outcome::Commit)).await;
            assert_eq!(settled, SettlementResult::Unavailable);
        }
        assert_eq!(sidecar.get("/healthz").await, (200, "ok\n".into()));

        postgres.start_again().await;
        eventually("the database is back", || async { sidecar.get("/readyz").await.0 == 200 })
            .await;
        // Nothing was taken or recorded meanwhile, and nothing of before is lost.
        assert_eq!(sidecar.decide(message("d1", "SM1")).await, Decision::InFlight);
        assert_eq!(sidecar.decide(message("d2", "SM2")).await, Decision::Duplicate);
        let verdict = sidecar.claim(message("d3", "SM3")).await;
        assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(1)));
        let verdict = sidecar.claim(inbound("d4", "SM4", ALICE, "STOP")).await;
        assert_eq!((verdict.decision, verdict.suppressed), (Decision::Proceed, true));
    }
}

/// A claim must not proceed if its STOP cannot be recorded. All other claims proceed.
#[tokio::test]
async fn stop_that_cannot_be_recorded_does_not_proceed() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar_with(&[IMPATIENT]).await;
    let mut other = sqlx::SqliteConnection::connect(&world.database_url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let asked = Instant::now();
    let stop = inbound("c1", "SM1", ALICE, "STOP");
    assert_eq!(sidecar.decide(stop.clone()).await, Decision::Unavailable);
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    other.execute("ROLLBACK").await.unwrap();
    let verdict = sidecar.claim(stop).await;
    assert_eq!((verdict.decision, verdict.suppressed), (Decision::Proceed, true));
}

#[tokio::test]
async fn full_queue_delays_claims_and_loses_nothing() {
    let world = World::new(Kind::Sqlite).await;
    let small = [("TWILIO_EDGE_EVENTS_QUEUE", "2"), ("TWILIO_EDGE_EVENTS_LINGER_MS", "20000")];
    let sidecar = world.sidecar_with(&small).await;
    for batch in 0..4 {
        let claims = (0..25).map(|i| message(&format!("c{batch}-{i}"), &format!("SM{batch}-{i}")));
        let verdicts = sidecar.claim_all(claims.collect()).await;
        assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Proceed));
    }
    sidecar.stop();
    assert_eq!(world.stored("SELECT message_sid FROM events").await.len(), 100);
}

async fn unavailable(sidecar: &Sidecar) -> f64 {
    sidecar.metric("twilio_edge_claims_total{decision=\"unavailable\",class=\"inbound\"}").await
}

fn readiness(redis: &str) -> String {
    format!(r#"{{"ready":true,"database":"ok","redis":"{redis}"}}"#)
}
