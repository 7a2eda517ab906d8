//! Providers: the services that take outbound messages. A message belongs to one of them from its acceptance to its end.

use super::{flow::is_execution_sid, outcome::is_message_sid, verification::is_verification_sid};
use crate::email::outcome::is_provider_id;

twilio_edge_contract::string_enum! {
    /// Service that takes outbound messages. Each has its own API, and its own client.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Provider {
        /// Twilio's API of messages.
        #[default]
        Messaging = "messaging",
        /// Twilio Verify, which sends one-time passwords.
        Verify = "verify",
        /// SendGrid's API of e-mails.
        SendGrid = "sendgrid",
        /// Mail server, by SMTP.
        Smtp = "smtp",
        /// Twilio Studio, which runs flows.
        Studio = "studio",
    }
}

impl Provider {
    /// Returns whether `text` is an id of something that this provider accepted.
    pub fn is_id(self, text: &str) -> bool {
        match self {
            Provider::Messaging => is_message_sid(text),
            Provider::Verify => is_verification_sid(text),
            Provider::Studio => is_execution_sid(text),
            Provider::SendGrid | Provider::Smtp => is_provider_id(text),
        }
    }

    /// Returns the form of these ids, for errors.
    pub const fn id_form(self) -> &'static str {
        match self {
            Provider::Messaging => "SM or MM and 32 hexadecimal digits",
            Provider::Verify => "VE and 32 hexadecimal digits",
            Provider::Studio => "FN and 32 hexadecimal digits",
            Provider::SendGrid | Provider::Smtp => "the provider's id of the e-mail",
        }
    }
}
