//! A Twilio on this machine, to develop and test against without sending anything to anybody: REST for messages, media
//! and content, messages that get somewhere on a clock, signed webhooks, and what goes wrong on demand (docs/SIMULATOR.md).
//!
//! ```text
//! rest.rs, resources.rs ->  request.rs, faults.rs, content.rs, listing.rs, limit.rs  ->  messages.rs
//!                                                                  what is asked, what there is       pure but rest
//! control.rs  ->  ledger.rs                          ->  journey.rs    what happens to it, and when       pure
//! delivery.rs ->  webhook.rs, post.rs                                  telling of it, as Twilio does
//! ```

mod content;
mod control;
mod delivery;
mod faults;
mod journey;
mod ledger;
mod limit;
mod line;
mod listing;
mod messages;
mod post;
mod refusal;
mod request;
mod resources;
mod rest;
pub mod webhook;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

pub use self::content::{Content, usual as usual_catalogue};
pub use self::faults::reference;
use self::ledger::Ledger;
use self::limit::Limit;
use twilio_edge_platform::{
    listener as doors,
    listener::admission::{Admission, Limits},
    metrics::Metrics,
};

/// How long answers under way may take when it is told to stop.
const GRACE: Duration = Duration::from_secs(2);

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

struct Shared {
    settings: Settings,
    ledger: Mutex<Ledger>,
    limit: Mutex<Limit>,
    /// Something was put on the agenda.
    planned: Notify,
    client: reqwest::Client,
    counts: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// What `/simulator/contents` has not taken away.
    catalogue: Mutex<Vec<Content>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(&'static str, u16), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalogue(&self) -> MutexGuard<'_, Vec<Content>> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: &'static str, status: u16) {
        let mut counts = self.counts();
        let count = counts.entry((what, status)).or_default();
        *count = count.saturating_add(1);
    }

    fn account(&self, sid: &str) -> Option<&Account> {
        self.settings.accounts.iter().find(|account| account.sid == sid)
    }
}

/// Answers on `listener` until `stop`, and moves messages on meanwhile.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let client = post::client(Duration::from_secs(5)).map_err(io::Error::other)?;
    let ledger = Mutex::new(Ledger::new(&settings));
    let limit = Mutex::new(Limit::new(settings.requests_per_second));
    let catalogue = Mutex::new(settings.catalogue.clone());
    let shared = Arc::new(Shared {
        settings,
        catalogue,
        ledger,
        limit,
        planned: Notify::new(),
        client,
        counts: Mutex::default(),
    });
    let router = rest::router().merge(control::router()).with_state(Arc::clone(&shared));
    let stopping = Arc::new(Notify::new());
    let asked = Arc::clone(&stopping);
    let admission = Admission::new(Limits::local(), Metrics::default().listeners.listener("main"));
    let stopped = async move { asked.notified().await };
    let served = doors::server::serve(line::Lines(listener), router, admission, stopped);
    let ending = async {
        stop.await;
        stopping.notify_one();
        // Whoever gets no answer on purpose would wait for ever.
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = served => Ok(()),
        () = ending => Ok(()),
        () = delivery::run(&shared) => Ok(()),
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A prefix and 32 random hexadecimal digits.
fn fresh_sid(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness of the system nothing else here would work either; the time still tells SIDs apart.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = jiff::Timestamp::now().as_nanosecond().to_be_bytes();
    }
    format!("{prefix}{:032x}", u128::from_be_bytes(bytes))
}
