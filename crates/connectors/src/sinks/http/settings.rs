//! Settings of an HTTP sink in the sinks file. Pure: it connects to nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use toml::Value;

use crate::sinks::{
    fields::{Tls, text_with_spaces},
    sink_type::Field,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "url",
        meaning: "`http://` or `https://` address, without a name and password; required",
    },
    Field {
        name: "headers",
        meaning: "up to 32 headers of every request, as in `{ x-team = \"support\" }`; not those that the sidecar sets itself; default: none",
    },
    Field {
        name: "bearer_token",
        meaning: "token of the header `authorization: Bearer ..`; default: none",
    },
    Field {
        name: "basic",
        meaning: "`username` and `password` of the header `authorization: Basic ..`; not together with `bearer_token`; default: none",
    },
    Field {
        name: "tls",
        meaning: "PEM files for an `https://` address: `ca_file` (default: the system's root certificates), and `cert_file` with `key_file` for receivers that request a client certificate; read again every five minutes",
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

/// Upper bound of static headers, and of the length of a value in bytes.
const MAX_HEADERS: usize = 32;
const MAX_HEADER_BYTES: usize = 4096;
/// Headers that the sidecar sets, or that belong to the connection.
const RESERVED: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Beginnings of the names of headers that the sidecar sets.
const RESERVED_PREFIXES: [&str; 2] = ["webhook-", "x-twilio-"];

/// Settings of an HTTP endpoint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) url: String,
    pub(super) format: Format,
    /// Keys of Standard Webhooks signatures, the current one first; empty for unsigned requests.
    pub(super) secrets: Vec<Vec<u8>>,
    /// Headers of every request, the credentials among them.
    pub(super) headers: HeaderMap,
    /// `None` for the system's roots and no client certificate.
    pub(super) tls: Option<Tls>,
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
        reading.problem(
            &at,
            "must not hold a name or password: use `basic` or `bearer_token` instead",
        );
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
    let mut headers = headers(reading, &format!("{path}.headers"), table.get("headers"));
    if let Some(credentials) = authorization(reading, path, table, &headers) {
        headers.insert(header::AUTHORIZATION, credentials);
    }
    let tls = table.get("tls").map(|value| Tls::read(reading, &format!("{path}.tls"), value));
    if tls.is_some() && url.starts_with("http://") {
        reading.problem(&format!("{path}.tls"), "needs an https:// address in `url`");
    }
    Settings { url, format, secrets, headers, tls }
}

/// Reads the table of static headers.
fn headers(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(value) = value else { return headers };
    let Some(table) = value.as_table() else {
        reading.problem(path, "must be a table, as in { x-team = \"support\" }");
        return headers;
    };
    if table.len() > MAX_HEADERS {
        reading.problem(path, format_args!("must have at most {MAX_HEADERS} headers"));
        return headers;
    }
    for (n, (name, value)) in table.iter().enumerate() {
        let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
            // The name may be a secret that stands in the wrong place.
            reading.problem(path, format_args!("the name of entry {} is not a header name", n + 1));
            continue;
        };
        let at = format!("{path}.{known}");
        let is_reserved = RESERVED.contains(&known.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| known.as_str().starts_with(prefix));
        if is_reserved {
            reading.problem(&at, "is a header that the sidecar sets itself; remove it");
            continue;
        }
        let text = text_with_spaces(reading, &at, Some(value));
        if text.is_empty() {
            continue;
        }
        match HeaderValue::from_str(&text) {
            Ok(mut value) if text.is_ascii() && text.len() <= MAX_HEADER_BYTES => {
                value.set_sensitive(true);
                if headers.insert(known, value).is_some() {
                    reading.problem(&at, "is given twice; upper and lower case do not differ");
                }
            }
            _ => reading.problem(
                &at,
                format_args!("must be at most {MAX_HEADER_BYTES} printable ASCII characters"),
            ),
        }
    }
    headers
}

