//! Notification plans: the steps of a notification, each a message on one channel. A step that a rule declines is stored as refused,
//! and the next step follows at once; a step that fails or is not answered in time moves on later, in the transaction that ends
//! it. The domain decides which failures move on; the store ensures that a step is stored once.

use twilio_edge_domain::{
    refusal::RefusalCode,
    sending::{
        errors::FallbackTarget,
        options::Metadata,
        plan::{NO_ANSWER, NotificationPlan, PlanChannel, Step, StepContent},
        rules::Verdict,
        statistics::MessageEvent,
    },
};
use twilio_edge_store::{CompletedRequest, IdempotencyClaim, OutboundMessage, StoreError};

use crate::{
    access::api_keys::Caller,
    outbound::{
        declined::DECLINED,
        fallback::Fallback,
        sending::{NOTIFICATION_PREFIX, PREFIX, Sending, masked, refuse},
    },
};

/// Steps that move on in one round.
const STEPS_PER_ROUND: i64 = 64;

/// Notification to accept.
#[derive(Debug, Clone)]
pub struct NewNotification {
    /// Account of the notification.
    pub account_sid: String,
    /// Name of the plan in the routes; empty if the request states its steps.
    pub plan_name: String,
    /// Steps with their contents.
    pub plan: NotificationPlan,
    /// Data of the caller.
    pub metadata: Metadata,
    /// Earliest time of sending, in milliseconds since 1970.
    pub send_at_ms: Option<i64>,
}

/// Decision about a new notification: the messages of its steps so far.
#[derive(Debug, Clone)]
pub enum PlanDecision {
    /// Every step but the last one was declined by a rule; the last one is queued.
    Accepted(Vec<OutboundMessage>),
    /// Rules declined every step up to the last one, or up to one that does not move on.
    Declined {
        /// The declined steps.
        rows: Vec<OutboundMessage>,
        /// Code of the last rule.
        code: RefusalCode,
        /// The reason in words.
        reason: String,
    },
}

/// Verdicts of one step.
#[derive(Debug, Clone)]
pub struct StepVerdicts {
    /// Channel of the step.
    pub channel: PlanChannel,
    /// Verdicts of the rules.
    pub verdicts: Vec<Verdict>,
}

/// Values that all messages of a notification share.
struct Origin<'a> {
    account_sid: &'a str,
    created_by: &'a str,
    plan_name: &'a str,
    metadata: &'a str,
    send_at_ms: Option<i64>,
    /// Message that the first new one replaces.
    replaced: Option<&'a OutboundMessage>,
    now_ms: i64,
}

/// Message of a step, and the refusal of the rule that declined it.
struct PlannedMessage {
    target: FallbackTarget,
    row: OutboundMessage,
    refusal: Option<(RefusalCode, String)>,
}

