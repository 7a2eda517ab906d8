//! Drop-in replacement of Twilio Verify for `client.verify.v2`: start, check, fetch and cancel verifications. A verification is accepted
//! as by `POST /v1/verifications`. Verifications that were not started here are forwarded to Twilio.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, Request, State, rejection::BytesRejection},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use serde_json::Value;

use super::{
    forwarding::{Answer, TwilioAnswer},
    refusals::DropInRefusal,
    request::{OUR_KEY, TWILIO_KEY, pairs, with_status},
};
use crate::{
    access,
    app::{App, Timeouts},
    body::whole,
    idempotency::{self, StoredReplay},
    problem::Problem,
    verifications::accept,
};
use twilio_edge_connectors::twilio::Forward;
use twilio_edge_domain::{
    dropin::{
        DropInError, codes as ends, credentials,
        verification::{self as resource, StartForm},
    },
    idempotency::{Headers, StoredResponse},
    refusal::RefusalCode,
    sending::{
        options::Metadata,
        provider::Provider,
        verification::{CheckOutcome, VerificationRequest, VerificationStatus, is_service_sid},
    },
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{
        sending::{NOTIFICATION_PREFIX, PREFIX, Sending},
        verifications::{sid, status},
    },
};
use twilio_edge_store::{IdempotencyClaim, OutboundMessage};

/// Code of Twilio for a resource that does not exist.
const NOT_FOUND: u32 = 20404;

pub(super) fn router(app: &App) -> Router<App> {
    const SERVICE: &str = "/v2/Services/{service_sid}";
    Router::new()
        .route(&format!("{SERVICE}/Verifications"), post(start))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::run_once))
        // The digest of a short code would reveal it, so a check heeds no idempotency key.
        .route(&format!("{SERVICE}/VerificationCheck"), post(check))
        .route(&format!("{SERVICE}/Verifications/{{sid}}"), get(fetch).post(update))
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_application))
        .layer(middleware::from_fn_with_state(app.clone(), translate_credentials))
}

/// Translates Twilio's credentials and idempotency header into those that the layers below expect. The path names no account: it is
/// that of the Verify Service.
async fn translate_credentials(
    State(sending): State<Arc<Sending>>,
    mut request: Request,
    next: Next,
) -> Response {
    let service_sid = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
    let account_sid = sending.verifications.client.account_sid(&service_sid).map(str::to_owned);
    let headers = request.headers_mut();
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = authorization.and_then(|value| {
        // The handler refuses an unknown service, so that only a caller with a key learns that it is unknown.
        let account_sid = account_sid.or_else(|| credentials::user(value));
        credentials::token(value, &account_sid.unwrap_or_default())
    });
    if let Some(token) = token
        && let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    if let Some(key) = headers.remove(TWILIO_KEY) {
        headers.entry(OUR_KEY).or_insert(key);
    }
    next.run(request).await
}

/// Returns the account of a Verify Service, if the caller sees it.
fn account_of(
    sending: &Sending,
    caller: &Caller,
    service_sid: &str,
) -> Result<String, DropInRefusal> {
    let account_sid = sending.verifications.client.account_sid(service_sid);
    match account_sid.filter(|_| is_service_sid(service_sid)) {
        Some(account_sid) if caller.sees(account_sid) => Ok(account_sid.to_owned()),
        Some(_) => Err(Problem::other_account().into()),
        None => Err(not_found(&format!("/Services/{service_sid}"))),
    }
}

fn not_found(path: &str) -> DropInRefusal {
    let message = format!("The requested resource {path} was not found");
    DropInError::new(NOT_FOUND, message).with_status(404).into()
}

