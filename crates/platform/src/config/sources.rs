//! Sources of the settings and their precedence, and the effective settings as text without secrets.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use toml::{Table, Value};

use super::{Config, DEFAULTS, Problems, Setting};
use crate::file_access;

/// Settings whose environment variable does not follow the pattern `TWILIO_EDGE_` and path.
const OWN_NAMES: [(&str, &str); 3] = [
    ("database.url", "DATABASE_URL"),
    ("redis.url", "REDIS_URL"),
    ("telemetry.otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Settings that may also be read from a file, which the variable with the suffix `_FILE` names.
const SECRETS: [&str; 5] =
    ["token", "database.url", "redis.url", "redaction.hash_key", "media.store.link_key"];

/// Merged settings before they are checked.
#[derive(Debug)]
pub struct Merged {
    table: Table,
    problems: Vec<String>,
}

impl Merged {
    /// Reads the sources. [`Merged::check`] reports their problems.
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Merged {
        let text = file.map(|path| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        });
        let has_secrets = matches!(&text, Some(Ok(text)) if parse(text).is_ok_and(|table| holds_secret(&table, "")));
        let mut merged = Merged::of(text, environment.collect());
        if let Some(path) = file.filter(|_| has_secrets)
            && let Err(problem) = file_access::check_secret(path)
        {
            merged.problems.push(format!("{}: it holds secrets, and {problem}", path.display()));
        }
        merged
    }

    pub(super) fn of(
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

    /// Returns the settings for a command that serves no requests.
    ///
    /// # Errors
    ///
    /// Every problem of the settings.
    pub fn check(self) -> Result<Config, Problems> {
        self.checked(false, |_| Vec::new())
    }

    /// Returns the settings for `serve`. `files` checks the files that settings name.
    ///
    /// # Errors
    ///
    /// Every problem of the settings, with those of the files.
    pub fn check_for_serving(
        self,
        files: impl FnOnce(&Config) -> Vec<String>,
    ) -> Result<Config, Problems> {
        self.checked(true, files)
    }

    fn checked(
        self,
        serving: bool,
        files: impl FnOnce(&Config) -> Vec<String>,
    ) -> Result<Config, Problems> {
        let effective = self.effective();
        let mut problems = self.problems;
        match self.table.try_into::<Config>() {
            Ok(mut config) => {
                config.effective = effective;
                config.problems(serving, &mut problems);
                problems.extend(files(&config));
                if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
            }
            Err(error) => {
                problems.push(error.message().to_owned());
                Err(Problems(problems))
            }
        }
    }

    /// Returns the effective settings as TOML, without secrets and the passwords of URLs.
    pub fn redacted(&self) -> String {
        let mut table = self.table.clone();
        redact(&mut table, "");
        toml::to_string_pretty(&table).unwrap_or_default()
    }

    /// Returns the effective settings one by one, without secrets and the passwords of URLs, ordered by name.
    fn effective(&self) -> Vec<Setting> {
        let mut table = self.table.clone();
        redact(&mut table, "");
        let mut defaults: Table = DEFAULTS.parse().unwrap_or_default();
        redact(&mut defaults, "");
        let mut settings = Vec::new();
        flatten(&table, Some(&defaults), "", &mut settings);
        settings
    }
}

/// Adds the settings of a table and of the tables in it.
fn flatten(table: &Table, defaults: Option<&Table>, parent: &str, settings: &mut Vec<Setting>) {
    for (key, value) in table {
        let name = join(parent, key);
        let default = defaults.and_then(|defaults| defaults.get(key));
        match value {
            Value::Table(table) => {
                flatten(table, default.and_then(Value::as_table), &name, settings);
            }
            value => settings.push(Setting {
                variable: variable(&name),
                value: value.clone(),
                is_default: default == Some(value),
                name,
            }),
        }
    }
}

/// Parses TOML. The error names the wrong line but not its content, which may be a secret.
pub fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| {
            1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
        });
        format!("line {line} of the file: {}", error.message())
    })
}

/// Merges `over` into `base`. A setting that `base` lacks, or has with another type, is a problem.
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

/// Returns the text of a setting from its environment variable, or from the file that its `_FILE` variable names.
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
        (None, Some(file)) => file_access::read_secret(Path::new(&file))
            .map(|text| Some(text.trim().to_owned()))
            .map_err(|problem| format!("{file_name}: {file}: {problem}")),
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
        // Groups of words, as in `sms,mms;rcs,whatsapp`.
        Value::Array(groups) if groups.iter().any(Value::is_array) => {
            let groups = text.split(';').filter(|group| !group.trim().is_empty());
            let words = Value::Array(vec![Value::String(String::new())]);
            Value::Array(groups.map(|group| typed(group, &words)).collect::<Result<_, _>>()?)
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
            value => redact_value(value, &path),
        }
    }
}

