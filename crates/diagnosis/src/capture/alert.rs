//! Alert of Twilio's debugger, as `GET /v1/Alerts/{Sid}` of the Monitor API returns it, or as twilio-cli prints it
//! (`twilio api:monitor:v1:alerts:fetch --sid NO.. -o json`: a list, with names in camel case).
//!
//! `request_variables` is a form. `request_headers` is null for most alerts; `response_headers` of the same resource is a form
//! too, so a form, lines and a JSON object are read. Alerts in a list have neither.
//! Source: <https://www.twilio.com/docs/usage/monitor-alert>.

use serde_json::{Map, Value};

use super::http;
use super::parts::{Capture, Format, Part, pick, shown, text, value_of};
use crate::captured::SIGNATURE_HEADER;
use crate::url::Url;

/// Reads the alert, or the selected one of a list, counted from 1.
pub(super) fn parse(raw: &[u8], entry: Option<usize>) -> Result<Capture, String> {
    let value: Value = serde_json::from_str(text(raw)?).map_err(|error| error.to_string())?;
    let alerts: Vec<&Value> = match (&value, value.get("alerts")) {
        (Value::Array(items), _) | (_, Some(Value::Array(items))) => items.iter().collect(),
        _ => vec![&value],
    };
    let lines = alerts.iter().enumerate().map(|(index, alert)| (index, described(alert)));
    let index = pick(&lines.collect::<Vec<_>>(), alerts.len(), entry, "the list has no alert")?;
    let alert = alerts.get(index).copied().unwrap_or(&Value::Null);
    let url = string(alert, "request_url")
        .filter(|url| !url.is_empty())
        .ok_or("`request_url` is missing or empty: this alert is about no request")?;
    let variables = form_text(field(alert, "request_variables"));
    let method = string(alert, "request_method").unwrap_or("POST").to_ascii_uppercase();
    let mut capture = Capture::new(Format::Alert, method, url);
    capture.called.push(url.to_owned());
    capture.headers = headers(field(alert, "request_headers"))?;
    capture.notes.extend(about(alert));
    match (variables, capture.method.as_str()) {
        (None, "GET") => {}
        (None, _) => capture.absent.push(Part::Body),
        (Some(variables), "GET") => {
            if let Some(url) = with_query(url, &variables) {
                capture.notes.push("The parameters of the GET were put into the query, in the order and encoding of the alert; Twilio's own may differ.".to_owned());
                capture.called.push(url.clone());
                capture.target = url;
            }
        }
        (Some(variables), _) => {
            if capture.header("Content-Type").is_none() {
                let form = "application/x-www-form-urlencoded".to_owned();
                capture.headers.push(("Content-Type".to_owned(), form));
            }
            capture.body = variables.into_bytes();
        }
    }
    if value_of(&capture.headers, SIGNATURE_HEADER).is_none() {
        capture.absent.push(Part::Signature);
    }
    Ok(capture)
}

/// Returns a field by its name in the API, or by twilio-cli's name of it.
fn field<'v>(alert: &'v Value, name: &str) -> &'v Value {
    let mut camel = String::new();
    for (index, word) in name.split('_').enumerate() {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        if index == 0 {
            camel.push_str(first);
        } else {
            camel.push_str(&first.to_ascii_uppercase());
        }
        camel.push_str(rest);
    }
    alert.get(name).or_else(|| alert.get(&camel)).unwrap_or(&Value::Null)
}

fn string<'v>(alert: &'v Value, name: &str) -> Option<&'v str> {
    field(alert, name).as_str()
}

fn described(alert: &Value) -> String {
    let part = |name| string(alert, name).unwrap_or("-").chars().take(40).collect::<String>();
    let url = shown(string(alert, "request_url").unwrap_or("-"));
    format!("{} {} {} {url}", part("date_created"), part("error_code"), part("request_method"))
}

/// Returns a note about the alert's code.
fn about(alert: &Value) -> Option<String> {
    let code = string(alert, "error_code")?;
    let is_code = (1..=6).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_digit());
    is_code.then(|| {
        format!("Twilio reports error {code} for this request: https://www.twilio.com/docs/api/errors/{code}")
    })
}

