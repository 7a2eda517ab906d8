//! Configuration of the sidecar from three sources: the built-in `defaults.toml`, which is also the manual, one TOML
//! file, and the environment. Later sources override earlier ones. All problems are reported at once, each with the path
//! of its setting. Does not know how a setting is used.

pub mod bucket_location;
mod checks;
mod media;
mod sources;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub use self::sources::parse;
pub use self::{
    media::{InboundMedia, Media, MediaStore},
    sources::{Merged, without_password},
};
use crate::config::bucket_location::BucketLocation;
use crate::listener::admission::Limits;
use twilio_edge_domain::{
    lease::Periods, optout::Keywords, policy::Policy, retention::Retention,
    sending::verification::OptOutPolicy,
};

/// Every setting with its default and its meaning: the manual.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Value that disables a listener or the spool. An empty variable counts as unset, so a value is needed.
const OFF: &str = "off";

/// All settings; `defaults.toml` documents each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Config {
    pub listen: String,
    pub token: Secret,
    pub demo: bool,
    pub admin: Admin,
    pub api: Api,
    pub stream: Stream,
    pub console: Console,
    pub connections: Connections,
    pub accounts: Accounts,
    pub sinks: Sinks,
    pub archive: Archive,
    pub sending: Sending,
    pub email: Email,
    pub verify: Verify,
    pub studio: Studio,
    pub media: Media,
    pub database: Database,
    pub redis: Redis,
    pub leases: Leases,
    pub events: Events,
    pub http: Http,
    pub log: Log,
    pub optout: Keywords,
    pub policy: Policy,
    pub retention: Retention,
    pub redaction: Redaction,
    pub telemetry: Telemetry,
    #[serde(skip)]
    pub effective: Vec<Setting>,
}

/// One setting in effect, without its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Path of the setting, such as `leases.period_ms`.
    pub name: String,
    /// Environment variable of the setting.
    pub variable: String,
    /// Value in effect; a secret is replaced by `***`.
    pub value: toml::Value,
    /// True if the value is that of `defaults.toml`.
    pub is_default: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Admin {
    pub listen: String,
}

impl Leases {
    /// Returns the periods of leases.
    pub fn periods(&self) -> Periods {
        Periods {
            lease_ms: i64::from(self.period_ms),
            result_ms: i64::from(self.result_ttl_s).saturating_mul(1000),
        }
    }
}

impl Config {
    /// Returns the URL of the simulator that a demo sends messages to; `None` if they go to Twilio.
    pub fn simulator_url(&self) -> Option<&str> {
        let url = self.sending.base_url.as_str();
        let host = url.strip_prefix("http://")?;
        let is_local =
            ["127.0.0.1:", "[::1]:", "localhost:"].iter().any(|local| host.starts_with(local));
        (self.demo && is_local).then_some(url)
    }
}

