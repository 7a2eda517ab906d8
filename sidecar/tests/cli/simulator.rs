//! Checks the simulator with Twilio's own SDK, and its webhooks with Twilio's own validator.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, ToSpan};

use crate::support::program::repository;

struct Simulator {
    child: Child,
    url: String,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn simulator(arguments: &[&str]) -> Simulator {
    let mut child = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["simulator", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().rsplit(' ').next().unwrap().to_owned();
    Simulator { child, url }
}

#[test]
fn twilios_sdk_sends_and_its_validator_accepts_the_callbacks() {
    let root = repository();
    let python = root.join(".venv/bin/python");
    // Reserves a free port, on which the script receives the webhooks of inbound messages.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = listener.local_addr().unwrap();
    drop(listener);
    let inbound = format!("http://{receiver}/inbound#rc=1&rp=5xx");
    let fallback = format!("http://{receiver}/fallback");
    let simulator = simulator(&[
        "--step-ms",
        "20",
        "--inbound-url",
        &inbound,
        "--inbound-fallback-url",
        &fallback,
    ]);
    let judged = Command::new(&python)
        .arg(root.join("sidecar/tests/cli/simulator.py"))
        .args([&simulator.url, &receiver.port().to_string()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {errors}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged");
}

const ACCOUNT: (&str, &str) =
    ("AC00112233445566778899aabbccddeeff", "0123456789abcdef0123456789abcdef");

#[test]
fn answers_match_twilios_description() {
    let root = repository();
    let simulator = simulator(&["--step-ms", "20"]);
    let (later, soon) = (Timestamp::now() + 3600.seconds(), Timestamp::now() + 60.seconds());
    let config = serde_json::json!({
        "base": simulator.url, "user": ACCOUNT.0, "password": ACCOUNT.1, "account": ACCOUNT.0,
        "specs": root.join(".tools/openapi"), "to": "+14155550123", "content": true,
        "flow": "FW00112233445566778899aabbccddeeff",
        "later": later.to_string(), "soon": soon.to_string(),
        "service": format!("VA{}", "0".repeat(32)),
        "codes": format!("{}/simulator/verifications", simulator.url),
    });
    let judged = Command::new(root.join(".tools/webhooks/bin/python"))
        .arg(root.join("sidecar/tests/cli/openapi.py"))
        .arg(config.to_string())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&judged.stderr);
    assert!(
        judged.status.success(),
        "run `make setup-test` if a module or a file is missing: {errors}"
    );
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged 24");
}

#[test]
fn requests_over_the_limit_get_429() {
    let simulator = simulator(&["--requests-per-second", "3"]);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().into();
    let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", simulator.url, ACCOUNT.0);
    let basic = STANDARD.encode(format!("{}:{}", ACCOUNT.0, ACCOUNT.1));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut taken = 0;
    loop {
        let asked = agent.get(&url).header("Authorization", format!("Basic {basic}")).call();
        let mut answer = asked.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["Retry-After"], "1");
            let body = answer.body_mut().read_to_string().unwrap();
            assert!(body.contains("\"code\":20429"), "{body}");
            break;
        }
        assert_eq!(answer.status(), 200);
        taken += 1;
        assert!(Instant::now() < deadline, "the simulator accepts every request");
    }
    assert!(taken >= 3, "{taken} requests were accepted");
}
