//! The simulator of Twilio in a separate process, and the messages that it created.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{support::servers::Guarded, support::sidecar::ACCOUNT, support::world::World};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Verify Service of the account.
pub(crate) const SERVICE: &str = "VA00112233445566778899aabbccddeeff";

/// A running simulator.
pub(crate) struct Simulator {
    _process: Guarded,
    pub(crate) base: String,
}

impl Simulator {
    /// Starts it with these options, and with short delays.
    pub(crate) fn start(world: &World, options: &[&str]) -> Simulator {
        // Tests may ask the simulator before the first sidecar.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Simulator::of(world, &[ACCOUNT], options)
    }

    /// Starts the simulator for these accounts, which share one secret.
    pub(crate) fn of(world: &World, account_sids: &[&str], options: &[&str]) -> Simulator {
        let accounts = world.directory.path().join("accounts.toml");
        let known: String = account_sids.iter().map(|sid| account(sid)).collect();
        std::fs::write(&accounts, known).unwrap();
        let output = world.directory.path().join("simulator.out");
        let script = format!(
            "exec \"$0\" simulator --listen 127.0.0.1:0 --step-ms 20 --accounts '{}' {} >'{}'",
            accounts.display(),
            options.join(" "),
            output.display()
        );
        let program = env!("CARGO_BIN_EXE_twilio-edge");
        let process = Guarded::start(
            Path::new("sh"),
            &["-c", &script, program],
            &[],
            "KILL",
            None,
            Stdio::null(),
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let line = std::fs::File::open(&output)
                .ok()
                .and_then(|file| BufReader::new(file).lines().next())
                .and_then(Result::ok);
            if let Some((_, base)) = line.as_deref().and_then(|line| line.split_once(" on ")) {
                return Simulator { _process: process, base: base.trim().to_owned() };
            }
            assert!(Instant::now() < deadline, "no simulator");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a sending file with its credentials.
    pub(crate) fn credentials(&self, world: &World) -> String {
        let file = world.directory.path().join("sending.toml");
        let service = format!("verify_service_sid = \"{SERVICE}\"\n");
        std::fs::write(&file, account(ACCOUNT) + &service).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Returns the texts of all created messages, by SID.
    pub(crate) async fn made(&self) -> BTreeMap<String, String> {
        let made = self.listed(ACCOUNT).await;
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        made.iter().map(|one| (text(one, "sid"), text(one, "body"))).collect()
    }

    /// Returns the created messages of an account, as it lists them, oldest first.
    pub(crate) async fn listed(&self, account_sid: &str) -> Vec<Value> {
        let client = reqwest::Client::new();
        let mut listed = Vec::new();
        let first = format!("/2010-04-01/Accounts/{account_sid}/Messages.json?PageSize=1000");
        let mut next = Some(first);
        while let Some(uri) = next {
            let asked = client.get(format!("{}{uri}", self.base));
            let asked = asked.basic_auth(account_sid, Some(SECRET));
            let page: Value = asked.send().await.unwrap().json().await.unwrap();
            listed.extend(page["messages"].as_array().unwrap().iter().cloned());
            next = page["next_page_uri"].as_str().map(str::to_owned);
        }
        listed.reverse();
        listed
    }

    /// Returns the verifications of Twilio Verify, with their codes, the latest first.
    pub(crate) async fn verifications(&self) -> Vec<Value> {
        let url = format!("{}/simulator/verifications", self.base);
        let shown: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        shown["verifications"].as_array().unwrap().clone()
    }

    /// Returns the number of answers by request and status; a request is for instance `POST Messages.json`.
    pub(crate) async fn answered(&self) -> Value {
        let url = format!("{}/simulator/requests", self.base);
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }
}

pub(crate) fn account(account_sid: &str) -> String {
    format!("[[account]]\nsid = \"{account_sid}\"\nauth_token = \"{SECRET}\"\n")
}
