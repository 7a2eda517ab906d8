//! Parsers of values that fields of several sink types have.

use std::ops::RangeInclusive;

use toml::Value;
use twilio_edge_domain::event::EventKind;
use twilio_edge_platform::{
    file_access,
    strict_toml::{Fields, TomlReader},
};

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

/// Paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Certificates of trusted authorities; `None` for the system's roots.
    pub(super) ca_file: Option<String>,
    /// Client certificate and its key, for servers that request one.
    pub(super) identity: Option<(String, String)>,
}

impl Tls {
    /// Reads the table of paths. Reads no file.
    pub(super) fn read(reading: &mut TomlReader, path: &str, value: &Value) -> Tls {
        let table = reading.table(path, value, &["ca_file", "cert_file", "key_file"]);
        let mut file = |field: &str| {
            let value = table.get(field)?;
            Some(text_with_spaces(reading, &format!("{path}.{field}"), Some(value)))
        };
        let (ca_file, cert, key) = (file("ca_file"), file("cert_file"), file("key_file"));
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                reading.problem(path, "cert_file and key_file are needed together");
                None
            }
        };
        Tls { ca_file, identity }
    }

    /// Checks that the files can be read, and that no other user may read the key.
    ///
    /// # Errors
    /// Returns the field of the first file that is unusable, with the reason.
    pub(super) fn check_files(&self) -> Result<(), String> {
        let identity = self.identity.as_ref();
        let (cert, key) = identity.map_or((None, None), |(cert, key)| (Some(cert), Some(key)));
        let files = [("ca_file", self.ca_file.as_ref()), ("cert_file", cert), ("key_file", key)];
        for (field, path) in files {
            if let Some(Err(error)) = path.map(std::fs::read) {
                return Err(format!("tls.{field}: {error}"));
            }
        }
        let checked = key.map_or(Ok(()), |key| file_access::check_secret(key.as_ref()));
        checked.map_err(|problem| format!("tls.key_file: {problem}"))
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
