//! What the sidecar is told, from three sources: `defaults.toml` (built in, and the manual), one TOML file, the
//! environment; later ones win. Every problem of all three is reported at once, with the path of its setting.
//! Knows nothing of how a setting is used.

mod media;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Table, Value};

pub use self::media::{Media, MediaStore};
use crate::{
    accounts,
    bucket::Place,
    domain::{archive, lease::Periods, optout::Keywords, policy::Policy, retention::Retention},
    doors, sinks, twilio,
};

/// Every setting with its default and what it means: the manual.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// Settings whose variable is not `TWILIO_EDGE_` and their path.
const OWN_NAMES: [(&str, &str); 3] = [
    ("database.url", "DATABASE_URL"),
    ("redis.url", "REDIS_URL"),
    ("telemetry.otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Settings that may also be read from a file, named by their variable and `_FILE`.
const SECRETS: [&str; 5] =
    ["token", "database.url", "redis.url", "redaction.hash_key", "media.store.link_key"];

/// A listener that is not wanted. An empty variable counts as not set, so there has to be a word for it.
const OFF: &str = "off";

/// Largest batch of the archive: it is in memory as lines and as an object.
const MOST_ARCHIVE_BYTES: u32 = 64 << 20;

/// All settings; `defaults.toml` says what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Config {
    pub listen: String,
    pub token: Secret,
    pub admin: Admin,
    pub api: Api,
    pub accounts: Accounts,
    pub sinks: Sinks,
    pub archive: Archive,
    pub sending: Sending,
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
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Admin {
    pub listen: String,
}

impl Leases {
    /// The clocks leases go by.
    pub fn periods(&self) -> Periods {
        Periods {
            lease_ms: i64::from(self.period_ms),
            result_ms: i64::from(self.result_ttl_s).saturating_mul(1000),
        }
    }
}

impl Admin {
    /// Where, unless nowhere.
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
    /// Where it is.
    pub fn place(&self) -> Place<'_> {
        Place {
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
    pub give_up_s: u64,
    pub errors_file: String,
    pub absent_after_s: u64,
    pub reconcile_for_s: u64,
    pub fallback_for_s: u64,
    pub routing_file: String,
    pub answer_within_ms: u64,
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
    /// Where the spool is, unless nowhere: as told, else beside the database if that is a file.
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

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
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
    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(secret)" })
    }
}

/// Everything that is wrong with the configuration, one line each: its path or variable, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// The settings as merged, before anybody relies on them.
#[derive(Debug)]
pub struct Merged {
    table: Table,
    problems: Vec<String>,
}

impl Merged {
    /// Reads the sources. Problems are kept for [`Merged::check`].
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Merged {
        let text = file.map(|path| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        });
        Merged::of(text, environment.collect())
    }

    fn of(
        file: Option<Result<String, String>>,
        environment: BTreeMap<OsString, OsString>,
    ) -> Merged {
        let mut merged = Merged { table: Table::new(), problems: Vec::new() };
        match DEFAULTS.parse() {
            Ok(table) => merged.table = table,
            Err(error) => merged.problems.push(format!("defaults.toml: {error}")),
        }
        match file.map(|text| text.and_then(|text| parse(&text))) {
            Some(Ok(table)) => overlay(&mut merged.table, table, "", &mut merged.problems),
            Some(Err(problem)) => merged.problems.push(problem),
            None => {}
        }
        from_environment(&mut merged.table, "", &environment, &mut merged.problems);
        merged
    }

    /// The settings, or everything that is wrong with them. `serving` also asks for what only `serve` needs.
    pub fn check(self, serving: bool) -> Result<Config, Problems> {
        let mut problems = self.problems;
        match self.table.try_into::<Config>() {
            Ok(config) => {
                config.problems(serving, &mut problems);
                if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
            }
            Err(error) => {
                problems.push(error.message().to_owned());
                Err(Problems(problems))
            }
        }
    }

    /// The effective settings as TOML, with secrets and the passwords of URLs taken out.
    pub fn redacted(&self) -> String {
        let mut table = self.table.clone();
        redact(&mut table, "");
        toml::to_string_pretty(&table).unwrap_or_default()
    }
}

/// The settings nobody changed.
#[cfg(test)]
pub(crate) fn defaults() -> Config {
    Merged::of(None, BTreeMap::new()).check(false).unwrap()
}

impl Config {
    fn problems(&self, serving: bool, problems: &mut Vec<String>) {
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        check(
            self.listen.parse::<doors::Place>().is_ok(),
            "listen: must be ADDRESS:PORT, as in 127.0.0.1:8081 or [::1]:8081, or unix:/PATH",
        );
        check(
            self.admin.address().is_none_or(|address| address.parse::<doors::Place>().is_ok()),
            "admin.listen: must be ADDRESS:PORT, as in 127.0.0.1:8082, or unix:/PATH, or off",
        );
        check(
            !serving || !self.token.is_empty(),
            "token: missing; set TWILIO_EDGE_TOKEN (or TWILIO_EDGE_TOKEN_FILE) to what the filter is configured with",
        );
        check(
            self.token.expose().bytes().all(|byte| byte.is_ascii_graphic()),
            "token: must be visible ASCII without blanks, as a header has to carry it",
        );
        if serving && !self.accounts.file.is_empty() {
            for problem in accounts::problems(&self.accounts.file) {
                check(false, &format!("accounts.file: {}: {problem}", self.accounts.file));
            }
        }
        if serving && !self.sinks.file.is_empty() {
            for problem in sinks::problems(&self.sinks.file) {
                check(false, &format!("sinks.file: {}: {problem}", self.sinks.file));
            }
        }
        if serving {
            for problem in self.archive.place().problems() {
                check(false, &format!("archive.{problem}"));
            }
        }
        let most = archive::MOST_LINES;
        check(
            (1..=most).contains(&(self.archive.lines as usize)),
            &format!("archive.lines: must be 1 to {most}"),
        );
        check(
            (1024..=MOST_ARCHIVE_BYTES).contains(&self.archive.bytes),
            &format!("archive.bytes: must be 1024 to {MOST_ARCHIVE_BYTES}"),
        );
        if serving && !self.sending.file.is_empty() {
            for problem in twilio::problems(&self.sending.file) {
                check(false, &format!("sending.file: {}: {problem}", self.sending.file));
            }
        }
        if serving {
            let file = &self.sending.errors_file;
            for problem in crate::sending::errors(file).err().unwrap_or_default() {
                check(false, &format!("sending.errors_file: {file}: {problem}"));
            }
        }
        if serving && !self.sending.routing_file.is_empty() {
            let file = &self.sending.routing_file;
            for problem in crate::routes::problems(file) {
                check(false, &format!("sending.routing_file: {file}: {problem}"));
            }
        }
        let is_web = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        check(
            is_web(&self.sending.base_url),
            "sending.base_url: must start with https:// (or http://, for a test)",
        );
        check(
            self.sending.content_base_url.is_empty() || is_web(&self.sending.content_base_url),
            "sending.content_base_url: must start with https:// (or http://, for a test), or be empty",
        );
        let callback = self.sending.status_callback_url.as_str();
        check(
            callback.is_empty() || is_web(callback),
            "sending.status_callback_url: must start with https://, or be empty",
        );
        let database = self.database.url.expose();
        check(
            database.starts_with("sqlite:")
                || database.starts_with("postgres://")
                || database.starts_with("postgresql://"),
            "database.url: must start with sqlite: or postgres://",
        );
        check(
            !database.contains(":memory:"),
            "database.url: must be a file, not :memory:, which two connections cannot share",
        );
        let redis = self.redis.url.expose();
        check(
            redis.is_empty() || redis.starts_with("redis://") || redis.starts_with("rediss://"),
            "redis.url: must start with redis:// or rediss://, or be empty",
        );
        for (path, value, least) in [
            ("database.max_connections", u64::from(self.database.max_connections), 2),
            ("database.timeout_ms", self.database.timeout_ms, 1),
            ("database.connect_timeout_ms", self.database.connect_timeout_ms, 1),
            ("database.readers", u64::from(self.database.readers), 1),
            ("database.read_timeout_ms", self.database.read_timeout_ms, 1),
            ("archive.age_s", self.archive.age_s.into(), 1),
            ("sending.timeout_ms", self.sending.timeout_ms, 1000),
            ("sending.per_second", u64::from(self.sending.per_second), 1),
            ("sending.concurrency", self.sending.concurrency as u64, 1),
            ("sending.give_up_s", self.sending.give_up_s, 1),
            ("sending.reconcile_for_s", self.sending.reconcile_for_s, 1),
            ("sending.fallback_for_s", self.sending.fallback_for_s, 1),
            ("redis.timeout_ms", self.redis.timeout_ms, 1),
            ("telemetry.every_ms", self.telemetry.every_ms, 1),
            ("telemetry.timeout_ms", self.telemetry.timeout_ms, 1),
            ("redaction.every_s", self.redaction.every_s, 1),
            ("redaction.batch", u64::from(self.redaction.batch), 1),
            ("leases.period_ms", u64::from(self.leases.period_ms), 1),
            ("leases.result_ttl_s", u64::from(self.leases.result_ttl_s), 1),
            ("leases.recall_s", u64::from(self.leases.recall_s), 1),
            ("events.queue", self.events.queue as u64, 1),
            ("events.batch", self.events.batch as u64, 1),
            ("events.spool_max_bytes", self.events.spool_max_bytes, 1 << 20),
            ("api.requests_per_second", u64::from(self.api.requests_per_second), 1),
            ("api.burst", u64::from(self.api.burst), 1),
            ("api.bad_tokens_per_minute", u64::from(self.api.bad_tokens_per_minute), 1),
            ("api.max_body_bytes", self.api.max_body_bytes as u64, 1024),
            ("api.max_import_bytes", self.api.max_import_bytes as u64, 1024),
            ("api.idempotency_ttl_s", self.api.idempotency_ttl_s, 60),
            ("http.max_body_bytes", self.http.max_body_bytes as u64, 1024),
            ("http.request_timeout_ms", self.http.request_timeout_ms, 1),
        ] {
            check(value >= least, &format!("{path}: must be at least {least}"));
        }
        check(
            self.log.level.split(',').all(|directive| {
                let level = directive.rsplit('=').next().unwrap_or_default();
                level.trim().parse::<tracing::level_filters::LevelFilter>().is_ok()
            }),
            "log.level: must be error, warn, info, debug, trace, or TARGET=LEVEL,..",
        );
        for problem in self.media.problems(serving) {
            check(false, &format!("media.{problem}"));
        }
        for problem in self.policy.problems() {
            check(false, &format!("policy.{problem}"));
        }
        for problem in self.optout.lexicon().err().unwrap_or_default() {
            check(false, &format!("optout.{problem}"));
        }
        let collector = self.telemetry.otlp_endpoint.as_str();
        check(
            collector.is_empty()
                || collector.starts_with("http://")
                || collector.starts_with("https://"),
            "telemetry.otlp_endpoint: must start with http:// or https://, or be empty",
        );
        check(self.telemetry.sample_percent <= 100, "telemetry.sample_percent: must be 0 to 100");
        let result_ms = i64::from(self.leases.result_ttl_s).saturating_mul(1000);
        for problem in self.retention.problems(result_ms, !self.redaction.hash_key.is_empty()) {
            check(false, &format!("retention.{problem}"));
        }
    }
}

/// TOML as a table, or which line is none. What that line holds is not told: it may be a secret.
pub(crate) fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| {
            1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
        });
        format!("line {line} of the file: {}", error.message())
    })
}

