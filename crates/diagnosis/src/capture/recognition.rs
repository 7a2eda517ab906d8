//! Recognition of a capture's form by its content.
//!
//! Decides which form an input has, and not whether it is complete. So a damaged HAR file is recognized as one, and its reader
//! reports what is wrong with it.

use serde_json::Value;

use super::parts::{Format, MAX_BYTES};
use super::{access_log, curl, express};

pub(super) fn recognize(raw: &[u8]) -> Format {
    // A raw request may have a body in another encoding; its beginning decides.
    let text = String::from_utf8_lossy(raw.get(..raw.len().min(MAX_BYTES)).unwrap_or_default());
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.chars().next() {
        Some('{') => object(text),
        Some('[') => list(text),
        _ if curl::is_command(text) => Format::Curl,
        _ if access_log::is_line(text) => Format::AccessLog,
        _ if express::is_dump(text) => Format::Express,
        _ => Format::Http,
    }
}

/// Returns the form of a text that begins with `{`.
fn object(text: &str) -> Format {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let Some(Ok(value)) = values.next() else {
        // `util.inspect` prints names without quotes, or in single ones.
        let after = text.get(1..).unwrap_or_default().trim_start();
        return if after.starts_with('"') { Format::Json } else { Format::Express };
    };
    let has = |name: &str| value.get(name).is_some();
    if value.pointer("/log/entries").is_some() {
        Format::Har
    } else if is_alert(&value) || has("alerts") {
        Format::Alert
    } else if is_express(&value)
        || (!has("url") && values.next().is_some_and(|next| is_part(next.ok())))
    {
        Format::Express
    } else if has("path") && has("method") && !has("headers") {
        Format::AccessLog
    } else {
        Format::Json
    }
}

fn list(text: &str) -> Format {
    if access_log::is_line(text) {
        return Format::AccessLog;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) if items.iter().any(is_alert) => Format::Alert,
        _ => Format::Express,
    }
}

fn is_alert(value: &Value) -> bool {
    [
        "request_url",
        "request_variables",
        "alert_text",
        "requestUrl",
        "requestVariables",
        "alertText",
    ]
    .iter()
    .any(|name| value.get(name).is_some())
}

/// Returns whether one JSON object is a whole printed request, or its headers.
fn is_express(value: &Value) -> bool {
    let has = |name: &str| value.get(name).is_some();
    let body_is_parsed = value.get("body").is_some_and(Value::is_object);
    has("originalUrl") || (has("headers") && body_is_parsed) || has("x-twilio-signature")
}

/// Returns whether a second JSON value is a further part of a printed request: another log line would be one too.
fn is_part(value: Option<Value>) -> bool {
    value.is_none_or(|value| value.get("path").is_none() || value.get("method").is_none())
}
