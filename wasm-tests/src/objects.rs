//! A server with S3's API for the archive, and the proxied line to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::line::Line;
use crate::process::{Process, bounded, free_port, isolated, until};
use crate::repository;

const BUCKET: &str = "edge";

/// A running server, with a bucket.
pub struct ObjectStore {
    /// The sidecar connects to its near end.
    line: Line,
    process: Mutex<Process>,
}

impl ObjectStore {
    /// Starts one, with a log in `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        let line = Line::to(SocketAddr::from(([127, 0, 0, 1], free_port()?))).await?;
        let mut command = isolated(installed("moto_server")?);
        command.args(["-H", "127.0.0.1", "-p", &line.far().port().to_string()]);
        let process = Mutex::new(Process::start("objects", command, folder)?);
        let store = Self { line, process };
        until("the object store to answer", async || {
            store.process.lock().await.check_alive()?;
            Ok(TcpStream::connect(store.line.far()).await.ok())
        })
        .await?;
        store.reader("make").await?;
        Ok(store)
    }

    /// Returns the line, which scenarios can cut.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Returns the settings with which a sidecar archives here.
    pub fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("TWILIO_EDGE_ARCHIVE_URL", format!("s3://{BUCKET}/prod")),
            ("TWILIO_EDGE_ARCHIVE_ENDPOINT", format!("http://{}", self.line.near())),
            // Archive as early as possible.
            ("TWILIO_EDGE_ARCHIVE_AGE_S", "1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "edge".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "hush".to_owned()),
        ]
    }

    /// Returns the archived lines, as boto3 and gzip read them: see `reader.py`.
    pub async fn archived(&self) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for object in self.reader("read").await?.lines() {
            let mut object: Value = serde_json::from_str(object)?;
            let found = object.get_mut("lines").and_then(Value::as_array_mut);
            let found = found.context("an object without lines")?;
            lines.append(found);
        }
        Ok(lines)
    }

    async fn reader(&self, action: &str) -> Result<String> {
        let mut python = isolated(installed("python")?);
        python.arg(repository().join("sidecar/tests/it/operations/archives/reader.py"));
        python.args([action, "s3", &format!("http://{}", self.line.far()), BUCKET]);
        let output = bounded("read the object store", async {
            Ok(python.kill_on_drop(true).output().await?)
        })
        .await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the request to the object store failed: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn installed(name: &str) -> Result<PathBuf> {
    let program = repository().join(".tools/objects/bin").join(name);
    ensure!(program.exists(), "there is no {}: run `make setup-test`", program.display());
    Ok(program)
}
