//! Verifications by Twilio Verify: decides whether one may start and on which channel, and builds its rows. `checks.rs` checks and cancels it.
//! The dispatcher sends it as any other message.

mod checks;

use std::time::Duration;

pub use self::checks::{sid, status};
use crate::{
    access::permissions::Intent,
    outbound::{
        fallback::Fallback,
        sending::{Sending, refuse},
    },
};
use twilio_edge_domain::{
    check::Kind,
    refusal::RefusalCode,
    sending::{
        errors::FallbackTarget,
        options::Metadata,
        provider::Provider,
        rules::{Verdict, start_limit},
        verification::{
            CATEGORY, Facts, SMS, VALID_FOR_MS, VerificationChannel, VerificationRequest, evaluate,
        },
    },
};
use twilio_edge_store::{OutboundMessage, StoreError};

/// Prefix of our verification ids. The digits are those of the notification.
pub const VERIFICATION_PREFIX: &str = "vf_";

/// Decision about a verification.
#[derive(Debug, Clone)]
pub enum StartDecision {
    /// The verification may start; its row is not stored yet.
    Accepted(Box<OutboundMessage>),
    /// A rule declined it.
    Declined {
        /// Row that records the decision.
        row: Box<OutboundMessage>,
        /// Code of the rule.
        code: RefusalCode,
        /// The reason in words.
        reason: String,
        /// Time until which a limit declines every start.
        retry_after: Option<Duration>,
    },
}

impl Sending {
    /// Decides whether a verification may start, and on which channel: the first that no rule forbids. `end_user` is the network
    /// address of the person who asked for the code.
    ///
    /// # Errors
    /// Returns an error if the database fails, or the system supplies no random bytes for the id.
    pub async fn start_verification(
        &self,
        request: &VerificationRequest,
        end_user: Option<&str>,
        created_by: &str,
        now_ms: i64,
    ) -> Result<StartDecision, StoreError> {
        let mut first_refusal: Option<(&str, RefusalCode, String)> = None;
        for (position, channel) in request.channels().iter().enumerate() {
            let verdicts = self.evaluate_verification(request, channel, now_ms).await?;
            let refusal = verdicts.iter().find_map(|verdict| Some((verdict.code?, verdict)));
            let Some((code, verdict)) = refusal else {
                if let Some(rest) =
                    self.verifications.count_start(request, end_user, now_ms).await?
                {
                    let Verdict { detail, .. } = start_limit();
                    let declined = (*channel, RefusalCode::VerificationLimit, detail);
                    return self.declined(request, declined, Some(rest), created_by, now_ms);
                }
                let rest = request.channels().get(position.saturating_add(1));
                let row =
                    self.verification_row(request, channel, rest.copied(), created_by, now_ms)?;
                return Ok(StartDecision::Accepted(Box::new(row)));
            };
            let is_about_contact = verdict.rule.is_about_recipient();
            first_refusal.get_or_insert((channel, code, verdict.detail.clone()));
            // The other channel may still reach a contact who left this one. Every other refusal holds for both.
            if !is_about_contact {
                break;
            }
        }
        let refusal = first_refusal.unwrap_or((SMS, RefusalCode::Internal, String::new()));
        self.declined(request, refusal, None, created_by, now_ms)
    }

    fn declined(
        &self,
        request: &VerificationRequest,
        (channel, code, reason): (&str, RefusalCode, String),
        retry_after: Option<Duration>,
        created_by: &str,
        now_ms: i64,
    ) -> Result<StartDecision, StoreError> {
        let row = Box::new(self.verification_row(request, channel, None, created_by, now_ms)?);
        Ok(StartDecision::Declined { row, code, reason, retry_after })
    }

    async fn evaluate_verification(
        &self,
        request: &VerificationRequest,
        channel: &str,
        now_ms: i64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let intent = Intent {
            account_sid: request.account_sid.clone(),
            from: None,
            to: request.recipient(channel),
            category: CATEGORY,
            kind: Kind::Template,
            reply: None,
            ignores_opt_outs: self.verifications.ignores_opt_outs(),
        };
        let checks = self.checks.may_send(&intent, now_ms).await?;
        let routing = self.routes.current();
        let facts = Facts {
            has_credentials: self.verifications.client.has_credentials(&request.account_sid),
            routes: routing.of(&request.account_sid),
            checks,
        };
        Ok(evaluate(request, channel, facts))
    }

    fn verification_row(
        &self,
        request: &VerificationRequest,
        channel: &str,
        fallback: Option<&str>,
        created_by: &str,
        now_ms: i64,
    ) -> Result<OutboundMessage, StoreError> {
        let row = self.blank_row(
            &request.account_sid,
            &request.recipient(channel),
            CATEGORY,
            created_by,
            now_ms,
        )?;
        Ok(OutboundMessage {
            provider: Provider::Verify.as_str().to_owned(),
            sender: request.service_sid.clone().unwrap_or_default(),
            kind: "template".to_owned(),
            form: request.form(channel),
            metadata: request.metadata.to_json(),
            valid_until_ms: now_ms.saturating_add(VALID_FOR_MS),
            fallback: fallback.map(|channel| request.form(channel)).unwrap_or_default(),
            fallback_to: fallback.map(|_| request.number.clone()).unwrap_or_default(),
            ..row
        })
    }

    /// Builds the SMS that replaces a code on WhatsApp: WhatsApp did not deliver it, or the code of the refusal permits another
    /// channel. Returns `None` if the verification has no fallback, or is over.
    pub(super) async fn build_verification_fallback(
        &self,
        message: &OutboundMessage,
        code: &str,
        now_ms: i64,
    ) -> Result<Option<Fallback>, StoreError> {
        let is_about_contact = RefusalCode::find(code)
            .is_some_and(|code| RefusalCode::of_check_rules().any(|one| one == code));
        let permits_channel = self.errors.fallback_targets(code).contains(&FallbackTarget::Channel);
        let is_wanted = message.state == "sent" || is_about_contact || permits_channel;
        if message.fallback.is_empty() || !is_wanted || now_ms > message.valid_until_ms {
            return Ok(None);
        }
        let request = VerificationRequest {
            account_sid: message.account_sid.clone(),
            service_sid: Some(message.sender.clone()),
            number: message.fallback_to.clone(),
            channel: VerificationChannel::Sms,
            locale: None,
            other_parameters: String::new(),
            metadata: Metadata::read(&message.metadata),
        };
        let row = self.verification_row(&request, SMS, None, &message.created_by, now_ms)?;
        let mut row = OutboundMessage {
            form: message.fallback.clone(),
            fallback_of: message.id.clone(),
            notification_id: message.notification_id.clone(),
            valid_until_ms: message.valid_until_ms,
            ..row
        };
        let verdicts = self.evaluate_verification(&request, SMS, now_ms).await?;
        refuse(&mut row, &verdicts);
        Ok(Some(Fallback { to: FallbackTarget::Channel, skipped: Vec::new(), message: row }))
    }
}
