//! Open loop: each webhook is sent when it is due, whether or not earlier ones were answered. Latency counts from the due
//! time, so a stall of the edge affects all webhooks that were due meanwhile (coordinated omission).

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::composer::Composer;
use super::edge::Edge;
use super::progress::Progress;
use super::tally::{Finished, Outcome, TIME_LIMIT, Tally};

/// Largest number of webhooks in flight, and so of connections.
pub(super) const MAX_IN_FLIGHT: usize = 512;

/// Interval of progress.
const SECOND: Duration = Duration::from_secs(1);

/// Due times of the webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Webhooks per second.
    pub(super) rate: u32,
    /// Time in which they are due.
    pub(super) duration: Duration,
}

impl Schedule {
    /// Returns the number of webhooks.
    fn total(self) -> u64 {
        self.duration.as_secs() * u64::from(self.rate)
    }

    /// Returns the due time of number `n`, from the start.
    fn due(self, n: u64) -> Duration {
        Duration::from_nanos(n * 1_000_000_000 / u64::from(self.rate.max(1)))
    }
}

/// Finished or interrupted run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    pub(super) is_interrupted: bool,
}

/// Sends all webhooks of the schedule and waits for their results, at most 15 s after the last due time. A stop signal ends
/// the sending; a second one also ends the wait.
///
/// # Errors
///
/// The operating system refused a signal handler or a thread.
pub(super) async fn send_all(
    schedule: Schedule,
    composer: Arc<Composer>,
    edge: Arc<Edge>,
) -> io::Result<Run> {
    let mut stop = StopSignals::new()?;
    let started = Instant::now();
    let mut due = pace(schedule, started)?;
    let mut progress = Progress::new(schedule.duration);
    let mut seconds = tokio::time::interval_at((started + SECOND).into(), SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tally, mut in_flight) = (Tally::default(), JoinSet::new());
    let (mut sent, mut is_sending, mut is_interrupted) = (0, true, false);
    while is_sending || !in_flight.is_empty() {
        tokio::select! {
            biased;
            () = stop.next() => {
                let is_second = std::mem::replace(&mut is_interrupted, true);
                is_sending = false;
                if is_second {
                    break;
                }
            }
            Some(joined) = in_flight.join_next() => match joined {
                Ok(finished) => tally.record(finished),
                Err(_) => tally.add_unfinished(1),
            },
            _ = seconds.tick() => progress.second(started.elapsed(), sent, &mut tally),
            next = due.recv(), if is_sending && in_flight.len() < MAX_IN_FLIGHT => match next {
                Some(n) => {
                    let due = started + schedule.due(n);
                    sent += 1;
                    if due.elapsed() < TIME_LIMIT {
                        in_flight.spawn(attempt(n, due, composer.clone(), edge.clone()));
                    } else {
                        let (kind, outcome) = (composer.mix.planned(n).kind, Outcome::NotSent);
                        let delay = due.elapsed();
                        tally.record(Finished { kind, outcome, delay, latency: delay });
                    }
                }
                None => is_sending = false,
            },
        }
    }
    tally.add_unfinished(in_flight.len());
    progress.finish();
    Ok(Run { tally, elapsed: started.elapsed(), is_interrupted })
}

/// Composes and sends one webhook.
async fn attempt(n: u64, due: Instant, composer: Arc<Composer>, edge: Arc<Edge>) -> Finished {
    let delay = due.elapsed();
    let (kind, signed) = composer.webhook(n);
    let answer = tokio::time::timeout_at((due + TIME_LIMIT).into(), edge.post(&signed)).await;
    let outcome = answer.unwrap_or(Outcome::TooLate);
    Finished { kind, outcome, delay, latency: due.elapsed() }
}

/// Returns the number of each webhook when it is due. A thread sleeps until then, because the timers of the runtime have a
/// resolution of a millisecond. It waits while the receiver is behind, and ends with it.
fn pace(schedule: Schedule, started: Instant) -> io::Result<mpsc::Receiver<u64>> {
    let (sender, receiver) = mpsc::channel(MAX_IN_FLIGHT);
    let pacing = move || {
        for n in 0..schedule.total() {
            thread::sleep((started + schedule.due(n)).saturating_duration_since(Instant::now()));
            if sender.blocking_send(n).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("load-pace".to_owned()).spawn(pacing)?;
    Ok(receiver)
}

/// Ctrl-C and SIGTERM; from its creation on they no longer end the process.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_due_evenly_over_the_whole_time() {
        let schedule = Schedule { rate: 3, duration: Duration::from_secs(2) };
        let due: Vec<u128> = (0..schedule.total()).map(|n| schedule.due(n).as_millis()).collect();
        assert_eq!(due, [0, 333, 666, 1000, 1333, 1666]);
        let longest = Schedule { rate: 5000, duration: Duration::from_secs(3600) };
        assert_eq!(longest.total(), 18_000_000);
        assert_eq!(longest.due(longest.total()), longest.duration);
    }
}
