//! The API key somebody tries the demo with: made by `twilio-edge keys create` as any other, and kept in a file for commands
//! to read. One that the sidecar knows is not made again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::account::write_private;

/// How long the sidecar may take to say whether it knows a key.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `keys create --json` prints, as far as it matters.
#[derive(Deserialize)]
struct Made {
    token: String,
}

/// Sees to it that `file` has a key that the sidecar takes; `create` makes one and prints it.
pub async fn keep(file: &Path, sidecar: SocketAddr, create: Command) -> Result<(), String> {
    if let Ok(kept) = fs::read_to_string(file)
        && is_known(sidecar, kept.trim()).await
    {
        return Ok(());
    }
    let output = tokio::process::Command::from(create).output().await;
    let output = output.map_err(|error| format!("cannot make an API key: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot make an API key: {}", said.trim()));
    }
    let made: Made = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cannot make an API key: {error}"))?;
    write_private(file, &(made.token + "\n"))
        .map_err(|error| format!("{}: {error}", file.display()))
}

async fn is_known(sidecar: SocketAddr, key: &str) -> bool {
    // Whoever installed one first has chosen for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build() else {
        return false;
    };
    let asked = client.get(format!("http://{sidecar}/v1/key")).bearer_auth(key).send().await;
    asked.is_ok_and(|answer| answer.status().is_success())
}
