//! Sends what is due: takes attempts, asks once more whether the person may be written to, calls Twilio and writes down what
//! came of it. Decides how many calls there are at a time, and that none is begun which could end after its hold; what an
//! answer means and when to try again is the domain's to say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    answers::Answers,
    config,
    domain::{
        address::Address,
        check::Kind,
        policy::Category,
        sending::{
            errors::Errors,
            outcome::{Meaning, meaning},
            pace::{Bucket, pause},
        },
    },
    http::now_ms,
    metrics::Metrics,
    permissions::{Checks, Intent},
    refusals::Refusals,
    sending::Sending,
    store::{Outcome, Send, Sends, StoreError},
    twilio::Twilio,
};

/// How often to look for what is due.
const LOOK: Duration = Duration::from_millis(250);

/// How long the database is left alone after it did not answer.
const AWAY: Duration = Duration::from_secs(1);

/// How long an attempt may wait for the database and for its sender's turn, beside the call itself.
const SPARE: Duration = Duration::from_secs(20);

/// How often the oldest and the unknown are counted.
const COUNT: Duration = Duration::from_secs(5);

/// Rung when something was taken on.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// There is something to send.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// All that is sent by a sidecar.
pub struct Senders {
    stop: watch::Sender<bool>,
    working: JoinHandle<()>,
}

#[derive(Clone)]
struct Sender {
    sends: Sends,
    twilio: Twilio,
    checks: Checks,
    errors: Arc<Errors>,
    refusals: Refusals,
    metrics: Arc<Metrics>,
    answers: Answers,
    buckets: Arc<Mutex<HashMap<String, Bucket>>>,
    per_second: u32,
    give_up_ms: i64,
}

impl Senders {
    /// Begins; `name` tells this sidecar from others.
    pub fn start(
        sending: &Sending,
        refusals: Refusals,
        metrics: &Arc<Metrics>,
        settings: &config::Sending,
        name: &str,
    ) -> Senders {
        let (stop, stopping) = watch::channel(false);
        let sender = Sender {
            sends: sending.sends.clone(),
            twilio: sending.twilio.clone(),
            checks: sending.checks.clone(),
            errors: sending.errors.clone(),
            refusals,
            metrics: metrics.clone(),
            answers: sending.answers.clone(),
            buckets: Arc::default(),
            per_second: settings.per_second,
            give_up_ms: i64::try_from(settings.give_up_s).unwrap_or(i64::MAX).saturating_mul(1000),
        };
        let most = settings.concurrency.max(1);
        let working =
            tokio::spawn(sender.work(sending.bell.clone(), name.to_owned(), most, stopping));
        Senders { stop, working }
    }

    /// No new attempt is begun; waits for those under way. False when that took longer than `limit`.
    pub async fn finish(mut self, limit: Duration) -> bool {
        let _ = self.stop.send(true);
        let finished = tokio::time::timeout(limit, &mut self.working).await.is_ok();
        self.working.abort();
        finished
    }
}

impl Sender {
    async fn work(
        self,
        bell: Bell,
        name: String,
        most: usize,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = tokio::time::interval(COUNT);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut calls = JoinSet::new();
        // Halved when Twilio has enough, one more after each success: what it takes is found, not configured.
        let mut allowed = most;
        loop {
            let stop = *stopping.borrow();
            if stop && calls.is_empty() {
                return;
            }
            if !stop {
                let free = allowed.saturating_sub(calls.len());
                let taken = self.take(&name, free).await;
                let Ok(taken) = taken else {
                    tokio::time::sleep(AWAY).await;
                    continue;
                };
                for send in taken {
                    let this = self.clone();
                    calls.spawn(async move { this.attempt(send).await });
                }
            }
            tokio::select! {
                Some(ended) = calls.join_next() => {
                    allowed = match ended.unwrap_or(true) {
                        true => (allowed + 1).min(most),
                        false => (allowed / 2).max(1),
                    };
                }
                () = bell.0.notified(), if !stop => {}
                _ = look.tick(), if !stop => {}
                _ = count.tick(), if !stop => self.count().await,
                _ = stopping.changed(), if !stop => {}
            }
        }
    }

