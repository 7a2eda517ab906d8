//! `POST /v1/flows/{flow_sid}/executions`: starts an execution of a Studio flow. `GET /v1/flows/{flow_sid}/executions/{id}`: one execution.

use std::{slice, sync::Arc, time::Duration};

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
    messages::outcome::{Accepted, WaitQuery, after_wait},
    problem::Problem,
    query::{self, AccountQuery},
};
use crate::{
    app::{App, Timeouts},
    body::{json, object},
    idempotency::{IdempotencyKeyHeader, accepted, accepted_for_copies, as_of_ms},
    views::FlowExecution,
};
use twilio_edge_domain::{
    check::Kind,
    idempotency::StoredResponse,
    policy::Category,
    refusal::RefusalCode,
    sending::{
        flow::{FlowRequest, Parameters, is_flow_sid, parameters_problem},
        options::{MessageOptions, Metadata},
        provider::Provider,
        sender::sender,
    },
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{
        declined::Decline,
        flows::EXECUTION_PREFIX,
        sending::{PREFIX, Sending},
    },
};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, OutboundMessage};

/// Request to start an execution of a flow.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateExecutionRequest {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[schema(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Contact: a number such as `+15551234567`, or an address such as `whatsapp:+15551234567`.
    #[schema(min_length = 1, max_length = 255)]
    to: String,
    /// Channel of a number without a prefix. Defaults to `sms`.
    #[schema(pattern = "^[a-z_]{1,32}$")]
    channel: Option<String>,
    /// Country of a number that has no country code: two letters, such as `DE`.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Sender of the flow's messages: a number, an address on the channel of `to`, or a Messaging Service. Defaults to the sender of
    /// the routes.
    #[schema(min_length = 1, max_length = 255)]
    from: Option<String>,
    /// Parameters of the flow, which it reads as `flow.data`: at most 16 KiB of JSON.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    parameters: Parameters,
    /// Kind of the flow's first message: `session` (a text, which needs an open conversation window on WhatsApp) or `template`.
    #[serde(default = "session")]
    #[schema(inline)]
    first_message: Kind,
    /// Purpose of the flow's messages. Defaults to `service` for `session`, and to `marketing` for `template`.
    #[schema(inline)]
    category: Option<Category>,
    /// Data of the caller, which is returned unchanged.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    metadata: Metadata,
}

fn session() -> Kind {
    Kind::Session
}

pub(super) fn starting_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start))
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch))
}

