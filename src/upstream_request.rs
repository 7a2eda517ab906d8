//! Facts about a proven webhook for the backend: the trusted headers and, if the route asks for it, the body as a JSON
//! event.
//!
//! Decides: which facts the backend receives and how they are spelled. Must not know: states, callouts, the host.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use twilio_edge_contract::{Class, Decision, MediaLink, Opt, Verdict, headers};

use crate::config::BodyFormat;
use crate::form::{Form, is_printable};
use crate::verification::Proof;

/// Changes to a proven request before it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// Trusted headers to add. The request has none of these names: the filter removes them from every request.
    pub trusted: TrustedHeaders,
    /// Headers to set, each replacing an existing one.
    pub replaced: Vec<(&'static str, String)>,
    /// Body that replaces the form, if the route wants one; content-length and content-type are among the headers then. A
    /// proxy adjusts neither, and a wrong length would let the surplus pass as the next request.
    pub body: Option<String>,
}

impl UpstreamRequest {
    /// Iterates over all headers that are added or set.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let replaced = self.replaced.iter().map(|(name, value)| (*name, value.as_str()));
        self.trusted.iter().chain(replaced)
    }

    /// Creates the changes. `form` contains the signed parameters if they are the body; `None` if they are elsewhere.
    pub(crate) fn new(
        proof: &Proof,
        verdict: Option<&Verdict>,
        format: BodyFormat,
        form: Option<&str>,
    ) -> Self {
        let facts = Facts::new(proof, verdict);
        let mut replaced = Vec::new();
        let body = form.filter(|_| format == BodyFormat::Json).and_then(|form| {
            let form = Form::parse(form.as_bytes()).ok()?;
            serde_json::to_string(&JsonEvent { facts: &facts, form: &form }).ok()
        });
        if let Some(body) = &body {
            replaced.push(("content-type", "application/json".to_owned()));
            replaced.push(("content-length", body.len().to_string()));
        }
        Self { trusted: facts.headers(), replaced, body }
    }
}

/// Names and values of headers. The values are one text, because every allocation of the VM costs as much as its copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedHeaders {
    values: String,
    /// Each name, and the end of its value.
    names: Vec<(&'static str, usize)>,
}

impl TrustedHeaders {
    fn with_capacity(headers: usize, bytes: usize) -> Self {
        Self { values: String::with_capacity(bytes), names: Vec::with_capacity(headers) }
    }

    fn push(&mut self, name: &'static str, value: &str) {
        self.values.push_str(&header_safe(value));
        self.names.push((name, self.values.len()));
    }

    /// Iterates over names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let mut start = 0;
        self.names.iter().map(move |(name, end)| {
            let value = self.values.get(start..*end).unwrap_or_default();
            start = *end;
            (*name, value)
        })
    }
}

/// Returns the value of the dedupe header: `first`, `unknown` without a verdict, or `duplicate`, which only shadow mode
/// forwards.
pub(crate) fn dedupe(verdict: Option<&Verdict>) -> &'static str {
    match verdict.map(|verdict| verdict.decision) {
        Some(Decision::Proceed) => "first",
        Some(Decision::Duplicate | Decision::InFlight) => "duplicate",
        Some(Decision::Released | Decision::Unavailable | Decision::Accepted) | None => "unknown",
    }
}

/// Proven facts, and the sidecar's facts if it granted a claim.
struct Facts<'a> {
    proof: &'a Proof,
    /// Verdict of a granted claim.
    granted: Option<&'a Verdict>,
    dedupe: &'static str,
}

impl<'a> Facts<'a> {
    fn new(proof: &'a Proof, verdict: Option<&'a Verdict>) -> Self {
        let granted = verdict.filter(|verdict| verdict.decision == Decision::Proceed);
        Self { proof, granted, dedupe: dedupe(verdict) }
    }

    fn message_sid(&self) -> Option<&str> {
        self.proof.webhook.identity.as_ref().map(|identity| identity.message_sid.as_str())
    }

    fn status(&self) -> Option<&str> {
        self.proof.webhook.identity.as_ref().and_then(|identity| identity.status.as_deref())
    }

    fn suppressed(&self) -> Option<bool> {
        let inbound = self.proof.webhook.class == Class::Inbound;
        self.granted.filter(|_| inbound).map(|granted| granted.suppressed)
    }

