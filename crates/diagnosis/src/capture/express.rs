//! Output of an Express application: `console.log(req.headers, req.body, req.originalUrl)`, or the same as JSON, each value
//! with or without a label.
//!
//! Decides: which value is which part of the request. A form that the application has parsed is encoded again; the signature
//! covers decoded names and values, so that makes no difference. A parsed JSON body lost its bytes, and its hash with them.

use super::literal::{Reader, Value};
use super::parts::{Capture, Format, text, value_of};

/// Names of the parts of a request, in lower case.
const LABELS: [&str; 11] = [
    "headers",
    "rawheaders",
    "body",
    "rawbody",
    "originalurl",
    "url",
    "method",
    "hostname",
    "host",
    "protocol",
    "req",
];

const FORM: &str = "application/x-www-form-urlencoded";

/// Methods that begin a line such as `POST /twilio/inbound { .. }`.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "HEAD"];

/// Returns whether a text that begins with neither `{` nor `[` is such an output: a label, a quote or a path, and an object.
pub(super) fn is_dump(text: &str) -> bool {
    if !text.contains('{') {
        return false;
    }
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let is_request_line = METHODS.contains(&first);
    let is_http = line.contains(" HTTP/")
        || text.lines().nth(1).is_some_and(|line| {
            line.split_once(':').is_some_and(|(name, _)| !name.contains(['{', '\'', '"', ' ']))
        });
    text.starts_with(['/', '\'', '"'])
        || label(first).is_some()
        || (is_request_line && !is_http)
        || first.ends_with('{') && label(first.trim_end_matches('{')).is_some()
}

/// Returns the part that a word such as `req.headers:` names.
fn label(word: &str) -> Option<&'static str> {
    let word = word.trim_end_matches([':', '=']).to_ascii_lowercase();
    let word = word.trim_matches(['\'', '"']);
    let word = word.strip_prefix("req.").or_else(|| word.strip_prefix("request.")).unwrap_or(word);
    let word = if word == "request" { "req" } else { word };
    LABELS.into_iter().find(|label| *label == word)
}

/// Parts of the request that are known so far.
#[derive(Default)]
struct Parts {
    method: Option<String>,
    original_url: Option<String>,
    url: Option<String>,
    headers: Option<Vec<(String, String)>>,
    body: Option<Value>,
    raw_body: Option<Value>,
}

/// Reads all values of the output.
pub(super) fn parse(raw: &[u8]) -> Result<Capture, String> {
    let text = without_colours(text(raw)?);
    let mut parts = Parts::default();
    let mut reader = Reader::new(&text);
    let mut named: Option<&'static str> = None;
    loop {
        let rest = reader.rest();
        if rest.is_empty() {
            break;
        }
        if rest.starts_with(['{', '[', '<', '\'', '"', '`']) {
            let value = reader.value()?;
            // A quoted label of `console.log("headers:", req.headers)` under another printer.
            match value.as_text().and_then(label) {
                Some(label) if named.is_none() => named = Some(label),
                _ => parts.take(named.take(), value)?,
            }
            continue;
        }
        let word = reader.take_until(|letter| letter.is_whitespace() || letter == '{');
        match label(word) {
            Some(label) if named.is_none() => named = Some(label),
            _ => parts.take(named.take(), Value::Word(word.to_owned()))?,
        }
        // A word that begins like a value but is none must not stop the loop.
        if word.is_empty() {
            return Err("it is no sequence of values".to_owned());
        }
    }
    parts.finish()
}

/// Removes the escape sequences with which Node colours its output on a terminal.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after =
            part.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';');
        plain.push_str(after.strip_prefix('m').unwrap_or(part));
    }
    plain
}

impl Parts {
    fn take(&mut self, label: Option<&str>, value: Value) -> Result<(), String> {
        let Some(label) = label else { return self.take_unnamed(value) };
        let text = || value.as_text().map(str::to_owned);
        match label {
            "headers" => self.headers = Some(headers(&value)?),
            "rawheaders" => self.headers = Some(raw_headers(&value)?),
            "body" => self.body = Some(value),
            "rawbody" => self.raw_body = Some(value),
            "originalurl" => self.original_url = text(),
            "url" => self.url = text(),
            "method" => self.method = text(),
            "req" => return self.take_request(value),
            _ => {}
        }
        Ok(())
    }

    /// Takes the fields of a whole request.
    fn take_request(&mut self, value: Value) -> Result<(), String> {
        let Value::Object(fields) = value else {
            return Err("`req` is no object".to_owned());
        };
        for (name, value) in fields {
            if let Some(label) = label(&name).filter(|label| *label != "req") {
                self.take(Some(label), value)?;
            }
        }
        Ok(())
    }

