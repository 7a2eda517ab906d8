//! SendGrid's `POST /v3/mail/send`: authentication, the documented form of a request, and faults selected by the address of the
//! recipient. Accepted e-mails get events (`send_grid_events.rs`).
//!
//! Source: twilio.com/docs/sendgrid/api-reference/mail-send.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::{
    answer::Json,
    line::Cut,
    send_grid_events::{self, Course, Sent},
};
use crate::state::{Email, Shared, fresh_sid, now_ms};

/// Limits of one request: bytes, recipients, bytes of custom arguments, categories.
const MAX_BYTES: usize = 30 << 20;
const MAX_RECIPIENTS: usize = 1000;
const MAX_ARGUMENT_BYTES: usize = 10_000;
const MAX_CATEGORIES: usize = 10;

/// Time in seconds after which a throttled request is accepted.
const RESET_S: i64 = 2;

/// Time until a request without an answer is closed.
const SILENCE: Duration = Duration::from_secs(60);

/// Request, as SendGrid documents it. A field that SendGrid does not document is refused, so that it judges its caller.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    personalizations: Vec<Personalization>,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    subject: Option<String>,
    #[serde(default)]
    content: Vec<Part>,
    template_id: Option<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    custom_args: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Personalization {
    to: Vec<Mailbox>,
    subject: Option<String>,
    #[serde(default)]
    custom_args: BTreeMap<String, String>,
    #[serde(default)]
    dynamic_template_data: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mailbox {
    email: String,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

/// Answer that is no success: status, field and message.
struct Refusal(StatusCode, Option<&'static str>, &'static str);

/// Answer for a recipient's local part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unauthorized,
    TooLarge,
    Throttled,
    Unavailable,
    ErrorAfterAccept,
    SilenceAfterAccept,
    Closed,
}

/// Local part before a `+` or the `@`, fault, and description.
const FAULTS: &[(&str, Fault, &str)] = &[
    ("unauthorized", Fault::Unauthorized, "401; not accepted"),
    ("too-large", Fault::TooLarge, "413; not accepted"),
    (
        "throttled",
        Fault::Throttled,
        "429 with `X-RateLimit-Reset` for the first request; later ones are accepted",
    ),
    ("unavailable", Fault::Unavailable, "503; not accepted"),
    ("error", Fault::ErrorAfterAccept, "500, **after** accepting: the e-mail is sent"),
    (
        "silence",
        Fault::SilenceAfterAccept,
        "no answer at all, **after** accepting: the e-mail is sent",
    ),
    ("closed", Fault::Closed, "the connection is closed without an answer; not accepted"),
];

/// Renders the table of faults and events in Markdown.
pub fn reference() -> String {
    let faults = FAULTS.iter().map(|(local, _, seen)| (*local, *seen));
    let courses = send_grid_events::COURSES.iter().map(|(local, _, seen)| (*local, *seen));
    let rows = faults.chain(courses).map(|(local, seen)| format!("| `{local}` | {seen} |\n"));
    format!("| name before the @ | effect |\n| --- | --- |\n{}", rows.collect::<String>())
}

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v3/mail/send", post(send).layer(DefaultBodyLimit::max(MAX_BYTES)))
        .route("/simulator/emails", get(emails))
        .route("/simulator/email-events", post(change_events_url))
        .route("/simulator/email-signature", post(sign))
}

async fn send(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let response = match accept(&shared, &line, &headers, &body).await {
        Ok(response) => response,
        Err(Refusal(status, field, message)) => {
            let error = json!({"errors": [{"message": message, "field": field, "help": null}]});
            let mut response = (status, Json(error)).into_response();
            if status == StatusCode::TOO_MANY_REQUESTS {
                let reset_s = now_ms() / 1000 + RESET_S;
                let limits = [
                    ("x-ratelimit-limit", 1),
                    ("x-ratelimit-remaining", 0),
                    ("x-ratelimit-reset", reset_s),
                ];
                for (name, value) in limits {
                    response.headers_mut().insert(name, HeaderValue::from(value));
                }
            }
            response
        }
    };
    shared.count("mail", response.status().as_u16());
    response
}

