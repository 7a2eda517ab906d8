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
    MALFORMED_REQUEST BAD_REQUEST CALLER "malformed_request": "The request is malformed. No change was made";
        "Correct the field that the detail names; `/openapi.json` describes each request."
    UNKNOWN_VERSION BAD_REQUEST CALLER "unknown_version": "The request uses another version of the protocol";
        "Deploy a filter and a sidecar of the same release."
    UNAUTHORIZED UNAUTHORIZED CALLER "unauthorized": "The bearer token is missing or invalid";
        "Send an API key of the required scope that is not revoked, as `Authorization: Bearer ..`."
    BOOTSTRAP_OVER FORBIDDEN CALLER "bootstrap_over": "TWILIO_EDGE_TOKEN does not permit administration any more";
        "Use an admin key, or create one with `twilio-edge keys create --scope admin`. TWILIO_EDGE_TOKEN can create only the first admin key, and an admin key exists."
    WRONG_SCOPE FORBIDDEN CALLER "wrong_scope": "The scope of the key does not permit this operation";
        "Use a key of the scope that the detail names."
    SCOPE_NOT_GRANTABLE FORBIDDEN CALLER "scope_not_grantable": "The key cannot create a key of that scope. No change was made";
        "Create the key with `twilio-edge keys create` on a machine that reaches the database. A key cannot create a key with more permissions than its own."
    OTHER_ACCOUNT FORBIDDEN CALLER "other_account": "The key is bound to another account. No change was made";
        "Use a key that is bound to the requested account, or a key that is bound to no account."
    NOT_FOUND NOT_FOUND CALLER "not_found": "The path does not exist";
        "Use one of the paths that the detail lists; `/openapi.json` describes them."
    INVALID_CURSOR NOT_FOUND CALLER "invalid_cursor": "The cursor is invalid for this list";
        "Send `next_cursor` of an earlier page unchanged, with the same query parameters. Omit `cursor` to get the first page."
    NO_SUCH_KEY NOT_FOUND CALLER "no_such_key": "The API key does not exist";
        "List the keys that this key may see with `GET /v1/keys`."
    NO_SUCH_MESSAGE NOT_FOUND CALLER "no_such_message": "The message does not exist";
        "Search for the message with `GET /v1/messages`. It may belong to another account, or be older than this installation."
    NO_SUCH_TENANT NOT_FOUND CALLER "no_such_tenant": "The account has no profile";
        "Create the profile with `PUT /v1/tenants/{account_sid}`. Without a profile, the defaults apply to the account."
    NO_SUCH_TEMPLATE NOT_FOUND CALLER "no_such_template": "The template does not exist";
        "List the templates of the account with `GET /v1/templates`. Change templates that Twilio lists in Twilio's console."
    NO_SUCH_EVENT NOT_FOUND CALLER "no_such_event": "The webhook does not exist";
        "List the webhooks that this key may see, with their ids, with `GET /v1/events`."
    NO_SUCH_DEAD_LETTER NOT_FOUND CALLER "no_such_dead_letter": "The dead letter does not exist";
        "List the dead letters that this key may see with `GET /v1/dead-letters`."
    NO_SUCH_REPLAY NOT_FOUND CALLER "no_such_replay": "The replay does not exist";
        "Use the id that `POST /v1/replays` returned. The replay may belong to another account."
    NO_SUCH_MEDIA NOT_FOUND CALLER "no_such_media": "The media item does not exist";
        "Upload it with `POST /v1/media` and use the id in the answer. The item may belong to another account, or be deleted or expired."
    NO_MEDIA_STORE NOT_FOUND OPERATOR "no_media_store": "No media store is configured";
        "Set media.store.url (TWILIO_EDGE_MEDIA_STORE_URL) of this sidecar, or use a public URL in the message."
    NOT_SUPPRESSED NOT_FOUND CALLER "not_suppressed": "The number has no suppression in effect";
        "Check the account, the number and the channel with `GET /v1/suppressions/{number}`, which lists the suppressions on every channel."
    NO_ACCOUNTS_FILE NOT_FOUND OPERATOR "no_accounts_file": "No accounts file is configured";
        "Set accounts.file (TWILIO_EDGE_ACCOUNTS_FILE) of this sidecar, or configure the account keys in the filter."
    METHOD_NOT_ALLOWED METHOD_NOT_ALLOWED CALLER "method_not_allowed": "The path does not support this method";
        "Use a method that the Allow header lists."
    CANNOT_REVOKE_OWN_KEY CONFLICT CALLER "cannot_revoke_own_key": "A key cannot revoke itself";
        "Use another admin key, or run `twilio-edge keys revoke`. This rule prevents an accidental loss of access."
    UNCLEAR_REDACTION CONFLICT CALLER "unclear_redaction": "The request does not select what to redact. No change was made";
        "Add message_sid, number, since or until. A redaction of all data of an account is not possible."
    SELECTOR_REQUIRED CONFLICT CALLER "selector_required": "The request does not select any items. No change was made";
        "For dead letters, add ids, sink or account_sid. For a replay, add since or until, or message_sid with account_sid."
    REQUEST_IN_PROGRESS CONFLICT CALLER "request_in_progress": "A request with the same Idempotency-Key is in progress";
        "Send the request again after Retry-After with the same Idempotency-Key. If the first request succeeds, the retry gets its answer."
    UNCLEAR_MESSAGE CONFLICT CALLER "unclear_message": "The content or the sender of the message is ambiguous or missing. No change was made";
        "Specify exactly one kind of content: body or media, content_sid with content_variables, or template. Specify from or messaging_service_sid, but not both."
    NO_CREDENTIALS CONFLICT OPERATOR "no_credentials": "The sidecar has no credentials to send for this account";
        "Add the account and its API key to the file that sending.file names."
    SENDER_UNKNOWN CONFLICT CALLER "sender_unknown": "The sender is missing or cannot send to this recipient. No change was made";
        "Specify from on the channel of the recipient, or messaging_service_sid."
    CONTENT_REJECTED CONFLICT CALLER "content_rejected": "The content exceeds a limit of Twilio. No change was made";
        "Change the content so that it meets the limit that the detail names."
    REGION_BLOCKED CONFLICT OPERATOR "region_blocked": "Sending to the country of the recipient is not permitted. No change was made";
        "Permit the country in the file that sending.routing_file names."
    SUPPRESSED CONFLICT CALLER "suppressed": "The recipient is suppressed. No change was made";
        "Do not send to the recipient. The detail states the start of the suppression, and whether a START from the contact or only an administrator can end it."
    NO_CONSENT CONFLICT CALLER "no_consent": "The contact has not given consent. No change was made";
        "Ask the contact for consent, and record it with `POST /v1/consents`."
    CONSENT_STALE CONFLICT CALLER "consent_stale": "The consent of the contact is too old. No change was made";
        "Ask the contact for consent again, and record it with `POST /v1/consents`."
    WINDOW_CLOSED CONFLICT CALLER "window_closed": "The conversation window is closed. No change was made";
        "Send a template; the field `templates` lists templates that may be sent. Or wait until the contact sends a message."
    TEMPLATE_UNKNOWN UNPROCESSABLE_ENTITY CALLER "template_unknown": "The account has no such template. No change was made";
        "Use a template that `GET /v1/templates` lists, or ask the operator to set its content with `PUT /v1/templates/{name}/{locale}`."
    TEMPLATE_NOT_APPROVED CONFLICT OPERATOR "template_not_approved": "WhatsApp does not permit the template. No change was made";
        "Get the template approved in Twilio's console, or use another template."
    VARIABLES_REJECTED UNPROCESSABLE_ENTITY CALLER "variables_rejected": "The variables do not fit the template. No change was made";
        "Specify a text for each variable of the template and for no other variable. No text may be empty; on WhatsApp each text must be a single line."
    MEDIA_REJECTED CONFLICT CALLER "media_rejected": "The media cannot be sent. No change was made";
        "Correct the media that the detail names. Each media item must have a public https URL or a valid id, and its content must match its Content-Type."
    TOO_MANY_MEDIA CONFLICT CALLER "too_many_media": "The message has more media than the channel accepts. No change was made";
        "Send the media beyond the limit that the detail names in separate messages."
    MEDIA_TOO_LARGE CONFLICT CALLER "media_too_large": "The media are larger than the channel accepts. No change was made";
        "Reduce the size to the limit that the detail names, or send a link in the text."
    MEDIA_UNREACHABLE CONFLICT CALLER "media_unreachable": "The media could not be downloaded. No change was made";
        "Make the media available without authentication, within media.timeout_ms, at their URL. Then send the request again."
    INVALID_RECIPIENT UNPROCESSABLE_ENTITY CALLER "invalid_recipient": "The recipient is invalid or cannot receive the message. No change was made";
        "Correct the field `to`: specify a number with its country code, or a number without it and the field `region`."
    NOT_CANCELABLE CONFLICT CALLER "not_cancelable": "The message is being sent or has an outcome. No change was made";
        "Fetch the message with `GET /v1/messages/{sid}`; its state shows the outcome."
    ETAG_MISMATCH PRECONDITION_FAILED CALLER "etag_mismatch": "If-Match is not the current ETag of the resource. No change was made";
        "GET the resource again, and send its ETag in If-Match with your change."
    IF_MATCH_REQUIRED PRECONDITION_REQUIRED CALLER "if_match_required": "The resource exists, and If-Match is missing. No change was made";
        "GET the resource, and send its ETag in If-Match."
    ACCOUNT_REQUIRED UNPROCESSABLE_ENTITY CALLER "account_required": "The account is missing";
        "Add account_sid to the query or the body. It is required because this key is not bound to an account."
    INVALID_FIELD UNPROCESSABLE_ENTITY CALLER "invalid_field": "A field has an invalid value. No change was made";
        "Correct the field that the detail names."
    IDEMPOTENCY_KEY_REUSED UNPROCESSABLE_ENTITY CALLER "idempotency_key_reused": "The Idempotency-Key was used for another request. No change was made";
        "Use a new Idempotency-Key for each request. Repeat a request with the same method, path, query and body, byte for byte."
    ACCOUNT_CLOSED FORBIDDEN OPERATOR "account_closed": "The account of this key is closed";
        "Open the account again with `PUT /v1/tenants/{account_sid}`; this needs an admin key."
    BATCH_TOO_LARGE PAYLOAD_TOO_LARGE CALLER "batch_too_large": "The batch has too many entries. No change was made";
        "Split the batch into batches of the size that the detail names."
    BODY_TOO_LARGE PAYLOAD_TOO_LARGE CALLER "body_too_large": "The request body is too large. No change was made";
        "Send a smaller body, or raise http.max_body_bytes (for the filter) or api.max_body_bytes (for all others)."
    BAD_LINES UNPROCESSABLE_ENTITY CALLER "bad_lines": "The list has invalid lines. No change was made";
        "Correct the lines that the detail names, or send the list with partial=true, which skips them."
    RATE_LIMITED TOO_MANY_REQUESTS CALLER "rate_limited": "The key exceeds its rate limit";
        "Send the request again after Retry-After, and send fewer requests. The operator may raise api.requests_per_second and api.burst."
    TOO_MANY_BAD_TOKENS TOO_MANY_REQUESTS CALLER "too_many_bad_tokens": "This address sent too many invalid tokens";
        "Stop the client at this address that sends an invalid or revoked token, and retry after Retry-After. The operator may raise api.bad_tokens_per_minute."
    INTERNAL INTERNAL_SERVER_ERROR OPERATOR "internal": "Internal error of the sidecar";
        "Read the reason in the log of the sidecar."
    UNAVAILABLE SERVICE_UNAVAILABLE OPERATOR "unavailable": "A dependency of the sidecar is unavailable";
        "Restore the connection to the database. A retry of the request is safe."
    ARCHIVE_UNAVAILABLE SERVICE_UNAVAILABLE OPERATOR "archive_unavailable": "The archive is unavailable";
        "Read the cause in the log: the archive does not answer, or a redaction in it is still pending. A retry of the request is safe."
    TIMEOUT SERVICE_UNAVAILABLE OPERATOR "timeout": "The request exceeded the time limit";
        "Retry the request, which is safe. If this repeats, raise http.request_timeout_ms or find the slow dependency."
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
