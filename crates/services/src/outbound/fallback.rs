//! Fallbacks: messages that are sent instead of a message that its channel refused. A fallback is a message of its own,
//! for which every rule is evaluated again. It is stored in the same transaction that ends the first message, so that
//! it is sent once. The table of error codes decides which codes cause a fallback; the domain decides what is sent.

use crate::outbound::sending::{Sending, refuse};
use twilio_edge_domain::{
    address::Address,
    check::Kind,
    policy::Category,
    sending::{
        errors::FallbackTarget,
        fallback::{FailedMessage, FallbackPlan},
        plan::NotificationPlan,
        provider::Provider,
        request::Request,
        rules::Verdict,
    },
};
use twilio_edge_store::{OutboundMessage, StoreError};

/// All kinds of fallback, in order of preference.
const KINDS: [FallbackTarget; 3] = FallbackTarget::ALL;

/// One possible fallback, with the verdict of every rule.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// Kind of fallback.
    pub to: FallbackTarget,
    /// Message that would be sent.
    pub request: Request,
    /// Verdicts of the rules.
    pub verdicts: Vec<Verdict>,
}

/// Fallback that is sent instead of another message.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// Kind of fallback.
    pub to: FallbackTarget,
    /// Steps of a plan that a rule declined before this one.
    pub skipped: Vec<OutboundMessage>,
    /// Row of the fallback.
    pub message: OutboundMessage,
}

impl Fallback {
    /// Returns the rows in the order of their attempts; the last one is the fallback.
    pub fn rows(&self) -> Vec<OutboundMessage> {
        self.skipped.iter().chain([&self.message]).cloned().collect()
    }
}

impl Alternative {
    /// Returns whether every rule permits it.
    pub fn is_allowed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.ok)
    }
}

impl Sending {
    /// Lists the possible fallbacks of a message, in order of preference.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn alternatives(
        &self,
        request: &Request,
        now_ms: i64,
    ) -> Result<Vec<Alternative>, StoreError> {
        let Some(plan) = FallbackPlan::of(request) else { return Ok(Vec::new()) };
        let sender = request.sender_name();
        let failed = FailedMessage {
            account_sid: &request.account_sid,
            to: &request.to,
            sender: &sender,
            kind: request.kind(),
            category: Some(request.category()),
        };
        self.evaluate_alternatives(&plan, failed, &KINDS, now_ms).await
    }

    async fn evaluate_alternatives(
        &self,
        plan: &FallbackPlan,
        failed: FailedMessage<'_>,
        order: &[FallbackTarget],
        now_ms: i64,
    ) -> Result<Vec<Alternative>, StoreError> {
        let mut evaluated = Vec::new();
        for kind in order {
            let Some((to, request)) = plan.next_request(failed, &[*kind]) else { continue };
            let request = self.complete(request);
            let verdicts = self.evaluate(&request, now_ms).await?;
            evaluated.push(Alternative { to, request, verdicts });
        }
        Ok(evaluated)
    }

    /// Builds the fallback of a message that ended with this code: the first that every rule permits. If none is
    /// permitted, returns the first in state `refused`, so that callers can see the reason. Returns `None` if the code
    /// or the message has no fallback.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn build_fallback(
        &self,
        message: &OutboundMessage,
        code: &str,
        now_ms: i64,
    ) -> Result<Option<Fallback>, StoreError> {
        if message.provider() == Provider::Verify {
            return self.build_verification_fallback(message, code, now_ms).await;
        }
        if let Some(plan) = NotificationPlan::read(&message.fallback) {
            return self.next_step(message, plan, code, now_ms).await;
        }
        let order = self.errors.fallback_targets(code);
        let Some(plan) = FallbackPlan::read(&message.fallback).filter(|_| !order.is_empty()) else {
            return Ok(None);
        };
        // The recipient of the message, and after it that of the e-mail.
        let number = message.fallback_to.split(' ').next().unwrap_or_default();
        let to = Address { channel: message.channel.clone(), number: number.to_owned() };
        let failed = FailedMessage {
            account_sid: &message.account_sid,
            to: &to,
            sender: &message.sender,
            kind: if message.kind == "template" { Kind::Template } else { Kind::Session },
            category: Category::ALL.into_iter().find(|one| one.as_str() == message.category),
        };
        let alternatives = self.evaluate_alternatives(&plan, failed, order, now_ms).await?;
        let selected = alternatives
            .iter()
            .find(|alternative| alternative.is_allowed())
            .or(alternatives.first());
        let Some(Alternative { to, request, verdicts }) = selected else { return Ok(None) };
        let mut row = self.row(request, &message.created_by, None, now_ms)?;
        row.fallback_of = message.id.clone();
        row.notification_id.clone_from(&message.notification_id);
        // For the caller it is the same message.
        row.metadata.clone_from(&message.metadata);
        row.valid_until_ms = message.valid_until_ms;
        refuse(&mut row, verdicts);
        Ok(Some(Fallback { to: *to, skipped: Vec::new(), message: row }))
    }

    /// Counts and logs a fallback, and wakes the dispatcher.
    pub fn report_fallback(&self, message: &OutboundMessage, code: &str, fallback: &Fallback) {
        self.metrics.messages.switched(fallback.to);
        self.wakeup.wake();
        tracing::info!(event = "message.fallback_sent", message.id = %message.id, account.sid = %message.account_sid, code, to = fallback.to.as_str(), instead = %fallback.message.id, state = %fallback.message.state, "the sidecar sent a fallback for a message that its channel did not accept");
    }
}