impl Admin {
    /// Returns the listen address; `None` if the listener is disabled.
    pub fn address(&self) -> Option<&str> {
        Some(self.listen.as_str()).filter(|listen| !listen.is_empty() && *listen != OFF)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Api {
    pub requests_per_second: u32,
    pub burst: u32,
    pub bad_tokens_per_minute: u32,
    pub max_body_bytes: usize,
    pub max_import_bytes: usize,
    pub idempotency_ttl_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Console {
    pub enabled: bool,
    pub session_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Connections {
    pub max: usize,
    pub max_per_address: usize,
    pub header_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub known_idle_timeout_ms: u64,
    pub http2_streams: u32,
    pub max_header_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Stream {
    pub max: usize,
    pub max_per_key: usize,
    pub heartbeat_ms: u64,
    pub slow_ms: u64,
    pub max_age_s: u64,
}

impl Config {
    /// Returns the settings of live streams in effect: a listener closes a quiet connection, so signs of life come sooner.
    pub fn live_streams(&self) -> Stream {
        let heartbeat_ms = self.stream.heartbeat_ms.min(self.connections.idle_timeout_ms / 2);
        Stream { heartbeat_ms, ..self.stream.clone() }
    }
}

impl Connections {
    /// Returns the limits of each listener.
    pub fn limits(&self) -> Limits {
        Limits {
            max: self.max,
            max_per_address: self.max_per_address,
            header_timeout: Duration::from_millis(self.header_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            known_idle_timeout: Duration::from_millis(self.known_idle_timeout_ms),
            streams: self.http2_streams,
            header_bytes: self.max_header_bytes,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Accounts {
    pub file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Sinks {
    pub file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Archive {
    pub url: String,
    pub endpoint: String,
    pub region: String,
    pub credentials_file: String,
    pub age_s: u32,
    pub lines: u32,
    pub bytes: u32,
}

impl Archive {
    /// Returns the location of the bucket.
    pub fn bucket_location(&self) -> BucketLocation<'_> {
        BucketLocation {
            url: &self.url,
            endpoint: &self.endpoint,
            region: &self.region,
            credentials_file: &self.credentials_file,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Sending {
    pub file: String,
    pub base_url: String,
    pub content_base_url: String,
    pub templates_every_s: u64,
    pub status_callback_url: String,
    pub timeout_ms: u64,
    pub per_second: u32,
    pub concurrency: usize,
    pub concurrency_floor: usize,
    pub authentication_reserve: usize,
    pub give_up_s: u64,
    pub errors_file: String,
    pub absent_after_s: u64,
    pub reconcile_for_s: u64,
    pub fallback_for_s: u64,
    pub repeat_after_s: u64,
    pub repeat_for_s: u64,
    pub status_after_s: u64,
    pub routing_file: String,
    pub answer_within_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Email {
    pub file: String,
    pub base_url: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Verify {
    pub base_url: String,
    pub opted_out: OptOutPolicy,
    pub window_s: u64,
    pub per_number: u32,
    pub per_address: u32,
    pub status_after_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Studio {
    pub base_url: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Database {
    pub url: Secret,
    pub max_connections: u32,
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub readers: u32,
    pub read_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Redis {
    pub url: Secret,
    pub timeout_ms: u64,
    pub retry_after_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Leases {
    pub period_ms: u32,
    pub result_ttl_s: u32,
    pub recall_s: u32,
    pub max_answer_bytes: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Events {
    pub queue: usize,
    pub batch: usize,
    pub linger_ms: u64,
    pub spool_dir: String,
    pub spool_max_bytes: u64,
}

impl Events {
    /// Returns the folder of the spool; `None` if it is disabled. The default is beside a database file, else
    /// `data/spool`.
    pub fn spool_folder(&self, database: Option<&Path>) -> Option<PathBuf> {
        match (self.spool_dir.as_str(), database) {
            (OFF, _) => None,
            ("", Some(database)) => {
                let mut beside = database.as_os_str().to_owned();
                beside.push(".spool");
                Some(beside.into())
            }
            ("", None) => Some(PathBuf::from("data/spool")),
            (folder, _) => Some(folder.into()),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Http {
    pub max_body_bytes: usize,
    pub request_timeout_ms: u64,
    pub shutdown_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for humans.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Redaction {
    pub hash_key: Secret,
    pub every_s: u64,
    pub batch: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Telemetry {
    pub otlp_endpoint: String,
    pub sample_percent: u32,
    pub every_ms: u64,
    pub timeout_ms: u64,
}

/// A value that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(secret)" })
    }
}

/// All problems of the configuration, one line each: the path or variable, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Settings of the built-in `defaults.toml`, without a file and without the environment.
///
/// # Panics
///
/// The built-in defaults are invalid, which a test rules out.
#[expect(clippy::unwrap_used, reason = "defaults.toml is part of the binary")]
pub fn defaults() -> Config {
    Merged::of(None, std::collections::BTreeMap::new()).check().unwrap()
}
