//! Media of inbound messages: the fetcher takes those that are due, fetches them from Twilio and stores them, or deletes
//! them at Twilio. Many sidecars share the work; a medium whose sidecar dies is due again when its hold ends. The domain
//! decides what follows a failure.

mod download;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use self::download::Downloader;
use crate::{
    access::api_keys::Caller,
    operations::retention::RetentionPolicies,
    outbound::media::library::{Library, LibraryError, StoredBytes},
};
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::{
    media::inbound::{FetchFailure, FetchStep, after_failure, pause_ms},
    policy::Policies,
};
use twilio_edge_platform::{
    clock::{millis, now_ms, ticks},
    config,
    metrics::Metrics,
};
use twilio_edge_store::{AuditEntry, InboundMedia, InboundMediaJob, StoreError, TwilioDeletion};

/// Interval between reads of due media.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Time that a medium is held for, in addition to the time limit of its fetch: for the bucket and the database.
const HOLD: Duration = Duration::from_secs(60);

/// Attempts to delete a medium at Twilio: about three hours.
const DELETION_ATTEMPTS: i64 = 25;

/// Author of a deletion that the policy of an account requires.
const BY_POLICY: &str = "policy.inbound_media.delete_after_fetch";

/// Services that the fetcher uses.
#[derive(Clone)]
pub struct MediaFetcher {
    library: Library,
    twilio: Twilio,
    policies: Policies,
    retention_policies: RetentionPolicies,
    downloader: Arc<Downloader>,
    settings: Arc<config::InboundMedia>,
    metrics: Arc<Metrics>,
    name: Arc<str>,
}

impl MediaFetcher {
    /// Creates the fetcher. `name` identifies this sidecar among the others.
    ///
    /// # Errors
    /// Returns the problem of a setting.
    pub fn new(
        library: Library,
        twilio: Twilio,
        policies: Policies,
        retention_policies: RetentionPolicies,
        settings: &config::Media,
        metrics: Arc<Metrics>,
        name: &str,
    ) -> Result<MediaFetcher, String> {
        Ok(MediaFetcher {
            library,
            downloader: Arc::new(Downloader::new(twilio.clone(), settings)?),
            twilio,
            policies,
            retention_policies,
            settings: Arc::new(settings.inbound.clone()),
            metrics,
            name: name.into(),
        })
    }

