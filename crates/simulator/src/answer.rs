//! What every endpoint of Twilio's REST API shares: authentication, faults, and the format of answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::faults::Fault;
use super::line::Cut;
use super::messages::Message;
use super::refusal::Refusal;
use crate::state::{Account, Shared, fresh_sid, now_ms};

/// Time until a request without an answer is closed.
const SILENCE: Duration = Duration::from_secs(60);

/// Answer in JSON.
pub(super) struct Json(pub(super) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.to_string()).into_response()
    }
}

pub(super) type App = State<Arc<Shared>>;
pub(super) type Answer = Result<Response, Refusal>;

/// Returns the answer of a fault that prevents the acceptance.
pub(super) fn before_fault(fault: Option<Fault>, path: &str, line: &Cut) -> Option<Answer> {
    Some(Err(match fault? {
        Fault::TooMany => Refusal::too_many(),
        Fault::Refused(code) => Refusal::bad(
            code,
            "The simulator returns this error for the suffix of the recipient's number",
        ),
        Fault::NotFound => Refusal::not_found(path),
        Fault::Unauthorized => Refusal::unauthorized(),
        Fault::Unavailable => Refusal::new(503, 20503, "Service Unavailable"),
        Fault::Closed => {
            line.cut();
            return Some(Ok(StatusCode::NO_CONTENT.into_response()));
        }
        _ => return None,
    }))
}

/// Replaces the answer of an acceptance with that of a fault after it.
pub(super) async fn after_fault(fault: Option<Fault>, answer: Response, line: &Cut) -> Answer {
    match fault {
        Some(Fault::ErrorAfterAccept) => Err(Refusal::new(500, 20500, "Internal Server Error")),
        Some(Fault::SilenceAfterAccept) => {
            tokio::time::sleep(SILENCE).await;
            line.cut();
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Ok(answer),
    }
}

/// Returns the account that calls, by its SID and auth token or by an API key; it must be the account of the path, if there
/// is one.
pub(super) fn allowed<'a>(
    shared: &'a Shared,
    headers: &HeaderMap,
    path: Option<&str>,
) -> Result<&'a Account, Refusal> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Basic "));
    let given = given
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let given = given.ok_or_else(Refusal::unauthorized)?;
    let (user, password) = given.split_once(':').ok_or_else(Refusal::unauthorized)?;
    let is_theirs = |account: &&Account| {
        let keys = account.api_keys.iter().map(|(sid, secret)| (sid, secret));
        std::iter::once((&account.sid, &account.auth_token)).chain(keys).any(|(name, secret)| {
            name == user && bool::from(secret.as_bytes().ct_eq(password.as_bytes()))
        })
    };
    let account =
        shared.settings.accounts.iter().find(is_theirs).ok_or_else(Refusal::unauthorized)?;
    if path.is_some_and(|path| path != account.sid) {
        return Err(Refusal::unauthorized());
    }
    match shared.limit().admits(&account.sid, now_ms()) {
        true => Ok(account),
        false => Err(Refusal::too_many()),
    }
}

pub(super) fn with_message<T>(
    shared: &Shared,
    headers: &HeaderMap,
    account: &str,
    sid: &str,
    act: impl FnOnce(&mut Message) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let account = allowed(shared, headers, Some(account))?;
    let mut ledger = shared.ledger();
    let found = ledger.messages.get(sid.trim_end_matches(".json"));
    let found = found.filter(|message| message.account == account.sid);
    let missing =
        || Refusal::not_found(&format!("/2010-04-01/Accounts/{}/Messages/{sid}", account.sid));
    act(found.ok_or_else(missing)?)
}

pub(super) fn finish(shared: &Shared, what: &'static str, answer: Answer) -> Response {
    let mut response = answer.unwrap_or_else(|refusal| refused(&refusal));
    if let Ok(id) = HeaderValue::from_str(&fresh_sid("RQ")) {
        response.headers_mut().insert("Twilio-Request-Id", id);
    }
    shared.count(what, response.status().as_u16());
    response
}

/// Returns the answer of a refusal.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = (status, Json(refusal.to_json())).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(super) fn pairs(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form).into_owned().collect()
}

pub(super) fn origin(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}
