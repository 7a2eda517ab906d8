//! Load generator: sends webhooks over keep-alive connections, as fast as they are answered, or on a schedule that does not
//! wait for answers. On a schedule, latency counts from the time a request was due, not from the time it was sent: a stall
//! then affects all requests that waited for it, not only the one it hit (coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::http1::{Reader, status};
use crate::webhook::{Kind, Webhook};

/// Number of connections, and so of requests in flight.
const CONNECTIONS: usize = 64;
/// Longest time of an answer; Envoy itself gives up after 14 s.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Schedule of the requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The next request follows as soon as an answer frees its connection, for this time.
    Saturating(Duration),
    /// One request per interval, independent of the others.
    Every(Duration),
    /// The same, on cores that others need: up to a millisecond late, which counts as latency.
    Yielding(Duration),
}

/// Result of a load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Time from the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Latency of each answered request, in no order.
    pub(crate) latencies: Vec<Duration>,
    /// New webhooks that were sent.
    pub(crate) fresh: u64,
    /// Repeats that were sent.
    pub(crate) repeats: u64,
    /// Forged webhooks that were sent.
    pub(crate) forged: u64,
    /// Proven webhooks without a 2xx, and forged ones without a 403 (without a 2xx if the target does not verify).
    pub(crate) wrong: u64,
}

/// Sends all of `webhooks`, or as many as the time allows.
pub(crate) async fn send(
    to: SocketAddr,
    webhooks: Vec<Webhook>,
    pace: Pace,
    verified: bool,
) -> Result<Outcome> {
    let schedule = Arc::new(Mutex::new(Schedule { webhooks: webhooks.into_iter(), sent: 0 }));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to).await.context("connect to Envoy")?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let mut senders = JoinSet::new();
    let started = Instant::now();
    for stream in connections {
        senders.spawn(work(stream, schedule.clone(), pace, started, verified));
    }
    let mut total = Outcome::default();
    while let Some(one) = senders.join_next().await {
        let one = one??;
        total.latencies.extend(one.latencies);
        total.fresh += one.fresh;
        total.repeats += one.repeats;
        total.forged += one.forged;
        total.wrong += one.wrong;
    }
    total.elapsed = started.elapsed();
    Ok(total)
}

struct Schedule {
    webhooks: std::vec::IntoIter<Webhook>,
    sent: u32,
}

impl Schedule {
    /// Returns the next webhook when it is due, and that time. Meanwhile it holds the schedule, so only one task waits on
    /// it. It waits actively: timers of the runtime have a resolution of a millisecond, and this core has nothing else to
    /// do.
    async fn next(&mut self, pace: Pace, started: Instant) -> Option<(Webhook, Instant)> {
        let due = match pace {
            Pace::Saturating(period) if started.elapsed() >= period => return None,
            Pace::Saturating(_) => Instant::now(),
            Pace::Every(interval) | Pace::Yielding(interval) => started + interval * self.sent,
        };
        let webhook = self.webhooks.next()?;
        self.sent += 1;
        if matches!(pace, Pace::Yielding(_)) {
            tokio::time::sleep_until(due.into()).await;
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        Some((webhook, due))
    }
}

/// Sends the requests of one connection.
async fn work(
    mut stream: TcpStream,
    schedule: Arc<Mutex<Schedule>>,
    pace: Pace,
    started: Instant,
    verified: bool,
) -> Result<Outcome> {
    let (from, mut to) = stream.split();
    let mut reader = Reader::new(from);
    let mut outcome = Outcome::default();
    loop {
        let next = schedule.lock().await.next(pace, started).await;
        let Some((webhook, due)) = next else { return Ok(outcome) };
        to.write_all(&webhook.request).await?;
        let answer = tokio::time::timeout(TIME_LIMIT, reader.next()).await;
        let Some(response) = answer.context("no answer in time")?? else {
            bail!("Envoy closed a connection in use");
        };
        outcome.latencies.push(due.elapsed());
        let status = status(response)?;
        let right = match webhook.kind {
            Kind::Forged if verified => status == 403,
            Kind::Fresh | Kind::Repeat | Kind::Forged => (200..300).contains(&status),
        };
        outcome.wrong += u64::from(!right);
        match webhook.kind {
            Kind::Fresh => outcome.fresh += 1,
            Kind::Repeat => outcome.repeats += 1,
            Kind::Forged => outcome.forged += 1,
        }
    }
}