/// Puts `over` on `base`; what `base` does not know, or knows as another type, is a problem.
fn overlay(base: &mut Table, over: Table, parent: &str, problems: &mut Vec<String>) {
    for (key, value) in over {
        let path = join(parent, &key);
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => overlay(base, over, &path, problems),
            (Some(base), value) if base.same_type(&value) => *base = value,
            (Some(base), value) => {
                problems.push(format!("{path}: must be {}, not {}", kind(base), kind(&value)));
            }
            (None, _) => problems.push(format!("{path}: there is no such setting")),
        }
    }
}

fn from_environment(
    table: &mut Table,
    parent: &str,
    environment: &BTreeMap<OsString, OsString>,
    problems: &mut Vec<String>,
) {
    for (key, value) in table.iter_mut() {
        let path = join(parent, key);
        if let Value::Table(table) = value {
            from_environment(table, &path, environment, problems);
            continue;
        }
        match text_of(&path, environment).and_then(|text| {
            text.map(|text| {
                typed(&text, value).map_err(|must| format!("{}: {must}", variable(&path)))
            })
            .transpose()
        }) {
            Ok(Some(given)) => *value = given,
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
}

/// What the environment says about a setting: its variable, or the file its `_FILE` variable names.
fn text_of(
    path: &str,
    environment: &BTreeMap<OsString, OsString>,
) -> Result<Option<String>, String> {
    let read = |name: &str| match environment.get(&OsString::from(name)) {
        Some(value) if !value.is_empty() => value
            .to_str()
            .map(|value| Some(value.to_owned()))
            .ok_or(format!("{name}: is not UTF-8")),
        _ => Ok(None),
    };
    let name = variable(path);
    let direct = read(&name)?;
    if !SECRETS.contains(&path) {
        return Ok(direct);
    }
    let file_name = format!("{name}_FILE");
    match (direct, read(&file_name)?) {
        (Some(_), Some(_)) => Err(format!("{name}: set it or {file_name}, not both")),
        (None, Some(file)) => std::fs::read_to_string(&file)
            .map(|text| Some(text.trim().to_owned()))
            .map_err(|error| format!("{file_name}: {file}: {error}")),
        (direct, None) => Ok(direct),
    }
}

fn typed(text: &str, like: &Value) -> Result<Value, &'static str> {
    Ok(match like {
        Value::Integer(_) => {
            Value::Integer(text.trim().parse().map_err(|_| "must be a whole number")?)
        }
        Value::Boolean(_) => {
            Value::Boolean(text.trim().parse().map_err(|_| "must be true or false")?)
        }
        Value::Array(_) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Value::Array(words.map(|word| Value::String(word.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    })
}

fn variable(path: &str) -> String {
    let own = OWN_NAMES.iter().find(|(own, _)| *own == path).map(|(_, name)| (*name).to_owned());
    own.unwrap_or_else(|| format!("TWILIO_EDGE_{}", path.replace('.', "_").to_ascii_uppercase()))
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

fn redact(table: &mut Table, parent: &str) {
    for (key, value) in table.iter_mut() {
        let path = join(parent, key);
        match value {
            Value::Table(table) => redact(table, &path),
            Value::String(text) if SECRETS.contains(&path.as_str()) => {
                *text = without_password(text)
            }
            _ => {}
        }
    }
}

/// A URL without its password, wherever it is written; of anything else nothing at all.
pub fn without_password(text: &str) -> String {
    const HIDDEN: &str = "***";
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text.is_empty() || text.starts_with("sqlite:") {
            text.into()
        } else {
            HIDDEN.into()
        };
    };
    // The last `@` ends the credentials: a password with a raw `@`, `/` or `?` must not show in part.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
            None if scheme.starts_with("redis") => format!("{HIDDEN}@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    match rest.split_once('?') {
        Some((location, query)) => {
            let shown: Vec<String> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, _)) if name.to_ascii_lowercase().contains("password") => {
                        format!("{name}={HIDDEN}")
                    }
                    _ => pair.to_owned(),
                })
                .collect();
            format!("{scheme}://{location}?{}", shown.join("&"))
        }
        None => format!("{scheme}://{rest}"),
    }
}
