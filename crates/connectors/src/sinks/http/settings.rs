//! Settings of an HTTP sink in the sinks file. Pure: it connects to nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use toml::Value;

use crate::sinks::sink_type::Field;
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "url",
        meaning: "`http://` or `https://` address, without a name and password; required",
    },
    Field {
        name: "format",
        meaning: "`event`: the JSON event; `form`: the parameters as Twilio sent them; default `event`",
    },
    Field {
        name: "secrets",
        meaning: "up to 4 signing secrets `whsec_..` of Standard Webhooks, the current one first; default: requests are not signed",
    },
];

/// Upper bound of secrets: the current one and those that it replaces.
const MAX_SECRETS: usize = 4;
/// Prefix of a Standard Webhooks secret.
const SECRET_PREFIX: &str = "whsec_";
/// Shortest and longest key that the specification permits, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Settings of an HTTP endpoint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) url: String,
    pub(super) format: Format,
    /// Keys of Standard Webhooks signatures, the current one first; empty for unsigned requests.
    pub(super) secrets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Body format of an HTTP sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON event.
    Event,
    /// Form as Twilio sent it.
    Form,
}

pub(super) fn parse(reading: &mut TomlReader, path: &str, table: Fields<'_>) -> Settings {
    let at = format!("{path}.url");
    let url = reading.text(&at, table.get("url"));
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if !url.is_empty()
        && host.is_none_or(|rest| rest.is_empty() || rest.starts_with(['/', ':', '?']))
    {
        reading.problem(&at, "must be http://HOST.. or https://HOST..");
    }
    if host.and_then(|rest| rest.split('/').next()).is_some_and(|host| host.contains('@')) {
        reading.problem(&at, "must not hold a name or password: sign with `secrets` instead");
    }
    let format = match table.get("format").map(Value::as_str) {
        None | Some(Some("event")) => Format::Event,
        Some(Some("form")) => Format::Form,
        Some(_) => {
            reading.problem(&format!("{path}.format"), "must be event or form");
            Format::Event
        }
    };
    let secrets = format!("{path}.secrets");
    let secrets = reading
        .list(&secrets, table.get("secrets"), MAX_SECRETS)
        .iter()
        .enumerate()
        .map(|(n, secret)| {
            let at = format!("{secrets}[{n}]");
            let text = reading.text(&at, Some(secret));
            let key = text.strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
            match key.filter(|key| SECRET_BYTES.contains(&key.len())) {
                Some(key) => key,
                None => {
                    if !text.is_empty() {
                        reading.problem(&at, "must be whsec_ and 24 to 64 bytes in base64");
                    }
                    Vec::new()
                }
            }
        })
        .collect();
    Settings { url, format, secrets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{http::Endpoint, sink_type::settings_of};

    #[test]
    fn http_settings_are_read_completely_and_shown_without_secrets() {
        let text = "url = \"https://app.internal/hush\"\nformat = \"form\"\n\
                    secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]";
        let settings = settings_of::<Endpoint>(text).unwrap();
        assert_eq!(settings.url, "https://app.internal/hush");
        assert_eq!((settings.format, settings.secrets[0].len()), (Format::Form, 24));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hush") && !shown.contains("secrets"), "{shown}");
    }

    #[test]
    fn http_settings_have_all_problems_listed_without_a_value() {
        for (text, paths) in [
            ("", &["url"][..]),
            ("url = \"https://user:hush@host/\"", &["url"]),
            (
                "url = \"ftp://hush\"\nformat = \"hush\"\nsecrets = [\"hush\", 7]",
                &["url", "format", "secrets[0]", "secrets[1]"],
            ),
            ("url = \"http://a\"\nbrokers = []", &["brokers"]),
        ] {
            let problems = settings_of::<Endpoint>(text).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{text}: {problems:?}");
            for (path, problem) in paths.iter().zip(&problems) {
                assert!(problem.starts_with(&format!("sink[0].{path}: ")), "{problem}");
                assert!(!problem.contains("hush"), "{problem}");
            }
        }
    }
}
