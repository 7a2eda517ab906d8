//! Replies to opt-out keywords, opt-in keywords and requests for help. A reply is a message like any other: the store
//! queues it in the transaction that records its keyword, and the dispatcher evaluates the rules about the recipient before
//! it calls Twilio. Only the suppression that the keyword began does not forbid it. The policy has the texts.

use twilio_edge_domain::{
    address::Address,
    contact,
    keyword_reply::ReceivedKeyword,
    media::MediaCheck,
    optout::Cause,
    policy::{Category, Policy},
    sending::{
        request::{Content, Request, Sender},
        rules::{Facts, evaluate},
    },
    webhook::Webhook,
};
use twilio_edge_store::{OutboundMessage, StoreError};

use crate::outbound::sending::{Sending, refuse};

/// Author of the replies.
const CREATED_BY: &str = "keyword reply";

impl Sending {
    /// Builds the reply to the keyword of a webhook, from the number that received it. Returns `None` if the account wants no
    /// reply, or if Twilio answers. The reply is in state `refused` if a rule forbids it that does not depend on the
    /// recipient. It has no fallback.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the id.
    pub fn reply_to(
        &self,
        webhook: &Webhook,
        policy: &Policy,
        now_ms: i64,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let Some(inbound) = &webhook.inbound else { return Ok(None) };
        // With an `OptOutType`, Twilio's Advanced Opt-Out has sent the answer.
        let Some((keyword, Cause::Keyword)) = inbound.opt else { return Ok(None) };
        let participants = &inbound.participants;
        let contact = &participants.theirs;
        let country = contact::country(&contact.channel, &contact.number);
        let received = ReceivedKeyword {
            keyword,
            languages: &inbound.languages,
            channel: &contact.channel,
            country: country.as_deref(),
        };
        let Some(text) = policy.reply(received) else { return Ok(None) };
        let content = Content::Session { body: text.to_owned(), media: Vec::new() };
        let ours = Some(&participants.ours).filter(|ours| !ours.is_empty());
        let sender = ours.map(|ours| {
            Sender::From(Address { channel: contact.channel.clone(), number: ours.clone() })
        });
        let request = Request {
            sender,
            category: Some(Category::Service),
            ..Request::new(participants.account_sid.clone(), contact.clone(), content)
        };
        let routing = self.routes.current();
        let facts = Facts {
            has_credentials: self.twilio.has_credentials(&request.account_sid),
            has_email_templates: false,
            routes: routing.of(&request.account_sid),
            media: &MediaCheck::NoMedia,
            checks: Vec::new(),
            offers: Vec::new(),
        };
        let verdicts = evaluate(&request, facts);
        let mut row = self.row(&request, CREATED_BY, None, now_ms)?;
        row.reply_to.clone_from(&webhook.identity.message_sid);
        row.reply_keyword = keyword.as_str().to_owned();
        self.permit_repetitions(&mut row);
        refuse(&mut row, &verdicts);
        Ok(Some(row))
    }
}
