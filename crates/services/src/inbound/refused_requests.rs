//! Requests that filters refused and reported: examines each with the keys of the accounts file, and stores the cause. This
//! module decides how many wait and how fast they are examined. `twilio_edge_diagnosis` finds the cause.
//!
//! Everything here is optional for webhooks: a report that is dropped or fails is only counted.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc};
use tokio::time::MissedTickBehavior;

use crate::access::webhook_keys::WebhookKeys;
use twilio_edge_contract::{AccountKeys, PublicOrigin, RefusalReport, RefusedRequest};
use twilio_edge_diagnosis::{Explanation, KnownKey, explain};
use twilio_edge_domain::{
    refused_request::{ExaminedRequest, RefusalKind},
    retention::RetentionPeriod,
};
use twilio_edge_platform::metrics::{Metrics, ReportOutcome};
use twilio_edge_store::RefusedRequests as Store;

/// Most requests that wait for their examination.
const MAX_WAITING: usize = 128;

/// Interval between examinations: each may take some tens of milliseconds of one core.
const INTERVAL: Duration = Duration::from_millis(250);

/// Longest age of a report that is believed, in milliseconds.
const MAX_AGE_MS: i64 = 3_600_000;

/// Receives reports and examines them. Copies share the queue.
#[derive(Clone)]
pub struct RefusedRequests {
    /// `None` if `retention.refused_requests` is `none`.
    queue: Option<mpsc::Sender<Reported>>,
    waiting: Arc<Mutex<Option<mpsc::Receiver<Reported>>>>,
    keys: Option<WebhookKeys>,
    store: Store,
    metrics: Arc<Metrics>,
}

/// A request that waits for its examination.
struct Reported {
    request: RefusedRequest,
    origins: Arc<Vec<PublicOrigin>>,
    at_ms: i64,
    /// Account of the filter's key: keys of others are not tried.
    account_sid: Option<Arc<str>>,
}

impl RefusedRequests {
    /// Creates the queue. Nothing is examined or stored if `keep` is `none`.
    pub fn new(
        keep: RetentionPeriod,
        keys: Option<WebhookKeys>,
        store: Store,
        metrics: Arc<Metrics>,
    ) -> RefusedRequests {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        RefusedRequests {
            queue: (keep != RetentionPeriod::NONE).then_some(sender),
            waiting: Arc::new(Mutex::new(Some(receiver))),
            keys,
            store,
            metrics,
        }
    }

    /// Returns the stored groups and requests.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Queues the requests of a report. Returns the number of queued ones; the others are dropped.
    /// `account_sid` is the account of the filter's key, if the key is bound to one.
    pub fn report(&self, report: RefusalReport, account_sid: Option<&str>, now_ms: i64) -> u32 {
        let metrics = &self.metrics.refused_requests;
        let Some(queue) = &self.queue else {
            metrics.reported(ReportOutcome::Disabled, report.requests.len() as u64);
            return 0;
        };
        let origins = Arc::new(report.origins);
        let account_sid: Option<Arc<str>> = account_sid.map(Arc::from);
        let mut queued = 0;
        for request in report.requests {
            let at_ms = now_ms.saturating_sub(i64::from(request.age_ms).min(MAX_AGE_MS));
            let (origins, account_sid) = (origins.clone(), account_sid.clone());
            let reported = Reported { request, origins, at_ms, account_sid };
            let outcome = match queue.try_send(reported) {
                Ok(()) => {
                    queued += 1;
                    ReportOutcome::Queued
                }
                Err(_) => ReportOutcome::Dropped,
            };
            metrics.reported(outcome, 1);
        }
        queued
    }

