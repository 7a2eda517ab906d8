//! Table of all refusals of the sidecar's API. A new refusal is one row: its code, HTTP status, the party that must act,
//! its texts, and its error in the drop-in Twilio API. Problem responses, the OpenAPI document, docs/API.md,
//! docs/DROP-IN.md, and the labels of metrics read this table. The modules that decide, for instance
//! [`crate::sending::rules`], name a refusal by its [`RefusalCode`].
//!
//! A code never changes its meaning, because callers branch on it.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        OneOfBuilder, RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

use crate::actor::Actor;

/// Part of the sidecar that decides about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The HTTP API, about the form or the subject of a request.
    Request,
    /// A rule of [`crate::sending::rules`], about a message to send.
    SendRule,
    /// A rule of [`crate::check`], about the recipient of a message.
    CheckRule,
}

/// Error of Twilio's API that the drop-in API returns for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwilioError {
    /// Twilio's error code.
    pub code: u32,
    /// HTTP status.
    pub status: u16,
    /// Twilio's title of the error.
    pub title: &'static str,
}

/// Row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Word by which callers, logs and metrics distinguish refusals.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Party that must act. A rule may name another party for a message.
    pub actor: Actor,
    /// Part of the sidecar that decides.
    pub origin: Origin,
    /// Summary, the same for every request.
    pub title: &'static str,
    /// Remedy, unless the request has a more specific detail.
    pub remedy: &'static str,
    /// Error in the drop-in API; `None` if the drop-in API has no such operation.
    pub drop_in: Option<TwilioError>,
}

const fn twilio(code: u32, status: u16, title: &'static str) -> Option<TwilioError> {
    Some(TwilioError { code, status, title })
}

/// Declares [`RefusalCode`] and its table.
macro_rules! refusals {
    ($($name:ident {
        code: $code:literal, status: $status:literal, actor: $actor:ident, origin: $origin:ident,
        title: $title:literal,
        remedy: $remedy:literal,
        drop_in: $drop_in:expr
    })*) => {
        /// Code of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalCode {
            $(#[doc = concat!($title, ".")] $name,)*
        }

        impl RefusalCode {
            /// Every code, in the order of docs/API.md.
            pub const ALL: &[RefusalCode] = &[$(RefusalCode::$name),*];

            /// Returns the row of the table.
            pub const fn row(self) -> Refusal {
                match self {
                    $(RefusalCode::$name => Refusal {
                        code: $code,
                        status: $status,
                        actor: Actor::$actor,
                        origin: Origin::$origin,
                        title: $title,
                        remedy: $remedy,
                        drop_in: $drop_in,
                    },)*
                }
            }
        }
    };
}

