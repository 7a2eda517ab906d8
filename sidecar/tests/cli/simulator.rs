//! The simulator as Twilio's own SDK sees it, and its webhooks as Twilio's own validator judges them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::program::repository;

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
fn twilios_sdk_sends_and_its_validator_believes_what_is_told() {
    let root = repository();
    let python = root.join(".venv/bin/python");
    // The receiver's port is known only to the script; people's messages go where it says it listens.
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
    let told = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "run `make setup-test` if twilio is missing: {told}");
    assert_eq!(String::from_utf8_lossy(&judged.stdout).trim(), "judged");
}
