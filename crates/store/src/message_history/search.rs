//! Search for messages and webhooks, and the check whether one of them matches. The functions are pure: this module must
//! not know where the data comes from.

use super::WebhooksByMessage;
use twilio_edge_domain::{
    cursor::Cursor,
    message::{Direction, Message, NumberQuery, RecordedWebhook},
};

/// Conditions and position of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Account SID of all results.
    pub account_sid: String,
    /// Sender of the message.
    pub from: Option<NumberQuery>,
    /// Recipient of the message.
    pub to: Option<NumberQuery>,
    /// Sender or recipient of the message.
    pub number: Option<NumberQuery>,
    /// Start of the period, inclusive, in milliseconds since 1970.
    pub since_ms: i64,
    /// End of the period, exclusive, in milliseconds since 1970.
    pub until_ms: i64,
    /// Current status of a message, or the status that a webhook reports.
    pub status: Option<String>,
    /// Current error code of a message. Only for lists of messages.
    pub error_code: Option<String>,
    /// Template of an outbound message that this installation accepted: its name in the catalogue, or its content SID. Only
    /// for lists of messages.
    pub template: Option<String>,
    /// Sender of such a message: an address, or the SID of a Messaging Service. Only for lists of messages.
    pub sender: Option<String>,
    /// State of a message: that of an outbound message's row, `sent` for another outbound message, or `received`. Only for
    /// lists of messages.
    pub state: Option<String>,
    /// Inbound or outbound messages only.
    pub direction: Option<Direction>,
    /// `true`: status callbacks only; `false`: inbound messages only.
    pub is_status: Option<bool>,
    /// Webhooks of this message only.
    pub message_sid: Option<String>,
    /// Position: the end of the previous page.
    pub after: Option<Cursor>,
    /// Maximum number of results.
    pub limit: usize,
}

impl Search {
    /// Returns the search for everything of an account.
    pub fn of(account_sid: &str, limit: usize) -> Search {
        Search {
            account_sid: account_sid.to_owned(),
            from: None,
            to: None,
            number: None,
            since_ms: i64::MIN,
            until_ms: i64::MAX,
            status: None,
            error_code: None,
            template: None,
            sender: None,
            state: None,
            direction: None,
            is_status: None,
            message_sid: None,
            after: None,
            limit,
        }
    }

    fn is_about(&self, webhook: &RecordedWebhook) -> bool {
        self.direction.is_none_or(|direction| direction == webhook.direction)
            && self.is_status.is_none_or(|is_status| is_status == webhook.is_status)
            && webhook.has_ends(self.from.as_ref(), self.to.as_ref())
            && self.number.as_ref().is_none_or(|number| webhook.involves(number))
    }

    /// Returns the key of the earliest webhook of a message that the walk passes.
    fn first_key<'a>(&self, webhooks: &'a [RecordedWebhook]) -> Option<&'a String> {
        let about =
            webhooks.iter().filter(|webhook| webhook.route.is_some() && self.is_about(webhook));
        about.map(|webhook| (webhook.received_ms, &webhook.key)).min().map(|(_, key)| key)
    }

    /// Returns the message if this is its first webhook: a message is listed there, and not at each of its webhooks.
    pub(super) fn message_at(
        &self,
        webhook: RecordedWebhook,
        by_message: &mut WebhooksByMessage,
    ) -> Option<Message> {
        let webhooks = by_message.get(&webhook.message_sid)?;
        let is_first = self.first_key(webhooks) == Some(&webhook.key);
        let webhooks = is_first.then(|| by_message.remove(&webhook.message_sid)).flatten()?;
        Message::of(webhooks).filter(|message| {
            self.wants(&message.status)
                && self
                    .error_code
                    .as_ref()
                    .is_none_or(|code| message.error_code.as_ref() == Some(code))
        })
    }

    pub(super) fn event_at(
        &self,
        webhook: RecordedWebhook,
        _: &mut WebhooksByMessage,
    ) -> Option<RecordedWebhook> {
        self.listed(webhook)
    }

    pub(super) fn listed(&self, webhook: RecordedWebhook) -> Option<RecordedWebhook> {
        Some(webhook).filter(|webhook| {
            !webhook.is_step() && self.is_about(webhook) && self.wants(&webhook.status)
        })
    }

    fn wants(&self, status: &str) -> bool {
        self.status.as_ref().is_none_or(|wanted| wanted == status)
    }
}
