//! Line of an access log: the combined format of nginx and Apache, Envoy's default text format (Istio's too), and the JSON of
//! our Envoy configurations (`envoy/envoy.yaml`).
//!
//! Decides: method, target, host and status. No such line has a body or `X-Twilio-Signature`.
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>.

use serde_json::Value;

use super::parts::{Capture, Format, Part, pick, shown, text};

/// Parts of a line.
struct Line {
    method: String,
    target: String,
    host: Option<String>,
    status: Option<String>,
    verdict: Option<String>,
    user_agent: Option<String>,
    has_query: bool,
}

/// Returns whether the first line of a text is one of a combined log, or of Envoy's.
pub(super) fn is_line(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    (line.contains(" [") || line.starts_with('[')) && text_line(line).is_some()
}

/// Reads the selected line, counted from 1, or the only one.
pub(super) fn parse(raw: &[u8], entry: Option<usize>) -> Result<Capture, String> {
    let lines: Vec<&str> = text(raw)?.lines().filter(|line| !line.trim().is_empty()).collect();
    let described = |line: &str| match read(line) {
        Ok(line) => format!(
            "{} {} -> {}",
            line.method,
            shown(&line.target),
            line.status.unwrap_or_default()
        ),
        Err(_) => "(not a request)".to_owned(),
    };
    let all: Vec<(usize, String)> =
        lines.iter().enumerate().map(|(index, line)| (index, described(line))).collect();
    let index = pick(&all, lines.len(), entry, "it is empty")?;
    let line = read(lines.get(index).copied().unwrap_or_default())?;
    let mut capture = Capture::new(Format::AccessLog, line.method, line.target);
    capture.absent = vec![Part::Signature, Part::Body];
    if !line.has_query {
        capture.absent.push(Part::Query);
    }
    capture.headers.extend(line.host.map(|host| ("Host".to_owned(), host)));
    let by = line.user_agent.unwrap_or_default();
    if by.starts_with("TwilioProxy/") {
        capture.notes.push(
            "The user agent is Twilio's; anyone can send it, so it proves nothing.".to_owned(),
        );
    } else if !by.is_empty() && by != "-" {
        capture
            .notes
            .push("The user agent is not TwilioProxy, which Twilio's webhooks have.".to_owned());
    }
    capture.headers.extend((!by.is_empty()).then(|| ("User-Agent".to_owned(), by)));
    if let Some(status) = line.status {
        capture.notes.push(format!("The answer was {status}."));
    }
    if let Some(verdict) = line.verdict.filter(|verdict| !verdict.is_empty() && verdict != "-") {
        capture.notes.push(format!("The filter's verdict was {verdict} (docs/FAILURE-MODES.md)."));
    }
    Ok(capture)
}

fn read(line: &str) -> Result<Line, String> {
    if line.trim_start().starts_with('{') {
        return json_line(line);
    }
    text_line(line).ok_or_else(|| {
        "there is no \"METHOD TARGET HTTP/1.1\" between quotes, followed by a status".to_owned()
    })
}

/// Reads a line of our JSON format. Its path has no query.
fn json_line(line: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let field = |name: &str| match value.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let target = field("path").filter(|path| path.starts_with('/'));
    Ok(Line {
        method: field("method").ok_or("`method` is missing")?,
        has_query: target.as_ref().is_some_and(|target| target.contains('?')),
        target: target.ok_or("`path` is missing")?,
        host: field("authority").or_else(|| field("host")),
        status: field("status"),
        verdict: field("verdict"),
        user_agent: field("user_agent"),
    })
}

