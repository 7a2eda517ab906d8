//! Opt-outs from refused messages: if Twilio refuses a message because its recipient opted out (21610, 63014), the
//! recipient is suppressed, as after a status callback with that code. Adds no rule of its own, and does not call
//! Twilio.

use std::sync::Arc;

use twilio_edge_contract::Opt;

use crate::access::marketing::Withdrawal;
use twilio_edge_domain::{
    address::Address,
    email::error_code::EmailErrorCode,
    optout::{Arrival, Lexicon},
    suppression::{OptEvent, Source},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{OutboundMessage, ReceivedOpt, Stores};

/// Route of the recorded opt-outs.
const ROUTE: &str = "/v1/messages";

/// Records opt-outs that refusals of Twilio report.
#[derive(Clone)]
pub struct OptOutRecorder {
    /// Store of suppressions and consents.
    pub stores: Stores,
    /// Codes that mean an opt-out or a withdrawal of consent to marketing.
    pub lexicon: Arc<Lexicon>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
}

impl OptOutRecorder {
    /// Suppresses the recipient, or records a withdrawal of consent to marketing, if the code means that. Call it
    /// before the refusal is stored: if the process dies in between, the message is sent again and refused again.
    pub async fn record(&self, message: &OutboundMessage, recipient: &Address, code: &str) {
        if self.lexicon.withdraws_marketing(code) {
            let withdrawal = Withdrawal {
                account_sid: message.account_sid.clone(),
                address: recipient.clone(),
                error_code: code.to_owned(),
                message_sid: message.id.clone(),
            };
            if let Err(reason) = withdrawal.record(&self.stores.consents(), now_ms()).await {
                tracing::error!(event = "consent.persist_failed", %reason, message.id = %message.id, code, "the sidecar could not record a refusal by Twilio as a withdrawn consent");
            }
        }
        let of_email = code.parse::<EmailErrorCode>().is_ok_and(EmailErrorCode::suppresses);
        if !of_email && !self.lexicon.suppresses(code) {
            return;
        }
        let service_sid = Some(message.sender.clone()).filter(|sender| sender.starts_with("MG"));
        let sender = Address::parse(&message.sender).filter(|_| service_sid.is_none());
        let event = OptEvent {
            opt: Opt::Stop,
            source: Source::Callback,
            arrival: Arrival::OnTime,
            account_sid: message.account_sid.clone(),
            message_sid: message.id.clone(),
            address: recipient.clone(),
            error_code: code.to_owned(),
            route: ROUTE.to_owned(),
            sender: sender.map(|sender| sender.number).unwrap_or_default(),
            service_sid,
        };
        let received = ReceivedOpt { event, reply: None };
        match self.stores.record_opts(vec![received], now_ms()).await {
            Ok(effects) => {
                if effects.iter().any(|effect| effect.has_changed) {
                    self.metrics.webhooks.suppression_changed(true, Source::Callback);
                }
                tracing::info!(event = "suppression.changed", message.id = %message.id, account.sid = %message.account_sid, address = %recipient, code, "the sidecar recorded a suppression");
            }
            Err(reason) => {
                tracing::error!(event = "optout.persist_failed", %reason, message.id = %message.id, code, "the sidecar could not record a refusal by Twilio as an opt-out");
            }
        }
    }
}