refusals! {
    MalformedRequest { code: "malformed_request", status: 400, actor: Caller, origin: Request,
        title: "The request is malformed. No change was made",
        remedy: "Correct the field that the detail names; `/openapi.json` describes each request.",
        drop_in: twilio(20001, 400, "invalid parameter") }
    UnknownVersion { code: "unknown_version", status: 400, actor: Caller, origin: Request,
        title: "The request uses another version of the protocol",
        remedy: "Deploy a filter and a sidecar of the same release.",
        drop_in: None }
    Unauthorized { code: "unauthorized", status: 401, actor: Caller, origin: Request,
        title: "The bearer token is missing or invalid",
        remedy: "Send an API key of the required scope that is not revoked, as `Authorization: Bearer ..`.",
        drop_in: twilio(20003, 401, "authenticate") }
    BootstrapOver { code: "bootstrap_over", status: 403, actor: Caller, origin: Request,
        title: "TWILIO_EDGE_TOKEN does not permit administration any more",
        remedy: "Use an admin key, or create one with `twilio-edge keys create --scope admin`. TWILIO_EDGE_TOKEN can create only the first admin key, and an admin key exists.",
        drop_in: None }
    WrongScope { code: "wrong_scope", status: 403, actor: Caller, origin: Request,
        title: "The scope of the key does not permit this operation",
        remedy: "Use a key of the scope that the detail names.",
        drop_in: twilio(20003, 403, "permission denied") }
    ScopeNotGrantable { code: "scope_not_grantable", status: 403, actor: Caller, origin: Request,
        title: "The key cannot create a key of that scope. No change was made",
        remedy: "Create the key with `twilio-edge keys create` on a machine that reaches the database. A key cannot create a key with more permissions than its own.",
        drop_in: None }
    OtherAccount { code: "other_account", status: 403, actor: Caller, origin: Request,
        title: "The key is bound to another account. No change was made",
        remedy: "Use a key that is bound to the requested account, or a key that is bound to no account.",
        drop_in: twilio(20003, 403, "permission denied") }
    InvalidEventSignature { code: "invalid_event_signature", status: 403, actor: Operator, origin: Request,
        title: "The signature does not prove that SendGrid sent these events. No change was made",
        remedy: "Enable the signature of the Event Webhook at SendGrid, and set its verification key as event_public_key of the account in the file of email.file.",
        drop_in: None }
    NotFound { code: "not_found", status: 404, actor: Caller, origin: Request,
        title: "The path does not exist",
        remedy: "Use one of the paths that the detail lists; `/openapi.json` describes them.",
        drop_in: twilio(20404, 404, "not found") }
    InvalidCursor { code: "invalid_cursor", status: 404, actor: Caller, origin: Request,
        title: "The cursor is invalid for this list",
        remedy: "Send `next_cursor` of an earlier page unchanged, with the same query parameters. Omit `cursor` to get the first page.",
        drop_in: None }
    NoSuchKey { code: "no_such_key", status: 404, actor: Caller, origin: Request,
        title: "The API key does not exist",
        remedy: "List the keys that this key may see with `GET /v1/keys`.",
        drop_in: None }
    NoSuchMessage { code: "no_such_message", status: 404, actor: Caller, origin: Request,
        title: "The message does not exist",
        remedy: "Search for the message with `GET /v1/messages`. It may belong to another account, or be older than this installation.",
        drop_in: twilio(20404, 404, "not found") }
    NoSuchNotification { code: "no_such_notification", status: 404, actor: Caller, origin: Request,
        title: "The notification does not exist",
        remedy: "List the notifications of the account with `GET /v1/notifications`. It may belong to another account.",
        drop_in: None }
    NoSuchVerification { code: "no_such_verification", status: 404, actor: Caller, origin: Request,
        title: "The verification does not exist",
        remedy: "Use the id that `POST /v1/verifications` returned. The verification may belong to another account.",
        drop_in: twilio(20404, 404, "not found") }
    VerificationEnded { code: "verification_ended", status: 409, actor: Caller, origin: Request,
        title: "The verification has ended. No change was made",
        remedy: "Start a new verification. This one was approved or canceled, its time is over, or no code was sent.",
        drop_in: twilio(20404, 404, "not found") }
    CheckRefused { code: "check_refused", status: 422, actor: Caller, origin: Request,
        title: "Twilio Verify refuses the check of the code",
        remedy: "The detail has Twilio's code and reason. After too many wrong codes (60202), start a new verification when this one has expired.",
        drop_in: None }
    VerifyUnavailable { code: "verify_unavailable", status: 503, actor: Operator, origin: Request,
        title: "Twilio Verify did not answer",
        remedy: "Send the check again. If this repeats, see the status of Twilio Verify, and the log of the sidecar.",
        drop_in: twilio(20503, 503, "service unavailable") }
    NoSuchExecution { code: "no_such_execution", status: 404, actor: Caller, origin: Request,
        title: "The execution of a flow does not exist",
        remedy: "Use the id that `POST /v1/flows/{flow_sid}/executions` returned, with its flow. The execution may belong to another account.",
        drop_in: twilio(20404, 404, "not found") }
    NoSuchTenant { code: "no_such_tenant", status: 404, actor: Caller, origin: Request,
        title: "The account has no profile",
        remedy: "Create the profile with `PUT /v1/tenants/{account_sid}`. Without a profile, the defaults apply to the account.",
        drop_in: None }
    NoSuchTemplate { code: "no_such_template", status: 404, actor: Caller, origin: Request,
        title: "The template does not exist",
        remedy: "List the templates of the account with `GET /v1/templates`. Change templates that Twilio lists in Twilio's console.",
        drop_in: None }
    NoSuchEvent { code: "no_such_event", status: 404, actor: Caller, origin: Request,
        title: "The webhook does not exist",
        remedy: "List the webhooks that this key may see, with their ids, with `GET /v1/events`.",
        drop_in: None }
    NoSuchRefusedRequest { code: "no_such_refused_request", status: 404, actor: Caller, origin: Request,
        title: "The refused request does not exist",
        remedy: "List the refused requests that this key may see, with their ids, with `GET /v1/refusals/requests`. The sidecar deletes old ones.",
        drop_in: None }
    NoSuchDeadLetter { code: "no_such_dead_letter", status: 404, actor: Caller, origin: Request,
        title: "The dead letter does not exist",
        remedy: "List the dead letters that this key may see with `GET /v1/dead-letters`.",
        drop_in: None }
    NoSuchSink { code: "no_such_sink", status: 404, actor: Caller, origin: Request,
        title: "This sidecar has no sink of that name",
        remedy: "Use a name that `GET /v1/sinks` lists. The sidecar reads its sinks file at the start.",
        drop_in: None }
    NoSuchReplay { code: "no_such_replay", status: 404, actor: Caller, origin: Request,
        title: "The replay does not exist",
        remedy: "Use the id that `POST /v1/replays` returned. The replay may belong to another account.",
        drop_in: None }
    NoSuchMedia { code: "no_such_media", status: 404, actor: Caller, origin: Request,
        title: "The media item does not exist",
        remedy: "Upload it with `POST /v1/media` and use the id in the answer. The item may belong to another account, or be deleted or expired.",
        drop_in: None }
    MediaRefused { code: "media_refused", status: 404, actor: Operator, origin: Request,
        title: "The media item was not fetched from Twilio",
        remedy: "See the reason with `GET /v1/messages/{id}/media`.",
        drop_in: None }
    MediaGone { code: "media_gone", status: 410, actor: Caller, origin: Request,
        title: "The media item was deleted or has expired",
        remedy: "None: the media store does not have its bytes any more.",
        drop_in: None }
    MediaPending { code: "media_pending", status: 503, actor: Operator, origin: Request,
        title: "The media item is not fetched from Twilio yet",
        remedy: "Repeat the request after the time in Retry-After. `GET /v1/messages/{id}/media` shows the state and the latest failure.",
        drop_in: None }
    NoMediaStore { code: "no_media_store", status: 404, actor: Operator, origin: Request,
        title: "No media store is configured",
        remedy: "Set media.store.url (TWILIO_EDGE_MEDIA_STORE_URL) of this sidecar, or use a public URL in the message.",
        drop_in: None }
    NotSuppressed { code: "not_suppressed", status: 404, actor: Caller, origin: Request,
        title: "The number has no suppression in effect",
        remedy: "Check the account, the number and the channel with `GET /v1/suppressions/{number}`, which lists the suppressions on every channel.",
        drop_in: None }
    NoAccountsFile { code: "no_accounts_file", status: 404, actor: Operator, origin: Request,
        title: "No accounts file is configured",
        remedy: "Set accounts.file (TWILIO_EDGE_ACCOUNTS_FILE) of this sidecar, or configure the account keys in the filter.",
        drop_in: None }
    MethodNotAllowed { code: "method_not_allowed", status: 405, actor: Caller, origin: Request,
        title: "The path does not support this method",
        remedy: "Use a method that the Allow header lists.",
        drop_in: twilio(20004, 405, "method not allowed") }
    CannotRevokeOwnKey { code: "cannot_revoke_own_key", status: 409, actor: Caller, origin: Request,
        title: "A key cannot revoke itself",
        remedy: "Use another admin key, or run `twilio-edge keys revoke`. This rule prevents an accidental loss of access.",
        drop_in: None }
    UnclearRedaction { code: "unclear_redaction", status: 409, actor: Caller, origin: Request,
        title: "The request does not select what to redact. No change was made",
        remedy: "Add message_sid, number, since or until. A redaction of all data of an account is not possible.",
        drop_in: None }
    SelectorRequired { code: "selector_required", status: 409, actor: Caller, origin: Request,
        title: "The request does not select any items. No change was made",
        remedy: "For dead letters, add ids, sink or account_sid. For a replay, add since or until, or message_sid with account_sid.",
        drop_in: None }
    RequestInProgress { code: "request_in_progress", status: 409, actor: Caller, origin: Request,
        title: "A request with the same Idempotency-Key is in progress",
        remedy: "Send the request again after Retry-After with the same Idempotency-Key. If the first request succeeds, the retry gets its answer.",
        drop_in: twilio(20409, 409, "conflict: a request with the same idempotency key is in progress") }
    UnclearMessage { code: "unclear_message", status: 409, actor: Caller, origin: Request,
        title: "The content or the sender of the message is ambiguous or missing. No change was made",
        remedy: "Specify exactly one kind of content: body or media, content_sid with content_variables, or template. Specify from or messaging_service_sid, but not both.",
        drop_in: twilio(21619, 400, "body or media are required") }
    NoCredentials { code: "no_credentials", status: 409, actor: Operator, origin: SendRule,
        title: "The sidecar has no credentials to send for this account",
        remedy: "Add the account and its API key to the file that sending.file names, or email.file for e-mails.",
        drop_in: twilio(20003, 403, "permission denied: the sidecar has no credentials of the account") }
    NoVerifyService { code: "no_verify_service", status: 409, actor: Operator, origin: SendRule,
        title: "The account has no Verify Service",
        remedy: "Set verify_service_sid of the account in the file that sending.file names.",
        drop_in: twilio(20404, 404, "the Verify Service does not exist") }
    VerificationLimit { code: "verification_limit", status: 429, actor: Caller, origin: SendRule,
        title: "Too many verifications of this number or this end user were started. No change was made",
        remedy: "Wait until Retry-After. The operator may raise verify.per_number or verify.per_address.",
        drop_in: twilio(60203, 429, "max send attempts reached") }
    SenderUnknown { code: "sender_unknown", status: 409, actor: Caller, origin: SendRule,
        title: "The sender is missing or cannot send to this recipient. No change was made",
        remedy: "Specify from on the channel of the recipient, or messaging_service_sid.",
        drop_in: twilio(21603, 400, "From or MessagingServiceSid is required") }
    ContentRejected { code: "content_rejected", status: 409, actor: Caller, origin: SendRule,
        title: "The content exceeds a limit of Twilio. No change was made",
        remedy: "Change the content so that it meets the limit that the detail names.",
        drop_in: twilio(21617, 400, "body too long") }
    RegionBlocked { code: "region_blocked", status: 409, actor: Operator, origin: SendRule,
        title: "Sending to the country of the recipient is not permitted. No change was made",
        remedy: "Permit the country in the file that sending.routing_file names.",
        drop_in: twilio(21408, 400, "permission to send to the region is not enabled") }
    Suppressed { code: "suppressed", status: 409, actor: Caller, origin: CheckRule,
        title: "The recipient is suppressed. No change was made",
        remedy: "Do not send to the recipient. The detail states the start of the suppression, and whether a START from the contact or only an administrator can end it.",
        drop_in: twilio(21610, 400, "unsubscribed recipient") }
    NoConsent { code: "no_consent", status: 409, actor: Caller, origin: CheckRule,
        title: "The contact has not given consent. No change was made",
        remedy: "Ask the contact for consent, and record it with `POST /v1/consents`.",
        drop_in: twilio(21610, 400, "unsubscribed recipient: the contact has not given consent") }
    ConsentStale { code: "consent_stale", status: 409, actor: Caller, origin: CheckRule,
        title: "The consent of the contact is too old. No change was made",
        remedy: "Ask the contact for consent again, and record it with `POST /v1/consents`.",
        drop_in: twilio(21610, 400, "unsubscribed recipient: the consent is too old") }
    WindowClosed { code: "window_closed", status: 409, actor: Caller, origin: CheckRule,
        title: "The conversation window is closed. No change was made",
        remedy: "Send a template; the field `templates` lists templates that may be sent. Or wait until the contact sends a message.",
        drop_in: twilio(63016, 400, "free-form message outside of the window") }
    TemplateUnknown { code: "template_unknown", status: 422, actor: Caller, origin: SendRule,
        title: "The account has no such template. No change was made",
        remedy: "Use a template that `GET /v1/templates` lists, or ask the operator to set its content with `PUT /v1/templates/{name}/{locale}`.",
        drop_in: twilio(21655, 400, "the ContentSid is invalid") }
    TemplateNotApproved { code: "template_not_approved", status: 409, actor: Operator, origin: SendRule,
        title: "WhatsApp does not permit the template. No change was made",
        remedy: "Get the template approved in Twilio's console, or use another template.",
        drop_in: twilio(63040, 400, "template is not approved") }
    VariablesRejected { code: "variables_rejected", status: 422, actor: Caller, origin: SendRule,
        title: "The variables do not fit the template. No change was made",
        remedy: "Specify a text for each variable of the template and for no other variable. No text may be empty; on WhatsApp each text must be a single line.",
        drop_in: twilio(21656, 400, "the ContentVariables parameter is invalid") }
    MediaRejected { code: "media_rejected", status: 409, actor: Caller, origin: SendRule,
        title: "The media cannot be sent. No change was made",
        remedy: "Correct the media that the detail names. Each media item must have a public https URL or a valid id, and its content must match its Content-Type.",
        drop_in: twilio(21620, 400, "invalid media") }
    TooManyMedia { code: "too_many_media", status: 409, actor: Caller, origin: SendRule,
        title: "The message has more media than the channel accepts. No change was made",
        remedy: "Send the media beyond the limit that the detail names in separate messages.",
        drop_in: twilio(21623, 400, "number of media files exceeds the limit") }
    MediaTooLarge { code: "media_too_large", status: 409, actor: Caller, origin: SendRule,
        title: "The media are larger than the channel accepts. No change was made",
        remedy: "Reduce the size to the limit that the detail names, or send a link in the text.",
        drop_in: twilio(11751, 400, "media exceed the size limit") }
    MediaUnreachable { code: "media_unreachable", status: 409, actor: Caller, origin: SendRule,
        title: "The media could not be downloaded. No change was made",
        remedy: "Make the media available without authentication, within media.timeout_ms, at their URL. Then send the request again.",
        drop_in: twilio(63019, 400, "media failed to download") }
    InvalidRecipient { code: "invalid_recipient", status: 422, actor: Caller, origin: SendRule,
        title: "The recipient is invalid or cannot receive the message. No change was made",
        remedy: "Correct the field `to`: specify a number with its country code, or a number without it and the field `region`.",
        drop_in: twilio(21211, 400, "invalid To") }
    NotCancelable { code: "not_cancelable", status: 409, actor: Caller, origin: Request,
        title: "The message is being sent or has an outcome. No change was made",
        remedy: "Fetch the message with `GET /v1/messages/{id}`; its state shows the outcome.",
        drop_in: None }
    NotUnknown { code: "not_unknown", status: 409, actor: Caller, origin: Request,
        title: "The outcome of the message is not unknown. No change was made",
        remedy: "Fetch the message with `GET /v1/messages/{id}`; its state shows the outcome.",
        drop_in: None }
    EtagMismatch { code: "etag_mismatch", status: 412, actor: Caller, origin: Request,
        title: "If-Match is not the current ETag of the resource. No change was made",
        remedy: "GET the resource again, and send its ETag in If-Match with your change.",
        drop_in: None }
    IfMatchRequired { code: "if_match_required", status: 428, actor: Caller, origin: Request,
        title: "The resource exists, and If-Match is missing. No change was made",
        remedy: "GET the resource, and send its ETag in If-Match.",
        drop_in: None }
    AccountRequired { code: "account_required", status: 422, actor: Caller, origin: Request,
        title: "The account is missing",
        remedy: "Add account_sid to the query or the body. It is required because this key is not bound to an account.",
        drop_in: None }
    InvalidField { code: "invalid_field", status: 422, actor: Caller, origin: Request,
        title: "A field has an invalid value. No change was made",
        remedy: "Correct the field that the detail names.",
        drop_in: twilio(20001, 400, "invalid parameter") }
    IdempotencyKeyReused { code: "idempotency_key_reused", status: 422, actor: Caller, origin: Request,
        title: "The Idempotency-Key was used for another request. No change was made",
        remedy: "Use a new Idempotency-Key for each request. Repeat a request with the same method, path, query and body, byte for byte.",
        drop_in: twilio(20001, 400, "invalid parameter: the idempotency key was used for another request") }
    AccountClosed { code: "account_closed", status: 403, actor: Operator, origin: Request,
        title: "The account of this key is closed",
        remedy: "Open the account again with `PUT /v1/tenants/{account_sid}`; this needs an admin key.",
        drop_in: twilio(20005, 403, "account not active") }
    BatchTooLarge { code: "batch_too_large", status: 413, actor: Caller, origin: Request,
        title: "The batch has too many entries. No change was made",
        remedy: "Split the batch into batches of the size that the detail names.",
        drop_in: None }
    BodyTooLarge { code: "body_too_large", status: 413, actor: Caller, origin: Request,
        title: "The request body is too large. No change was made",
        remedy: "Send a smaller body, or raise http.max_body_bytes (for the filter) or api.max_body_bytes (for all others).",
        drop_in: twilio(20001, 413, "request body too large") }
    InvalidLines { code: "invalid_lines", status: 422, actor: Caller, origin: Request,
        title: "The list has invalid lines. No change was made",
        remedy: "Correct the lines that the detail names, or send the list with partial=true, which skips them.",
        drop_in: None }
    RateLimited { code: "rate_limited", status: 429, actor: Caller, origin: Request,
        title: "The key exceeds its rate limit",
        remedy: "Send the request again after Retry-After, and send fewer requests. The operator may raise api.requests_per_second and api.burst.",
        drop_in: twilio(20429, 429, "too many requests") }
    TooManyStreams { code: "too_many_streams", status: 429, actor: Caller, origin: Request,
        title: "There are too many open live streams",
        remedy: "Close a stream of this key, or filter and share one. The operator may raise stream.max_per_key and stream.max.",
        drop_in: None }
    TooManyBadTokens { code: "too_many_bad_tokens", status: 429, actor: Caller, origin: Request,
        title: "This address sent too many invalid tokens",
        remedy: "Stop the client at this address that sends an invalid or revoked token, and retry after Retry-After. The operator may raise api.bad_tokens_per_minute.",
        drop_in: twilio(20429, 429, "too many requests") }
    Internal { code: "internal", status: 500, actor: Operator, origin: Request,
        title: "Internal error of the sidecar",
        remedy: "Read the reason in the log of the sidecar.",
        drop_in: twilio(20500, 500, "internal error") }
    Unavailable { code: "unavailable", status: 503, actor: Operator, origin: Request,
        title: "A dependency of the sidecar is unavailable",
        remedy: "Restore the connection to the database. A retry of the request is safe.",
        drop_in: twilio(20503, 503, "service unavailable") }
    ArchiveUnavailable { code: "archive_unavailable", status: 503, actor: Operator, origin: Request,
        title: "The archive is unavailable",
        remedy: "Read the cause in the log: the archive does not answer, or a redaction in it is still pending. A retry of the request is safe.",
        drop_in: None }
    Timeout { code: "timeout", status: 503, actor: Operator, origin: Request,
        title: "The request exceeded the time limit",
        remedy: "Retry the request, which is safe. If this repeats, raise http.request_timeout_ms or find the slow dependency.",
        drop_in: twilio(20503, 503, "service unavailable") }
}