/// Reads a line with the request between quotes.
fn text_line(line: &str) -> Option<Line> {
    let (before, rest) = line.split_once('"')?;
    let (request, mut rest) = quoted(rest)?;
    let mut words = request.split(' ');
    let (method, target, protocol) = (words.next()?, words.next()?, words.next()?);
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_method || !protocol.starts_with("HTTP/") || words.next().is_some() {
        return None;
    }
    let status = rest.split_ascii_whitespace().next()?.to_owned();
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut texts = Vec::new();
    while let Some((_, after)) = rest.split_once('"') {
        let (text, after) = quoted(after)?;
        texts.push(text);
        rest = after;
    }
    let text = |index: usize| texts.get(index).cloned();
    let is_envoy = before.trim_start().starts_with('[');
    let (host, user_agent) = if is_envoy {
        // .. "X-FORWARDED-FOR" "USER-AGENT" "X-REQUEST-ID" "AUTHORITY" "UPSTREAM"; Istio has one text more before them.
        let id = texts.iter().position(|text| is_uuid(text)).unwrap_or(2);
        (text(id + 1), id.checked_sub(1).and_then(text))
    } else {
        // `vhost:port address - user [time]` begins with the host.
        let words: Vec<&str> = before.split_ascii_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with('['));
        (words.first().filter(|_| at == Some(4)).map(|host| (*host).to_owned()), text(1))
    };
    Some(Line {
        method: method.to_owned(),
        target: unescaped(target),
        host: host.filter(|host| !host.is_empty() && host != "-"),
        status: Some(status),
        verdict: None,
        user_agent,
        has_query: true,
    })
}

/// Returns a text up to its closing quote, and the rest after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut is_escaped = false;
    let end = text.find(|letter| {
        let ends = letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        ends
    })?;
    Some((text.get(..end)?.to_owned(), text.get(end + 1..)?))
}

/// Replaces nginx' `\x22`; a byte that is no character is kept as it is written.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    plain
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMBINED: &str = r#"203.0.113.7 - - [30/Nov/2026:09:40:12 +0000] "POST /twilio/inbound?b=1&a=2 HTTP/1.1" 403 18 "-" "TwilioProxy/1.1""#;
    const ENVOY: &str = r#"[2026-11-30T09:40:12.031Z] "POST /twilio/inbound?b=1&a=2 HTTP/1.1" 403 - 371 18 0 - "203.0.113.7" "TwilioProxy/1.1" "0bc33b53-f785-9b1e-e19f-9efb12846e6a" "hooks.example.com" "-""#;
    const ISTIO: &str = r#"[2026-11-30T09:40:12.031Z] "POST /twilio/inbound?b=1&a=2 HTTP/2" 403 - via_upstream - "-" 371 18 1 0 "203.0.113.7" "TwilioProxy/1.1" "0bc33b53-f785-9b1e-e19f-9efb12846e6a" "hooks.example.com" "10.0.0.1:80" inbound|80|| - -"#;
    const OURS: &str = r#"{"time":"2026-11-30T09:40:12.031Z","method":"POST","path":"/twilio/inbound","status":403,"verdict":"invalid-signature","account":null}"#;

    #[test]
    fn lines_of_each_format_are_read() {
        let vhost = format!("hooks.example.com:443 {COMBINED}");
        for (line, host) in [
            (COMBINED, None),
            (&vhost, Some("hooks.example.com:443")),
            (ENVOY, Some("hooks.example.com")),
            (ISTIO, Some("hooks.example.com")),
        ] {
            assert!(is_line(line), "{line}");
            let capture = parse(line.as_bytes(), None).unwrap();
            assert_eq!(capture.target, "/twilio/inbound?b=1&a=2", "{line}");
            assert_eq!(capture.header("Host"), host, "{line}");
            assert_eq!(capture.header("User-Agent"), Some("TwilioProxy/1.1"), "{line}");
            assert_eq!(capture.absent, [Part::Signature, Part::Body]);
        }
        let capture = parse(OURS.as_bytes(), None).unwrap();
        assert_eq!(capture.absent, [Part::Signature, Part::Body, Part::Query]);
        assert!(capture.notes.iter().any(|note| note.contains("invalid-signature")));
    }

    #[test]
    fn several_lines_are_numbered_and_others_are_refused() {
        let log = format!("{COMBINED}\n{ENVOY}\n");
        let problem = parse(log.as_bytes(), None).unwrap_err();
        assert!(problem.contains("--entry 2    POST /twilio/inbound -> 403"), "{problem}");
        assert!(!problem.contains("b=1"), "{problem}");
        assert!(parse(log.as_bytes(), Some(2)).is_ok());
        for line in [r#"1 - - [t] "GET /" 200 1"#, "x", r#"1 - - [t] "\x16\x03" 400 0 "-" "-""#] {
            assert!(parse(line.as_bytes(), None).unwrap_err().contains("METHOD TARGET"), "{line}");
        }
        assert_eq!(unescaped(r"/a\x22b\xC3\xzz"), "/a\"b\\xC3\\xzz");
    }
}