/// Returns parameters as a form; `None` if the alert has none.
fn form_text(variables: &Value) -> Option<String> {
    let encoded = |object: &Map<String, Value>| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (name, value) in object {
            form.append_pair(name, &plain(value));
        }
        form.finish()
    };
    match variables {
        Value::Object(object) => Some(encoded(object)),
        Value::String(text) if text.trim_start().starts_with('{') => {
            let object: Map<String, Value> = serde_json::from_str(text).ok()?;
            Some(encoded(&object))
        }
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let pairs = |object: &Map<String, Value>| -> Vec<(String, String)> {
        object.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(object) => Ok(pairs(object)),
        Value::String(text) if text.trim_start().starts_with('{') => {
            let object: Map<String, Value> = serde_json::from_str(text)
                .map_err(|error| format!("`request_headers`: {error}"))?;
            Ok(pairs(&object))
        }
        Value::String(text) => {
            let first = text.lines().next().unwrap_or_default();
            let is_form =
                first.find('=') < first.find(':') && first.contains('=') || !first.contains(':');
            if is_form {
                let pairs = form_urlencoded::parse(text.as_bytes());
                return Ok(pairs.into_owned().filter(|(name, _)| !name.is_empty()).collect());
            }
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(http::header).collect()
        }
        _ => Err("`request_headers` is neither a text nor an object".to_owned()),
    }
}

/// Returns the URL with parameters that its query does not have yet.
fn with_query(url: &str, variables: &str) -> Option<String> {
    let parsed = Url::parse(url)?;
    let query = match parsed.query.as_deref() {
        Some(query) if query.contains("AccountSid=") => return None,
        Some(query) if !query.is_empty() => format!("{query}&{variables}"),
        _ => variables.to_owned(),
    };
    Some(Url { query: Some(query), ..parsed }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(alert: &Value) -> Result<Capture, String> {
        parse(alert.to_string().as_bytes(), None)
    }

    #[test]
    fn alert_without_headers_lacks_the_signature() {
        let capture = read(&json!({
            "error_code": "11200", "request_headers": null, "request_method": "post",
            "request_url": "https://h/in", "request_variables": "AccountSid=AC1&Body=a+b",
        }))
        .unwrap();
        assert_eq!(capture.absent, [Part::Signature]);
        assert_eq!((&*capture.method, &*capture.body), ("POST", &b"AccountSid=AC1&Body=a+b"[..]));
        assert_eq!(capture.called, ["https://h/in"]);
        assert!(capture.notes[0].contains("docs/api/errors/11200"));
    }

    #[test]
    fn headers_are_read_in_three_forms_and_two_spellings() {
        for headers in [
            json!("X-Twilio-Signature=a%2Fb%3D&Host=h"),
            json!("X-Twilio-Signature: a/b=\nHost: h"),
            json!({ "X-Twilio-Signature": "a/b=", "Host": "h" }),
            json!("{\"X-Twilio-Signature\": \"a/b=\", \"Host\": \"h\"}"),
        ] {
            let alert = json!([{ "requestUrl": "https://h/in", "requestMethod": "POST",
                "requestVariables": "Body=x", "requestHeaders": headers }]);
            let capture = read(&alert).unwrap();
            assert_eq!(capture.header("x-twilio-signature"), Some("a/b="), "{headers}");
            assert!(capture.absent.is_empty());
        }
    }

    #[test]
    fn list_is_numbered_and_an_alert_without_a_request_is_refused() {
        let list =
            json!({ "alerts": [{ "request_url": "https://h/a?x=secret" }, { "request_url": "" }] });
        let problem = read(&list).unwrap_err();
        assert!(problem.contains("--entry 2") && !problem.contains("secret"), "{problem}");
        let raw = list.to_string();
        assert!(parse(raw.as_bytes(), Some(2)).unwrap_err().contains("`request_url` is missing"));
        let first = parse(raw.as_bytes(), Some(1)).unwrap();
        assert_eq!(first.absent, [Part::Body, Part::Signature]);
    }

    #[test]
    fn parameters_of_a_get_go_into_its_query() {
        let with = |url: &str| {
            let alert = json!({ "request_url": url, "request_method": "GET",
                "request_variables": "AccountSid=AC1&To=" });
            read(&alert).unwrap().target
        };
        assert_eq!(with("https://h/in"), "https://h/in?AccountSid=AC1&To=");
        assert_eq!(with("https://h/in?a=1"), "https://h/in?a=1&AccountSid=AC1&To=");
        assert_eq!(with("https://h/in?AccountSid=AC1&To="), "https://h/in?AccountSid=AC1&To=");
    }
}
