//! Resources of Twilio beside messages: media, feedback, and the account.
//!
//! Source: Twilio's OpenAPI (twilio_api_v2010.json).

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use super::answer::{App, Json, allowed, finish, origin, pairs, with_message};
use super::listing::{PAGE, page};
use super::messages::rfc2822;
use super::refusal::Refusal;
use super::samples::sample;
use crate::state::now_ms;

pub(super) async fn media_list(
    State(shared): App,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        let uri = format!("{}/Media.json", message.uri());
        Ok(Json(page(&uri, "media_list", message.media_json(), 0, PAGE.0, false)).into_response())
    });
    finish(&shared, "media", answer)
}

pub(super) async fn media_fetch(
    State(shared): App,
    Path((account, sid, media)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        let media_sid = media.trim_end_matches(".json");
        let left = message.media.iter().filter(|url| !url.is_empty());
        let all = message.media_json().into_iter().zip(left);
        let found =
            all.into_iter().find(|(shown, _)| shown.get("sid").is_some_and(|sid| sid == media_sid));
        let (shown, url) = found.ok_or_else(|| Refusal::not_found(&media))?;
        // Without .json Twilio redirects to the URL of the medium in its content network.
        Ok(if media.ends_with(".json") {
            Json(shown).into_response()
        } else if url.contains("://") {
            Redirect::temporary(url).into_response()
        } else {
            let path = format!("/simulator/media/{}/{url}", message.sid);
            Redirect::temporary(&(origin(&headers) + &path)).into_response()
        })
    });
    finish(&shared, "media", answer)
}

/// Path of samples: the content network of the simulator.
pub(super) const CONTENT_PATH: &str = "/simulator/media/{message}/{kind}/{subtype}";

/// Returns a sample. As S3 does, it refuses a request with credentials: they must not leave Twilio's API.
pub(super) async fn media_content(
    State(shared): App,
    Path((_, kind, subtype)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let content_type = format!("{kind}/{subtype}");
    let answer = match sample(&content_type) {
        _ if headers.contains_key(header::AUTHORIZATION) => {
            Err(Refusal::bad(20001, "The content network accepts no credentials"))
        }
        Some(bytes) => Ok(([(header::CONTENT_TYPE, content_type)], bytes).into_response()),
        None => Err(Refusal::not_found(&content_type)),
    };
    finish(&shared, "media_content", answer)
}

pub(super) async fn media_remove(
    State(shared): App,
    Path((account, sid, media)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        match message.delete_medium(media.trim_end_matches(".json")) {
            true => Ok(StatusCode::NO_CONTENT.into_response()),
            false => Err(Refusal::not_found(&media)),
        }
    });
    finish(&shared, "media", answer)
}

pub(super) async fn feedback(
    State(shared): App,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let answer = with_message(&shared, &headers, &account, &sid, |message| {
        let outcome = match pairs.as_slice() {
            [] => "confirmed",
            [(name, outcome)] if name == "Outcome" => outcome,
            _ => return Err(Refusal::bad(20001, "Outcome is the only parameter")),
        };
        if !matches!(outcome, "confirmed" | "unconfirmed") {
            return Err(Refusal::bad(20001, "Outcome must be confirmed or unconfirmed"));
        }
        let date = rfc2822(now_ms());
        Ok(Json(json!({
            "account_sid": message.account, "message_sid": message.sid, "outcome": outcome,
            "date_created": date, "date_updated": date, "uri": format!("{}/Feedback.json", message.uri()),
        }))
        .into_response())
    });
    finish(&shared, "feedback", answer)
}

pub(super) async fn account_fetch(
    State(shared): App,
    Path(last): Path<String>,
    headers: HeaderMap,
) -> Response {
    let sid = last.trim_end_matches(".json");
    let answer = allowed(&shared, &headers, Some(sid)).map(|account| {
        let (uri, date) = (format!("/2010-04-01/Accounts/{sid}"), rfc2822(now_ms()));
        Json(json!({
            "sid": sid, "owner_account_sid": sid, "auth_token": account.auth_token,
            "friendly_name": "Simulated account", "status": "active", "type": "Full",
            "date_created": date, "date_updated": date, "uri": format!("{uri}.json"),
            "subresource_uris": { "messages": format!("{uri}/Messages.json") },
        }))
        .into_response()
    });
    finish(&shared, "account", answer)
}
