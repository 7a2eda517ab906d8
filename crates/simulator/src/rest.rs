//! Twilio's REST API as its SDKs call it: authentication, paths, and the format of answers.
//!
//! Sources: Twilio's OpenAPI (twilio_api_v2010.json, twilio_content_v1.json).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::faults::Fault;
use super::line::Cut;
use super::listing::{Listing, PAGE};
use super::messages::Message;
use super::refusal::Refusal;
use super::request::Request;
use super::{resources, studio, verify};
use crate::state::{Account, Shared, fresh_sid, now_ms};

/// Time until a request without an answer is closed.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) fn router() -> Router<Arc<Shared>> {
    let account = "/2010-04-01/Accounts/{account}";
    Router::new()
        .route(&format!("{account}/Messages.json"), get(list).post(create))
        .route(&format!("{account}/Messages/{{sid}}"), get(fetch).post(update).delete(remove))
        .route(&format!("{account}/Messages/{{sid}}/Media.json"), get(resources::media_list))
        .route(
            &format!("{account}/Messages/{{sid}}/Media/{{media}}"),
            get(resources::media_fetch).delete(resources::media_remove),
        )
        .route(resources::CONTENT_PATH, get(resources::media_content))
        .route(&format!("{account}/Messages/{{sid}}/Feedback.json"), post(resources::feedback))
        .route("/2010-04-01/Accounts/{account}", get(resources::account_fetch))
        .route("/v2/Services/{service}/Verifications", post(verify::start))
        .route("/v2/Services/{service}/VerificationCheck", post(verify::check))
        .route(
            "/v2/Services/{service}/Verifications/{sid}",
            get(verify::fetch).post(verify::update),
        )
        .route("/v2/Attempts", get(verify::attempts))
        .route("/v2/Flows/{flow}/Executions", get(studio::list).post(studio::start))
        .route("/v2/Flows/{flow}/Executions/{sid}", get(studio::fetch).post(studio::update))
        .route("/v2/Flows/{flow}/Executions/{sid}/Context", get(studio::context))
        .route("/v1/Content", get(content_list))
        .route("/v1/ContentAndApprovals", get(content_list))
        .route("/v1/Content/{sid}", get(content_fetch))
        .route("/v1/Content/{sid}/ApprovalRequests", get(content_approval))
        .fallback(async |uri: Uri| refused(&Refusal::not_found(uri.path())))
}

/// Answer in JSON.
pub(super) struct Json(pub(super) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.to_string()).into_response()
    }
}

pub(super) type App = State<Arc<Shared>>;
pub(super) type Answer = Result<Response, Refusal>;

async fn create(
    State(shared): App,
    Path(account): Path<String>,
    ConnectInfo(line): ConnectInfo<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = accept(&shared, &account, &line, &headers, &body).await;
    finish(&shared, "create", answer)
}

async fn accept(
    shared: &Arc<Shared>,
    account: &str,
    line: &Cut,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer {
    let account = allowed(shared, headers, Some(account))?;
    let pairs = pairs(body);
    let request = Request::read(&pairs, now_ms())?;
    let fault = Fault::of(&request.to)
        .filter(|fault| !fault.is_about_windows() || request.content_sid.is_none());
    let path = format!("/2010-04-01/Accounts/{}/Messages.json", account.sid);
    if let Some(answer) = before_fault(fault, &path, line) {
        return answer;
    }
    let half = Duration::from_millis(u64::from(shared.settings.latency_ms) / 2);
    tokio::time::sleep(half).await;
    let sid = fresh_sid(if request.media.is_empty() { "SM" } else { "MM" });
    let message =
        shared.ledger().accept(&account.sid, sid, request, &shared.catalogue(), now_ms())?;
    shared.planned.notify_one();
    tokio::time::sleep(half).await;
    let answer = (StatusCode::CREATED, Json(message.to_json())).into_response();
    after_fault(fault, answer, line).await
}

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

async fn fetch(
    State(shared): App,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        Ok(Json(message.to_json()).into_response())
    });
    finish(&shared, "fetch", answer)
}

