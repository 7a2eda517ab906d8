//! Every message is delivered exactly once, however often a sidecar is killed, if Twilio reports the failure of its first delivery:
//! the sidecar sends such a message again. The simulator reports the failures in status callbacks, and the test hands each one
//! on to the sidecar that runs, as the filter does, until one answers. Copies of earlier callbacks follow at any time, as from Twilio.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use twilio_edge_contract::{EXCHANGE_PATH, PROTOCOL_VERSION};

use super::{Chance, LATENCY_MS, OURS, in_the_end, seed, size};
use crate::{
    access::api_keys::administrator,
    support::receiver::Receiver,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN},
    support::simulator::Simulator,
    support::world::{Kind, World},
};

/// The simulator reports 30022 for the first delivery of each text to this number.
const FAILS_ONCE: &str = "+14155559016";

/// Returns whether the first delivery of message `n` fails.
fn fails_once(n: u64) -> bool {
    n % 3 != 2
}

/// Recipient of message `n`. For some numbers the simulator creates the message, but answers 500 or not at all.
fn recipient(n: u64) -> String {
    match n {
        n if fails_once(n) => FAILS_ONCE.to_owned(),
        n if n % 20 == 8 => "+14155559005".to_owned(),
        n if n % 20 == 14 => "+14155559006".to_owned(),
        n => format!("+1415555{:04}", n % 9000),
    }
}

async fn started(world: &World, simulator: &Simulator, callback: &str) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2"),
        ("TWILIO_EDGE_SENDING_REPEAT_AFTER_S", "1"),
        ("TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL", callback),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "5000"),
        ("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", "6000"),
    ];
    world.sidecar_with(&settings).await
}