    fn take_unnamed(&mut self, value: Value) -> Result<(), String> {
        match &value {
            Value::Object(fields) => {
                let has =
                    |name: &str| fields.iter().any(|(have, _)| have.eq_ignore_ascii_case(name));
                if has("headers") || has("originalUrl") || has("rawHeaders") {
                    return self.take_request(value);
                }
                if has("x-twilio-signature") || (has("host") && has("user-agent")) {
                    self.headers = Some(headers(&value)?);
                } else {
                    self.body = Some(value);
                }
            }
            Value::Text(text) | Value::Word(text) => {
                if text.starts_with('/') || text.starts_with("http") {
                    self.original_url = Some(text.clone());
                } else if METHODS.contains(&text.as_str()) {
                    self.method = Some(text.clone());
                } else if matches!(value, Value::Text(_)) && text.contains('=') {
                    self.body = Some(value);
                }
            }
            Value::Bytes(_) => self.raw_body = Some(value),
            Value::List(_) | Value::Shortened => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Capture, String> {
        let mut notes = Vec::new();
        let headers = self.headers.ok_or("the headers are missing: print req.headers too")?;
        let target = match (self.original_url, self.url) {
            (Some(url), _) => url,
            (None, Some(url)) => {
                notes.push("The path is that of req.url, which lacks the mount path of a router; req.originalUrl is the one that arrived.".to_owned());
                url
            }
            (None, None) => return Err("the URL is missing: print req.originalUrl too".to_owned()),
        };
        let content_type = value_of(&headers, "Content-Type").unwrap_or(FORM).to_ascii_lowercase();
        let body = match self.raw_body.or(self.body) {
            Some(value) if value.is_shortened() => return Err(shortened("body")),
            Some(value) => body(&value, content_type.starts_with(FORM), &mut notes),
            None => Vec::new(),
        };
        let length = value_of(&headers, "Content-Length").and_then(|text| text.parse::<u64>().ok());
        if body.is_empty()
            && let Some(length @ 1..) = length
        {
            return Err(format!(
                "the body is missing: Content-Length is {length}. Print req.body after express.urlencoded() has read it"
            ));
        }
        let method = self.method.unwrap_or_else(|| {
            let method = if body.is_empty() && length.is_none() { "GET" } else { "POST" };
            notes.push(format!("The method is not in the output; {method} was assumed."));
            method.to_owned()
        });
        let mut capture = Capture::new(Format::Express, method, target);
        capture.headers = headers;
        capture.body = body;
        capture.notes = notes;
        Ok(capture)
    }
}

fn shortened(part: &str) -> String {
    format!("console.log shortened the {part}: print JSON.stringify(req.{part}) instead")
}

fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    if value.is_shortened() {
        return Err(shortened("headers"));
    }
    let Value::Object(fields) = value else {
        return Err("the headers are no object".to_owned());
    };
    let text = |value: &Value| match value {
        Value::List(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_text).collect();
            items.join(", ")
        }
        value => value.as_text().unwrap_or_default().to_owned(),
    };
    Ok(fields.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// Reads `req.rawHeaders`: names and values in turn.
fn raw_headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let Value::List(items) = value else {
        return Err("rawHeaders is no list".to_owned());
    };
    if value.is_shortened() {
        return Err(shortened("rawHeaders"));
    }
    let texts: Vec<&str> = items.iter().filter_map(Value::as_text).collect();
    let pairs = texts.chunks_exact(2).filter_map(|pair| match pair {
        [name, value] => Some(((*name).to_owned(), (*value).to_owned())),
        _ => None,
    });
    Ok(pairs.collect())
}

/// Returns the bytes of a body: those printed, or those of the parsed value, written again.
fn body(value: &Value, is_form: bool, notes: &mut Vec<String>) -> Vec<u8> {
    match value {
        Value::Text(text) => text.clone().into_bytes(),
        Value::Bytes(bytes) => bytes.clone(),
        Value::Object(_) if buffer(value).is_some() => buffer(value).unwrap_or_default(),
        Value::Object(fields) if fields.is_empty() => Vec::new(),
        Value::Object(_) | Value::List(_) if !is_form => {
            notes.push("The body was parsed by the application and is written again here: the bytes that Twilio hashed may have been others.".to_owned());
            let mut text = String::new();
            write_json(value, &mut text);
            text.into_bytes()
        }
        Value::Object(fields) => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            for (name, value) in fields {
                append(&mut form, name, value);
            }
            form.finish().into_bytes()
        }
        Value::Word(_) | Value::List(_) | Value::Shortened => Vec::new(),
    }
}

/// Returns the bytes of a Buffer that was printed as JSON.
fn buffer(value: &Value) -> Option<Vec<u8>> {
    let is_buffer = value.get("type").and_then(Value::as_text) == Some("Buffer");
    match value.get("data").filter(|_| is_buffer)? {
        Value::List(bytes) => bytes.iter().map(|byte| byte.as_text()?.parse().ok()).collect(),
        _ => None,
    }
}

