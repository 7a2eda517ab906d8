//! Options of commands that use the API of a sidecar instead of its database: the URL, and an API key.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::credentials::variable;
use twilio_edge_platform::file_access;

/// Environment variable with the API key, for calls without a key file.
const KEY: &str = "TWILIO_EDGE_API_KEY";

/// Key of `make run`, which is used if the caller names no other one.
const DEMO_KEY: &str = "data/demo.key";

/// Largest key file, in bytes.
const LARGEST_KEY: usize = 4096;

#[derive(Debug, clap::Args)]
pub(super) struct ApiOptions {
    /// URL of the sidecar
    #[arg(long, env = "TWILIO_EDGE_API_URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// File with an API key of scope app; default: TWILIO_EDGE_API_KEY, or the key of `make run` in data/demo.key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl ApiOptions {
    /// Returns the URL of the sidecar, as the caller wrote it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL of a path of the API.
    pub(super) fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }

    /// Reads the API key.
    ///
    /// # Errors
    /// There is none, or its file cannot be used; the text names the option.
    pub(super) fn token(&self) -> Result<String, String> {
        let demo = Path::new(DEMO_KEY);
        let file = match (&self.key_file, variable(KEY)) {
            (Some(file), _) => file,
            (None, Some(token)) => return Ok(token),
            (None, None) if demo.exists() => demo,
            (None, None) => {
                return Err(format!("there is no API key: use --key-file, or set {KEY}"));
            }
        };
        let text = file_access::read_secret(file)
            .map_err(|problem| format!("--key-file: {}: {problem}", file.display()))?;
        let token = text.trim();
        let is_one = (1..=LARGEST_KEY).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_one {
            true => Ok(token.to_owned()),
            false => Err(format!("--key-file: {}: has no key", file.display())),
        }
    }
}

/// Formats a problem document of the API as one line.
pub(super) fn problem(body: &Value) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, title, detail, remedy) =
        (text("code"), text("title"), text("detail"), text("remedy"));
    let text = if detail.is_empty() { title } else { detail };
    format!("{code}: {text} {remedy}").trim().to_owned()
}
