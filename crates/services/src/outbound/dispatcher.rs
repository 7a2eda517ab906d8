//! The dispatcher: sends queued messages as fast as each sender may. It reads the waiting lanes, selects the lanes
//! whose turn it is, reserves tokens for their senders, and starts that many attempts. A message without a turn is not
//! started, so it blocks no other message. This module decides when to read. The domain decides the order, the rate and
//! the concurrency; `attempt.rs` handles one attempt.

mod attempt;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{self, JoinError, JoinSet},
    time::Instant,
};

use self::attempt::{AWAY, SendAttempt, millis};
use crate::outbound::{opt_out_from_error::Refusals, sending::Sending};
use twilio_edge_domain::sending::{
    adaptive_concurrency::{AdaptiveConcurrencyLimit, Bounds, CallOutcome, CallTicket, Capacity},
    fair_scheduler::{FairScheduler, SenderQueue},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{
    config,
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle},
};
use twilio_edge_store::{
    AttemptStart, OutboundMessage, QueuePosition, RateLimiter, StoreError, TokenRequest,
};

/// Interval between reads of the queue.
const LOOK: Duration = Duration::from_millis(250);

/// Shortest pause of a sender that has no tokens. The messages that it may send after the pause start together.
const BREATH: Duration = Duration::from_millis(50);

/// Interval between updates of the gauges for the oldest and the unknown messages.
const COUNT: Duration = Duration::from_secs(5);

/// Upper bound of rounds in one pass. A later round redistributes the turns of senders that got too few tokens.
const ROUNDS: usize = 4;

/// Wakes the dispatcher after a message was queued.
#[derive(Debug, Clone, Default)]
pub struct Wakeup(Arc<Notify>);

impl Wakeup {
    /// Reports that there is a message to send.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Dispatcher of one sidecar.
pub struct Dispatcher {
    stop: watch::Sender<bool>,
    working: TaskHandle,
}

/// State of the dispatcher's task.
struct Sender {
    attempter: SendAttempt,
    paces: RateLimiter,
    /// Name of this sidecar, unique among the sidecars.
    name: String,
    /// Upper bound of concurrent calls of any category, over all accounts.
    most: usize,
    /// Calls in addition to `most`, for category `authentication` only.
    reserve: usize,
    /// Concurrency bounds of one account.
    bounds: Bounds,
    calls: HashMap<String, AdaptiveConcurrencyLimit>,
    under_way: JoinSet<CallOutcome>,
    whose: HashMap<task::Id, (String, CallTicket)>,
    turns: FairScheduler,
    behind: QueuePosition,
    /// Senders without tokens, and the time until which they are skipped.
    dry: HashMap<(String, String), Instant>,
    /// True if a message waits only for the end of a call.
    is_full: bool,
}

impl Dispatcher {
    /// Starts the dispatcher; `name` identifies this sidecar among the others.
    pub fn start(
        sending: &Sending,
        paces: RateLimiter,
        refusals: Refusals,
        metrics: &Arc<Metrics>,
        settings: &config::Sending,
        name: &str,
        tasks: &Supervisor,
    ) -> Dispatcher {
        let (stop, stopping) = watch::channel(false);
        let (most, reserve) = (settings.concurrency.max(1), settings.authentication_reserve);
        let sender = Sender {
            attempter: SendAttempt {
                sends: sending.sends.clone(),
                twilio: sending.twilio.clone(),
                checks: sending.checks.clone(),
                errors: sending.errors.clone(),
                refusals,
                metrics: metrics.clone(),
                answers: sending.answers.clone(),
                media: sending.media.clone(),
                sending: sending.clone(),
                give_up_ms: i64::try_from(settings.give_up_s)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1000),
            },
            paces,
            name: name.to_owned(),
            most,
            reserve,
            // An account whose calls are all slow leaves at least a quarter to the other accounts.
            bounds: Bounds {
                most: most.saturating_sub(most / 4),
                floor: settings.concurrency_floor,
                reserve: reserve.saturating_sub(reserve / 4),
            },
            calls: HashMap::new(),
            under_way: JoinSet::new(),
            whose: HashMap::new(),
            turns: FairScheduler::default(),
            behind: QueuePosition::default(),
            dry: HashMap::new(),
            is_full: false,
        };
        let work = sender.work(sending.wakeup.clone(), stopping);
        let working = tasks.spawn_owned(Task::Dispatcher, work);
        Dispatcher { stop, working }
    }

    /// Starts no new attempt and waits for those in progress. Returns false if that takes longer than `limit`.
    pub async fn finish(self, limit: Duration) -> bool {
        self.working.expect_end();
        let _ = self.stop.send(true);
        self.working.finish(limit).await
    }
}

