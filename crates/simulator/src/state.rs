//! State of the simulator: its settings, and what its handlers share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    content::Content, executions::Executions, ledger::Ledger, limit::Limit,
    verifications::Verifications,
};

/// E-mail that the simulator accepted, for the overview.
#[derive(Debug, Clone)]
pub(crate) struct Email {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) template_id: Option<String>,
}

/// Account with access to the simulator.
#[derive(Clone)]
pub struct Account {
    /// Account SID, `AC..`.
    pub sid: String,
    /// Auth token: signs webhooks, and is a password.
    pub auth_token: String,
    /// API keys: `SK..` and its secret.
    pub api_keys: Vec<(String, String)>,
}

/// Settings of the simulator.
#[derive(Clone)]
pub struct Settings {
    /// Accounts with access.
    pub accounts: Vec<Account>,
    /// Catalogue of templates.
    pub catalogue: Vec<Content>,
    /// Time from one status of a message to the next, in milliseconds.
    pub step_ms: u32,
    /// Speed factor for everything that takes time.
    pub speed: u32,
    /// Requests per second and account; 0 disables the limit.
    pub requests_per_second: u32,
    /// Messages per second and sender.
    pub mps: u32,
    /// Time to answer a request for a message, in milliseconds; the message exists after half of it.
    pub latency_ms: u32,
    /// Largest number of stored messages.
    pub capacity: usize,
    /// True if a free text to WhatsApp needs a message of the contact within 24 hours.
    pub windows: bool,
    /// Webhook URL for inbound messages.
    pub inbound_url: String,
    /// Webhook URL that is called if the first one fails.
    pub inbound_fallback_url: Option<String>,
    /// URL for the events about e-mails; `None`: no events.
    pub email_events_url: Option<String>,
}

/// E-mails that the simulator accepted, recipients that it throttled once, and the URL for events.
#[derive(Debug, Default)]
pub(crate) struct Emails {
    pub(crate) events_url: Option<String>,
    pub(crate) list: Vec<Email>,
    throttled: BTreeSet<String>,
}

impl Emails {
    pub(crate) fn new(events_url: Option<String>) -> Emails {
        Emails { events_url, ..Emails::default() }
    }
}

/// State that all handlers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) limit: Mutex<Limit>,
    /// Notified when a step is added to the agenda.
    pub(crate) planned: Notify,
    pub(crate) client: reqwest::Client,
    pub(crate) counts: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Verifications of Twilio Verify.
    pub(crate) verifications: Mutex<Verifications>,
    /// Executions of Studio flows.
    pub(crate) executions: Mutex<Executions>,
    /// Current catalogue, as changed by `/simulator/contents`.
    pub(crate) catalogue: Mutex<Vec<Content>>,
    pub(crate) emails: Mutex<Emails>,
}

impl Shared {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, BTreeMap<(&'static str, u16), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalogue(&self) -> MutexGuard<'_, Vec<Content>> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emails(&self) -> MutexGuard<'_, Emails> {
        self.emails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores accepted e-mails; returns false if there are too many.
    pub(crate) fn keep_emails(&self, emails: Vec<Email>) -> bool {
        let mut kept = self.emails();
        let has_room = kept.list.len().saturating_add(emails.len()) <= self.settings.capacity;
        if has_room {
            kept.list.extend(emails);
        }
        has_room
    }

    /// Returns whether none of these recipients was throttled before, and remembers them.
    pub(crate) fn is_first_of(&self, recipients: &[String]) -> bool {
        let mut emails = self.emails();
        let has_room = emails.throttled.len() < self.settings.capacity;
        recipients.iter().all(|to| has_room && emails.throttled.insert(to.clone()))
    }

    pub(crate) fn verifications(&self) -> MutexGuard<'_, Verifications> {
        self.verifications.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn executions(&self) -> MutexGuard<'_, Executions> {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, what: &'static str, status: u16) {
        let mut counts = self.counts();
        let count = counts.entry((what, status)).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn account(&self, sid: &str) -> Option<&Account> {
        self.settings.accounts.iter().find(|account| account.sid == sid)
    }
}

/// Returns the time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Returns a prefix and 32 random hexadecimal digits.
pub(crate) fn fresh_sid(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    // The rest of the program fails as well without the system's randomness; the time still distinguishes SIDs.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = jiff::Timestamp::now().as_nanosecond().to_be_bytes();
    }
    format!("{prefix}{:032x}", u128::from_be_bytes(bytes))
}
