//! Reads the templates of each account from Twilio's Content API, every so often, one sidecar at a time. What cannot be read
//! changes nothing but the log, a metric and how old the catalogue is said to be.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use super::Templates;
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::template::{
    Template,
    catalogue::{self, Change},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::StoreError;

/// How often to see whether an account's turn is due.
const LOOK: Duration = Duration::from_secs(1);

/// Most templates of an account: WhatsApp has less than that.
const MOST: usize = 10_000;

/// Most pages of a list, whatever its pages hold.
const MOST_PAGES: usize = 400;

/// Who changed it, in the audit, and where that was seen.
const WHO: (&str, &str) = ("twilio", "Content API");

/// Reads what Twilio has.
#[derive(Clone)]
pub struct Syncer {
    /// Where it is kept.
    pub templates: Templates,
    /// Who is asked.
    pub twilio: Twilio,
    /// How often.
    pub every: Duration,
}

/// Why an account's templates were not read.
#[derive(Debug)]
pub enum Unsynced {
    /// Twilio did not show them.
    Twilio(String),
    /// They could not be kept.
    Store(StoreError),
}

impl From<StoreError> for Unsynced {
    fn from(error: StoreError) -> Unsynced {
        Unsynced::Store(error)
    }
}

impl Syncer {
    /// Does it for ever, for every account there are credentials of.
    pub fn start(self, metrics: Arc<Metrics>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let begun_ms = now_ms();
            let mut told = BTreeSet::new();
            loop {
                for account_sid in self.twilio.account_sids() {
                    self.turn(&account_sid, &metrics, &mut told).await;
                }
                let read_ms = |sid: String| match self.templates.age(&sid).synced_at_ms {
                    0 => begun_ms,
                    read_ms => read_ms,
                };
                let oldest_ms = self.twilio.account_sids().map(read_ms).min();
                metrics.templates.read_at(oldest_ms.unwrap_or(begun_ms), now_ms());
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    async fn turn(&self, account_sid: &str, metrics: &Metrics, told: &mut BTreeSet<String>) {
        let at_ms = now_ms();
        // Who dies in the middle has lost it after that.
        let until_ms = at_ms.saturating_add(millis(self.every.max(self.twilio.timeout() * 2)));
        let store = &self.templates.store;
        // A database that is away is told of by those who send.
        if !matches!(store.turn(account_sid, at_ms, until_ms).await, Ok(true)) {
            return;
        }
        let due_at_ms = at_ms.saturating_add(millis(self.every));
        match self.sync(account_sid, due_at_ms).await {
            Ok(changes) => {
                metrics.templates.synced("read", &changes);
                told.remove(account_sid);
                if !changes.is_empty() {
                    tracing::info!(
                        event = "templates.changed",
                        account.sid = account_sid,
                        count = changes.len(),
                        "templates are not as they were; the audit has each"
                    );
                }
            }
            Err(Unsynced::Twilio(reason)) => {
                metrics.templates.synced("failed", &[]);
                let _ = store.failed(account_sid, &reason, due_at_ms).await;
                if told.insert(account_sid.to_owned()) {
                    tracing::warn!(
                        event = "templates.unsynced",
                        account.sid = account_sid,
                        reason,
                        "templates could not be read from Twilio; those that were last read count"
                    );
                }
            }
            Err(Unsynced::Store(reason)) => {
                metrics.templates.synced("failed", &[]);
                tracing::warn!(event = "templates.unkept", account.sid = account_sid, %reason, "templates that were read could not be written down; they are read again");
            }
        }
    }

    /// Reads an account's templates now, whoever's turn it is; what has changed. The next time is `due_at_ms`.
    pub async fn sync(&self, account_sid: &str, due_at_ms: i64) -> Result<Vec<Change>, Unsynced> {
        let listed = self.listed(account_sid).await.map_err(Unsynced::Twilio)?;
        let at_ms = now_ms();
        let changes = |was: &[Template]| {
            let changes = catalogue::changes(was, &listed);
            let with_entry = changes.into_iter().map(|change| {
                let mut entry =
                    super::entry(WHO, account_sid, change.action, &change.subject, at_ms);
                entry.detail = change.detail.to_string();
                (change, entry)
            });
            with_entry.collect()
        };
        let changes = self.templates.store.synced(account_sid, changes, at_ms, due_at_ms).await?;
        self.templates.refresh().await?;
        Ok(changes)
    }

    /// All of them: half a list would look like templates that were removed.
    async fn listed(&self, account_sid: &str) -> Result<Vec<Template>, String> {
        let at_ms = now_ms();
        let (mut listed, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let page = self.twilio.contents(account_sid, next.as_deref()).await?;
            listed.extend(page.contents.into_iter().filter_map(|one| one.template(at_ms)));
            if listed.len() > MOST {
                return Err(format!("there are more than {MOST}"));
            }
            next = page.meta.next_page_url;
            if next.is_none() {
                return Ok(listed);
            }
        }
        Err(format!("there are more than {MOST_PAGES} pages"))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
