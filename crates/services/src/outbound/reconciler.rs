//! The reconciler: resolves messages whose outcome is unknown. It looks for them in Twilio's list of messages, at
//! growing intervals. A message is found, or certainly absent and queued again, or left to an operator. It also asks Twilio
//! for the status of sent messages whose callbacks did not arrive. The domain decides what a list proves; a claim in the
//! database decides which sidecar looks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    outbound::{
        deliveries::StatusReport,
        dispatcher::attempt::send_request,
        sending::{self, Sending},
        status_queue::QueuedStatus,
    },
    wakeup::Wakeup,
};
use twilio_edge_connectors::{
    send_client::{ProviderStatus, SentMessage, UnknownMessage},
    twilio::Twilio,
};
use twilio_edge_domain::{
    address::Address,
    contact::ContactKeys,
    sending::{
        matching::{FAR_MS, ListCoverage, ListedMessage, Match, MessageSearch, next_search_ms},
        provider::Provider,
    },
};
use twilio_edge_platform::clock::{now_ms, ticks};
use twilio_edge_platform::{
    config,
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle},
};
use twilio_edge_store::{OutboundMessage, OutboundMessages, StoreError};

/// Interval between checks for messages that are due for a lookup.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Interval between deletions of expired fallback plans.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);

/// Time after which the hourly counters of messages are deleted, in milliseconds: 400 days.
const COUNTS_FOR_MS: i64 = 400 * 86_400_000;

/// Concurrent lookups. The number is small because Twilio's rate limits are needed for sending.
const CONCURRENT_LOOKS: i64 = 8;

/// Statuses that are applied in one batch.
const STATUSES: usize = 256;

/// Upper bound of pages of one lookup. If a list is longer, absence from it proves nothing.
const MAX_PAGES: usize = 5;

/// Reconciler of one sidecar.
pub struct Reconciler {
    messages: OutboundMessages,
    stop: watch::Sender<bool>,
    running: TaskHandle,
}

#[derive(Clone)]
struct ReconcilerTask {
    sending: Sending,
    messages: OutboundMessages,
    twilio: Twilio,
    wakeup: Wakeup,
    metrics: Arc<Metrics>,
    /// Time after the hold has expired, in milliseconds, after which absence from the list counts; `None` if it never
    /// does.
    absent_after_ms: Option<i64>,
    /// Time after the hold has expired, in milliseconds, during which the message is looked for.
    reconcile_for_ms: i64,
    /// Time during which a sent message can still get a fallback, in milliseconds.
    fallback_for_ms: i64,
}

impl Reconciler {
    /// Starts the reconciler.
    pub fn start(
        sending: &Sending,
        metrics: &Arc<Metrics>,
        settings: &config::Sending,
        tasks: &Supervisor,
    ) -> Reconciler {
        let ms = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        let task = ReconcilerTask {
            sending: sending.clone(),
            messages: sending.messages.clone(),
            twilio: sending.twilio.clone(),
            wakeup: sending.wakeup.clone(),
            metrics: metrics.clone(),
            absent_after_ms: (settings.absent_after_s > 0).then(|| ms(settings.absent_after_s)),
            reconcile_for_ms: ms(settings.reconcile_for_s),
            fallback_for_ms: ms(settings.fallback_for_s),
        };
        let (stop, stopping) = watch::channel(false);
        let running = tasks.spawn_owned(Task::Reconciler, task.run(stopping));
        Reconciler { messages: sending.messages.clone(), stop, running }
    }

    /// Stops the reconciler. Another sidecar repeats a lookup that was in progress.
    pub async fn finish(self) {
        self.running.expect_end();
        let _ = self.stop.send(true);
        self.running.interrupt().await;
        // The counters of the last moment are lost if the database is unavailable.
        let _ = self.messages.flush_counts().await;
    }
}

