//! Requests of Twilio's and malformed requests: signed in this process, and cut into the callbacks in which a
//! proxy would deliver them.

use std::fmt;

use anyhow::{Context, Result, anyhow};
use twilio_edge_filter::form::Form as Parsed;
use twilio_edge_filter::signature::{BodyRule, Key, sign};
use twilio_edge_wasm_tests::host::Pairs;
use twilio_edge_wasm_tests::stack::{ORIGIN, TOKEN};
use twilio_edge_wasm_tests::webhook::Form;

/// Callback that reports the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// With the headers: there is no body.
    HeadersOnly,
    /// With the only part of the body, as HTTP/2 may.
    OnePart,
    /// After the body, by a call that adds nothing, as HTTP/1 does.
    ThenNothing,
    /// With the last of parts of so many bytes.
    Parts(usize),
}

/// A request, ready to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) headers: Pairs,
    pub(crate) body: Vec<u8>,
    /// If there are any, they are the end of the request.
    pub(crate) trailers: Option<Pairs>,
    pub(crate) shape: Shape,
}

/// In one line, because a history contains many.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [method, target] = [":method", ":path"].map(|name| self.header(name));
        let (bytes, shape, trailers) = (self.body.len(), self.shape, self.trailers.is_some());
        write!(formatter, "{method} {target} ({bytes} bytes, {shape:?}, trailers: {trailers})")
    }
}

impl Request {
    /// Unsigned.
    pub(crate) fn new(method: &str, target: &str, body: &[u8]) -> Self {
        let mut request = Self {
            headers: Vec::new(),
            body: body.to_vec(),
            trailers: None,
            shape: if body.is_empty() { Shape::HeadersOnly } else { Shape::ThenNothing },
        };
        for (name, value) in [
            (":method", method),
            (":path", target),
            (":scheme", "https"),
            (":authority", "hooks.example.com"),
            ("user-agent", "TwilioProxy/1.1"),
        ] {
            request = request.with(name, value);
        }
        if !body.is_empty() {
            request = request.with("content-length", body.len().to_string());
        }
        request
    }

    /// A form, posted and signed.
    pub(crate) fn post(form: &Form) -> Result<Self> {
        Self::post_with(form, TOKEN)
    }

    /// A form, posted and signed with a token.
    pub(crate) fn post_with(form: &Form, token: &str) -> Result<Self> {
        let body = form.encoded();
        let request = Self::new("POST", &form.target, body.as_bytes())
            .with("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
        request.signed(token)
    }

    /// A form in the query of a GET, signed.
    pub(crate) fn get(form: &Form) -> Result<Self> {
        let target = format!("{}?{}", form.target, form.encoded());
        Self::new("GET", &target, b"").signed(TOKEN)
    }

    fn signed(self, token: &str) -> Result<Self> {
        let key = Key::auth_token("test", token).context("no key")?;
        let target = self.header(":path");
        let method = self.header(":method");
        let kind = self.header("content-type");
        let rule = BodyRule::for_request(method.as_bytes(), Some(kind.as_bytes()), &self.body);
        let form = Parsed::parse(rule.parameters(&target, &self.body));
        let form = form.map_err(|_| anyhow!("too many parameters to sign"))?;
        let signature = sign(&format!("{ORIGIN}{target}"), rule.payload(&form, &self.body), &key);
        Ok(self.with("x-twilio-signature", signature))
    }

    /// Adds a header line.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Leaves a header out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self
    }

    /// Ends it with trailers.
    pub(crate) fn trailers(mut self, lines: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        self.trailers = Some(lines.iter().map(owned).collect());
        self
    }

    /// Has it end otherwise.
    pub(crate) fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// The value of a header; empty if it has none.
    pub(crate) fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// Reports whether the request ends with its headers.
    pub(crate) fn ends_with_headers(&self) -> bool {
        self.trailers.is_none() && self.shape == Shape::HeadersOnly
    }

    /// The parts of the body, and whether each is the end of the request.
    pub(crate) fn parts(&self) -> Vec<(&[u8], bool)> {
        let mut parts: Vec<(&[u8], bool)> = match self.shape {
            Shape::HeadersOnly => Vec::new(),
            Shape::OnePart => vec![(&self.body, true)],
            Shape::ThenNothing if self.body.is_empty() => vec![(b"", true)],
            Shape::ThenNothing => vec![(&self.body, false), (b"", true)],
            Shape::Parts(size) => self.body.chunks(size).map(|part| (part, false)).collect(),
        };
        if let Some((_, ends)) = parts.last_mut() {
            *ends = true;
        }
        if self.trailers.is_some() {
            parts.iter_mut().for_each(|(_, ends)| *ends = false);
        }
        parts
    }
}
