//! Parser of the sinks file: returns the settings of each sink, or every problem with its path. Pure: it connects to
//! nothing.

use std::{fmt::Write as _, time::Duration};

use toml::{Table, Value};
use twilio_edge_contract::Class;

use super::{
    fields::number,
    sink_type::{Field, ParsedSink, Registration},
};
use twilio_edge_domain::{delivery::RetryPolicy, operational_event::EventPattern};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Upper bounds; larger files are not expected.
const MAX_SINKS: usize = 32;
const MAX_ROUTES: usize = 256;
const MAX_CLASSES: usize = 2;
const MAX_EVENTS: usize = 64;

/// Fields of every sink.
pub(super) const FIELDS: [Field; 9] = [
    Field {
        name: "name",
        meaning: "name in metrics, logs and commands: at most 64 letters, digits, `-` and `_`; required",
    },
    Field { name: "type", meaning: "one of the types above; required" },
    Field {
        name: "routes",
        meaning: "paths of the routes whose webhooks it receives; default: all routes with `delivery: accept`",
    },
    Field {
        name: "classes",
        meaning: "`inbound`, `status` or both; default: both; `[]`: no webhooks, only `events`",
    },
    Field {
        name: "events",
        meaning: "operational events that it receives: types, groups as in `message.*`, or `*`; default: none",
    },
    Field {
        name: "concurrency",
        meaning: "contacts that one sidecar serves at the same time, 1 to 256; default 16",
    },
    Field {
        name: "timeout_ms",
        meaning: "limit of connecting and of the answer, each, in milliseconds, 100 to 60000; default 10000",
    },
    Field {
        name: "longest_pause_ms",
        meaning: "longest pause between two attempts, in milliseconds, 100 to 3600000; default 300000",
    },
    Field {
        name: "give_up_after_s",
        meaning: "seconds after which a failed delivery becomes a dead letter, 1 to 2592000; default 259200 (three days)",
    },
];

/// Configuration of one sink.
#[derive(Debug)]
pub(super) struct Settings {
    /// Name in metrics, logs and commands.
    pub(super) name: String,
    /// Value of `type`.
    pub(super) type_name: &'static str,
    /// Paths of the routes that it receives; empty for all routes with acceptance.
    pub(super) routes: Vec<String>,
    /// Classes of webhooks that it receives.
    pub(super) classes: Vec<Class>,
    /// Operational events that it receives.
    pub(super) events: Vec<EventPattern>,
    pub(super) retry_policy: RetryPolicy,
    /// Number of lanes that one sidecar delivers concurrently.
    pub(super) concurrency: usize,
    /// Time limit of connecting and of the answer, each.
    pub(super) timeout: Duration,
    /// Settings of its type.
    pub(super) parsed: Box<dyn ParsedSink>,
}

/// Parses the text of the file, which can name these types.
pub(super) fn parse(text: &str, types: &[Registration]) -> Result<Vec<Settings>, Vec<String>> {
    let table = twilio_edge_platform::config::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = TomlReader::default();
    let sinks = sinks(&mut reading, &table, types);
    // A sink without a valid type is a problem, so that the outcome of a clean file has every sink.
    reading.outcome(sinks.into_iter().flatten().collect())
}

/// Describes the types and the fields as Markdown tables.
pub(super) fn reference(types: &[Registration]) -> String {
    let mut text = String::from("| `type` | destination |\n|---|---|\n");
    for Registration { name, destination, .. } in types {
        let _ = writeln!(text, "| `{name}` | {destination} |");
    }
    text.push_str("\n| field | of `type` | meaning |\n|---|---|---|\n");
    for Field { name, meaning } in FIELDS {
        let _ = writeln!(text, "| `{name}` | all | {meaning} |");
    }
    for sink_type in types {
        for Field { name, meaning } in sink_type.fields {
            let _ = writeln!(text, "| `{name}` | `{}` | {meaning} |", sink_type.name);
        }
    }
    text
}

fn sinks(reading: &mut TomlReader, table: &Table, types: &[Registration]) -> Vec<Option<Settings>> {
    reading.known_fields("", table, &["sink"]);
    let tables = reading.list("sink", table.get("sink"), MAX_SINKS);
    if tables.is_empty() && reading.is_clean() {
        reading.problem("sink", "the file has no sink; add at least one [[sink]]");
    }
    let sinks: Vec<(String, Option<Settings>)> = tables
        .iter()
        .enumerate()
        .map(|(n, value)| sink(reading, &format!("sink[{n}]"), value, types))
        .collect();
    reading.refuse_repeats("sink", "name", sinks.iter().map(|(name, _)| name));
    sinks.into_iter().map(|(_, sink)| sink).collect()
}