impl ReconcilerTask {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut poll = ticks(POLL_INTERVAL);
        let mut cleanup = ticks(CLEANUP_INTERVAL);
        while !*stopping.borrow() {
            tokio::select! {
                _ = poll.tick() => {}
                _ = cleanup.tick() => {
                    // A deletion that failed is repeated the next time.
                    let before_ms = now_ms().saturating_sub(self.fallback_for_ms);
                    let _ = self.messages.discard_old_fallbacks(before_ms, now_ms()).await;
                    let _ = self.messages.end_repeatable(now_ms()).await;
                    let before_ms = now_ms().saturating_sub(COUNTS_FOR_MS);
                    let _ = self.messages.delete_old_counts(before_ms).await;
                    continue;
                }
                _ = stopping.changed() => return,
            }
            // The dispatcher logs that the database is unavailable.
            let _ = self.messages.flush_counts().await;
            self.apply_queued_statuses().await;
            self.move_on_unanswered().await;
            let Ok(due) = self.messages.due_for_poll(CONCURRENT_LOOKS, now_ms()).await else {
                continue;
            };
            let Ok(sought) = self.messages.due_for_lookup(CONCURRENT_LOOKS, now_ms()).await else {
                continue;
            };
            let mut lookups = JoinSet::new();
            for message in sought {
                let this = self.clone();
                lookups.spawn(async move { this.look_up(&message).await });
            }
            for message in due {
                let this = self.clone();
                lookups.spawn(async move { this.look_up_status(&message).await });
            }
            // A lookup that panicked is repeated when the message is due for its next lookup.
            while lookups.join_next().await.is_some() {}
        }
    }

    /// Applies the statuses whose URLs have no id of ours.
    async fn apply_queued_statuses(&self) {
        loop {
            let queued = self.sending.status_queue.take(STATUSES);
            if queued.is_empty() {
                return;
            }
            let reports: Vec<_> = queued.iter().map(QueuedStatus::report).collect();
            match self.sending.apply_statuses(&reports, now_ms()).await {
                Ok(learned) => self.metrics.messages.reconciled("callback", learned),
                // The dispatcher logs that the database is unavailable.
                Err(_) => return self.sending.status_queue.put_back(queued),
            }
        }
    }

    /// Moves unanswered steps of notifications on.
    async fn move_on_unanswered(&self) {
        if let Err(reason) = self.sending.move_on_unanswered(now_ms()).await {
            tracing::warn!(event = "plan.move_on_failed", %reason, "the reconciler could not move unanswered steps of notifications on; it retries");
        }
    }

    async fn look_up(&self, message: &OutboundMessage) {
        let at_ms = now_ms();
        let absent_from_ms =
            self.absent_after_ms.map(|after_ms| message.due_at_ms.saturating_add(after_ms));
        let last_ms = message.due_at_ms.saturating_add(self.reconcile_for_ms);
        let next_ms = next_search_ms(message.lookups, at_ms, absent_from_ms, last_ms);
        if !matches!(self.messages.begin_lookup(message, next_ms).await, Ok(true)) {
            return;
        }
        let found = match message.provider() {
            Provider::Messaging => self.matched(message, at_ms, absent_from_ms).await,
            provider => self.find(provider, message, at_ms, absent_from_ms).await,
        };
        match found {
            Ok(Match::Found(message_sid)) => {
                let masked = sending::masked(message);
                let proof = (message_sid.as_str(), "found in Twilio's list");
                let poll_ms = self.sending.lookup_at_ms(message, at_ms, 0);
                let learned =
                    self.messages.mark_sent(message, &masked, proof, poll_ms, at_ms).await;
                if matches!(learned, Ok(true)) {
                    self.metrics.messages.reconciled("found", 1);
                    tracing::info!(event = "message.reconciled", message.id = %message.id, account.sid = %message.account_sid, message.sid = message_sid, "the reconciler found an unknown message in Twilio's list");
                }
            }
            Ok(Match::Absent) => {
                if matches!(self.messages.requeue_absent(message, now_ms()).await, Ok(true)) {
                    self.metrics.messages.reconciled("absent", 1);
                    tracing::info!(event = "message.absent", message.id = %message.id, account.sid = %message.account_sid, looks = message.lookups + 1, "the reconciler found that Twilio never had a message; the dispatcher sends it again");
                    self.wakeup.wake();
                }
            }
            Ok(Match::Unclear) if next_ms == 0 => {
                tracing::error!(event = "message.unresolved", message.id = %message.id, account.sid = %message.account_sid, "the reconciler could not determine whether a message was sent; decide with `twilio-edge messages resolve`");
            }
            Ok(Match::Unclear) => {}
            Err(reason) => {
                tracing::warn!(event = "message.search_failed", message.id = %message.id, account.sid = %message.account_sid, reason, "the reconciler could not read Twilio's list; it retries");
            }
        }
    }

    /// Asks Twilio for the status of a sent message, because no callback reported a final one.
    async fn look_up_status(&self, message: &OutboundMessage) {
        let (at_ms, lookups) = (now_ms(), message.lookups.saturating_add(1));
        let next_ms = self.sending.lookup_at_ms(message, message.attempted_at_ms, lookups);
        // A lookup that comes late does not cause another one at once.
        let next_ms = if next_ms == 0 { 0 } else { next_ms.max(at_ms.saturating_add(1000)) };
        if !matches!(self.messages.begin_poll(message, next_ms).await, Ok(true)) {
            return;
        }
        let (status, code) = match self.status(message).await {
            Ok(Some(found)) => found,
            // The provider reports no status here, or has deleted the message.
            Ok(None) => return,
            Err(reason) => {
                tracing::warn!(event = "status.lookup_failed", message.id = %message.id, account.sid = %message.account_sid, reason, "the reconciler could not read the status of a message from Twilio; it retries");
                return;
            }
        };
        let report = StatusReport {
            id: Some(&message.id),
            account_sid: &message.account_sid,
            message_sid: &message.message_sid,
            status: &status,
            code: &code,
            recipient: "",
        };
        match self.sending.apply_statuses(&[report], at_ms).await {
            Ok(_) if report.is_final() => self.metrics.messages.reconciled("status", 1),
            Ok(_) => {}
            Err(reason) => {
                tracing::warn!(event = "status.lookup_failed", message.id = %message.id, account.sid = %message.account_sid, %reason, "the reconciler could not store the status of a message; it retries");
            }
        }
    }

    /// Asks the provider for the status of a message that it accepted.
    async fn status(&self, message: &OutboundMessage) -> Result<Option<ProviderStatus>, String> {
        let provider = message.provider();
        let client = self.sending.clients.get(provider);
        let client = client.ok_or_else(|| format!("the provider {provider} is not configured"))?;
        let sent = SentMessage {
            request: send_request(message),
            provider_id: &message.message_sid,
            sent_ms: message.attempted_at_ms,
        };
        client.status(sent).await
    }

    /// Searches a provider other than Twilio's list of messages.
    async fn find(
        &self,
        provider: Provider,
        message: &OutboundMessage,
        at_ms: i64,
        absent_from_ms: Option<i64>,
    ) -> Result<Match, String> {
        let client = self.sending.clients.get(provider);
        let client = client.ok_or_else(|| format!("the provider {provider} is not configured"))?;
        let unknown = UnknownMessage {
            request: send_request(message),
            begun_ms: message.attempted_at_ms,
            until_ms: message.due_at_ms,
            absent_from_ms,
            at_ms,
        };
        client.find(unknown).await
    }

    async fn matched(
        &self,
        message: &OutboundMessage,
        at_ms: i64,
        absent_from_ms: Option<i64>,
    ) -> Result<Match, String> {
        let reason_of = |reason: StoreError| reason.to_string();
        let mut sought =
            MessageSearch::of(&message.form, message.attempted_at_ms, message.due_at_ms);
        let keys = self.messages.contacts().keys(&message.account_sid, &message.recipient).await;
        let ContactKeys { certain, possible, .. } = keys.map_err(reason_of)?;
        let also = certain.into_iter().chain(possible);
        let address = |number| Address { channel: message.channel.clone(), number }.written();
        sought.also_to = also.map(address).collect();
        let (listed, is_whole) = self.listed(message, &sought).await?;
        let candidates: Vec<&str> = listed
            .iter()
            .filter(|one| sought.is_candidate(one))
            .map(|one| one.sid.as_str())
            .collect();
        // The owners are read after the list, so that an owner that was recorded before it was listed is known here.
        let owned: BTreeSet<String> = self
            .messages
            .own_message_sids(&candidates)
            .await
            .map_err(reason_of)?
            .into_iter()
            .collect();
        let has_twin = self.messages.has_similar(message, &sought).await.map_err(reason_of)?;
        Ok(sought.find_match(
            &listed,
            &owned,
            ListCoverage { is_whole, at_ms, absent_from_ms, has_twin },
        ))
    }

    /// Lists the messages under every spelling of recipient and sender. Returns them, and whether every list reaches
    /// back far enough.
    async fn listed(
        &self,
        message: &OutboundMessage,
        sought: &MessageSearch,
    ) -> Result<(Vec<ListedMessage>, bool), String> {
        let (mut listed, mut is_whole) = (Vec::new(), true);
        for (to, from) in sought.queries() {
            let (found, is_complete) = self.listed_under(message, &to, &from).await?;
            listed.extend(found);
            is_whole &= is_complete;
        }
        Ok((listed, is_whole))
    }

    async fn listed_under(
        &self,
        message: &OutboundMessage,
        to: &str,
        from: &str,
    ) -> Result<(Vec<ListedMessage>, bool), String> {
        let oldest_ms = message.attempted_at_ms.saturating_sub(FAR_MS);
        let mut listed: Vec<ListedMessage> = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = self.twilio.list(&message.account_sid, to, from, next.as_deref()).await?;
            let is_older =
                |one: &ListedMessage| one.created_ms().is_some_and(|at_ms| at_ms < oldest_ms);
            let is_far = page.messages.last().is_some_and(is_older);
            listed.extend(page.messages);
            next = page.next_page_uri;
            if next.is_none() || is_far {
                return Ok((listed, true));
            }
        }
        Ok((listed, false))
    }
}