    /// Examines the queued requests, for ever. Only the first call does.
    pub async fn run(self) {
        let Some(mut waiting) = self.waiting.lock().await.take() else {
            return std::future::pending().await;
        };
        let mut pace = tokio::time::interval(INTERVAL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(reported) = waiting.recv().await {
            pace.tick().await;
            self.examine(reported).await;
        }
        std::future::pending().await
    }

    async fn examine(&self, reported: Reported) {
        let mut keys = match &self.keys {
            Some(keys) => known_keys(keys.current().await.ring.accounts.as_deref()),
            None => Vec::new(),
        };
        if let Some(account_sid) = &reported.account_sid {
            keys.retain(|key| key.account_sid == **account_sid);
        }
        // The search computes thousands of signatures.
        let examined = tokio::task::spawn_blocking(move || examined(&reported, &keys)).await;
        let Ok(examined) = examined else {
            return self.metrics.refused_requests.reported(ReportOutcome::Failed, 1);
        };
        let id = format!("rr_{:032x}", random());
        match self.store.record(&id, &examined).await {
            Ok(is_first) => {
                self.metrics.refused_requests.examined(examined.cause);
                if is_first && examined.cause.kind() == RefusalKind::Misconfiguration {
                    tracing::warn!(
                        event = "refused_requests.misconfigured",
                        account.sid = examined.account_sid,
                        http.route = examined.route,
                        cause = examined.cause.as_str(),
                        remedy = examined.remedy,
                        "filters refuse genuine webhooks, which {}",
                        examined.finding
                    );
                }
            }
            Err(reason) => {
                self.metrics.refused_requests.reported(ReportOutcome::Failed, 1);
                tracing::warn!(event = "refused_requests.persist_failed", %reason, "the database did not store a refused request; its report is lost");
            }
        }
    }
}

/// Returns a random number for an id.
fn random() -> u128 {
    let halves = [getrandom::u64(), getrandom::u64()].map(Result::unwrap_or_default);
    halves.into_iter().fold(0, |number, half| number << 64 | u128::from(half))
}

/// Returns the keys of the accounts file, each with a name.
fn known_keys(accounts: Option<&[AccountKeys]>) -> Vec<KnownKey> {
    let mut keys = Vec::new();
    for account in accounts.into_iter().flatten() {
        let sid = &account.sid;
        for (number, secret) in (1..).zip(&account.auth_tokens) {
            keys.push(KnownKey {
                account_sid: sid.clone(),
                label: format!("auth token {number} of {sid}"),
                secret: secret.clone(),
                shared_key_id: None,
            });
        }
        for shared in &account.shared_keys {
            keys.push(KnownKey {
                account_sid: sid.clone(),
                label: format!("SharedKey {} of {sid}", shared.id),
                secret: shared.secret.clone(),
                shared_key_id: Some(shared.id.clone()),
            });
        }
    }
    keys
}

fn examined(reported: &Reported, keys: &[KnownKey]) -> ExaminedRequest {
    let Reported { request, origins, at_ms, .. } = reported;
    let found: Explanation = explain(request, origins, keys);
    let authority = request.headers.iter().find(|line| line.name == ":authority");
    let path = request.target.split(['?', '#']).next().unwrap_or_default();
    let explanation = found.report.as_ref().map(serde_json::to_string);
    ExaminedRequest {
        at_ms: *at_ms,
        reason: request.reason.clone(),
        route: request.route.clone(),
        is_shadow: request.is_shadow,
        method: request.method.clone(),
        path: path.to_owned(),
        authority: authority.map(|line| line.value.clone()).unwrap_or_default(),
        parameters: found.parameters,
        body_bytes: request.body_bytes.into(),
        request_id: request.request_id.clone().unwrap_or_default(),
        skipped: request.skipped.into(),
        cause: found.cause,
        account_sid: found.account_sid.unwrap_or_default(),
        message_sid: found.message_sid.unwrap_or_default(),
        subject: found.subject,
        finding: found.finding,
        remedy: found.remedy,
        explanation: explanation.and_then(Result::ok).unwrap_or_default(),
    }
    .bounded()
}

#[cfg(test)]
mod tests {
    use twilio_edge_contract::{KeyAlgorithm, SharedKeySecret};

    use super::*;

    #[test]
    fn keys_have_different_names() {
        let shared = SharedKeySecret {
            id: "webhooks_sharedkey_a".to_owned(),
            secret: "s".to_owned(),
            algorithm: KeyAlgorithm::HmacSha256,
        };
        let account = |sid: &str| AccountKeys {
            sid: sid.to_owned(),
            auth_tokens: vec!["a".to_owned(), "b".to_owned()],
            shared_keys: vec![shared.clone()],
        };
        let keys = known_keys(Some(&[account("AC1"), account("AC2")]));
        let names: std::collections::BTreeSet<&str> =
            keys.iter().map(|key| key.label.as_str()).collect();
        assert_eq!((keys.len(), names.len()), (6, 6));
    }
}
