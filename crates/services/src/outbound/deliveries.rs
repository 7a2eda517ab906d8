//! Delivery of messages that Twilio accepted: applies the statuses that Twilio reports, in status callbacks or when the
//! reconciler asks. A failed message is replaced by its fallback, or sent again if the table of error codes permits it. The
//! domain decides what a report means; the store applies a change only to the status that the decision was based on.

use crate::outbound::sending::{Sending, masked};
use twilio_edge_domain::{
    sending::{
        delivery_status::{
            Delivery, StatusChange, StatusEffect, is_delivered, is_failed, is_final, status_effect,
        },
        provider::Provider,
        verification::VerificationStatus,
    },
    status::CallbackStatus,
};
use twilio_edge_platform::config;
use twilio_edge_store::{OutboundMessage, StoreError};

/// Largest number of attempts to apply one report while other reports change the same message.
const MAX_TRIES: usize = 8;

/// Factor between the times of two lookups of a status, and the time after which no lookup follows.
const LOOKUP_FACTOR: i64 = 4;
const LOOKUP_FOR_MS: i64 = 2 * 86_400_000;

/// Status of one of our messages, as Twilio reports it.
#[derive(Debug, Clone, Copy)]
pub struct StatusReport<'a> {
    /// Our id of the message, from the signed URL; `None` if the URL has none, because it was configured at Twilio.
    pub id: Option<&'a str>,
    /// Account of the message.
    pub account_sid: &'a str,
    /// Twilio's id of the message.
    pub message_sid: &'a str,
    /// `sent`, `delivered`, `failed`, ..
    pub status: &'a str,
    /// Twilio's error code; empty if there is none.
    pub code: &'a str,
    /// Number or id of the recipient; empty if it is unknown.
    pub recipient: &'a str,
}

impl StatusReport<'_> {
    /// Returns whether the report ends the delivery.
    pub fn is_final(&self) -> bool {
        is_final(self.status)
    }

    /// Returns whether the report must be durable before Twilio gets an answer: a failure of one of our messages. The
    /// reconciler asks again for every other status that was not stored.
    pub fn must_be_durable(&self) -> bool {
        self.id.is_some() && is_failed(self.status)
    }

    /// Completes the masked recipient of a message that has ended, so that the report's events are in order with those of
    /// the contact. The stored recipient stays masked.
    fn unmask(&self, message: &mut OutboundMessage) {
        let end = message.recipient.rsplit_once("..").map(|(_, end)| end);
        if end.is_some_and(|end| !end.is_empty() && self.recipient.ends_with(end)) {
            message.recipient = self.recipient.to_owned();
        }
    }

    fn is_about(&self, message: &OutboundMessage) -> bool {
        let is_named = match self.id {
            Some(id) => id == message.id,
            None => {
                message.message_sid == self.message_sid
                    || message.earlier_sids().any(|sid| sid == self.message_sid)
            }
        };
        is_named && self.account_sid == message.account_sid
    }
}

/// Times of repetitions and lookups, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliveryTimes {
    /// Pause before the first repetition of a failed message; 0: it is not repeated.
    pub repeat_after_ms: i64,
    /// Period in which a message without a validity period may be repeated.
    pub repeat_for_ms: i64,
    /// Time after the call at which the status is looked up, unless it is final; 0: never.
    pub lookup_after_ms: i64,
}

impl DeliveryTimes {
    /// Reads the settings.
    pub fn of(settings: &config::Sending) -> DeliveryTimes {
        let ms = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        DeliveryTimes {
            repeat_after_ms: ms(settings.repeat_after_s),
            repeat_for_ms: ms(settings.repeat_for_s),
            lookup_after_ms: ms(settings.status_after_s),
        }
    }

    /// Returns the time of lookup number `lookups` + 1 of a message that was sent at `sent_ms`; 0: no lookup.
    pub fn lookup_at_ms(&self, sent_ms: i64, lookups: i64) -> i64 {
        let step = u32::try_from(lookups.clamp(0, 16)).unwrap_or_default();
        let after_ms = self.lookup_after_ms.saturating_mul(LOOKUP_FACTOR.saturating_pow(step));
        let is_late = lookups > 0 && after_ms > LOOKUP_FOR_MS;
        if after_ms == 0 || is_late { 0 } else { sent_ms.saturating_add(after_ms) }
    }
}

