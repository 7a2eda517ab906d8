//! Limit of repeated warnings, errors and refusals: the first lines of an event are written at once, then one per
//! interval. Suppressed lines are counted and reported. All other lines (a claim, a STOP, a start) are never suppressed.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics::Metrics;

/// Number of lines of an event that are written immediately.
const AT_ONCE: u32 = 10;

/// Interval of further lines.
const EACH: Duration = Duration::from_secs(1);

/// Interval of reports about suppressed lines.
const REPORT: Duration = Duration::from_secs(5);

/// Target of the API's refusals, which a client with a wrong token may cause in any number.
pub const REFUSALS: &str = "twilio_edge::refusals";

/// Allowance of each event that may be repeated.
#[derive(Debug, Clone, Default)]
pub struct Repeats(Arc<Mutex<BTreeMap<String, Allowance>>>);

#[derive(Debug)]
struct Allowance {
    left: u32,
    /// Time since which no allowance was added.
    since: Instant,
    held_back: u64,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance { left: AT_ONCE, since: now, held_back: 0 }
    }

    /// Takes one line from the allowance; returns whether it may be written.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let earned = u32::try_from(passed.as_nanos() / EACH.as_nanos()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.since += EACH * earned.min(AT_ONCE);
            if earned >= AT_ONCE {
                self.since = now;
            }
            self.left = self.left.saturating_add(earned).min(AT_ONCE);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.held_back += u64::from(!may);
        may
    }
}

impl Repeats {
    /// Reports and counts suppressed lines periodically. Runs until it is dropped.
    pub async fn report(self, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(REPORT).await;
            for (of, count) in self.held_back() {
                metrics.lines_held_back(count);
                tracing::info!(
                    event = "log.lines_suppressed",
                    of,
                    count,
                    "the sidecar suppressed log lines, because there were too many of the same kind"
                );
            }
        }
    }

    fn held_back(&self) -> Vec<(String, u64)> {
        let mut known = self.known();
        let held = known.iter_mut().filter(|(_, allowance)| allowance.held_back > 0);
        held.map(|(event, allowance)| (event.clone(), std::mem::take(&mut allowance.held_back)))
            .collect()
    }

    fn may_write(&self, event: String, now: Instant) -> bool {
        self.known().entry(event).or_insert_with(|| Allowance::new(now)).take(now)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Allowance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !may_repeat(event.metadata()) {
            return true;
        }
        let mut name = Name(None);
        event.record(&mut name);
        // A line without an event comes from a library; its name is the location in the code, so the number of names is
        // bounded.
        let name = name.0.unwrap_or_else(|| event.metadata().name().to_owned());
        self.may_write(name, Instant::now())
    }
}

fn may_repeat(metadata: &Metadata<'_>) -> bool {
    // In `tracing`, a more severe level compares as less.
    *metadata.level() <= Level::WARN || metadata.target() == REFUSALS
}

/// Reads the `event` of a line.
struct Name(Option<String>);

impl Visit for Name {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// At any sequence of times, no more lines than allowed are written, each suppressed line is counted, and after a
        /// pause a line is written.
        #[test]
        fn suppressed_log_lines_are_counted(gaps in prop::collection::vec(0u64..3000, 1..200)) {
            let (repeats, start) = (Repeats::default(), Instant::now());
            let (mut now, mut written) = (start, 0u64);
            let mut came = 0;
            for gap in gaps {
                now += Duration::from_millis(gap);
                came += 1;
                written += u64::from(repeats.may_write("redis".into(), now));
                let most = u64::from(AT_ONCE) + (now - start).as_secs();
                prop_assert!(written <= most, "{} after {:?}", written, now - start);
            }
            let held = repeats.held_back();
            prop_assert_eq!(held.iter().map(|(_, count)| count).sum::<u64>(), came - written);
            prop_assert!(repeats.held_back().is_empty(), "reported once");
            prop_assert!(repeats.may_write("redis".into(), now + EACH));
        }
    }

    #[test]
    fn one_event_does_not_use_up_what_another_may() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let written = (0..1000).filter(|_| repeats.may_write("noisy".into(), now)).count();
        assert_eq!(written, AT_ONCE as usize);
        assert!(repeats.may_write("quiet".into(), now));
        assert_eq!(repeats.held_back(), [("noisy".to_owned(), 1000 - u64::from(AT_ONCE))]);
    }
}
