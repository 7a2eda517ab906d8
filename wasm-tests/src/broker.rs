//! A broker that speaks Kafka's protocol, and the line to it. The broker keeps everything in memory, so it can be stopped,
//! but not killed: what it had acknowledged would be gone, and no client could help it. The line is what breaks instead,
//! with whatever is on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::process::{Process, bounded, free_port, isolated, until};
use crate::repository;

/// A running broker.
pub struct Broker {
    /// Where clients are told to go: the near end of the line.
    near: SocketAddr,
    far: SocketAddr,
    line: Mutex<JoinHandle<()>>,
    process: Mutex<Process>,
}

impl Broker {
    /// Starts one, with a log in `folder`, and makes these topics, of three partitions each.
    pub async fn start(folder: &Path, topics: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // A free port may be somebody else's a moment later; there are others.
        let listener = until("a port for the line to the broker", async || {
            Ok(TcpListener::bind(("127.0.0.1", free_port()?)).await.ok())
        })
        .await?;
        let near = listener.local_addr()?;
        let far = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = isolated(installed("tansu")?);
        command.args(["--silent", "--storage-engine", "memory://edge/"]);
        command.arg("--listener-url").arg(format!("tcp://{far}"));
        command.arg("--advertised-listener-url").arg(format!("tcp://{near}"));
        let process = Mutex::new(Process::start("broker", command, folder)?);
        let line = Mutex::new(carry(listener, far));
        let broker = Self { near, far, line, process };
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

    /// For `brokers` of a sink.
    pub fn address(&self) -> SocketAddr {
        self.near
    }

    /// Breaks every connection to it; no new one is taken.
    pub async fn cut(&self) {
        let line = self.line.lock().await;
        line.abort();
        until_over(&line).await;
    }

    /// Takes connections again after [`Self::cut`].
    pub async fn mend(&self) -> Result<()> {
        let listener = until("the line to the broker to be free", async || {
            Ok(TcpListener::bind(self.near).await.ok())
        });
        *self.line.lock().await = carry(listener.await?, self.far);
        Ok(())
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// All records of these topics, as librdkafka's client reads them: see `read.py`.
    pub async fn read(&self, topics: &[&str]) -> Result<Vec<Value>> {
        let mut python = isolated(installed("python")?);
        python.arg(repository().join("sidecar/tests/it/kafka/read.py"));
        python.arg(self.near.to_string()).args(topics);
        let output =
            bounded("read the topics", async { Ok(python.kill_on_drop(true).output().await?) })
                .await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "reading the topics: {complaint}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    async fn topics(&self, arguments: &[&str]) -> Result<bool> {
        let mut tansu = isolated(installed("tansu")?);
        tansu.arg("topic").args(arguments).args(["--broker", &format!("tcp://{}", self.far)]);
        Ok(tansu.kill_on_drop(true).output().await?.status.success())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.line.get_mut().abort();
    }
}

async fn until_over(task: &JoinHandle<()>) {
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
}

fn carry(listener: TcpListener, far: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        // The set ends its connections with this task.
        let mut carrying = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            carrying.spawn(async move {
                let mut broker = TcpStream::connect(far).await?;
                tokio::io::copy_bidirectional(&mut client, &mut broker).await
            });
            while carrying.try_join_next().is_some() {}
        }
    })
}

fn installed(name: &str) -> Result<PathBuf> {
    let program = repository().join(".tools/kafka/bin").join(name);
    ensure!(program.exists(), "there is no {}: run `make setup-test`", program.display());
    Ok(program)
}
