//! Settings of an HTTP sink in the sinks file. Pure: it connects to nothing.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use toml::Value;

use super::timeout;
use twilio_edge_platform::strict_toml::{Fields, Reading};

pub(super) const FIELDS: [&str; 3] = ["url", "format", "secrets"];

/// Upper bound of secrets: the current one and those that it replaces.
const MAX_SECRETS: usize = 4;
/// Prefix of a Standard Webhooks secret.
const SECRET_PREFIX: &str = "whsec_";
/// Shortest and longest key that the specification permits, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Settings of an HTTP endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Http {
    pub url: String,
    pub format: Format,
    /// Keys of Standard Webhooks signatures, the current one first; empty for unsigned requests.
    pub secrets: Vec<Vec<u8>>,
    pub timeout: Duration,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Body format of an HTTP sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON event.
    Event,
    /// Form as Twilio sent it.
    Form,
}

pub(super) fn read(reading: &mut Reading, path: &str, table: Fields<'_>) -> Http {
    let at = format!("{path}.url");
    let url = reading.text(&at, table.get("url"));
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if !url.is_empty()
        && host.is_none_or(|rest| rest.is_empty() || rest.starts_with(['/', ':', '?']))
    {
        reading.problem(&at, "must be http://HOST.. or https://HOST..");
    }
    if host.and_then(|rest| rest.split('/').next()).is_some_and(|host| host.contains('@')) {
        reading.problem(&at, "must not hold a name or password: sign with `secrets` instead");
    }
    let format = match table.get("format").map(Value::as_str) {
        None | Some(Some("event")) => Format::Event,
        Some(Some("form")) => Format::Form,
        Some(_) => {
            reading.problem(&format!("{path}.format"), "must be event or form");
            Format::Event
        }
    };
    let secrets = format!("{path}.secrets");
    let secrets = reading
        .list(&secrets, table.get("secrets"), MAX_SECRETS)
        .iter()
        .enumerate()
        .map(|(n, secret)| {
            let at = format!("{secrets}[{n}]");
            let text = reading.text(&at, Some(secret));
            let key = text.strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
            match key.filter(|key| SECRET_BYTES.contains(&key.len())) {
                Some(key) => key,
                None => {
                    if !text.is_empty() {
                        reading.problem(&at, "must be whsec_ and 24 to 64 bytes in base64");
                    }
                    Vec::new()
                }
            }
        })
        .collect();
    Http { url, format, secrets, timeout: timeout(reading, path, table) }
}
