//! What is asked of the ledger about messages and webhooks, and whether one of them is what was asked for. Pure: where they
//! come from is not known here.

use super::Stories;
use twilio_edge_domain::{
    cursor::Cursor,
    message::{Direction, Message, Number, RecordedWebhook},
};

/// Which messages or webhooks are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The account, whose they all are.
    pub account_sid: String,
    /// Who sent the message.
    pub from: Option<Number>,
    /// Who it was sent to.
    pub to: Option<Number>,
    /// Either of the two.
    pub number: Option<Number>,
    /// Not heard of before, in milliseconds since 1970.
    pub since_ms: i64,
    /// Heard of before, in milliseconds since 1970.
    pub until_ms: i64,
    /// Where a message has got to; of a webhook, what it says.
    pub status: Option<String>,
    /// Messages that came, or those we sent.
    pub direction: Option<Direction>,
    /// Statuses only, or messages that came only.
    pub is_status: Option<bool>,
    /// Webhooks of this message only.
    pub message_sid: Option<String>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl Search {
    /// Everything of an account.
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
            && heard.goes(self.from.as_ref(), self.to.as_ref())
            && self.number.as_ref().is_none_or(|number| heard.concerns(number))
    }

    /// The earliest of a message's webhooks that a walk comes by.
    fn first_of<'a>(&self, story: &'a [RecordedWebhook]) -> Option<&'a String> {
        let about = story.iter().filter(|heard| heard.route.is_some() && self.is_about(heard));
        about.map(|heard| (heard.heard_ms, &heard.key)).min().map(|(_, key)| key)
    }

    /// The message whose first webhook this is: it is listed there, and not at each of them.
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