fn redact_value(value: &mut Value, path: &str) {
    match value {
        Value::String(text) if SECRETS.contains(&path) => *text = without_password(text),
        Value::String(text) => *text = without_credentials(text),
        Value::Array(values) => values.iter_mut().for_each(|value| redact_value(value, path)),
        _ => {}
    }
}

/// Returns whether a settings file holds a credential: a secret setting, or a URL with a user or password.
fn holds_secret(table: &Table, parent: &str) -> bool {
    table.iter().any(|(key, value)| {
        let path = join(parent, key);
        match value {
            Value::Table(table) => holds_secret(table, &path),
            Value::String(text) if SECRETS.contains(&path.as_str()) => {
                without_password(text) != *text
            }
            Value::String(text) => has_user(text),
            Value::Array(values) => values.iter().filter_map(Value::as_str).any(has_user),
            _ => false,
        }
    })
}

/// Returns whether a text is a URL with a user or password.
fn has_user(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Schemes whose path names a file, a bucket or a database. The path of any other URL may be a secret, as for a webhook.
const SHOWN_PATHS: [&str; 11] = [
    "az://",
    "file://",
    "gs://",
    "postgres://",
    "postgresql://",
    "redis://",
    "rediss://",
    "s3://",
    "s3a://",
    "sqlite:",
    "sqlite://",
];

/// Replacement of a secret.
const HIDDEN: &str = "***";

/// Parameters of a URL's query that are no secret; the values of all others are hidden.
const SHOWN_PARAMETERS: [&str; 20] = [
    "application_name",
    "cache",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "immutable",
    "mode",
    "port",
    "protocol",
    "region",
    "sslcert",
    "sslmode",
    "sslrootcert",
    "ssl-ca",
    "ssl-mode",
    "statement-cache-capacity",
    "target_session_attrs",
    "user",
    "vfs",
];

/// Returns a URL without its credentials, for a secret setting that may be a URL. Any other text is hidden entirely.
pub fn without_password(text: &str) -> String {
    match text.is_empty() || text.contains("://") || text.starts_with("sqlite:") {
        true => without_credentials(text),
        false => HIDDEN.to_owned(),
    }
}

/// Removes the credentials of URLs and addresses from any text: passwords and tokens before an `@`, paths except those of
/// files, buckets and databases, values of a query, and fragments after a `#`.
fn without_credentials(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => match text.strip_prefix("sqlite:") {
            Some(rest) => ("sqlite:".to_owned(), rest),
            // `USER:PASSWORD@HOST` is the form of a proxy; a sentence with an address is neither.
            None if text.contains('@') => (String::new(), text),
            None => return text.to_owned(),
        },
    };
    let is_database = ["postgres://", "postgresql://"].contains(&scheme.as_str());
    // The last `@` ends the credentials: a password with a raw `@`, `/`, `?` or `#` must not show in part.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{}:{HIDDEN}@{host}", plain(user)),
            // Only a database has a user name without a password; elsewhere the part before the `@` is a token.
            None if is_database => format!("{}@{host}", plain(credentials)),
            None => format!("{HIDDEN}@{host}"),
        },
        None => rest.to_owned(),
    };
    if !scheme.is_empty() && !SHOWN_PATHS.contains(&scheme.to_lowercase().as_str()) {
        let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let path = rest.strip_prefix(host).unwrap_or_default();
        return match path {
            "" | "/" => format!("{scheme}{rest}"),
            _ => format!("{scheme}{host}/{HIDDEN}"),
        };
    }
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, fragment)) if !fragment.is_empty() => (rest.to_owned(), format!("#{HIDDEN}")),
        _ => (rest, String::new()),
    };
    match rest.split_once('?') {
        Some((location, query)) => {
            let shown: Vec<String> = query.split('&').map(parameter).collect();
            format!("{scheme}{location}?{}{fragment}", shown.join("&"))
        }
        None => format!("{scheme}{rest}{fragment}"),
    }
}

/// Returns the name of a user; hides a text that cannot be a name.
fn plain(user: &str) -> &str {
    match user.contains(['/', '?', '#', '&', '=']) {
        true => HIDDEN,
        false => user,
    }
}

fn parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) if SHOWN_PARAMETERS.contains(&name) && !value.contains(['?', '@']) => {
            pair.to_owned()
        }
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None if pair.is_empty() => String::new(),
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests;
