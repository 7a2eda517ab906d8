//! Options of commands that send signed webhooks: the account that signs, the origin that is signed, and the edge that
//! receives the webhooks.

use std::path::PathBuf;

use twilio_edge_demo as demo;
use twilio_edge_filter::signature::Key;

use super::credentials::{self, variable};

#[derive(Debug, clap::Args)]
pub(super) struct SigningOptions {
    /// Public origin, which is signed [env: PUBLIC_ORIGIN] [default: the value of --edge]
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// URL of the edge that receives it [default: http://127.0.0.1:8080, or EDGE_PORT]
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
    /// Account of the webhook [env: TWILIO_ACCOUNT_SID]
    #[arg(long, value_name = "AC..")]
    account: Option<String>,
    /// File with the auth token in its first line [env: TWILIO_AUTH_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Account, key and addresses of signed webhooks.
#[derive(Debug)]
pub(super) struct Signing {
    /// `AC..`
    pub(super) account_sid: String,
    /// Key of the account's auth token.
    pub(super) key: Key,
    /// Origin that is signed, as Twilio knows it: `https://hooks.example.com`
    pub(super) origin: String,
    /// Origin that receives the requests: `http://127.0.0.1:8080`
    pub(super) edge: String,
}

impl SigningOptions {
    /// Reads the credentials and checks the addresses.
    pub(super) fn resolve(&self) -> Result<Signing, String> {
        let account = credentials::account(self.account.as_deref(), self.token_file.as_deref())?;
        let key = Key::auth_token(account.token.label, &account.token.secret)
            .ok_or("the auth token cannot be a key")?;
        let local = format!(
            "http://127.0.0.1:{}",
            variable("EDGE_PORT").unwrap_or(demo::EDGE_PORT.to_string())
        );
        let edge = checked_origin(self.edge.as_deref().unwrap_or(&local))?;
        let origin = self.origin.clone().or_else(|| variable("PUBLIC_ORIGIN"));
        let origin = checked_origin(origin.as_deref().unwrap_or(&edge))?;
        Ok(Signing { account_sid: account.sid, key, origin, edge })
    }
}

impl Signing {
    /// Returns the host that is signed, with its port, if it differs from that of the edge.
    pub(super) fn other_host(&self) -> Option<&str> {
        authority(&self.origin).filter(|host| Some(*host) != authority(&self.edge))
    }
}

/// Checks a path and query to sign. `option` names its option in the error.
pub(super) fn checked_path(option: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{option} {path}: a path begins with /"));
    }
    if path.contains('#') {
        return Err(format!("{option} {path}: a fragment is neither sent nor signed"));
    }
    Ok(())
}

/// Checks that the text is `scheme://host[:port]` and nothing more, so that origin and path form the URL.
fn checked_origin(text: &str) -> Result<String, String> {
    let origin = text.strip_suffix('/').unwrap_or(text);
    match authority(origin) {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => {
            Ok(origin.to_owned())
        }
        _ => Err(format!(
            "{text} is no origin: give http://host or https://host, with a port if need be"
        )),
    }
}

fn authority(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}