async fn accept(
    shared: &Arc<Shared>,
    line: &Cut,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refusal> {
    let bad = |field, message| Refusal(StatusCode::BAD_REQUEST, field, message);
    authenticate(shared, headers)?;
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json {
        let message = "Content-Type should be application/json.";
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, message));
    }
    let request: Request =
        serde_json::from_slice(body).map_err(|_| bad(None, "Bad Request: the JSON is invalid"))?;
    if let Some((field, message)) = problem(&request) {
        return Err(bad(Some(field), message));
    }
    let mailboxes = request.personalizations.iter().flat_map(|one| &one.to);
    let mailboxes: Vec<String> = mailboxes.map(|to| to.email.to_ascii_lowercase()).collect();
    let fault = mailboxes.iter().find_map(|to| fault(to));
    let throttled = || Refusal(StatusCode::TOO_MANY_REQUESTS, None, "too many requests");
    match fault {
        Some(Fault::Unauthorized) => return Err(unauthorized()),
        Some(Fault::TooLarge) => {
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, None, "Payload too large"));
        }
        Some(Fault::Throttled) if shared.is_first_of(&mailboxes) => return Err(throttled()),
        Some(Fault::Unavailable) => {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, None, "Service unavailable"));
        }
        Some(Fault::Closed) => {
            line.cut();
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        _ => {}
    }
    let half = Duration::from_millis(u64::from(shared.settings.latency_ms) / 2);
    tokio::time::sleep(half).await;
    let id = fresh_sid("");
    let full = Refusal(StatusCode::INSUFFICIENT_STORAGE, None, "The simulator is full");
    let sent = sent(&request, &id);
    let subject = request.subject.unwrap_or_default();
    let emails = sent.iter().map(|sent| Email {
        id: id.clone(),
        to: sent.to.clone(),
        subject: subject.clone(),
        template_id: request.template_id.clone(),
    });
    if !shared.keep_emails(emails.collect()) {
        return Err(full);
    }
    for sent in sent {
        send_grid_events::start(shared, sent);
    }
    tokio::time::sleep(half).await;
    match fault {
        Some(Fault::ErrorAfterAccept) => {
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, None, "Internal server error"))
        }
        Some(Fault::SilenceAfterAccept) => {
            tokio::time::sleep(SILENCE).await;
            line.cut();
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => {
            let mut response = StatusCode::ACCEPTED.into_response();
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert("X-Message-Id", id);
            }
            Ok(response)
        }
    }
}

/// Returns the e-mails of a request, one for each recipient.
fn sent(request: &Request, id: &str) -> Vec<Sent> {
    let of_recipient = |one: &Personalization, to: &Mailbox| {
        let mut arguments = request.custom_args.clone();
        arguments.extend(one.custom_args.clone());
        Sent {
            id: id.to_owned(),
            to: to.email.to_ascii_lowercase(),
            categories: request.categories.clone(),
            arguments,
            course: Course::of(&to.email),
            accepted_ms: now_ms(),
        }
    };
    let personalizations = request.personalizations.iter();
    personalizations.flat_map(|one| one.to.iter().map(move |to| of_recipient(one, to))).collect()
}

fn unauthorized() -> Refusal {
    let message = "The provided authorization grant is invalid, expired, or revoked";
    Refusal(StatusCode::UNAUTHORIZED, None, message)
}

/// The key is the auth token of an account.
fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
    let mut accounts = shared.settings.accounts.iter();
    let is_known =
        accounts.any(|account| bool::from(account.auth_token.as_bytes().ct_eq(key.as_bytes())));
    if is_known { Ok(()) } else { Err(unauthorized()) }
}

