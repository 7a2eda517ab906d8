//! `twilio-edge tail` and `twilio-edge listen` as a developer uses them: what they print, what a local program receives, and that
//! they continue after the sidecar was killed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::Value;
use twilio_edge_contract::Claim;

use crate::{
    access::api_keys::administrator,
    api::message_lists::{ALICE, BOB, accepted, from, status_callback},
    support::{
        receiver::Receiver,
        servers::{eventually, free_port},
        sidecar::{ACCOUNT, Sidecar},
        world::{Kind, World},
    },
};

/// Running command, and the lines of its output.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
            .args(arguments)
            .envs(environment.iter().copied())
            .env_remove("TWILIO_AUTH_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        Running { child, lines, errors }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).map_err(|_| "no line was printed").unwrap()
    }

    fn error(&self) -> String {
        self.errors
            .recv_timeout(Duration::from_secs(30))
            .map_err(|_| "no error was printed")
            .unwrap()
    }

    fn exit_code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

async fn until_open(sidecar: &Sidecar, streams: f64) {
    eventually("the stream is open", || async {
        sidecar.metric("twilio_edge_streams").await == streams
    })
    .await;
}

async fn app_key(sidecar: &Sidecar) -> String {
    administrator(sidecar).await.create("app", Some(ACCOUNT), "laptop").await.1
}

fn failed(sid: &str) -> Claim {
    status_callback(sid, "undelivered", Some("30005"), BOB)
}

#[tokio::test]
async fn tail_prints_each_webhook_in_each_format() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let environment =
        [("TWILIO_EDGE_API_URL", sidecar.base.as_str()), ("TWILIO_EDGE_API_KEY", key.as_str())];
    let all = Running::start(&["tail"], &environment);
    let json = Running::start(&["tail", "--class", "status", "--json"], &environment);
    let csv = Running::start(&["tail", "--number", ALICE, "-o", "csv"], &environment);
    until_open(&sidecar, 3.0).await;
    accepted(&sidecar, &[from("SM1", ALICE), failed("SM2"), from("SM3", ALICE)]).await;
    let line = all.line();
    for part in ["inbound", "SM1", &format!("{ALICE} -> +15550001111"), "received", "\"hello\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(all.line().contains("undelivered 30005"));
    let status: Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!((&status["sid"], &status["error_code"]), (&"SM2".into(), &"30005".into()));
    assert!(csv.line().starts_with("RECEIVED_AT,SID,CLASS,FROM,TO,STATUS"));
    for sid in ["SM1", "SM3"] {
        assert!(csv.line().contains(&format!(",{sid},inbound,'{ALICE},")));
    }
}

#[tokio::test]
async fn tail_says_what_is_wrong() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let url = sidecar.base.as_str();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = [("HOME", directory.path().to_str().unwrap())];
    for (arguments, key, expected) in [
        (
            vec!["tail", "--url", url],
            "",
            "there is no API key: use --key-file, or set TWILIO_EDGE_API_KEY",
        ),
        (vec!["tail", "--url", url], "wrong", "unauthorized"),
        (vec!["tail", "--url", &nowhere], "wrong", "--url: http://127.0.0.1:"),
        (vec!["tail", "--url", url, "--account", "AC1"], "wrong", "must be AC and 32"),
        (
            vec!["listen", "--url", url, "--forward", "ftp://x"],
            "wrong",
            "must be an http or https URL",
        ),
    ] {
        let mut environment = elsewhere.to_vec();
        environment.push(("TWILIO_EDGE_API_KEY", key));
        let running = Running::start(&arguments, &environment);
        let mut error = running.error();
        while !error.contains(expected) {
            error = running.error();
        }
        assert_ne!(running.exit_code(), 0);
    }
}