impl RefusalCode {
    /// Returns the word used in the API, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// Returns the code with this word.
    pub fn find(word: &str) -> Option<RefusalCode> {
        RefusalCode::ALL.iter().copied().find(|code| code.as_str() == word)
    }

    /// Returns the codes of the rules about a message to send, with those about its recipient.
    pub fn of_send_rules() -> impl Iterator<Item = RefusalCode> {
        RefusalCode::ALL.iter().copied().filter(|code| code.row().origin != Origin::Request)
    }

    /// Returns the codes of the rules about the recipient of a message.
    pub fn of_check_rules() -> impl Iterator<Item = RefusalCode> {
        RefusalCode::ALL.iter().copied().filter(|code| code.row().origin == Origin::CheckRule)
    }
}

impl Serialize for RefusalCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Renders the table of docs/API.md.
pub fn reference() -> String {
    let mut text =
        "| status | code | actor | meaning | remedy |\n|---|---|---|---|---|\n".to_owned();
    for code in RefusalCode::ALL {
        let Refusal { code, status, actor, title, remedy, .. } = code.row();
        let actor = actor.as_str();
        let _ = writeln!(text, "| {status} | `{code}` | {actor} | {title} | {remedy} |");
    }
    text
}

/// Describes codes in an OpenAPI document, each with its status, actor and remedy.
fn described(codes: impl Iterator<Item = RefusalCode>) -> RefOr<Schema> {
    let one = |code: RefusalCode| {
        let Refusal { code, status, actor, title, remedy, .. } = code.row();
        let actor = actor.as_str();
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([json!(code)]))
            .description(Some(format!("{status}, for the {actor}: {title}. {remedy}")))
    };
    codes.map(one).fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}