/// Reads one sink. Returns its name, which is also known if the type is invalid.
fn sink(
    reading: &mut TomlReader,
    path: &str,
    value: &Value,
    types: &[Registration],
) -> (String, Option<Settings>) {
    let named = value.get("type").and_then(Value::as_str);
    let sink_type = types.iter().find(|known| Some(known.name) == named);
    // Of a sink with an invalid type, the fields of every type are accepted.
    let own = types.iter().filter(|known| sink_type.is_none_or(|own| own.name == known.name));
    let known: Vec<&str> =
        own.flat_map(|sink_type| sink_type.fields).chain(&FIELDS).map(|field| field.name).collect();
    let table = reading.table(path, value, &known);
    let name = name(reading, &format!("{path}.name"), table);
    if sink_type.is_none() {
        let at = format!("{path}.type");
        if !reading.text(&at, table.get("type")).is_empty() {
            reading.problem(&at, format_args!("must be {}", one_of(types)));
        }
    }
    let routes = routes(reading, &format!("{path}.routes"), table);
    let classes = classes(reading, &format!("{path}.classes"), table);
    let events = events(reading, &format!("{path}.events"), table);
    if table.get("classes").is_some()
        && classes.is_empty()
        && events.is_empty()
        && reading.is_clean()
    {
        reading.problem(path, "receives nothing: add `classes` or `events`");
    }
    let mut number = |field, range, default| number(reading, path, table, field, range, default);
    let longest_pause_ms = number("longest_pause_ms", 100..=3_600_000, 300_000);
    let give_up_after_s = number("give_up_after_s", 1..=2_592_000, 259_200);
    let concurrency = number("concurrency", 1..=256, 16);
    let timeout_ms = number("timeout_ms", 100..=60_000, 10_000);
    let settings = sink_type.map(|sink_type| Settings {
        name: name.clone(),
        type_name: sink_type.name,
        routes,
        classes,
        events,
        retry_policy: RetryPolicy {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_millis(longest_pause_ms),
            give_up_after: Duration::from_secs(give_up_after_s),
        },
        concurrency: usize::try_from(concurrency).unwrap_or(1),
        timeout: Duration::from_millis(timeout_ms),
        parsed: (sink_type.parse)(reading, path, table),
    });
    (name, settings)
}

/// Lists the types, as in "http, kafka or redis-stream".
fn one_of(types: &[Registration]) -> String {
    let names: Vec<&str> = types.iter().map(|sink_type| sink_type.name).collect();
    match names.split_last() {
        Some((last, names)) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        _ => names.concat(),
    }
}

fn name(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> String {
    let name = reading.text(path, table.get("name"));
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        || name.len() > 64
    {
        reading.problem(path, "must be at most 64 letters, digits, - and _");
    }
    name
}

fn routes(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Vec<String> {
    let listed = reading.list(path, table.get("routes"), MAX_ROUTES);
    let route = |(n, route): (usize, &Value)| {
        let at = format!("{path}[{n}]");
        let route = reading.text(&at, Some(route));
        if !route.is_empty() && !route.starts_with('/') {
            reading.problem(&at, "must be a path, as in /twilio/inbound");
        }
        route
    };
    listed.iter().enumerate().map(route).collect()
}

fn classes(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Vec<Class> {
    if table.get("classes").is_none() {
        return vec![Class::Inbound, Class::Status];
    }
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

fn events(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Vec<EventPattern> {
    let names = reading.list(path, table.get("events"), MAX_EVENTS);
    let pattern = |(n, name): (usize, &Value)| {
        let pattern = name.as_str().and_then(EventPattern::parse);
        if pattern.is_none() {
            let problem = "must be a type as in message.sent, a group as in message.*, or *";
            reading.problem(&format!("{path}[{n}]"), problem);
        }
        pattern
    };
    names.iter().enumerate().filter_map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::TYPES;

    #[test]
    fn valid_file_is_read_completely() {
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

[[sink]]
name = "operations"
type = "http"
url = "http://127.0.0.1:9001"
classes = []
events = ["message.*", "delivery.dead"]
"#;
        let sinks = parse(file, TYPES).unwrap();
        let [app, crm, operations] = sinks.as_slice() else { panic!("{sinks:?}") };
        assert_eq!((app.type_name, app.timeout), ("http", Duration::from_secs(2)));
        assert_eq!(
            (app.routes.as_slice(), app.classes.as_slice(), app.concurrency),
            (&["/twilio/inbound".to_owned()][..], &[Class::Inbound][..], 16)
        );
        assert_eq!((crm.concurrency, crm.routes.len()), (1, 0));
        assert_eq!((crm.classes.len(), crm.events.len()), (2, 0), "all webhooks by default");
        assert_eq!((operations.classes.len(), operations.events.len()), (0, 2));
    }

    #[test]
    fn invalid_file_has_all_problems_listed_without_a_value() {
        let file = r#"
[[sink]]
name = "hush sink"
type = "hush"
url = "ftp://hush"
secrets = ["hush", 7]
routes = ["hush"]
classes = ["hush"]
events = ["message.*", "hush.*", 7]
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
        let problems = parse(file, TYPES).unwrap_err();
        assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        for path in [
            "sink[0].password",
            "sink[0].name",
            "sink[0].type",
            "sink[0].routes[0]",
            "sink[0].classes[0]",
            "sink[0].events[1]",
            "sink[0].events[2]",
            "sink[0].concurrency",
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
        assert_eq!(problems.len(), 12, "{problems:?}");
        let idle = "[[sink]]\nname = \"a\"\ntype = \"http\"\nurl = \"http://a\"\nclasses = []";
        assert!(parse(idle, TYPES).unwrap_err()[0].contains("receives nothing"));
        for empty in ["", "sink = []", "sink = 7", "[sink]"] {
            assert!(!parse(empty, TYPES).unwrap_err().is_empty(), "{empty:?}");
        }
    }
}
