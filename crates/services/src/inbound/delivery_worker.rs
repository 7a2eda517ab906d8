//! Delivery of webhooks to sinks: one delivery worker per sink claims lanes that are due, delivers each lane in order,
//! and stores the results. This module decides how many lanes run at a time and when to read the outbox. The domain
//! decides when to retry and when to pause a sink; the store decides which deliveries are due.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::wakeup::{Wakeup, WakeupReceiver};
use twilio_edge_connectors::sinks::{Sink, Sinks};
use twilio_edge_domain::{
    delivery::{CircuitBreaker, DeliveryOutcome, NextStep, RetryPolicy, SinkAnswer},
    delivery_attempt,
    event::Delivery,
    media::inbound::MediaLinks,
};
use twilio_edge_platform::{
    clock::{millis, now_ms, ticks},
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle, catch_panic},
};
use twilio_edge_store::{AttemptResult, DeliveryRound, OrderedDeliveries, Outbox, StoreError};

/// Time that a lane is claimed for, in addition to the longest attempt. If its worker dies, another one delivers it
/// afterwards.
const CLAIM_DURATION: Duration = Duration::from_secs(40);

/// Interval between reads of the outbox, for deliveries that other sidecars recorded and for lanes whose pause is over.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Pause after the database was unavailable.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Delivery workers of a sidecar.
pub struct DeliveryWorkers {
    stop: watch::Sender<bool>,
    running_workers: Vec<TaskHandle>,
}

impl DeliveryWorkers {
    /// Starts one worker for each sink. `links` creates links to media of inbound messages; `name` identifies this sidecar
    /// among the others.
    pub fn start(
        sinks: &Sinks,
        outbox: &Outbox,
        wakeup: &Wakeup,
        links: Option<&Arc<MediaLinks>>,
        metrics: &Arc<Metrics>,
        name: &str,
        tasks: &Supervisor,
    ) -> DeliveryWorkers {
        let (stop, stopping) = watch::channel(false);
        sinks.iter().for_each(|sink| metrics.sinks.begin(sink.name()));
        let names: Vec<String> = sinks.iter().map(|sink| sink.name().to_owned()).collect();
        let workers = names.into_iter().map(|sink| DeliveryWorker {
            sinks: sinks.clone(),
            sink,
            outbox: outbox.clone(),
            wakeup: wakeup.subscribe(),
            links: links.cloned(),
            metrics: metrics.clone(),
            name: name.to_owned(),
            breaker: CircuitBreaker::new(),
            running: JoinSet::new(),
            unstored: Vec::new(),
        });
        let start = |worker: DeliveryWorker| {
            tasks.spawn_owned(Task::DeliveryWorker, worker.run(stopping.clone()))
        };
        let running_workers = workers.map(start).collect();
        DeliveryWorkers { stop, running_workers }
    }

    /// Claims no new lanes and waits for those in progress. Returns false if that takes longer than `limit`.
    pub async fn finish(self, limit: Duration) -> bool {
        self.running_workers.iter().for_each(TaskHandle::expect_end);
        let _ = self.stop.send(true);
        let deadline = tokio::time::Instant::now() + limit;
        let mut finished = true;
        for worker in self.running_workers {
            let limit = deadline.saturating_duration_since(tokio::time::Instant::now());
            finished &= worker.finish(limit).await;
        }
        finished
    }
}

struct DeliveryWorker {
    sinks: Sinks,
    sink: String,
    outbox: Outbox,
    wakeup: WakeupReceiver,
    links: Option<Arc<MediaLinks>>,
    metrics: Arc<Metrics>,
    name: String,
    breaker: CircuitBreaker,
    /// Lanes in progress.
    running: JoinSet<(DeliveryRound, Option<DeliveryOutcome>)>,
    /// Rounds that have ended, but whose results are not in the database yet.
    unstored: Vec<DeliveryRound>,
}

