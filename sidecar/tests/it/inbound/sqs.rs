//! Sink type `sqs`, tested with moto, which verifies the signature of each request. A test also kills it. boto3 reads the
//! messages.

use std::{
    collections::BTreeMap,
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

const FIFO: &str = "twilio.fifo";

/// A local SQS with one queue.
struct Sqs {
    name: &'static str,
    server: Option<Guarded>,
    port: u16,
    queue: Queue,
}

#[derive(Debug, Default, Deserialize)]
struct Queue {
    url: String,
    key: String,
    secret: String,
}

#[derive(Debug, Deserialize)]
struct Message {
    event: Value,
    group: Option<String>,
    deduplication: Option<String>,
    attributes: BTreeMap<String, String>,
}

fn installed(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/objects/bin");
    let program = folder.join(name);
    assert!(program.exists(), "{name} is not here: run `make setup-test`");
    program
}

impl Sqs {
    async fn start(name: &'static str) -> Sqs {
        let mut sqs = Sqs { name, server: None, port: free_port(), queue: Queue::default() };
        sqs.run().await;
        sqs
    }

    /// Starts the server, which keeps everything in memory, and creates the queue.
    async fn run(&mut self) {
        let port = self.port.to_string();
        let args = ["-H", "127.0.0.1", "-p", &port];
        // The four requests that create the user and the queue need no signature, all later ones do.
        let auth = [("INITIAL_NO_AUTH_ACTION_COUNT", "4")];
        let moto = installed("moto_server");
        self.server = Some(Guarded::start(&moto, &args, &auth, "KILL", None, Stdio::null()));
        eventually("SQS answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
        self.queue = serde_json::from_slice(&self.ask(&["make"], &[self.name])).unwrap();
    }

    fn ask(&self, verb: &[&str], arguments: &[&str]) -> Vec<u8> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/inbound/sqs/client.py");
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let mut python = Command::new(installed("python"));
        python.arg(script).args(verb).arg(endpoint).args(arguments);
        let output = python.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Receives and deletes all messages.
    fn receive(&self) -> Vec<Message> {
        let Queue { url, key, secret } = &self.queue;
        serde_json::from_slice(&self.ask(&["receive"], &[url, key, secret])).unwrap()
    }

    fn sink(&self, world: &World, secret: &str) -> String {
        let file = |name: &str, text: &str| {
            let path = world.directory.path().join(name).display().to_string();
            std::fs::write(&path, text).unwrap();
            path
        };
        let Queue { url, key, .. } = &self.queue;
        let credentials = format!("aws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        let credentials = file("credentials", &credentials);
        file(
            "sinks.toml",
            &format!(
                "[[sink]]\nname = \"queue\"\ntype = \"sqs\"\nqueue_url = \"{url}\"\nregion = \"eu-central-1\"\n\
                 credentials_file = \"{credentials}\"\nlongest_pause_ms = 100\ntimeout_ms = 4000\n"
            ),
        )
    }
}

async fn all_deliveries_are_done(world: &World) {
    eventually("SQS accepts every delivery", async || {
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

/// Returns the bodies of each group's messages, in the order of the queue.
fn bodies_by_group(messages: &[Message]) -> BTreeMap<String, Vec<usize>> {
    let mut bodies: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in messages.iter().filter(|message| message.event["body"].is_string()) {
        let body = message.event["body"].as_str().unwrap().parse().unwrap();
        bodies.entry(message.group.clone().unwrap()).or_default().push(body);
    }
    bodies
}

#[tokio::test]
async fn accepted_webhooks_reach_their_queue_grouped_by_contact() {
    let world = World::new(Kind::Sqlite).await;
    let sqs = Sqs::start(FIFO).await;
    let file = sqs.sink(&world, &sqs.queue.secret);
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 4, 0..5).await;
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    all_deliveries_are_done(&world).await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(arguments).env("DATABASE_URL", &world.database_url);
        let output = command.env("TWILIO_EDGE_SINKS_FILE", &file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["replay", "--message-sid", "SM1x1", "--account", ACCOUNT, "--to", "queue"]);
    all_deliveries_are_done(&world).await;
    let tested = run(&["sinks", "test", "queue"]);
    assert!(tested.contains("delivered"), "{tested}");

    let messages = sqs.receive();
    assert_eq!(messages.len(), 4 * 5 + 1 + 1 + 1);
    for message in &messages {
        assert_eq!(message.deduplication.as_ref(), Some(&message.attributes["webhook-id"]));
    }
    let (replays, first): (Vec<Message>, Vec<Message>) = messages
        .into_iter()
        .filter(|message| message.event["event_type"] != "test")
        .partition(|message| message.attributes["x-twilio-edge-replay"] == "true");
    let bodies = bodies_by_group(&first);
    assert_eq!(bodies.len(), 4);
    for (group, bodies) in bodies {
        assert!(group.starts_with("+1555000"), "{group}");
        assert_eq!(bodies, [0, 1, 2, 3, 4], "{group}");
    }
    assert!(
        first.iter().all(|message| message.event["event_id"] == message.attributes["webhook-id"])
    );
    let [replay] = replays.as_slice() else { panic!("{replays:?}") };
    assert_eq!(replay.event["replay_id"], *replay.attributes["x-twilio-edge-replay-id"]);
    let shown = command(&world, &["deliveries", "show", &format!("inbound:{ACCOUNT}:SM1x1")]);
    assert!(shown.contains("MessageId"), "the answer of SQS: {shown}");
}

#[tokio::test]
async fn deliveries_wait_for_sqs_and_for_correct_credentials() {
    let world = World::new(Kind::Sqlite).await;
    let mut sqs = Sqs::start(FIFO).await;
    let sidecar = start(&world, &sqs.sink(&world, "hush")).await;
    accept(&sidecar, 2, 0..2).await;
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE 'SQS denies access%'";
    eventually("SQS refuses the signature", async || !world.stored(reason).await.is_empty()).await;
    let log = sidecar.stop();
    assert!(
        !log.contains("hush") && !world.stored(reason).await.concat().contains("hush"),
        "{log}"
    );

    sqs.server.take().unwrap().signal("KILL");
    let sidecar = start(&world, &sqs.sink(&world, &sqs.queue.secret)).await;
    let unavailable = "twilio_edge_sink_unavailable{sink=\"queue\"}";
    eventually("the sink is unavailable", async || sidecar.metric(unavailable).await == 1.0).await;
    sidecar.stop();
    // The server has lost its users, and makes new ones.
    sqs.run().await;
    let sidecar = start(&world, &sqs.sink(&world, &sqs.queue.secret)).await;
    all_deliveries_are_done(&world).await;
    let bodies = bodies_by_group(&sqs.receive());
    assert!(bodies.len() == 2 && bodies.values().all(|bodies| *bodies == [0, 1]), "{bodies:?}");
    drop(sidecar);
}

#[tokio::test]
async fn message_to_a_standard_queue_has_no_group() {
    let world = World::new(Kind::Sqlite).await;
    let sqs = Sqs::start("twilio").await;
    let sidecar = start(&world, &sqs.sink(&world, &sqs.queue.secret)).await;
    assert_eq!(sidecar.decide(from(1, 7)).await, Decision::Accepted);
    all_deliveries_are_done(&world).await;
    let messages = sqs.receive();
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((&message.group, &message.deduplication), (&None, &None));
    assert_eq!(message.event["event_id"], message.attributes["webhook-id"]);
}
