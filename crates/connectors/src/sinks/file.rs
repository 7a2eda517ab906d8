//! Parser of the sinks file: returns the settings of each sink, or every problem with its path. Pure: it connects to
//! nothing.

mod http;
mod kafka;
mod redis_stream;

use std::time::Duration;

use toml::{Table, Value};
use twilio_edge_contract::Class;

pub(super) use self::{
    http::{Format, Http},
    kafka::{Kafka, Mechanism, Sasl},
    redis_stream::{MaxLength, RedisStream},
};
use twilio_edge_domain::delivery::RetryPolicy;
use twilio_edge_platform::strict_toml::{Fields, Reading};

/// Upper bounds; larger files are not expected.
const MAX_SINKS: usize = 32;
const MAX_ROUTES: usize = 256;
const MAX_CLASSES: usize = 2;
/// Longest topic name that Kafka accepts, in bytes; it applies to streams as well.
const MAX_NAME: usize = 249;
/// Fields of every sink.
const FIELDS: [&str; 8] = [
    "name",
    "type",
    "routes",
    "classes",
    "concurrency",
    "give_up_after_s",
    "longest_pause_ms",
    "timeout_ms",
];

/// Configuration of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Name in metrics, logs and commands.
    pub name: String,
    /// Paths of the routes that it receives; empty for all routes with acceptance.
    pub routes: Vec<String>,
    /// Classes that it receives: messages, statuses; empty for both.
    pub classes: Vec<Class>,
    /// Retry policy.
    pub patience: RetryPolicy,
    /// Number of lanes that one sidecar delivers concurrently.
    pub concurrency: usize,
    /// Type of the sink with its own settings.
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Http(Http),
    Kafka(Kafka),
    RedisStream(RedisStream),
}

/// Names of a pair of topics or streams: one for messages, one for statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub inbound: String,
    pub status: String,
}

impl Names {
    /// Returns the name for webhooks of this class.
    pub fn of(&self, class: Class) -> &str {
        match class {
            Class::Status => &self.status,
            Class::Inbound | Class::Other => &self.inbound,
        }
    }
}

/// Parses the text of the file.
pub(super) fn parse(text: &str) -> Result<Vec<Sink>, Vec<String>> {
    let table = twilio_edge_platform::config::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = Reading::default();
    let sinks = sinks(&mut reading, &table);
    reading.outcome(sinks)
}

fn sinks(reading: &mut Reading, table: &Table) -> Vec<Sink> {
    reading.known_fields("", table, &["sink"]);
    let tables = reading.list("sink", table.get("sink"), MAX_SINKS);
    if tables.is_empty() && reading.is_clean() {
        reading.problem("sink", "holds nothing; there must be at least one [[sink]]");
    }
    let sinks: Vec<Sink> = tables
        .iter()
        .enumerate()
        .map(|(n, value)| sink(reading, &format!("sink[{n}]"), value))
        .collect();
    reading.refuse_repeats("sink", "name", sinks.iter().map(|sink| &sink.name));
    sinks
}

fn sink(reading: &mut Reading, path: &str, value: &Value) -> Sink {
    let own: &[&str] = match value.get("type").and_then(Value::as_str) {
        Some("kafka") => &kafka::FIELDS,
        Some("redis-stream") => &redis_stream::FIELDS,
        _ => &http::FIELDS,
    };
    let table = reading.table(path, value, &[&FIELDS[..], own].concat());
    let name = reading.text(&format!("{path}.name"), table.get("name"));
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        || name.len() > 64
    {
        reading.problem(&format!("{path}.name"), "must be at most 64 letters, digits, - and _");
    }
    let kind = match reading.text(&format!("{path}.type"), table.get("type")).as_str() {
        "kafka" => Kind::Kafka(kafka::read(reading, path, table)),
        "redis-stream" => Kind::RedisStream(redis_stream::read(reading, path, table)),
        other => {
            if !matches!(other, "http" | "") {
                reading.problem(&format!("{path}.type"), "must be http, kafka or redis-stream");
            }
            Kind::Http(http::read(reading, path, table))
        }
    };
    let routes = format!("{path}.routes");
    let routes: Vec<String> = reading
        .list(&routes, table.get("routes"), MAX_ROUTES)
        .iter()
        .enumerate()
        .map(|(n, route)| {
            let at = format!("{routes}[{n}]");
            let route = reading.text(&at, Some(route));
            if !route.is_empty() && !route.starts_with('/') {
                reading.problem(&at, "must be a path, as in /twilio/inbound");
            }
            route
        })
        .collect();
    let classes = classes(reading, &format!("{path}.classes"), table);
    let patience = RetryPolicy {
        first_pause: Duration::from_millis(500),
        longest_pause: Duration::from_millis(number(
            reading,
            path,
            table,
            "longest_pause_ms",
            100..=3_600_000,
            300_000,
        )),
        give_up_after: Duration::from_secs(number(
            reading,
            path,
            table,
            "give_up_after_s",
            1..=2_592_000,
            259_200,
        )),
    };
    let concurrency = number(reading, path, table, "concurrency", 1..=256, 16);
    Sink {
        name,
        routes,
        classes,
        patience,
        concurrency: usize::try_from(concurrency).unwrap_or(1),
        kind,
    }
}

