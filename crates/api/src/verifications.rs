//! `POST /v1/verifications`: starts a verification, which Twilio Verify sends and checks. `GET /v1/verifications/{id}`: one verification.
//! The module `checks` checks and cancels verifications.

pub(super) mod checks;

use std::{net::IpAddr, slice, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{
        Path, Query, Request, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    middleware::Next,
    response::Response,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    addresses,
    messages::{
        create_request::locale,
        outcome::{Accepted, WaitQuery, after_wait},
    },
    problem::Problem,
    query::{self, AccountQuery},
};
use crate::{
    app::{App, Timeouts},
    body::{json, object},
    idempotency::{IdempotencyKeyHeader, accepted, accepted_for_copies, as_of_ms},
    views::VerificationView,
};
use twilio_edge_domain::{
    idempotency::StoredResponse,
    refusal::RefusalCode,
    sending::{
        options::{MessageOptions, Metadata},
        verification::{SMS, VerificationChannel, VerificationRequest},
    },
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{
        declined::Decline,
        sending::{PREFIX, Sending},
        verifications::{StartDecision, VERIFICATION_PREFIX},
    },
};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, OutboundMessage};

/// Request to verify a number.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateVerificationRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Number to verify, such as `+15551234567`.
    #[schema(min_length = 1, max_length = 255)]
    to: String,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Channel: `whatsapp`, `sms`, or `auto`, which is WhatsApp, and SMS instead if WhatsApp does not deliver the code.
    #[serde(default)]
    #[schema(inline)]
    channel: VerificationChannel,
    /// Language of the message, such as `pt_BR`. Without it, Twilio chooses the language by the country of the number.
    #[schema(pattern = "^[A-Za-z]{2,3}([_-][A-Za-z]{4})?([_-]([A-Za-z]{2}|[0-9]{3}))?$")]
    locale: Option<String>,
    /// Network address of the person who asked for the code. It counts for `verify.per_address`, and Twilio receives it as
    /// `DeviceIp`.
    #[schema(value_type = Option<String>, max_length = 45)]
    end_user_address: Option<String>,
    /// Data of the caller, which is returned unchanged.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    metadata: Metadata,
}

pub(super) fn starting_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start))
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch)).merge(checks::router())
}