/// The filter of this test: hands each received status callback on to the sidecar that runs now, until one answers.
struct Relay {
    base: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Relay {
    fn start(receiver: Arc<Receiver>, base: &str) -> Relay {
        let base = Arc::new(Mutex::new(base.to_owned()));
        let current = base.clone();
        let task = tokio::spawn(async move {
            let client =
                reqwest::Client::builder().timeout(Duration::from_secs(6)).build().unwrap();
            let (mut relayed, mut copies) = (0, 0_usize);
            loop {
                let received = receiver.taken();
                // One copy of an earlier callback in each round, each of them in turn.
                let copy = (relayed > 0).then(|| received.get(copies % relayed)).flatten();
                copies += 1;
                let new = received.iter().skip(relayed);
                for (callback, is_copy) in
                    copy.map(|copy| (copy, true)).into_iter().chain(new.map(|new| (new, false)))
                {
                    let claim_id = match is_copy {
                        true => format!("copy {copies}"),
                        false => format!("relayed {relayed}"),
                    };
                    let claim = callback.status_claim(&claim_id);
                    let exchange =
                        json!({"v": PROTOCOL_VERSION, "claims": [claim], "settlements": []});
                    let url = format!("{}{EXCHANGE_PATH}", current.lock().unwrap());
                    let answer = client.post(url).bearer_auth(TOKEN).json(&exchange).send().await;
                    let reply = match answer {
                        Ok(answer) => answer.json::<Value>().await.unwrap_or_default(),
                        Err(_) => Value::Null,
                    };
                    let decision = reply["verdicts"][0]["decision"].as_str();
                    // Without an answer the same callback comes again, as from Twilio.
                    if decision.is_none_or(|decision| decision == "unavailable") {
                        break;
                    }
                    relayed += usize::from(!is_copy);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Relay { base, task }
    }

    fn use_sidecar(&self, sidecar: &Sidecar) {
        sidecar.base.clone_into(&mut self.base.lock().unwrap());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Requests message `n` until the sidecar has accepted it or is gone. Returns whether it has accepted it.
async fn ask(sidecar: &Sidecar, token: &str, n: u64) -> bool {
    let wanted =
        json!({"account_sid": ACCOUNT, "to": recipient(n), "from": OURS, "body": format!("m{n}")});
    let request = sidecar.client.post(format!("{}/v1/messages", sidecar.base)).bearer_auth(token);
    let request = request.header("idempotency-key", format!("key-{n}"));
    let answer = request.body(wanted.to_string()).send().await;
    answer.is_ok_and(|answer| answer.status() == 202)
}

/// Waits until a message has been asked for, however often its key is held for a sidecar that died.
async fn accepted(sidecar: &Sidecar, token: &str, n: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ask(sidecar, token, n).await {
        assert!(Instant::now() < deadline, "m{n} was not accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn under_kills(kind: Kind) {
    let (sends, kills, _) = size();
    let seed = seed();
    println!("{kind:?}: {sends} messages, {kills} kills, NEVER_TWICE_SEED={seed}");
    let mut chance = Chance(seed);
    let world = World::new(kind).await;
    let latency = LATENCY_MS.to_string();
    let simulator = Simulator::start(&world, &["--mps", "1000", "--latency-ms", &latency]);
    let receiver = Arc::new(Receiver::start().await);
    let callback = receiver.url();
    let mut sidecar = started(&world, &simulator, &callback).await;
    let token = administrator(&sidecar).await.token.clone();
    let relay = Relay::start(receiver, &sidecar.base);
    let (mut next, mut hits) = (0, BTreeMap::new());
    for kill in 0..kills {
        let last = sends * (kill + 1) / (kills + 1);
        while next < last {
            accepted(&sidecar, &token, next).await;
            next += 1;
        }
        // Long enough for a failure to arrive, and for its repetition to wait, to begin and to end.
        tokio::time::sleep(Duration::from_millis(chance.below(1800))).await;
        sidecar.kill();
        for (what, condition) in [
            ("a repetition waited", "state = 'queued' AND repetitions > 0"),
            ("a repetition was on its way", "state = 'attempting' AND repetitions > 0"),
            ("a first attempt was on its way", "state = 'attempting' AND repetitions = 0"),
            ("a failure had not arrived", "state = 'sent' AND status = ''"),
        ] {
            let query = format!("SELECT id FROM outbound_messages WHERE {condition}");
            *hits.entry(what).or_insert(0) += u64::from(!world.stored(&query).await.is_empty());
        }
        // Ends the holds of interrupted attempts.
        let end_holds = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state = 'attempting' RETURNING id";
        world.stored(end_holds).await;
        sidecar = started(&world, &simulator, &callback).await;
        relay.use_sidecar(&sidecar);
    }
    println!("{kind:?}: of {kills} kills: {hits:?}");
    assert!(hits["a repetition waited"] > 0, "{hits:?}");
    for n in next..sends {
        accepted(&sidecar, &token, n).await;
    }
    let left = "SELECT id || ' ' || state || ' ' || status FROM outbound_messages WHERE state <> 'sent' OR status <> 'delivered'";
    in_the_end("all are delivered", &world, left).await;

    // Deliveries of each text, and its failed deliveries.
    let listed = simulator.listed(ACCOUNT).await;
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in &listed {
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        ends.entry(text("body")).or_default().push(text("status"));
    }
    assert_eq!(ends.len() as u64, sends);
    for n in 0..sends {
        let expected: &[&str] =
            if fails_once(n) { &["failed", "delivered"] } else { &["delivered"] };
        assert_eq!(
            ends[&format!("m{n}")],
            expected,
            "m{n}: once, and again once after its failure"
        );
    }
    let sids: BTreeSet<String> =
        listed.iter().map(|message| message["sid"].as_str().unwrap().to_owned()).collect();
    let known =
        "SELECT message_sid FROM outbound_messages UNION ALL SELECT message_sid FROM replaced_sids";
    let known: BTreeSet<String> = world.stored(known).await.into_iter().collect();
    assert_eq!(known, sids, "each is known by Twilio's name");
    let repeated = (0..sends).filter(|n| fails_once(*n)).count();
    let rows = world.stored("SELECT id FROM outbound_messages WHERE repetitions = 1").await;
    assert_eq!(rows.len(), repeated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_that_is_killed_repeats_each_failure_once_on_sqlite() {
    under_kills(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_that_is_killed_repeats_each_failure_once_on_redis_and_postgres() {
    under_kills(Kind::RedisPostgres).await;
}
