//! Twilio Verify's REST API as its SDKs call it.

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer::{Answer, App, Json, after_fault, allowed, before_fault, finish, pairs};
use super::faults::Fault;
use super::line::Cut;
use super::refusal::Refusal;
use super::request::is_sid;
use super::verifications::Start;
use crate::state::{Shared, fresh_sid, now_ms};

/// Largest number of attempts in one page.
const PAGE: usize = 50;

pub(super) async fn start(
    State(shared): App,
    Path(service): Path<String>,
    ConnectInfo(line): ConnectInfo<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let to = pairs.iter().find(|(name, _)| name == "To").map_or("", |(_, to)| to.as_str());
    // Refusals with a code of messages do not exist here.
    let fault = Fault::of(to).filter(|fault| !matches!(fault, Fault::Refused(_)));
    let path = format!("/v2/Services/{service}/Verifications");
    let answer = match before_fault(fault, &path, &line) {
        Some(answer) => allowed(&shared, &headers, None).and(answer),
        None => match started(&shared, &headers, &service, &pairs) {
            Ok(answer) => after_fault(fault, answer, &line).await,
            Err(refusal) => Err(refusal),
        },
    };
    finish(&shared, "verification", answer)
}

fn started(
    shared: &Shared,
    headers: &HeaderMap,
    service: &str,
    pairs: &[(String, String)],
) -> Answer {
    let account = allowed(shared, headers, None)?;
    known(service)?;
    let mut dice = [0_u8; 8];
    // Without the system's randomness every code is 000000.
    let _ = getrandom::fill(&mut dice);
    let start = Start {
        account: &account.sid,
        service,
        pairs,
        sids: (fresh_sid("VE"), fresh_sid("VL")),
        dice: u64::from_be_bytes(dice),
    };
    let verification = shared.verifications().start(start, now_ms())?;
    Ok((StatusCode::CREATED, Json(verification)).into_response())
}

pub(super) async fn check(
    State(shared): App,
    Path(service): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        known(&service)?;
        let checked = shared.verifications().check(&account.sid, &service, &pairs, now_ms())?;
        Ok((StatusCode::CREATED, Json(checked)).into_response())
    });
    finish(&shared, "verification_check", answer)
}

pub(super) async fn fetch(
    State(shared): App,
    Path((service, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        let id = (account.sid.as_str(), service.as_str(), sid.as_str());
        Ok(Json(shared.verifications().update(id, None, now_ms())?).into_response())
    });
    finish(&shared, "verification_fetch", answer)
}

pub(super) async fn update(
    State(shared): App,
    Path((service, sid)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        let id = (account.sid.as_str(), service.as_str(), sid.as_str());
        Ok(Json(shared.verifications().update(id, Some(&pairs), now_ms())?).into_response())
    });
    finish(&shared, "verification_update", answer)
}

pub(super) async fn attempts(
    State(shared): App,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let pairs = pairs(query.unwrap_or_default().as_bytes());
    let answer = allowed(&shared, &headers, None).map(|account| {
        let size = pairs.iter().find(|(name, _)| name == "PageSize");
        let size = size.and_then(|(_, size)| size.parse().ok()).unwrap_or(PAGE);
        let mut found = shared.verifications().attempts(&account.sid, &pairs, now_ms());
        found.truncate(size);
        let url = format!("https://verify.twilio.com/v2/Attempts?PageSize={size}&Page=0");
        Json(json!({
            "attempts": found,
            "meta": {
                "key": "attempts", "page": 0, "page_size": size, "url": url, "first_page_url": url,
                "next_page_url": null, "previous_page_url": null,
            },
        }))
        .into_response()
    });
    finish(&shared, "verification_attempts", answer)
}

fn known(service: &str) -> Result<(), Refusal> {
    match is_sid(service, "VA") {
        true => Ok(()),
        false => Err(Refusal::not_found(&format!("/v2/Services/{service}"))),
    }
}