/// Result of one attempt to apply a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    /// The report has been applied, or adds nothing.
    Done,
    /// The message has changed; the report must be applied to its current row.
    Again,
}

impl Sending {
    /// Applies statuses that Twilio reported. A message with a status was sent, also if its state was another one; a failed
    /// one may be sent again, or cause a fallback. Returns the number of messages that were not known to be sent.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn apply_statuses(
        &self,
        reports: &[StatusReport<'_>],
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let ids: Vec<&str> = reports.iter().filter_map(|report| report.id).collect();
        let without_id = reports.iter().filter(|report| report.id.is_none());
        let sids: Vec<&str> = without_id.map(|report| report.message_sid).collect();
        let mut messages = self.messages.by_ids(&ids).await?;
        messages.extend(self.messages.by_sids(&sids).await?);
        messages.sort_by(|one, other| one.id.cmp(&other.id));
        messages.dedup_by(|one, other| one.id == other.id);
        let mut learned = 0;
        for mut message in messages {
            let of_message = reports.iter().filter(|report| report.is_about(&message));
            let mut of_message: Vec<&StatusReport<'_>> = of_message.collect();
            // A reported delivery comes first, because it excludes a repetition.
            of_message.sort_by_key(|report| !is_delivered(report.status));
            for report in of_message {
                learned += self.apply_status(&mut message, report, now_ms).await?;
            }
        }
        Ok(learned)
    }

    async fn apply_status(
        &self,
        message: &mut OutboundMessage,
        report: &StatusReport<'_>,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let mut learned = 0;
        for _ in 0..MAX_TRIES {
            report.unmask(message);
            let is_replaced = message.earlier_sids().any(|sid| sid == report.message_sid);
            let is_current = message.message_sid == report.message_sid;
            let applied = if is_replaced && !is_current {
                self.apply_late(message, report, now_ms).await?
            } else if is_replaced && !is_delivered(report.status) {
                // The delivery has ended the repetition. Copies of the failure say nothing new.
                Applied::Done
            } else if VerificationStatus::is_end(&message.status)
                && message.provider() == Provider::Verify
            {
                // The contact has the code, or does not need it any more.
                Applied::Done
            } else if message.state != "sent" {
                let proof = (report.message_sid, "Twilio reported its status");
                let poll_ms = self.lookup_at_ms(message, now_ms, 0);
                let masked = masked(message);
                let is_new =
                    self.messages.mark_sent(message, &masked, proof, poll_ms, now_ms).await?;
                learned += u64::from(is_new);
                Applied::Again
            } else if !is_current {
                // An operator has decided that the message is another one.
                Applied::Done
            } else {
                self.apply_to_sent(message, report, now_ms).await?
            };
            if applied == Applied::Done {
                return Ok(learned);
            }
            let current = self.messages.fetch(&message.id, Some(&message.account_sid)).await?;
            let Some(current) = current else { return Ok(learned) };
            *message = current;
        }
        Err(StoreError::Unavailable("other reports changed the message at the same time".into()))
    }

    async fn apply_to_sent(
        &self,
        message: &OutboundMessage,
        report: &StatusReport<'_>,
        now_ms: i64,
    ) -> Result<Applied, StoreError> {
        let delivery = Delivery {
            status: &message.status,
            code: &message.code,
            repetitions: message.repetitions,
            repeat_until_ms: if message.form.is_empty() { 0 } else { message.repeat_until_ms },
        };
        let error_code = Some(report.code).filter(|code| !code.is_empty());
        let status = CallbackStatus { word: report.status, error_code };
        let chance = (now_ms, getrandom::u64().unwrap_or_default());
        let first_pause_ms = self.delivery_times.repeat_after_ms;
        let is_changed = match status_effect(delivery, status, &self.errors, first_pause_ms, chance)
        {
            StatusEffect::Unchanged => true,
            StatusEffect::Repeat { change, due_at_ms } => {
                let is_repeated = self.messages.repeat(message, &change, due_at_ms, now_ms).await?;
                if is_repeated {
                    self.report_outcome(message, "repeated", &change.code);
                    let due = twilio_edge_domain::window::rfc3339(due_at_ms);
                    tracing::info!(event = "message.repeated", message.id = %message.id, account.sid = %message.account_sid, message.sid = %message.message_sid, code = %change.code, due, "Twilio could not deliver a message; the dispatcher sends it again");
                }
                is_repeated
            }
            StatusEffect::Changed(change) => self.change_status(message, &change, now_ms).await?,
        };
        Ok(if is_changed { Applied::Done } else { Applied::Again })
    }

