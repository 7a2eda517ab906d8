//! Every accepted message is created at Twilio exactly once, however often a sidecar is killed while it sends; `repetitions.rs` has
//! the messages whose first delivery fails. The simulator
//! stands for Twilio, as a separate process that the test never kills. `make never-twice` runs the long test;
//! `NEVER_TWICE` sets its length and `NEVER_TWICE_SEED` its seed.

mod repetitions;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    access::api_keys::{Caller, administrator},
    inbound::deliveries::command,
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, status},
    support::simulator::{SECRET, Simulator},
    support::world::{Kind, World},
};

const OURS: &str = "+14155238886";

/// Duration of a call of Twilio: long enough for kills before, while and after it creates a message.
const LATENCY_MS: u32 = 80;

/// A small generator: what it decides can be had again, if not the moments of the kernel.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % limit
    }
}

/// Number of messages, and number of kills.
fn size() -> (u64, u64, bool) {
    let words = std::env::var("NEVER_TWICE").unwrap_or_default();
    let mut numbers = words.split_whitespace().map(|word| word.parse::<u64>().unwrap());
    match (numbers.next(), numbers.next()) {
        (Some(sends), Some(kills)) => (sends, kills, true),
        _ => (60, 12, false),
    }
}

fn seed() -> u64 {
    match std::env::var("NEVER_TWICE_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => getrandom::u64().unwrap(),
    }
}

async fn started(world: &World, simulator: &Simulator) -> Sidecar {
    let file = simulator.credentials(world);
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.as_str()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &simulator.base),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
        ("TWILIO_EDGE_SENDING_ABSENT_AFTER_S", "2"),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "5000"),
        ("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", "6000"),
    ];
    world.sidecar_with(&settings).await
}

/// Recipient of message `n`. For some numbers the simulator creates the message, but answers 500 or not at all.
fn recipient(n: u64) -> String {
    let last = match n % 20 {
        7 => 9005,
        13 => 9006,
        _ => n % 9000,
    };
    format!("+1415555{last:04}")
}

/// Sends the request as a client does, with the same idempotency key until a response arrives. Returns the message id, or
/// `None` once the sidecar is gone.
async fn ask(sidecar: &Sidecar, token: &str, n: u64) -> Option<String> {
    let wanted =
        json!({"account_sid": ACCOUNT, "to": recipient(n), "from": OURS, "body": format!("m{n}")});
    let request = sidecar
        .client
        .post(format!("{}/v1/messages", sidecar.base))
        .bearer_auth(token)
        .header("idempotency-key", format!("key-{n}"));
    let answer = request.body(wanted.to_string()).send().await.ok()?;
    if answer.status().as_u16() != 202 {
        return None;
    }
    let taken: Value = answer.json().await.ok()?;
    Some(taken["id"].as_str().unwrap().to_owned())
}

