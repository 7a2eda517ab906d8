//! One attempt to send a message: checks again whether the recipient may be written to, calls the provider, and stores the
//! outcome. It starts no call that could end after its hold has expired. The domain decides the meaning of an answer
//! and the time of the next attempt.

use std::{sync::Arc, time::Duration};

use super::feedback::feedback;

use crate::{
    access::{
        answered_keyword::AnsweredKeyword,
        permissions::{Checks, Intent},
    },
    outbound::{
        fallback::Fallback,
        media::Media,
        opt_out_from_error::OptOutRecorder,
        outcome_waiters::OutcomeWaiters,
        sending::{QUIET_HOURS, Sending, quiet_reason},
    },
};
use twilio_edge_connectors::send_client::{SendClients, SendRequest};
use twilio_edge_domain::sending::adaptive_concurrency::CallOutcome;
use twilio_edge_domain::{
    address::Address,
    check::Kind,
    media::{MediaCheck, MediaProblem, media_of_form},
    policy::Category,
    sending::{
        errors::ErrorTable, flow::sender_of_form, options::with_rest_of_validity,
        outcome::SendOutcome, provider::Provider, rate_limit::retry_pause, rules::code_of_problem,
        sender::is_service,
    },
};
use twilio_edge_platform::clock::{millis, now_ms};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{AttemptOutcome, OutboundMessage, OutboundMessages, StoreError};

/// Pause after the database was unavailable.
pub(super) const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Time that an attempt may wait for the database, in addition to the call itself.
const DATABASE_ALLOWANCE: Duration = Duration::from_secs(20);

/// Dependencies of an attempt.
#[derive(Clone)]
pub(super) struct SendAttempt {
    pub(super) messages: OutboundMessages,
    pub(super) clients: SendClients,
    pub(super) checks: Checks,
    pub(super) errors: Arc<ErrorTable>,
    pub(super) opt_outs: OptOutRecorder,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outcome_waiters: OutcomeWaiters,
    pub(super) media: Media,
    pub(super) sending: Sending,
    pub(super) give_up_ms: i64,
}

impl SendAttempt {
    /// Duration for which a message is reserved for its attempt; longer than an attempt can take.
    pub(super) fn hold(&self) -> Duration {
        self.clients.timeout() + DATABASE_ALLOWANCE * 2
    }

    /// Sends one message. Returns what its end means for the number of concurrent calls.
    pub(super) async fn attempt(&self, message: OutboundMessage) -> CallOutcome {
        let recipient =
            Address { channel: message.channel.clone(), number: message.recipient.clone() };
        let latest_ms =
            message.due_at_ms.saturating_sub(millis(self.clients.timeout() + DATABASE_ALLOWANCE));
        if let Some(reason) = self.expiry(&message, now_ms()) {
            let (code, reason) = ("expired".into(), reason.into());
            let expired = SendOutcome::Refused { status: None, code, reason };
            self.end(&message, &recipient, expired, "").await;
            return CallOutcome::NoEvidence;
        }
        let wants = Intent {
            ignores_opt_outs: message.provider() == Provider::Verify
                && self.sending.verifications.ignores_opt_outs(),
            ..intent(&message, &recipient)
        };
        let held_ms = self.sending.held_until_ms(
            &message.account_sid,
            &message.country,
            wants.category,
            now_ms(),
        );
        if let Some(until_ms) = held_ms {
            self.wait_for_quiet_end(&message, until_ms).await;
            return CallOutcome::NoEvidence;
        }
        let form = match self.with_media(&message).await {
            Ok(form) if message.valid_until_ms > 0 && message.provider() == Provider::Messaging => {
                with_rest_of_validity(&form, message.valid_until_ms.saturating_sub(now_ms()))
            }
            Ok(form) => form,
            Err(unfit) => {
                self.end_for_media(&message, &recipient, unfit).await;
                return CallOutcome::NoEvidence;
            }
        };
        // This is the last check before the call: a STOP that was recorded until now is respected.
        match self.checks.may_send(&wants, now_ms()).await {
            Ok(verdicts) => {
                if let Some((code, detail)) =
                    verdicts.into_iter().find_map(|verdict| Some((verdict.code?, verdict.detail)))
                {
                    self.metrics.messages.refused(code);
                    self.end(
                        &message,
                        &recipient,
                        SendOutcome::Refused {
                            status: None,
                            code: code.as_str().into(),
                            reason: detail,
                        },
                        "",
                    )
                    .await;
                    return CallOutcome::NoEvidence;
                }
            }
            Err(reason) => {
                self.retry_later(
                    &message,
                    now_ms().saturating_add(millis(DATABASE_PAUSE)),
                    ("unchecked", &reason.to_string()),
                    "",
                )
                .await;
                return CallOutcome::NoEvidence;
            }
        }
        // A process that was suspended in the meantime may have lost its hold, so it must not call the provider.
        if now_ms() > latest_ms {
            self.retry_later(&message, now_ms(), ("late", "the attempt started too late"), "")
                .await;
            return CallOutcome::NoEvidence;
        }
        let started = std::time::Instant::now();
        let request = SendRequest { form: &form, ..send_request(&message) };
        let answer = self.clients.send(message.provider(), request, &self.errors).await;
        let (meaning, request_id) = (answer.outcome, answer.request_id);
        self.metrics.messages.called(started.elapsed(), answer.failure);
        tracing::debug!(event = "message.answered", message.id = %message.id, account.sid = %message.account_sid, twilio.request_id = request_id, meaning = ?meaning, "the provider answered");
        let feedback = feedback(&meaning, &message.recipient);
        match meaning {
            SendOutcome::Retry { code, reason, retry_after, .. } => {
                let pause = retry_pause(
                    message.attempts,
                    retry_after,
                    getrandom::u64().unwrap_or_default(),
                );
                let due_at_ms = now_ms().saturating_add(millis(pause));
                self.retry_later(&message, due_at_ms, (&code, &reason), &request_id).await;
                feedback
            }
            ended => {
                if let SendOutcome::Refused { code, .. } = &ended {
                    self.opt_outs.record(&message, &recipient, code).await;
                }
                self.end(&message, &recipient, ended, &request_id).await;
                feedback
            }
        }
    }

