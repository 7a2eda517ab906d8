//! Mail providers: SendGrid and SMTP servers, for the accounts whose settings are configured. Makes one call for one e-mail,
//! and reports whether the provider may have it when the call failed. The settings are read from a file once, at start.

mod accounts;
mod send_grid;
mod smtp;

use std::{collections::BTreeMap, sync::Arc};

pub use self::accounts::problems;
use self::accounts::{Account, Service, read};
pub use self::{send_grid::SendGrid, smtp::Smtp};
use twilio_edge_domain::{
    email::{EmailAddress, content::Mailbox, signature::EventKey},
    sending::{provider::Provider, rate_limit::Rate},
};
use twilio_edge_platform::{config, file_access};

/// Accounts that send e-mails. Copies share the settings.
#[derive(Clone, Default)]
pub struct EmailAccounts(Arc<BTreeMap<String, Account>>);

impl EmailAccounts {
    /// Reads the accounts of the configured file, if there is one. Returns every problem of the file.
    pub fn open(settings: &config::Email) -> Result<EmailAccounts, Vec<String>> {
        if settings.file.is_empty() {
            return Ok(EmailAccounts::default());
        }
        let text =
            file_access::read_secret(settings.file.as_ref()).map_err(|problem| vec![problem])?;
        read(&text).map(|accounts| EmailAccounts(Arc::new(accounts)))
    }

    /// Returns the provider of an account; `None` if the account sends no e-mails.
    pub fn provider(&self, account_sid: &str) -> Option<Provider> {
        self.0.get(account_sid).map(|account| match account.service {
            Service::SendGrid(_) => Provider::SendGrid,
            Service::Smtp(_) => Provider::Smtp,
        })
    }

    /// Returns whether an account uses this provider.
    pub fn uses(&self, provider: Provider) -> bool {
        self.0.keys().any(|sid| self.provider(sid) == Some(provider))
    }

    /// Returns the default sender of an account.
    pub fn default_sender(&self, account_sid: &str) -> Option<&Mailbox> {
        self.0.get(account_sid).map(|account| &account.from)
    }

    /// Returns whether an account may send from an address: its default sender, or another one that its settings list.
    pub fn may_send_from(&self, account_sid: &str, address: &EmailAddress) -> bool {
        self.0.get(account_sid).is_some_and(|account| {
            account.from.address == address.as_str()
                || account.senders.iter().any(|sender| sender == address.as_str())
        })
    }

    /// Returns the rate of a sender; `None` for a sender that is no address of e-mail.
    pub fn rate(&self, account_sid: &str, sender: &str) -> Option<Rate> {
        let account = self.0.get(account_sid).filter(|_| sender.contains('@'))?;
        account.rate
    }

    /// Returns SendGrid's verification key of an account.
    pub fn event_key(&self, account_sid: &str) -> Option<&EventKey> {
        match &self.0.get(account_sid)?.service {
            Service::SendGrid(account) => account.event_key.as_ref(),
            Service::Smtp(_) => None,
        }
    }
}
