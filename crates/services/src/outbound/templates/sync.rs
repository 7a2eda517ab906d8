//! Synchronization of templates: reads the templates of each account from Twilio's Content API at an interval, in one
//! sidecar at a time. A failed read changes only the log, a metric, and the reported age of the catalogue.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::Templates;
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::template::{
    Template,
    catalogue::{self, TemplateChange},
};
use twilio_edge_platform::clock::{millis, now_ms};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::StoreError;

/// Interval between checks for accounts that are due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Upper bound of templates of an account; WhatsApp's own limit is lower.
const MAX_TEMPLATES: usize = 10_000;

/// Upper bound of pages of a list, for pages of any size.
const MAX_PAGES: usize = 400;

/// Actor and source of the audit entries.
const ACTOR: (&str, &str) = ("twilio", "Content API");

/// Reads templates from Twilio.
#[derive(Clone)]
pub struct Syncer {
    /// Catalogues to update.
    pub templates: Templates,
    /// Client of Twilio.
    pub twilio: Twilio,
    /// Interval between reads of one account.
    pub interval: Duration,
}

/// Reason why the templates of an account were not synchronized.
#[derive(Debug)]
pub enum SyncError {
    /// Twilio did not return them.
    Twilio(String),
    /// The database did not store them.
    Store(StoreError),
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> SyncError {
        SyncError::Store(error)
    }
}

impl Syncer {
    /// Synchronizes every account that has credentials, until it is dropped.
    pub async fn run(self, metrics: Arc<Metrics>) {
        let started_ms = now_ms();
        let mut failing = BTreeSet::new();
        loop {
            for account_sid in self.twilio.account_sids() {
                self.sync_if_due(&account_sid, &metrics, &mut failing).await;
            }
            let read_ms = |sid: String| match self.templates.age(&sid).synced_at_ms {
                0 => started_ms,
                read_ms => read_ms,
            };
            let oldest_ms = self.twilio.account_sids().map(read_ms).min();
            metrics.templates.read_at(oldest_ms.unwrap_or(started_ms), now_ms());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn sync_if_due(
        &self,
        account_sid: &str,
        metrics: &Metrics,
        failing: &mut BTreeSet<String>,
    ) {
        let at_ms = now_ms();
        // If this sidecar dies, its claim on the account expires then.
        let until_ms = at_ms.saturating_add(millis(self.interval.max(self.twilio.timeout() * 2)));
        let store = &self.templates.store;
        // The dispatcher logs that the database is unavailable.
        if !matches!(store.claim_sync(account_sid, at_ms, until_ms).await, Ok(true)) {
            return;
        }
        let due_at_ms = at_ms.saturating_add(millis(self.interval));
        match self.sync(account_sid, due_at_ms).await {
            Ok(changes) => {
                metrics.templates.synced("read", &changes);
                failing.remove(account_sid);
                if !changes.is_empty() {
                    tracing::info!(
                        event = "templates.changed",
                        account.sid = account_sid,
                        count = changes.len(),
                        "the sidecar found changed templates at Twilio; the audit log lists each one"
                    );
                }
            }
            Err(SyncError::Twilio(reason)) => {
                metrics.templates.synced("failed", &[]);
                let _ = store.record_sync_failure(account_sid, &reason, due_at_ms).await;
                if failing.insert(account_sid.to_owned()) {
                    tracing::warn!(
                        event = "templates.sync_failed",
                        account.sid = account_sid,
                        reason,
                        "the sidecar could not read templates from Twilio; the earlier ones stay in effect"
                    );
                }
            }
            Err(SyncError::Store(reason)) => {
                metrics.templates.synced("failed", &[]);
                tracing::warn!(event = "templates.persist_failed", account.sid = account_sid, %reason, "the sidecar could not store templates that it read from Twilio; it reads them again");
            }
        }
    }

    /// Reads an account's templates now, without a claim. Returns the changes. The next read is due at `due_at_ms`.
    ///
    /// # Errors
    /// Returns [`SyncError`] if Twilio or the database fails.
    pub async fn sync(
        &self,
        account_sid: &str,
        due_at_ms: i64,
    ) -> Result<Vec<TemplateChange>, SyncError> {
        let listed = self.list_all(account_sid).await.map_err(SyncError::Twilio)?;
        let at_ms = now_ms();
        let changes = |was: &[Template]| {
            let changes = catalogue::changes(was, &listed);
            let with_entry = changes.into_iter().map(|change| {
                let mut entry =
                    super::entry(ACTOR, account_sid, change.action, &change.subject, at_ms);
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
    async fn list_all(&self, account_sid: &str) -> Result<Vec<Template>, String> {
        let at_ms = now_ms();
        let (mut listed, mut next) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.twilio.contents(account_sid, next.as_deref()).await?;
            listed.extend(page.contents.into_iter().filter_map(|one| one.template(at_ms)));
            if listed.len() > MAX_TEMPLATES {
                return Err(format!("the account has more than {MAX_TEMPLATES} templates"));
            }
            next = page.meta.next_page_url;
            if next.is_none() {
                return Ok(listed);
            }
        }
        Err(format!("the list of templates has more than {MAX_PAGES} pages"))
    }
}
