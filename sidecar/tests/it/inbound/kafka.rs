//! The sink that is a Kafka cluster, on a real broker, which is killed as well; what is in it is read by librdkafka's client.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;
use twilio_edge_contract::Decision;

use crate::{
    inbound::deliveries::{accepted, command, from, start},
    support::servers::{Guarded, eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar, status},
    support::world::{Kind, World},
};

const INBOUND: &str = "twilio.inbound.v1";
const STATUS: &str = "twilio.status.v1";

/// A broker that keeps everything in memory.
struct Broker {
    server: Option<Guarded>,
    port: u16,
    /// Where it tells its clients to go.
    advertised: u16,
}

#[derive(Debug, Deserialize)]
struct Read {
    topic: String,
    partition: u32,
    key: String,
    event: Value,
    headers: BTreeMap<String, String>,
}

fn installed(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/kafka/bin");
    let program = folder.join(name);
    assert!(program.exists(), "{name} is not here: run `make setup-test`");
    program
}

impl Broker {
    /// One that is not there yet.
    fn to_come() -> Broker {
        let port = free_port();
        Broker { server: None, port, advertised: port }
    }

    async fn start(&mut self) {
        self.run(&[]);
        eventually("the broker answers", async || self.topics(&["list"])).await;
    }

    fn run(&mut self, more: &[&str]) {
        let listen = format!("tcp://{}", self.address());
        let advertised = format!("tcp://127.0.0.1:{}", self.advertised);
        let args = [
            // Nobody listens to what it says.
            "--silent",
            "--listener-url",
            &listen,
            "--advertised-listener-url",
            &advertised,
            "--storage-engine",
            "memory://edge/",
        ];
        let (tansu, args) = (installed("tansu"), [&args[..], more].concat());
        self.server = Some(Guarded::start(&tansu, &args, &[], "KILL", None, Stdio::null()));
    }

    fn kill(&mut self) {
        self.server.take().unwrap().signal("KILL");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn topics(&self, arguments: &[&str]) -> bool {
        let mut tansu = Command::new(installed("tansu"));
        tansu.arg("topic").args(arguments).args(["--broker", &format!("tcp://{}", self.address())]);
        tansu.output().unwrap().status.success()
    }

    fn make(&self, topic: &str) {
        assert!(self.topics(&["create", topic, "--partitions", "3"]), "{topic}");
    }

    fn read(&self, topics: &[&str]) -> Vec<Read> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/inbound/kafka/read.py");
        let mut python = Command::new(installed("python"));
        let output = python.arg(script).arg(self.address()).args(topics).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn sink(&self, world: &World) -> String {
        self.sink_with(world, "")
    }

    fn sink_with(&self, world: &World, more: &str) -> String {
        let path = world.directory.path().join("sinks.toml");
        let brokers = format!("127.0.0.1:{}", self.advertised);
        let sink = format!(
            "[[sink]]\nname = \"bus\"\ntype = \"kafka\"\nbrokers = [\"{brokers}\"]\n\
             timeout_ms = 4000\nlongest_pause_ms = 200\n{more}\n"
        );
        std::fs::write(&path, sink).unwrap();
        path.display().to_string()
    }
}

/// The bodies each number's records have, in the order of its partition; copies left out, and a number is in one partition alone.
fn heard(records: &[Read]) -> BTreeMap<String, Vec<usize>> {
    let mut heard: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut places: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.topic == INBOUND) {
        places.entry(&record.key).or_default().insert(record.partition);
        let of = heard.entry(record.key.clone()).or_default();
        let n = record.event["body"].as_str().unwrap().parse().unwrap();
        if !of.contains(&n) {
            of.push(n);
        }
    }
    assert!(places.values().all(|partitions| partitions.len() == 1), "{places:?}");
    heard
}

async fn nothing_is_owed(world: &World) {
    eventually("everything is acknowledged", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
}

async fn accept(sidecar: &Sidecar, people: usize, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let batch = (0..people).map(|person| from(person, n)).collect();
        let verdicts = sidecar.claim_all(batch).await;
        assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Accepted));
    }
}

#[tokio::test]
async fn accepted_webhooks_reach_their_topic_keyed_by_number() {
    let world = World::new(Kind::Sqlite).await;
    let mut broker = Broker::to_come();
    broker.start().await;
    [INBOUND, STATUS].iter().for_each(|topic| broker.make(topic));
    let sidecar = start(&world, &broker.sink(&world)).await;
    accept(&sidecar, 12, 0..5).await;
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    nothing_is_owed(&world).await;
    let file = world.directory.path().join("sinks.toml");
    let replayed = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["replay", "--message-sid", "SM1x1", "--account", ACCOUNT, "--to", "bus"])
        .env("DATABASE_URL", &world.database_url)
        .env("TWILIO_EDGE_SINKS_FILE", file)
        .status();
    assert!(replayed.unwrap().success());
    nothing_is_owed(&world).await;

    let records = broker.read(&[INBOUND, STATUS]);
    assert_eq!(records.len(), 12 * 5 + 1 + 1, "each once: nobody was away");
    let (replays, first): (Vec<Read>, Vec<Read>) =
        records.into_iter().partition(|record| record.headers["x-twilio-edge-replay"] == "true");
    let heard = heard(&first);
    assert_eq!(heard.len(), 12);
    for (number, heard) in &heard {
        assert!(number.starts_with("+1555000"), "{number}");
        assert_eq!(*heard, [0, 1, 2, 3, 4], "{number}");
    }
    for record in &first {
        assert_eq!(record.event["event_id"], record.headers["webhook-id"]);
        let is_status = record.event["event_type"] == "twilio_status";
        assert_eq!(record.topic, if is_status { STATUS } else { INBOUND });
    }
    let [replay] = replays.as_slice() else { panic!("{replays:?}") };
    assert_eq!(replay.event["message_sid"], "SM1x1");
    assert_eq!(replay.event["replay_id"], replay.headers["x-twilio-edge-replay-id"]);
    assert_ne!(replay.event["event_id"], replay.headers["webhook-id"]);
}