/// Reads `bearer_token` or `basic` as the value of the header.
fn authorization(
    reading: &mut TomlReader,
    path: &str,
    table: Fields<'_>,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    let bearer = table.get("bearer_token").map(|value| {
        let token = reading.text(&format!("{path}.bearer_token"), Some(value));
        format!("Bearer {token}")
    });
    let basic = table.get("basic").map(|value| {
        let at = format!("{path}.basic");
        let table = reading.table(&at, value, &["username", "password"]);
        let mut text =
            |field: &str| text_with_spaces(reading, &format!("{at}.{field}"), table.get(field));
        let (username, password) = (text("username"), text("password"));
        if username.contains(':') {
            reading.problem(&format!("{at}.username"), "must not contain a colon");
        }
        format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
    });
    let is_in_headers = headers.contains_key(header::AUTHORIZATION);
    let credentials = match (bearer, basic) {
        (Some(_), Some(_)) => {
            reading
                .problem(&format!("{path}.basic"), "must not be set with bearer_token; remove one");
            return None;
        }
        (bearer, basic) => bearer.or(basic)?,
    };
    if is_in_headers {
        let problem = "must not be set with bearer_token or basic; remove one";
        reading.problem(&format!("{path}.headers.authorization"), problem);
    }
    let mut value = HeaderValue::try_from(credentials).ok()?;
    value.set_sensitive(true);
    Some(value)
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
    fn credentials_and_headers_are_read_and_not_shown() {
        let read = |text: &str| {
            let text = format!("url = \"https://a\"\n{text}");
            let settings = settings_of::<Endpoint>(&text).unwrap();
            assert!(!format!("{settings:?}").contains("hush"));
            settings
        };
        let header = |settings: &Settings, name: &str| {
            settings.headers.get(name).unwrap().to_str().unwrap().to_owned()
        };
        let bearer = read("bearer_token = \"hush\"\nheaders = { X-Team = \"hush hush\" }");
        assert_eq!(header(&bearer, "authorization"), "Bearer hush");
        assert_eq!(header(&bearer, "x-team"), "hush hush");
        // The example of RFC 7617.
        let basic = read("basic = { username = \"Aladdin\", password = \"open sesame\" }");
        assert_eq!(header(&basic, "authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let own = read("headers = { authorization = \"ApiKey hush\" }");
        assert_eq!(header(&own, "authorization"), "ApiKey hush");
        let tls =
            read("tls = { ca_file = \"/a b/ca.pem\", cert_file = \"/c\", key_file = \"/k\" }");
        assert_eq!(tls.tls.unwrap().ca_file.unwrap(), "/a b/ca.pem");
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
            (
                "url = \"http://a\"\nbearer_token = \"hush hush\"\nheaders = 7\ntls = {}",
                &["headers", "bearer_token", "tls"],
            ),
            (
                "url = \"https://a\"\nbearer_token = \"hush\"\nheaders = { Authorization = \"hush\" }\n\
                 tls = { cert_file = \"hush\" }",
                &["headers.authorization", "tls"],
            ),
            (
                "url = \"https://a\"\nbearer_token = \"hush\"\nbasic = { username = \"hush:\", token = \"hush\" }",
                &["basic.token", "basic.password", "basic.username", "basic"],
            ),
            (
                "url = \"https://a\"\n[headers]\n\"hush hush\" = \"a\"\nContent-Type = \"hush\"\n\
                 X-Twilio-Signature = \"hush\"\nwebhook-id = \"hush\"\nx-a = \"hush\"\nX-A = \"hush\"\n\
                 x-b = \"hush\\nhush\"\nx-c = \"hush\u{e9}\"\nx-d = 7",
                &[
                    "headers.content-type",
                    "headers.x-a",
                    "headers.x-twilio-signature",
                    "headers",
                    "headers.webhook-id",
                    "headers.x-b",
                    "headers.x-c",
                    "headers.x-d",
                ],
            ),
        ] {
            let problems = settings_of::<Endpoint>(text).unwrap_err();
            assert_eq!(problems.len(), paths.len(), "{text}: {problems:?}");
            for path in paths {
                let start = format!("sink[0].{path}: ");
                let is_listed = problems.iter().any(|problem| problem.starts_with(&start));
                assert!(is_listed, "{start}{problems:?}");
            }
            assert!(problems.iter().all(|problem| !problem.contains("hush")), "{problems:?}");
        }
    }
}
