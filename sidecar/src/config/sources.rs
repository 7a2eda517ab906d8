//! Where settings come from, one over the other, and how they are shown again: without what is secret.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use toml::{Table, Value};

use super::{Config, DEFAULTS, Problems};

/// Settings whose variable is not `TWILIO_EDGE_` and their path.
const OWN_NAMES: [(&str, &str); 3] = [
    ("database.url", "DATABASE_URL"),
    ("redis.url", "REDIS_URL"),
    ("telemetry.otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Settings that may also be read from a file, named by their variable and `_FILE`.
const SECRETS: [&str; 5] =
    ["token", "database.url", "redis.url", "redaction.hash_key", "media.store.link_key"];

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
