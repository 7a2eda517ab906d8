//! Search for messages and webhooks, and the check whether one of them matches. The functions are pure: this module must
//! not know where the data comes from.

use super::Stories;
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
            direction: None,
            is_status: None,
            message_sid: None,
            after: None,
            limit,
        }
    }

    fn is_about(&self, heard: &RecordedWebhook) -> bool {
        self.direction.is_none_or(|direction| direction == heard.direction)
            && self.is_status.is_none_or(|is_status| is_status == heard.is_status)
            && heard.has_ends(self.from.as_ref(), self.to.as_ref())
            && self.number.as_ref().is_none_or(|number| heard.involves(number))
    }

    /// Returns the key of the earliest webhook of a message that the walk passes.
    fn first_of<'a>(&self, story: &'a [RecordedWebhook]) -> Option<&'a String> {
        let about = story.iter().filter(|heard| heard.route.is_some() && self.is_about(heard));
        about.map(|heard| (heard.received_ms, &heard.key)).min().map(|(_, key)| key)
    }

    /// Returns the message if this is its first webhook: a message is listed there, and not at each of its webhooks.
    pub(super) fn message_at(
        &self,
        heard: RecordedWebhook,
        stories: &mut Stories,
    ) -> Option<Message> {
        let story = stories.get(&heard.message_sid)?;
        let is_first = self.first_of(story) == Some(&heard.key);
        let story = is_first.then(|| stories.remove(&heard.message_sid)).flatten()?;
        Message::of(story).filter(|message| self.wants(&message.status))
    }

    pub(super) fn event_at(
        &self,
        heard: RecordedWebhook,
        _: &mut Stories,
    ) -> Option<RecordedWebhook> {
        self.listed(heard)
    }

    pub(super) fn listed(&self, heard: RecordedWebhook) -> Option<RecordedWebhook> {
        Some(heard)
            .filter(|heard| !heard.is_step() && self.is_about(heard) && self.wants(&heard.status))
    }

    fn wants(&self, status: &str) -> bool {
        self.status.as_ref().is_none_or(|wanted| wanted == status)
    }
}
