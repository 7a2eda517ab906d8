//! `twilio-edge load` at a small edge that verifies signatures: the requests that it receives, the report and the exit code.

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Router, routing::post};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{Key, Payload, verify};

use crate::support::program::{Ran, run};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const OURS: [(&str, &str); 2] = [("TWILIO_ACCOUNT_SID", ACCOUNT), ("TWILIO_AUTH_TOKEN", TOKEN)];
const ORIGIN: &str = "https://hooks.example.com";

/// A received webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    path: String,
    host: String,
    token: String,
    body: String,
    is_verified: bool,
}

/// An edge that refuses wrong signatures, and answers genuine webhooks with one status.
struct Edge {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    _serving: Runtime,
}

#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    status: StatusCode,
}

async fn answer(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let form = Form::parse(&body).unwrap();
    let signature = header("x-twilio-signature");
    let keys = [Key::auth_token("test", TOKEN).unwrap()];
    let url = format!("{ORIGIN}{uri}");
    let verdict = verify(&url, Payload::Form(&form), Some(signature.as_bytes()), &keys);
    shared.received.lock().unwrap().push(Received {
        path: uri.path().to_owned(),
        host: header("host"),
        token: header("i-twilio-idempotency-token"),
        body: String::from_utf8(body.to_vec()).unwrap(),
        is_verified: verdict.is_ok(),
    });
    if verdict.is_ok() { shared.status } else { StatusCode::FORBIDDEN }
}

impl Edge {
    fn start(status: StatusCode) -> Edge {
        let serving = Runtime::new().unwrap();
        let received = Arc::default();
        let shared = Shared { received: Arc::clone(&received), status };
        let routes = ["/twilio/inbound", "/twilio/status"];
        let router =
            routes.into_iter().fold(Router::new(), |router, path| router.route(path, post(answer)));
        let listener = serving.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        serving.spawn(async move { axum::serve(listener, router.with_state(shared)).await });
        Edge { url, received, _serving: serving }
    }

    fn load(&self, options: &[&str]) -> Ran {
        load(&[&["--edge", &self.url, "--origin", ORIGIN], options].concat())
    }
}

fn load(options: &[&str]) -> Ran {
    run(&[&["load"], options].concat(), &OURS, "")
}

#[test]
fn load_sends_the_mix_and_reports_that_every_answer_was_right() {
    let edge = Edge::start(StatusCode::NO_CONTENT);
    let out = edge.load(&["--rate", "50", "--for", "2s"]).success();
    for expected in [
        "100 webhooks at 50/s in ",
        ", signed for https://hooks.example.com\n",
        "\nrepeat          3  204: 3\n",
        "\nforged          1  403: 1\n",
        "\ngenuine with 2xx       100.00 % (99 of 99)\n",
        "\nlatency from due time  p50 ",
        "\nno answer within 15 s  0\n",
        "\nEvery genuine webhook had 2xx, and every forged one 403.\n",
    ] {
        assert!(out.contains(expected), "{expected} in {out}");
    }
    assert!(!out.contains(TOKEN), "{out}");

    let received = edge.received.lock().unwrap().clone();
    assert_eq!(received.len(), 100);
    assert_eq!(received.iter().filter(|webhook| !webhook.is_verified).count(), 1);
    let inbound = received.iter().filter(|webhook| webhook.path == "/twilio/inbound").count();
    assert!((25..=35).contains(&inbound), "{inbound} of 100 are inbound messages");
    let prefix = out.split("MessageSids begin with ").nth(1).unwrap().lines().next().unwrap();
    let mut copies: HashMap<&str, Vec<&Received>> = HashMap::new();
    for webhook in &received {
        assert_eq!(webhook.host, "hooks.example.com");
        assert!(webhook.body.contains(&format!("MessageSid={prefix}")), "{webhook:?}");
        assert!(webhook.body.contains(&format!("AccountSid={ACCOUNT}")), "{webhook:?}");
        copies.entry(&webhook.token).or_default().push(webhook);
    }
    assert_eq!(copies.values().map(|all| all.len() - 1).sum::<usize>(), 3, "repeats");
    assert!(copies.values().all(|all| all.iter().all(|copy| *copy == all[0])), "{copies:?}");
}

#[test]
fn wrong_answer_fails_the_run_and_is_explained() {
    let edge = Edge::start(StatusCode::INTERNAL_SERVER_ERROR);
    let ran =
        edge.load(&["--rate", "20", "--for", "1s", "--repeats", "0", "--forged", "0", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    assert_eq!((&report["passed"], &report["genuine"]), (&false.into(), &20.into()), "{report}");
    assert_eq!(report["genuine_with_2xx"], 0);
    let problems = report["problems"].as_array().unwrap();
    let problem = problems[0].as_str().unwrap();
    assert!(problem.starts_with("20 genuine webhooks were answered with 500: "), "{problem}");
    assert_eq!(report["kinds"].get("repeat"), None);
    assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn wrong_token_is_explained() {
    let edge = Edge::start(StatusCode::NO_CONTENT);
    let options = ["load", "--edge", &edge.url, "--origin", ORIGIN, "--rate", "20", "--for", "1s"];
    let ran = run(&options, &[], "");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("answered with 403: check that --origin"), "{ran:?}");
}

#[test]
fn unreachable_edge_is_reported() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = load(&["--edge", &format!("http://{closed}"), "--rate", "20", "--for", "1s"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("20 webhooks had a connection error"), "{ran:?}");
    assert!(ran.out.contains("Connection refused"), "{ran:?}");
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_sent() {
    let ours = "http://127.0.0.1:9";
    for (options, expected) in [
        (&["--edge", "http://203.0.113.1"][..], "203.0.113.1 is not an address of this machine"),
        (&["--edge", "http://203.0.113.1"], "Nothing was sent"),
        (&["--edge", "http://[2001:db8::1]:8080"], "--allow-public"),
        (&["--edge", "127.0.0.1:9"], "is no origin"),
        (&["--edge", ours, "--inbound-path", "hook"], "--inbound-path hook: a path begins with /"),
        (
            &["--edge", ours, "--status-path", "/a/../b"],
            "--status-path /a/../b: would be sent as /b",
        ),
        (&["--edge", ours, "--account", "AC1"], "must be an account SID"),
        (&["--edge", ours, "--rate", "0"], "0 is not in 1..=5000"),
        (&["--edge", ours, "--rate", "5001"], "5001 is not in 1..=5000"),
        (&["--edge", ours, "--for", "2h"], "at most 1h"),
        (&["--edge", ours, "--sender", "whatsapp:+15551234567"], "without a channel"),
    ] {
        let ran = load(options);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{options:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{options:?}: {ran:?}");
    }
}

#[test]
fn interrupted_run_prints_its_report() {
    let edge = Edge::start(StatusCode::OK);
    let mut child = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["load", "--rate", "50", "--for", "1h", "--edge", &edge.url, "--origin", ORIGIN])
        .env_clear()
        .envs(OURS)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while edge.received.lock().unwrap().len() < 10 {
        assert!(Instant::now() < deadline, "nothing is sent");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("; interrupted\n"), "{out}");
    assert!(out.contains("\nEvery genuine webhook had 2xx"), "{out}");
}
