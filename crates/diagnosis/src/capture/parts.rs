//! Form, capture, and functions about headers, texts and lists of requests, which the readers of all forms share.

use std::fmt;

/// Largest input that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// Number of requests that an error lists.
pub(super) const MAX_LISTED: usize = 20;

/// Form of a captured request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Request line, headers, blank line, body.
    Http,
    /// JSON object with `method`, `url`, `headers` and `body`.
    Json,
    /// Command for curl in the syntax of bash.
    Curl,
    /// HTTP Archive 1.2.
    Har,
    /// Line of an access log: combined (nginx, Apache), Envoy's default text, or the JSON of our Envoy configurations.
    AccessLog,
    /// Alert of Twilio's debugger, as its Monitor API returns it.
    Alert,
    /// Output of `console.log` for `req.headers`, `req.body` and `req.originalUrl`.
    Express,
}

impl Format {
    /// All forms, in the order in which messages list them.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Json,
        Self::Curl,
        Self::Har,
        Self::AccessLog,
        Self::Alert,
        Self::Express,
    ];

    /// Returns the name, as an option's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Json => "json",
            Self::Curl => "curl",
            Self::Har => "har",
            Self::AccessLog => "access-log",
            Self::Alert => "alert",
            Self::Express => "express",
        }
    }

    /// Returns the form with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http => "a raw HTTP request",
            Self::Json => "a JSON line",
            Self::Curl => "a curl command",
            Self::Har => "a HAR file",
            Self::AccessLog => "a line of an access log",
            Self::Alert => "an alert of Twilio's debugger",
            Self::Express => "the output of an Express application",
        })
    }
}

/// Part of a request that a form does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Value of `X-Twilio-Signature`.
    Signature,
    /// Body.
    Body,
    /// Query of the URL.
    Query,
}

impl Part {
    /// Returns the name in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Body => "body",
            Self::Query => "query",
        }
    }
}

/// Captured request, before it is known which origin it was sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Form that was read.
    pub format: Format,
    /// Method.
    pub method: String,
    /// Request target as received: a path with its query, or a whole URL.
    pub target: String,
    /// Headers in the order of the capture.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Parts that captures of this form lack, although the request may have had them.
    pub absent: Vec<Part>,
    /// URLs that Twilio reports to have called.
    pub called: Vec<String>,
    /// Key of the signature, which JSON lines of test vectors contain.
    pub secret: Option<String>,
    /// Peculiarities of the capture.
    pub notes: Vec<String>,
}

impl Capture {
    /// Returns a capture without headers and body.
    pub(super) fn new(
        format: Format,
        method: impl Into<String>,
        target: impl Into<String>,
    ) -> Self {
        Self {
            format,
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            absent: Vec::new(),
            called: Vec::new(),
            secret: None,
            notes: Vec::new(),
        }
    }

    /// Returns the first value of a header; the case of the name does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        value_of(&self.headers, name)
    }
}

/// Returns the first value of a header; the case of the name does not matter.
pub(super) fn value_of<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// Returns the text of a form that cannot contain other bytes, without a byte order mark.
pub(super) fn text(raw: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(raw).map_err(|error| format!("it is not UTF-8: {error}"))?;
    Ok(text.trim_start_matches('\u{feff}'))
}

/// Returns a URL without its query, which may contain personal data, for a list of requests.
pub(super) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().take(120).collect()
}

/// Returns the index of the selected request. Without `entry` there must be one candidate: its index and a line for a list.
pub(super) fn pick(
    candidates: &[(usize, String)],
    total: usize,
    entry: Option<usize>,
    none: &str,
) -> Result<usize, String> {
    match (entry, candidates) {
        (Some(entry), _) if (1..=total).contains(&entry) => Ok(entry - 1),
        (Some(entry), _) => {
            Err(format!("--entry {entry}: the requests are numbered from 1 to {total}"))
        }
        (None, []) => Err(none.to_owned()),
        (None, [(only, _)]) => Ok(*only),
        (None, many) => {
            let lines = many.iter().take(MAX_LISTED);
            let lines = lines.map(|(index, line)| format!("\n  --entry {:<4} {line}", index + 1));
            let lines: String = lines.collect();
            let more = match many.len().saturating_sub(MAX_LISTED) {
                0 => String::new(),
                more => format!("\n  and {more} more"),
            };
            Err(format!("there are {} requests; select one of them:{lines}{more}", many.len()))
        }
    }
}
