//! The table of all refusals: for each code its status, the actor who must act, and the remedy. It is part of the OpenAPI
//! document and, printed by `twilio-edge reference problems`, of docs/API.md. A code never changes its meaning; callers
//! branch on the code, never on a text. The table does not know when a refusal applies.

use std::fmt::Write as _;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        OneOfBuilder, RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// Actor `caller`: the filter or application that calls, or the person who configures it.
const CALLER: &str = "caller";

/// Actor `operator`: the person who runs this sidecar.
const OPERATOR: &str = "operator";

/// One kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    pub(super) actor: &'static str,
    /// Summary of the refusal, the same for every request.
    pub(super) title: &'static str,
    /// Remedy, unless the request has a more specific detail.
    pub(super) remedy: &'static str,
}

macro_rules! kinds {
    ($($name:ident $status:ident $actor:ident $code:literal: $title:literal; $remedy:literal)*) => {
        $(pub(super) const $name: Kind = Kind {
            code: $code,
            status: StatusCode::$status,
            actor: $actor,
            title: $title,
            remedy: $remedy,
        };)*

        const ALL: &[Kind] = &[$($name),*];
    };
}

kinds! {
    MALFORMED_REQUEST BAD_REQUEST CALLER "malformed_request": "The request cannot be read; nothing was done";
        "Send what the description of the API asks for; the detail names the field."
    UNKNOWN_VERSION BAD_REQUEST CALLER "unknown_version": "Another version of the protocol";
        "Deploy a filter and a sidecar of the same release."
    UNAUTHORIZED UNAUTHORIZED CALLER "unauthorized": "The bearer token is missing or not ours";
        "Send an API key of the scope needed; a revoked key is none."
    BOOTSTRAP_OVER FORBIDDEN CALLER "bootstrap_over": "The edge token is not for administration any more";
        "TWILIO_EDGE_TOKEN makes the first admin key only, and there is one: use an admin key, or make one with `twilio-edge keys create --scope admin`."
    WRONG_SCOPE FORBIDDEN CALLER "wrong_scope": "The key does not permit this";
        "Use a key of the scope that the detail names."
    SCOPE_NOT_GRANTABLE FORBIDDEN CALLER "scope_not_grantable": "This key cannot make a key of that scope; nothing was done";
        "A key makes keys that may no more than itself; filters' keys, which read Twilio's tokens, are made on the command line."
    OTHER_ACCOUNT FORBIDDEN CALLER "other_account": "That account is not this key's; nothing was done";
        "The key is bound to one account; use a key of the other account, or one that is bound to none."
    NOT_FOUND NOT_FOUND CALLER "not_found": "No such path";
        "The detail has the paths of this listener; `/openapi.json` describes them."
    INVALID_CURSOR NOT_FOUND CALLER "invalid_cursor": "The cursor is of no page of this list";
        "Send the next_cursor of a page before as it is, with the query it came from; or none, for the first page."
    NO_SUCH_KEY NOT_FOUND CALLER "no_such_key": "There is no such key";
        "`GET /v1/keys` lists those this key may see."
    NO_SUCH_MESSAGE NOT_FOUND CALLER "no_such_message": "Nothing was heard of such a message";
        "Look for it with `GET /v1/messages`; it may be of another account, or from before this sidecar."
    NO_SUCH_TENANT NOT_FOUND CALLER "no_such_tenant": "Nothing is said of this account";
        "It is as every other; say something of it with `PUT /v1/tenants/{account_sid}`."
    NO_SUCH_TEMPLATE NOT_FOUND CALLER "no_such_template": "There is no such template";
        "`GET /v1/templates` lists those of the account; what Twilio shows is changed there."
    NO_SUCH_EVENT NOT_FOUND CALLER "no_such_event": "There is no such webhook";
        "`GET /v1/events` lists those this key may see, with their ids."
    NO_SUCH_DEAD_LETTER NOT_FOUND CALLER "no_such_dead_letter": "No such delivery was given up";
        "`GET /v1/dead-letters` lists those this key may see."
    NO_SUCH_REPLAY NOT_FOUND CALLER "no_such_replay": "There is no such replay";
        "`POST /v1/replays` tells the id of the one it begins; it may be of another account."
    NO_SUCH_MEDIA NOT_FOUND CALLER "no_such_media": "No such media are kept here";
        "`POST /v1/media` takes some in and tells their id; it may be of another account, or have had its time."
    NO_MEDIA_STORE NOT_FOUND OPERATOR "no_media_store": "This sidecar keeps no media";
        "Set media.store.url (TWILIO_EDGE_MEDIA_STORE_URL) of this sidecar, or give a URL of your own in the message."
    NOT_SUPPRESSED NOT_FOUND CALLER "not_suppressed": "No suppression of that number holds there";
        "`GET /v1/suppressions/{number}` tells what is known of it, on every channel."
    NO_ACCOUNTS_FILE NOT_FOUND OPERATOR "no_accounts_file": "This sidecar has no keys to hand out";
        "Set accounts.file (TWILIO_EDGE_ACCOUNTS_FILE) of this sidecar, or give the filter the keys in its own configuration."
    METHOD_NOT_ALLOWED METHOD_NOT_ALLOWED CALLER "method_not_allowed": "No such method on this path";
        "The Allow header has those there are."
    CANNOT_REVOKE_OWN_KEY CONFLICT CALLER "cannot_revoke_own_key": "A key does not revoke itself";
        "Use another admin key, or `twilio-edge keys revoke`: so that nobody is locked out by mistake."
    UNCLEAR_REDACTION CONFLICT CALLER "unclear_redaction": "It is not clear what is to be redacted; nothing was done";
        "Name a message, a number or a time: nobody means all there is of an account."
    SELECTOR_REQUIRED CONFLICT CALLER "selector_required": "It is not clear which are meant; nothing was done";
        "Name ids, a sink or an account, of a replay a message with its account or a time: nobody means whatever there is."
    REQUEST_IN_PROGRESS CONFLICT CALLER "request_in_progress": "A copy of this request is being carried out";
        "Send it again after Retry-After, with the same Idempotency-Key: it is answered as that one is."
    UNCLEAR_MESSAGE CONFLICT CALLER "unclear_message": "It is not clear what is to be sent, or by whom; nothing was done";
        "Give body or media, or else content_sid with content_variables; and from or messaging_service_sid, not both."
    NO_CREDENTIALS CONFLICT OPERATOR "no_credentials": "Nothing can be sent for this account";
        "Name the account and its API key in the file of sending.file."
    SENDER_UNKNOWN CONFLICT CALLER "sender_unknown": "Nobody is said to send this, or somebody who cannot; nothing was done";
        "Give from, on the channel of the recipient, or messaging_service_sid."
    CONTENT_REJECTED CONFLICT CALLER "content_rejected": "Twilio would not take the content; nothing was done";
        "The detail names the limit."
    REGION_BLOCKED CONFLICT OPERATOR "region_blocked": "Nobody is written to in that country; nothing was done";
        "The operator permits countries in the file of sending.routing_file."
    SUPPRESSED CONFLICT CALLER "suppressed": "The person is not to be written to; nothing was done";
        "The detail tells since when, and whether a START of theirs ends it or only an administrator."
    NO_CONSENT CONFLICT CALLER "no_consent": "The person has not agreed to this; nothing was done";
        "Ask them, and record it with `POST /v1/consents`."
    CONSENT_STALE CONFLICT CALLER "consent_stale": "What the person agreed to is too long ago; nothing was done";
        "Ask them again, and record it with `POST /v1/consents`."
    WINDOW_CLOSED CONFLICT CALLER "window_closed": "The person has not written within a day; nothing was done";
        "Send a template, as `templates` has them if there are any, or wait until they write."
    TEMPLATE_UNKNOWN UNPROCESSABLE_ENTITY CALLER "template_unknown": "The account has no such template; nothing was done";
        "Name one that `GET /v1/templates` has; or let the operator say which content it is."
    TEMPLATE_NOT_APPROVED CONFLICT OPERATOR "template_not_approved": "WhatsApp does not let this template be sent; nothing was done";
        "Have it approved in Twilio's console, or name another one."
    VARIABLES_REJECTED UNPROCESSABLE_ENTITY CALLER "variables_rejected": "The template cannot be filled in with this; nothing was done";
        "Give a text for each of its variables and no other: not empty, and on WhatsApp on one line."
    MEDIA_REJECTED CONFLICT CALLER "media_rejected": "Twilio would not take the media; nothing was done";
        "The detail names which and why: a public https URL is needed, of something that is what its Content-Type says."
    TOO_MANY_MEDIA CONFLICT CALLER "too_many_media": "The message has more media than the channel takes; nothing was done";
        "The detail names the limit: send the others in messages of their own."
    MEDIA_TOO_LARGE CONFLICT CALLER "media_too_large": "The media are larger than the channel takes; nothing was done";
        "The detail names the limit: make it smaller, or send a link."
    MEDIA_UNREACHABLE CONFLICT CALLER "media_unreachable": "The media could not be fetched; nothing was done";
        "Whoever serves it has to let everybody fetch it who has the URL, within media.timeout_ms. Then ask again."
    INVALID_RECIPIENT UNPROCESSABLE_ENTITY CALLER "invalid_recipient": "The recipient is nobody that can be written to; nothing was done";
        "Give to as a number with its country code, or without one and with region."
    NOT_CANCELABLE CONFLICT CALLER "not_cancelable": "Somebody has begun to send it, or it has an end; nothing was done";
        "Fetch it: its state tells what became of it."
    ETAG_MISMATCH PRECONDITION_FAILED CALLER "etag_mismatch": "It is not any more as it was seen; nothing was done";
        "Fetch it again, and send its ETag as If-Match with what is to be changed."
    IF_MATCH_REQUIRED PRECONDITION_REQUIRED CALLER "if_match_required": "It is there already; nothing was done";
        "Fetch it, and send its ETag as If-Match: nobody overwrites what they have not seen."
    ACCOUNT_REQUIRED UNPROCESSABLE_ENTITY CALLER "account_required": "It has to be said of which account";
        "Add account_sid to the query or the body: this key sees every account, and an answer is about one."
    INVALID_FIELD UNPROCESSABLE_ENTITY CALLER "invalid_field": "It can be read, and cannot be so; nothing was done";
        "The detail names the field, and what it must be."
    IDEMPOTENCY_KEY_REUSED UNPROCESSABLE_ENTITY CALLER "idempotency_key_reused": "The Idempotency-Key is another request's; nothing was done";
        "Give each request a key of its own, and send its copies with the same path, query and body, to the byte."
    ACCOUNT_CLOSED FORBIDDEN OPERATOR "account_closed": "The account of this key is closed";
        "An administrator may open it again with `PUT /v1/tenants/{account_sid}`."
    BATCH_TOO_LARGE PAYLOAD_TOO_LARGE CALLER "batch_too_large": "Too many entries; nothing was done";
        "Split the batch as the detail says."
    BODY_TOO_LARGE PAYLOAD_TOO_LARGE CALLER "body_too_large": "The request is too large; nothing was done";
        "Send less at a time, or raise http.max_body_bytes (for the filter) or api.max_body_bytes (for all others)."
    BAD_LINES UNPROCESSABLE_ENTITY CALLER "bad_lines": "The list has bad lines; nothing was done";
        "Put the lines right that the detail names, or send the list with partial=true, which leaves them out."
    RATE_LIMITED TOO_MANY_REQUESTS CALLER "rate_limited": "This key has asked too often";
        "Ask again after Retry-After, and less often; the operator may raise api.requests_per_second and api.burst."
    TOO_MANY_BAD_TOKENS TOO_MANY_REQUESTS CALLER "too_many_bad_tokens": "Too many tokens from this address were not ours";
        "Stop what sends a wrong or revoked token from there, and ask again after Retry-After; the operator may raise api.bad_tokens_per_minute."
    INTERNAL INTERNAL_SERVER_ERROR OPERATOR "internal": "A defect of the sidecar";
        "The log has the rest."
    UNAVAILABLE SERVICE_UNAVAILABLE OPERATOR "unavailable": "The request cannot be answered now";
        "The database does not answer; sending it again is safe."
    ARCHIVE_UNAVAILABLE SERVICE_UNAVAILABLE OPERATOR "archive_unavailable": "The archive cannot be read now";
        "It does not answer, or something is still being taken out of it; the log says which. Sending it again is safe."
    TIMEOUT SERVICE_UNAVAILABLE OPERATOR "timeout": "The request was not finished in time";
        "It took longer than http.request_timeout_ms; sending it again is safe."
}

