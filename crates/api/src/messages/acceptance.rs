//! Acceptance of a message, from either API: the rules and the fallbacks decide, and an accepted message is stored together with
//! the answer for copies of its request.

use std::slice;

use axum::Extension;

use crate::{addresses, idempotency::as_of_ms, problem::Problem};
use twilio_edge_domain::{
    idempotency::StoredResponse,
    refusal::RefusalCode,
    sending::{fallback::FallbackPlan, options::validity_ms, request::Request, rules::Verdict},
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{declined::Decline, fallback::Alternative, sending::Sending},
};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, OutboundMessage};

/// A message to accept, from either API.
pub(crate) struct NewMessage {
    pub(crate) request: Request,
    /// Earliest time of sending, in milliseconds since 1970.
    pub(crate) send_at_ms: Option<i64>,
    /// Twilio parameters, as a form, that no rule reads and that are passed to Twilio.
    pub(crate) other_parameters: String,
    /// True if the sidecar may send the message again after a failed delivery. An application that speaks Twilio's API
    /// expects to do that itself.
    pub(crate) is_repeatable: bool,
}

/// Accepts a message, or returns the rule that refuses it. Every endpoint that accepts messages calls this function.
/// `answer` renders the answer for copies of the request; a handler with a turn marks its response as
/// [`crate::idempotency::StoredReplay`].
pub(crate) async fn accept(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    message: NewMessage,
    answer: impl FnOnce(&OutboundMessage) -> StoredResponse,
) -> Result<OutboundMessage, Problem> {
    let copies = turn.as_ref().map(|Extension(turn)| turn.digest(0));
    let message = prepare(sending, caller, message, as_of_ms(turn.clone()), copies).await?;
    let done = turn.map(|Extension(turn)| CompletedRequest { turn, answer: answer(&message) });
    let added = sending.add_all(caller, slice::from_ref(&message), done.as_ref()).await;
    added.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(message)
}

/// Evaluates the rules for a message, and builds its row. Only a message that a rule declines is stored, for the notification log;
/// `copies` is a digest that copies of the request share.
pub(super) async fn prepare(
    sending: &Sending,
    caller: &Caller,
    message: NewMessage,
    now_ms: i64,
    copies: Option<String>,
) -> Result<OutboundMessage, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let NewMessage { request, send_at_ms, other_parameters, is_repeatable } = message;
    let Evaluation { request, verdicts, alternatives } = evaluate(sending, request).await?;
    if let Some((code, verdict)) = refusing(&verdicts, &alternatives) {
        let decline = Decline { code, reason: &verdict.detail, copies: copies.as_deref() };
        sending.decline(&request, &caller.actor, decline, now_ms).await;
        return Err(Problem::with(code, verdict.detail.clone()).offering(verdict.templates.clone()));
    }
    let mut message =
        sending.row(&request, &caller.actor, send_at_ms, now_ms).map_err(unavailable)?;
    if !other_parameters.is_empty() {
        message.form = format!("{}&{other_parameters}", message.form);
    }
    if let Some(period_ms) = validity_ms(&message.form) {
        // Quiet hours do not prolong the period.
        let wanted_ms = send_at_ms.unwrap_or(now_ms).max(now_ms);
        message.valid_until_ms = wanted_ms.saturating_add(period_ms);
    }
    if is_repeatable {
        sending.permit_repetitions(&mut message);
    }
    Ok(message)
}

/// A message with its verdicts and its fallbacks.
pub(super) struct Evaluation {
    request: Request,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) alternatives: Vec<Alternative>,
}

impl Evaluation {
    /// Returns whether the message would be accepted.
    pub(super) fn is_allowed(&self) -> bool {
        refusing(&self.verdicts, &self.alternatives).is_none()
    }
}

/// Completes a request, and evaluates the rules for it and for its fallbacks.
pub(super) async fn evaluate(sending: &Sending, request: Request) -> Result<Evaluation, Problem> {
    let unavailable = |reason| Problem::unavailable(&reason);
    let is_theirs = request.fallback.is_some();
    let request = sending.complete(request);
    let plan = FallbackPlan::of(&request).filter(|_| is_theirs);
    if let Some((field, problem)) = plan.and_then(|plan| plan.missing_field()) {
        return Err(addresses::invalid_field(field, problem));
    }
    let now_ms = twilio_edge_platform::clock::now_ms();
    let verdicts = sending.evaluate(&request, now_ms).await.map_err(unavailable)?;
    let alternatives = sending.alternatives(&request, now_ms).await.map_err(unavailable)?;
    // A fallback of the caller must be valid, except for rules that depend on the contact.
    for way in alternatives.iter().filter(|_| is_theirs) {
        let wrong =
            way.verdicts.iter().find(|verdict| !verdict.ok && !verdict.rule.is_about_recipient());
        if let Some((code, verdict)) = wrong.and_then(|verdict| Some((verdict.code?, verdict))) {
            return Err(Problem::with(
                code,
                format!("fallback, {}: {}", way.to.as_str(), verdict.detail),
            ));
        }
    }
    Ok(Evaluation { request, verdicts, alternatives })
}

/// Returns the first verdict that refuses the message. A closed window does not refuse it if a fallback is allowed.
fn refusing<'v>(
    verdicts: &'v [Verdict],
    alternatives: &[Alternative],
) -> Option<(RefusalCode, &'v Verdict)> {
    let has_other = alternatives.iter().any(Alternative::is_allowed);
    let counts = |code: &RefusalCode| !(has_other && *code == RefusalCode::WindowClosed);
    verdicts.iter().find_map(|verdict| Some((verdict.code.filter(counts)?, verdict)))
}