/// Waits longer than usual: holds have to end, and silence has to count.
async fn in_the_end(what: &str, world: &World, query: &str) {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let left = world.stored(query).await;
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "never happened: {what}; left: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn under_kills(kind: Kind) {
    let (sends, kills, at_length) = size();
    let seed = seed();
    println!("{kind:?}: {sends} messages, {kills} kills, NEVER_TWICE_SEED={seed}");
    let mut chance = Chance(seed);
    let world = World::new(kind).await;
    let latency = LATENCY_MS.to_string();
    let simulator = Simulator::start(&world, &["--mps", "1000", "--latency-ms", &latency]);
    let mut sidecar = started(&world, &simulator).await;
    let token = administrator(&sidecar).await.token.clone();
    let mut ids = BTreeMap::new();
    let (mut in_flight, mut cut_off) = (0, 0);
    for kill in 0..kills {
        let last = sends * (kill + 1) / (kills + 1);
        let begun_ms = jiff::Timestamp::now().as_millisecond();
        // Some are killed while they take messages on, the others while they send them. A key whose sidecar died is held for
        // a while: it is asked for again later.
        let mut left = chance.below(sends / (kills + 1) + 2);
        let open: Vec<u64> = (0..last).filter(|n| !ids.contains_key(n)).collect();
        let mut open = open.into_iter();
        while left > 0
            && let Some(n) = open.next()
        {
            if let Some(id) = ask(&sidecar, &token, n).await {
                ids.insert(n, id);
                left -= 1;
            }
        }
        let next = open.next().unwrap_or(last);
        let pause = Duration::from_micros(chance.below(u64::from(LATENCY_MS) * 1500));
        let asking = async {
            let answer = ask(&sidecar, &token, next).await;
            std::future::pending::<()>().await;
            answer
        };
        let _ = tokio::time::timeout(pause, asking).await;
        sidecar.kill();
        let cut = format!(
            "SELECT id FROM outbound_messages WHERE state = 'attempting' AND attempted_at_ms >= {begun_ms}"
        );
        let cut = world.stored(&cut).await.len() as u64;
        in_flight += u64::from(cut > 0);
        cut_off += cut;
        sidecar = started(&world, &simulator).await;
    }
    println!(
        "{kind:?}: {in_flight} of {kills} kills while an attempt was in flight, {cut_off} attempts cut off"
    );
    assert!(in_flight * 3 >= kills, "too few kills hit anything: {in_flight} of {kills}");
    // A key whose sidecar died is held until its request could have been answered.
    for n in 0..sends {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ids.contains_key(&n) {
            match ask(&sidecar, &token, n).await {
                Some(id) => ids.insert(n, id),
                None => {
                    assert!(Instant::now() < deadline, "m{n} was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
        }
    }
    let lost = "SELECT id FROM outbound_messages WHERE state = 'attempting' OR state = 'unknown'";
    let lost = world.stored(lost).await.len();
    if !at_length {
        // As if the holds of those that died were over; this one's are all over when nothing is queued and its calls have ended.
        in_the_end(
            "all were tried",
            &world,
            "SELECT id FROM outbound_messages WHERE state = 'queued'",
        )
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let age = "UPDATE outbound_messages SET due_at_ms = attempted_at_ms + 1000 WHERE state = 'attempting' OR state = 'unknown' RETURNING id";
        world.stored(age).await;
    }
    in_the_end("all are sent", &world, "SELECT id FROM outbound_messages WHERE state <> 'sent'")
        .await;

    let made = simulator.made().await;
    let texts: BTreeSet<&String> = made.values().collect();
    let again = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"absent\"}").await;
    let found = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"found\"}").await;
    println!(
        "{kind:?}: {} messages at Twilio, {} different; {lost} were lost at the last kill; found {found}, sent again {again}",
        made.len(),
        texts.len()
    );
    let sends = usize::try_from(sends).unwrap();
    assert_eq!((made.len(), texts.len()), (sends, sends), "each once");
    let known: BTreeSet<String> =
        world.stored("SELECT message_sid FROM outbound_messages").await.into_iter().collect();
    assert_eq!(known, made.into_keys().collect(), "and each is known by Twilio's name");
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), sends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_that_is_killed_sends_each_once_on_sqlite() {
    under_kills(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_that_is_killed_sends_each_once_on_redis_and_postgres() {
    under_kills(Kind::RedisPostgres).await;
}

/// Twilio created the message, but its response was lost. A status callback with our id in its URL reports the message before
/// the reconciler looks for it.
#[tokio::test]
async fn status_settles_an_unknown_attempt() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--mps", "1000"]);
    let file = world.directory.path().join("sending.toml");
    let account = format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_token = \"{SECRET}\"\n");
    std::fs::write(&file, account).unwrap();
    let nowhere = format!("http://127.0.0.1:{}", crate::support::servers::free_port());
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = [
        ("TWILIO_EDGE_SENDING_FILE", file.to_str().unwrap()),
        ("TWILIO_EDGE_SENDING_BASE_URL", &format!("http://{}", silent.local_addr().unwrap())),
        ("TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL", &format!("{nowhere}/status#rc=3")),
        ("TWILIO_EDGE_SENDING_TEMPLATES_EVERY_S", "0"),
        ("TWILIO_EDGE_SENDING_TIMEOUT_MS", "1000"),
    ];
    let sidecar = world.sidecar_with(&settings).await;
    let root = administrator(&sidecar).await;
    let id = ask(&sidecar, &root.token, 1).await.unwrap();
    // The test reads the sidecar's request and never answers it.
    let (mut line, _) = silent.accept().await.unwrap();
    let mut asked = String::new();
    while !asked.contains("twilio_edge_message") {
        use tokio::io::AsyncReadExt;
        let mut bytes = [0; 4096];
        let read = line.read(&mut bytes).await.unwrap();
        assert!(read > 0, "no such parameter: {asked}");
        asked.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(asked.contains(&format!("twilio_edge_message%3D{id}%23rc%3D3")), "{asked}");
    let app = Caller::app(&sidecar, &root.token);
    let place = format!("/v1/messages/{id}?account_sid={ACCOUNT}");
    eventually("the outcome is unknown", async || app.get(&place).await["state"] == "unknown")
        .await;
    let sid = format!("SM{:032x}", 7);
    let mut callback = status("c1", &sid, "sent");
    // A callback of another account with the same id changes nothing.
    callback.message_id = Some(id.clone());
    let mut foreign = crate::api::message_lists::of_other(callback.clone());
    foreign.claim_id = "c0".into();
    sidecar.claim(foreign).await;
    assert_eq!(app.get(&place).await["state"], "unknown");
    sidecar.claim(callback).await;
    let shown = app.get(&place).await;
    assert_eq!((&shown["state"], &shown["sid"]), (&json!("sent"), &json!(sid)));
    let reconciled = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"callback\"}").await;
    assert_eq!(reconciled, 1.0);
    let mut delivered = status("c2", &sid, "delivered");
    delivered.message_id = Some(id.clone());
    sidecar.claim(delivered).await;
    assert_eq!(world.stored("SELECT form FROM outbound_messages").await, [""]);
    assert!(simulator.made().await.is_empty(), "the simulator created no message");
}

/// A recipient who has opted out is known after one refusal by Twilio.
#[tokio::test]
async fn refusal_suppresses_its_recipient() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--mps", "1000"]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let wanted = json!({"account_sid": ACCOUNT, "to": "+14155559003", "from": OURS, "body": "hi"});
    let taken: Value = app
        .send(reqwest::Method::POST, "/v1/messages", wanted.to_string())
        .await
        .json()
        .await
        .unwrap();
    let place = format!("/v1/messages/{}?account_sid={ACCOUNT}", taken["id"].as_str().unwrap());
    eventually("it is refused", async || app.get(&place).await["error"]["code"] == "21610").await;
    let shown = app.get(&place).await;
    assert!(shown["attempts"]["twilio_request_id"].as_str().unwrap().starts_with("RQ"), "{shown}");
    let refusal = app.refusal(reqwest::Method::POST, "/v1/messages", &wanted).await;
    assert_eq!(refusal, crate::access::api_keys::coded(409, "suppressed"));
}

