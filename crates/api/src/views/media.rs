//! View of a medium of an inbound message.

use serde::Serialize;
use utoipa::ToSchema;

use twilio_edge_domain::{
    actor::Actor,
    media::inbound::{FetchFailure, MediaLinks},
    window::rfc3339,
};
use twilio_edge_store::InboundMedium;

/// A medium of an inbound message that the sidecar fetches from Twilio.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InboundMediaItem {
    /// Id of the medium, `mi_..`.
    pub id: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// SID of the message.
    pub message_sid: String,
    /// SID of the medium at Twilio, `ME..`; `null` if its URL is not one of Twilio's API.
    pub media_sid: Option<String>,
    /// Position in the message, from 0: N of `MediaUrlN`.
    pub position: i64,
    /// State: `pending`, `stored`, `refused` (not fetched), `expired`, `deleted` (on request) or `erased` (with data of the
    /// contact).
    pub state: String,
    /// State at Twilio: `kept`, `requested` (its deletion), `deleted` or `failed` (its deletion).
    pub twilio_state: String,
    /// Content type.
    pub content_type: String,
    /// Size in bytes, while the bytes are stored.
    pub bytes: Option<i64>,
    /// SHA-256 of the bytes, in hexadecimal digits, while the bytes are stored.
    pub digest: Option<String>,
    /// Latest failure of a fetch.
    pub error: Option<FetchError>,
    /// Number of ended fetches.
    pub attempts: i64,
    /// Time of the next fetch, in RFC 3339, while the medium is pending.
    pub next_attempt_at: Option<String>,
    /// Arrival of the message, in RFC 3339.
    pub received_at: Option<String>,
    /// Time at which the medium was stored, refused, deleted or erased, in RFC 3339.
    pub ended_at: Option<String>,
    /// Time at which the bytes are deleted, in RFC 3339.
    pub expires_at: Option<String>,
    /// Link to the bytes, the same as in the events of the message. It answers 503 while the medium is pending.
    pub url: Option<String>,
    /// End of the validity of `url`, in RFC 3339.
    pub url_expires_at: Option<String>,
}

/// Failure of a fetch.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FetchError {
    /// Code of the failure, such as `denied`.
    pub code: String,
    /// Description of the failure.
    pub title: &'static str,
    /// Party that must act.
    #[schema(inline)]
    pub actor: Actor,
    /// Action that corrects the failure.
    pub remedy: &'static str,
}

impl InboundMediaItem {
    /// Creates the view at `now_ms`, in milliseconds since 1970.
    pub fn of(medium: &InboundMedium, links: Option<&MediaLinks>, now_ms: i64) -> InboundMediaItem {
        let state = medium.current_state(now_ms);
        let (is_stored, is_pending) = (state == "stored", state == "pending");
        let has_link = matches!(state, "pending" | "stored" | "refused");
        let links = links.filter(|_| has_link);
        let url_expires_ms = links.map(|links| links.expires_at_ms(medium.received_at_ms));
        let failure: Option<FetchFailure> = medium.code.parse().ok();
        InboundMediaItem {
            id: medium.id.clone(),
            account_sid: medium.account_sid.clone(),
            message_sid: medium.message_sid.clone(),
            media_sid: Some(medium.media_sid.clone()).filter(|sid| !sid.is_empty()),
            position: medium.position,
            state: state.to_owned(),
            twilio_state: medium.twilio_state.clone(),
            content_type: medium.content_type.clone(),
            bytes: is_stored.then_some(medium.bytes),
            digest: is_stored.then(|| medium.digest.clone()),
            error: failure.map(|failure| FetchError {
                code: failure.as_str().to_owned(),
                title: failure.title(),
                actor: failure.actor(),
                remedy: failure.remedy(),
            }),
            attempts: medium.attempts,
            next_attempt_at: is_pending.then(|| rfc3339(medium.due_at_ms)).flatten(),
            received_at: rfc3339(medium.received_at_ms),
            ended_at: (medium.ended_at_ms > 0).then(|| rfc3339(medium.ended_at_ms)).flatten(),
            expires_at: is_stored.then(|| rfc3339(medium.expires_at_ms)).flatten(),
            url: links.map(|links| links.url(&medium.id, medium.received_at_ms)),
            url_expires_at: url_expires_ms.and_then(rfc3339),
        }
    }
}
