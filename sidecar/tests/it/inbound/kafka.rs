//! Kafka sink, tested with a real broker, which tests also kill. The client of librdkafka reads the records.

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
    support::tls_proxy::{self, Pem},
    support::world::{Kind, World},
};

const INBOUND: &str = "twilio.inbound.v1";
const STATUS: &str = "twilio.status.v1";
const EVENTS: &str = "twilio.events.v1";

/// A broker that keeps everything in memory.
struct Broker {
    server: Option<Guarded>,
    port: u16,
    /// Port that the broker advertises to its clients.
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
    /// Returns a broker that does not run yet.
    fn stopped() -> Broker {
        let port = free_port();
        Broker { server: None, port, advertised: port }
    }

    async fn start(&mut self) {
        self.run(&[]);
        eventually("the broker answers", async || self.topics(&["list"])).await;
    }

    /// Waits until the broker accepts connections. A delivery before that is an outage, and the pauses after several outages
    /// are longer than a test waits.
    async fn listens(&self) {
        let connects = async || tokio::net::TcpStream::connect(self.address()).await.is_ok();
        eventually("the broker listens", connects).await;
    }

    fn run(&mut self, more: &[&str]) {
        let listen = format!("tcp://{}", self.address());
        let advertised = format!("tcp://127.0.0.1:{}", self.advertised);
        let args = [
            // The test does not read the log of the broker.
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

/// Returns the bodies of each number's records, in the order of its partition and without copies. Checks that all records of
/// a number are in one partition.
fn bodies_by_number(records: &[Read]) -> BTreeMap<String, Vec<usize>> {
    let mut bodies: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut places: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.topic == INBOUND) {
        places.entry(&record.key).or_default().insert(record.partition);
        let of_number = bodies.entry(record.key.clone()).or_default();
        let n = record.event["body"].as_str().unwrap().parse().unwrap();
        if !of_number.contains(&n) {
            of_number.push(n);
        }
    }
    assert!(places.values().all(|partitions| partitions.len() == 1), "{places:?}");
    bodies
}

async fn all_deliveries_are_done(world: &World) {
    eventually("the broker acknowledges every delivery", async || {
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
    let mut broker = Broker::stopped();
    broker.start().await;
    [INBOUND, STATUS, EVENTS].iter().for_each(|topic| broker.make(topic));
    let events = "events = [\"window.opened\"]";
    let sidecar = start(&world, &broker.sink_with(&world, events)).await;
    accept(&sidecar, 12, 0..5).await;
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    all_deliveries_are_done(&world).await;
    let file = world.directory.path().join("sinks.toml");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(arguments).env("DATABASE_URL", &world.database_url);
        assert!(command.env("TWILIO_EDGE_SINKS_FILE", &file).status().unwrap().success());
    };
    run(&["replay", "--message-sid", "SM1x1", "--account", ACCOUNT, "--to", "bus"]);
    all_deliveries_are_done(&world).await;
    run(&["sinks", "test", "bus"]);

    let (tests, records): (Vec<Read>, Vec<Read>) = broker
        .read(&[INBOUND, STATUS])
        .into_iter()
        .partition(|record| record.headers.contains_key("x-twilio-edge-test"));
    let [test] = tests.as_slice() else { panic!("{tests:?}") };
    assert_eq!((&*test.topic, &test.event["event_type"]), (INBOUND, &"test".into()));
    assert_eq!(
        records.len(),
        12 * 5 + 1 + 1,
        "one record for each delivery, because nothing failed"
    );
    let windows = broker.read(&[EVENTS]);
    let keys: BTreeSet<&str> = windows.iter().map(|record| record.key.as_str()).collect();
    assert_eq!((windows.len(), keys.len()), (12, 12), "one window of each contact");
    assert!(windows.iter().all(|record| record.event["event_type"] == "window.opened"));
    let (replays, first): (Vec<Read>, Vec<Read>) =
        records.into_iter().partition(|record| record.headers["x-twilio-edge-replay"] == "true");
    let bodies = bodies_by_number(&first);
    assert_eq!(bodies.len(), 12);
    for (number, bodies) in &bodies {
        assert!(number.starts_with("+1555000"), "{number}");
        assert_eq!(*bodies, [0, 1, 2, 3, 4], "{number}");
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
    let mut broker = Broker::stopped();
    let file = broker.sink(&world);
    let sidecar = start(&world, &file).await;
    let unavailable = "twilio_edge_sink_unavailable{sink=\"bus\"}";
    accept(&sidecar, 6, 0..4).await;
    eventually("the sink is unavailable", async || sidecar.metric(unavailable).await == 1.0).await;
    sidecar.kill();
    broker.start().await;
    [INBOUND, STATUS].iter().for_each(|topic| broker.make(topic));
    // A killed sidecar holds its lanes for a minute. The test ends these leases at once.
    let free = "UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL RETURNING lane";
    world.stored(free).await;
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 6, 4..8).await;
    all_deliveries_are_done(&world).await;
    for (number, bodies) in bodies_by_number(&broker.read(&[INBOUND])) {
        assert_eq!(bodies, (0..8).collect::<Vec<usize>>(), "{number}");
    }

    // A restarted broker does not know the earlier producers.
    broker.kill();
    accept(&sidecar, 6, 8..12).await;
    eventually("the sink is unavailable", async || sidecar.metric(unavailable).await == 1.0).await;
    broker.start().await;
    [INBOUND, STATUS].iter().for_each(|topic| broker.make(topic));
    accept(&sidecar, 6, 12..16).await;
    // These deliveries are in progress when the next sidecar takes over.
    sidecar.kill();
    world.stored(free).await;
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 6, 16..20).await;
    all_deliveries_are_done(&world).await;
    let bodies = bodies_by_number(&broker.read(&[INBOUND]));
    assert_eq!(bodies.len(), 6);
    for (number, bodies) in bodies {
        assert_eq!(bodies, (8..20).collect::<Vec<usize>>(), "{number}");
    }
    assert!(world.stored("SELECT state FROM deliveries WHERE state <> 'done'").await.is_empty());
    assert_eq!(sidecar.metric(unavailable).await, 0.0);
    drop(sidecar);
}

#[tokio::test]
async fn missing_topic_keeps_its_deliveries_waiting_and_reports_the_remedy() {
    let world = World::new(Kind::Sqlite).await;
    let mut broker = Broker::stopped();
    broker.start().await;
    broker.make(STATUS);
    let sidecar = start(&world, &broker.sink(&world)).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason IS NOT NULL";
    eventually("the delivery fails", async || !world.stored(reason).await.is_empty()).await;
    let reported = world.stored(reason).await.concat();
    assert!(
        reported
            .starts_with("the operator of the brokers has to create the topic twilio.inbound.v1"),
        "{reported}"
    );
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    eventually("the other topic has its record", async || broker.read(&[STATUS]).len() == 1).await;
    broker.make(INBOUND);
    all_deliveries_are_done(&world).await;
    assert_eq!(broker.read(&[INBOUND]).len(), 1);
    assert!(command(&world, &["deliveries", "list", "--json"]).starts_with("[]"));
    let said = sidecar.stop();
    assert!(!said.contains("krafka"), "lines without an event: {said}");
}

#[tokio::test]
async fn brokers_and_sidecar_prove_to_each_other_who_they_are() {
    let world = World::new(Kind::Sqlite).await;
    let pem = Pem::make(world.directory.path());
    let mut broker = Broker::stopped();
    broker.advertised = free_port();
    broker.run(&[]);
    let _tls = tls_proxy::start(broker.advertised, broker.port, &pem);
    let sidecar = start(&world, &broker.sink_with(&world, "tls = {}")).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE '%certificate%'";
    eventually("an unknown root certificate is refused", async || {
        !world.stored(reason).await.is_empty()
    })
    .await;
    sidecar.stop();
    let sidecar = start(&world, &broker.sink_with(&world, &pem.field())).await;
    broker.make(INBOUND);
    all_deliveries_are_done(&world).await;
    drop(sidecar);
}

#[tokio::test]
async fn denied_producer_reports_the_remedy_and_no_password() {
    let world = World::new(Kind::Sqlite).await;
    let mut broker = Broker::stopped();
    broker.run(&["--authentication"]);
    broker.listens().await;
    let sasl = "sasl = { mechanism = \"scram-sha-512\", username = \"edge\", password = \"hush\" }";
    let sidecar = start(&world, &broker.sink_with(&world, sasl)).await;
    assert_eq!(sidecar.decide(from(1, 1)).await, Decision::Accepted);
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE '%has to correct `sasl`%'";
    eventually("the broker refuses the producer", async || !world.stored(reason).await.is_empty())
        .await;
    assert!(!world.stored(reason).await.concat().contains("hush"));
    assert!(!sidecar.stop().contains("hush"));
}
