//! Settings of a Redis Streams sink in the sinks file: server, streams, and their maximum length. Pure: it connects to
//! nothing.

use toml::Value;

use crate::sinks::{
    fields::{KindNames, number},
    sink_type::Field,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "url",
        meaning: "`redis://` or, with TLS, `rediss://` address, with name, password and database number if needed; required",
    },
    Field {
        name: "streams",
        meaning: "stream of each kind of events; default `{ inbound = \"twilio.inbound.v1\", status = \"twilio.status.v1\", events = \"twilio.events.v1\" }`",
    },
    Field {
        name: "max_length",
        meaning: "entries that a stream has at most, from 1; older ones are removed, read or not; default: the sink removes none",
    },
    Field {
        name: "trim",
        meaning: "`approximate`: removes whole nodes of the oldest entries, so that some more remain; `exact`; default `approximate`",
    },
];

/// Largest length: Redis uses signed 64-bit numbers.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// Settings of a group of streams in one Redis.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) url: String,
    pub(super) streams: KindNames,
    pub(super) max_length: MaxLength,
}

/// Trimming of a stream when an entry is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaxLength {
    /// No trimming: the readers trim the stream.
    Unlimited,
    /// Approximate trimming: removes whole nodes of the oldest entries, and keeps at least this number of entries.
    Approximate(u64),
    /// Exact trimming: keeps at most this number of entries.
    Exact(u64),
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("streams", &self.streams).finish_non_exhaustive()
    }
}

pub(super) fn parse(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Settings {
    let at = format!("{path}.url");
    let url = reading.text(&at, table.get("url"));
    let host = url.strip_prefix("rediss://").or_else(|| url.strip_prefix("redis://"));
    if !url.is_empty() && host.is_none_or(str::is_empty) {
        reading.problem(&at, "must be redis://HOST.. or rediss://HOST.. (TLS)");
    }
    Settings {
        url,
        streams: KindNames::read(reading, path, table, "streams"),
        max_length: max_length(reading, path, table),
    }
}

fn max_length(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> MaxLength {
    let is_exact = match table.get("trim").map(Value::as_str) {
        None | Some(Some("approximate")) => false,
        Some(Some("exact")) => true,
        Some(_) => {
            reading.problem(&format!("{path}.trim"), "must be approximate or exact");
            false
        }
    };
    if table.get("max_length").is_none() {
        if table.get("trim").is_some() {
            reading.problem(&format!("{path}.trim"), "has no effect without max_length");
        }
        return MaxLength::Unlimited;
    }
    let most = number(reading, path, table, "max_length", 1..=MAX_LENGTH, 1);
    if is_exact { MaxLength::Exact(most) } else { MaxLength::Approximate(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{redis_stream::Streams, sink_type::settings_of};

    #[test]
    fn max_length_is_read_with_its_kind_of_trimming() {
        let url = "url = \"rediss://:hush@redis:6379/2\"";
        for (more, length) in [
            ("", MaxLength::Unlimited),
            ("max_length = 1000", MaxLength::Approximate(1000)),
            ("max_length = 1000\ntrim = \"approximate\"", MaxLength::Approximate(1000)),
            ("max_length = 1\ntrim = \"exact\"", MaxLength::Exact(1)),
        ] {
            let settings = settings_of::<Streams>(&format!("{url}\n{more}")).unwrap();
            assert_eq!(settings.max_length, length, "{more}");
            assert_eq!(settings.streams.status, "twilio.status.v1");
            assert!(!format!("{settings:?}").contains("hush"));
        }
    }

    #[test]
    fn redis_stream_settings_have_all_problems_listed_without_a_value() {
        for (more, paths) in [
            ("", &["url"][..]),
            ("url = \"http://hush\"\nmax_length = 0", &["url", "max_length"]),
            ("url = \"redis://hush\"\ntrim = \"exact\"", &["trim"]),
            ("url = \"redis://hush\"\nmax_length = 7\ntrim = \"hush\"", &["trim"]),
            ("url = \"redis://hush\"\nsecrets = []", &["secrets"]),
            ("url = \"redis://hush\"\nstreams = \"hush\"", &["streams"]),
        ] {
            let problems = settings_of::<Streams>(more).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{more}: {problems:?}");
            for (path, problem) in paths.iter().zip(&problems) {
                assert!(problem.starts_with(&format!("sink[0].{path}: ")), "{problem}");
                assert!(!problem.contains("hush"), "{problem}");
            }
        }
    }
}