/// Starts a verification once: Twilio Verify creates a code and sends it to the number. The answer comes as soon as the verification is
/// durably stored. With `wait_ms`, the answer comes once Twilio has decided. docs/NOTIFICATIONS.md describes the flow.
#[utoipa::path(
    post,
    path = "/v1/verifications",
    tag = "verifications",
    params(IdempotencyKeyHeader, WaitQuery),
    operation_id = "start_verification",
    request_body = CreateVerificationRequest,
    responses(
        (status = 200, description = "With `wait_ms`: the verification with the outcome of its start", body = VerificationView),
        (status = 202, description = "The verification is accepted and has no outcome yet", body = VerificationView, headers(("location" = String, description = "Path of the verification, which shows its status"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn start(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: CreateVerificationRequest = object(body)?;
    let (request, end_user) = body.into_request(&sending, &caller)?;
    let is_kept = turn.is_some();
    let view = |row: &OutboundMessage| {
        let view = VerificationView::of(slice::from_ref(row), &sending.errors, now_ms());
        view.ok_or_else(|| Problem::internal("a verification has no message"))
    };
    let answer = |row: &OutboundMessage| {
        let view = view(row)?;
        Ok(accepted_for_copies(&view, &view.links.this))
    };
    let row = accept(&sending, &caller, turn, &request, end_user, answer).await?;
    let view = view(&row)?;
    let location = view.links.this.clone();
    Ok(accepted(&view, location, is_kept))
}

/// Accepts a verification, or returns the rule that declines it. Both APIs call this function. `answer` renders the answer for
/// copies of the request.
pub(super) async fn accept(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    request: &VerificationRequest,
    end_user: Option<IpAddr>,
    answer: impl FnOnce(&OutboundMessage) -> Result<StoredResponse, Problem>,
) -> Result<OutboundMessage, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let (now_ms, end_user) = (as_of_ms(turn.clone()), end_user.map(|address| address.to_string()));
    let decided =
        sending.start_verification(request, end_user.as_deref(), &caller.actor, now_ms).await;
    let row = match decided.map_err(unavailable)? {
        StartDecision::Accepted(row) => *row,
        StartDecision::Declined { row, code, reason, retry_after } => {
            let copies = turn.as_ref().map(|Extension(turn)| turn.digest(0));
            let decline = Decline { code, reason: &reason, copies: copies.as_deref() };
            sending.record_declined(*row, decline, now_ms).await;
            return Err(Problem::declined(code, reason, retry_after));
        }
    };
    let done = match turn {
        Some(Extension(turn)) => Some(CompletedRequest { turn, answer: answer(&row)? }),
        None => None,
    };
    sending.add_all(caller, slice::from_ref(&row), done.as_ref()).await.map_err(unavailable)?;
    Ok(row)
}

/// Returns a verification with its attempts.
#[utoipa::path(
    get,
    path = "/v1/verifications/{id}",
    tag = "verifications",
    params(("id" = String, Path, description = "Id of the verification, `vf_..`"), AccountQuery),
    operation_id = "fetch_verification",
    responses((status = 200, description = "The verification", body = VerificationView), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let messages = messages_of(&sending, &account_sid, id, Duration::ZERO).await?;
    Ok(json(&view(&sending, &messages)?))
}

/// Returns the messages of a verification: once it has an outcome, or after `wait`.
async fn messages_of(
    sending: &Sending,
    account_sid: &str,
    id: Result<Path<String>, PathRejection>,
    wait: Duration,
) -> Result<Vec<OutboundMessage>, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchVerification);
    let Path(id) = id.map_err(|_| not_found())?;
    let digits = id.strip_prefix(VERIFICATION_PREFIX).filter(|digits| !digits.contains('\0'));
    let first_id = format!("{PREFIX}{}", digits.ok_or_else(not_found)?);
    let messages = sending.verification(account_sid, &first_id, wait).await;
    let messages = messages.map_err(|reason| Problem::unavailable(&reason))?;
    match messages.is_empty() {
        true => Err(not_found()),
        false => Ok(messages),
    }
}

fn view(sending: &Sending, messages: &[OutboundMessage]) -> Result<VerificationView, Problem> {
    let view = VerificationView::of(messages, &sending.errors, now_ms());
    view.ok_or_else(|| Problem::of(RefusalCode::NoSuchVerification))
}

/// Waits until Twilio has decided about an accepted verification, and replaces the answer with the verification as it is then.
pub(super) async fn waited(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    after_wait(timeouts, request, next, async move |accepted: Accepted, wait| {
        let Accepted { id, account_sid } = accepted;
        let messages = messages_of(&sending, &account_sid, Ok(Path(id)), wait).await?;
        let view = view(&sending, &messages)?;
        let has_outcome =
            matches!(view.state.as_str(), "sent" | "refused" | "not_sent" | "canceled");
        Ok((json(&view), has_outcome))
    })
    .await
}

impl CreateVerificationRequest {
    /// Returns the request, and the address of the end user.
    fn into_request(
        self,
        sending: &Sending,
        caller: &Caller,
    ) -> Result<(VerificationRequest, Option<IpAddr>), Problem> {
        let account_sid = query::account(caller, self.account_sid)?;
        let region = addresses::region(self.region)?;
        let to = addresses::address("to", &self.to, Some(SMS), region)
            .map_err(Problem::about_recipient)?;
        let locale = self
            .locale
            .as_deref()
            .map(locale)
            .transpose()?
            .map(|locale| locale.as_str().replace('_', "-"));
        let end_user = self.end_user_address.map(|text| {
            let read = text.parse::<IpAddr>();
            read.map_err(|_| addresses::invalid_field("end_user_address", "must be an IP address"))
        });
        let end_user = end_user.transpose()?;
        let options = MessageOptions { metadata: self.metadata, ..MessageOptions::default() };
        if let Some((field, problem)) = options.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        let other_parameters = end_user.map(|address| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("DeviceIp", &address.to_string()).finish()
        });
        let service_sid = sending.verifications.client.service_sid(&account_sid);
        let request = VerificationRequest {
            service_sid: service_sid.map(str::to_owned),
            account_sid,
            number: to.number,
            channel: self.channel,
            locale,
            other_parameters: other_parameters.unwrap_or_default(),
            metadata: options.metadata,
        };
        Ok((request, end_user))
    }
}
