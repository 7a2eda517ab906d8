//! Parser of the sinks file: returns the settings of each sink, or every problem with its path. Pure: it connects to
//! nothing.

use std::{fmt::Write as _, time::Duration};

use toml::{Table, Value};
use twilio_edge_contract::{Class, Opt};

use super::{
    fields::number,
    sink_type::{Field, ParsedSink, Registration},
};
use twilio_edge_domain::{
    address::Address, delivery::RetryPolicy, operational_event::EventPattern,
    sink_filter::SinkFilter, status::Status, tenant::is_account_sid,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Upper bounds; larger files are not expected.
const MAX_SINKS: usize = 32;
const MAX_ROUTES: usize = 256;
const MAX_CLASSES: usize = 2;
const MAX_ENTRIES: usize = 1000;
const MAX_EVENTS: usize = 64;

/// Fields of every sink.
pub(super) const FIELDS: [Field; 15] = [
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
        name: "accounts",
        meaning: "account SIDs of the webhooks that it receives; default: all",
    },
    Field {
        name: "numbers",
        meaning: "our numbers and senders that sent or received the message, as in `+15550001111`; default: all",
    },
    Field {
        name: "channels",
        meaning: "channels of the messages, as in `sms` and `whatsapp`; default: all",
    },
    Field {
        name: "statuses",
        meaning: "statuses, as in `failed` and `undelivered`; it limits status callbacks only; default: all",
    },
    Field {
        name: "opts",
        meaning: "keywords of opt-out, opt-in and help: `stop`, `start`, `help`, and `none` for messages without one; it limits inbound messages only; default: all",
    },
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
    let filter = filter(reading, path, table);
    let events = events(reading, &format!("{path}.events"), table);
    if has_no_classes(table) && events.is_empty() && reading.is_clean() {
        reading.problem(path, "receives nothing: add `classes` or `events`");
    }
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

fn filter(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> SinkFilter {
    let text = |text: &str| Some(text.to_owned());
    let mut of = Conditions { reading, path, table };
    let mut filter = SinkFilter {
        routes: of.list("routes", MAX_ROUTES, "must be a path, as in /twilio/inbound", |route| {
            text(route).filter(|route| route.starts_with('/') && is_graphic(route))
        }),
        classes: if has_no_classes(table) {
            Vec::new()
        } else {
            of.list("classes", MAX_CLASSES, "must be inbound or status", |class| {
                class.parse().ok().filter(|class| *class != Class::Other)
            })
        },
        accounts: of.list(
            "accounts",
            MAX_ENTRIES,
            "must be an account SID: AC and 32 hexadecimal digits in lower case",
            |account| text(account).filter(|account| is_account_sid(account)),
        ),
        numbers: of.list(
            "numbers",
            MAX_ENTRIES,
            "must be a number or sender without a channel, as in +15550001111; `channels` selects the channel",
            |number| {
                let address = Address::parse(number).filter(|_| !number.contains(':'))?;
                Some(address.number)
            },
        ),
        channels: of.list(
            "channels",
            MAX_ENTRIES,
            "must be a channel in lower case, as in sms, whatsapp, rcs or messenger",
            |channel| text(channel).filter(|channel| is_channel(channel)),
        ),
        statuses: of.list(
            "statuses",
            MAX_ENTRIES,
            "must be a status of Twilio, as in delivered, undelivered or failed",
            Status::parse,
        ),
        opts: of.list("opts", MAX_ENTRIES, "must be stop, start, help or none", |opt| match opt {
            "none" => Some(None),
            opt => opt.parse::<Opt>().ok().map(Some),
        }),
    };
    if table.get("classes").is_none() {
        filter.classes = SinkFilter::default().classes;
    }
    // A condition that can never matter is a mistake.
    let has_class = |class| filter.classes.contains(&class);
    for (field, is_set, class) in [
        ("statuses", !filter.statuses.is_empty(), Class::Status),
        ("opts", !filter.opts.is_empty(), Class::Inbound),
    ] {
        if is_set && !filter.classes.is_empty() && !has_class(class) {
            let class = class.as_str();
            let problem = format!(
                "has no effect, because `classes` omits {class}: add it, or remove {field}"
            );
            reading.problem(&format!("{path}.{field}"), problem);
        }
    }
    filter
}

/// Returns whether the sink receives no webhooks.
fn has_no_classes(table: Fields<'_>) -> bool {
    table.get("classes").and_then(Value::as_array).is_some_and(Vec::is_empty)
}

/// Reader of the lists of one sink.
struct Conditions<'r, 'v> {
    reading: &'r mut TomlReader,
    path: &'r str,
    table: Fields<'v>,
}

impl Conditions<'_, '_> {
    /// Reads a list of texts. An empty list is refused, because it could mean all values or no value.
    fn list<T>(
        &mut self,
        field: &str,
        most: usize,
        problem: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let path = format!("{}.{field}", self.path);
        let value = self.table.get(field);
        if value.and_then(Value::as_array).is_some_and(Vec::is_empty) {
            self.reading
                .problem(&path, "is empty: add a value, or remove the field to receive all");
        }
        let listed = self.reading.list(&path, value, most);
        let entry = |(n, value): (usize, &Value)| {
            let entry = value.as_str().and_then(&parse);
            if entry.is_none() {
                self.reading.problem(&format!("{path}[{n}]"), problem);
            }
            entry
        };
        listed.iter().enumerate().filter_map(entry).collect()
    }
}

fn is_graphic(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_channel(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
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
    fn conditions_are_read_and_checked() {
        let read = |conditions: &str| {
            let sink = "[[sink]]\nname = \"a\"\ntype = \"http\"\nurl = \"http://a\"\n";
            parse(&format!("{sink}{conditions}"), TYPES)
        };
        let account = "AC00112233445566778899aabbccddeeff";
        let sinks = read(&format!(
            "accounts = [\"{account}\"]\nnumbers = [\"+1555\", \"ACME\"]\nchannels = [\"sms\"]\n\
             statuses = [\"failed\"]\nopts = [\"stop\", \"none\"]"
        ));
        let expected = SinkFilter {
            accounts: vec![account.into()],
            numbers: vec!["+1555".into(), "ACME".into()],
            channels: vec!["sms".into()],
            statuses: vec![Status::Failed],
            opts: vec![Some(Opt::Stop), None],
            ..SinkFilter::default()
        };
        assert_eq!(sinks.unwrap()[0].filter, expected);
        for (conditions, path) in [
            ("accounts = [\"AC1\"]", "accounts[0]: must be an account SID"),
            (
                "numbers = [\"+1\", \"whatsapp:+1\"]",
                "numbers[1]: must be a number or sender without",
            ),
            ("channels = [\"SMS\"]", "channels[0]: must be a channel in lower case"),
            ("statuses = [\"lost\"]", "statuses[0]: must be a status of Twilio"),
            ("opts = [7]", "opts[0]: must be stop, start, help or none"),
            ("opts = []", "opts: is empty: add a value, or remove the field"),
            (
                "classes = [\"inbound\"]\nstatuses = [\"failed\"]",
                "statuses: has no effect, because `classes` omits status",
            ),
            (
                "classes = [\"status\"]\nopts = [\"stop\"]",
                "opts: has no effect, because `classes` omits inbound",
            ),
        ] {
            let problems = read(conditions).unwrap_err();
            assert!(problems[0].starts_with(&format!("sink[0].{path}")), "{problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
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
