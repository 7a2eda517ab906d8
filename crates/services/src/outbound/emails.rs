//! E-mails: outbound messages on the channel `email`. Chooses the provider of the account and completes the sender; the rules,
//! the dispatcher and the stores treat an e-mail as every other message.

use crate::outbound::sending::Sending;
use twilio_edge_domain::{
    address::Address,
    email::{CHANNEL, EmailAddress},
    sending::{
        fallback::Fallback,
        provider::Provider,
        request::{Content, Request, Sender},
    },
};

impl Sending {
    /// Returns the provider that takes a message; `None` for an e-mail of an account that sends none.
    pub(super) fn provider(&self, request: &Request) -> Option<Provider> {
        match request.content {
            Content::Email(_) => self.emails.provider(&request.account_sid),
            Content::Session { .. } | Content::Named { .. } | Content::Template { .. } => {
                Some(Provider::Messaging)
            }
        }
    }

    /// Completes an e-mail: with the default sender of the account if the request names none. An address that the account may
    /// not send from is no sender. An e-mail has no fallback.
    pub(super) fn complete_email(&self, mut request: Request) -> Request {
        let account_sid = &request.account_sid;
        let mut sender = None;
        if let Content::Email(email) = &mut request.content {
            if let Some(usual) = self.emails.default_sender(account_sid) {
                let is_usual = email.from.address == usual.address;
                if email.from.address.is_empty() {
                    email.from = usual.clone();
                } else if is_usual && email.from.name.is_empty() {
                    email.from.name.clone_from(&usual.name);
                }
            }
            let from = EmailAddress::parse(&email.from.address).ok();
            let permitted = from.filter(|from| self.emails.may_send_from(account_sid, from));
            sender = permitted.map(|from| {
                let number = from.as_str().to_owned();
                Sender::From(Address { channel: CHANNEL.to_owned(), number })
            });
        }
        Request { sender, fallback: Some(Fallback::default()), ..request }
    }
}
