//! `POST /v1/redactions`: removes personal data from the ledger at once, for instance at the request of a contact.

use std::collections::BTreeMap;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{idempotency::IdempotencyKeyHeader, problem::Problem, query};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{api_key::Scope, period::instant, window::rfc3339};
use twilio_edge_services::{
    access::api_keys::Caller,
    operations::erasure::{self, ErasureRequest},
};
use twilio_edge_store::Sweeper;

/// Largest number of webhooks that one request processes. The caller repeats the request for more.
const MOST: usize = 5000;

/// Selection of the webhooks to redact: by message, contact and time. At least one is required; a webhook must match
/// every given field.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateRedactionRequest {
    /// Account SID of the webhooks.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: String,
    /// SID of the message to redact.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-9;-~]+$")]
    message_sid: Option<String>,
    /// Number of the contact to redact: `+15551234567` on every channel, `whatsapp:+15551234567` on one.
    #[schema(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    number: Option<String>,
    /// Earliest time of receipt, inclusive, in RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Latest time of receipt, exclusive, in RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// True: count the webhooks without changing them.
    #[serde(default)]
    dry_run: bool,
    /// True: delete the webhooks of which no copy can arrive any more, and redact all others.
    #[serde(default)]
    delete: bool,
}

/// Result of a redaction, or with `dry_run` the result that it would have.
#[derive(Serialize, ToSchema)]
struct Redaction {
    /// True if the webhooks were only counted.
    dry_run: bool,
    /// Number of webhooks that were processed.
    found: usize,
    /// Number of webhooks from which something was removed.
    redacted: usize,
    /// Number of webhooks by removed part: `body`, `media`, `person`, `addresses`, `other`, `answer`.
    parts: BTreeMap<&'static str, usize>,
    /// Number of webhooks that were deleted.
    deleted: usize,
    /// False if more webhooks match; repeat the request then.
    complete: bool,
    /// Time from which to continue, in RFC 3339: repeat the request with it as `since`.
    continue_since: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(redact))
}

/// Removes all personal data from the webhooks of a message, a contact or a time range: text, media addresses, identity,
/// and the backend's answer. Suppressions, consents and the keys that detect duplicates stay.
#[utoipa::path(
    post,
    path = "/v1/redactions",
    tag = "redactions",
    params(IdempotencyKeyHeader),
    operation_id = "redact",
    request_body = CreateRedactionRequest,
    responses(
        (status = 200, description = "The result of the redaction; with `dry_run`, the number of webhooks found, and no change", body = Redaction, headers(("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn redact(
    State(sweeper): State<Sweeper>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: CreateRedactionRequest = object(body)?;
    let dry_run = request.dry_run;
    let filter = request.read(&caller)?;
    let done = erasure::erase(&sweeper, &caller, filter, MOST).await;
    let done = done.map_err(|refusal| Problem::refused(refusal, Scope::Admin))?;
    Ok(json(&Redaction {
        dry_run,
        found: done.swept.found,
        redacted: done.swept.rows,
        parts: done.swept.redacted.iter().map(|(part, count)| (part.as_str(), *count)).collect(),
        deleted: done.swept.deleted,
        complete: done.continue_ms.is_none(),
        continue_since: done.continue_ms.and_then(rfc3339),
    }))
}

impl CreateRedactionRequest {
    fn read(self, caller: &Caller) -> Result<ErasureRequest, Problem> {
        let time = |name: &str, text: Option<String>| {
            let read = |text: String| {
                instant(&text).map_err(|problem| Problem::malformed(&format!("{name}: {problem}")))
            };
            text.map(read).transpose()
        };
        let number = |text: String| query::one_number("number", &text);
        let filter = ErasureRequest {
            account_sid: Some(query::account(caller, Some(self.account_sid))?),
            message_sid: self.message_sid,
            number: self.number.map(number).transpose()?,
            since_ms: time("since", self.since)?,
            until_ms: time("until", self.until)?,
            text_only: false,
            dry_run: self.dry_run,
            delete: self.delete,
        };
        match filter.has_no_filter() {
            true => Err(Problem::of(RefusalCode::UnclearRedaction)),
            false => Ok(filter),
        }
    }
}