    /// Runs until it is dropped. It can be dropped at any time: another sidecar continues the work in progress.
    pub async fn run(self) {
        let mut poll = ticks(POLL_INTERVAL);
        let mut running: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                _ = poll.tick() => self.measure().await,
                Some(_) = running.join_next() => {}
            }
            let free = self.settings.concurrency.saturating_sub(running.len());
            for job in self.take(free).await {
                let fetcher = self.clone();
                running.spawn(async move { fetcher.carry_out(job).await });
            }
        }
    }

    async fn take(&self, free: usize) -> Vec<InboundMediaJob> {
        if free == 0 {
            return Vec::new();
        }
        let now_ms = now_ms();
        let hold = HOLD + Duration::from_millis(self.settings.timeout_ms);
        let until_ms = now_ms.saturating_add(millis(hold));
        match self.library.inbound().take(&self.name, free, now_ms, until_ms).await {
            Ok(due) => due,
            Err(reason) => {
                log_persist_failure(&reason);
                Vec::new()
            }
        }
    }

    async fn measure(&self) {
        if let Ok((pending, oldest_ms)) = self.library.inbound().backlog().await {
            let age_ms = oldest_ms.map_or(0, |oldest_ms| now_ms().saturating_sub(oldest_ms));
            self.metrics.media.backlog(pending, age_ms);
        }
    }

    async fn carry_out(&self, job: InboundMediaJob) {
        let recorded = match job.is_fetch() {
            true => self.fetch(&job).await,
            false => self.delete(&job).await,
        };
        if let Err(reason) = recorded {
            // The medium is due again when the hold ends.
            log_persist_failure(&reason);
        }
    }

    /// Fetches and stores one medium, and records the result.
    async fn fetch(&self, job: &InboundMediaJob) -> Result<(), StoreError> {
        let failed = match self.downloader.download(job).await {
            Ok(downloaded) => match self.store(job, downloaded).await {
                Ok(is_ours) => {
                    if is_ours {
                        self.metrics.media.stored();
                    }
                    return Ok(());
                }
                Err(LibraryError::Store(reason)) => return Err(reason),
                Err(LibraryError::Bucket(reason)) => {
                    tracing::warn!(
                        event = "media.bucket_failed",
                        reason,
                        "the bucket of media.store failed an operation"
                    );
                    DownloadFailure::new(FetchFailure::StoreFailed, reason)
                }
                Err(LibraryError::MediaProblem(problem)) => {
                    DownloadFailure::new(FetchFailure::Mismatch, problem.detail)
                }
            },
            Err(failed) => failed,
        };
        let now_ms = now_ms();
        let give_up_ms = i64::from(self.settings.give_up_s).saturating_mul(1000);
        let (failure, attempts) = (failed.failure, job.attempts.saturating_add(1));
        let (received_ms, pause) = (job.received_at_ms, failed.retry_after_ms);
        let step = after_failure(failure, attempts, received_ms, pause, give_up_ms, now_ms);
        let is_given_up = step == FetchStep::Refuse;
        self.metrics.media.fetch_failed(failure, is_given_up);
        tracing::warn!(
            event = "inbound_media.fetch_failed",
            media.id = %job.id,
            webhook.sid = %job.message_sid,
            account.sid = %job.account_sid,
            code = failure.as_str(),
            reason = failed.reason,
            is_given_up,
            "the sidecar could not fetch a medium of an inbound message"
        );
        self.library.inbound().fail(&job.id, &self.name, failure, step, now_ms).await
    }

    /// Stores the bytes. Returns false if the medium was deleted, or is another sidecar's by now.
    async fn store(&self, job: &InboundMediaJob, bytes: StoredBytes) -> Result<bool, LibraryError> {
        let rules = self.retention_policies.now();
        let retention = rules.of_account(&job.account_sid).media.keep;
        let policy = self.policies.of(&job.account_sid).inbound_media;
        let delete_by = policy.delete_after_fetch.then_some(BY_POLICY);
        self.library.store_inbound(job, &self.name, bytes, retention, delete_by).await
    }

    /// Deletes one medium at Twilio, and records the result.
    async fn delete(&self, job: &InboundMediaJob) -> Result<(), StoreError> {
        let InboundMediaJob { account_sid, message_sid, media_sid, .. } = job;
        let answer = self.twilio.delete_media(account_sid, message_sid, media_sid).await;
        let now_ms = now_ms();
        let attempts = job.twilio_attempts.saturating_add(1);
        let (result, word) = match &answer {
            Ok(200..=299 | 404 | 410) => (TwilioDeletion::Deleted, "deleted"),
            _ if attempts >= DELETION_ATTEMPTS => (TwilioDeletion::Failed, "failed"),
            _ => {
                let at_ms = now_ms.saturating_add(pause_ms(attempts));
                (TwilioDeletion::RetryAt(at_ms), "retried")
            }
        };
        self.metrics.media.deleted(word);
        if result != TwilioDeletion::Deleted {
            let reason = answer.map_or_else(|reason| reason, |status| format!("status {status}"));
            let is_given_up = result == TwilioDeletion::Failed;
            tracing::warn!(
                event = "inbound_media.delete_failed",
                media.id = %job.id,
                account.sid = %account_sid,
                reason,
                is_given_up,
                "the sidecar could not delete a medium of an inbound message at Twilio"
            );
        }
        let action = match result {
            TwilioDeletion::Deleted => Some("media.deleted_at_twilio"),
            TwilioDeletion::Failed => Some("media.delete_at_twilio_failed"),
            TwilioDeletion::RetryAt(_) => None,
        };
        let entry = action.map(|action| audit_entry(job, action, now_ms));
        let inbound = self.library.inbound();
        inbound.end_deletion(&job.id, &self.name, result, entry.as_ref(), now_ms).await
    }
}

/// Failed download of a medium.
#[derive(Debug)]
struct DownloadFailure {
    failure: FetchFailure,
    /// Reason for the log; it contains no secret.
    reason: String,
    /// Pause that Twilio asked for, in milliseconds.
    retry_after_ms: Option<i64>,
}

impl DownloadFailure {
    fn new(failure: FetchFailure, reason: impl Into<String>) -> DownloadFailure {
        DownloadFailure { failure, reason: reason.into(), retry_after_ms: None }
    }
}

fn log_persist_failure(reason: &StoreError) {
    tracing::warn!(
        event = "inbound_media.persist_failed",
        %reason,
        "the database failed for media of inbound messages; the sidecar retries"
    );
}

/// Builds the audit entry of a deletion at Twilio, whose author requested it earlier.
fn audit_entry(job: &InboundMediaJob, action: &str, now_ms: i64) -> AuditEntry {
    let detail = json!({"message_sid": job.message_sid, "media_sid": job.media_sid});
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: job.deleted_by.clone(),
        source: "sidecar".to_owned(),
        action: action.to_owned(),
        subject: job.id.clone(),
        account_sid: Some(job.account_sid.clone()),
        detail: detail.to_string(),
    }
}

/// Deletes a medium of an inbound message, and requests its deletion at Twilio if `at_twilio` is set. Returns false if
/// there is nothing to delete.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn remove(
    inbound: &InboundMedia,
    by: &Caller,
    account_sid: &str,
    id: &str,
    at_twilio: bool,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let detail = json!({"at_twilio": at_twilio});
    let account = Some(account_sid.to_owned());
    let entry = by.audit_entry("media.deleted", id.to_owned(), account, &detail, now_ms);
    inbound.remove(id, account_sid, at_twilio, &entry).await
}