    /// Returns the reason why the message must no longer be sent, if there is one.
    fn expiry(&self, message: &OutboundMessage, now_ms: i64) -> Option<&'static str> {
        let is_over = |until_ms: i64| until_ms > 0 && now_ms > until_ms;
        if is_over(message.valid_until_ms) {
            Some("the validity period of the message is over")
        } else if message.repetitions > 0 && is_over(message.repeat_until_ms) {
            Some("Twilio could not deliver the message, and the time for repetitions is over")
        } else if AnsweredKeyword::of(message).is_some_and(|keyword| keyword.is_over(now_ms)) {
            Some("the conversation window of the keyword to which the message replies is over")
        } else if now_ms.saturating_sub(message.first_due_at_ms) > self.give_up_ms {
            Some("the message waited longer than sending.give_up_s")
        } else {
            None
        }
    }

    /// Returns the form for Twilio, with media links that are valid from now on. If the last check of the media is
    /// stale, they are checked again.
    async fn with_media(&self, message: &OutboundMessage) -> Result<String, MediaProblem> {
        let media = match message.provider() {
            Provider::Messaging => media_of_form(&message.form),
            _ => Vec::new(),
        };
        if media.is_empty() {
            return Ok(message.form.clone());
        }
        if self.media.is_stale(now_ms().saturating_sub(message.created_at_ms))
            && let MediaCheck::Invalid(_, unfit) =
                self.media.check(&message.account_sid, &message.channel, &media).await
        {
            return Err(unfit);
        }
        self.media.with_links(&message.account_sid, &message.form).await
    }

    async fn end_for_media(
        &self,
        message: &OutboundMessage,
        recipient: &Address,
        unfit: MediaProblem,
    ) {
        let code = code_of_problem(&unfit).as_str();
        if unfit.is_temporary {
            let pause = retry_pause(message.attempts, None, getrandom::u64().unwrap_or_default());
            let due_at_ms = now_ms().saturating_add(millis(pause));
            self.retry_later(message, due_at_ms, (code, &unfit.detail), "").await;
            return;
        }
        let refused =
            SendOutcome::Refused { status: None, code: code.into(), reason: unfit.detail };
        self.end(message, recipient, refused, "").await;
    }

    /// Queues a message again for the end of the recipient's quiet hours.
    async fn wait_for_quiet_end(&self, message: &OutboundMessage, until_ms: i64) {
        let reason = quiet_reason(until_ms);
        let cause = (QUIET_HOURS, reason.as_str());
        if let Err(reason) = self.messages.hold(message, until_ms, cause, now_ms()).await {
            tracing::error!(event = "message.persist_failed", %reason, message.id = %message.id, "the dispatcher could not store that a message waits; without it the message becomes unknown");
        }
    }

    async fn retry_later(
        &self,
        message: &OutboundMessage,
        due_at_ms: i64,
        cause: (&str, &str),
        request_id: &str,
    ) {
        self.metrics.messages.ended("retried");
        let written =
            self.messages.queue_retry(message, due_at_ms, cause, request_id, now_ms()).await;
        if let Err(reason) = written {
            tracing::error!(event = "message.persist_failed", %reason, message.id = %message.id, "the dispatcher could not store the outcome of an attempt; without it the message becomes unknown");
        }
    }

    async fn end(
        &self,
        message: &OutboundMessage,
        recipient: &Address,
        meaning: SendOutcome,
        request_id: &str,
    ) {
        let (state, message_sid, code, reason) = match &meaning {
            SendOutcome::Sent { message_sid } => ("sent", message_sid.as_str(), "", ""),
            SendOutcome::Refused { code, reason, .. } => {
                ("refused", "", code.as_str(), reason.as_str())
            }
            SendOutcome::Unknown { reason } | SendOutcome::Retry { reason, .. } => {
                ("unknown", "", "unknown", reason.as_str())
            }
        };
        let twilio_status = match &meaning {
            SendOutcome::Refused { status: Some(status), .. } => i64::from(*status),
            _ => 0,
        };
        self.metrics.messages.ended(state);
        match state {
            "unknown" => {
                tracing::error!(event = "message.unknown", message.id = %message.id, account.sid = %message.account_sid, twilio.request_id = request_id, reason, "an attempt ended without a clear answer, so the message became unknown; the reconciler checks Twilio's list")
            }
            "refused" => {
                tracing::info!(event = "message.refused", message.id = %message.id, account.sid = %message.account_sid, twilio.request_id = request_id, code, reason, "a message was refused and is not sent")
            }
            _ => {
                self.metrics.messages.sent(&message.sender);
                tracing::info!(event = "message.sent", message.id = %message.id, account.sid = %message.account_sid, twilio.request_id = request_id, message.sid = message_sid, "Twilio accepted a message")
            }
        }
        let lookup_due_at_ms = match state {
            "unknown" => now_ms(),
            "sent" => self.sending.lookup_at_ms(message, now_ms(), 0),
            _ => 0,
        };
        let outcome = AttemptOutcome {
            state,
            message_sid,
            code,
            reason,
            request_id,
            twilio_status,
            lookup_due_at_ms,
        };
        let masked = recipient.to_string();
        // The outcome is retried several times, because it is lost otherwise.
        for tries in 1..=5 {
            let written = match self.ended(message, &masked, &outcome).await {
                // The message was decided on in the meantime. Twilio has it, so it still becomes `sent`.
                Ok(false) if state == "sent" => {
                    let proof = (message_sid, "Twilio answered late");
                    self.messages
                        .mark_sent(message, &masked, proof, lookup_due_at_ms, now_ms())
                        .await
                }
                written => written,
            };
            match written {
                Ok(_) => {
                    self.outcome_waiters.notify(&message.id);
                    return;
                }
                Err(reason) => {
                    tracing::error!(event = "message.persist_failed", %reason, message.id = %message.id, message.sid = message_sid, "the dispatcher could not store the outcome of an attempt; without it the message becomes unknown");
                    tokio::time::sleep(DATABASE_PAUSE * tries).await;
                }
            }
        }
    }

    /// Stores the outcome of an attempt, together with the fallback of a message that its channel refused.
    async fn ended(
        &self,
        message: &OutboundMessage,
        masked: &str,
        outcome: &AttemptOutcome<'_>,
    ) -> Result<bool, StoreError> {
        let fallback = match outcome.state {
            "refused" => self.sending.build_fallback(message, outcome.code, now_ms()).await?,
            _ => None,
        };
        let rows = fallback.as_ref().map(Fallback::rows).unwrap_or_default();
        let is_ours =
            self.messages.record_outcome(message, masked, outcome, &rows, now_ms()).await?;
        if let Some(fallback) = fallback.filter(|_| is_ours) {
            self.sending.report_fallback(message, outcome.code, &fallback);
        }
        Ok(is_ours)
    }
}

/// Returns the message as its provider gets it.
pub(crate) fn send_request(message: &OutboundMessage) -> SendRequest<'_> {
    SendRequest {
        account_sid: &message.account_sid,
        channel: &message.channel,
        sender: &message.sender,
        form: &message.form,
        id: &message.id,
    }
}

/// Builds the same intent that was checked when the message was accepted.
fn intent(message: &OutboundMessage, recipient: &Address) -> Intent {
    let from = match message.provider() {
        Provider::Studio => sender_of_form(&message.form),
        _ => Address::parse(&message.sender).filter(|_| !is_service(&message.sender)),
    };
    let category = Category::ALL.into_iter().find(|one| one.as_str() == message.category);
    let kind = if message.kind == "template" { Kind::Template } else { Kind::Session };
    Intent {
        account_sid: message.account_sid.clone(),
        from: from.map(|from| from.number),
        to: recipient.clone(),
        category: category.unwrap_or_else(|| kind.default_category()),
        kind,
        reply: AnsweredKeyword::of(message),
        ignores_opt_outs: false,
    }
}