/// Starts an execution of a Studio flow once. The answer comes as soon as the execution is durably stored. With `wait_ms`, the answer
/// comes once Twilio has decided. docs/STUDIO.md lists the rules.
#[utoipa::path(
    post,
    path = "/v1/flows/{flow_sid}/executions",
    tag = "flows",
    params(("flow_sid" = String, Path, description = "SID of the flow", pattern = "^FW[0-9a-fA-F]{32}$"), IdempotencyKeyHeader, WaitQuery),
    operation_id = "start_flow",
    request_body = CreateExecutionRequest,
    responses(
        (status = 200, description = "With `wait_ms`: the execution with the outcome of its start", body = FlowExecution),
        (status = 202, description = "The execution is accepted and has no outcome yet", body = FlowExecution, headers(("location" = String, description = "Path of the execution, which shows its state"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn start(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    flow_sid: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let flow_sid = flow_of_path(flow_sid.ok().map(|Path(flow_sid)| flow_sid))?;
    let body: CreateExecutionRequest = object(body)?;
    let request = body.into_request(&sending, &caller, flow_sid).await?;
    let is_kept = turn.is_some();
    let answer = |row: &OutboundMessage| {
        let view = FlowExecution::of(row, None, &sending.errors);
        accepted_for_copies(&view, &view.links.this)
    };
    let row = accept(&sending, &caller, turn, request, answer).await?;
    let view = FlowExecution::of(&row, None, &sending.errors);
    let location = view.links.this.clone();
    Ok(accepted(&view, location, is_kept))
}

/// Accepts an execution, or returns the rule that declines it. Both APIs call this function. `answer` renders the answer for copies of
/// the request.
pub(super) async fn accept(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    request: FlowRequest,
    answer: impl FnOnce(&OutboundMessage) -> StoredResponse,
) -> Result<OutboundMessage, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let now_ms = as_of_ms(turn.clone());
    let request = sending.complete_flow(request);
    let verdicts = sending.evaluate_flow(&request, now_ms).await.map_err(unavailable)?;
    let row = sending.flow_row(&request, &caller.actor, now_ms).map_err(unavailable)?;
    let refusal = verdicts.into_iter().find_map(|verdict| Some((verdict.code?, verdict.detail)));
    if let Some((code, reason)) = refusal {
        let copies = turn.as_ref().map(|Extension(turn)| turn.digest(0));
        let decline = Decline { code, reason: &reason, copies: copies.as_deref() };
        sending.record_declined(row, decline, now_ms).await;
        return Err(Problem::with(code, reason));
    }
    let done = turn.map(|Extension(turn)| CompletedRequest { turn, answer: answer(&row) });
    sending.add_all(caller, slice::from_ref(&row), done.as_ref()).await.map_err(unavailable)?;
    Ok(row)
}

/// Returns an execution, with its status at Twilio.
#[utoipa::path(
    get,
    path = "/v1/flows/{flow_sid}/executions/{id}",
    tag = "flows",
    params(
        ("flow_sid" = String, Path, description = "SID of the flow", pattern = "^FW[0-9a-fA-F]{32}$"),
        ("id" = String, Path, description = "Id of the execution, `fx_..`"),
        AccountQuery,
    ),
    operation_id = "fetch_flow_execution",
    responses((status = 200, description = "The execution", body = FlowExecution), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let Path((flow_sid, id)) = path.map_err(|_| Problem::of(RefusalCode::NoSuchExecution))?;
    let row = row_of(&sending, &account_sid, &id, Duration::ZERO).await?;
    match row.sender == flow_sid {
        true => Ok(json(&current(&sending, &row).await)),
        false => Err(Problem::of(RefusalCode::NoSuchExecution)),
    }
}

/// Returns the view of an execution, with its status at Twilio, if Twilio answers.
async fn current(sending: &Sending, row: &OutboundMessage) -> FlowExecution {
    let status = match row.message_sid.as_str() {
        "" => None,
        sid => {
            let fetched = sending.studio.fetch(&row.account_sid, &row.sender, sid).await;
            fetched.ok().flatten().and_then(|execution| execution.status)
        }
    };
    FlowExecution::of(row, status, &sending.errors)
}

/// Returns the row of an execution: once it has an outcome, or after `wait`.
async fn row_of(
    sending: &Sending,
    account_sid: &str,
    id: &str,
    wait: Duration,
) -> Result<OutboundMessage, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchExecution);
    let digits = id.strip_prefix(EXECUTION_PREFIX).filter(|digits| !digits.contains('\0'));
    let id = format!("{PREFIX}{}", digits.ok_or_else(not_found)?);
    let found = sending.outcome_waiters.wait(&sending.messages, account_sid, &id, wait).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    found.filter(|row| row.provider() == Provider::Studio).ok_or_else(not_found)
}

/// Waits until Twilio has decided about an accepted execution, and replaces the answer with the execution as it is then.
pub(super) async fn waited(
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    after_wait(timeouts, request, next, async move |accepted: Accepted, wait| {
        let Accepted { id, account_sid } = accepted;
        let row = row_of(&sending, &account_sid, &id, wait).await?;
        let has_outcome =
            matches!(row.state.as_str(), "sent" | "refused" | "not_sent" | "canceled");
        Ok((json(&FlowExecution::of(&row, None, &sending.errors)), has_outcome))
    })
    .await
}

/// Validates the flow of a path.
pub(super) fn flow_of_path(flow_sid: Option<String>) -> Result<String, Problem> {
    let problem = || Problem::malformed("flow_sid: must be FW and 32 hexadecimal digits");
    flow_sid.filter(|sid| is_flow_sid(sid)).ok_or_else(problem)
}

impl CreateExecutionRequest {
    async fn into_request(
        self,
        sending: &Sending,
        caller: &Caller,
        flow_sid: String,
    ) -> Result<FlowRequest, Problem> {
        let account_sid = query::account(caller, self.account_sid)?;
        let region = addresses::region(self.region)?;
        let channel = self.channel.as_deref();
        let to =
            addresses::recipient(&sending.checks, &account_sid, "to", &self.to, channel, region)
                .await
                .map_err(Problem::about_recipient)?;
        let from = self.from.map(|from| sender(&from, Some(&to.channel))).transpose();
        let from = from.map_err(|problem| addresses::invalid_field("from", &problem))?;
        if let Some(problem) = parameters_problem(&self.parameters) {
            return Err(addresses::invalid_field("parameters", &problem));
        }
        let options = MessageOptions { metadata: self.metadata, ..MessageOptions::default() };
        if let Some((field, problem)) = options.problem() {
            return Err(addresses::invalid_field(field, &problem));
        }
        Ok(FlowRequest {
            account_sid,
            flow_sid,
            to,
            sender: from,
            parameters: self.parameters,
            first_message: self.first_message,
            category: self.category,
            metadata: options.metadata,
        })
    }
}
