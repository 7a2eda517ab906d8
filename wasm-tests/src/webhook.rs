//! Webhooks as Twilio creates them, before they are signed, and requests as they are sent, after that. A scenario may change
//! anything between the two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::recorder::CASE;

/// Account of all webhooks, unless a scenario sets another.
pub const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
/// Route of inbound messages.
pub const INBOUND: &str = "/twilio/inbound";
/// Route of status callbacks.
pub const STATUS: &str = "/twilio/status";
/// Route of other requests that Twilio signs.
pub const OTHER: &str = "/twilio/other";

/// A webhook's parameters, in order, with repeats.
#[derive(Debug, Clone)]
pub struct Form {
    /// Path of the route, and a query if Twilio was given one.
    pub target: String,
    /// Decoded names and values.
    pub params: Vec<(String, String)>,
}

impl Form {
    /// Creates an inbound message from a new contact.
    pub fn inbound(body: &str) -> Self {
        let sid = fresh_sid("SM");
        let params = [
            ("ToCountry", "US"),
            ("ToState", ""),
            ("SmsMessageSid", sid.as_str()),
            ("NumMedia", "0"),
            ("ToCity", ""),
            ("FromZip", ""),
            ("SmsSid", sid.as_str()),
            ("FromState", "CA"),
            ("SmsStatus", "received"),
            ("FromCity", "SAN FRANCISCO"),
            ("Body", body),
            ("FromCountry", "US"),
            ("To", "+15005550006"),
            ("NumSegments", "1"),
            ("MessageSid", sid.as_str()),
            ("AccountSid", ACCOUNT),
            ("From", fresh_phone().as_str()),
            ("ApiVersion", "2010-04-01"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { target: INBOUND.to_owned(), params: params.to_vec() }
    }

    /// Creates a status callback of a new message.
    pub fn status(status: &str) -> Self {
        let sid = fresh_sid("SM");
        let params = [
            ("SmsSid", sid.as_str()),
            ("SmsStatus", status),
            ("MessageStatus", status),
            ("To", fresh_phone().as_str()),
            ("MessageSid", sid.as_str()),
            ("AccountSid", ACCOUNT),
            ("From", "+15005550006"),
            ("ApiVersion", "2010-04-01"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { target: STATUS.to_owned(), params: params.to_vec() }
    }

    /// Creates another request that Twilio signs: a finished call.
    pub fn other() -> Self {
        let params = [
            ("CallSid", fresh_sid("CA").as_str()),
            ("CallStatus", "completed"),
            ("AccountSid", ACCOUNT),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { target: OTHER.to_owned(), params: params.to_vec() }
    }

    /// Sets another path, or one with a query.
    pub fn to(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    /// Replaces the value of `name`, or adds it at the end. A new `MessageSid` or `MessageStatus` is set in every parameter
    /// that repeats it.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let copies: &[&str] = match name {
            "MessageSid" => &["SmsSid", "SmsMessageSid"],
            "MessageStatus" => &["SmsStatus"],
            _ => &[],
        };
        for (_, have) in self.params.iter_mut().filter(|(have, _)| copies.contains(&have.as_str()))
        {
            value.clone_into(have);
        }
        match self.params.iter_mut().find(|(have, _)| have == name) {
            Some((_, have)) => value.clone_into(have),
            None => self.params.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Adds `name` at the end, even if it is there already.
    pub fn add(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes `name`.
    pub fn without(mut self, name: &str) -> Self {
        self.params.retain(|(have, _)| have != name);
        self
    }

    /// Returns the value of `name`; empty if it has none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(have, _)| have == name);
        found.map_or("", |(_, value)| value)
    }

    /// Returns `application/x-www-form-urlencoded`, as Twilio encodes it.
    pub fn encoded(&self) -> String {
        let pairs =
            self.params.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// A request, ready to be written.
#[derive(Debug, Clone)]
pub struct Request {
    /// Word that identifies the request and its retries at the backend.
    pub case: String,
    /// `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header lines in order; `host`, `x-case` and, unless there is one, `content-length` are added at the top.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// Creates a request without a signature.
    pub fn new(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            case: fresh_case(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes all lines of a header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    /// Makes it a separate request: not a retry.
    pub fn as_new_case(mut self) -> Self {
        self.case = fresh_case();
        self
    }

    /// Returns the request line and header lines, without the empty line at the end and without any framing of a body.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: hooks.example.com\r\n{CASE}: {}\r\n",
            self.method, self.target, self.case
        )
        .into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head
    }

    /// Returns the whole request with a `content-length`.
    pub fn bytes(&self) -> Vec<u8> {
        let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
        [self.head(), length.into_bytes(), self.body.clone()].concat()
    }

    /// Returns the whole request in chunks of `size`, with `trailers` (lines that end in CR LF) after the last.
    pub fn chunked(&self, size: usize, trailers: &[u8]) -> Vec<u8> {
        let mut bytes = [self.head(), b"Transfer-Encoding: chunked\r\n\r\n".to_vec()].concat();
        for chunk in self.body.chunks(size) {
            bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        [&bytes, b"0\r\n".as_slice(), trailers, b"\r\n"].concat()
    }
}

/// Returns a SID of this kind that was never used.
pub fn fresh_sid(kind: &str) -> String {
    let (run, count) = fresh();
    format!("{kind}{run:016x}{count:016x}")
}

/// Returns a phone number in E.164 that was never used.
pub fn fresh_phone() -> String {
    let (run, count) = fresh();
    format!("+1{:03}{:07}", 200 + run % 800, count)
}

fn fresh_case() -> String {
    let (run, count) = fresh();
    format!("case-{run:x}-{count}")
}

/// Returns two numbers that no other call of any run on this machine gets.
fn fresh() -> (u64, u64) {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    static RUN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let run = *RUN.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    });
    (run, COUNT.fetch_add(1, Ordering::Relaxed))
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                escaped.push(byte.into());
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