    async fn take(&self, name: &str, free: usize) -> Result<Vec<Send>, StoreError> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let (now_ms, dice) = (now_ms(), getrandom::u64().unwrap_or_default());
        let hold = self.twilio.timeout() + SPARE * 2;
        let attempt_id = format!("{name}-{dice:016x}");
        let until_ms = now_ms.saturating_add(millis(hold));
        match self.sends.take(&attempt_id, free, now_ms, until_ms).await {
            Ok((taken, lost)) => {
                if lost > 0 {
                    self.metrics.sends.unknown(lost);
                    tracing::error!(
                        event = "send.lost",
                        count = lost,
                        "nobody knows yet whether messages were sent whose sidecar ended; Twilio's list is asked"
                    );
                }
                Ok(taken)
            }
            Err(reason) => {
                tracing::warn!(event = "sends.waiting", %reason, "messages wait for the database");
                Err(reason)
            }
        }
    }

    async fn count(&self) {
        if let Ok(standing) = self.sends.standing(now_ms()).await {
            self.metrics.sends.stand(&standing, now_ms());
        }
    }

    /// Sends one message; false if Twilio has enough.
    async fn attempt(&self, send: Send) -> bool {
        let recipient = Address { channel: send.channel.clone(), number: send.recipient.clone() };
        let wait = self.turn(&send.sender);
        let latest_ms = send.due_at_ms.saturating_sub(millis(self.twilio.timeout() + SPARE));
        let is_late = |wait: Duration| now_ms().saturating_add(millis(wait)) > latest_ms;
        if is_late(wait) {
            self.again(
                &send,
                now_ms().saturating_add(millis(wait)),
                ("paced", "its sender has too much to send"),
                "",
            )
            .await;
            return true;
        }
        tokio::time::sleep(wait).await;
        if now_ms().saturating_sub(send.wanted_at_ms) > self.give_up_ms {
            self.end(
                &send,
                &recipient,
                Meaning::Refused {
                    code: "expired".into(),
                    reason: "it waited longer than sending.give_up_s".into(),
                },
                "",
            )
            .await;
            return true;
        }
        // The last moment: a STOP that was answered until now counts.
        match self.checks.may_send(&intent(&send, &recipient), now_ms()).await {
            Ok(verdicts) => {
                if let Some((code, said)) =
                    verdicts.into_iter().find_map(|said| Some((said.code?, said.detail)))
                {
                    self.end(
                        &send,
                        &recipient,
                        Meaning::Refused { code: code.as_str().into(), reason: said },
                        "",
                    )
                    .await;
                    return true;
                }
            }
            Err(reason) => {
                self.again(
                    &send,
                    now_ms().saturating_add(millis(AWAY)),
                    ("unchecked", &reason.to_string()),
                    "",
                )
                .await;
                return true;
            }
        }
        // Whoever was asleep meanwhile has lost its hold: it must not call.
        if is_late(Duration::ZERO) {
            self.again(&send, now_ms(), ("paced", "its attempt took too long to begin"), "").await;
            return true;
        }
        let begun = std::time::Instant::now();
        let (answer, request_id) =
            self.twilio.create(&send.account_sid, &send.form, &send.id).await;
        let request_id = request_id.unwrap_or_default();
        self.metrics.sends.called(begun.elapsed());
        let meaning = meaning(answer, &self.errors);
        tracing::debug!(event = "send.answered", send.id = %send.id, account.sid = %send.account_sid, twilio.request_id = request_id, meaning = ?meaning, "Twilio answered");
        match meaning {
            Meaning::Again { code, reason, retry_after, is_throttled } => {
                let pause = pause(send.tries, retry_after, getrandom::u64().unwrap_or_default());
                let due_at_ms = now_ms().saturating_add(millis(pause));
                self.again(&send, due_at_ms, (&code, &reason), &request_id).await;
                !is_throttled
            }
            ended => {
                if let Meaning::Refused { code, .. } = &ended {
                    self.refusals.hear(&send, &recipient, code).await;
                }
                self.end(&send, &recipient, ended, &request_id).await;
                true
            }
        }
    }

    /// How long this sender has to wait for its turn.
    fn turn(&self, sender: &str) -> Duration {
        let now_ms = now_ms();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|name, bucket| name == sender || !bucket.is_idle(now_ms));
        let bucket = buckets.entry(sender.to_owned());
        bucket.or_insert_with(|| Bucket::new(self.per_second, now_ms)).take(now_ms)
    }

    async fn again(&self, send: &Send, due_at_ms: i64, why: (&str, &str), request_id: &str) {
        self.metrics.sends.ended("retried");
        let written = self.sends.again(send, due_at_ms, why, request_id, now_ms()).await;
        if let Err(reason) = written {
            tracing::error!(event = "send.unwritten", %reason, send.id = %send.id, "what became of an attempt could not be written down: it becomes unknown");
        }
    }

    async fn end(&self, send: &Send, recipient: &Address, meaning: Meaning, request_id: &str) {
        let (state, message_sid, code, reason) = match &meaning {
            Meaning::Sent { message_sid } => ("sent", message_sid.as_str(), "", ""),
            Meaning::Refused { code, reason } => ("refused", "", code.as_str(), reason.as_str()),
            Meaning::Unknown { reason } | Meaning::Again { reason, .. } => {
                ("unknown", "", "unknown", reason.as_str())
            }
        };
        self.metrics.sends.ended(state);
        match state {
            "unknown" => {
                tracing::error!(event = "send.unknown", send.id = %send.id, account.sid = %send.account_sid, twilio.request_id = request_id, reason, "nobody knows yet whether a message was sent; Twilio's list is asked")
            }
            "refused" => {
                tracing::info!(event = "send.refused", send.id = %send.id, account.sid = %send.account_sid, twilio.request_id = request_id, code, reason, "a message is not sent")
            }
            _ => {}
        }
        let outcome = Outcome { state, message_sid, code, reason, request_id };
        let masked = recipient.to_string();
        // What Twilio said is written down as long as there is any chance to.
        for tries in 1..=5 {
            let written = match self.sends.end(send, &masked, &outcome, now_ms()).await {
                // Somebody has decided about it meanwhile; that Twilio has it counts all the same.
                Ok(false) if state == "sent" => {
                    let reason = "Twilio answered late";
                    self.sends.learn(send, &masked, message_sid, reason, now_ms()).await
                }
                written => written,
            };
            match written {
                Ok(_) => {
                    self.answers.tell(&send.id);
                    return;
                }
                Err(reason) => {
                    tracing::error!(event = "send.unwritten", %reason, send.id = %send.id, message.sid = message_sid, "what became of an attempt could not be written down: it becomes unknown");
                    tokio::time::sleep(AWAY * tries).await;
                }
            }
        }
    }
}

/// The question that was answered when it was taken on.
fn intent(send: &Send, recipient: &Address) -> Intent {
    let from = Address::parse(&send.sender).filter(|_| !send.sender.starts_with("MG"));
    let category = Category::ALL.into_iter().find(|one| one.as_str() == send.category);
    let kind = if send.kind == "template" { Kind::Template } else { Kind::Session };
    Intent {
        account_sid: send.account_sid.clone(),
        from: from.map(|from| from.number),
        to: recipient.clone(),
        category: category.unwrap_or_else(|| kind.usual_category()),
        kind,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