    fn opt(&self) -> Option<&'static str> {
        self.granted.and_then(|granted| granted.opt).map(Opt::as_str)
    }

    fn window_expires(&self) -> Option<&str> {
        self.granted.and_then(|granted| granted.window_expires.as_deref())
    }

    fn media(&self) -> &[MediaLink] {
        self.granted.map_or(&[], |granted| granted.media.as_slice())
    }

    fn attempt(&self) -> Option<u32> {
        self.granted.and_then(|granted| granted.attempt)
    }

    fn headers(&self) -> TrustedHeaders {
        let webhook = &self.proof.webhook;
        let attempt = self.attempt().map(|attempt| attempt.to_string());
        let links: Vec<&str> = self.media().iter().map(|medium| medium.url.as_str()).collect();
        let links = (!links.is_empty()).then(|| links.join(" "));
        let known = [
            (headers::VERIFIED, Some(&*self.proof.account_sid)),
            (headers::KEY, Some(&*self.proof.key)),
            (headers::CLASS, Some(webhook.class.as_str())),
            (headers::MESSAGE_SID, self.message_sid()),
            (headers::STATUS, self.status()),
            (headers::FROM, webhook.from.as_deref()),
            (headers::TO, webhook.to.as_deref()),
            (headers::CHANNEL, webhook.channel.as_deref()),
            (headers::OPT, self.opt()),
            (headers::SUPPRESSED, self.suppressed().map(|yes| if yes { "true" } else { "false" })),
            (headers::WINDOW_EXPIRES, self.window_expires()),
            (headers::MEDIA, links.as_deref()),
            (headers::ATTEMPT, attempt.as_deref()),
            (headers::DEDUPE, Some(self.dedupe)),
        ];
        let bytes = known.iter().filter_map(|(_, value)| *value).map(str::len).sum();
        let mut trusted = TrustedHeaders::with_capacity(known.len(), bytes);
        for (name, value) in known {
            if let Some(value) = value {
                trusted.push(name, value);
            }
        }
        trusted
    }
}

/// Body of a route with `body: json`; docs/CONFIG.md describes it.
struct JsonEvent<'a> {
    facts: &'a Facts<'a>,
    form: &'a Form<'a>,
}

impl Serialize for JsonEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { facts, form } = self;
        let mut event = serializer.serialize_map(None)?;
        let event_type = match facts.proof.webhook.class {
            Class::Inbound => "twilio_inbound",
            Class::Status => "twilio_status",
            Class::Other => "twilio_other",
        };
        let texts = [
            ("event_type", Some(event_type)),
            ("account_sid", Some(facts.proof.account_sid.as_str())),
            ("message_sid", facts.message_sid()),
            ("from", form.get("From")),
            ("to", form.get("To")),
            ("channel", facts.proof.webhook.channel.as_deref()),
            ("status", facts.status()),
            ("error_code", form.get("ErrorCode")),
            ("body", form.get("Body")),
            ("opt", facts.opt()),
            ("window_expires", facts.window_expires()),
            ("dedupe", Some(facts.dedupe)),
            ("key", Some(facts.proof.key.as_str())),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                event.serialize_entry(name, text)?;
            }
        }
        if let Some(media) = form.get("NumMedia").and_then(|count| count.parse::<u32>().ok()) {
            event.serialize_entry("num_media", &media)?;
        }
        if !facts.media().is_empty() {
            event.serialize_entry("media", facts.media())?;
        }
        if let Some(suppressed) = facts.suppressed() {
            event.serialize_entry("suppressed", &suppressed)?;
        }
        if let Some(attempt) = facts.attempt() {
            event.serialize_entry("attempt", &attempt)?;
        }
        event.serialize_entry("raw", &Raw(form))?;
        event.end()
    }
}

/// Every parameter as it was signed: a text, or a list of texts for a name that came more than once.
struct Raw<'a>(&'a Form<'a>);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_map(None)?;
        for (name, values) in self.0.by_name() {
            match values.as_slice() {
                [only] => raw.serialize_entry(name, only)?,
                all => raw.serialize_entry(name, all)?,
            }
        }
        raw.end()
    }
}

/// Returns a value that is safe in a header. Header values are visible ASCII and spaces; any other address (some channels
/// allow it) is percent-escaped.
pub(crate) fn header_safe(value: &str) -> Cow<'_, str> {
    if is_printable(value.as_bytes()) {
        return Cow::Borrowed(value);
    }
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).into()
}