/// Updates a message: an empty `Body` removes the text, `Status=canceled` cancels a scheduled message; no other changes
/// exist.
async fn update(
    State(shared): App,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        for (name, value) in &pairs {
            match (name.as_str(), value.as_str()) {
                ("Body", "") if message.is_incomplete() => return Err(Refusal::incomplete()),
                ("Body", "") => message.body.clear(),
                ("Status", "canceled") if message.status == "scheduled" => {
                    message.status = "canceled"
                }
                ("Status", "canceled") => {
                    return Err(Refusal::bad(30409, "The message is not scheduled"));
                }
                _ => {
                    return Err(Refusal::bad(
                        20001,
                        format!("{name}: only Body= and Status=canceled can be set"),
                    ));
                }
            }
        }
        message.updated_ms = now_ms();
        Ok(Json(message.to_json()).into_response())
    });
    finish(&shared, "update", answer)
}

async fn remove(
    State(shared): App,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer =
        with_message(&shared, &headers, &account, &sid, |message| match message.is_incomplete() {
            true => Err(Refusal::incomplete()),
            false => Ok(message.sid.clone()),
        })
        .map(|sid| {
            shared.ledger().messages.remove(&sid);
            StatusCode::NO_CONTENT.into_response()
        });
    finish(&shared, "delete", answer)
}

async fn list(
    State(shared): App,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let answer = listed(&shared, &account, query.as_deref().unwrap_or(""), &headers);
    finish(&shared, "list", answer)
}

fn listed(shared: &Shared, account: &str, query: &str, headers: &HeaderMap) -> Answer {
    let account = allowed(shared, headers, Some(account))?;
    let listing = Listing::read(query)?;
    let ledger = shared.ledger();
    let found = ledger
        .messages
        .list(&account.sid, &listing.filter)
        .skip(listing.number.saturating_mul(listing.size))
        .take(listing.size.saturating_add(1))
        .map(Message::to_json)
        .collect();
    Ok(Json(listing.page(&account.sid, found)).into_response())
}

async fn content_list(State(shared): App, uri: Uri, headers: HeaderMap) -> Response {
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        let (origin, date) = (origin(&headers), iso(now_ms()));
        let with_approvals = uri.path().ends_with("ContentAndApprovals");
        let (size, number) = contents_page(uri.query().unwrap_or_default())?;
        let catalogue = shared.catalogue();
        let start = number.saturating_mul(size);
        let items = catalogue.iter().skip(start).take(size).map(|content| match with_approvals {
            true => content.with_approval(&account.sid, &date, &origin),
            false => content.to_json(&account.sid, &date, &origin),
        });
        let items: Vec<Value> = items.collect();
        let at = |number: usize| {
            format!("{origin}{}?PageSize={size}&Page={number}&PageToken=PT{number}", uri.path())
        };
        let has_more = start.saturating_add(size) < catalogue.len();
        Ok(Json(json!({
            "contents": items,
            "meta": {
                "page": number, "page_size": size, "key": "contents",
                "first_page_url": at(0), "url": at(number),
                "next_page_url": has_more.then(|| at(number.saturating_add(1))),
                "previous_page_url": number.checked_sub(1).map(at),
            },
        }))
        .into_response())
    });
    finish(&shared, "content", answer)
}

/// Returns the page size and the page number of a query.
fn contents_page(query: &str) -> Result<(usize, usize), Refusal> {
    let (mut size, mut number) = (PAGE.0, 0);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "PageSize" => size = value.parse().unwrap_or(PAGE.0).clamp(1, PAGE.1),
            "Page" => number = value.parse().unwrap_or(0),
            "PageToken" => {}
            _ => return Err(Refusal::bad(20001, format!("{name} is no parameter of a list"))),
        }
    }
    Ok((size, number))
}

async fn content_fetch(
    State(shared): App,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Response {
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        let catalogue = shared.catalogue();
        let content = catalogue.iter().find(|content| content.sid == sid);
        let content = content.ok_or_else(|| Refusal::not_found(&format!("/v1/Content/{sid}")))?;
        Ok(Json(content.to_json(&account.sid, &iso(now_ms()), &origin(&headers))).into_response())
    });
    finish(&shared, "content", answer)
}

async fn content_approval(
    State(shared): App,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Response {
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        let catalogue = shared.catalogue();
        let content = catalogue.iter().find(|content| content.sid == sid);
        let content = content
            .ok_or_else(|| Refusal::not_found(&format!("/v1/Content/{sid}/ApprovalRequests")))?;
        Ok(Json(content.approval(&account.sid, &origin(&headers))).into_response())
    });
    finish(&shared, "content", answer)
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

fn refused(refusal: &Refusal) -> Response {
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

fn iso(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
