//! The dispatcher: sends queued messages as fast as each sender may. It reads the waiting lanes, selects the lanes
//! that have the next turns, reserves tokens for their senders, and starts that many attempts. A message without a turn is not
//! started, so it blocks no other message. This module decides when to read. The domain decides the order, the rate and
//! the concurrency; `attempt.rs` handles one attempt.

pub(super) mod attempt;
mod feedback;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::Instant,
};

use self::attempt::{DATABASE_PAUSE, SendAttempt};
use crate::{
    outbound::{opt_out_from_error::OptOutRecorder, sending::Sending},
    wakeup::WakeupReceiver,
};
use twilio_edge_connectors::{email::EmailAccounts, twilio::Twilio};
use twilio_edge_domain::sending::{
    adaptive_concurrency::{AdaptiveConcurrencyLimit, Bounds, CallOutcome, CallTicket, Capacity},
    fair_scheduler::{FairScheduler, SenderQueue},
    rate_limit::Rate,
};
use twilio_edge_platform::clock::{millis, now_ms, ticks};
use twilio_edge_platform::{
    config,
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle},
};
use twilio_edge_store::{
    AttemptStart, OutboundMessage, QueuePosition, RateLimiter, StoreError, TokenRequest,
};

/// Interval between reads of the queue.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest pause of a sender that has no tokens. The messages that it may send after the pause start together.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause of a sender that a 429 of a mail provider can cause.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Interval between updates of the gauges for the oldest and the unknown messages.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bound of rounds in one pass. A later round redistributes the turns of senders that got too few tokens.
const MAX_ROUNDS: usize = 4;

/// Dispatcher of one sidecar.
pub struct Dispatcher {
    stop: watch::Sender<bool>,
    running: TaskHandle,
}

/// Account and sender.
type Lane = (String, String);

/// State of the dispatcher's task.
struct DispatcherTask {
    send_attempt: SendAttempt,
    rate_limiter: RateLimiter,
    twilio: Twilio,
    emails: EmailAccounts,
    /// Name of this sidecar, unique among the sidecars.
    name: String,
    /// Upper bound of concurrent calls of any category, over all accounts.
    max_calls: usize,
    /// Calls in addition to `most`, for category `authentication` only.
    reserve: usize,
    /// Concurrency bounds of one account.
    bounds: Bounds,
    limits: HashMap<String, AdaptiveConcurrencyLimit>,
    in_flight: JoinSet<CallOutcome>,
    tickets: HashMap<task::Id, (Lane, CallTicket)>,
    scheduler: FairScheduler,
    behind: QueuePosition,
    /// Senders that have no tokens, or whose mail provider answered 429, and the time until which they are skipped.
    throttled: HashMap<Lane, Instant>,
    /// True if a message waits only for the end of a call.
    is_full: bool,
}

impl Dispatcher {
    /// Starts the dispatcher; `name` identifies this sidecar among the others.
    pub fn start(
        sending: &Sending,
        rate_limiter: RateLimiter,
        opt_outs: OptOutRecorder,
        metrics: &Arc<Metrics>,
        settings: &config::Sending,
        name: &str,
        tasks: &Supervisor,
    ) -> Dispatcher {
        let (stop, stopping) = watch::channel(false);
        let (max_calls, reserve) = (settings.concurrency.max(1), settings.authentication_reserve);
        let task = DispatcherTask {
            send_attempt: SendAttempt {
                messages: sending.messages.clone(),
                clients: sending.clients.clone(),
                checks: sending.checks.clone(),
                errors: sending.errors.clone(),
                opt_outs,
                metrics: metrics.clone(),
                outcome_waiters: sending.outcome_waiters.clone(),
                media: sending.media.clone(),
                sending: sending.clone(),
                give_up_ms: i64::try_from(settings.give_up_s)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1000),
            },
            rate_limiter,
            twilio: sending.twilio.clone(),
            emails: sending.emails.clone(),
            name: name.to_owned(),
            max_calls,
            reserve,
            // An account with slow calls leaves at least a quarter to the other accounts.
            bounds: Bounds {
                most: max_calls.saturating_sub(max_calls / 4),
                floor: settings.concurrency_floor,
                reserve: reserve.saturating_sub(reserve / 4),
            },
            limits: HashMap::new(),
            in_flight: JoinSet::new(),
            tickets: HashMap::new(),
            scheduler: FairScheduler::default(),
            behind: QueuePosition::default(),
            throttled: HashMap::new(),
            is_full: false,
        };
        let work = task.run(sending.wakeup.subscribe(), stopping);
        let running = tasks.spawn_owned(Task::Dispatcher, work);
        Dispatcher { stop, running }
    }

    /// Starts no new attempt and waits for those in progress. Returns false if that takes longer than `limit`.
    pub async fn finish(self, limit: Duration) -> bool {
        self.running.expect_end();
        let _ = self.stop.send(true);
        self.running.finish(limit).await
    }
}