fn problem(request: &Request) -> Option<(&'static str, &'static str)> {
    let is_address = |mailbox: &Mailbox| {
        let parts = mailbox.email.split_once('@');
        let has_name = mailbox.name.as_deref() != Some("");
        has_name && parts.is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
    };
    let recipients: Vec<&Mailbox> =
        request.personalizations.iter().flat_map(|one| &one.to).collect();
    let arguments = |arguments: &BTreeMap<String, String>| {
        arguments.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum::<usize>()
    };
    let argument_bytes = request
        .personalizations
        .iter()
        .map(|one| arguments(&one.custom_args))
        .chain([arguments(&request.custom_args)])
        .max()
        .unwrap_or_default();
    let has_template = request.template_id.is_some();
    let has_subject =
        |subject: &Option<String>| subject.as_deref().is_some_and(|text| !text.is_empty());
    let every_subject = request.personalizations.iter().all(|one| has_subject(&one.subject));
    let rank = |part: &Part| usize::from(part.kind != "text/plain");
    let is_ordered = request.content.windows(2).all(|pair| match pair {
        [one, other] => rank(one) <= rank(other),
        _ => true,
    });
    let has_data = request.personalizations.iter().any(|one| !one.dynamic_template_data.is_empty());
    let is_dynamic = request.template_id.as_deref().is_some_and(|id| id.starts_with("d-"));
    [
        (request.personalizations.is_empty(), "personalizations", "The personalizations field is required and must have at least one personalization."),
        (request.personalizations.iter().any(|one| one.to.is_empty()), "personalizations.0.to", "The to array is required for all personalization objects, and must have at least one email object with a valid email address."),
        (recipients.len() > MAX_RECIPIENTS, "personalizations", "There are too many recipients."),
        (!recipients.iter().all(|to| is_address(to)), "personalizations.0.to.0.email", "Does not contain a valid address."),
        (!is_address(&request.from), "from.email", "The from email does not contain a valid address."),
        (request.reply_to.as_ref().is_some_and(|to| !is_address(to)), "reply_to.email", "The reply_to email does not contain a valid address."),
        (!has_template && !has_subject(&request.subject) && !every_subject, "subject", "The subject is required. You can get around this requirement if you use a template with a subject defined or if every personalization has a subject defined."),
        (!has_template && request.content.is_empty(), "content", "Unless a valid template_id is provided, the content parameter is required."),
        (request.content.iter().any(|part| part.value.is_empty()), "content.0.value", "The content value must be a string at least one character in length."),
        (!is_ordered, "content", "If present, text/plain and text/html may only be provided in this order."),
        (has_data && !is_dynamic, "template_id", "dynamic_template_data needs a dynamic template."),
        (argument_bytes > MAX_ARGUMENT_BYTES, "custom_args", "The total length of custom arguments must be less than 10000 bytes."),
        (request.categories.len() > MAX_CATEGORIES, "categories", "There are too many categories."),
    ]
    .into_iter()
    .find_map(|(holds, field, message)| holds.then_some((field, message)))
}

/// Returns the name of an address before a `+` or the `@`.
pub(super) fn name(address: &str) -> &str {
    address.split(['+', '@']).next().unwrap_or_default()
}

fn fault(address: &str) -> Option<Fault> {
    FAULTS.iter().find(|(local, ..)| *local == name(address)).map(|(_, fault, _)| *fault)
}

/// URL for the events about later e-mails; an empty one ends them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsUrl {
    url: String,
}

async fn change_events_url(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    let Ok(EventsUrl { url }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    shared.emails().events_url = Some(url).filter(|url| !url.is_empty());
    StatusCode::NO_CONTENT
}

/// Signs a body as the events are signed, for tests of a receiver.
async fn sign(body: Bytes) -> Response {
    let Some((signature, timestamp)) = send_grid_events::sign(&body, now_ms()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let key = send_grid_events::public_key();
    Json(json!({"signature": signature, "timestamp": timestamp, "key": key})).into_response()
}

async fn emails(State(shared): State<Arc<Shared>>) -> Json {
    let emails = shared.emails();
    let shown = emails.list.iter().map(|email| {
        json!({"id": email.id, "to": email.to, "subject": email.subject, "template_id": email.template_id})
    });
    let key = send_grid_events::public_key();
    Json(json!({"emails": shown.collect::<Vec<Value>>(), "event_public_key": key}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Value)) -> Option<&'static str> {
        let mut body = json!({
            "personalizations": [{"to": [{"email": "ava@example.com"}]}],
            "from": {"email": "shop@example.com"},
            "subject": "Hi",
            "content": [{"type": "text/plain", "value": "hello"}, {"type": "text/html", "value": "<p>"}],
        });
        change(&mut body);
        problem(&serde_json::from_value(body).unwrap()).map(|(field, _)| field)
    }

    #[test]
    fn request_has_the_documented_form() {
        assert_eq!(request(|_| {}), None);
        assert_eq!(request(|body| body["content"] = json!([])), Some("content"));
        assert_eq!(request(|body| body["subject"] = json!("")), Some("subject"));
        assert_eq!(request(|body| body["from"]["email"] = json!("shop")), Some("from.email"));
        assert_eq!(request(|body| body["personalizations"] = json!([])), Some("personalizations"));
        let reversed =
            json!([{"type": "text/html", "value": "<p>"}, {"type": "text/plain", "value": "x"}]);
        assert_eq!(request(|body| body["content"] = reversed), Some("content"));
        let large = json!({"a": "x".repeat(10_000)});
        assert_eq!(
            request(|body| body["personalizations"][0]["custom_args"] = large),
            Some("custom_args")
        );
    }

    #[test]
    fn table_of_the_document_is_current() {
        let guide = include_str!("../../../docs/SIMULATOR.md");
        assert!(guide.contains(&reference()), "{}", reference());
    }
}
