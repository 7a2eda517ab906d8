//! `POST /v1/redactions`: what is taken out of the ledger at once, because somebody has the right to it.

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

use super::{finding, idempotency::Repeatable, kinds, problem::Problem};
use crate::{
    app::App,
    body::{json, object},
};
use twilio_edge_domain::{api_key::Scope, period::instant, window::rfc3339};
use twilio_edge_services::{
    access::api_keys::Caller,
    operations::erasure::{self, Asked},
};

/// Webhooks looked at for one answer: more are asked for again.
const MOST: usize = 5000;

/// What to take out: what is of a message, of a person, of a time; of each that is named, and at least one is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedRedaction {
    /// The account, whose they all are.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: String,
    /// Everything that was heard of this message.
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-9;-~]+$")]
    message_sid: Option<String>,
    /// Everything of this person: `+15551234567` on every channel, `whatsapp:+15551234567` on one.
    #[schema(pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$")]
    number: Option<String>,
    /// Heard of then or later, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Heard of before, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
    /// Delete what no copy can come of any more; of the rest everything is taken out.
    #[serde(default)]
    delete: bool,
}

/// What was done, or would be.
#[derive(Serialize, ToSchema)]
struct Redaction {
    /// Whether it was only counted.
    dry_run: bool,
    /// Webhooks looked at.
    found: usize,
    /// Webhooks something was taken out of.
    redacted: usize,
    /// The same by part: `body`, `media`, `person`, `addresses`, `other`, `answer`.
    parts: BTreeMap<&'static str, usize>,
    /// Webhooks that are gone.
    deleted: usize,
    /// Whether that was all.
    complete: bool,
    /// Where to go on: ask again with this as `since`.
    continue_since: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(redact))
}

/// Takes everything out of the webhooks of a message, of a person or of a time: what was written, where media are, who it
/// was, the backend's answer. Suppressions, consents and what makes a copy a duplicate stay.
#[utoipa::path(
    post,
    path = "/v1/redactions",
    tag = "redactions",
    params(Repeatable),
    operation_id = "redact",
    request_body = WantedRedaction,
    responses(
        (status = 200, description = "What was done", body = Redaction, headers(("idempotent-replayed" = String, description = "`true` if it was answered before, and nothing was done now"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn redact(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let wanted: WantedRedaction = object(body)?;
    let dry_run = wanted.dry_run;
    let asked = wanted.read(&caller)?;
    let sweeper = app.claims.stores.sweeper();
    let done = erasure::erase(&sweeper, &caller, asked, MOST).await;
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

impl WantedRedaction {
    fn read(self, caller: &Caller) -> Result<Asked, Problem> {
        let time = |name: &str, text: Option<String>| {
            let read = |text: String| {
                instant(&text).map_err(|problem| Problem::unreadable(&format!("{name}: {problem}")))
            };
            text.map(read).transpose()
        };
        let number = |text: String| finding::one_number("number", &text);
        let asked = Asked {
            account_sid: Some(finding::account(caller, Some(self.account_sid))?),
            message_sid: self.message_sid,
            number: self.number.map(number).transpose()?,
            since_ms: time("since", self.since)?,
            until_ms: time("until", self.until)?,
            text_only: false,
            dry_run: self.dry_run,
            delete: self.delete,
        };
        match asked.is_everything() {
            true => Err(Problem::of(kinds::UNCLEAR_REDACTION)),
            false => Ok(asked),
        }
    }
}
