//! A real Redis that scenarios kill: one without persistence, or one that persists every acknowledged write.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::process::{Process, bounded, free_port, isolated, until};

/// Persistence of a Redis across a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// No persistence, for leases.
    Nothing,
    /// Persists acknowledged writes, for streams. Written before the answer, but not synced, because only processes are
    /// killed.
    Everything,
}

/// A running redis-server.
pub struct Redis {
    port: u16,
    folder: PathBuf,
    memory: Memory,
    process: Mutex<Process>,
}

impl Redis {
    /// Starts one without persistence and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, Memory::Nothing).await
    }

    /// Starts one with its files in `folder` and waits until it answers.
    pub async fn start_with(folder: &Path, memory: Memory) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let process = Mutex::new(launch(port, folder, memory)?);
        let redis = Self { port, folder: folder.to_owned(), memory, process };
        redis.until_ready().await?;
        Ok(redis)
    }

    /// Returns the value for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Starts it again, with its persisted data, at the same address.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await = launch(self.port, &self.folder, self.memory)?;
        self.until_ready().await
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// Returns the fields of each entry of a stream, in its order, as Redis's own client reads them.
    pub async fn stream(&self, name: &str) -> Result<Vec<Vec<(String, String)>>> {
        let mut client = isolated("redis-cli");
        client.args(["-p", &self.port.to_string(), "--json", "XRANGE", name, "-", "+"]);
        let output =
            bounded("read a stream", async { Ok(client.kill_on_drop(true).output().await?) })
                .await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let entries: Vec<(String, Vec<String>)> = serde_json::from_slice(&output.stdout)?;
        let fields = entries.into_iter().map(|(_, fields)| {
            let (names, values) = (fields.iter().step_by(2), fields.iter().skip(1).step_by(2));
            names.cloned().zip(values.cloned()).collect()
        });
        Ok(fields.collect())
    }

    async fn until_ready(&self) -> Result<()> {
        until("Redis to answer", async || {
            self.process.lock().await.check_alive()?;
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await else {
                return Ok(None);
            };
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            let read = stream.read_exact(&mut answer).await;
            Ok((read.is_ok() && &answer == b"+PONG\r\n").then_some(()))
        })
        .await
    }
}

fn launch(port: u16, folder: &Path, memory: Memory) -> Result<Process> {
    let append_only = if memory == Memory::Everything { "yes" } else { "no" };
    let mut command = isolated("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", append_only]);
    command.args(["--appendfsync", "no", "--port", &port.to_string(), "--dir"]).arg(folder);
    Process::start("redis", command, folder).context("redis-server: run `make setup-test`")
}
