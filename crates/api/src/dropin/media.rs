//! Media of messages, as Twilio has them. Media of inbound messages that the sidecar stores are answered from our own
//! store, so that they stay available after their deletion at Twilio. Other requests are forwarded to Twilio.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, RawQuery, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Redirect},
};
use serde_json::{Value, json};

use super::{
    super::{problem::Problem, query},
    forwarding::{Answer, forward, get},
    message_sid,
    refusals::DropInRefusal,
    resources::{Location, locate, not_at_twilio},
};
use crate::body::json;
use twilio_edge_connectors::twilio::Forward;
use twilio_edge_domain::{
    dropin::{
        DropInError,
        request::is_sid,
        resource::{StoredMedium, media_resource},
    },
    refusal::RefusalCode,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::media,
    outbound::{media::library::Library, sending::Sending},
};
use twilio_edge_store::InboundMedium;

/// Returns the media of a message. A message that waits here has none at Twilio yet.
pub(super) async fn list(
    State(sending): State<Arc<Sending>>,
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let sid = message_sid(&sid)?;
    let own = own_media(library.as_ref(), &account_sid, sid).await?;
    if !own.is_empty() {
        let shown: Vec<Value> = own.iter().filter(|one| is_visible(one)).map(render).collect();
        return Ok(json(&page(&account_sid, sid, &shown)));
    }
    let path = match locate(&sending, &account_sid, sid).await? {
        Location::Twilio(sid) => format!("/Messages/{sid}/Media.json"),
        Location::Queued(_) | Location::Ended(_) => {
            return Ok(json(&page(&account_sid, sid, &[])));
        }
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    get(&sending.twilio, &account_sid, &format!("{path}{query}")).await
}

/// Returns the only page of a list. A message has ten media at most.
fn page(account_sid: &str, sid: &str, media: &[Value]) -> Value {
    let uri = format!("/2010-04-01/Accounts/{account_sid}/Messages/{sid}/Media.json");
    json!({
        "media_list": media, "first_page_uri": &uri, "uri": &uri, "next_page_uri": null,
        "previous_page_uri": null, "page": 0, "page_size": 50, "start": 0,
        "end": media.len().saturating_sub(1),
    })
}

/// Returns one medium: its resource, or without `.json` the redirect to its content.
pub(super) async fn fetch(
    State(sending): State<Arc<Sending>>,
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid, medium)): Path<(String, String, String)>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let path = medium_path(&sending, &account_sid, &sid, &medium).await?;
    if let Some(own) = own_medium(library.as_ref(), &account_sid, &sid, &medium).await? {
        let links = library.as_ref().and_then(Library::links);
        match (medium.ends_with(".json"), own.current_state(now_ms()), links) {
            _ if !is_visible(&own) => return Err(deleted()),
            (true, ..) => return Ok(json(&render(&own))),
            (false, "stored", Some(links)) => {
                let url = links.url(&own.id, own.received_at_ms);
                return Ok(Redirect::temporary(&url).into_response());
            }
            // Twilio still has it, or has the reason why not.
            (false, ..) => {}
        }
    }
    let request = Forward { method: Method::GET, path: &path, form: None };
    let answer = forward(&sending.twilio, &account_sid, request).await?;
    match medium.ends_with(".json") || answer.status() >= 400 {
        true => answer.json(),
        false => Ok(answer.unchanged()),
    }
}

/// Deletes one medium at Twilio. A medium that the sidecar stores is deleted here now, and at Twilio in the background.
pub(super) async fn remove(
    State(sending): State<Arc<Sending>>,
    State(library): State<Option<Library>>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid, medium)): Path<(String, String, String)>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let path = medium_path(&sending, &account_sid, &sid, &medium).await?;
    let own = own_medium(library.as_ref(), &account_sid, &sid, &medium).await?;
    if let Some((library, own)) = library.as_ref().zip(own) {
        let (inbound, id) = (library.inbound(), own.id.as_str());
        let removed = media::remove(inbound, &caller, &account_sid, id, true, now_ms()).await;
        return match removed.map_err(|reason| Problem::unavailable(&reason))? {
            true => Ok(StatusCode::NO_CONTENT.into_response()),
            false => Err(deleted()),
        };
    }
    let request = Forward { method: Method::DELETE, path: &path, form: None };
    forward(&sending.twilio, &account_sid, request).await?.json()
}

async fn medium_path(
    sending: &Sending,
    account_sid: &str,
    sid: &str,
    medium: &str,
) -> Result<String, DropInRefusal> {
    let not_found =
        || Problem::with(RefusalCode::NotFound, "a medium is ME and 32 hexadecimal digits");
    if !is_sid(medium.strip_suffix(".json").unwrap_or(medium), "ME") {
        return Err(not_found().into());
    }
    match locate(sending, account_sid, message_sid(sid)?).await? {
        Location::Twilio(sid) => Ok(format!("/Messages/{sid}/Media/{medium}")),
        Location::Queued(_) | Location::Ended(_) => Err(not_at_twilio()),
    }
}

/// Returns the media of a message that the sidecar stores; none if it fetches no media of the message.
async fn own_media(
    library: Option<&Library>,
    account_sid: &str,
    sid: &str,
) -> Result<Vec<InboundMedium>, Problem> {
    let Some(library) = library else { return Ok(Vec::new()) };
    let found = library.inbound().of_message(account_sid, sid).await;
    found.map_err(|reason| Problem::unavailable(&reason))
}

/// Returns the stored medium with this SID, if the sidecar fetches the media of its message.
async fn own_medium(
    library: Option<&Library>,
    account_sid: &str,
    sid: &str,
    medium: &str,
) -> Result<Option<InboundMedium>, Problem> {
    let media_sid = medium.strip_suffix(".json").unwrap_or(medium);
    let found = own_media(library, account_sid, message_sid(sid)?).await?;
    Ok(found.into_iter().find(|medium| medium.media_sid == media_sid))
}

/// Returns whether the medium exists for callers: here, or at Twilio.
fn is_visible(medium: &InboundMedium) -> bool {
    let is_here = matches!(medium.current_state(now_ms()), "pending" | "stored" | "refused");
    let is_at_twilio = matches!(medium.twilio_state.as_str(), "kept" | "failed");
    !medium.media_sid.is_empty() && (is_here || is_at_twilio)
}

fn render(medium: &InboundMedium) -> Value {
    media_resource(&StoredMedium {
        sid: &medium.media_sid,
        account_sid: &medium.account_sid,
        message_sid: &medium.message_sid,
        content_type: &medium.content_type,
        created_ms: medium.received_at_ms,
        updated_ms: medium.ended_at_ms.max(medium.received_at_ms),
    })
}

fn deleted() -> DropInRefusal {
    DropInError::new(20404, "The medium was deleted").with_status(404).into()
}
