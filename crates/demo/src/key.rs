//! API keys for trying the demo: created by `twilio-edge keys create` like any other, and stored in files for commands. A
//! key that the sidecar already accepts is not created again. A session of a key signs a browser in.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::account::write_private;

/// Time limit of a request to the sidecar.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Part of the output of `keys create --json`, and of the answer with a session.
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

/// Starts a session of the key in `file`, and returns its token: a browser exchanges it once.
///
/// # Errors
/// The problem in words.
pub async fn start_session(
    file: &Path,
    sidecar: SocketAddr,
    lifetime: Duration,
) -> Result<String, String> {
    let failed = |problem: String| format!("cannot sign in to the console: {problem}");
    let key = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let client = client().ok_or_else(|| failed("no HTTP client".to_owned()))?;
    let request = client.post(format!("http://{sidecar}/v1/sessions")).bearer_auth(key.trim());
    let request = request.body(format!("{{\"lifetime_s\": {}}}", lifetime.as_secs()));
    let response = request.send().await.map_err(|error| failed(error.to_string()))?;
    let body = response.bytes().await.map_err(|error| failed(error.to_string()))?;
    let session: CreatedKey = serde_json::from_slice(&body)
        .map_err(|_| failed(String::from_utf8_lossy(&body).into_owned()))?;
    Ok(session.token)
}

/// Returns a client for the sidecar of this machine.
fn client() -> Option<reqwest::Client> {
    // An earlier call has chosen the provider for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(TIME_LIMIT).build().ok()
}

async fn is_known(sidecar: SocketAddr, key: &str) -> bool {
    let Some(client) = client() else { return false };
    let response = client.get(format!("http://{sidecar}/v1/key")).bearer_auth(key).send().await;
    response.is_ok_and(|answer| answer.status().is_success())
}
