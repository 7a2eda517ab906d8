//! Sink type `pubsub`, tested with Google's own emulator, which one test kills. The emulator checks no credentials.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use twilio_edge_contract::Decision;

use crate::{
    inbound::deliveries::{accepted, from, start},
    support::servers::{Guarded, eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar, status},
    support::world::{Kind, World},
};

/// Folder of the emulator in the package `google-cloud-cli-pubsub-emulator`.
const EMULATOR: &str = "/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib";

/// Time limit for all messages to arrive.
const LIMIT: Duration = Duration::from_secs(60);

const TOPIC: &str = "projects/acme/topics/twilio";
const SUBSCRIPTION: &str = "projects/acme/subscriptions/reader";

/// A local Pub/Sub, which keeps everything in memory.
struct PubSub {
    server: Option<Guarded>,
    port: u16,
    client: Client,
}

#[derive(Debug)]
struct Message {
    event: Value,
    key: String,
    attributes: BTreeMap<String, String>,
}

fn emulator() -> PathBuf {
    let files = std::fs::read_dir(EMULATOR).into_iter().flatten();
    let jar = files
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension() == Some("jar".as_ref()));
    jar.unwrap_or_else(|| panic!("{EMULATOR}: install google-cloud-cli-pubsub-emulator"))
}

impl PubSub {
    fn stopped() -> PubSub {
        PubSub { server: None, port: free_port(), client: Client::new() }
    }

    async fn run(&mut self) {
        let (jar, port) = (emulator().display().to_string(), format!("--port={}", self.port));
        let args = ["-jar", &jar, "--host=127.0.0.1", &port];
        self.server =
            Some(Guarded::start(Path::new("java"), &args, &[], "KILL", None, Stdio::null()));
        eventually("Pub/Sub answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    async fn make(&self) {
        self.ask(Method::PUT, TOPIC, json!({})).await;
        let subscription = json!({"topic": TOPIC, "enableMessageOrdering": true});
        self.ask(Method::PUT, SUBSCRIPTION, subscription).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("http://127.0.0.1:{}/v1/{path}", self.port);
        let response = self.client.request(method, url).json(&body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Receives and acknowledges `count` messages.
    async fn receive(&self, count: usize) -> Vec<Message> {
        let (mut messages, began) = (Vec::new(), Instant::now());
        while messages.len() < count {
            assert!(began.elapsed() < LIMIT, "{} of {count} messages arrived", messages.len());
            let path = format!("{SUBSCRIPTION}:pull");
            let pulled = self.ask(Method::POST, &path, json!({"maxMessages": 100})).await;
            let mut ids = Vec::new();
            for received in pulled["receivedMessages"].as_array().into_iter().flatten() {
                let message = &received["message"];
                let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
                messages.push(Message {
                    event: serde_json::from_slice(&data).unwrap(),
                    key: message["orderingKey"].as_str().unwrap().to_owned(),
                    attributes: serde_json::from_value(message["attributes"].clone()).unwrap(),
                });
                ids.push(received["ackId"].clone());
            }
            if !ids.is_empty() {
                let path = format!("{SUBSCRIPTION}:acknowledge");
                self.ask(Method::POST, &path, json!({"ackIds": ids})).await;
            }
        }
        messages
    }

    fn sink(&self, world: &World) -> String {
        let path = world.directory.path().join("sinks.toml");
        let sink = format!(
            "[[sink]]\nname = \"topic\"\ntype = \"pubsub\"\ntopic = \"{TOPIC}\"\n\
             endpoint = \"http://127.0.0.1:{}\"\nlongest_pause_ms = 100\ntimeout_ms = 4000\n",
            self.port
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
    pubsub.run().await;
    pubsub.make().await;
    let file = pubsub.sink(&world);
    let sidecar = start(&world, &file).await;
    accept(&sidecar, 4, 0..5).await;
    let callback = accepted(status("s1", "SM9", "delivered"));
    assert_eq!(sidecar.decide(callback).await, Decision::Accepted);
    all_deliveries_are_done(&world).await;
    let replayed = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["replay", "--message-sid", "SM1x1", "--account", ACCOUNT, "--to", "topic"])
        .env("DATABASE_URL", &world.database_url)
        .env("TWILIO_EDGE_SINKS_FILE", &file)
        .status();
    assert!(replayed.unwrap().success());
    all_deliveries_are_done(&world).await;

    let messages = pubsub.receive(4 * 5 + 1 + 1).await;
    let is_replay = |message: &&Message| message.attributes["x-twilio-edge-replay"] == "true";
    let bodies = bodies_by_key(messages.iter().filter(|message| !is_replay(message)));
    assert_eq!(bodies.len(), 4);
    for (key, bodies) in bodies {
        assert!(key.starts_with("+1555000"), "{key}");
        assert_eq!(bodies, [0, 1, 2, 3, 4], "{key}");
    }
    let replays: Vec<&Message> = messages.iter().filter(is_replay).collect();
    let [replay] = replays.as_slice() else { panic!("{replays:?}") };
    assert_eq!(replay.event["replay_id"], *replay.attributes["x-twilio-edge-replay-id"]);
    assert_ne!(replay.event["event_id"], *replay.attributes["webhook-id"]);
}

#[tokio::test]
async fn deliveries_wait_for_pubsub_and_for_a_missing_topic() {
    let world = World::new(Kind::Sqlite).await;
    let mut pubsub = PubSub::stopped();
    let sidecar = start(&world, &pubsub.sink(&world)).await;
    accept(&sidecar, 2, 0..2).await;
    let unavailable = "twilio_edge_sink_unavailable{sink=\"topic\"}";
    eventually("the sink is unavailable", async || sidecar.metric(unavailable).await == 1.0).await;
    pubsub.run().await;
    let reason = "SELECT reason FROM deliveries WHERE reason LIKE 'the topic does not exist%'";
    eventually("the reason names the topic", async || !world.stored(reason).await.is_empty()).await;
    assert!(world.stored(reason).await.concat().contains(&format!("create {TOPIC}")));
    pubsub.make().await;
    all_deliveries_are_done(&world).await;
    let messages = pubsub.receive(4).await;
    let bodies = bodies_by_key(messages.iter());
    assert!(bodies.len() == 2 && bodies.values().all(|bodies| *bodies == [0, 1]), "{bodies:?}");
    pubsub.server.take().unwrap().signal("KILL");
    drop(sidecar);
}
