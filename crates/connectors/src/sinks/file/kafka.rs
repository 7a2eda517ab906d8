//! Settings of a Kafka sink in the sinks file: brokers, topics, TLS and authentication. Pure: it connects to nothing
//! and reads no other file.

use std::time::Duration;

use toml::Value;

use super::{Names, names, timeout};
use twilio_edge_platform::strict_toml::{Fields, Reading};

pub(super) const FIELDS: [&str; 4] = ["brokers", "topics", "tls", "sasl"];

/// Upper bound of bootstrap brokers. One of them is enough to find the others.
const MAX_BROKERS: usize = 32;

/// Settings of a Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `HOST:PORT` of each bootstrap broker.
    pub brokers: Vec<String>,
    pub topics: Names,
    /// `None` for plain text.
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// Time limit of a delivery, until the brokers have acknowledged the record.
    pub timeout: Duration,
}

/// Paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of trusted authorities; `None` for the system's roots.
    pub ca_file: Option<String>,
    /// Client certificate and its key, for brokers that request one.
    pub identity: Option<(String, String)>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub username: String,
    pub password: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sasl").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

pub(super) fn read(reading: &mut Reading, path: &str, table: Fields<'_>) -> Kafka {
    let tls = table.get("tls").map(|value| tls(reading, &format!("{path}.tls"), value));
    let sasl = table.get("sasl").map(|value| sasl(reading, &format!("{path}.sasl"), value));
    if tls.is_none() && sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        let problem =
            "plain tells the password to whoever listens: add `tls = {}`, or use scram-sha-512";
        reading.problem(&format!("{path}.sasl.mechanism"), problem);
    }
    Kafka {
        brokers: brokers(reading, &format!("{path}.brokers"), table),
        topics: topics(reading, path, table),
        tls,
        sasl,
        timeout: timeout(reading, path, table),
    }
}

fn brokers(reading: &mut Reading, path: &str, table: Fields<'_>) -> Vec<String> {
    let listed = reading.list(path, table.get("brokers"), MAX_BROKERS);
    if listed.is_empty()
        && !matches!(table.get("brokers"), Some(Value::Array(more)) if !more.is_empty())
    {
        reading.problem(path, "is required: one HOST:PORT or more");
    }
    let broker = |(n, value): (usize, &Value)| {
        let at = format!("{path}[{n}]");
        let broker = reading.text(&at, Some(value));
        let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let is_address =
            port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        let is_more = broker.contains([',', '/', '@']);
        if !broker.is_empty() && (!is_address || is_more) {
            reading.problem(&at, "must be HOST:PORT, as in kafka-1.internal:9093");
        }
        broker
    };
    listed.iter().enumerate().map(broker).collect()
}

fn topics(reading: &mut Reading, path: &str, table: Fields<'_>) -> Names {
    let topics = names(reading, path, table, "topics");
    for (class, topic) in [("inbound", &topics.inbound), ("status", &topics.status)] {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !topic.bytes().all(fits) || matches!(topic.as_str(), "." | "..") {
            let at = format!("{path}.topics.{class}");
            reading.problem(&at, "must be letters, digits, ., - and _: Kafka takes no others");
        }
    }
    topics
}

fn tls(reading: &mut Reading, path: &str, value: &Value) -> Tls {
    let table = reading.table(path, value, &["ca_file", "cert_file", "key_file"]);
    let mut file = |field: &str| {
        let value = table.get(field)?;
        Some(secret(reading, &format!("{path}.{field}"), Some(value)))
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

fn sasl(reading: &mut Reading, path: &str, value: &Value) -> Sasl {
    let table = reading.table(path, value, &["mechanism", "username", "password"]);
    let mechanism = match table.get("mechanism").and_then(Value::as_str) {
        Some("plain") => Mechanism::Plain,
        Some("scram-sha-256") => Mechanism::ScramSha256,
        Some("scram-sha-512") => Mechanism::ScramSha512,
        _ => {
            let problem = "must be plain, scram-sha-256 or scram-sha-512";
            reading.problem(&format!("{path}.mechanism"), problem);
            Mechanism::ScramSha512
        }
    };
    Sasl {
        mechanism,
        username: secret(reading, &format!("{path}.username"), table.get("username")),
        password: secret(reading, &format!("{path}.password"), table.get("password")),
    }
}

/// Reads a text that is not empty. Spaces are permitted, because a password or a path may contain them.
fn secret(reading: &mut Reading, path: &str, value: Option<&Value>) -> String {
    match value.map(Value::as_str) {
        Some(Some(text)) if !text.is_empty() && !text.contains(char::is_control) => {
            return text.to_owned();
        }
        None => reading.problem(path, "is required"),
        Some(_) => reading.problem(path, "must be a text, not empty, on one line"),
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::file::{Kind, parse};

    #[test]
    fn a_cluster_is_read_whole_and_shown_without_its_password() {
        let file = r#"
[[sink]]
name = "bus"
type = "kafka"
brokers = ["kafka-1:9093", "[::1]:9093"]
topics = { status = "statuses" }
tls = { ca_file = "/etc/kafka/ca.pem" }
sasl = { mechanism = "scram-sha-256", username = "edge", password = "hush hush" }
timeout_ms = 3000
"#;
        let sinks = parse(file).unwrap();
        let Kind::Kafka(kafka) = &sinks[0].kind else { panic!("{sinks:?}") };
        assert_eq!(kafka.brokers, ["kafka-1:9093", "[::1]:9093"]);
        assert_eq!(
            (kafka.topics.inbound.as_str(), kafka.topics.status.as_str()),
            ("twilio.inbound.v1", "statuses")
        );
        assert_eq!(kafka.timeout, Duration::from_secs(3));
        let sasl = kafka.sasl.as_ref().unwrap();
        assert_eq!((sasl.mechanism, &*sasl.password), (Mechanism::ScramSha256, "hush hush"));
        assert!(!format!("{sinks:?} {sasl:?}").contains("hush"));
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_no_value_is_shown() {
        let file = r#"
[[sink]]
name = "bus"
type = "kafka"
url = "hush"
brokers = ["hush", "hush:0", "a:1,hush:2"]
topics = { inbound = "hush/hush", other = "hush" }
tls = { cert_file = "hush" }
sasl = { mechanism = "hush", username = "" }
[[sink]]
name = "open"
type = "kafka"
brokers = []
sasl = { mechanism = "plain", username = "hush", password = "hush" }
"#;
        let problems = parse(file).unwrap_err();
        assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        for path in [
            "sink[0].url",
            "sink[0].brokers[0]",
            "sink[0].brokers[1]",
            "sink[0].brokers[2]",
            "sink[0].topics.inbound",
            "sink[0].topics.other",
            "sink[0].tls",
            "sink[0].sasl.mechanism",
            "sink[0].sasl.username",
            "sink[0].sasl.password",
            "sink[1].brokers",
            "sink[1].sasl.mechanism",
        ] {
            let told = problems.iter().any(|problem| problem.starts_with(&format!("{path}: ")));
            assert!(told, "{path}: {problems:?}");
        }
        assert_eq!(problems.len(), 12, "{problems:?}");
    }
}
