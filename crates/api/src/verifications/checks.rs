//! `POST /v1/verifications/{id}/check` and `/cancel`. A code is passed to Twilio and is neither stored nor logged: a check has no
//! idempotency key, because the digest of a short code would reveal it.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{messages_of, view};
use crate::{
    app::App,
    body::{json, object},
    problem::Problem,
    query::{self, AccountQuery},
    views::VerificationView,
};
use twilio_edge_domain::{
    refusal::RefusalCode,
    sending::verification::{CheckOutcome, VerificationStatus},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};

/// Request to check a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckCodeRequest {
    /// Code that the person typed: 4 to 10 letters and digits.
    #[schema(value_type = String, pattern = "^[0-9A-Za-z]{4,10}$")]
    code: Value,
}

/// Verdict about a code.
#[derive(Serialize, ToSchema)]
struct CodeVerdict {
    /// Id of the verification.
    id: String,
    /// True if the code is right.
    valid: bool,
    /// Status of the verification: `approved` if the code is right, `pending` if it is wrong and another one may be checked.
    status: VerificationStatus,
}

/// Code that a person typed. Its debug form hides it.
struct Code(String);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(code)")
    }
}

impl Code {
    /// Reads a code; the refusal does not repeat it.
    fn read(text: &Value) -> Result<Code, Problem> {
        let is_code = |text: &&str| {
            (4..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let code = text.as_str().filter(is_code).map(|code| Code(code.to_owned()));
        code.ok_or_else(|| Problem::malformed("code: must be a text of 4 to 10 letters and digits"))
    }
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(check)).routes(routes!(cancel))
}

/// Checks a code. A wrong code is an answer with `valid: false`, not an error. Twilio accepts five checks.
#[utoipa::path(
    post,
    path = "/v1/verifications/{id}/check",
    tag = "verifications",
    params(("id" = String, Path, description = "Id of the verification, `vf_..`"), AccountQuery),
    operation_id = "check_verification",
    request_body = CheckCodeRequest,
    responses((status = 200, description = "Whether the code is right", body = CodeVerdict), Problem),
    security(("key" = [])),
)]
async fn check(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let CheckCodeRequest { code } = object(body)?;
    let Code(code) = Code::read(&code)?;
    let messages = messages_of(&sending, &account_sid, id, Duration::ZERO).await?;
    let outcome = sending.check_verification(&messages, &format!("Code={code}"), now_ms()).await;
    let outcome = outcome.map_err(|reason| Problem::unavailable(&reason))?;
    let status = status_of(outcome)?;
    let id = view(&sending, &messages)?.id;
    Ok(json(&CodeVerdict { id, valid: status == VerificationStatus::Approved, status }))
}

/// Cancels a verification, so that its code is no longer accepted. Canceling it again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/verifications/{id}/cancel",
    tag = "verifications",
    params(("id" = String, Path, description = "Id of the verification, `vf_..`"), AccountQuery),
    operation_id = "cancel_verification",
    responses((status = 200, description = "The canceled verification", body = VerificationView), Problem),
    security(("key" = [])),
)]
async fn cancel(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let messages = messages_of(&sending, &account_sid, id, Duration::ZERO).await?;
    let outcome = sending.cancel_verification(&messages, &caller, now_ms()).await;
    status_of(outcome.map_err(unavailable)?)?;
    let first_id = messages.first().map(|message| message.id.clone()).unwrap_or_default();
    let messages = sending.verification(&account_sid, &first_id, Duration::ZERO).await;
    Ok(json(&view(&sending, &messages.map_err(unavailable)?)?))
}

/// Returns the status that Twilio reports, or the refusal.
fn status_of(outcome: CheckOutcome) -> Result<VerificationStatus, Problem> {
    match outcome {
        CheckOutcome::Status(status, _) => Ok(status),
        CheckOutcome::Ended => Err(Problem::of(RefusalCode::VerificationEnded)),
        CheckOutcome::Refused { code, reason, .. } => {
            Err(Problem::with(RefusalCode::CheckRefused, format!("{code}: {reason}")))
        }
        CheckOutcome::Unavailable(reason) => Err(Problem::verify_unavailable(&reason)),
    }
}
