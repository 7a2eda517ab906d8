//! A real Redis that keeps nothing, to be killed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::process::{Process, free_port, isolated, until};

/// A running redis-server.
pub struct Redis {
    port: u16,
    folder: PathBuf,
    process: Mutex<Process>,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let process = Mutex::new(launch(port, folder)?);
        let redis = Self { port, folder: folder.to_owned(), process };
        redis.until_ready().await?;
        Ok(redis)
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`: all it knew is gone.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Starts it again, empty, at the same address.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await = launch(self.port, &self.folder)?;
        self.until_ready().await
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

fn launch(port: u16, folder: &Path) -> Result<Process> {
    let mut command = isolated("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
    command.arg(port.to_string()).arg("--dir").arg(folder);
    Process::start("redis", command, folder).context("redis-server: run `make setup-test`")
}
