//! Two sidecars share one database, and one of them cannot reach Redis. Each webhook still has one winner.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use twilio_edge_contract::Decision;

use crate::{
    support::servers::{SlowNetwork, eventually},
    support::sidecar::{Sidecar, message},
    support::world::{Kind, World},
};

const FELL_THROUGH: &str = "twilio_edge_store_fallthroughs_total{store=\"redis\"}";

/// Shipped value: the tests depend on the time for which a sidecar treats a store as unavailable.
const IN_TIME: (&str, &str) = ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "1000");

/// The leases outlast the test, so that no repeated claim finds an expired lease.
const HELD: (&str, &str) = ("TWILIO_EDGE_LEASES_PERIOD_MS", "120000");

struct Pair {
    near: Arc<Sidecar>,
    far: Arc<Sidecar>,
    network: SlowNetwork,
    _world: World,
}

impl Pair {
    /// The near sidecar writes its grants late, long after a sidecar that only waits for them would have stopped waiting.
    async fn start() -> Pair {
        let mut world = World::new(Kind::RedisPostgres).await;
        world.own_redis().await;
        let network = world.redis.as_ref().unwrap().behind_a_slow_network().await;
        let late = ("TWILIO_EDGE_EVENTS_LINGER_MS", "20000");
        let near = Arc::new(world.sidecar_with(&[IN_TIME, HELD, late]).await);
        let url = format!("redis://127.0.0.1:{}", network.port);
        let short = ("TWILIO_EDGE_REDIS_TIMEOUT_MS", "100");
        let soon = ("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "50");
        let far = [("REDIS_URL", url.as_str()), IN_TIME, HELD, short, soon];
        let far = Arc::new(world.sidecar_with(&far).await);
        Pair { near, far, network, _world: world }
    }

    fn cut(&self) {
        self.network.set_delay_ms(60_000);
    }

    fn mend(&self) {
        self.network.set_delay_ms(0);
    }
}

/// Sidecars that granted a claim of each webhook.
type Winners = Arc<Mutex<HashMap<String, Vec<&'static str>>>>;

/// Claims `keys` at one sidecar, and records those that it grants. The caller repeats keys that another claim holds.
async fn ask(sidecar: Arc<Sidecar>, name: &'static str, keys: Vec<String>, winners: Winners) {
    let claims = keys.iter().map(|key| message(&format!("{name}-{key}"), key)).collect();
    let verdicts = sidecar.claim_all(claims).await;
    let mut winners = winners.lock().unwrap();
    for (key, verdict) in keys.into_iter().zip(verdicts) {
        if verdict.decision == Decision::Proceed {
            let won = winners.entry(key).or_default();
            if !won.contains(&name) {
                won.push(name);
            }
        }
    }
}

#[tokio::test]
async fn redis_unavailable_to_one_of_two_leaves_one_winner_for_each_webhook() {
    let pair = Pair::start().await;
    let winners = Winners::default();
    let keys = |wave: usize, batch: usize| -> Vec<String> {
        (0..10).map(|nth| format!("SM{wave}-{batch}-{nth}")).collect()
    };
    let mut requests = Vec::new();
    for wave in 0..6 {
        match wave {
            1 | 4 => pair.cut(),
            3 => pair.mend(),
            _ => {}
        }
        for batch in 0..20 {
            for (sidecar, name) in [(&pair.near, "near"), (&pair.far, "far")] {
                let asked = ask(sidecar.clone(), name, keys(wave, batch), winners.clone());
                requests.push(tokio::spawn(asked));
            }
        }
        // Only half of the requests of a wave are answered before the next wave begins.
        for request in requests.drain(..requests.len() / 2) {
            request.await.unwrap();
        }
    }
    for request in requests {
        request.await.unwrap();
    }
    assert!(pair.far.metric(FELL_THROUGH).await >= 1.0, "the far sidecar used the database");
    eventually("each webhook has a winner", || async {
        for (wave, batch) in (0..6).flat_map(|wave| (0..20).map(move |batch| (wave, batch))) {
            let keys = keys(wave, batch);
            let left: Vec<String> = {
                let winners = winners.lock().unwrap();
                keys.into_iter().filter(|key| !winners.contains_key(key)).collect()
            };
            if !left.is_empty() {
                ask(pair.near.clone(), "near", left.clone(), winners.clone()).await;
                ask(pair.far.clone(), "far", left, winners.clone()).await;
            }
        }
        winners.lock().unwrap().len() == 6 * 20 * 10
    })
    .await;
    let twice: Vec<_> = winners
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, won)| won.len() > 1)
        .map(|(k, _)| k.clone())
        .collect();
    assert_eq!(twice, [""; 0], "both sidecars granted these");
}

/// A claim that Redis granted stays granted, even if the database receives it late.
#[tokio::test]
async fn claim_granted_in_redis_is_not_granted_by_the_peer_without_redis() {
    let pair = Pair::start().await;
    assert_eq!(pair.near.decide(message("near", "SM1")).await, Decision::Proceed);
    pair.cut();
    let never = |decision| assert_eq!(decision, Decision::InFlight);
    never(pair.far.decide(message("far", "SM1")).await);
    eventually("the far sidecar decides without its peer", || async {
        pair.far.decide(message("far", "SM2")).await == Decision::Proceed
    })
    .await;
    never(pair.far.decide(message("far", "SM1")).await);
    never(pair.near.decide(message("near", "SM2")).await);
    // The near sidecar continues to decide, in the database.
    assert_eq!(pair.near.decide(message("near", "SM3")).await, Decision::Proceed);
    never(pair.far.decide(message("far", "SM3")).await);
}

#[tokio::test]
async fn dead_peer_is_waited_for_only_until_its_heartbeat_expires() {
    let pair = Pair::start().await;
    let Pair { near, far, network, _world } = pair;
    Arc::into_inner(near).unwrap().kill();
    network.set_delay_ms(60_000);
    let first = far.decide(message("far", "SM1")).await;
    assert_eq!(first, Decision::InFlight, "the dead peer may have granted the claim just before");
    eventually("the far sidecar no longer waits for the dead peer", || async {
        far.decide(message("far", "SM1")).await == Decision::Proceed
    })
    .await;
}
