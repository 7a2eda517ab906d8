//! Archive of webhooks on a real S3 API, on Google's API and in a folder, read back by Python's gzip and boto3. Each
//! webhook is archived once and complete, and stays in the ledger until then, whichever process fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use twilio_edge_contract::{Claim, Decision, Envelope, Outcome};

use crate::{
    access::api_keys::administrator,
    api::message_lists::{OTHER, accepted, of_other},
    inbound::deliveries::{self, sinks},
    support::receiver::Receiver,
    support::servers::{Guarded, eventually, free_port},
    support::sidecar::{ACCOUNT, Sidecar, inbound, status, unclaimed},
    support::world::{Kind, World, on_every_shared_store, on_every_store},
};

on_every_store! {
    webhooks_are_archived_as_they_were_signed,
    archive_replays_webhooks_that_the_ledger_lost,
}

on_every_shared_store! {
    sidecars_share_the_work_and_one_that_dies_loses_nothing,
}

const ALICE: &str = "whatsapp:+15551230001";
const BOB: &str = "whatsapp:+15551230002";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An object as an independent reader sees it.
#[derive(Debug, Deserialize)]
struct Object {
    key: String,
    lines: Vec<Value>,
    marks: Vec<String>,
}

fn installed(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/objects/bin").join(name);
    assert!(program.exists(), "{name} is not here: run `make setup-test`");
    program
}