/// Starts a verification, and returns Twilio's result if it arrives in time.
async fn start(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    Path(service_sid): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let settle_by = Instant::now() + timeouts.drop_in_wait;
    let account_sid = account_of(&sending, &caller, &service_sid)?;
    let form = StartForm::read(&pairs(&whole(body)?))?;
    let end_user: Option<IpAddr> = form.device_ip.as_deref().and_then(|text| text.parse().ok());
    let request = VerificationRequest {
        account_sid: account_sid.clone(),
        service_sid: Some(service_sid),
        number: form.number,
        channel: form.channel,
        locale: form.locale,
        other_parameters: form.other_parameters,
        metadata: Metadata::default(),
    };
    let is_kept = turn.is_some();
    let answer = |row: &OutboundMessage| {
        Ok(StoredResponse {
            status: StatusCode::CREATED.as_u16(),
            headers: Headers { content_type: Some("application/json".to_owned()), location: None },
            body: rendered(std::slice::from_ref(row)).to_string(),
        })
    };
    let row = accept(&sending, &caller, turn, &request, end_user, answer).await?;
    let wait = settle_by.saturating_duration_since(Instant::now());
    // The verification is accepted in any case, so an error of the lookup is ignored: a client that received one would send a second code.
    let messages = match sending.verification(&account_sid, &row.id, wait).await {
        Ok(messages) if !messages.is_empty() => messages,
        _ => vec![row],
    };
    if status(&messages, now_ms()) == VerificationStatus::Failed
        && let Some(last) = messages.last()
    {
        let error = DropInError::new(
            ends::of_end(&last.code).unwrap_or(ends::UNKNOWN),
            last.reason.clone(),
        );
        // If Twilio refused the verification, the answer has Twilio's own status.
        return Err(match u16::try_from(last.twilio_status) {
            Ok(status @ 400..=499) => error.with_status(status),
            _ => error,
        }
        .into());
    }
    let mut response = with_status(StatusCode::CREATED, &rendered(&messages));
    if is_kept {
        response.extensions_mut().insert(StoredReplay);
    }
    Ok(response)
}

/// Checks a code.
async fn check(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path(service_sid): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let account_sid = account_of(&sending, &caller, &service_sid)?;
    let body = whole(body)?;
    let pairs = pairs(&body);
    let value = |name: &str| {
        let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let messages = match (value("VerificationSid"), value("To")) {
        (Some(sid), _) => own(&sending, &account_sid, sid).await?,
        (None, Some(number)) => latest(&sending, &account_sid, &service_sid, number).await?,
        (None, None) => Vec::new(),
    };
    let path = format!("/v2/Services/{service_sid}/VerificationCheck");
    if messages.is_empty() {
        let request = Forward { method: Method::POST, path: &path, form: Some(body.to_vec()) };
        return forwarded(&sending, &account_sid, request).await?.json();
    }
    let others = pairs.iter().filter(|(name, _)| name != "VerificationSid" && name != "To");
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
    let outcome = sending.check_verification(&messages, &form, now_ms()).await;
    let outcome = outcome.map_err(|reason| Problem::unavailable(&reason))?;
    let status = status_of(outcome, &path)?;
    Ok(with_status(StatusCode::CREATED, &resource::check(&known(&messages, Some(status)))))
}

/// Returns a verification: Twilio's own answer while Twilio has it.
async fn fetch(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path((service_sid, given)): Path<(String, String)>,
) -> Answer {
    let account_sid = account_of(&sending, &caller, &service_sid)?;
    let messages = own(&sending, &account_sid, &given).await?;
    let is_at_twilio =
        sid(&messages).is_some() && status(&messages, now_ms()) == VerificationStatus::Pending;
    if !messages.is_empty() && !is_at_twilio {
        return Ok(with_status(StatusCode::OK, &rendered(&messages)));
    }
    let sid = sid(&messages).unwrap_or(&given);
    let path = format!("/v2/Services/{service_sid}/Verifications/{sid}");
    let request = Forward { method: Method::GET, path: &path, form: None };
    forwarded(&sending, &account_sid, request).await?.json()
}

/// Cancels a verification, or approves it without a code.
async fn update(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Path((service_sid, given)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let account_sid = account_of(&sending, &caller, &service_sid)?;
    let body = whole(body)?;
    let unavailable = |reason| Problem::unavailable(&reason);
    let wanted = pairs(&body).into_iter().find(|(name, _)| name == "Status");
    let wanted = wanted.and_then(|(_, status)| status.parse::<VerificationStatus>().ok());
    let messages = own(&sending, &account_sid, &given).await?;
    let path =
        format!("/v2/Services/{service_sid}/Verifications/{}", sid(&messages).unwrap_or(&given));
    if wanted == Some(VerificationStatus::Canceled) && !messages.is_empty() {
        let outcome = sending.cancel_verification(&messages, &caller, now_ms()).await;
        let status = status_of(outcome.map_err(unavailable)?, &path)?;
        let shown = resource::verification(&known(&messages, Some(status)));
        return Ok(with_status(StatusCode::OK, &shown));
    }
    let request = Forward { method: Method::POST, path: &path, form: Some(body.to_vec()) };
    let answer = forwarded(&sending, &account_sid, request).await?;
    if let (true, Some(last), Some(status)) = (answer.is_success(), messages.last(), wanted) {
        let sid = sid(&messages).unwrap_or_default().to_owned();
        let outcome = CheckOutcome::Status(status, sid);
        sending.apply_check(last, &outcome, now_ms()).await.map_err(unavailable)?;
    }
    answer.json()
}

fn status_of(outcome: CheckOutcome, path: &str) -> Result<VerificationStatus, DropInRefusal> {
    match outcome {
        CheckOutcome::Status(status, _) => Ok(status),
        CheckOutcome::Ended => Err(not_found(path)),
        CheckOutcome::Refused { status, code, reason } => {
            let error = DropInError::new(ends::of_end(&code).unwrap_or(ends::UNKNOWN), reason);
            Err(error.with_status(status).into())
        }
        CheckOutcome::Unavailable(reason) => Err(Problem::verify_unavailable(&reason).into()),
    }
}

async fn forwarded(
    sending: &Sending,
    account_sid: &str,
    request: Forward<'_>,
) -> Result<TwilioAnswer, DropInRefusal> {
    let answer = sending.verifications.client.forward(account_sid, request).await;
    let answer = answer.map_err(|reason| {
        let detail = format!("Twilio does not answer ({reason}); call Twilio directly");
        Problem::with(RefusalCode::Unavailable, detail)
    })?;
    Ok(TwilioAnswer::from(answer))
}

/// Returns the messages of a verification that was started here, by Twilio's SID or by the one that is derived from our id.
async fn own(
    sending: &Sending,
    account_sid: &str,
    given: &str,
) -> Result<Vec<OutboundMessage>, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    if given.contains('\0') {
        return Ok(Vec::new());
    }
    let found = sending.messages.by_sids(&[given]).await.map_err(unavailable)?;
    let is_own = |message: &OutboundMessage| {
        message.account_sid == account_sid && message.provider() == Provider::Verify
    };
    // A code that was sent again has the same SID; the last request is the one that counts.
    let found = found.into_iter().filter(is_own).max_by_key(|message| message.created_at_ms);
    let first_id = match &found {
        Some(message) => first_id(message),
        None => resource::id_of_sid(given).unwrap_or_default(),
    };
    let wait = std::time::Duration::ZERO;
    sending.verification(account_sid, &first_id, wait).await.map_err(unavailable)
}

/// Returns the messages of the latest verification of a number that was started here.
async fn latest(
    sending: &Sending,
    account_sid: &str,
    service_sid: &str,
    number: &str,
) -> Result<Vec<OutboundMessage>, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    if number.contains('\0') {
        return Ok(Vec::new());
    }
    let found = sending.messages.latest_verification(account_sid, service_sid, number).await;
    let Some(found) = found.map_err(unavailable)? else { return Ok(Vec::new()) };
    let wait = std::time::Duration::ZERO;
    sending.verification(account_sid, &first_id(&found), wait).await.map_err(unavailable)
}

