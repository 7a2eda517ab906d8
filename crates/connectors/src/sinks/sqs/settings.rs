//! Settings of an SQS sink in the sinks file. Pure: it connects to nothing and reads no other file.

use crate::sinks::{fields::text_with_spaces, sink_type::Field};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "queue_url",
        meaning: "URL of the queue, as in `https://sqs.eu-central-1.amazonaws.com/123456789012/twilio.fifo`; a queue whose name ends in `.fifo` gets a group and a deduplication id; required",
    },
    Field { name: "region", meaning: "region of the queue; default: the region in `queue_url`" },
    Field {
        name: "credentials_file",
        meaning: "file with lines `aws_access_key_id = ..` and `aws_secret_access_key = ..`; default: the environment, the web identity of the pod, or the role of the machine",
    },
];

/// Settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) queue_url: String,
    /// Scheme, host and port of `queue_url`.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// `None` for the credentials of the environment.
    pub(super) credentials_file: Option<String>,
}

impl Settings {
    /// Returns whether the queue is a FIFO queue, which SQS expresses in its name.
    pub(super) fn is_fifo(&self) -> bool {
        self.queue_url.ends_with(".fifo")
    }
}

pub(super) fn parse(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Settings {
    let at = format!("{path}.queue_url");
    let queue_url = reading.text(&at, table.get("queue_url"));
    let parts = parts(&queue_url);
    if parts.is_none() && !queue_url.is_empty() {
        let problem = "must be the URL of a queue, as in https://sqs.eu-central-1.amazonaws.com/123456789012/twilio.fifo";
        reading.problem(&at, problem);
    }
    let (endpoint, host) = parts.unwrap_or_default();
    let region = match table.get("region") {
        Some(value) => reading.text(&format!("{path}.region"), Some(value)),
        None => {
            let region = region_of(&host);
            if region.is_none() && !host.is_empty() {
                let problem = "is required, because `queue_url` does not name a region";
                reading.problem(&format!("{path}.region"), problem);
            }
            region.unwrap_or_default()
        }
    };
    let credentials_file = table
        .get("credentials_file")
        .map(|value| text_with_spaces(reading, &format!("{path}.credentials_file"), Some(value)));
    Settings { queue_url, endpoint, region, credentials_file }
}

/// Returns the endpoint and the host of a queue URL.
fn parts(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_once('/')?;
    let is_plain = !authority.is_empty() && !authority.contains(['@', '?', '#']);
    let is_queue = path.split('/').count() >= 2 && !path.contains(['?', '#']);
    let has_parts = path.split('/').all(|part| !part.is_empty());
    let is_url = matches!(scheme, "http" | "https") && is_plain && is_queue && has_parts;
    let host = authority.split(':').next().unwrap_or_default().to_owned();
    is_url.then(|| (format!("{scheme}://{authority}"), host))
}

/// Returns the region in a host of SQS: `sqs.REGION.amazonaws.com`, also of other partitions.
fn region_of(host: &str) -> Option<String> {
    let (region, domain) = host.strip_prefix("sqs.")?.split_once('.')?;
    domain.starts_with("amazonaws.com").then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::sinks::{sink_type::settings_of, sqs::Queue};

    #[test]
    fn queue_settings_are_read_completely() {
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/twilio.fifo";
        let settings = settings_of::<Queue>(&format!("queue_url = \"{url}\"")).unwrap();
        assert_eq!(settings.endpoint, "https://sqs.eu-central-1.amazonaws.com");
        assert_eq!((settings.region.as_str(), settings.is_fifo()), ("eu-central-1", true));
        let text = "queue_url = \"http://127.0.0.1:5000/1/edge\"\nregion = \"us-east-1\"\ncredentials_file = \"/a b\"";
        let settings = settings_of::<Queue>(text).unwrap();
        assert_eq!(
            (&*settings.endpoint, &*settings.region),
            ("http://127.0.0.1:5000", "us-east-1")
        );
        assert_eq!(
            (settings.is_fifo(), settings.credentials_file.as_deref()),
            (false, Some("/a b"))
        );
        let china = "https://sqs.cn-north-1.amazonaws.com.cn/1/a";
        assert_eq!(
            settings_of::<Queue>(&format!("queue_url = \"{china}\"")).unwrap().region,
            "cn-north-1"
        );
    }

    #[test]
    fn queue_settings_have_all_problems_listed_without_a_value() {
        for (text, paths) in [
            ("", &["queue_url"][..]),
            (
                "queue_url = \"hush\"\nregion = \"\"\ncredentials_file = 7",
                &["queue_url", "region", "credentials_file"],
            ),
            ("queue_url = \"https://user:hush@host/1/a\"", &["queue_url"]),
            ("queue_url = \"https://sqs.hush.amazonaws.com/hush\"", &["queue_url"]),
            ("queue_url = \"http://hush:5000/1/a\"\nurl = \"hush\"", &["url", "region"]),
        ] {
            let problems = settings_of::<Queue>(text).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{text}: {problems:?}");
            for path in paths {
                let start = format!("sink[0].{path}: ");
                assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{problems:?}");
            }
            assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        }
    }
}
