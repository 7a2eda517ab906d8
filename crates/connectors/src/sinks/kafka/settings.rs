//! Settings of a Kafka sink in the sinks file: brokers, topics, TLS and authentication. Pure: it connects to nothing
//! and reads no other file.

use toml::Value;

use crate::sinks::{
    fields::{KindNames, Tls, text_with_spaces},
    sink_type::Field,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "brokers",
        meaning: "up to 32 bootstrap brokers, `HOST:PORT`; one of them is enough to find the others; required",
    },
    Field {
        name: "topics",
        meaning: "topic of each kind of events; default `{ inbound = \"twilio.inbound.v1\", status = \"twilio.status.v1\", events = \"twilio.events.v1\" }`",
    },
    Field {
        name: "tls",
        meaning: "PEM files: `ca_file` (default: the system's root certificates), and `cert_file` with `key_file` for brokers that request a client certificate; default: plain text",
    },
    Field {
        name: "sasl",
        meaning: "`mechanism` (`plain` with TLS only, `scram-sha-256`, `scram-sha-512`), `username` and `password`; default: no authentication",
    },
];

/// Upper bound of bootstrap brokers. One of them is enough to find the others.
const MAX_BROKERS: usize = 32;

/// Settings of a Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `HOST:PORT` of each bootstrap broker.
    pub(super) brokers: Vec<String>,
    pub(super) topics: KindNames,
    /// `None` for plain text.
    pub(super) tls: Option<Tls>,
    pub(super) sasl: Option<Sasl>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sasl {
    pub(super) mechanism: Mechanism,
    pub(super) username: String,
    pub(super) password: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sasl").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

pub(super) fn parse(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Settings {
    let tls = table.get("tls").map(|value| Tls::read(reading, &format!("{path}.tls"), value));
    let sasl = table.get("sasl").map(|value| sasl(reading, &format!("{path}.sasl"), value));
    if tls.is_none() && sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        let problem = "plain sends the password unencrypted: add `tls = {}`, or use scram-sha-512";
        reading.problem(&format!("{path}.sasl.mechanism"), problem);
    }
    Settings {
        brokers: brokers(reading, &format!("{path}.brokers"), table),
        topics: topics(reading, path, table),
        tls,
        sasl,
    }
}

fn brokers(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Vec<String> {
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

fn topics(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> KindNames {
    let topics = KindNames::read(reading, path, table, "topics");
    for (field, topic) in topics.iter() {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !topic.bytes().all(fits) || matches!(topic, "." | "..") {
            let at = format!("{path}.topics.{field}");
            reading.problem(&at, "must be letters, digits, ., - and _, which Kafka requires");
        }
    }
    topics
}

fn sasl(reading: &mut TomlReader, path: &str, value: &Value) -> Sasl {
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
        username: text_with_spaces(reading, &format!("{path}.username"), table.get("username")),
        password: text_with_spaces(reading, &format!("{path}.password"), table.get("password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{kafka::Cluster, sink_type::settings_of};

    #[test]
    fn kafka_settings_are_read_completely_and_shown_without_the_password() {
        let text = r#"
brokers = ["kafka-1:9093", "[::1]:9093"]
topics = { status = "statuses" }
tls = { ca_file = "/etc/kafka/ca.pem" }
sasl = { mechanism = "scram-sha-256", username = "edge", password = "hush hush" }
"#;
        let settings = settings_of::<Cluster>(text).unwrap();
        assert_eq!(settings.brokers, ["kafka-1:9093", "[::1]:9093"]);
        let topics = &settings.topics;
        assert_eq!([&*topics.inbound, &*topics.status], ["twilio.inbound.v1", "statuses"]);
        let sasl = settings.sasl.as_ref().unwrap();
        assert_eq!((sasl.mechanism, &*sasl.password), (Mechanism::ScramSha256, "hush hush"));
        assert!(!format!("{settings:?} {sasl:?}").contains("hush"));
    }

    #[test]
    fn kafka_settings_have_all_problems_listed_without_a_value() {
        for (text, paths) in [
            (
                r#"
url = "hush"
brokers = ["hush", "hush:0", "a:1,hush:2"]
topics = { inbound = "hush/hush", other = "hush" }
tls = { cert_file = "hush" }
sasl = { mechanism = "hush", username = "" }
"#,
                &[
                    "url",
                    "brokers[0]",
                    "brokers[1]",
                    "brokers[2]",
                    "topics.inbound",
                    "topics.other",
                    "tls",
                    "sasl.mechanism",
                    "sasl.username",
                    "sasl.password",
                ][..],
            ),
            (
                r#"
brokers = []
sasl = { mechanism = "plain", username = "hush", password = "hush" }
"#,
                &["brokers", "sasl.mechanism"],
            ),
        ] {
            let problems = settings_of::<Cluster>(text).unwrap_err();
            assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
            for path in paths {
                let start = format!("sink[0].{path}: ");
                assert!(
                    problems.iter().any(|problem| problem.starts_with(&start)),
                    "{start}{problems:?}"
                );
            }
            assert_eq!(problems.len(), paths.len(), "{problems:?}");
        }
    }
}