impl Sender {
    async fn work(mut self, wakeup: Wakeup, mut stopping: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = tokio::time::interval(COUNT);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_time = true;
        loop {
            let stop = *stopping.borrow();
            if stop && self.under_way.is_empty() {
                return;
            }
            if !stop && is_time && self.begin().await.is_err() {
                tokio::time::sleep(AWAY).await;
                continue;
            }
            self.tell();
            let next = self.dry.values().min().copied();
            let next = async move {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            is_time = true;
            tokio::select! {
                Some(ended) = self.under_way.join_next_with_id() => {
                    self.ended(ended);
                    is_time = self.is_full;
                }
                () = wakeup.0.notified(), if !stop => {}
                () = next, if !stop => {}
                _ = look.tick(), if !stop => self.expire().await,
                _ = count.tick(), if !stop => self.count().await,
                _ = stopping.changed(), if !stop => {}
            }
        }
    }

    /// Starts as many attempts as the limits permit.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let free = Capacity::under_limit(self.most, self.reserve, self.under_way.len());
        self.is_full = free.authentication == 0;
        if self.is_full {
            return Ok(());
        }
        let begun = self.begin_up_to(free).await;
        if let Err(reason) = &begun {
            tracing::warn!(event = "sends.waiting", %reason, "the dispatcher could not claim due messages; they wait for the database");
        }
        begun
    }

    async fn begin_up_to(&mut self, free: Capacity) -> Result<(), StoreError> {
        let now = Instant::now();
        self.dry.retain(|_, until| *until > now);
        let sends = &self.attempter.sends;
        let (mut lanes, next) =
            sends.due_queues(&self.behind, free.authentication, now_ms()).await?;
        self.behind = next;
        let mut wanted: BTreeMap<usize, u32> = BTreeMap::new();
        let mut left = free;
        for _ in 0..ROUNDS {
            lanes.iter_mut().filter(|lane| self.is_dry(lane)).for_each(|lane| lane.waiting = 0);
            let turns = self.next(&lanes, &wanted, left);
            if turns.is_empty() {
                break;
            }
            let granted = self.granted(&lanes, &turns).await?;
            for place in granted {
                let Some(lane) = lanes.get_mut(place) else { continue };
                lane.waiting = lane.waiting.saturating_sub(1);
                self.turns.record_turn(lane);
                let count = wanted.entry(place).or_default();
                *count = count.saturating_add(1);
                left = left.minus(1);
            }
        }
        let could_go = |lane: &SenderQueue| lane.waiting > 0 && !self.is_dry(lane);
        self.is_full = left.any == 0 || lanes.iter().any(could_go);
        self.attempt(&lanes, &wanted).await
    }

    /// Selects the next turns, in addition to those in `wanted`.
    fn next(
        &self,
        lanes: &[SenderQueue],
        wanted: &BTreeMap<usize, u32>,
        free: Capacity,
    ) -> Vec<usize> {
        let mut wanted_of: HashMap<&str, usize> = HashMap::new();
        for (place, count) in wanted {
            let Some(lane) = lanes.get(*place) else { continue };
            let of_account = wanted_of.entry(lane.account_sid.as_str()).or_default();
            *of_account = of_account.saturating_add(usize::try_from(*count).unwrap_or_default());
        }
        let wanted = |account: &str| wanted_of.get(account).copied().unwrap_or_default();
        let now_ms = now_ms();
        let room = |account: &str| {
            let unused = Capacity::under_limit(self.bounds.most, self.bounds.reserve, 0);
            let room = self.calls.get(account).map_or(unused, |calls| calls.capacity(now_ms));
            room.minus(wanted(account))
        };
        let under_way = |account: &str| {
            let calls = self.calls.get(account).map_or(0, AdaptiveConcurrencyLimit::in_flight);
            calls.saturating_add(wanted(account))
        };
        self.turns.next(lanes, free, room, under_way)
    }

    /// Reserves tokens and returns the turns that got one. A sender that got fewer than requested is skipped for a
    /// while.
    async fn granted(
        &mut self,
        lanes: &[SenderQueue],
        turns: &[usize],
    ) -> Result<Vec<usize>, StoreError> {
        let mut asked: Vec<TokenRequest<'_>> = Vec::new();
        let mut place_of: HashMap<(&str, &str), usize> = HashMap::new();
        for lane in turns.iter().filter_map(|place| lanes.get(*place)) {
            let (account_sid, sender) = (lane.account_sid.as_str(), lane.sender.as_str());
            let place = *place_of.entry((account_sid, sender)).or_insert_with(|| {
                let rate = self.attempter.twilio.rate(account_sid, sender);
                asked.push(TokenRequest { account_sid, sender, rate, count: 0 });
                asked.len() - 1
            });
            if let Some(asked) = asked.get_mut(place) {
                asked.count = asked.count.saturating_add(1);
            }
        }
        let mut granted = self.paces.take(&asked, now_ms()).await?;
        for (asked, granted) in asked.iter().zip(&granted) {
            if granted.count < asked.count {
                let until = Instant::now() + granted.next.max(BREATH);
                self.dry.insert((asked.account_sid.to_owned(), asked.sender.to_owned()), until);
            }
        }
        let mut has_one = |place: &&usize| {
            let Some(lane) = lanes.get(**place) else { return false };
            let sender = place_of.get(&(lane.account_sid.as_str(), lane.sender.as_str()));
            let left = sender.and_then(|place| granted.get_mut(*place));
            left.is_some_and(|left| match left.count.checked_sub(1) {
                Some(rest) => {
                    left.count = rest;
                    true
                }
                None => false,
            })
        };
        Ok(turns.iter().filter(|place| has_one(place)).copied().collect())
    }

