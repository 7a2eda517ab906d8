//! A broker that speaks Kafka's protocol, and the proxied line to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::line::Line;
use crate::process::{Process, bounded, free_port, isolated, until};
use crate::repository;

/// A running broker.
pub struct Broker {
    /// Clients connect to its near end.
    line: Line,
    process: Mutex<Process>,
}

impl Broker {
    /// Starts one, with a log in `folder`, and creates these topics with three partitions each.
    pub async fn start(folder: &Path, topics: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let line = Line::to(SocketAddr::from(([127, 0, 0, 1], free_port()?))).await?;
        let mut command = isolated(installed("tansu")?);
        command.args(["--silent", "--storage-engine", "memory://edge/"]);
        command.arg("--listener-url").arg(format!("tcp://{}", line.far()));
        command.arg("--advertised-listener-url").arg(format!("tcp://{}", line.near()));
        let process = Mutex::new(Process::start("broker", command, folder)?);
        let broker = Self { line, process };
        until("the broker to answer", async || {
            broker.process.lock().await.check_alive()?;
            Ok(broker.topics(&["list"]).await?.then_some(()))
        })
        .await?;
        for topic in topics {
            let made = broker.topics(&["create", topic, "--partitions", "3"]).await?;
            ensure!(made, "cannot make the topic {topic}");
        }
        Ok(broker)
    }

    /// Returns the address for `brokers` of a sink.
    pub fn address(&self) -> SocketAddr {
        self.line.near()
    }

    /// Returns the line, which scenarios can cut.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// Returns all records of these topics, as librdkafka's client reads them: see `read.py`.
    pub async fn read(&self, topics: &[&str]) -> Result<Vec<Value>> {
        let mut python = isolated(installed("python")?);
        python.arg(repository().join("sidecar/tests/it/inbound/kafka/read.py"));
        python.arg(self.address().to_string()).args(topics);
        let output =
            bounded("read the topics", async { Ok(python.kill_on_drop(true).output().await?) })
                .await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "reading the topics: {stderr}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    async fn topics(&self, arguments: &[&str]) -> Result<bool> {
        let mut tansu = isolated(installed("tansu")?);
        tansu
            .arg("topic")
            .args(arguments)
            .args(["--broker", &format!("tcp://{}", self.line.far())]);
        Ok(tansu.kill_on_drop(true).output().await?.status.success())
    }
}

fn installed(name: &str) -> Result<PathBuf> {
    let program = repository().join(".tools/kafka/bin").join(name);
    ensure!(program.exists(), "there is no {}: run `make setup-test`", program.display());
    Ok(program)
}
