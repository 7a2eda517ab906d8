//! Client of a sidecar's API for the commands that act as an application does, with an API key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use ureq::{Agent, http::Request};

use super::credentials::variable;

/// Environment variable with the API key, for calls without a key file.
const KEY: &str = "TWILIO_EDGE_API_KEY";

/// Key of `make run`, which is used if the caller names no other one.
const DEMO_KEY: &str = "data/demo.key";

/// Time limit of an answer, in addition to the wait that a command asks for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Largest key file, in bytes.
const LARGEST_KEY: usize = 4096;

/// Address of the sidecar, and the API key.
#[derive(Debug, clap::Args)]
pub(super) struct ApiClient {
    /// URL of the sidecar
    #[arg(long, env = "TWILIO_EDGE_API_URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// File with an API key of scope app; default: TWILIO_EDGE_API_KEY, or the key of `make run` in data/demo.key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Request of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApiRequest<'a> {
    /// `GET` or `POST`.
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: &'a str,
    /// JSON of a `POST`.
    pub(super) body: Option<&'a Value>,
    pub(super) idempotency_key: Option<&'a str>,
    /// Time for which the sidecar may wait before it answers.
    pub(super) wait: Duration,
}

impl ApiClient {
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
        let text = twilio_edge_platform::file_access::read_secret(file)
            .map_err(|problem| format!("--key-file: {}: {problem}", file.display()))?;
        let token = text.trim();
        let is_one = (1..=LARGEST_KEY).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_one {
            true => Ok(token.to_owned()),
            false => Err(format!("--key-file: {}: has no key", file.display())),
        }
    }

    /// Sends the request; returns the HTTP status and the text to print.
    ///
    /// # Errors
    /// Returns the reason why no answer of a sidecar came.
    pub(super) fn request(
        &self,
        token: &str,
        request: ApiRequest<'_>,
    ) -> Result<(u16, String), String> {
        let ApiRequest { method, path, body, idempotency_key, wait } = request;
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE + wait))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let mut request = Request::builder()
            .method(method)
            .uri(self.url_of(path))
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let failed = |error: ureq::Error| format!("{}: {error}", self.url);
        let wrong = |error: ureq::http::Error| error.to_string();
        let answer = match body {
            Some(body) => agent.run(request.body(body.to_string()).map_err(wrong)?),
            None => agent.run(request.body(()).map_err(wrong)?),
        };
        let mut answer = answer.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_string().map_err(failed)?;
        let body: Value = serde_json::from_str(&body).map_err(|_| {
            format!(
                "--url: {}: answered with status {status} and no JSON; check that it is a sidecar",
                self.url
            )
        })?;
        let shown = match status {
            200..=299 => serde_json::to_string_pretty(&body).unwrap_or_default(),
            _ => problem(&body),
        };
        Ok((status, shown))
    }
}

/// Returns the idempotency key of a command, or a new one.
///
/// # Errors
/// The system supplies no random bytes.
pub(super) fn idempotency_key(given: Option<&str>) -> Result<String, String> {
    match (given, getrandom::u64()) {
        (Some(key), _) => Ok(key.to_owned()),
        (None, Ok(dice)) => Ok(format!("cli-{dice:016x}")),
        (None, Err(error)) => Err(format!("no random bytes: {error}")),
    }
}

/// Reads `NAME=TEXT`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Formats a problem document of the API as one line.
pub(super) fn problem(body: &Value) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, title, detail, remedy) =
        (text("code"), text("title"), text("detail"), text("remedy"));
    let text = if detail.is_empty() { title } else { detail };
    format!("{code}: {text} {remedy}").trim().to_owned()
}
