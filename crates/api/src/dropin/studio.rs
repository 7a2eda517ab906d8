//! Drop-in replacement of Twilio Studio for `client.studio.v2`: executions of flows. An execution is accepted as by
//! `POST /v1/flows/{flow_sid}/executions`. Everything that Twilio has is read from Twilio.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use serde_json::Value;

use super::{
    forwarding::{Answer, TwilioAnswer},
    refusals::DropInRefusal,
    request::{OUR_KEY, TWILIO_KEY, category, pairs, with_status},
};
use crate::{
    access,
    app::{App, Timeouts},
    body::whole,
    flows::accept,
    idempotency::{self, StoredReplay},
    problem::Problem,
    query,
};
use twilio_edge_connectors::twilio::Forward;
use twilio_edge_domain::{
    address::Address,
    check::Kind,
    dropin::{
        DropInError, codes as ends, credentials,
        execution::{self as resource, ExecutionForm, StoredExecution},
    },
    idempotency::{Headers, StoredResponse},
    refusal::RefusalCode,
    sending::{
        flow::{FlowRequest, is_execution_sid, is_flow_sid},
        options::Metadata,
        provider::Provider,
    },
    tenant::is_account_sid,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{self, Sending},
};
use twilio_edge_store::{IdempotencyClaim, OutboundMessage};

/// Code of Twilio for a resource that does not exist.
const NOT_FOUND: u32 = 20404;

/// Parts of an execution that are read from Twilio.
const PARTS: [&str; 2] = ["Context", "Steps"];

/// Header with the kind of the flow's first message, which Twilio's API does not have.
const FIRST_MESSAGE: &str = "twilio-edge-first-message";

/// Account that a request names by its user.
#[derive(Debug, Clone)]
struct NamedAccount(Option<String>);

pub(super) fn router(app: &App) -> Router<App> {
    const EXECUTIONS: &str = "/v2/Flows/{flow_sid}/Executions";
    Router::new()
        .route(EXECUTIONS, get(list).post(start))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::run_once))
        .route(&format!("{EXECUTIONS}/{{sid}}"), get(fetch).post(update).delete(remove))
        .route(&format!("{EXECUTIONS}/{{sid}}/{{part}}"), get(part))
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_application))
        .layer(middleware::from_fn(translate_credentials))
}

/// Translates Twilio's credentials and idempotency header into those that the layers below expect. The path names no account: it is
/// the user, or that of the key.
async fn translate_credentials(mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let account_sid = authorization.and_then(credentials::user).filter(|user| is_account_sid(user));
    let token = authorization
        .and_then(|value| credentials::token(value, account_sid.as_deref().unwrap_or_default()));
    if let Some(token) = token
        && let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    if let Some(key) = headers.remove(TWILIO_KEY) {
        headers.entry(OUR_KEY).or_insert(key);
    }
    request.extensions_mut().insert(NamedAccount(account_sid));
    next.run(request).await
}

/// Returns the account of a request about a flow.
fn account_of(
    caller: &Caller,
    NamedAccount(account_sid): NamedAccount,
    flow_sid: &str,
) -> Result<String, DropInRefusal> {
    if !is_flow_sid(flow_sid) {
        return Err(not_found(&format!("/Flows/{flow_sid}")));
    }
    Ok(query::account(caller, account_sid)?)
}

fn not_found(path: &str) -> DropInRefusal {
    let message = format!("The requested resource {path} was not found");
    DropInError::new(NOT_FOUND, message).with_status(404).into()
}

/// Starts an execution, and returns Twilio's result if it arrives in time.
#[expect(clippy::too_many_arguments, reason = "each extractor is one argument")]
async fn start(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    turn: Option<Extension<IdempotencyClaim>>,
    Path(flow_sid): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let settle_by = Instant::now() + timeouts.drop_in_wait;
    let account_sid = account_of(&caller, named, &flow_sid)?;
    let form = ExecutionForm::read(&pairs(&whole(body)?))?;
    let request = FlowRequest {
        account_sid: account_sid.clone(),
        flow_sid,
        to: form.to,
        sender: form.sender,
        parameters: form.parameters,
        first_message: first_message(&headers)?,
        category: category(&headers)?,
        metadata: Metadata::default(),
    };
    let is_kept = turn.is_some();
    let answer = |row: &OutboundMessage| StoredResponse {
        status: StatusCode::CREATED.as_u16(),
        headers: Headers { content_type: Some("application/json".to_owned()), location: None },
        body: rendered(row).to_string(),
    };
    let row = accept(&sending, &caller, turn, request, answer).await?;
    let wait = settle_by.saturating_duration_since(Instant::now());
    let found = sending.outcome_waiters.wait(&sending.messages, &account_sid, &row.id, wait);
    // The execution is accepted in any case, so an error of the lookup is ignored: a client that received one would start a second one.
    let row = match tokio::time::timeout(wait + Duration::from_millis(200), found).await {
        Ok(Ok(Some(found))) => found,
        _ => row,
    };
    if matches!(row.state.as_str(), "refused" | "not_sent") {
        let code = ends::of_end(&row.code).unwrap_or(ends::UNKNOWN);
        let error = DropInError::new(code, row.reason.clone());
        // If Twilio refused the execution, the answer has Twilio's own status.
        return Err(match u16::try_from(row.twilio_status) {
            Ok(status @ 400..=499) => error.with_status(status),
            _ => error,
        }
        .into());
    }
    let mut response = with_status(StatusCode::CREATED, &rendered(&row));
    if is_kept {
        response.extensions_mut().insert(StoredReplay);
    }
    Ok(response)
}

/// Lists the executions that Twilio has.
async fn list(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    Path(flow_sid): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let account_sid = account_of(&caller, named, &flow_sid)?;
    let path = format!("/v2/Flows/{flow_sid}/Executions?{}", query.unwrap_or_default());
    forwarded(&sending, &account_sid, Method::GET, &path, None).await
}