#[tokio::test]
async fn deliveries_survive_killed_brokers_and_sidecars() {
    let world = World::new(Kind::RedisPostgres).await;
    let mut broker = Broker::to_come();
    let file = broker.sink(&world);
    let sidecar = start(&world, &file).await;
    let away = "twilio_edge_sink_unavailable{sink=\"bus\"}";
    accept(&sidecar, 6, 0..4).await;
    eventually("it is noticed", async || sidecar.metric(away).await == 1.0).await;
    sidecar.kill();
    broker.start().await;
    [INBOUND, STATUS].iter().for_each(|topic| broker.make(topic));
    // What a killed sidecar held is held for a minute: nobody has to wait for that here.
    let free = "UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL RETURNING lane";
    world.stored(free).await;
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 6, 4..8).await;
    nothing_is_owed(&world).await;
    for (number, heard) in heard(&broker.read(&[INBOUND])) {
        assert_eq!(heard, (0..8).collect::<Vec<usize>>(), "{number}");
    }

    // A broker that comes back knows no producer of before.
    broker.kill();
    accept(&sidecar, 6, 8..12).await;
    eventually("it is noticed", async || sidecar.metric(away).await == 1.0).await;
    broker.start().await;
    [INBOUND, STATUS].iter().for_each(|topic| broker.make(topic));
    accept(&sidecar, 6, 12..16).await;
    // Under way when the next one takes over.
    sidecar.kill();
    world.stored(free).await;
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 6, 16..20).await;
    nothing_is_owed(&world).await;
    let heard = heard(&broker.read(&[INBOUND]));
    assert_eq!(heard.len(), 6);
    for (number, heard) in heard {
        assert_eq!(heard, (8..20).collect::<Vec<usize>>(), "{number}");
    }
    assert!(world.stored("SELECT state FROM deliveries WHERE state <> 'done'").await.is_empty());
    assert_eq!(sidecar.metric(away).await, 0.0);
    drop(sidecar);
}

#[tokio::test]
async fn missing_topic_keeps_its_deliveries_waiting_and_reports_the_remedy() {
    let world = World::new(Kind::Sqlite).await;
    let mut broker = Broker::to_come();
    broker.start().await;
    broker.make(STATUS);
    let sidecar = start(&world, &broker.sink(&world)).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason IS NOT NULL";
    eventually("it is tried", async || !world.stored(reason).await.is_empty()).await;
    let told = world.stored(reason).await.concat();
    assert!(
        told.starts_with("the operator of the brokers has to create the topic twilio.inbound.v1"),
        "{told}"
    );
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    eventually("the other topic has its own", async || broker.read(&[STATUS]).len() == 1).await;
    broker.make(INBOUND);
    nothing_is_owed(&world).await;
    assert_eq!(broker.read(&[INBOUND]).len(), 1);
    assert!(command(&world, &["deliveries", "list", "--json"]).starts_with("[]"));
    let said = sidecar.stop();
    assert!(!said.contains("krafka"), "lines without an event: {said}");
}

#[tokio::test]
async fn brokers_and_sidecar_prove_to_each_other_who_they_are() {
    let world = World::new(Kind::Sqlite).await;
    let pem = |name: &str| world.directory.path().join(name).display().to_string();
    let (cert, key, both) = (pem("cert.pem"), pem("key.pem"), pem("both.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", &cert, "-keyout", &key])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let texts = [&key, &cert].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, texts.concat()).unwrap();

    let mut broker = Broker::to_come();
    broker.advertised = free_port();
    broker.run(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/inbound/kafka/tls.py");
    let (outer, inner) = (broker.advertised.to_string(), broker.port.to_string());
    let args = [script.to_str().unwrap(), &outer, &inner, &both];
    let _tls = Guarded::start(&installed("python"), &args, &[], "KILL", None, Stdio::null());
    let sidecar = start(&world, &broker.sink_with(&world, "tls = {}")).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE '%certificate%'";
    eventually("a root nobody knows is refused", async || !world.stored(reason).await.is_empty())
        .await;
    sidecar.stop();
    let tls =
        format!("tls = {{ ca_file = \"{cert}\", cert_file = \"{cert}\", key_file = \"{key}\" }}");
    let sidecar = start(&world, &broker.sink_with(&world, &tls)).await;
    broker.make(INBOUND);
    nothing_is_owed(&world).await;
    drop(sidecar);
}

#[tokio::test]
async fn denied_producer_reports_the_remedy_and_no_password() {
    let world = World::new(Kind::Sqlite).await;
    let mut broker = Broker::to_come();
    broker.run(&["--authentication"]);
    let sasl = "sasl = { mechanism = \"scram-sha-512\", username = \"edge\", password = \"hush\" }";
    let sidecar = start(&world, &broker.sink_with(&world, sasl)).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE '%has to correct `sasl`%'";
    eventually("it is refused", async || !world.stored(reason).await.is_empty()).await;
    assert!(!world.stored(reason).await.concat().contains("hush"));
    assert!(!sidecar.stop().contains("hush"));
}
