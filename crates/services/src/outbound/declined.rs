//! Messages that a rule declined before they were accepted. Each has a row without content, so that the notification log has every
//! message that an application wanted to send, with the reason why it was not sent.

use twilio_edge_domain::{
    refusal::RefusalCode,
    sending::{request::Request, statistics::MessageEvent},
};
use twilio_edge_store::OutboundMessage;

use crate::outbound::sending::{NOTIFICATION_PREFIX, PREFIX, Sending, masked};

/// State of a message that a rule declined before it was accepted.
pub const DECLINED: &str = "declined";

/// Reason why a message was declined.
#[derive(Debug, Clone, Copy)]
pub struct Decline<'a> {
    /// Code of the rule.
    pub code: RefusalCode,
    /// The reason in words.
    pub reason: &'a str,
    /// Digest that copies of the request share, if it has an idempotency key. They have one row.
    pub copies: Option<&'a str>,
}

impl Sending {
    /// Records that a rule declined a message. Its row has no content.
    pub async fn decline(&self, request: &Request, by: &str, decline: Decline<'_>, now_ms: i64) {
        let row = match self.row(request, by, None, now_ms) {
            Ok(row) => row,
            Err(reason) => return report_failure(&reason.to_string()),
        };
        // Callers could name any number of senders and templates.
        let has_sender =
            !matches!(decline.code, RefusalCode::NoCredentials | RefusalCode::SenderUnknown);
        let has_template = request.template.is_some();
        let row = OutboundMessage {
            sender: Some(row.sender).filter(|_| has_sender).unwrap_or_default(),
            template: Some(row.template).filter(|_| has_template).unwrap_or_default(),
            ..row
        };
        self.record_declined(row, decline, now_ms).await;
    }

    /// Counts and records a declined message by its row. A failure of the database does not change the answer to the caller.
    pub async fn record_declined(
        &self,
        mut row: OutboundMessage,
        decline: Decline<'_>,
        now_ms: i64,
    ) {
        let code = decline.code.as_str();
        self.metrics.messages.refused(decline.code);
        self.messages.count_refusal(row.count(MessageEvent::Refused, code, now_ms));
        if let Some(digits) = decline.copies.and_then(|digest| digest.get(..32)) {
            row.id = format!("{PREFIX}{digits}");
            row.notification_id = format!("{NOTIFICATION_PREFIX}{digits}");
        }
        row.recipient = masked(&row);
        (row.state, row.code) = (DECLINED.to_owned(), code.to_owned());
        decline.reason.clone_into(&mut row.reason);
        (row.form, row.fallback, row.fallback_to) = Default::default();
        (row.repeat_until_ms, row.valid_until_ms) = (0, 0);
        self.store_declined(&[row]).await;
    }

    /// Stores the rows of declined messages. A failure of the database is only logged.
    pub(super) async fn store_declined(&self, rows: &[OutboundMessage]) {
        if let Err(reason) = self.messages.add_all(rows, None, Vec::new()).await {
            report_failure(&reason.to_string());
        }
    }
}

fn report_failure(reason: &str) {
    tracing::warn!(
        event = "notification.persist_failed",
        reason,
        "the sidecar could not store a declined message; the notification log does not have it"
    );
}