    /// Stores a status, and sends the fallback of a message that failed. Returns false if the message has changed.
    async fn change_status(
        &self,
        message: &OutboundMessage,
        change: &StatusChange,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let masked = masked(message);
        let fallback = match change.is_failure && !message.fallback.is_empty() {
            true => self.build_fallback(message, &change.code, now_ms).await?,
            false => None,
        };
        let is_changed = match &fallback {
            Some(fallback) => {
                let instead = fallback.rows();
                self.messages
                    .replace_with_fallback(message, &masked, change, &instead, now_ms)
                    .await?
            }
            None => self.messages.update_status(message, &masked, change, now_ms).await?,
        };
        if !is_changed {
            return Ok(false);
        }
        if let Some(fallback) = &fallback {
            self.report_fallback(message, &change.code, fallback);
        }
        if is_final(&change.status) {
            self.report_outcome(message, &change.status, &change.code);
        }
        if change.is_failure {
            tracing::info!(event = "message.delivery_failed", message.id = %message.id, account.sid = %message.account_sid, message.sid = %message.message_sid, status = %change.status, code = %change.code, "Twilio could not deliver a message");
        }
        Ok(true)
    }

    /// Applies a report about a failed delivery that was repeated. Only its delivery matters: it ends a repetition that has
    /// not begun.
    async fn apply_late(
        &self,
        message: &OutboundMessage,
        report: &StatusReport<'_>,
        now_ms: i64,
    ) -> Result<Applied, StoreError> {
        if !is_delivered(report.status) {
            return Ok(Applied::Done);
        }
        if message.state != "queued" {
            tracing::error!(event = "message.delivered_late", message.id = %message.id, account.sid = %message.account_sid, message.sid = report.message_sid, "Twilio reported the delivery of a message after its failure; it was sent again meanwhile");
            return Ok(Applied::Done);
        }
        let proof = (report.message_sid, report.status);
        let is_ended =
            self.messages.end_repetition(message, &masked(message), proof, now_ms).await?;
        if is_ended {
            self.report_outcome(message, report.status, "");
        }
        Ok(if is_ended { Applied::Done } else { Applied::Again })
    }

    /// Returns the time of lookup number `lookups` + 1 of the status of a message that was sent at `sent_ms`; 0: no lookup.
    pub(super) fn lookup_at_ms(
        &self,
        message: &OutboundMessage,
        sent_ms: i64,
        lookups: i64,
    ) -> i64 {
        match message.provider() {
            Provider::Verify => self.verifications.lookup_at_ms(message, sent_ms, lookups),
            // Events report the statuses of e-mails, and an execution has none: its messages have one each.
            Provider::SendGrid | Provider::Smtp | Provider::Studio => 0,
            Provider::Messaging => self.delivery_times.lookup_at_ms(sent_ms, lookups),
        }
    }

    fn report_outcome(&self, message: &OutboundMessage, status: &str, code: &str) {
        let code = self.errors.label(code);
        self.metrics.messages.outcome(status, code, &message.channel, &message.sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_looked_up_at_growing_intervals_for_two_days() {
        let times = DeliveryTimes { lookup_after_ms: 900_000, ..DeliveryTimes::default() };
        let at: Vec<i64> = (0..6).map(|lookups| times.lookup_at_ms(1000, lookups)).collect();
        assert_eq!(at, [901_000, 3_601_000, 14_401_000, 57_601_000, 0, 0]);
        assert_eq!(DeliveryTimes::default().lookup_at_ms(1000, 0), 0);
    }
}
