//! State of the simulator: its settings, and what its handlers share.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{content::Content, ledger::Ledger, limit::Limit};

/// An account that may call.
#[derive(Clone)]
pub struct Account {
    /// `AC..`
    pub sid: String,
    /// What it signs webhooks with; also a password.
    pub auth_token: String,
    /// API keys: `SK..` and its secret.
    pub api_keys: Vec<(String, String)>,
}

/// What may be chosen.
#[derive(Clone)]
pub struct Settings {
    /// Who may call.
    pub accounts: Vec<Account>,
    /// Templates.
    pub catalogue: Vec<Content>,
    /// Milliseconds from one status of a message to the next.
    pub step_ms: u32,
    /// How many times as fast as Twilio's what takes time is over.
    pub speed: u32,
    /// Requests of an account that are answered in a second; 0: all.
    pub requests_per_second: u32,
    /// Messages a sender sends in a second.
    pub mps: u32,
    /// How long it takes to answer a request for a message, in milliseconds; the message is there after half of it.
    pub latency_ms: u32,
    /// Messages that are remembered.
    pub capacity: usize,
    /// Whether a free text to WhatsApp needs a message of that person within 24 hours.
    pub windows: bool,
    /// Where people's messages are told.
    pub inbound_url: String,
    /// Where they are told when that fails.
    pub inbound_fallback_url: Option<String>,
}

/// State that all handlers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) limit: Mutex<Limit>,
    /// Something was put on the agenda.
    pub(crate) planned: Notify,
    pub(crate) client: reqwest::Client,
    pub(crate) counts: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// What `/simulator/contents` has not taken away.
    pub(crate) catalogue: Mutex<Vec<Content>>,
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

/// A prefix and 32 random hexadecimal digits.
pub(crate) fn fresh_sid(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness of the system nothing else here would work either; the time still tells SIDs apart.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = jiff::Timestamp::now().as_nanosecond().to_be_bytes();
    }
    format!("{prefix}{:032x}", u128::from_be_bytes(bytes))
}
