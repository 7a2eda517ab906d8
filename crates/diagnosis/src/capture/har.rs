//! HTTP Archive (HAR 1.2), as browsers, ngrok and proxies export it: `log.entries[].request`.
//!
//! Decides: which entry is the webhook, and how a body that the archive has as parameters is written.

use serde_json::Value;

use super::parts::{Capture, Format, pick, shown, text, value_of};
use crate::captured::SIGNATURE_HEADER;

/// Reads the selected entry, counted from 1, or the only one with a signature.
pub(super) fn parse(raw: &[u8], entry: Option<usize>) -> Result<Capture, String> {
    let archive: Value = serde_json::from_str(text(raw)?).map_err(|error| error.to_string())?;
    let entries = archive
        .pointer("/log/entries")
        .and_then(Value::as_array)
        .ok_or("there is no list `log.entries`")?;
    let candidates: Vec<(usize, String)> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| value_of(&headers(request(entry)), SIGNATURE_HEADER).is_some())
        .map(|(index, entry)| (index, described(entry)))
        .collect();
    let none = format!(
        "none of its {} requests has X-Twilio-Signature: export it where Twilio's request arrives (a browser never receives one), or select a request with --entry N",
        entries.len()
    );
    let index = pick(&candidates, entries.len(), entry, &none)?;
    let request = entries.get(index).map(request).ok_or("the request is missing")?;
    let url = string(request, "url").ok_or("`request.url` of the entry is missing")?;
    let method = string(request, "method").ok_or("`request.method` of the entry is missing")?;
    let mut capture = Capture::new(Format::Har, method, url);
    capture.headers = headers(request);
    if let Some(data) = request.get("postData") {
        let mime_type = string(data, "mimeType");
        if let Some(mime_type) = mime_type.filter(|_| capture.header("Content-Type").is_none()) {
            capture.headers.push(("Content-Type".to_owned(), mime_type.to_owned()));
        }
        match (string(data, "text"), data.get("params").and_then(Value::as_array)) {
            (Some(text), params) if !text.is_empty() || params.is_none_or(Vec::is_empty) => {
                capture.body = text.as_bytes().to_vec();
            }
            (_, Some(params)) => {
                capture.body = form(params).into_bytes();
                capture.notes.push(
                    "The archive has the body as parameters only: it was encoded again.".to_owned(),
                );
            }
            _ => {}
        }
    }
    Ok(capture)
}

fn request(entry: &Value) -> &Value {
    entry.get("request").unwrap_or(&Value::Null)
}

fn string<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

/// Returns a line about an entry: when, method, URL without its query, status.
fn described(entry: &Value) -> String {
    let request = request(entry);
    let status = entry.pointer("/response/status").and_then(Value::as_u64).unwrap_or_default();
    format!(
        "{} {} {} -> {status}",
        string(entry, "startedDateTime").unwrap_or("-"),
        string(request, "method").unwrap_or("-"),
        shown(string(request, "url").unwrap_or("-"))
    )
}

fn headers(request: &Value) -> Vec<(String, String)> {
    let all = request.get("headers").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|header| {
        Some((string(header, "name")?.to_owned(), string(header, "value")?.to_owned()))
    })
    .collect()
}

fn form(params: &[Value]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for param in params {
        let value = string(param, "value").unwrap_or_default();
        form.append_pair(string(param, "name").unwrap_or_default(), value);
    }
    form.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(url: &str, headers: &[(&str, &str)], data: &Value) -> Value {
        let headers: Vec<Value> =
            headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({
            "startedDateTime": "2026-11-30T09:40:12.031Z",
            "request": { "method": "POST", "url": url, "headers": headers, "postData": data },
            "response": { "status": 403 },
        })
    }

    fn archive(entries: &[Value]) -> Vec<u8> {
        json!({ "log": { "version": "1.2", "entries": entries } }).to_string().into_bytes()
    }

    #[test]
    fn only_signed_entry_is_read() {
        let data = json!({ "mimeType": "application/x-www-form-urlencoded", "text": "Body=x" });
        let signed = entry("https://h/in?a=1", &[("x-twilio-signature", "s")], &data);
        let archive = archive(&[entry("https://h/other", &[], &json!({})), signed]);
        let capture = parse(&archive, None).unwrap();
        assert_eq!((&*capture.method, &*capture.target), ("POST", "https://h/in?a=1"));
        assert_eq!(capture.body, b"Body=x");
        assert_eq!(capture.header("Content-Type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(parse(&archive, Some(1)).unwrap().target, "https://h/other");
        assert!(parse(&archive, Some(3)).unwrap_err().contains("from 1 to 2"));
    }

    #[test]
    fn several_signed_entries_are_listed_without_their_queries() {
        let signed = |url| entry(url, &[("X-Twilio-Signature", "s")], &json!({}));
        let archive = archive(&[signed("https://h/a?Body=secret"), signed("https://h/b")]);
        let problem = parse(&archive, None).unwrap_err();
        assert!(problem.contains("--entry 1    2026-11-30T09:40:12.031Z POST https://h/a -> 403"));
        assert!(problem.contains("--entry 2") && !problem.contains("secret"), "{problem}");
        let none = parse(&archive_of_none(), None).unwrap_err();
        assert!(none.contains("none of its 0 requests"), "{none}");
    }

    fn archive_of_none() -> Vec<u8> {
        archive(&[])
    }

    #[test]
    fn parameters_stand_in_for_a_missing_text() {
        let data = json!({ "mimeType": "application/x-www-form-urlencoded", "text": "",
            "params": [{ "name": "Body", "value": "a b&c" }, { "name": "NumMedia", "value": "0" }] });
        let archive = archive(&[entry("https://h/", &[("X-Twilio-Signature", "s")], &data)]);
        let capture = parse(&archive, None).unwrap();
        assert_eq!(capture.body, b"Body=a+b%26c&NumMedia=0");
        assert!(capture.notes[0].contains("encoded again"));
    }
}