/// Cancels or deletes messages that wait; neither kind is sent.
#[tokio::test]
async fn queued_message_can_be_canceled_and_redacted() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let world = World::new(kind).await;
        let simulator = Simulator::start(&world, &["--mps", "1000"]);
        let sidecar = started(&world, &simulator).await;
        let root = administrator(&sidecar).await;
        let app = Caller::app(&sidecar, &root.token);
        // Later than all commands end, however slow the machine is.
        let at = jiff::Timestamp::now() + Duration::from_secs(3600);
        let mut places = Vec::new();
        for to in ["+14155550001", "+14155550002", "+14155550003"] {
            let wanted = json!({"account_sid": ACCOUNT, "to": to, "from": OURS, "body": to, "send_at": at.to_string()});
            let taken: Value = app
                .send(reqwest::Method::POST, "/v1/messages", wanted.to_string())
                .await
                .json()
                .await
                .unwrap();
            places.push(taken["id"].as_str().unwrap().to_owned());
        }
        let state = async |n: usize| {
            app.get(&format!("/v1/messages/{}?account_sid={ACCOUNT}", places[n])).await
        };
        command(&world, &["messages", "cancel", &places[0]]);
        assert_eq!(state(0).await["state"], "canceled");
        let audit =
            world.stored("SELECT subject FROM audit WHERE action = 'message.canceled'").await;
        assert_eq!(audit, [places[0].as_str()]);
        let redact = ["redact", "--account", ACCOUNT, "--number", "+14155550002"];
        let counted = command(&world, &[&redact[..], &["--dry-run"]].concat());
        assert_eq!(state(1).await["state"], "queued", "{counted}");
        command(&world, &redact);
        let forgotten = state(1).await;
        assert_eq!(
            (&forgotten["state"], &forgotten["error"]["code"]),
            (&json!("refused"), &json!("erased"))
        );
        let kept = world
            .stored("SELECT recipient FROM outbound_messages WHERE form = '' ORDER BY recipient")
            .await;
        assert_eq!(kept, ["sms:..01", "sms:..02"]);
        // As if that time had come, for all three.
        world.stored("UPDATE outbound_messages SET due_at_ms = 1 RETURNING id").await;
        eventually("the third is sent", async || state(2).await["state"] == "sent").await;
        assert_eq!(simulator.made().await.into_values().collect::<Vec<_>>(), ["+14155550003"]);
    }
}

/// The connection breaks before Twilio has read the request. Twilio's list stays without the message for long enough, and the
/// sidecar sends the message again.
#[tokio::test]
async fn message_that_never_arrived_is_sent_again() {
    let world = World::new(Kind::Sqlite).await;
    let simulator = Simulator::start(&world, &["--mps", "1000"]);
    let sidecar = started(&world, &simulator).await;
    let root = administrator(&sidecar).await;
    let app = Caller::app(&sidecar, &root.token);
    let wanted = json!({"account_sid": ACCOUNT, "to": "+14155559007", "from": OURS, "body": "hi"});
    let answer = app.send(reqwest::Method::POST, "/v1/messages", wanted.to_string()).await;
    let taken: Value = answer.json().await.unwrap();
    let place = format!("/v1/messages/{}?account_sid={ACCOUNT}", taken["id"].as_str().unwrap());
    eventually("the outcome is unknown", async || app.get(&place).await["state"] == "unknown")
        .await;
    // An absence from the list has no effect while the request may still be in flight.
    let looks = "SELECT id FROM outbound_messages WHERE lookups >= 2";
    eventually("the reconciler has looked twice", async || world.stored(looks).await.len() == 1)
        .await;
    let shown = app.get(&place).await;
    assert_eq!((&shown["state"], &shown["attempts"]["count"]), (&json!("unknown"), &json!(1)));
    // Simulates the end of the time in which the request may be in flight.
    world.stored("UPDATE outbound_messages SET due_at_ms = attempted_at_ms, lookup_due_at_ms = 1 RETURNING id").await;
    eventually("the message is sent again", async || {
        app.get(&place).await["attempts"]["count"] == 2
    })
    .await;
    let absent = sidecar.metric("twilio_edge_messages_reconciled_total{by=\"absent\"}").await;
    assert_eq!(absent, 1.0);
    assert!(simulator.made().await.is_empty());
}
