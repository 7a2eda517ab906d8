//! Settings of a Pub/Sub sink in the sinks file. Pure: it connects to nothing and reads no other file.

use crate::sinks::{fields::text_with_spaces, sink_type::Field};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "topic",
        meaning: "full name of the topic, as in `projects/acme/topics/twilio`; required",
    },
    Field {
        name: "endpoint",
        meaning: "`https://` address of Pub/Sub, as in `https://europe-west3-pubsub.googleapis.com`, without a path; `http://` for an emulator, which gets no credentials; default `https://pubsub.googleapis.com`",
    },
    Field {
        name: "credentials_file",
        meaning: "JSON file of a service account; default: the environment, or the service account of the machine",
    },
];

/// Address of Pub/Sub for all regions.
const ENDPOINT: &str = "https://pubsub.googleapis.com";

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) topic: String,
    pub(super) endpoint: String,
    /// `None` for the credentials of the environment.
    pub(super) credentials_file: Option<String>,
}

impl Settings {
    /// Returns whether requests have credentials, which are never sent without TLS.
    pub(super) fn has_credentials(&self) -> bool {
        self.endpoint.starts_with("https://")
    }
}

pub(super) fn parse(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Settings {
    let at = format!("{path}.topic");
    let topic = reading.text(&at, table.get("topic"));
    if !topic.is_empty() && !is_topic(&topic) {
        let problem = "must be the full name of a topic, as in projects/acme/topics/twilio";
        reading.problem(&at, problem);
    }
    let endpoint = match table.get("endpoint") {
        Some(value) => {
            let at = format!("{path}.endpoint");
            let endpoint = reading.text(&at, Some(value));
            if !endpoint.is_empty() && !is_endpoint(&endpoint) {
                reading.problem(&at, "must be https://HOST or http://HOST:PORT, without a path");
            }
            endpoint
        }
        None => ENDPOINT.to_owned(),
    };
    let credentials_file = table
        .get("credentials_file")
        .map(|value| text_with_spaces(reading, &format!("{path}.credentials_file"), Some(value)));
    if credentials_file.is_some() && endpoint.starts_with("http://") {
        let problem =
            "must not be set with an http:// endpoint, which gets no credentials; remove one";
        reading.problem(&format!("{path}.credentials_file"), problem);
    }
    Settings { topic, endpoint, credentials_file }
}

fn is_topic(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    // The characters that Pub/Sub permits in names of topics, and the colon of projects that belong to a domain.
    let is_name = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+%:".contains(&byte);
        (3..=255).contains(&part.len()) && part.bytes().all(fits)
    };
    matches!(parts.as_slice(), ["projects", project, "topics", topic] if is_name(project) && is_name(topic))
}

fn is_endpoint(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{pubsub::Topic, sink_type::settings_of};

    #[test]
    fn topic_settings_are_read_completely() {
        let topic = "topic = \"projects/acme/topics/twilio\"\n";
        let settings = settings_of::<Topic>(topic).unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.has_credentials()), (ENDPOINT, true));
        let text = format!(
            "{topic}endpoint = \"https://europe-west3-pubsub.googleapis.com\"\ncredentials_file = \"/a b\""
        );
        let settings = settings_of::<Topic>(&text).unwrap();
        assert_eq!(settings.credentials_file.as_deref(), Some("/a b"));
        let text = format!("{topic}endpoint = \"http://127.0.0.1:8085\"");
        assert!(!settings_of::<Topic>(&text).unwrap().has_credentials());
    }

    #[test]
    fn topic_settings_have_all_problems_listed_without_a_value() {
        let topic = "topic = \"projects/acme/topics/twilio\"\n";
        for (text, paths) in [
            ("", &["topic"][..]),
            (
                "topic = \"hush\"\nendpoint = 7\ncredentials_file = \"\"",
                &["topic", "endpoint", "credentials_file"],
            ),
            ("topic = \"projects/a b/topics/hush\"", &["topic"]),
            (&format!("{topic}endpoint = \"https://hush/v1\""), &["endpoint"]),
            (
                &format!("{topic}endpoint = \"http://hush:1\"\ncredentials_file = \"hush\""),
                &["credentials_file"],
            ),
            (&format!("{topic}queue_url = \"hush\""), &["queue_url"]),
        ] {
            let problems = settings_of::<Topic>(text).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{text}: {problems:?}");
            for path in paths {
                let start = format!("sink[0].{path}: ");
                assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{problems:?}");
            }
            assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        }
    }
}
