//! Settings of a Redis Streams sink in the sinks file: server, streams, and their maximum length. Pure: it connects to
//! nothing.

use std::time::Duration;

use toml::Value;

use super::{Names, names, number, timeout};
use twilio_edge_platform::strict_toml::{Fields, Reading};

pub(super) const FIELDS: [&str; 4] = ["url", "streams", "max_length", "trim"];

/// Largest length: Redis uses signed 64-bit numbers.
const LONGEST: u64 = i64::MAX as u64;

/// Settings of a pair of streams in one Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisStream {
    pub url: String,
    pub streams: Names,
    pub max_length: MaxLength,
    pub timeout: Duration,
}

/// Trimming of a stream when an entry is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLength {
    /// No trimming: the readers trim the stream.
    Any,
    /// Approximate trimming: removes whole nodes of the oldest entries, and keeps at least this number of entries.
    About(u64),
    /// Exact trimming: keeps at most this number of entries.
    Exactly(u64),
}

impl std::fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStream").field("streams", &self.streams).finish_non_exhaustive()
    }
}

pub(super) fn read(reading: &mut Reading, path: &str, table: Fields<'_>) -> RedisStream {
    let at = format!("{path}.url");
    let url = reading.text(&at, table.get("url"));
    let host = url.strip_prefix("rediss://").or_else(|| url.strip_prefix("redis://"));
    if !url.is_empty() && host.is_none_or(str::is_empty) {
        reading.problem(&at, "must be redis://HOST.. or rediss://HOST.. (TLS)");
    }
    RedisStream {
        url,
        streams: names(reading, path, table, "streams"),
        max_length: max_length(reading, path, table),
        timeout: timeout(reading, path, table),
    }
}

fn max_length(reading: &mut Reading, path: &str, table: Fields<'_>) -> MaxLength {
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
            reading.problem(&format!("{path}.trim"), "says nothing without max_length");
        }
        return MaxLength::Any;
    }
    let most = number(reading, path, table, "max_length", 1..=LONGEST, 1);
    if is_exact { MaxLength::Exactly(most) } else { MaxLength::About(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::file::{Kind, parse};

    fn sink(more: &str) -> Result<RedisStream, Vec<String>> {
        let file = format!("[[sink]]\nname = \"live\"\ntype = \"redis-stream\"\n{more}\n");
        parse(&file).map(|sinks| match &sinks[0].kind {
            Kind::RedisStream(stream) => stream.clone(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_stream_is_as_long_as_the_file_says() {
        let url = "url = \"rediss://:hush@redis:6379/2\"";
        for (more, length) in [
            ("", MaxLength::Any),
            ("max_length = 1000", MaxLength::About(1000)),
            ("max_length = 1000\ntrim = \"approximate\"", MaxLength::About(1000)),
            ("max_length = 1\ntrim = \"exact\"", MaxLength::Exactly(1)),
        ] {
            let stream = sink(&format!("{url}\n{more}")).unwrap();
            assert_eq!(stream.max_length, length, "{more}");
            assert_eq!(stream.streams.status, "twilio.status.v1");
            assert!(!format!("{stream:?}").contains("hush"));
        }
    }

    #[test]
    fn everything_wrong_is_told_and_no_value_is_shown() {
        for (more, paths) in [
            ("", &["url"][..]),
            ("url = \"http://hush\"\nmax_length = 0", &["url", "max_length"]),
            ("url = \"redis://hush\"\ntrim = \"exact\"", &["trim"]),
            ("url = \"redis://hush\"\nmax_length = 7\ntrim = \"hush\"", &["trim"]),
            ("url = \"redis://hush\"\nsecrets = []", &["secrets"]),
            ("url = \"redis://hush\"\nstreams = \"hush\"", &["streams"]),
        ] {
            let problems = sink(more).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{more}: {problems:?}");
            for (path, problem) in paths.iter().zip(&problems) {
                assert!(problem.starts_with(&format!("sink[0].{path}: ")), "{problem}");
                assert!(!problem.contains("hush"), "{problem}");
            }
        }
    }
}
