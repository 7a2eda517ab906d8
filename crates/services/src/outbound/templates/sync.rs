//! Synchronization of templates: reads the templates of each account from Twilio's Content API at an interval, in one
//! sidecar at a time. A failed read changes only the log, a metric, and the reported age of the catalogue.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::Templates;
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::template::{
    Template,
    catalogue::{self, TemplateChange},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::StoreError;

/// Interval between checks for accounts that are due.
const LOOK: Duration = Duration::from_secs(1);

/// Upper bound of templates of an account; WhatsApp's own limit is lower.
const MOST: usize = 10_000;

/// Upper bound of pages of a list, whatever their size is.
const MOST_PAGES: usize = 400;

/// Actor and source of the audit entries.
const WHO: (&str, &str) = ("twilio", "Content API");

/// Reads templates from Twilio.
#[derive(Clone)]
pub struct Syncer {
    /// Catalogues to update.
    pub templates: Templates,
    /// Client of Twilio.
    pub twilio: Twilio,
    /// Interval between reads of one account.
    pub every: Duration,
}

/// Reason why the templates of an account were not synchronized.
#[derive(Debug)]
pub enum Unsynced {
    /// Twilio did not return them.
    Twilio(String),
    /// The database did not store them.
    Store(StoreError),
}

impl From<StoreError> for Unsynced {
    fn from(error: StoreError) -> Unsynced {
        Unsynced::Store(error)
    }
}

impl Syncer {
    /// Synchronizes every account that has credentials, until it is dropped.
    pub async fn run(self, metrics: Arc<Metrics>) {
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
    }

    async fn turn(&self, account_sid: &str, metrics: &Metrics, told: &mut BTreeSet<String>) {
        let at_ms = now_ms();
        // If this sidecar dies, its claim on the account expires then.
        let until_ms = at_ms.saturating_add(millis(self.every.max(self.twilio.timeout() * 2)));
        let store = &self.templates.store;
        // The dispatcher logs that the database is unavailable.
        if !matches!(store.claim_sync(account_sid, at_ms, until_ms).await, Ok(true)) {
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
                        "the sidecar found changed templates at Twilio; the audit log lists each one"
                    );
                }
            }
            Err(Unsynced::Twilio(reason)) => {
                metrics.templates.synced("failed", &[]);
                let _ = store.record_sync_failure(account_sid, &reason, due_at_ms).await;
                if told.insert(account_sid.to_owned()) {
                    tracing::warn!(
                        event = "templates.unsynced",
                        account.sid = account_sid,
                        reason,
                        "the sidecar could not read templates from Twilio; the earlier ones stay in effect"
                    );
                }
            }
            Err(Unsynced::Store(reason)) => {
                metrics.templates.synced("failed", &[]);
                tracing::warn!(event = "templates.persist_failed", account.sid = account_sid, %reason, "the sidecar could not store templates that it read from Twilio; it reads them again");
            }
        }
    }

    /// Reads an account's templates now, without a claim. Returns the changes. The next read is due at `due_at_ms`.
    ///
    /// # Errors
    /// Returns [`Unsynced`] if Twilio or the database fails.
    pub async fn sync(
        &self,
        account_sid: &str,
        due_at_ms: i64,
    ) -> Result<Vec<TemplateChange>, Unsynced> {
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
        let changes =
            self.templates.store.apply_sync(account_sid, changes, at_ms, due_at_ms).await?;
        self.templates.refresh().await?;
        Ok(changes)
    }

    /// Reads the complete list: templates that are missing from a partial list would look removed.
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