/// Returns an execution: our own record until Twilio has it, then Twilio's answer.
async fn fetch(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    Path((flow_sid, sid)): Path<(String, String)>,
) -> Answer {
    let account_sid = account_of(&caller, named, &flow_sid)?;
    match locate(&sending, &account_sid, &flow_sid, &sid).await? {
        Location::Here(row) => Ok(with_status(StatusCode::OK, &rendered(&row))),
        Location::Twilio(path) => forwarded(&sending, &account_sid, Method::GET, &path, None).await,
    }
}

/// Ends an execution (`Status=ended`). One that waits here is canceled.
async fn update(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    Path((flow_sid, sid)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let account_sid = account_of(&caller, named, &flow_sid)?;
    let body = whole(body)?;
    let path = match locate(&sending, &account_sid, &flow_sid, &sid).await? {
        Location::Twilio(path) => path,
        Location::Here(row) => {
            let is_end = pairs(&body) == [("Status".to_owned(), "ended".to_owned())];
            let unavailable = |reason| Problem::unavailable(&reason);
            let canceled = match is_end {
                true => sending::cancel(&sending.messages, &caller, &row, now_ms()).await,
                false => Ok(false),
            };
            if !canceled.map_err(unavailable)? {
                return Err(Problem::of(RefusalCode::NotCancelable).into());
            }
            sending.outcome_waiters.notify(&row.id);
            let state = "canceled".to_owned();
            let row = OutboundMessage { state, changed_at_ms: now_ms(), ..*row };
            return Ok(with_status(StatusCode::OK, &rendered(&row)));
        }
    };
    forwarded(&sending, &account_sid, Method::POST, &path, Some(body.to_vec())).await
}

/// Deletes an execution at Twilio.
async fn remove(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    Path((flow_sid, sid)): Path<(String, String)>,
) -> Answer {
    let account_sid = account_of(&caller, named, &flow_sid)?;
    match locate(&sending, &account_sid, &flow_sid, &sid).await? {
        Location::Here(_) => Err(Problem::of(RefusalCode::NotCancelable).into()),
        Location::Twilio(path) => {
            forwarded(&sending, &account_sid, Method::DELETE, &path, None).await
        }
    }
}

/// Returns the context or the steps of an execution.
async fn part(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    Extension(named): Extension<NamedAccount>,
    Path((flow_sid, sid, part)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let account_sid = account_of(&caller, named, &flow_sid)?;
    let shown = format!("/v2/Flows/{flow_sid}/Executions/{sid}/{part}");
    if !PARTS.contains(&part.as_str()) {
        return Err(not_found(&shown));
    }
    match locate(&sending, &account_sid, &flow_sid, &sid).await? {
        Location::Here(_) => Err(not_found(&shown)),
        Location::Twilio(path) => {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let path = format!("{path}/{part}{query}");
            forwarded(&sending, &account_sid, Method::GET, &path, None).await
        }
    }
}

/// Place of an execution.
enum Location {
    /// Only we have it.
    Here(Box<OutboundMessage>),
    /// Path at Twilio.
    Twilio(String),
}

/// Finds an execution by Twilio's SID, or by the one that is derived from our id.
async fn locate(
    sending: &Sending,
    account_sid: &str,
    flow_sid: &str,
    sid: &str,
) -> Result<Location, DropInRefusal> {
    let path = |sid: &str| format!("/v2/Flows/{flow_sid}/Executions/{sid}");
    if !is_execution_sid(sid) {
        return Err(not_found(&path(sid)));
    }
    let id = resource::id_of_sid(sid).unwrap_or_default();
    let found = sending.messages.fetch(&id, Some(account_sid)).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let own = found.filter(|row| row.provider() == Provider::Studio && row.sender == flow_sid);
    Ok(match own {
        Some(row) if row.message_sid.is_empty() => Location::Here(Box::new(row)),
        Some(row) => Location::Twilio(path(&row.message_sid)),
        None => Location::Twilio(path(sid)),
    })
}

async fn forwarded(
    sending: &Sending,
    account_sid: &str,
    method: Method,
    path: &str,
    form: Option<Vec<u8>>,
) -> Answer {
    if !sending.twilio.has_credentials(account_sid) {
        return Err(Problem::of(RefusalCode::NoCredentials).into());
    }
    let answer = sending.studio.forward(account_sid, Forward { method, path, form }).await;
    let answer = answer.map_err(|reason| {
        let detail = format!("Twilio does not answer ({reason}); call Twilio directly");
        Problem::with(RefusalCode::Unavailable, detail)
    })?;
    TwilioAnswer::from(answer).json()
}

fn first_message(headers: &HeaderMap) -> Result<Kind, Problem> {
    match headers.get(FIRST_MESSAGE).map(HeaderValue::as_bytes) {
        None | Some(b"session") => Ok(Kind::Session),
        Some(b"template") => Ok(Kind::Template),
        Some(_) => {
            Err(Problem::malformed(&format!("{FIRST_MESSAGE}: must be session or template")))
        }
    }
}

fn rendered(row: &OutboundMessage) -> Value {
    let to = match row.contact.as_str() {
        "" => String::new(),
        number => Address { channel: row.channel.clone(), number: number.to_owned() }.written(),
    };
    resource::execution(&StoredExecution {
        id: &row.id,
        sid: &row.message_sid,
        account_sid: &row.account_sid,
        flow_sid: &row.sender,
        to: &to,
        has_ended: matches!(row.state.as_str(), "refused" | "not_sent" | "canceled"),
        created_ms: row.created_at_ms,
        updated_ms: row.changed_at_ms,
    })
}
