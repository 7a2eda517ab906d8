//! `POST /v1/notifications`: notifies a contact by a plan, or with `dry_run` returns the verdicts of all rules for each step.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    body::Bytes,
    extract::{Request, State, rejection::BytesRejection},
    middleware::Next,
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::create_request::CreateNotificationRequest;
use crate::{
    app::{App, Timeouts},
    body::{json, object},
    idempotency::{IdempotencyKeyHeader, accepted, accepted_for_copies, as_of_ms},
    messages::outcome::{Accepted, WaitQuery, after_wait},
    problem::Problem,
    views::NotificationView,
};
use twilio_edge_domain::{
    refusal::RefusalCode,
    sending::{plan::PlanChannel, rules::Verdict},
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{
        plans::{NewNotification, PlanDecision, StepVerdicts},
        sending::Sending,
    },
};
use twilio_edge_store::{
    CompletedRequest, IdempotencyClaim, OutboundMessage,
    message_history::{MessageHistory, notifications::Notification},
};

/// Result of a dry run.
#[derive(Serialize, ToSchema)]
struct NotificationDryRun {
    /// True if the rules permit one of the steps.
    allowed: bool,
    /// Steps in their order.
    steps: Vec<StepVerdict>,
}

/// One step with its verdicts.
#[derive(Serialize, ToSchema)]
struct StepVerdict {
    channel: PlanChannel,
    /// True if no rule refuses the step.
    allowed: bool,
    /// Verdicts of all rules.
    verdicts: Vec<Verdict>,
}

/// Result of a dry run, or a notification with its outcome.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered; each of the two is written by itself")]
enum CreateNotificationResponse {
    DryRun(NotificationDryRun),
    Notification(Box<NotificationView>),
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(notify))
}

/// Notifies a contact: sends the first step of the plan that the rules permit. If a step fails, or is not delivered in its time, the
/// next one follows. The answer comes as soon as the notification is durably stored. With `wait_ms`, the answer comes once the
/// provider has decided about the current step. docs/NOTIFICATIONS.md describes plans.
#[utoipa::path(
    post,
    path = "/v1/notifications",
    tag = "notifications",
    params(IdempotencyKeyHeader, WaitQuery),
    operation_id = "create_notification",
    request_body = CreateNotificationRequest,
    responses(
        (status = 200, description = "With `dry_run`: the verdict of each rule for each step; nothing is sent. With `wait_ms`: the notification with the outcome of its current step", body = CreateNotificationResponse),
        (status = 202, description = "The notification is accepted, and its current step has no outcome yet", body = NotificationView, headers(("location" = String, description = "Path of the notification, which shows its attempts"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn notify(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: CreateNotificationRequest = object(body)?;
    let dry_run = body.dry_run;
    let new = body.into_notification(&sending, &caller, turn.clone())?;
    if dry_run {
        return evaluate(&sending, &new, as_of_ms(turn)).await;
    }
    let is_kept = turn.is_some();
    let view = accept(&sending, &caller, turn, &new).await?;
    let location = view.links.this.clone();
    Ok(accepted(&view, location, is_kept))
}

async fn evaluate(
    sending: &Sending,
    new: &NewNotification,
    now_ms: i64,
) -> Result<Response, Problem> {
    let steps = sending.evaluate_plan(new, now_ms).await;
    let steps = steps.map_err(|reason| Problem::unavailable(&reason))?;
    let verdict = |step: StepVerdicts| {
        let StepVerdicts { channel, verdicts } = step;
        StepVerdict { channel, allowed: verdicts.iter().all(|verdict| verdict.ok), verdicts }
    };
    let steps: Vec<StepVerdict> = steps.into_iter().map(verdict).collect();
    Ok(json(&NotificationDryRun { allowed: steps.iter().any(|step| step.allowed), steps }))
}

/// Accepts a notification, or returns the rule that declined its last step.
async fn accept(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    new: &NewNotification,
) -> Result<NotificationView, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let now_ms = as_of_ms(turn.clone());
    let turn = turn.map(|Extension(turn)| turn);
    let decision = sending.begin_plan(new, &caller.actor, now_ms).await.map_err(unavailable)?;
    let rows = match decision {
        PlanDecision::Accepted(rows) => rows,
        PlanDecision::Declined { rows, code, reason } => {
            sending.decline_notification(rows, turn.as_ref(), now_ms).await;
            return Err(Problem::with(code, reason));
        }
    };
    let view = view(sending, rows.clone())?;
    let done = turn.map(|turn| {
        let answer = accepted_for_copies(&view, &view.links.this);
        CompletedRequest { turn, answer }
    });
    sending.add_notification(caller, &rows, done.as_ref()).await.map_err(unavailable)?;
    Ok(view)
}

fn view(sending: &Sending, rows: Vec<OutboundMessage>) -> Result<NotificationView, Problem> {
    let notification = Notification::of(rows);
    let notification =
        notification.ok_or_else(|| Problem::internal("a notification has no message"))?;
    Ok(NotificationView::of(&notification, &sending.errors))
}

/// Waits until the current step of an accepted notification has an outcome, and replaces the answer with the notification as it is
/// then.
pub(crate) async fn waited(
    State(sending): State<Arc<Sending>>,
    State(histories): State<MessageHistory>,
    State(timeouts): State<Timeouts>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    after_wait(timeouts, request, next, async move |accepted: Accepted, wait| {
        let Accepted { id, account_sid } = accepted;
        let deadline = Instant::now() + wait;
        let mut waited_for = String::new();
        loop {
            let found = histories.notification(&account_sid, &id).await;
            let found = found.map_err(|reason| Problem::unavailable(&reason))?;
            let found = found.ok_or_else(|| Problem::of(RefusalCode::NoSuchNotification))?;
            let last = found.last();
            let has_outcome =
                matches!(last.state.as_str(), "sent" | "refused" | "not_sent" | "canceled");
            let rest = deadline.saturating_duration_since(Instant::now());
            if has_outcome || (rest.is_zero() && waited_for == last.id) {
                return Ok((json(&NotificationView::of(&found, &sending.errors)), has_outcome));
            }
            waited_for.clone_from(&last.id);
            let wait = rest.max(Duration::from_millis(1));
            let ended =
                sending.outcome_waiters.wait(&sending.messages, &account_sid, &last.id, wait);
            ended.await.map_err(|reason| Problem::unavailable(&reason))?;
        }
    })
    .await
}
