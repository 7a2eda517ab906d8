//! Checks and cancellations of verifications. A code passes through a check to Twilio and is never stored or logged.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    access::api_keys::Caller,
    outbound::sending::{Sending, masked},
};
use twilio_edge_domain::sending::{
    provider::Provider,
    verification::{CheckOutcome, VerificationStatus, check_outcome},
};
use twilio_edge_store::{OutboundMessage, StoreError};

impl Sending {
    /// Returns the messages of a verification, in the order of their attempts, once the last one has an outcome, or after `wait`. The
    /// list is empty if the account has no such verification.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn verification(
        &self,
        account_sid: &str,
        first_id: &str,
        wait: Duration,
    ) -> Result<Vec<OutboundMessage>, StoreError> {
        let deadline = Instant::now() + wait;
        let (mut messages, mut id) = (Vec::new(), first_id.to_owned());
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            let found = self.outcome_waiters.wait(&self.messages, account_sid, &id, wait).await?;
            let Some(message) = found.filter(|found| found.provider() == Provider::Verify) else {
                return Ok(messages);
            };
            let fallback = self.messages.find_fallback_of(&message.id).await?;
            messages.push(message);
            match fallback {
                Some(fallback) => id = fallback.id,
                None => return Ok(messages),
            }
        }
    }

    /// Checks a code. `form` has the parameter `Code`, and others that Twilio accepts. An approval is stored before the answer.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn check_verification(
        &self,
        messages: &[OutboundMessage],
        form: &str,
        now_ms: i64,
    ) -> Result<CheckOutcome, StoreError> {
        let Some(last) = messages.last() else { return Ok(CheckOutcome::Ended) };
        let outcome = match target(messages) {
            _ if status(messages, now_ms) != VerificationStatus::Pending => CheckOutcome::Ended,
            Some(target) => {
                let form = format!("{target}&{form}");
                let client = &self.verifications.client;
                let answer = client.check(&last.account_sid, &last.sender, form).await;
                match check_outcome(answer, &self.errors) {
                    // Twilio may not have created it yet.
                    CheckOutcome::Ended if sid(messages).is_none() => not_sent(),
                    outcome => outcome,
                }
            }
            None => not_sent(),
        };
        self.apply_check(last, &outcome, now_ms).await?;
        Ok(outcome)
    }

    /// Cancels a verification, so that its code is no longer accepted.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn cancel_verification(
        &self,
        messages: &[OutboundMessage],
        by: &Caller,
        now_ms: i64,
    ) -> Result<CheckOutcome, StoreError> {
        let Some(last) = messages.last() else { return Ok(CheckOutcome::Ended) };
        match status(messages, now_ms) {
            VerificationStatus::Pending => {}
            VerificationStatus::Canceled => {
                let sid = last.message_sid.clone();
                return Ok(CheckOutcome::Status(VerificationStatus::Canceled, sid));
            }
            _ => return Ok(CheckOutcome::Ended),
        }
        let detail = json!({});
        let account_sid = Some(last.account_sid.clone());
        let entry =
            by.audit_entry("verification.canceled", last.id.clone(), account_sid, &detail, now_ms);
        if last.state == "queued" && self.messages.cancel(last, &masked(last), &entry).await? {
            self.outcome_waiters.notify(&last.id);
            return Ok(CheckOutcome::Status(VerificationStatus::Canceled, String::new()));
        }
        let Some(sid) = sid(messages) else {
            let reason = "the verification is being sent".to_owned();
            return Ok(CheckOutcome::Unavailable(reason));
        };
        let client = &self.verifications.client;
        let answer = client.cancel(&last.account_sid, &last.sender, sid).await;
        let outcome = check_outcome(answer, &self.errors);
        if let CheckOutcome::Status(VerificationStatus::Canceled, sid) = &outcome {
            self.messages.cancel_verification(last, &masked(last), sid, &entry).await?;
        }
        self.apply_check(last, &outcome, now_ms).await?;
        Ok(outcome)
    }

    /// Stores the end of a verification that Twilio reports, counts the answer, and logs it without the code.
    pub async fn apply_check(
        &self,
        message: &OutboundMessage,
        outcome: &CheckOutcome,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let result = match outcome {
            CheckOutcome::Status(status, _) => status.as_str(),
            CheckOutcome::Ended => "ended",
            CheckOutcome::Refused { .. } => "refused",
            CheckOutcome::Unavailable(_) => "unavailable",
        };
        self.metrics.messages.checked_code(result);
        match outcome {
            CheckOutcome::Status(status, sid) if VerificationStatus::is_end(status.as_str()) => {
                let end = (*status, sid.as_str());
                let masked = masked(message);
                if self.messages.end_verification(message, &masked, end, now_ms).await? {
                    self.outcome_waiters.notify(&message.id);
                    tracing::info!(event = "verification.ended", message.id = %message.id, account.sid = %message.account_sid, verification.sid = sid, status = status.as_str(), "a verification ended");
                }
            }
            CheckOutcome::Unavailable(reason) => {
                tracing::warn!(event = "verification.check_failed", message.id = %message.id, account.sid = %message.account_sid, reason, "Twilio Verify did not answer a request about a verification; the caller repeats it");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the status of a verification with these messages.
pub fn status(messages: &[OutboundMessage], now_ms: i64) -> VerificationStatus {
    let end = |message: &OutboundMessage| {
        let is_end = VerificationStatus::is_end(&message.status);
        message.status.parse().ok().filter(|_| is_end)
    };
    if let Some(end) = messages.iter().find_map(end) {
        return end;
    }
    match messages.last().map(|last| (last.state.as_str(), last.valid_until_ms)) {
        Some(("canceled", _)) => VerificationStatus::Canceled,
        Some(("refused" | "not_sent" | "declined", _)) | None => {
            // WhatsApp may have delivered the code although the SMS was refused.
            match sid(messages) {
                Some(_) if messages.iter().any(|one| now_ms <= one.valid_until_ms) => {
                    VerificationStatus::Pending
                }
                _ => VerificationStatus::Failed,
            }
        }
        Some((_, valid_until_ms)) if now_ms > valid_until_ms => VerificationStatus::Expired,
        Some(_) => VerificationStatus::Pending,
    }
}

/// Outcome of a check before a code has left.
fn not_sent() -> CheckOutcome {
    CheckOutcome::Status(VerificationStatus::Pending, String::new())
}

/// Returns Twilio's SID of a verification.
pub fn sid(messages: &[OutboundMessage]) -> Option<&str> {
    let sids = messages.iter().rev().map(|message| message.message_sid.as_str());
    sids.into_iter().find(|sid| !sid.is_empty())
}

/// Returns the parameter that identifies the verification at Twilio: its SID, or its number while the SID is unknown.
fn target(messages: &[OutboundMessage]) -> Option<String> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    if let Some(sid) = sid(messages) {
        return Some(form.append_pair("VerificationSid", sid).finish());
    }
    let may_be_sent = |message: &&OutboundMessage| {
        matches!(message.state.as_str(), "attempting" | "unknown") && !message.contact.is_empty()
    };
    let sent = messages.iter().find(may_be_sent)?;
    Some(form.append_pair("To", &sent.contact).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: &str, status: &str, message_sid: &str) -> OutboundMessage {
        OutboundMessage {
            state: state.to_owned(),
            status: status.to_owned(),
            message_sid: message_sid.to_owned(),
            contact: "+15551234567".to_owned(),
            valid_until_ms: 1000,
            ..OutboundMessage::default()
        }
    }

    #[test]
    fn status_follows_from_the_messages_and_the_time() {
        use VerificationStatus::{Approved, Canceled, Expired, Failed, Pending};
        for (messages, now_ms, expected) in [
            (vec![message("queued", "", "")], 0, Pending),
            (vec![message("sent", "delivered", "VE")], 1000, Pending),
            (vec![message("sent", "delivered", "VE")], 1001, Expired),
            (vec![message("sent", "approved", "VE")], 1001, Approved),
            (vec![message("sent", "undelivered", "VE"), message("queued", "", "")], 0, Pending),
            (vec![message("sent", "approved", "VE"), message("sent", "", "VE")], 0, Approved),
            (vec![message("refused", "", "")], 0, Failed),
            (vec![message("sent", "undelivered", "VE"), message("refused", "", "")], 0, Pending),
            (vec![message("canceled", "", "")], 0, Canceled),
            (vec![message("sent", "canceled", "VE")], 0, Canceled),
        ] {
            assert_eq!(status(&messages, now_ms), expected, "{messages:?}");
        }
    }

    #[test]
    fn check_names_the_sid_or_the_number() {
        let of = |messages: &[OutboundMessage]| target(messages);
        assert_eq!(of(&[message("queued", "", "")]), None);
        assert_eq!(of(&[message("unknown", "", "")]).unwrap(), "To=%2B15551234567");
        let both = [message("sent", "", "VE1"), message("queued", "", "")];
        assert_eq!(of(&both).unwrap(), "VerificationSid=VE1");
    }
}