impl PartialSchema for RefusalCode {
    fn schema() -> RefOr<Schema> {
        described(RefusalCode::ALL.iter().copied())
    }
}

impl ToSchema for RefusalCode {}

/// OpenAPI schema of the codes of the rules about a message to send.
#[derive(Debug)]
pub struct SendRefusalCode;

impl PartialSchema for SendRefusalCode {
    fn schema() -> RefOr<Schema> {
        described(RefusalCode::of_send_rules())
    }
}

impl ToSchema for SendRefusalCode {}

/// OpenAPI schema of the codes of the rules about the recipient of a message.
#[derive(Debug)]
pub struct CheckRefusalCode;

impl PartialSchema for CheckRefusalCode {
    fn schema() -> RefOr<Schema> {
        described(RefusalCode::of_check_rules())
    }
}

impl ToSchema for CheckRefusalCode {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn refusal_codes_are_unique_words_and_titles_are_no_sentences() {
        let codes: BTreeSet<_> = RefusalCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), RefusalCode::ALL.len());
        for code in RefusalCode::ALL {
            let row = code.row();
            let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(row.code.bytes().all(is_word), "{row:?}");
            assert!(!row.title.ends_with('.') && row.remedy.ends_with('.'), "{row:?}");
            assert!(!row.title.contains('|') && !row.remedy.contains('|'), "{row:?}");
            assert!((400..600).contains(&row.status), "{row:?}");
            // As in HTTP, 5xx is never an error of the caller.
            assert!(row.status < 500 || row.actor == Actor::Operator, "{row:?}");
            assert_eq!(RefusalCode::find(row.code), Some(*code));
            assert_eq!(serde_json::to_value(code).unwrap(), row.code);
        }
        assert_eq!(RefusalCode::find("invented"), None);
    }

    #[test]
    fn refusals_of_rules_have_a_twilio_error() {
        for code in RefusalCode::of_send_rules() {
            assert!(code.row().drop_in.is_some(), "{code:?}");
        }
        let of_check: Vec<_> = RefusalCode::of_check_rules().map(RefusalCode::as_str).collect();
        assert_eq!(of_check, ["suppressed", "no_consent", "consent_stale", "window_closed"]);
    }

    #[test]
    fn guide_has_the_table_of_this_version() {
        let guide = include_str!("../../../docs/API.md");
        assert!(
            guide.contains(&reference()),
            "docs/API.md is not what `twilio-edge reference problems` prints"
        );
    }
}
