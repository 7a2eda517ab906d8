//! API key for trying the demo: created by `twilio-edge keys create` like any other, and stored in a file for commands. A
//! key that the sidecar already accepts is not created again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::account::write_private;

/// Time limit of the request that checks a key.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Part of the output of `keys create --json`.
#[derive(Deserialize)]
struct CreatedKey {
    token: String,
}

/// Ensures that `file` has a key that the sidecar accepts; `create` creates one and prints it.
///
/// # Errors
/// The problem in words.
pub async fn ensure_key(file: &Path, sidecar: SocketAddr, create: Command) -> Result<(), String> {
    if let Ok(key) = fs::read_to_string(file)
        && is_known(sidecar, key.trim()).await
    {
        return Ok(());
    }
    let output = tokio::process::Command::from(create).output().await;
    let output = output.map_err(|error| format!("`twilio-edge keys create` failed: {error}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`twilio-edge keys create` failed: {}", message.trim()));
    }
    let key: CreatedKey = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`twilio-edge keys create` failed: {error}"))?;
    write_private(file, &(key.token + "\n")).map_err(|error| format!("{}: {error}", file.display()))
}

async fn is_known(sidecar: SocketAddr, key: &str) -> bool {
    // An earlier call has chosen the provider for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(TIME_LIMIT).build() else {
        return false;
    };
    let response = client.get(format!("http://{sidecar}/v1/key")).bearer_auth(key).send().await;
    response.is_ok_and(|answer| answer.status().is_success())
}