    /// Starts these attempts. Tokens for messages that another sidecar has claimed in the meantime are returned to
    /// their sender.
    async fn attempt(
        &mut self,
        lanes: &[SenderQueue],
        wanted: &BTreeMap<usize, u32>,
    ) -> Result<(), StoreError> {
        let wanted: Vec<(&SenderQueue, u32)> = wanted
            .iter()
            .filter_map(|(place, count)| lanes.get(*place).map(|lane| (lane, *count)))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (now_ms, dice) = (now_ms(), getrandom::u64().unwrap_or_default());
        let id = format!("{}-{dice:016x}", self.name);
        let until_ms = now_ms.saturating_add(millis(self.attempter.hold()));
        let attempts = AttemptStart { id: &id, now_ms, until_ms };
        let begun = self.attempter.sends.begin_attempts(&wanted, attempts).await;
        let found = begun.as_deref().unwrap_or_default();
        let unused: Vec<TokenRequest<'_>> = wanted
            .iter()
            .filter_map(|(lane, count)| {
                let (account_sid, sender) = (lane.account_sid.as_str(), lane.sender.as_str());
                let is_its = |send: &&OutboundMessage| {
                    (send.account_sid.as_str(), send.sender.as_str()) == (account_sid, sender)
                };
                let used = found.iter().filter(is_its).count();
                let count = count.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
                let rate = self.attempter.twilio.rate(account_sid, sender);
                (count > 0).then_some(TokenRequest { account_sid, sender, rate, count })
            })
            .collect();
        self.paces.give_back(&unused, now_ms).await?;
        for send in begun? {
            let bounds = self.bounds;
            let calls = self.calls.entry(send.account_sid.clone());
            let ticket = calls.or_insert_with(|| AdaptiveConcurrencyLimit::new(bounds)).begin();
            let (attempter, account_sid) = (self.attempter.clone(), send.account_sid.clone());
            let call = self.under_way.spawn(async move { attempter.attempt(send).await });
            self.whose.insert(call.id(), (account_sid, ticket));
        }
        Ok(())
    }

    fn is_dry(&self, lane: &SenderQueue) -> bool {
        // A map with a pair of `String`s as its key can only be queried with such a pair.
        let sender = (lane.account_sid.clone(), lane.sender.clone());
        self.dry.contains_key(&sender)
    }

    fn ended(&mut self, ended: Result<(task::Id, CallOutcome), JoinError>) {
        // The message of an attempt that panicked becomes `unknown` when its hold ends.
        let (call, told) = ended.unwrap_or_else(|error| (error.id(), CallOutcome::NoEvidence));
        let Some((account_sid, ticket)) = self.whose.remove(&call) else { return };
        if let Some(calls) = self.calls.get_mut(&account_sid) {
            calls.end(ticket, told, now_ms());
        }
    }

    fn tell(&self) {
        let least = self.calls.values().map(AdaptiveConcurrencyLimit::allowed).min();
        let allowed = least.unwrap_or(self.bounds.most);
        self.attempter.metrics.sends.calling(self.under_way.len(), allowed);
    }

    /// Marks the attempts of sidecars that have died as unknown.
    async fn expire(&self) {
        if let Ok(lost @ 1..) = self.attempter.sends.expire_attempts(now_ms()).await {
            self.attempter.metrics.sends.unknown(lost);
            tracing::error!(
                event = "send.lost",
                count = lost,
                "sidecars stopped during attempts to send, so the messages became unknown; the reconciler checks Twilio's list"
            );
        }
    }

    async fn count(&self) {
        if let Ok(standing) = self.attempter.sends.backlog(now_ms()).await {
            self.attempter.metrics.sends.stand(&standing, now_ms());
        }
        // An error is ignored here: the pass that sends logs that the database is unavailable.
        let _ = self.paces.delete_full(now_ms()).await;
    }
}