fn reader(arguments: &[&str]) -> String {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/operations/archives/reader.py");
    let output = Command::new(installed("python")).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(place: &[&str]) -> Vec<Object> {
    let said = reader(&[&["read"], place].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the number of copies of each webhook in the archive.
fn counted(objects: &[Object]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for line in objects.iter().flat_map(|object| &object.lines) {
        *counted.entry(line["event_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counted
}

fn mark(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server with an API for objects. What it has is gone when it is killed.
pub(crate) struct Objects {
    server: Option<Guarded>,
    kind: &'static str,
    port: u16,
}

impl Objects {
    /// One that is not there yet.
    pub(crate) fn to_come(kind: &'static str) -> Objects {
        Objects { server: None, kind, port: free_port() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// With an empty bucket.
    pub(crate) async fn start(&mut self) {
        let port = self.port.to_string();
        let (program, arguments) = match self.kind {
            "s3" => (installed("moto_server"), vec!["-H", "127.0.0.1", "-p", &port]),
            _ => (
                installed("gcp-storage-emulator"),
                vec!["start", "--host", "127.0.0.1", "--port", &port, "--in-memory"],
            ),
        };
        self.server = Some(Guarded::start(&program, &arguments, &[], "KILL", None, Stdio::null()));
        eventually("the object store answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
        reader(&["make", self.kind, &self.endpoint(), "edge"]);
    }

    fn signal(&self, signal: &str) {
        self.server.as_ref().unwrap().signal(signal);
    }

    pub(crate) fn kill(&mut self) {
        self.server.take().unwrap().signal("KILL");
    }

    fn read(&self) -> Vec<Object> {
        read(&[self.kind, &self.endpoint(), "edge"])
    }

    /// Settings with which a sidecar or a command archives into this bucket.
    fn settings(&self, world: &World) -> Vec<(&'static str, String)> {
        let file = world.directory.path().join("credentials").display().to_string();
        let key = match self.kind {
            "s3" => "[default]\naws_access_key_id = edge\naws_secret_access_key = hush\n",
            // The emulator asks for no token, and none is to be fetched.
            _ => {
                r#"{"private_key": "hush", "private_key_id": "1", "client_email": "edge", "disable_oauth": true}"#
            }
        };
        std::fs::write(&file, key).unwrap();
        let who = match self.kind {
            "s3" => ("TWILIO_EDGE_ARCHIVE_CREDENTIALS_FILE", file),
            _ => ("GOOGLE_SERVICE_ACCOUNT", file),
        };
        vec![
            ("TWILIO_EDGE_ARCHIVE_URL", format!("{}://edge/prod", self.kind)),
            ("TWILIO_EDGE_ARCHIVE_ENDPOINT", self.endpoint()),
            ("TWILIO_EDGE_ARCHIVE_REGION", "eu-central-1".to_owned()),
            ("TWILIO_EDGE_ARCHIVE_AGE_S", "1".to_owned()),
            who,
        ]
    }

    /// A sidecar that archives here.
    async fn sidecar(&self, world: &World, more: &[(&str, &str)]) -> Sidecar {
        let settings = self.settings(world);
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.sidecar_with(&[&settings[..], more].concat()).await
    }
}

fn folder(world: &World) -> String {
    world.directory.path().join("archive").display().to_string()
}

/// A sidecar that archives into a folder.
async fn filing(world: &World, age_s: &str, more: &[(&str, &str)]) -> Sidecar {
    let url = format!("file://{}", folder(world));
    let settings = [
        ("TWILIO_EDGE_ARCHIVE_URL", url.as_str()),
        ("TWILIO_EDGE_ARCHIVE_AGE_S", age_s),
        ("TWILIO_EDGE_REDACTION_EVERY_S", "1"),
    ];
    world.sidecar_with(&[&settings[..], more].concat()).await
}

async fn queued(world: &World) -> usize {
    world.stored("SELECT dedupe_key FROM archive_queue").await.len()
}

async fn written(world: &World, count: usize) {
    eventually("all of it is in the ledger", async || {
        world.stored("SELECT dedupe_key FROM events WHERE form IS NOT NULL").await.len() == count
    })
    .await;
}

/// Waits until nothing is to be archived any more.
async fn archived(world: &World) {
    eventually("everything is archived", async || queued(world).await == 0).await;
}

async fn webhooks_are_archived_as_they_were_signed(world: World) {
    let app = Receiver::start().await;
    let file = sinks(&world, &[("app", &app, "")]);
    let more = [
        ("TWILIO_EDGE_SINKS_FILE", file.as_str()),
        ("TWILIO_EDGE_RETENTION_REDACT_CODES", "true"),
        ("TWILIO_EDGE_RETENTION_MEDIA_KEEP", "none"),
    ];
    let sidecar = filing(&world, "1", &more).await;
    let mut whole = inbound("c1", "SM1", ALICE, "caf\u{e9} & \"quotes\"\n2");
    // Repeated names, a missing value and a needless escape are part of the signed text, so the archive keeps them.
    whole.form += "&Extra=1&Extra=2&Empty&%42=x";
    whole.envelope = Envelope {
        method: Some("POST".into()),
        url: Some("https://hooks.example.com/twilio/inbound".into()),
        content_type: Some("application/x-www-form-urlencoded; charset=UTF-8".into()),
        idempotency_token: Some("0f3a".into()),
    };
    (whole.request_id, whole.traceparent) = (Some("r-1".into()), Some(TRACE.into()));
    let mut callback = status("c2", "SM2", "failed");
    callback.identity.error_code = Some("30003".into());
    accepted(&sidecar, &[whole.clone(), callback.clone()]).await;
    // Three more outcomes: accepted by the sidecar, refused by the backend, and forwarded without a claim.
    let ours = deliveries::accepted(inbound("c3", "SM3", BOB, "ours"));
    assert_eq!(sidecar.decide(ours).await, Decision::Accepted);
    let refused = inbound("c4", "SM4", ALICE, "no");
    sidecar.claim(refused.clone()).await;
    sidecar.release(&refused).await;
    let late = inbound("c5", "SM5", ALICE, "late");
    sidecar.settle(unclaimed(&late, Outcome::Commit)).await;
    // The archive leaves out data that the retention settings exclude.
    let mut secret = inbound("c6", "SM6", BOB, "your code is 483920");
    secret.form += "&MediaUrl0=https%3A%2F%2Fmedia.example%2F1";
    accepted(&sidecar, &[secret, of_other(inbound("c7", "SM7", ALICE, "theirs"))]).await;
    written(&world, 7).await;
    archived(&world).await;

    let objects = read(&["folder", &folder(&world)]);
    let counted = counted(&objects);
    assert_eq!(counted.len(), 7);
    assert!(counted.values().all(|count| *count == 1), "{counted:?}");
    let line = |sid: &str| -> Value {
        let lines = objects.iter().flat_map(|object| &object.lines);
        lines.clone().find(|line| line["message_sid"] == sid).unwrap().clone()
    };
    let first = line("SM1");
    let received = world
        .stored("SELECT CAST(received_at_ms AS TEXT) FROM events WHERE message_sid = 'SM1'")
        .await;
    let received: i64 = received[0].parse().unwrap();
    let at: jiff::Timestamp = first["received_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(at.as_millisecond(), received);
    assert_eq!(
        first,
        json!({
            "event_id": format!("inbound:{ACCOUNT}:SM1"),
            "class": "inbound",
            "account_sid": ACCOUNT,
            "message_sid": "SM1",
            "received_at": first["received_at"],
            "route": "/twilio/inbound",
            "method": "POST",
            "url": "https://hooks.example.com/twilio/inbound",
            "headers": {
                "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
                "i-twilio-idempotency-token": "0f3a",
                "traceparent": TRACE,
                "x-request-id": "r-1",
            },
            "form": whole.form,
        })
    );
    assert_eq!(
        (&line("SM2")["status"], &line("SM2")["error_code"]),
        (&json!("failed"), &json!("30003"))
    );
    assert_eq!(
        (&line("SM2")["form"], &line("SM5")["form"]),
        (&json!(callback.form), &json!(late.form))
    );
    let form = line("SM6")["form"].as_str().unwrap().to_owned();
    assert!(!form.contains("483920") && !form.contains("media.example"), "{form}");
    for object in &objects {
        let first = &object.lines[0];
        let account = first["account_sid"].as_str().unwrap();
        assert!([ACCOUNT, OTHER].contains(&account));
        let (day, _) = first["received_at"].as_str().unwrap().split_once('T').unwrap();
        assert!(object.key.starts_with(&format!("webhooks/account={account}/date={day}/")));
        assert!(object.key.ends_with(".ndjson.gz"));
        for line in &object.lines {
            assert_eq!(line["account_sid"], account);
            assert!(object.marks.contains(&mark(line["message_sid"].as_str().unwrap())));
        }
    }
    eventually("it is counted", async || sidecar.metric("twilio_edge_archived_total").await == 7.0)
        .await;
    assert_eq!(sidecar.metric("twilio_edge_archive_failures_total").await, 0.0);

    // A later word on the same webhook is not another one.
    let again = Claim { claim_id: "c8".into(), ..refused };
    assert_eq!(sidecar.decide(again.clone()).await, Decision::Proceed);
    sidecar.commit(&again).await;
    sidecar.until_written().await;
    assert!(deliveries::command(&world, &["archive", "status"]).ends_with("none is waiting\n"));
    assert!(sidecar.stop().contains("stopped"));
    assert_eq!(self::counted(&read(&["folder", &folder(&world)])), counted);

    // Who does not know the archive says so, and keeps it waiting; the end of it is said once.
    let sidecar = world.sidecar().await;
    assert!(sidecar.log().contains("archive.not_configured"));
    accepted(&sidecar, &[inbound("c9", "SM9", ALICE, "waits")]).await;
    eventually("it waits", async || queued(&world).await == 1).await;
    deliveries::command(&world, &["archive", "stop"]);
    accepted(&sidecar, &[inbound("c10", "SM10", ALICE, "does not")]).await;
    written(&world, 9).await;
    assert_eq!(queued(&world).await, 0);
}

async fn archive_replays_webhooks_that_the_ledger_lost(world: World) {
    let app = Receiver::start().await;
    let file = sinks(&world, &[("app", &app, "")]);
    let with_sinks = [("TWILIO_EDGE_SINKS_FILE", file.as_str())];
    // The archive is unavailable.
    let settings = [("TWILIO_EDGE_REDACTION_EVERY_S", "1"), with_sinks[0]];
    let sidecar = Objects::to_come("s3").sidecar(&world, &settings).await;
    let came = [
        inbound("c1", "SM1", ALICE, "one"),
        inbound("c2", "SM2", ALICE, "two"),
        inbound("c3", "SM3", BOB, "three"),
        status("c4", "SM4", "delivered"),
    ];
    accepted(&sidecar, &came).await;
    written(&world, 4).await;
    // Forty days later; bodies are kept for thirty.
    let ms = 40 * 86_400_000_i64;
    for table in ["events", "archive_queue"] {
        let older = format!(
            "UPDATE {table} SET received_at_ms = received_at_ms - {ms} RETURNING dedupe_key"
        );
        assert_eq!(world.stored(&older).await.len(), 4);
    }
    let ran = async || sidecar.metric("twilio_edge_retention_last_run_timestamp_seconds").await;
    for _ in 0..2 {
        let before = ran().await;
        eventually("retention ran", async || ran().await > before).await;
    }
    let bodies = async || {
        world
            .stored("SELECT form FROM events WHERE form LIKE '%Body=o%' OR form LIKE '%Body=t%'")
            .await
            .len()
    };
    assert_eq!(bodies().await, 3, "webhooks that are not archived are not redacted");
    eventually("the age is measured", async || {
        sidecar.metric("twilio_edge_archive_oldest_age_seconds").await > 39.0 * 86400.0
    })
    .await;
    assert!(sidecar.stop().contains("stopped"));

    let sidecar = filing(&world, "1", &with_sinks).await;
    archived(&world).await;
    eventually("retention redacts the archived webhooks", async || bodies().await == 0).await;
    // The ledger has lost one webhook altogether.
    world.stored("DELETE FROM events WHERE message_sid = 'SM3' RETURNING dedupe_key").await;
    let objects = read(&["folder", &folder(&world)]).len();

    let root = administrator(&sidecar).await;
    let replay = async |wanted: Value| {
        let answer = root.send(Method::POST, "/v1/replays", wanted.to_string()).await;
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let counts = |body: &Value| json!([body["found"], body["queued"], body["left_out"]]);
    let (_, would) = replay(json!({"sink": "app", "since": "2001-01-01", "dry_run": true})).await;
    assert_eq!((counts(&would), &would["from"]), (json!([3, 1, 2]), &json!("ledger")));
    let archive = |more: Value| {
        let mut wanted = json!({"sink": "app", "since": "2001-01-01", "from": "archive"});
        wanted.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        wanted
    };
    let (_, would) = replay(archive(json!({"dry_run": true}))).await;
    assert_eq!((counts(&would), &would["from"]), (json!([4, 4, 0]), &json!("archive")));
    let (code, begun) = replay(archive(json!({"class": "inbound"}))).await;
    assert_eq!(code, 202);
    eventually("all three are delivered", async || app.taken().len() == 3).await;
    let mut said: Vec<String> = Vec::new();
    for got in app.taken() {
        let event = got.event();
        assert_eq!((&event["replay"], &event["replay_id"]), (&json!(true), &begun["id"]));
        assert!(event["received_at"].as_str() < Some("2026-11-20"), "it is that of the first time");
        said.push(event["body"].as_str().unwrap().to_owned());
    }
    said.sort();
    assert_eq!(said, ["one", "three", "two"]);
    // What came back for it goes again when it is delivered, and is not archived once more.
    eventually("bodies go again", async || bodies().await == 0).await;
    assert_eq!((queued(&world).await, read(&["folder", &folder(&world)]).len()), (0, objects));

    // One message, found by the index; by the command, resumed where it was.
    let arguments = [
        "replay",
        "--message-sid",
        "SM3",
        "--account",
        ACCOUNT,
        "--to",
        "app",
        "--from",
        "archive",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(arguments)
        .env("DATABASE_URL", &world.database_url)
        .env("TWILIO_EDGE_SINKS_FILE", &file)
        .env("TWILIO_EDGE_ARCHIVE_URL", format!("file://{}", folder(&world)))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.ends_with(
            ": 1 webhooks found, 0 skipped that are no longer complete, 1 on their way to app\n"
        ),
        "{said}"
    );
    eventually("the webhook is delivered once more", async || app.taken().len() == 4).await;
    assert_eq!(app.taken()[3].event()["body"], "three");

    // A redaction in the ledger removes the webhooks from the archive too, and no others.
    deliveries::command(&world, &["redact", "--account", ACCOUNT, "--number", ALICE]);
    eventually("the erasure is complete", async || {
        world.stored("SELECT id FROM archive_erasures").await.is_empty()
    })
    .await;
    let left = read(&["folder", &folder(&world)]);
    let left: Vec<String> = counted(&left).into_keys().collect();
    assert_eq!(
        left,
        [format!("inbound:{ACCOUNT}:SM3"), format!("status:{ACCOUNT}:SM4:delivered:")]
    );
    let (_, would) = replay(archive(json!({"dry_run": true}))).await;
    assert_eq!(counts(&would), json!([2, 2, 0]));
    let one = json!({"message_sid": "SM3", "account_sid": ACCOUNT, "dry_run": true});
    assert_eq!(
        counts(&replay(archive(one)).await.1),
        json!([1, 1, 0]),
        "the index still finds the other webhook"
    );
}

/// The object store is unavailable at the start, killed and restarted, and paused during a request. The sidecar repeats each
/// write that the store has not acknowledged.
async fn check_outages_of_the_object_store(world: World) {
    let mut store = Objects::to_come("s3");
    let sidecar = store.sidecar(&world, &[]).await;
    let some = |from: usize| -> Vec<Claim> {
        (from..from + 5).map(|n| inbound(&format!("c{n}"), &format!("SM{n}"), ALICE, "x")).collect()
    };
    accepted(&sidecar, &some(0)).await;
    eventually("a failed write is counted", async || {
        sidecar.metric("twilio_edge_archive_failures_total").await > 0.0
    })
    .await;
    assert_eq!(
        (queued(&world).await, sidecar.metric("twilio_edge_archived_total").await),
        (5, 0.0)
    );
    let log = sidecar.log();
    assert!(
        log.contains("archive.write_failed") && log.contains("the bucket cannot be reached"),
        "{log}"
    );
    assert!(!log.contains("hush"));

    store.start().await;
    archived(&world).await;
    assert_eq!(counted(&store.read()).len(), 5);

    // The object store is paused during a request, and the sidecar is killed.
    store.signal("STOP");
    accepted(&sidecar, &some(5)).await;
    eventually("a batch is being written", async || {
        !world.stored("SELECT batch_id FROM archive_batches").await.is_empty()
    })
    .await;
    let named = world.stored("SELECT object FROM archive_batches").await;
    sidecar.kill();
    store.signal("CONT");
    let sidecar = store.sidecar(&world, &[]).await;
    archived(&world).await;
    let objects = store.read();
    let each = counted(&objects);
    assert!(each.len() == 10 && each.values().all(|count| *count == 1), "{each:?}");
    assert!(
        objects.iter().any(|object| object.key == format!("prod/{}", named[0])),
        "the same object"
    );

    // The killed store has lost its objects. Webhooks that it had not stored yet are archived after its restart.
    store.kill();
    accepted(&sidecar, &some(10)).await;
    written(&world, 15).await;
    sidecar.kill();
    store.start().await;
    let _sidecar = store.sidecar(&world, &[]).await;
    archived(&world).await;
    let each = counted(&store.read());
    let expected: Vec<String> = (10..15).map(|n| format!("inbound:{ACCOUNT}:SM{n}")).collect();
    assert_eq!(each.into_keys().collect::<Vec<_>>(), expected);

    // Replays find the webhooks in the archive, and redactions remove them from it.
    let app = Receiver::start().await;
    let file = sinks(&world, &[("app", &app, "")]);
    let found = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
        command.args(["replay", "--dry-run", "--from", "archive", "--to", "app"]).args(more);
        command.env("DATABASE_URL", &world.database_url).env("TWILIO_EDGE_SINKS_FILE", &file);
        let output = command.envs(store.settings(&world)).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(found(&["--since", "2001-01-01"]), "5");
    assert_eq!(found(&["--until", "2001-01-01"]), "0");
    assert_eq!(found(&["--message-sid", "SM12", "--account", ACCOUNT]), "1");
    assert_eq!(found(&["--message-sid", "SM2", "--account", ACCOUNT]), "0");
    for (erased, left) in [("SM12", 4), ("SM13", 3)] {
        deliveries::command(&world, &["redact", "--account", ACCOUNT, "--message-sid", erased]);
        eventually("the webhook is erased from the archive", async || {
            counted(&store.read()).len() == left
        })
        .await;
    }
    deliveries::command(&world, &["redact", "--account", ACCOUNT, "--number", ALICE]);
    eventually("the archive is empty", async || store.read().is_empty()).await;
}

#[tokio::test]
async fn archive_loses_nothing_during_an_outage_on_sqlite() {
    check_outages_of_the_object_store(World::new(Kind::Sqlite).await).await;
}

#[tokio::test]
async fn archive_loses_nothing_during_an_outage_on_postgres() {
    check_outages_of_the_object_store(World::new(Kind::RedisPostgres).await).await;
}

async fn sidecars_share_the_work_and_one_that_dies_loses_nothing(world: World) {
    const EACH: usize = 60;
    let mut store = Objects::to_come("s3");
    store.start().await;
    let small = [("TWILIO_EDGE_ARCHIVE_LINES", "7")];
    let one = store.sidecar(&world, &small).await;
    let other = store.sidecar(&world, &small).await;
    let claims: Vec<Claim> = (0..EACH)
        .flat_map(|n| {
            let claim =
                |who: &str| inbound(&format!("c{who}{n}"), &format!("SM{who}{n}"), ALICE, "x");
            [claim("a"), of_other(claim("b"))]
        })
        .collect();
    accepted(&one, &claims[..EACH]).await;
    accepted(&other, &claims[EACH..]).await;
    eventually("it is under way", async || store.read().len() > 2).await;
    one.kill();
    archived(&world).await;
    let objects = store.read();
    let each = counted(&objects);
    assert_eq!(each.len(), 2 * EACH);
    assert!(each.values().all(|count| *count == 1), "{each:?}");
    assert!(objects.iter().all(|object| object.lines.len() <= 7));
}

/// Hands every request on to the emulator, whose answers have no `etag` where Google's have one.
async fn with_etags(emulator: String) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let hand_on = async move |method: Method, uri: axum::http::Uri, body: axum::body::Bytes| {
        let asked = client.request(method, format!("{emulator}{uri}")).body(body);
        let answer = asked.send().await.unwrap();
        let status = axum::http::StatusCode::from_u16(answer.status().as_u16()).unwrap();
        (status, [("etag", "\"1\"")], answer.bytes().await.unwrap())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(hand_on);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn google_has_it_too() {
    let world = World::new(Kind::Sqlite).await;
    let mut store = Objects::to_come("gs");
    store.start().await;
    let endpoint = with_etags(store.endpoint()).await;
    let relayed = [("TWILIO_EDGE_ARCHIVE_ENDPOINT", endpoint.as_str())];
    let sidecar = store.sidecar(&world, &relayed).await;
    let claims: Vec<Claim> =
        (0..3).map(|n| inbound(&format!("c{n}"), &format!("SM{n}"), ALICE, "x")).collect();
    accepted(&sidecar, &claims).await;
    written(&world, 3).await;
    archived(&world).await;
    let objects = store.read();
    assert_eq!(counted(&objects).len(), 3, "{}", sidecar.log());
    assert!(objects[0].key.starts_with(&format!("prod/webhooks/account={ACCOUNT}/date=")));
}
