//! Withdrawals of consent to marketing that Twilio reports: a status callback or a refused request with error code
//! 63033 means that the recipient opted out of marketing messages (docs: twilio.com/docs/api/errors/63033). The
//! withdrawal is evidence like any other consent; a later consent of the contact replaces it. It calls neither Twilio
//! nor the filter.

use serde_json::json;

use twilio_edge_domain::{
    address::Address,
    consent::{Consent, State},
    policy::Category,
    webhook::Webhook,
};
use twilio_edge_store::{AuditEntry, Consents, StoreError};

/// Author of the record and of its audit entry.
const ACTOR: &str = "twilio";

/// One report that a recipient opted out of marketing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The account, which is the tenant.
    pub account_sid: String,
    /// The recipient, with the channel.
    pub address: Address,
    /// Twilio's error code.
    pub error_code: String,
    /// The message that Twilio did not deliver.
    pub message_sid: String,
}

impl Withdrawal {
    /// Returns the withdrawal that a status callback reports, if any.
    pub fn of(webhook: &Webhook) -> Option<Withdrawal> {
        let pair = webhook.outbound.as_ref().filter(|_| webhook.withdraws_marketing)?;
        Some(Withdrawal {
            account_sid: pair.account_sid.clone(),
            address: pair.theirs.clone(),
            error_code: webhook.identity.error_code.clone().unwrap_or_default(),
            message_sid: webhook.identity.message_sid.clone(),
        })
    }

    /// Stores the withdrawal with its audit entry. Returns whether it is new. Each message counts once.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn record(&self, consents: &Consents, now_ms: i64) -> Result<bool, StoreError> {
        let source = format!("error {}", self.error_code);
        let proof = Some(format!("Twilio did not deliver the message {}", self.message_sid));
        let stored = consents.of_numbers(&self.account_sid, &[&self.address.number]).await?;
        let is_known = stored.iter().any(|stored| {
            stored.state == State::Withdrawn
                && stored.address == self.address
                && stored.source == source
                && stored.proof == proof
        });
        if is_known {
            return Ok(false);
        }
        let consent = Consent {
            account_sid: self.account_sid.clone(),
            address: self.address.clone(),
            category: Category::Marketing,
            state: State::Withdrawn,
            at_ms: now_ms,
            source,
            proof,
            ip: None,
            user_agent: None,
            recorded_at_ms: now_ms,
            recorded_by: ACTOR.to_owned(),
            stored_id: None,
        };
        let detail = json!({
            "state": State::Withdrawn,
            "category": Category::Marketing,
            "error_code": self.error_code,
            "message_sid": self.message_sid,
        });
        let entry = AuditEntry {
            id: 0,
            at_ms: now_ms,
            actor: ACTOR.to_owned(),
            source: "webhook".to_owned(),
            action: "consent.withdrawn".to_owned(),
            subject: format!("consent of {}", self.address),
            account_sid: Some(self.account_sid.clone()),
            detail: detail.to_string(),
        };
        let is_new = consents.record(std::slice::from_ref(&consent), entry).await? > 0;
        if is_new {
            tracing::info!(event = "consent.withdrawn",
                message.sid = %self.message_sid,
                account.sid = %self.account_sid,
                address = %self.address,
                code = %self.error_code,
                "a recipient opted out of marketing; the consent was withdrawn",
            );
        }
        Ok(is_new)
    }
}
