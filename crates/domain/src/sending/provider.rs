//! Providers: the services that take outbound messages. A message belongs to one of them from its acceptance to its end.

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
