//! Sink type `pubsub`, tested with a Pub/Sub in memory on Google's published protobufs (`pubsub/server.py`), which a test kills.
//! Google's own client library reads the messages, and Google's own library verifies the credentials.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};
use twilio_edge_contract::Decision;

use crate::{
    inbound::deliveries::{accepted, command, from, start},
    support::servers::{Guarded, eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar, inbound, status},
    support::tls_proxy::Pem,
    support::world::{Kind, World},
};

const TOPIC: &str = "projects/acme/topics/twilio";
const SUBSCRIPTION: &str = "projects/acme/subscriptions/reader";

/// Service account that may publish.
const PUBLISHER: &str = "edge@acme.iam.gserviceaccount.com";

/// A local Pub/Sub, which keeps everything in memory.
struct PubSub {
    server: Option<Guarded>,
    rest: u16,
    grpc: u16,
}

#[derive(Debug, Deserialize)]
struct Message {
    event: Value,
    key: String,
    attributes: BTreeMap<String, String>,
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/pubsub/bin/python");
    assert!(python.exists(), "{} is not here: run `make setup-test`", python.display());
    python
}

fn script(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/inbound/pubsub");
    folder.join(name).display().to_string()
}

impl PubSub {
    fn stopped() -> PubSub {
        PubSub { server: None, rest: free_port(), grpc: free_port() }
    }

    /// Starts the server with these options.
    async fn run(&mut self, options: &Value) {
        let (script, options) = (script("server.py"), options.to_string());
        let (rest, grpc) = (self.rest.to_string(), self.grpc.to_string());
        let args = [script.as_str(), &rest, &grpc, &options];
        self.server = Some(Guarded::start(&python(), &args, &[], "KILL", None, Stdio::null()));
        eventually("Pub/Sub answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.rest)).await.is_ok()
        })
        .await;
    }

    fn ask(&self, arguments: &[&str]) -> Vec<u8> {
        let mut client = Command::new(python());
        client.arg(script("client.py")).args(arguments);
        let output =
            client.env("PUBSUB_EMULATOR_HOST", format!("127.0.0.1:{}", self.grpc)).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Creates the topic and its subscription.
    fn make(&self) {
        self.ask(&["make", TOPIC, SUBSCRIPTION]);
    }

    /// Receives and acknowledges `count` messages.
    fn receive(&self, count: usize) -> Vec<Message> {
        let messages = self.ask(&["receive", &count.to_string(), SUBSCRIPTION]);
        serde_json::from_slice(&messages).unwrap()
    }

    fn sink(&self, world: &World, scheme: &str, more: &str) -> String {
        let path = world.directory.path().join("sinks.toml");
        let sink = format!(
            "[[sink]]\nname = \"topic\"\ntype = \"pubsub\"\ntopic = \"{TOPIC}\"\n\
             endpoint = \"{scheme}://127.0.0.1:{}\"\nlongest_pause_ms = 100\ntimeout_ms = 4000\n{more}",
            self.rest
        );
        std::fs::write(&path, sink).unwrap();
        path.display().to_string()
    }
}

