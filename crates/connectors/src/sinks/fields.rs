//! Parsers of values that fields of several sink types have.

use std::ops::RangeInclusive;

use toml::Value;
use twilio_edge_domain::event::EventKind;
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Longest topic name that Kafka accepts, in bytes; it applies to streams as well.
const MAX_NAME_BYTES: usize = 249;

/// Names of the topics or streams: one for messages, one for statuses, one for operational events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KindNames {
    pub(super) inbound: String,
    pub(super) status: String,
    pub(super) events: String,
}

impl KindNames {
    /// Returns the name for events of this kind.
    pub(super) fn of(&self, kind: EventKind) -> &str {
        match kind {
            EventKind::Inbound => &self.inbound,
            EventKind::Status => &self.status,
            EventKind::Operational => &self.events,
        }
    }

    /// Iterates over the names, each with its field.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("inbound", &*self.inbound), ("status", &self.status), ("events", &self.events)]
            .into_iter()
    }

    /// Reads the table `field`, in which each name has a default.
    pub(super) fn read(
        reading: &mut TomlReader,
        path: &str,
        fields: Fields<'_>,
        field: &str,
    ) -> KindNames {
        let [inbound, status, events] =
            ["twilio.inbound.v1", "twilio.status.v1", "twilio.events.v1"].map(str::to_owned);
        let mut names = KindNames { inbound, status, events };
        let Some(value) = fields.get(field) else { return names };
        let path = format!("{path}.{field}");
        let given = reading.table(&path, value, &["inbound", "status", "events"]);
        let fields = [
            ("inbound", &mut names.inbound),
            ("status", &mut names.status),
            ("events", &mut names.events),
        ];
        for (field, name) in fields {
            if let Some(value) = given.get(field) {
                let at = format!("{path}.{field}");
                *name = reading.text(&at, Some(value));
                if name.len() > MAX_NAME_BYTES {
                    reading.problem(&at, format_args!("must be at most {MAX_NAME_BYTES} bytes"));
                }
            }
        }
        names
    }
}

/// Reads a whole number; `default` if the field is missing or invalid.
pub(super) fn number(
    reading: &mut TomlReader,
    path: &str,
    fields: Fields<'_>,
    field: &str,
    range: RangeInclusive<u64>,
    default: u64,
) -> u64 {
    let Some(value) = fields.get(field) else { return default };
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    match number.filter(|number| range.contains(number)) {
        Some(number) => number,
        None => {
            let (least, most) = (range.start(), range.end());
            reading.problem(&format!("{path}.{field}"), format_args!("must be {least} to {most}"));
            default
        }
    }
}

/// Reads a required text that may contain spaces, as a password or a path does.
pub(super) fn text_with_spaces(
    reading: &mut TomlReader,
    path: &str,
    value: Option<&Value>,
) -> String {
    match value.map(Value::as_str) {
        Some(Some(text)) if !text.is_empty() && !text.contains(char::is_control) => {
            return text.to_owned();
        }
        None => reading.problem(path, "is required"),
        Some(_) => reading.problem(path, "must be a text, not empty, on one line"),
    }
    String::new()
}