impl DispatcherTask {
    async fn run(mut self, mut wakeup: WakeupReceiver, mut stopping: watch::Receiver<bool>) {
        let mut poll = ticks(POLL_INTERVAL);
        let mut gauge = ticks(GAUGE_INTERVAL);
        let mut is_due = true;
        loop {
            let stop = *stopping.borrow();
            if stop && self.in_flight.is_empty() {
                return;
            }
            if !stop && is_due && self.start_attempts().await.is_err() {
                tokio::time::sleep(DATABASE_PAUSE).await;
                continue;
            }
            self.update_gauges();
            let next = self.throttled.values().min().copied();
            let next = async move {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            is_due = true;
            tokio::select! {
                Some(ended) = self.in_flight.join_next_with_id() => {
                    self.ended(ended);
                    is_due = self.is_full;
                }
                () = wakeup.received(), if !stop => {}
                () = next, if !stop => {}
                _ = poll.tick(), if !stop => self.expire().await,
                _ = gauge.tick(), if !stop => self.update_queue_gauges().await,
                _ = stopping.changed(), if !stop => {}
            }
        }
    }

    /// Starts as many attempts as the limits permit.
    async fn start_attempts(&mut self) -> Result<(), StoreError> {
        let free = Capacity::under_limit(self.max_calls, self.reserve, self.in_flight.len());
        self.is_full = free.authentication == 0;
        if self.is_full {
            return Ok(());
        }
        let started_attempts = self.start_up_to(free).await;
        if let Err(reason) = &started_attempts {
            tracing::warn!(event = "messages.claim_failed", %reason, "the dispatcher could not claim due messages; it retries");
        }
        started_attempts
    }

    async fn start_up_to(&mut self, free: Capacity) -> Result<(), StoreError> {
        let now = Instant::now();
        self.throttled.retain(|_, until| *until > now);
        let messages = &self.send_attempt.messages;
        let (mut lanes, next) =
            messages.due_queues(&self.behind, free.authentication, now_ms()).await?;
        self.behind = next;
        let mut selected: BTreeMap<usize, u32> = BTreeMap::new();
        let mut free_now = free;
        for _ in 0..MAX_ROUNDS {
            lanes
                .iter_mut()
                .filter(|lane| self.is_throttled(lane))
                .for_each(|lane| lane.waiting = 0);
            let turns = self.select_turns(&lanes, &selected, free_now);
            if turns.is_empty() {
                break;
            }
            let granted = self.reserve_tokens(&lanes, &turns).await?;
            for index in granted {
                let Some(lane) = lanes.get_mut(index) else { continue };
                lane.waiting = lane.waiting.saturating_sub(1);
                self.scheduler.record_turn(lane);
                let count = selected.entry(index).or_default();
                *count = count.saturating_add(1);
                free_now = free_now.minus(1);
            }
        }
        let may_start = |lane: &SenderQueue| lane.waiting > 0 && !self.is_throttled(lane);
        self.is_full = free_now.any == 0 || lanes.iter().any(may_start);
        self.attempt(&lanes, &selected).await
    }

    /// Selects the next turns, in addition to those in `selected`.
    fn select_turns(
        &self,
        lanes: &[SenderQueue],
        selected: &BTreeMap<usize, u32>,
        free: Capacity,
    ) -> Vec<usize> {
        let mut selected_of: HashMap<&str, usize> = HashMap::new();
        for (index, count) in selected {
            let Some(lane) = lanes.get(*index) else { continue };
            let of_account = selected_of.entry(lane.account_sid.as_str()).or_default();
            *of_account = of_account.saturating_add(usize::try_from(*count).unwrap_or_default());
        }
        let selected_for = |account: &str| selected_of.get(account).copied().unwrap_or_default();
        let now_ms = now_ms();
        let room = |account: &str| {
            let unused = Capacity::under_limit(self.bounds.most, self.bounds.reserve, 0);
            let room = self.limits.get(account).map_or(unused, |calls| calls.capacity(now_ms));
            room.minus(selected_for(account))
        };
        let in_flight = |account: &str| {
            let calls = self.limits.get(account).map_or(0, AdaptiveConcurrencyLimit::in_flight);
            calls.saturating_add(selected_for(account))
        };
        self.scheduler.next(lanes, free, room, in_flight)
    }

    /// Reserves tokens and returns the turns that got one. A sender that got fewer than requested is skipped for a
    /// while.
    async fn reserve_tokens(
        &mut self,
        lanes: &[SenderQueue],
        turns: &[usize],
    ) -> Result<Vec<usize>, StoreError> {
        let mut requests: Vec<TokenRequest<'_>> = Vec::new();
        let mut index_of: HashMap<(&str, &str), usize> = HashMap::new();
        for lane in turns.iter().filter_map(|index| lanes.get(*index)) {
            let (account_sid, sender) = (lane.account_sid.as_str(), lane.sender.as_str());
            let index = *index_of.entry((account_sid, sender)).or_insert_with(|| {
                let rate = self.rate(account_sid, sender);
                requests.push(TokenRequest { account_sid, sender, rate, count: 0 });
                requests.len() - 1
            });
            if let Some(request) = requests.get_mut(index) {
                request.count = request.count.saturating_add(1);
            }
        }
        let mut granted = self.rate_limiter.take(&requests, now_ms()).await?;
        for (request, granted) in requests.iter().zip(&granted) {
            if granted.count < request.count {
                let until = Instant::now() + granted.next.max(MIN_PAUSE);
                self.throttled
                    .insert((request.account_sid.to_owned(), request.sender.to_owned()), until);
            }
        }
        let mut has_one = |index: &&usize| {
            let Some(lane) = lanes.get(**index) else { return false };
            let sender = index_of.get(&(lane.account_sid.as_str(), lane.sender.as_str()));
            let grant = sender.and_then(|index| granted.get_mut(*index));
            grant.is_some_and(|grant| match grant.count.checked_sub(1) {
                Some(rest) => {
                    grant.count = rest;
                    true
                }
                None => false,
            })
        };
        Ok(turns.iter().filter(|index| has_one(index)).copied().collect())
    }

    /// Starts these attempts. Tokens for messages that another sidecar has claimed in the meantime are returned to
    /// their sender.
    async fn attempt(
        &mut self,
        lanes: &[SenderQueue],
        selected: &BTreeMap<usize, u32>,
    ) -> Result<(), StoreError> {
        let selected: Vec<(&SenderQueue, u32)> = selected
            .iter()
            .filter_map(|(index, count)| lanes.get(*index).map(|lane| (lane, *count)))
            .collect();
        if selected.is_empty() {
            return Ok(());
        }
        let (now_ms, random) = (now_ms(), getrandom::u64().unwrap_or_default());
        let id = format!("{}-{random:016x}", self.name);
        let until_ms = now_ms.saturating_add(millis(self.send_attempt.hold()));
        let attempts = AttemptStart { id: &id, now_ms, until_ms };
        let started_attempts = self.send_attempt.messages.begin_attempts(&selected, attempts).await;
        let started = started_attempts.as_deref().unwrap_or_default();
        let unused: Vec<TokenRequest<'_>> = selected
            .iter()
            .filter_map(|(lane, count)| {
                let (account_sid, sender) = (lane.account_sid.as_str(), lane.sender.as_str());
                let is_its = |message: &&OutboundMessage| {
                    (message.account_sid.as_str(), message.sender.as_str()) == (account_sid, sender)
                };
                let used = started.iter().filter(is_its).count();
                let count = count.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
                let rate = self.rate(account_sid, sender);
                (count > 0).then_some(TokenRequest { account_sid, sender, rate, count })
            })
            .collect();
        self.rate_limiter.give_back(&unused, now_ms).await?;
        for message in started_attempts? {
            let bounds = self.bounds;
            let calls = self.limits.entry(message.account_sid.clone());
            let ticket = calls.or_insert_with(|| AdaptiveConcurrencyLimit::new(bounds)).begin();
            let (send_attempt, lane) =
                (self.send_attempt.clone(), (message.account_sid.clone(), message.sender.clone()));
            let call = self.in_flight.spawn(async move { send_attempt.attempt(message).await });
            self.tickets.insert(call.id(), (lane, ticket));
        }
        Ok(())
    }

    /// Returns the rate of a sender.
    fn rate(&self, account_sid: &str, sender: &str) -> Rate {
        let of_email = self.emails.rate(account_sid, sender);
        of_email.unwrap_or_else(|| self.twilio.rate(account_sid, sender))
    }

    fn is_throttled(&self, lane: &SenderQueue) -> bool {
        // A map with a pair of `String`s as its key can only be queried with such a pair.
        let sender = (lane.account_sid.clone(), lane.sender.clone());
        self.throttled.contains_key(&sender)
    }

    fn ended(&mut self, ended: Result<(task::Id, CallOutcome), JoinError>) {
        // The message of an attempt that panicked becomes `unknown` when its hold ends.
        let (call, feedback) = ended.unwrap_or_else(|error| (error.id(), CallOutcome::NoEvidence));
        let Some((lane, ticket)) = self.tickets.remove(&call) else { return };
        if let Some(calls) = self.limits.get_mut(&lane.0) {
            calls.end(ticket, feedback, now_ms());
        }
        if let CallOutcome::SenderThrottled { pause } = feedback {
            let until = Instant::now() + pause.clamp(MIN_PAUSE, MAX_PAUSE);
            let paused_until = self.throttled.entry(lane).or_insert(until);
            *paused_until = until.max(*paused_until);
        }
    }

    fn update_gauges(&self) {
        let least = self.limits.values().map(AdaptiveConcurrencyLimit::allowed).min();
        let allowed = least.unwrap_or(self.bounds.most);
        self.send_attempt.metrics.messages.calling(self.in_flight.len(), allowed);
    }

    /// Marks the attempts of sidecars that have died as unknown.
    async fn expire(&self) {
        if let Ok(lost @ 1..) = self.send_attempt.messages.expire_attempts(now_ms()).await {
            self.send_attempt.metrics.messages.unknown(lost);
            tracing::error!(
                event = "message.attempt_lost",
                count = lost,
                "sidecars stopped during attempts to send, so the messages became unknown; the reconciler checks Twilio's list"
            );
        }
    }

    async fn update_queue_gauges(&self) {
        if let Ok(state) = self.send_attempt.messages.backlog(now_ms()).await {
            self.send_attempt.metrics.messages.stand(&state, now_ms());
        }
        // An error is ignored here: the pass that sends logs that the database is unavailable.
        let _ = self.rate_limiter.delete_full(now_ms()).await;
    }
}