/// Appends a parameter; a parser of nested parameters has made lists of repeated names and objects of `a[b]`.
fn append(form: &mut form_urlencoded::Serializer<'_, String>, name: &str, value: &Value) {
    match value {
        Value::List(items) => items.iter().for_each(|item| append(form, name, item)),
        Value::Object(fields) => {
            for (key, value) in fields {
                append(form, &format!("{name}[{key}]"), value);
            }
        }
        value => drop(form.append_pair(name, value.as_text().unwrap_or_default())),
    }
}

fn write_json(value: &Value, text: &mut String) {
    let quoted = |part: &str| serde_json::Value::from(part).to_string();
    match value {
        Value::Text(part) => text.push_str(&quoted(part)),
        Value::Word(word) => text.push_str(word),
        Value::Bytes(_) | Value::Shortened => text.push_str("null"),
        Value::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_json(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                text.push_str(&quoted(name));
                text.push(':');
                write_json(value, text);
            }
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &str = "{\n  host: 'h',\n  'content-type': 'application/x-www-form-urlencoded',\n  'content-length': '20',\n  'x-twilio-signature': 's='\n}";
    const BODY: &str = "[Object: null prototype] {\n  Body: 'it\\'s a b',\n  Media: [ '1', '2' ],\n  a: { b: 'c' }\n}";
    const FORM_BODY: &[u8] = b"Body=it%27s+a+b&Media=1&Media=2&a%5Bb%5D=c";

    #[test]
    fn parts_are_found_in_every_order_with_and_without_labels() {
        for printed in [
            format!("{HEADERS} {BODY} /in?x=1"),
            format!("POST /in?x=1 {HEADERS}\n{BODY}"),
            format!("headers: {HEADERS}\nbody: {BODY}\noriginalUrl: /in?x=1"),
            format!(
                "{{ method: 'POST', headers: {HEADERS}, body: {BODY}, originalUrl: '/in?x=1' }}"
            ),
            format!("/in?x=1\n\u{1b}[32m{HEADERS}\u{1b}[39m\n{BODY}"),
            format!("req.originalUrl /in?x=1 req.headers {HEADERS} req.body {BODY}"),
        ] {
            let capture =
                parse(printed.as_bytes()).unwrap_or_else(|problem| panic!("{printed}: {problem}"));
            assert_eq!((&*capture.method, &*capture.target), ("POST", "/in?x=1"), "{printed}");
            assert_eq!(capture.header("X-Twilio-Signature"), Some("s="), "{printed}");
            assert_eq!(capture.body, FORM_BODY, "{printed}");
            assert_eq!(Format::of(printed.as_bytes()), Format::Express, "{printed}");
        }
    }

    #[test]
    fn raw_bodies_are_taken_as_they_are() {
        let json = r#"{"originalUrl":"/in","method":"POST","headers":{"x-twilio-signature":"s","content-type":"application/json"},"body":{"b":[1,2.50,null,"é\"x"],"a":{}}}"#;
        let capture = parse(json.as_bytes()).unwrap();
        assert_eq!(capture.body, "{\"b\":[1,2.50,null,\"é\\\"x\"],\"a\":{}}".as_bytes());
        assert!(capture.notes[0].contains("written again"));
        for body in ["'a=b'", "<Buffer 61 3d 62>", r#"{"type":"Buffer","data":[97,61,98]}"#] {
            let capture = parse(format!("{HEADERS} /in body {body}").as_bytes()).unwrap();
            assert_eq!(capture.body, b"a=b", "{body}");
        }
        let raw = "{ rawHeaders: [ 'Host', 'h', 'X-Twilio-Signature', 's' ], url: '/in' }";
        let capture = parse(raw.as_bytes()).unwrap();
        assert_eq!((capture.header("Host"), &*capture.method), (Some("h"), "GET"));
        assert!(capture.notes[0].contains("req.originalUrl"));
    }

    #[test]
    fn missing_parts_are_named() {
        for (printed, want) in [
            (format!("{BODY} /in"), "print req.headers too"),
            (format!("{HEADERS} {BODY}"), "print req.originalUrl too"),
            (format!("{HEADERS} {{}} /in"), "Content-Length is 20"),
            ("{ headers: [Object], originalUrl: '/in' }".to_owned(), "shortened the headers"),
            (format!("{HEADERS} /in body {{ a: [Object] }}"), "JSON.stringify(req.body)"),
            ("{ headers: { a: 'b'".to_owned(), "cut"),
        ] {
            let problem = parse(printed.as_bytes()).unwrap_err();
            assert!(problem.contains(want), "{printed}: {problem}");
        }
    }
}