fn classes(reading: &mut Reading, path: &str, table: Fields<'_>) -> Vec<Class> {
    let names = reading.list(path, table.get("classes"), MAX_CLASSES);
    let class = |(n, name): (usize, &Value)| {
        let class = name.as_str().and_then(|name| name.parse().ok());
        let class = class.filter(|class| *class != Class::Other);
        if class.is_none() {
            reading.problem(&format!("{path}[{n}]"), "must be inbound or status");
        }
        class
    };
    names.iter().enumerate().filter_map(class).collect()
}

/// Reads a pair of names; each has a default.
fn names(reading: &mut Reading, path: &str, table: Fields<'_>, field: &str) -> Names {
    let [inbound, status] = ["twilio.inbound.v1", "twilio.status.v1"];
    let mut names = Names { inbound: inbound.to_owned(), status: status.to_owned() };
    let Some(value) = table.get(field) else { return names };
    let path = format!("{path}.{field}");
    let given = reading.table(&path, value, &["inbound", "status"]);
    for (class, name) in [("inbound", &mut names.inbound), ("status", &mut names.status)] {
        if let Some(value) = given.get(class) {
            let at = format!("{path}.{class}");
            *name = reading.text(&at, Some(value));
            if name.len() > MAX_NAME {
                reading.problem(&at, format_args!("must be at most {MAX_NAME} bytes"));
            }
        }
    }
    names
}

fn timeout(reading: &mut Reading, path: &str, table: Fields<'_>) -> Duration {
    Duration::from_millis(number(reading, path, table, "timeout_ms", 100..=60_000, 10_000))
}

fn number(
    reading: &mut Reading,
    path: &str,
    table: Fields<'_>,
    field: &str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
) -> u64 {
    let Some(value) = table.get(field) else { return default };
    match value
        .as_integer()
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| range.contains(value))
    {
        Some(value) => value,
        None => {
            let (least, most) = (range.start(), range.end());
            reading.problem(&format!("{path}.{field}"), format_args!("must be {least} to {most}"));
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_read_whole() {
        let file = r#"
[[sink]]
name = "app"
type = "http"
url = "https://app.internal/twilio"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
routes = ["/twilio/inbound"]
classes = ["inbound"]
timeout_ms = 2000

[[sink]]
name = "crm"
type = "http"
url = "http://127.0.0.1:9000"
format = "form"
concurrency = 1
"#;
        let sinks = parse(file).unwrap();
        let [app, crm] = sinks.as_slice() else { panic!("{sinks:?}") };
        let Kind::Http(http) = &app.kind else { panic!("{app:?}") };
        assert_eq!((http.secrets[0].len(), http.timeout), (24, Duration::from_secs(2)));
        assert_eq!(
            (app.routes.as_slice(), app.classes.as_slice(), app.concurrency),
            (&["/twilio/inbound".to_owned()][..], &[Class::Inbound][..], 16)
        );
        let Kind::Http(http) = &crm.kind else { panic!("{crm:?}") };
        assert_eq!((http.format, crm.concurrency, crm.routes.len()), (Format::Form, 1, 0));
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_no_value_is_shown() {
        let file = r#"
[[sink]]
name = "hush sink"
type = "hush"
url = "ftp://hush"
secrets = ["hush", 7]
routes = ["hush"]
classes = ["hush"]
format = "hush"
timeout_ms = 0
concurrency = "hush"
password = "hush"
[[sink]]
name = "a"
type = "http"
url = "https://user:hush@host/"
[[sink]]
name = "a"
type = "http"
"#;
        let problems = parse(file).unwrap_err();
        assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        for path in [
            "sink[0].password",
            "sink[0].name",
            "sink[0].type",
            "sink[0].routes[0]",
            "sink[0].classes[0]",
            "sink[0].concurrency",
            "sink[0].url",
            "sink[0].format",
            "sink[0].secrets[0]",
            "sink[0].secrets[1]",
            "sink[0].timeout_ms",
            "sink[1].url",
            "sink[2].url",
            "sink[2].name",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(&format!("{path}: "))),
                "{path}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 14, "{problems:?}");
        for empty in ["", "sink = []", "sink = 7", "[sink]"] {
            assert!(!parse(empty).unwrap_err().is_empty(), "{empty:?}");
        }
    }
}
