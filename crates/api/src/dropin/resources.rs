//! Messages, their feedback, and the account, as Twilio has them. Requests that Twilio carries out are
//! forwarded with the account's credentials, and Twilio's answer is passed back. Redaction and deletion also change our
//! own store.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{Method, StatusCode},
    response::IntoResponse,
};
use serde_json::json;

use super::{
    super::{problem::Problem, query},
    find_own,
    forwarding::{Answer, forward, get},
    known, message_sid,
    refusals::DropInRefusal,
    request::pairs,
};
use crate::body::{json, whole};
use twilio_edge_connectors::twilio::Forward;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    api_key::Scope,
    dropin::{
        DropInError,
        resource::{self, StoredMessage},
    },
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    operations::erasure::{self, ErasureRequest},
    outbound::sending::{self, Sending},
};
use twilio_edge_store::{
    OutboundMessage, Sweeper,
    message_history::{MessageHistory, messages::MessageRecord},
};

/// Largest number of webhooks of one message that are processed. A message has a handful.
const MOST: usize = 5000;

/// Returns one message: our own record until Twilio has the message, then Twilio's answer.
pub(super) async fn fetch(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid)): Path<(String, String)>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let sid = message_sid(&sid)?;
    match locate(&sending, &account_sid, sid).await? {
        Location::Twilio(sid) => {
            get(&sending.twilio, &account_sid, &format!("/Messages/{sid}.json")).await
        }
        Location::Queued(message) | Location::Ended(message) => {
            Ok(json(&resource::message_resource(&known(&message))))
        }
    }
}

/// Cancels (`Status=canceled`) a message that waits here, or redacts (`Body=`) a message. Changes of a message that
/// Twilio has are forwarded to Twilio.
pub(super) async fn update(
    State(sending): State<Arc<Sending>>,
    State(sweeper): State<Sweeper>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let sid = message_sid(&sid)?;
    let body = whole(body)?;
    let change = Change::read(&pairs(&body))?;
    let sid = match (locate(&sending, &account_sid, sid).await?, change) {
        (Location::Twilio(sid), _) => sid,
        (Location::Queued(message), Change::Cancel) => {
            return cancel(&sending, &caller, &message).await;
        }
        (Location::Ended(_), Change::Cancel) => return Err(not_cancelable()),
        (Location::Queued(_), Change::Redact) => return Err(not_complete("redacted")),
        (Location::Ended(message), Change::Redact) => {
            let mut resource = resource::message_resource(&known(&message));
            if let Some(fields) = resource.as_object_mut() {
                fields.insert("body".to_owned(), json!(""));
            }
            return Ok(json(&resource));
        }
    };
    let path = format!("/Messages/{sid}.json");
    let request = Forward { method: Method::POST, path: &path, form: Some(body.to_vec()) };
    let answer = forward(&sending.twilio, &account_sid, request).await?;
    if answer.is_success() && change == Change::Redact {
        erase(&sweeper, &caller, &account_sid, &sid, true).await?;
    }
    answer.json()
}

