//! Retention: the policies in effect for each account, and the job that applies them. This module decides the order of
//! the work and when to wait. The domain decides what is due; the store removes it.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};

use twilio_edge_domain::sweep_counts::SweepCounts;
use twilio_edge_domain::{
    part::Part,
    redaction::{HashKey, RedactionPlan},
    retention::{DueRedaction, Retention},
    webhook::Webhook,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{config::Config, metrics::Metrics};
use twilio_edge_store::{StoreError, Sweeper};

/// Interval between checks whether the event writer has capacity again.
const WAIT_POLL: Duration = Duration::from_millis(20);

/// Longest wait for the event writer. A database that is always behind must not keep message bodies for ever.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Retention policies of all accounts. Copies share them.
#[derive(Debug, Clone)]
pub struct RetentionPolicies {
    rules: Arc<RwLock<Arc<Rules>>>,
    hash_key: Option<HashKey>,
    /// True if an archive is configured. Only an archive needs the envelopes of webhooks.
    has_archive: bool,
}

/// Policies in effect at one moment.
#[derive(Debug)]
pub struct Rules {
    general: Policy,
    tenants: HashMap<String, Policy>,
}

#[derive(Debug)]
struct Policy {
    retention: Retention,
    at_once: RedactionPlan,
}

impl Policy {
    fn of(retention: Retention) -> Policy {
        Policy { at_once: retention.on_arrival(), retention }
    }
}

impl Rules {
    fn of(general: Retention, tenants: HashMap<String, Retention>) -> Rules {
        let tenants = tenants.into_iter().map(|(sid, rules)| (sid, Policy::of(rules)));
        Rules { general: Policy::of(general), tenants: tenants.collect() }
    }

    fn policy(&self, account_sid: &str) -> &Policy {
        self.tenants.get(account_sid).unwrap_or(&self.general)
    }

    /// Returns the policy of an account.
    pub fn of_account(&self, account_sid: &str) -> &Retention {
        &self.policy(account_sid).retention
    }
}

impl RetentionPolicies {
    /// Creates the policies with those of the configuration, for every account.
    pub fn new(config: &Config) -> RetentionPolicies {
        let rules = Rules::of(config.retention.clone(), HashMap::new());
        RetentionPolicies {
            rules: Arc::new(RwLock::new(Arc::new(rules))),
            hash_key: HashKey::new(config.redaction.hash_key.expose()),
            has_archive: !config.archive.url.is_empty(),
        }
    }

    /// Replaces the policies of individual accounts; all other accounts use those of the configuration.
    pub fn replace(&self, tenants: HashMap<String, Retention>) {
        let general = self.now().general.retention.clone();
        let rules = Arc::new(Rules::of(general, tenants));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns the policies in effect.
    pub fn now(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the webhook without the parts that its account never stores. A webhook that loses a part cannot be
    /// delivered in full later, so the filter forwards it.
    pub fn without_unstored_parts(&self, webhook: Webhook, rules: &Rules) -> Webhook {
        let envelope = webhook.envelope.filter(|_| self.has_archive);
        let webhook = Webhook { envelope, ..webhook };
        let plan = &rules.policy(&webhook.identity.account_sid).at_once;
        match plan.redact(&webhook.form, self.hash_key.as_ref()) {
            Some(redacted) => Webhook { form: redacted.form, is_ours: false, ..webhook },
            None => webhook,
        }
    }
}

/// Work on the webhooks of an account, and on its notifications.
enum Step {
    Redact(DueRedaction),
    Delete { until_ms: i64 },
    ForgetContacts { until_ms: i64 },
    DeleteDeclined { until_ms: i64 },
}

/// Job that applies the policies.
#[derive(Debug)]
pub struct Job {
    /// Removes data from the store.
    pub sweeper: Sweeper,
    /// Policies to apply.
    pub retention_policies: RetentionPolicies,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Interval between rounds.
    pub interval: Duration,
    /// Rows per transaction.
    pub batch: u32,
    /// The job waits while more events than this wait to be written.
    pub max_waiting_events: usize,
}

impl Job {
    /// Runs until it is dropped. It can be dropped at any time: the next job continues.
    pub async fn run(self) {
        let mut tick = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.round().await {
                Ok(()) => self.metrics.retention.completed(now_ms()),
                Err(reason) => {
                    self.metrics.retention.failed();
                    tracing::warn!(event = "retention.failed", %reason, "a run of the retention job failed; the next run continues");
                }
            }
        }
    }

    /// Does all work that is due now.
    async fn round(&self) -> Result<(), StoreError> {
        let started_ms = now_ms();
        let rules = self.retention_policies.now();
        let audit_until_ms = rules.general.retention.audit.cutoff_ms(started_ms);
        let refused_until_ms = rules.general.retention.refused_requests.cutoff_ms(started_ms);
        while self.sweeper.delete_expired(audit_until_ms, refused_until_ms, now_ms()).await? > 0 {
            self.wait_for_event_writer().await;
        }
        let mut oldest = None;
        let mut done = SweepCounts::default();
        for account_sid in self.sweeper.all_accounts().await? {
            let retention = rules.of_account(&account_sid);
            for due in retention.due(started_ms) {
                done = done.and(self.run_step(&account_sid, &Step::Redact(due)).await?);
            }
            if let Some(until_ms) = retention.addresses.keep.cutoff_ms(started_ms) {
                let step = Step::ForgetContacts { until_ms };
                done = done.and(self.run_step(&account_sid, &step).await?);
            }
            if let Some(until_ms) = retention.events.cutoff_ms(started_ms) {
                for step in [Step::Delete { until_ms }, Step::DeleteDeclined { until_ms }] {
                    done = done.and(self.run_step(&account_sid, &step).await?);
                }
            }
            let first = self.sweeper.oldest(&account_sid, Part::Body).await?;
            oldest = oldest.into_iter().chain(first).min();
        }
        let age_ms = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
        self.metrics.retention.oldest_body(age_ms);
        if done.rows + done.deleted > 0 {
            tracing::info!(
                event = "retention.done",
                redacted = done.rows,
                deleted = done.deleted,
                duration_ms = now_ms().saturating_sub(started_ms),
                "the retention job redacted or deleted rows",
            );
        }
        Ok(())
    }

    /// Runs small transactions until no row is left. If the database is unavailable or too slow for one of them, it is
    /// repeated with half the rows.
    async fn run_step(&self, account_sid: &str, step: &Step) -> Result<SweepCounts, StoreError> {
        let mut most = self.batch;
        let mut done = SweepCounts::default();
        loop {
            self.wait_for_event_writer().await;
            let key = self.retention_policies.hash_key.as_ref();
            let swept = match step {
                Step::Redact(due) => {
                    self.sweeper.redact(account_sid, due, key, most, now_ms()).await
                }
                Step::Delete { until_ms } => {
                    self.sweeper.delete(account_sid, *until_ms, most).await
                }
                Step::ForgetContacts { until_ms } => {
                    self.sweeper.forget_contacts(account_sid, *until_ms, most).await
                }
                Step::DeleteDeclined { until_ms } => {
                    self.sweeper.delete_declined(account_sid, *until_ms, most).await
                }
            };
            let swept = match swept {
                Err(StoreError::Unavailable(_)) if most > 1 => {
                    most /= 2;
                    continue;
                }
                swept => swept?,
            };
            self.metrics.retention.swept(&swept);
            let more = swept.more;
            done = done.and(swept);
            if !more {
                return Ok(done);
            }
        }
    }

    /// Waits while events wait to be written, because they have priority.
    async fn wait_for_event_writer(&self) {
        let deadline = Instant::now() + MAX_WAIT;
        while self.metrics.journal.events_waiting() > self.max_waiting_events
            && Instant::now() < deadline
        {
            tokio::time::sleep(WAIT_POLL).await;
        }
        tokio::task::yield_now().await;
    }
}