#[tokio::test]
async fn listen_delivers_copies_in_order_and_prints_each_status() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    let key = app_key(&sidecar).await;
    let mut receiver = Receiver::start().await;
    receiver.answers(|body| if body.contains("SM2") { 500 } else { 200 });
    let environment =
        [("TWILIO_EDGE_API_URL", sidecar.base.as_str()), ("TWILIO_EDGE_API_KEY", key.as_str())];
    let forward = format!("http://{}", receiver.address);
    let listening = Running::start(&["listen", "--forward", &forward, "--sign"], &environment);
    until_open(&sidecar, 1.0).await;
    accepted(&sidecar, &[from("SM1", ALICE), failed("SM2"), from("SM3", ALICE)]).await;
    for (sid, answer) in [("SM1", "=> 200 ("), ("SM2", "=> 500 ("), ("SM3", "=> 200 (")] {
        let line = listening.line();
        assert!(line.contains(sid) && line.contains(answer), "{line}");
    }
    let got = receiver.got();
    let targets: Vec<&str> = got.iter().map(|got| got.target.as_str()).collect();
    assert_eq!(targets, ["/twilio/inbound", "/twilio/status", "/twilio/inbound"]);
    let [first, second, _] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(
        (first.parameter("Body"), first.parameter("MessageSid")),
        ("hello".into(), "SM1".into())
    );
    for (name, value) in [
        ("x-twilio-edge-copy", "true"),
        ("x-twilio-edge-verified", ACCOUNT),
        ("x-twilio-edge-class", "inbound"),
        ("x-twilio-edge-message-sid", "SM1"),
        ("x-twilio-edge-from", ALICE),
        ("x-twilio-edge-channel", "whatsapp"),
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert_eq!(second.header("x-twilio-edge-status"), "undelivered");
    assert!(!first.header("x-twilio-signature").is_empty());

    // A program that is not there is reported, and the next webhook is tried again.
    receiver.leave();
    accepted(&sidecar, &[from("SM4", ALICE)]).await;
    assert!(listening.line().contains("=> no answer: "));
    receiver.listen().await;
    accepted(&sidecar, &[from("SM5", ALICE)]).await;
    assert!(listening.line().contains("SM5"));
    assert_eq!(receiver.got().len(), 4);
}

#[tokio::test]
async fn listen_continues_after_the_sidecar_was_killed() {
    let world = World::new(Kind::Postgres).await;
    let address = format!("127.0.0.1:{}", free_port());
    let settings = [("TWILIO_EDGE_LISTEN", address.as_str())];
    let sidecar = world.sidecar_with(&settings).await;
    let key = app_key(&sidecar).await;
    let receiver = Receiver::start().await;
    let (url, forward) = (format!("http://{address}"), receiver.url());
    let arguments = ["listen", "--url", &url, "--forward", &forward, "--json"];
    let listening = Running::start(&arguments, &[("TWILIO_EDGE_API_KEY", key.as_str())]);
    until_open(&sidecar, 1.0).await;
    accepted(&sidecar, &[from("SM1", ALICE)]).await;
    let first: Value = serde_json::from_str(&listening.line()).unwrap();
    assert_eq!((&first["sid"], &first["copy"]["status"]), (&"SM1".into(), &200.into()));
    sidecar.kill();
    assert!(listening.error().contains("connecting again"));

    // The webhook is recorded by another sidecar, before the first one is there again.
    let other = world.sidecar().await;
    accepted(&other, &[from("SM2", ALICE)]).await;
    let _again = world.sidecar_with(&settings).await;
    let second: Value = serde_json::from_str(&listening.line()).unwrap();
    assert_eq!(second["sid"], "SM2");
    accepted(&other, &[from("SM3", ALICE)]).await;
    let third: Value = serde_json::from_str(&listening.line()).unwrap();
    assert_eq!(third["sid"], "SM3");
    let sids: Vec<String> = receiver.got().iter().map(|got| got.parameter("MessageSid")).collect();
    assert_eq!(sids, ["SM1", "SM2", "SM3"]);
}
