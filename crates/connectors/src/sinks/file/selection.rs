//! Selection of one sink in the sinks file: the webhooks and operational events that it receives. Reads the conditions, and
//! refuses those that cannot have an effect.

use toml::Value;
use twilio_edge_contract::{Class, Opt};

use crate::sinks::sink_type::Field;
use twilio_edge_domain::{
    address::Address, operational_event::EventPattern, sink_filter::SinkFilter, status::Status,
    tenant::is_account_sid,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Upper bounds; longer lists are not expected.
const MAX_ROUTES: usize = 256;
const MAX_CLASSES: usize = 2;
const MAX_ENTRIES: usize = 1000;
const MAX_EVENTS: usize = 64;

/// Fields of a selection.
pub(super) const FIELDS: &[Field] = &[
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
        meaning: "account SIDs of the webhooks and events that it receives; default: all",
    },
    Field {
        name: "numbers",
        meaning: "our numbers and senders that sent or received the message, or that the event is about, as in `+15550001111`; default: all",
    },
    Field {
        name: "channels",
        meaning: "channels of the messages and events, as in `sms` and `whatsapp`; default: all",
    },
    Field {
        name: "statuses",
        meaning: "statuses, as in `failed` and `undelivered`; it limits status callbacks only; default: all",
    },
    Field {
        name: "opts",
        meaning: "keywords of opt-out, opt-in and help: `stop`, `start`, `help`, and `none` for messages without one; it limits inbound messages only; default: all",
    },
];

/// Webhooks and operational events that one sink receives.
#[derive(Debug)]
pub(super) struct Selection {
    /// Conditions of webhooks; those about accounts, numbers and channels also limit operational events.
    pub(super) filter: SinkFilter,
    /// Types of operational events.
    pub(super) events: Vec<EventPattern>,
}

impl Selection {
    /// Reads the selection of one sink.
    pub(super) fn read(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Selection {
        let filter = filter(reading, path, table);
        let events = events(reading, &format!("{path}.events"), table);
        if has_no_classes(table) && events.is_empty() && reading.is_clean() {
            reading.problem(path, "receives nothing: add `classes` or `events`");
        }
        Selection { filter, events }
    }
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
    // A condition that can never matter is a mistake. Classes that are all invalid are another one.
    let are_classes_known = has_no_classes(table) || !filter.classes.is_empty();
    let has_class = |class| filter.classes.contains(&class);
    for (field, is_set, class) in [
        ("statuses", !filter.statuses.is_empty(), Class::Status),
        ("opts", !filter.opts.is_empty(), Class::Inbound),
    ] {
        if is_set && are_classes_known && !has_class(class) {
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
    use crate::sinks::{TYPES, file::parse};

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
            (
                "classes = []\nevents = [\"*\"]\nstatuses = [\"failed\"]",
                "statuses: has no effect, because `classes` omits status",
            ),
        ] {
            let problems = read(conditions).unwrap_err();
            assert!(problems[0].starts_with(&format!("sink[0].{path}")), "{problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
    }
}