/// Deletes a message at Twilio and in our store.
pub(super) async fn remove(
    State(sending): State<Arc<Sending>>,
    State(histories): State<MessageHistory>,
    State(sweeper): State<Sweeper>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, last)): Path<(String, String)>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let own_sid = message_sid(&last)?;
    let sid = match locate(&sending, &account_sid, own_sid).await? {
        Location::Twilio(sid) => sid,
        Location::Queued(_) => return Err(not_complete("deleted")),
        Location::Ended(last) => {
            // A message that was sent as a fallback also has the SID of the message it replaces.
            let first = find_replaced(&sending, &account_sid, own_sid).await?;
            for message in [Some(last), first].into_iter().flatten() {
                let removed = sending::remove(&sending.messages, &caller, &message, now_ms()).await;
                removed.map_err(|reason| Problem::unavailable(&reason))?;
            }
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    };
    let path = format!("/Messages/{sid}.json");
    let request = Forward { method: Method::DELETE, path: &path, form: None };
    let answer = forward(&sending.twilio, &account_sid, request).await?;
    let is_gone = answer.status() == 404 && is_stored(&histories, &account_sid, &sid).await?;
    if answer.is_success() || is_gone {
        let is_erased = erase(&sweeper, &caller, &account_sid, &sid, false).await?;
        // Twilio had already deleted it, and our store had not.
        if is_gone && is_erased {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    answer.json()
}

/// Reports to Twilio that the recipient has done what the message was for.
pub(super) async fn feedback(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path((account_sid, sid)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let account_sid = query::account(&caller, Some(account_sid))?;
    let form = whole(body)?.to_vec();
    let Location::Twilio(sid) = locate(&sending, &account_sid, message_sid(&sid)?).await? else {
        return Err(not_at_twilio());
    };
    let path = format!("/Messages/{sid}/Feedback.json");
    let request = Forward { method: Method::POST, path: &path, form: Some(form) };
    forward(&sending.twilio, &account_sid, request).await?.json()
}

/// Returns the account without its auth token: an API key of this sidecar must not reveal a Twilio credential.
pub(super) async fn account(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path(last): Path<String>,
) -> Answer {
    let Some(account_sid) = last.strip_suffix(".json") else {
        return Err(Problem::of(RefusalCode::NotFound).into());
    };
    let account_sid = query::account(&caller, Some(account_sid.to_owned()))?;
    let request = Forward { method: Method::GET, path: ".json", form: None };
    let mut answer = forward(&sending.twilio, &account_sid, request).await?;
    if answer.is_success() {
        answer.without("auth_token")?;
    }
    answer.json()
}

/// Change of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Cancel,
    Redact,
}

impl Change {
    /// Parses the form of an update. Other combinations are Twilio's error 30400.
    fn read(pairs: &[(String, String)]) -> Result<Change, DropInError> {
        let get = |name: &str| pairs.iter().find(|(have, _)| have == name).map(|(_, value)| value);
        match (get("Body").map(String::as_str), get("Status").map(String::as_str)) {
            (Some(""), None) => Ok(Change::Redact),
            (None, Some("canceled")) => Ok(Change::Cancel),
            _ => Err(DropInError::new(
                30400,
                "Parameters are not valid: send Status=canceled, or an empty Body to redact the message, and not both",
            )),
        }
    }
}

/// Location of a message.
pub(super) enum Location {
    /// At Twilio under this SID, or not found anywhere.
    Twilio(String),
    /// Here: it waits to be sent, or it is unknown whether Twilio has it.
    Queued(Box<OutboundMessage>),
    /// Here: it ended without reaching Twilio.
    Ended(Box<OutboundMessage>),
}

pub(super) async fn locate(
    sending: &Sending,
    account_sid: &str,
    sid: &str,
) -> Result<Location, Problem> {
    Ok(match find_own(sending, account_sid, sid).await? {
        Some(message) if message.state == "sent" => Location::Twilio(message.message_sid),
        Some(message) if matches!(message.state.as_str(), "refused" | "not_sent" | "canceled") => {
            Location::Ended(Box::new(message))
        }
        Some(message) => Location::Queued(Box::new(message)),
        None => Location::Twilio(sid.to_owned()),
    })
}

/// Finds the message whose own SID this is, even if a fallback replaced it.
async fn find_replaced(
    sending: &Sending,
    account_sid: &str,
    sid: &str,
) -> Result<Option<Box<OutboundMessage>>, Problem> {
    let Some(id) = resource::id_of_sid(sid) else { return Ok(None) };
    let found = sending.messages.fetch(&id, Some(account_sid)).await;
    found.map(|found| found.map(Box::new)).map_err(|reason| Problem::unavailable(&reason))
}

async fn cancel(sending: &Sending, caller: &Caller, message: &OutboundMessage) -> Answer {
    let canceled = sending::cancel(&sending.messages, caller, message, now_ms()).await;
    if !canceled.map_err(|reason| Problem::unavailable(&reason))? {
        return Err(not_cancelable());
    }
    let mut resource = resource::message_resource(&known(message));
    resource::update(&mut resource, &StoredMessage { state: "canceled", ..known(message) });
    Ok(json(&resource))
}

/// Returns whether our store has anything about a message.
async fn is_stored(
    histories: &MessageHistory,
    account_sid: &str,
    sid: &str,
) -> Result<bool, Problem> {
    let found = histories.message(account_sid, sid).await;
    let is_recorded = |found: MessageRecord| found.recorded().is_some();
    found
        .map(|found| found.is_some_and(is_recorded))
        .map_err(|reason| Problem::unavailable(&reason))
}

/// Deletes a message from our store, or redacts only its text. Returns whether the store had anything to remove.
async fn erase(
    sweeper: &Sweeper,
    caller: &Caller,
    account_sid: &str,
    sid: &str,
    text_only: bool,
) -> Result<bool, Problem> {
    let selection = ErasureRequest {
        account_sid: Some(account_sid.to_owned()),
        message_sid: Some(sid.to_owned()),
        text_only,
        delete: !text_only,
        ..ErasureRequest::default()
    };
    let done = erasure::erase(sweeper, caller, selection, MOST).await;
    let done = done.map_err(|refusal| Problem::refused(refusal, Scope::App))?;
    Ok(done.swept.rows + done.swept.deleted > 0)
}

fn not_cancelable() -> DropInRefusal {
    DropInError::new(30409, "This message cannot be canceled").into()
}

/// Twilio's error 20009.
fn not_complete(what: &str) -> DropInRefusal {
    let message = format!(
        "This message has not been sent yet, and cannot be {what}: cancel it with Status=canceled, or wait until it is complete"
    );
    DropInError::new(20009, message).with_status(409).into()
}

pub(super) fn not_at_twilio() -> DropInRefusal {
    let message = "Twilio does not have this message: it waits in the sidecar, or was not sent";
    DropInError::new(20404, message).with_status(404).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_a_redaction_or_a_cancellation() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Change::read(&pairs).map_err(|mistake| mistake.code)
        };
        assert_eq!(read(&[("Body", "")]), Ok(Change::Redact));
        assert_eq!(read(&[("Status", "canceled")]), Ok(Change::Cancel));
        for wrong in [
            &[][..],
            &[("Body", "x")],
            &[("Status", "sent")],
            &[("Body", ""), ("Status", "canceled")],
        ] {
            assert_eq!(read(wrong), Err(30400), "{wrong:?}");
        }
    }
}