/// Returns the id of the first message of a verification.
fn first_id(message: &OutboundMessage) -> String {
    let id = &message.notification_id;
    format!("{PREFIX}{}", id.strip_prefix(NOTIFICATION_PREFIX).unwrap_or(id))
}

fn rendered(messages: &[OutboundMessage]) -> Value {
    resource::verification(&known(messages, None))
}

/// Returns the properties of a verification, with this status or its own.
fn known(
    messages: &[OutboundMessage],
    given: Option<VerificationStatus>,
) -> resource::StoredVerification<'_> {
    let text = |of: fn(&OutboundMessage) -> &str| messages.first().map(of).unwrap_or_default();
    let last = messages.last();
    resource::StoredVerification {
        id: text(|first| &first.id),
        sid: sid(messages),
        account_sid: text(|first| &first.account_sid),
        service_sid: text(|first| &first.sender),
        to: text(|first| &first.contact),
        channel: last.map(|last| last.channel.as_str()).unwrap_or_default(),
        status: given.unwrap_or_else(|| status(messages, now_ms())),
        attempts: messages
            .iter()
            .filter(|message| message.attempted_at_ms > 0)
            .map(|message| (message.attempted_at_ms, message.channel.as_str()))
            .collect(),
        created_ms: messages.first().map_or(0, |first| first.created_at_ms),
        updated_ms: last.map_or(0, |last| last.changed_at_ms.max(last.status_at_ms)),
    }
}