impl Sending {
    /// Evaluates the rules for the steps of a notification until one is permitted. Nothing is stored.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn begin_plan(
        &self,
        new: &NewNotification,
        created_by: &str,
        now_ms: i64,
    ) -> Result<PlanDecision, StoreError> {
        let metadata = new.metadata.to_json();
        let origin = Origin {
            account_sid: &new.account_sid,
            created_by,
            plan_name: &new.plan_name,
            metadata: &metadata,
            send_at_ms: new.send_at_ms,
            replaced: None,
            now_ms,
        };
        let planned = self.plan_messages(new.plan.clone(), None, &origin).await?;
        let refusal = planned.last().and_then(|last| last.refusal.clone());
        let rows = planned.into_iter().map(|planned| planned.row).collect();
        Ok(match refusal {
            Some((code, reason)) => PlanDecision::Declined { rows, code, reason },
            None => PlanDecision::Accepted(rows),
        })
    }

    /// Returns the verdicts of all rules for every step.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn evaluate_plan(
        &self,
        new: &NewNotification,
        now_ms: i64,
    ) -> Result<Vec<StepVerdicts>, StoreError> {
        let mut evaluated = Vec::new();
        for step in new.plan.steps() {
            let Some(request) = new.plan.request(&new.account_sid, step) else { continue };
            let verdicts = self.evaluate(&self.complete(request), now_ms).await?;
            evaluated.push(StepVerdicts { channel: step.channel, verdicts });
        }
        Ok(evaluated)
    }

    /// Stores the messages of an accepted notification with the response for copies of its request, and wakes the dispatcher.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn add_notification(
        &self,
        by: &Caller,
        rows: &[OutboundMessage],
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        self.add_all(by, rows, done).await?;
        for row in rows.iter().filter(|row| row.state == "refused") {
            if let Some(code) = RefusalCode::find(&row.code) {
                self.metrics.messages.refused(code);
            }
        }
        Ok(())
    }

    /// Records a notification whose steps were all declined. Copies of the request, which share `turn`, have one record.
    pub async fn decline_notification(
        &self,
        mut rows: Vec<OutboundMessage>,
        turn: Option<&IdempotencyClaim>,
        now_ms: i64,
    ) {
        let digits = |n: usize| Some(turn?.digest(n).get(..32)?.to_owned());
        let mut replaced = String::new();
        let notification_id = digits(0).map(|digits| format!("{NOTIFICATION_PREFIX}{digits}"));
        for (n, row) in rows.iter_mut().enumerate() {
            if let Some(code) = RefusalCode::find(&row.code) {
                self.metrics.messages.refused(code);
            }
            self.messages.count_refusal(row.count(MessageEvent::Refused, &row.code, now_ms));
            DECLINED.clone_into(&mut row.state);
            if let (Some(digits), Some(id)) = (digits(n), &notification_id) {
                row.id = format!("{PREFIX}{digits}");
                row.notification_id.clone_from(id);
                row.fallback_of = std::mem::replace(&mut replaced, row.id.clone());
            }
        }
        self.store_declined(&rows).await;
    }

    /// Builds the messages of the steps after a failure; `None` if it does not move on, or no step remains.
    pub(super) async fn next_step(
        &self,
        message: &OutboundMessage,
        plan: NotificationPlan,
        code: &str,
        now_ms: i64,
    ) -> Result<Option<Fallback>, StoreError> {
        if !plan.moves_on(code, &self.errors) {
            return Ok(None);
        }
        let origin = Origin {
            account_sid: &message.account_sid,
            created_by: &message.created_by,
            plan_name: &message.plan,
            metadata: &message.metadata,
            send_at_ms: None,
            replaced: Some(message),
            now_ms,
        };
        let mut planned = self.plan_messages(plan, Some(code), &origin).await?;
        let Some(last) = planned.pop() else { return Ok(None) };
        let skipped = planned.into_iter().map(|planned| planned.row).collect();
        Ok(Some(Fallback { to: last.target, skipped, message: last.row }))
    }

    async fn plan_messages(
        &self,
        mut plan: NotificationPlan,
        failure: Option<&str>,
        origin: &Origin<'_>,
    ) -> Result<Vec<PlannedMessage>, StoreError> {
        let mut planned: Vec<PlannedMessage> = Vec::new();
        let mut failure = failure.map(str::to_owned);
        while let Some(step) = plan.take_next(failure.as_deref(), &self.errors) {
            let replaced = planned.last().map(|last| &last.row).or(origin.replaced);
            let Some(message) = self.planned(&plan, &step, replaced, origin).await? else {
                continue;
            };
            let code = message.refusal.as_ref().map(|(code, _)| code.as_str());
            let moves_on = code.is_some_and(|code| plan.moves_on(code, &self.errors));
            failure = code.map(str::to_owned);
            planned.push(message);
            if !moves_on {
                break;
            }
        }
        Ok(planned)
    }

    /// Builds the message of a step, with the steps that remain after it.
    async fn planned(
        &self,
        plan: &NotificationPlan,
        step: &Step,
        replaced: Option<&OutboundMessage>,
        origin: &Origin<'_>,
    ) -> Result<Option<PlannedMessage>, StoreError> {
        let Some(request) = plan.request(origin.account_sid, step) else { return Ok(None) };
        let request = self.complete(request);
        let verdicts = self.evaluate(&request, origin.now_ms).await?;
        let mut row = self.row(&request, origin.created_by, origin.send_at_ms, origin.now_ms)?;
        origin.plan_name.clone_into(&mut row.plan);
        origin.metadata.clone_into(&mut row.metadata);
        let target = match (&step.content, step.channel) {
            (StepContent::Template(_), _) => FallbackTarget::Template,
            (_, PlanChannel::Email) => FallbackTarget::Email,
            _ => FallbackTarget::Channel,
        };
        if let Some(replaced) = replaced {
            row.fallback_of.clone_from(&replaced.id);
            row.notification_id.clone_from(&replaced.notification_id);
        }
        if plan.steps().next().is_some() {
            (row.fallback, row.fallback_to) = (plan.to_json(), plan.recipients());
            row.answer_within_ms = plan.answer_within_ms(step);
        } else if step.channel != PlanChannel::Email {
            // A step before the last one is not repeated: the next step replaces it.
            self.permit_repetitions(&mut row);
        }
        let refusal = verdicts.iter().find_map(|one| Some((one.code?, one.detail.clone())));
        refuse(&mut row, &verdicts);
        Ok(Some(PlannedMessage { target, row, refusal }))
    }

    /// Moves steps on that were sent but not delivered in their time. Returns their number.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn move_on_unanswered(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut moved = 0;
        for message in self.messages.unanswered(STEPS_PER_ROUND, now_ms).await? {
            let next = self.build_fallback(&message, NO_ANSWER, now_ms).await?;
            let rows = next.as_ref().map(Fallback::rows).unwrap_or_default();
            let seconds = message.answer_within_ms / 1000;
            let reason = format!(
                "no delivery was reported within {seconds} s; the next step of the plan began"
            );
            let cause = (NO_ANSWER, reason.as_str());
            let masked = masked(&message);
            if !self.messages.move_on(&message, &masked, cause, &rows, now_ms).await? {
                continue;
            }
            moved += 1;
            self.metrics.messages.unanswered(&message.channel);
            if let Some(next) = &next {
                self.report_fallback(&message, NO_ANSWER, next);
            }
        }
        Ok(moved)
    }
}
