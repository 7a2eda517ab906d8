//! Parser of the sinks file: returns the settings of each sink, or every problem with its path. Pure: it connects to
//! nothing. `file/selection.rs` reads the conditions that select what a sink receives.

mod selection;

use std::{fmt::Write as _, time::Duration};

use toml::{Table, Value};

use self::selection::Selection;
use super::{
    fields::number,
    sink_type::{Field, ParsedSink, Registration},
};
use twilio_edge_domain::{
    delivery::RetryPolicy, operational_event::EventPattern,
    sending::status_callback::SINK as STATUS_CALLBACKS, sink_filter::SinkFilter,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Upper bound; larger files are not expected.
const MAX_SINKS: usize = 32;

/// Fields that identify a sink.
const IDENTITY: &[Field] = &[
    Field {
        name: "name",
        meaning: "name in metrics, logs and commands: at most 64 letters, digits, `-` and `_`; required",
    },
    Field { name: "type", meaning: "one of the types above; required" },
];

/// Fields that limit the load on a sink and its retries.
const LIMITS: &[Field] = &[
    Field {
        name: "concurrency",
        meaning: "contacts that one sidecar serves at the same time, 1 to 256; default 16",
    },
    Field {
        name: "requests_per_second",
        meaning: "deliveries that one sidecar starts per second at most, at equal intervals, 0.1 to 10000; default: no limit",
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

/// Iterates over the fields of every sink.
pub(super) fn common_fields() -> impl Iterator<Item = &'static Field> {
    IDENTITY.iter().chain(selection::FIELDS).chain(LIMITS)
}

/// Configuration of one sink.
#[derive(Debug)]
pub(super) struct Settings {
    /// Name in metrics, logs and commands.
    pub(super) name: String,
    /// Value of `type`.
    pub(super) type_name: &'static str,
    /// Webhooks that it receives.
    pub(super) filter: SinkFilter,
    /// Operational events that it receives.
    pub(super) events: Vec<EventPattern>,
    pub(super) retry_policy: RetryPolicy,
    /// Number of lanes that one sidecar delivers concurrently.
    pub(super) concurrency: usize,
    /// Deliveries that one sidecar starts per second at most; `None` without a limit.
    pub(super) requests_per_second: Option<f64>,
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
    for Field { name, meaning } in common_fields() {
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
    let own = own.flat_map(|sink_type| sink_type.fields);
    let known: Vec<&str> = own.chain(common_fields()).map(|field| field.name).collect();
    let table = reading.table(path, value, &known);
    let name = name(reading, &format!("{path}.name"), table);
    if sink_type.is_none() {
        let at = format!("{path}.type");
        if !reading.text(&at, table.get("type")).is_empty() {
            reading.problem(&at, format_args!("must be {}", one_of(types)));
        }
    }
    let Selection { filter, events } = Selection::read(reading, path, table);
    let mut number = |field, range, default| number(reading, path, table, field, range, default);
    let longest_pause_ms = number("longest_pause_ms", 100..=3_600_000, 300_000);
    let give_up_after_s = number("give_up_after_s", 1..=2_592_000, 259_200);
    let concurrency = number("concurrency", 1..=256, 16);
    let timeout_ms = number("timeout_ms", 100..=60_000, 10_000);
    let requests_per_second = rate(reading, &format!("{path}.requests_per_second"), table);
    let settings = sink_type.map(|sink_type| Settings {
        name: name.clone(),
        type_name: sink_type.name,
        filter,
        events,
        retry_policy: RetryPolicy {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_millis(longest_pause_ms),
            give_up_after: Duration::from_secs(give_up_after_s),
        },
        concurrency: usize::try_from(concurrency).unwrap_or(1),
        requests_per_second,
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
    if name == STATUS_CALLBACKS {
        reading
            .problem(path, "is the name of the built-in sink of status callbacks; choose another");
    }
    name
}

fn rate(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Option<f64> {
    let rate = match table.get("requests_per_second")? {
        Value::Float(rate) => Some(*rate),
        Value::Integer(rate) => i32::try_from(*rate).ok().map(f64::from),
        _ => None,
    };
    let rate = rate.filter(|rate| (0.1..=10_000.0).contains(rate));
    if rate.is_none() {
        reading.problem(path, "must be a number from 0.1 to 10000");
    }
    rate
}

#[cfg(test)]
mod tests {
    use twilio_edge_contract::Class;

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
requests_per_second = 2.5

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
            (app.filter.routes.as_slice(), app.filter.classes.as_slice(), app.concurrency),
            (&["/twilio/inbound".to_owned()][..], &[Class::Inbound][..], 16)
        );
        assert_eq!((crm.concurrency, &crm.filter), (1, &SinkFilter::default()));
        assert_eq!((app.requests_per_second, crm.requests_per_second), (None, Some(2.5)));
        assert_eq!(crm.events.len(), 0);
        assert_eq!((operations.filter.classes.len(), operations.events.len()), (0, 2));
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
requests_per_second = 0
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
            "sink[0].requests_per_second",
            "sink[1].url",
            "sink[2].url",
            "sink[2].name",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(&format!("{path}: "))),
                "{path}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 13, "{problems:?}");
        let idle = "[[sink]]\nname = \"a\"\ntype = \"http\"\nurl = \"http://a\"\nclasses = []";
        assert!(parse(idle, TYPES).unwrap_err()[0].contains("receives nothing"));
        for empty in ["", "sink = []", "sink = 7", "[sink]"] {
            assert!(!parse(empty, TYPES).unwrap_err().is_empty(), "{empty:?}");
        }
    }
}
