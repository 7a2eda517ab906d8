//! Codes of e-mails that were not sent or not delivered, with the party that must act. Twilio's codes are in another table
//! ([`crate::sending::errors`]), because these have no numbers.

use std::fmt::Write as _;

use crate::actor::Actor;

twilio_edge_contract::string_enum! {
    /// Code of an e-mail that was not sent or not delivered.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum EmailErrorCode {
        /// The mailbox does not exist, or refused the e-mail for good.
        Bounced = "email_bounced",
        /// The mail server refused this e-mail; the mailbox may exist.
        Blocked = "email_blocked",
        /// SendGrid did not send the e-mail, for a reason that is not about the recipient.
        Dropped = "email_dropped",
        /// The recipient reported an e-mail as spam.
        SpamReported = "email_spam_reported",
        /// The recipient unsubscribed.
        Unsubscribed = "email_unsubscribed",
        /// The provider refused the request.
        Refused = "email_refused",
        /// The provider refused the credentials, or they do not permit sending.
        Unauthorized = "email_unauthorized",
        /// The e-mail is larger than the provider accepts.
        TooLarge = "email_too_large",
    }
}

impl EmailErrorCode {
    /// Returns the party that must act.
    pub fn actor(self) -> Actor {
        match self {
            EmailErrorCode::Unsubscribed | EmailErrorCode::SpamReported => Actor::Recipient,
            EmailErrorCode::Bounced | EmailErrorCode::Refused | EmailErrorCode::TooLarge => {
                Actor::Caller
            }
            EmailErrorCode::Blocked | EmailErrorCode::Dropped | EmailErrorCode::Unauthorized => {
                Actor::Operator
            }
        }
    }

    /// Returns the remedy.
    pub fn remedy(self) -> &'static str {
        match self {
            EmailErrorCode::Bounced => {
                "Ask the contact for another address. The sidecar sends nothing more to this one until an administrator ends the suppression."
            }
            EmailErrorCode::Blocked => {
                "Read the reason. It is about your domain, your IP address or the content: check SPF, DKIM and block lists."
            }
            EmailErrorCode::Dropped => {
                "Read the reason and correct the SendGrid account, for instance its quota."
            }
            EmailErrorCode::SpamReported => {
                "Send the contact no more e-mails. The sidecar sends none until an administrator ends the suppression."
            }
            EmailErrorCode::Unsubscribed => {
                "Send the contact no more e-mails. An administrator ends the suppression if the contact asks for it."
            }
            EmailErrorCode::Refused => {
                "Correct the field that the reason names, such as the template id."
            }
            EmailErrorCode::Unauthorized => {
                "Correct the account in the file of email.file. SendGrid needs a key with the permission Mail Send, and a verified sender."
            }
            EmailErrorCode::TooLarge => "Send less content, or a link to it.",
        }
    }

    /// Returns whether the address is suppressed.
    pub fn suppresses(self) -> bool {
        matches!(
            self,
            EmailErrorCode::Bounced | EmailErrorCode::SpamReported | EmailErrorCode::Unsubscribed
        )
    }
}

/// Renders the table of docs/EMAIL.md.
pub fn reference() -> String {
    let mut text = "| code | suppresses | actor | remedy |\n|---|---|---|---|\n".to_owned();
    for code in EmailErrorCode::ALL {
        let suppresses = if code.suppresses() { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| `{}` | {suppresses} | {} | {} |",
            code.as_str(),
            code.actor().as_str(),
            code.remedy()
        );
    }
    text
}
