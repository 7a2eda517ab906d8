//! Progress of a run on standard error: a live line on a terminal, otherwise a line every ten seconds.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::milliseconds;
use super::tally::Tally;
use twilio_edge_platform::terminal;

/// Seconds between two lines on an output that is not a terminal.
const LINE_INTERVAL: u64 = 10;

/// Shows the progress.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    duration: Duration,
    /// Seconds since the last line.
    waited: u64,
}

impl Progress {
    /// Creates the progress of a run that sends for `duration`.
    pub(super) fn new(duration: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, duration, waited: 0 }
    }

    /// Shows the state of the run. Called once a second.
    pub(super) fn second(&mut self, elapsed: Duration, sent: u64, tally: &mut Tally) {
        self.waited += 1;
        if !self.bar.is_hidden() {
            self.bar.set_message(line(elapsed, self.duration, self.waited, sent, tally));
        } else if self.waited >= LINE_INTERVAL {
            terminal::print_error(&line(elapsed, self.duration, self.waited, sent, tally));
        } else {
            return;
        }
        self.waited = 0;
    }

    /// Removes the live line.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(
    elapsed: Duration,
    duration: Duration,
    waited: u64,
    sent: u64,
    tally: &mut Tally,
) -> String {
    let (finished, share) = tally.finished();
    let recent = tally.take_recent();
    let [p50, p99] = [500, 990].map(|per_mille| milliseconds(recent.percentile_us(per_mille)));
    format!(
        "{} of {} s: {sent} sent, {finished} finished, 2xx {share}, p50 {p50}, p99 {p99} (last {waited} s)",
        elapsed.as_secs(),
        duration.as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{
        mix::Kind,
        tally::{Finished, Outcome},
    };
    use super::*;

    #[test]
    fn line_has_the_latencies_since_the_one_before() {
        let mut tally = Tally::default();
        let mut next = |status, ms| {
            let outcome = Outcome::Answered { status, reason: None };
            let latency = Duration::from_millis(ms);
            let delay = Duration::ZERO;
            tally.record(Finished { kind: Kind::Status, outcome, delay, latency });
            line(Duration::from_millis(1020), Duration::from_secs(60), 1, 3, &mut tally)
        };
        assert_eq!(
            next(204, 2),
            "1 of 60 s: 3 sent, 1 finished, 2xx 100.00 %, p50 2.0 ms, p99 2.0 ms (last 1 s)"
        );
        assert_eq!(
            next(500, 8),
            "1 of 60 s: 3 sent, 2 finished, 2xx 50.00 %, p50 8.0 ms, p99 8.0 ms (last 1 s)"
        );
    }
}