impl DeliveryWorker {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut poll = ticks(POLL_INTERVAL);
        loop {
            let stop = *stopping.borrow();
            let is_available = self.store_results().await && (stop || self.claim_lanes().await);
            if stop && self.running.is_empty() && (self.unstored.is_empty() || !is_available) {
                return;
            }
            if !is_available {
                tokio::time::sleep(DATABASE_PAUSE).await;
                continue;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.round_ended(ended),
                () = self.wakeup.received(), if !stop => {}
                _ = poll.tick(), if !stop => {}
                _ = stopping.changed(), if !stop => {}
            }
            while let Some(ended) = self.running.try_join_next() {
                self.round_ended(ended);
            }
        }
    }

    /// Claims as many lanes as may run now. Returns false if the database is unavailable.
    async fn claim_lanes(&mut self) -> bool {
        let Some(sink) = self.sinks.get(&self.sink) else { return true };
        let (concurrency, attempt_timeout) = (sink.concurrency(), sink.attempt_timeout());
        let now_ms = now_ms();
        let free = concurrency.saturating_sub(self.running.len());
        let admitted = self.breaker.permits(free, now_ms).min(sink.available_starts());
        if admitted == 0 {
            return true;
        }
        let until_ms = now_ms.saturating_add(millis(CLAIM_DURATION + attempt_timeout));
        let claimed = self.outbox.take(&self.sink, &self.name, admitted, now_ms, until_ms).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(reason) => {
                tracing::warn!(event = "deliveries.claim_failed", %reason, sink = %self.sink, "the worker could not claim due deliveries; it retries");
                return false;
            }
        };
        for lane in claimed {
            self.breaker.begin();
            let (sinks, sink) = (self.sinks.clone(), self.sink.clone());
            let (links, metrics) = (self.links.clone(), self.metrics.clone());
            self.running.spawn(async move {
                match sinks.get(&sink) {
                    Some(sink) => {
                        deliver_lane(sink, lane, until_ms, links.as_deref(), &metrics).await
                    }
                    // Cannot happen: the name comes from the same list.
                    None => (
                        DeliveryRound { lane: lane.lane, ended: Vec::new(), due_at_ms: until_ms },
                        None,
                    ),
                }
            });
        }
        true
    }

    fn round_ended(&mut self, ended: Result<(DeliveryRound, Option<DeliveryOutcome>), JoinError>) {
        let Ok((round, last)) = ended else {
            // The round panicked. Its lane becomes due again when its hold ends.
            self.breaker.cancel();
            return;
        };
        let was_open = self.breaker.probe_at_ms().is_some();
        match &last {
            Some(last) => self.breaker.end(last, now_ms()),
            None => self.breaker.cancel(),
        }
        let is_open = self.breaker.probe_at_ms().is_some();
        if let (false, true, Some(DeliveryOutcome::Failed { reason, .. })) =
            (was_open, is_open, &last)
        {
            let sink_type = self.sinks.get(&self.sink).map_or("", Sink::type_name);
            tracing::warn!(event = "sink.unavailable", sink = %self.sink, sink.type = sink_type, reason, "a sink failed repeatedly; the worker paused its deliveries");
        } else if was_open && !is_open {
            tracing::info!(event = "sink.recovered", sink = %self.sink, "a sink accepted a delivery again");
        }
        self.metrics.sinks.is_open(&self.sink, is_open);
        self.unstored.push(round);
    }

    /// Stores the results of ended rounds. Returns false if the database is unavailable.
    async fn store_results(&mut self) -> bool {
        if self.unstored.is_empty() {
            return true;
        }
        match self.outbox.end(&self.sink, &self.name, &self.unstored, now_ms()).await {
            Ok(()) => {
                self.unstored.clear();
                true
            }
            Err(reason @ StoreError::Unavailable(_)) => {
                tracing::warn!(event = "deliveries.persist_failed", %reason, sink = %self.sink, "the worker could not store the results of deliveries; it retries");
                false
            }
            Err(reason) => {
                // The lanes become due again when their claim ends; a second delivery is better than none.
                tracing::error!(event = "deliveries.results_rejected", %reason, sink = %self.sink, "the database rejected the results of deliveries; the worker delivers them again");
                self.unstored.clear();
                true
            }
        }
    }
}

/// Delivers one lane in order, up to its first failure. Returns the results, and the outcome of the last attempt if there
/// was one.
async fn deliver_lane(
    sink: &Sink,
    lane: OrderedDeliveries,
    until_ms: i64,
    links: Option<&MediaLinks>,
    metrics: &Metrics,
) -> (DeliveryRound, Option<DeliveryOutcome>) {
    let mut round = DeliveryRound { lane: lane.lane, ended: Vec::new(), due_at_ms: now_ms() };
    let mut last = None;
    // Another worker can claim the lane when the claim ends, so no attempt starts that could still be in progress then.
    let last_start_ms = until_ms.saturating_sub(millis(sink.attempt_timeout()));
    for due in &lane.due {
        // The lane waits in the database, not here, so that a stop of the sidecar does not wait for it.
        if !sink.wait_for_start().await {
            break;
        }
        if !round.ended.is_empty() && now_ms() > last_start_ms {
            break;
        }
        let began_ms = now_ms();
        let answer = match due.delivery(links) {
            Some(delivery) => deliver(sink, &delivery).await,
            None => DeliveryOutcome::Refused {
                reason: "the ledger does not have its event any more".into(),
            }
            .into(),
        };
        let attempts = delivery_attempt::append(&due.attempts, answer.attempt(began_ms));
        let outcome = answer.outcome;
        let tries = due.tries.saturating_add(1);
        let next = next(sink.retry_policy(), &outcome, tries, due.recorded_at_ms);
        metrics.sinks.tried(sink.name(), &next);
        let reason = match &outcome {
            DeliveryOutcome::Delivered => None,
            DeliveryOutcome::Failed { reason, .. } | DeliveryOutcome::Refused { reason } => {
                Some(reason.clone())
            }
        };
        if next == NextStep::DeadLetter {
            tracing::error!(
                event = "delivery.dead_lettered", sink = %sink.name(), delivery.id = %due.delivery_id, tries, reason,
                "a delivery became a dead letter; `twilio-edge deliveries retry` sends it again"
            );
        }
        let is_pending = matches!(next, NextStep::RetryAt(_));
        last = Some(outcome);
        round.ended.push(AttemptResult {
            delivery_id: due.delivery_id.clone(),
            account_sid: due.account_sid.clone(),
            received_at_ms: due.received_at_ms,
            tries,
            next,
            reason,
            attempts,
        });
        if is_pending {
            break;
        }
    }
    (round, last)
}

/// Makes one try. A try that panicked counts as failed, so that its delivery becomes a dead letter and does not block its
/// lane for ever.
async fn deliver(sink: &Sink, delivery: &Delivery<'_>) -> SinkAnswer {
    let tried = catch_panic(sink.deliver(delivery)).await;
    tried.unwrap_or_else(|_| {
        let reason = "the delivery panicked; the log has a line `process.panicked`".into();
        DeliveryOutcome::Failed { reason, retry_after: None, is_outage: false }.into()
    })
}

fn next(
    retry_policy: &RetryPolicy,
    outcome: &DeliveryOutcome,
    tries: i64,
    recorded_at_ms: i64,
) -> NextStep {
    let tries = u32::try_from(tries).unwrap_or(u32::MAX);
    // Without randomness the pauses are correct, but not spread.
    let random = getrandom::u64().unwrap_or_default();
    retry_policy.next(outcome, tries, recorded_at_ms, now_ms(), random)
}
