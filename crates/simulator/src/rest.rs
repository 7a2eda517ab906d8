//! Paths of Twilio's REST API as its SDKs call it, and the endpoints of messages and contents.
//!
//! Sources: Twilio's OpenAPI (twilio_api_v2010.json, twilio_content_v1.json).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::answer::{
    Answer, App, Json, after_fault, allowed, before_fault, finish, origin, pairs, refused,
    with_message,
};
use super::faults::Fault;
use super::line::Cut;
use super::listing::{Listing, PAGE};
use super::messages::Message;
use super::refusal::Refusal;
use super::request::Request;
use super::{resources, studio, verify};
use crate::state::{Shared, fresh_sid, now_ms};

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

fn iso(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