/// Renders every refusal as the table of docs/API.md.
pub fn reference() -> String {
    let mut text =
        "| status | code | who must act | what it says | what to do |\n|---|---|---|---|---|\n"
            .to_owned();
    for kind in ALL {
        let Kind { code, status, actor, title, remedy } = kind;
        let status = status.as_u16();
        let _ = writeln!(text, "| {status} | `{code}` | {actor} | {title} | {remedy} |");
    }
    text
}

/// Code of the refusal. A code never changes its meaning.
pub(super) struct Code;

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let one = |kind: &Kind| {
            let Kind { code, status, actor, title, remedy } = kind;
            let status = status.as_u16();
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some([*code]))
                .description(Some(format!("{status}, for the {actor}: {title}. {remedy}")))
        };
        ALL.iter().map(one).fold(OneOfBuilder::new(), OneOfBuilder::item).into()
    }
}

impl ToSchema for Code {}

/// Actor who must act.
pub(super) struct Actor;

impl PartialSchema for Actor {
    fn schema() -> RefOr<Schema> {
        let words = [CALLER, OPERATOR].map(|word| json!(word));
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
    }
}

impl ToSchema for Actor {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_one_refusal_and_a_title_no_sentence() {
        let codes: BTreeSet<_> = ALL.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), ALL.len());
        for kind in ALL {
            let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(kind.code.bytes().all(is_word), "{kind:?}");
            assert!(!kind.title.ends_with('.') && kind.remedy.ends_with('.'), "{kind:?}");
            assert!(!kind.title.contains('|') && !kind.remedy.contains('|'), "{kind:?}");
            // As in HTTP, 5xx is never an error of the caller.
            assert!(kind.status.is_client_error() || kind.actor == OPERATOR, "{kind:?}");
        }
    }

    #[test]
    fn the_guide_has_the_table_of_this_version() {
        let guide = include_str!("../../../docs/API.md");
        let told = "docs/API.md is not what `twilio-edge reference problems` prints";
        assert!(guide.contains(&reference()), "{told}");
    }
}