async fn all_deliveries_are_done(world: &World) {
    eventually("Pub/Sub accepts every delivery", async || {
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

/// Returns the bodies of the messages of each ordering key, in the order of their arrival.
fn bodies_by_key<'a>(messages: impl Iterator<Item = &'a Message>) -> BTreeMap<&'a str, Vec<usize>> {
    let mut bodies: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for message in messages.filter(|message| message.event["body"].is_string()) {
        let body = message.event["body"].as_str().unwrap().parse().unwrap();
        bodies.entry(&message.key).or_default().push(body);
    }
    bodies
}

#[tokio::test]
async fn accepted_webhooks_reach_their_topic_in_order_per_contact() {
    let world = World::new(Kind::Sqlite).await;
    let mut pubsub = PubSub::stopped();
    pubsub.run(&json!({})).await;
    pubsub.make();
    let file = pubsub.sink(&world, "http", "");
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
    run(&["replay", "--message-sid", "SM1x1", "--account", ACCOUNT, "--to", "topic"]);
    all_deliveries_are_done(&world).await;
    let tested = run(&["sinks", "test", "topic"]);
    assert!(tested.contains("delivered") && tested.contains("messageIds"), "{tested}");

    let mut messages = pubsub.receive(4 * 5 + 1 + 1 + 1);
    let test = messages.pop().unwrap();
    assert_eq!(test.event["event_type"], "test");
    assert_eq!(test.attributes["x-twilio-edge-test"], "true");
    let is_replay = |message: &&Message| message.attributes["x-twilio-edge-replay"] == "true";
    let first = || messages.iter().filter(|message| !is_replay(message));
    let bodies = bodies_by_key(first());
    assert_eq!(bodies.len(), 4);
    for (key, bodies) in bodies {
        assert!(key.starts_with("+1555000"), "{key}");
        assert_eq!(bodies, [0, 1, 2, 3, 4], "{key}");
    }
    assert!(first().all(|message| message.event["event_id"] == *message.attributes["webhook-id"]));
    let status = first().find(|message| message.event["event_type"] == "twilio_status").unwrap();
    assert_eq!((&status.event["status"], &*status.key), (&json!("delivered"), "SM9"));
    let replays: Vec<&Message> = messages.iter().filter(is_replay).collect();
    let [replay] = replays.as_slice() else { panic!("{replays:?}") };
    assert_eq!(replay.event["replay_id"], *replay.attributes["x-twilio-edge-replay-id"]);
    assert_ne!(replay.event["event_id"], *replay.attributes["webhook-id"]);
    let shown = command(&world, &["deliveries", "show", &format!("inbound:{ACCOUNT}:SM1x1")]);
    assert!(shown.contains("messageIds"), "the answer of Pub/Sub: {shown}");
}

#[tokio::test]
async fn deliveries_wait_for_pubsub_and_for_a_missing_topic() {
    let world = World::new(Kind::Sqlite).await;
    let mut pubsub = PubSub::stopped();
    let sidecar = start(&world, &pubsub.sink(&world, "http", "")).await;
    accept(&sidecar, 2, 0..2).await;
    let unavailable = "twilio_edge_sink_unavailable{sink=\"topic\"}";
    eventually("the sink is unavailable", async || sidecar.metric(unavailable).await == 1.0).await;
    pubsub.run(&json!({})).await;
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE 'the topic does not exist%'";
    eventually("the reason names the topic", async || !world.stored(reason).await.is_empty()).await;
    assert!(world.stored(reason).await.concat().contains(&format!("create {TOPIC}")));
    pubsub.make();
    all_deliveries_are_done(&world).await;
    let messages = pubsub.receive(4);
    let bodies = bodies_by_key(messages.iter());
    assert!(bodies.len() == 2 && bodies.values().all(|bodies| *bodies == [0, 1]), "{bodies:?}");

    // A server that died is unavailable once more.
    pubsub.server.take().unwrap().signal("KILL");
    accept(&sidecar, 1, 2..3).await;
    eventually("an attempt has failed", async || {
        let failed = "SELECT delivery_id FROM deliveries WHERE state = 'waiting' AND tries > 0";
        !world.stored(failed).await.is_empty()
    })
    .await;
    pubsub.run(&json!({})).await;
    pubsub.make();
    all_deliveries_are_done(&world).await;
    assert_eq!(bodies_by_key(pubsub.receive(1).iter()).into_values().next().unwrap(), [2]);
}

#[tokio::test]
async fn message_that_pubsub_refuses_becomes_a_dead_letter_and_delays_nothing() {
    let world = World::new(Kind::Sqlite).await;
    let mut pubsub = PubSub::stopped();
    pubsub.run(&json!({"limit": 3000})).await;
    pubsub.make();
    let sidecar = start(&world, &pubsub.sink(&world, "http", "")).await;
    let long = inbound("c1", "SM1", "whatsapp:+15550000001", &"a".repeat(2000));
    assert_eq!(sidecar.decide(accepted(long)).await, Decision::Accepted);
    assert_eq!(sidecar.decide(from(1, 7)).await, Decision::Accepted);
    all_deliveries_are_done(&world).await;
    let messages = pubsub.receive(1);
    assert_eq!(messages[0].event["message_sid"], "SM1x7");
    let dead: Value =
        serde_json::from_str(&command(&world, &["deliveries", "list", "--json"])).unwrap();
    let reason = dead[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("Pub/Sub refuses the message"), "{reason}");
    assert_eq!(dead.as_array().unwrap().len(), 1);
}

/// Makes a key pair, and returns the paths of both keys.
fn key_pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (private, public) = (folder.join(name), folder.join(format!("{name}.pub")));
    let run = |arguments: &[&str], from: &[&Path]| {
        let made = Command::new("openssl").args(arguments).args(from).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let bits = "rsa_keygen_bits:2048";
    run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits, "-out"], &[private.as_path()]);
    run(&["pkey", "-pubout", "-in"], &[private.as_path(), Path::new("-out"), public.as_path()]);
    (private, public)
}

/// Writes the key file of a service account as Google's console creates it.
fn service_account(folder: &Path, key: &Path, email: &str) -> String {
    let file = folder.join("google.json");
    let account = json!({
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": std::fs::read_to_string(key).unwrap(),
        "client_email": email,
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(&file, account.to_string()).unwrap();
    format!("credentials_file = \"{}\"\n", file.display())
}

#[tokio::test]
async fn service_account_authenticates_the_sink() {
    let world = World::new(Kind::Sqlite).await;
    let folder = world.directory.path();
    let pem = Pem::make(folder);
    let (key, public_key) = key_pair(folder, "edge");
    let (other_key, _) = key_pair(folder, "other");
    let mut pubsub = PubSub::stopped();
    let options = json!({
        "cert": pem.cert, "key": pem.key, "public_key": public_key, "publisher": PUBLISHER,
    });
    pubsub.run(&options).await;
    pubsub.make();
    // The system's root certificates are those of this file.
    let test = |key: &Path, email: &str| -> Output {
        let file = pubsub.sink(&world, "https", &service_account(folder, key, email));
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(["sinks", "test", "topic", "--json"]).env("TWILIO_EDGE_SINKS_FILE", file);
        command.env("SSL_CERT_FILE", &pem.cert).output().unwrap()
    };
    for (key, email, status, advice) in [
        (&other_key, PUBLISHER, 401, "correct `credentials_file`"),
        (&key, "crm@acme.iam.gserviceaccount.com", 403, "roles/pubsub.publisher"),
    ] {
        let output = test(key, email);
        assert!(!output.status.success());
        let tested: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(tested[0]["status"], status, "{tested}");
        let reason = tested[0]["reason"].as_str().unwrap();
        assert!(reason.contains(advice) && !reason.contains("PRIVATE KEY"), "{reason}");
    }
    let output = test(&key, PUBLISHER);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(pubsub.receive(1)[0].attributes["x-twilio-edge-test"], "true");
}
