//! Tables of the measurements. They show medians over rounds; ratios are taken within a round, in which both sides had the
//! same machine, and only then is their median taken. Pure: numbers in, text out.

use std::fmt::Write as _;
use std::time::Duration;

use crate::target::Plan;

/// CPU time per request of one process and its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// `envoy`, `sidecar`, `redis`, `postgres`.
    pub(crate) name: &'static str,
    /// Microseconds.
    pub(crate) us: f64,
}

/// One load on one target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase {
    /// Answered requests per second.
    pub(crate) rate: f64,
    /// Share of the measured core that the target used, 0 to 1.
    pub(crate) busy: f64,
    /// Share of it that other processes used: the noise of this machine.
    pub(crate) others: f64,
    /// Costs of each process, Envoy first.
    pub(crate) costs: Vec<Cost>,
    pub(crate) latencies: Vec<Duration>,
    /// Requests with an unexpected answer.
    pub(crate) wrong: u64,
    /// Webhooks that the backend must get, and those that it got.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
}

impl Phase {
    /// Returns the difference from the result that every run must have, if there is one.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { wrong, expected, delivered, .. } = self;
        (*wrong > 0 || expected != delivered).then(|| {
            format!("{wrong} wrong answers; the backend got {delivered} webhooks, not {expected}")
        })
    }

    /// Returns the latency in microseconds that all but a hundredth of the requests do not exceed.
    pub(crate) fn p99_us(&self) -> f64 {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        percentile(&latencies, 0.99)
    }

    fn total_us(&self) -> f64 {
        self.costs.iter().map(|cost| cost.us).sum()
    }

    fn envoy_us(&self) -> f64 {
        self.costs.first().map_or(0.0, |cost| cost.us)
    }
}

/// All loads on one target in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurement {
    pub(crate) saturated: Phase,
    pub(crate) scheduled: Phase,
    /// The open loop with close repeats, if the target recognizes duplicates.
    pub(crate) close_repeats: Option<Phase>,
    /// Resident memory of Envoy and of its helpers together, after the loads.
    pub(crate) envoy_bytes: u64,
    pub(crate) helper_bytes: u64,
}

impl Measurement {
    pub(crate) fn cpu_us(&self) -> f64 {
        self.saturated.total_us()
    }

    fn scheduled_cpu_us(&self) -> f64 {
        self.scheduled.total_us()
    }

    /// Returns the median latency of the open loop, in microseconds.
    pub(crate) fn p50_us(&self) -> f64 {
        let mut latencies = self.scheduled.latencies.clone();
        latencies.sort_unstable();
        percentile(&latencies, 0.5)
    }

    /// Returns the latency in microseconds that all but a hundredth of the open loop's requests do not exceed.
    pub(crate) fn p99_us(&self) -> f64 {
        self.scheduled.p99_us()
    }

    pub(crate) fn envoy_megabytes(&self) -> f64 {
        self.envoy_bytes as f64 / 1e6
    }
}

/// All rounds of one target, in order.
pub(crate) struct Series {
    pub(crate) plan: Plan,
    pub(crate) rounds: Vec<Measurement>,
}

impl Series {
    pub(crate) fn median(&self, what: fn(&Measurement) -> f64) -> f64 {
        median(self.rounds.iter().map(what))
    }

    /// Returns a value of the rounds that have it, in milliseconds.
    pub(crate) fn ms(&self, us: impl Fn(&Measurement) -> Option<f64>) -> Spread {
        Spread(self.rounds.iter().filter_map(us).map(|us| us / 1e3).collect())
    }

    /// Returns the ratio of a value to that of another series, for each round.
    pub(crate) fn ratios(&self, base: &Series, what: fn(&Measurement) -> f64) -> Spread {
        self.against(base, |one, other| what(one) / what(other))
    }

    /// Returns the difference of a value from that of another series, for each round.
    pub(crate) fn excess(&self, base: &Series, what: fn(&Measurement) -> f64) -> Spread {
        self.against(base, |one, other| what(one) - what(other))
    }

    fn against(
        &self,
        base: &Series,
        compared: impl Fn(&Measurement, &Measurement) -> f64,
    ) -> Spread {
        Spread(
            self.rounds.iter().zip(&base.rounds).map(|(one, other)| compared(one, other)).collect(),
        )
    }
}

/// One number per round; written as their median and `[least..max]`.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn text(&self, digits: usize) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.digits$} [{least:.digits$}..{max:.digits$}]", self.median())
    }
}

/// Returns the tables. The others are compared with the first series, and with (e) if it ran.
pub(crate) fn tables(all: &[Series], scheduled_rate: u32) -> String {
    let Some(base) = all.first() else { return String::new() };
    let service = all.iter().find(|series| series.plan == Plan::ExtAuthz);
    let mut text = saturated_table(all, base, service);
    text.push('\n');
    text.push_str(&scheduled_table(all, base, scheduled_rate));
    text.push('\n');
    text.push_str(&close_repeats_table(all));
    text
}

fn saturated_table(all: &[Series], base: &Series, service: Option<&Series>) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Saturated: Envoy with one worker and all helpers on one core, CPU in us per request\n\n\
         {:<36} {:>6} {:>8} {:>5} {:>6} {:>6} {:>7} {:>6}   {:<18} {:<18} {:>9} {:>8}",
        "target",
        "req/s",
        "per core",
        "busy",
        "others",
        "Envoy",
        "helpers",
        "total",
        "x (a) [min..max]",
        "x (e) [min..max]",
        "Envoy RSS",
        "helpers"
    );
    for series in all.iter().filter(|series| !series.plan.is_slow()) {
        let against_service = service.map(|service| series.ratios(service, Measurement::cpu_us));
        let _ = writeln!(
            text,
            "{:<36} {:>6.0} {:>8.0} {:>4.0}% {:>5.0}% {:>6.1} {:>7.1} {:>6.1}   {:<18} {:<18} {:>6.0} MB {:>5.0} MB",
            series.plan.title(),
            series.median(|round| round.saturated.rate),
            series.median(|round| 1e6 / round.cpu_us()),
            series.median(|round| 100.0 * round.saturated.busy),
            series.median(|round| 100.0 * round.saturated.others),
            series.median(|round| round.saturated.envoy_us()),
            series.median(|round| round.cpu_us() - round.saturated.envoy_us()),
            series.median(Measurement::cpu_us),
            series.ratios(base, Measurement::cpu_us).text(2),
            against_service.map_or_else(String::new, |ratios| ratios.text(2)),
            series.median(Measurement::envoy_megabytes),
            series.median(|round| round.helper_bytes as f64 / 1e6),
        );
        if let Some(parts) = helper_costs(series) {
            let _ = writeln!(text, "    {parts}");
        }
    }
    text
}

fn scheduled_table(all: &[Series], base: &Series, rate: u32) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Open loop, {rate} requests/s, latency in us from when a request was due, all rounds together\n\n\
         {:<36} {:>8} {:>7} {:>7}   {:<18} {:>7} {:>7} {:>7} {:>7}  {:<14}",
        "target",
        "samples",
        "Envoy",
        "total",
        "x (a) [min..max]",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p50 over (a)"
    );
    for series in all {
        let latencies = sorted(series.rounds.iter().map(|round| &round.scheduled));
        let at = |share| percentile(&latencies, share);
        let _ = writeln!(
            text,
            "{:<36} {:>8} {:>7.1} {:>7.1}   {:<18} {:>7.0} {:>7.0} {:>7.0} {:>7.0}  {:<14}",
            series.plan.title(),
            latencies.len(),
            series.median(|round| round.scheduled.envoy_us()),
            series.median(Measurement::scheduled_cpu_us),
            series.ratios(base, Measurement::scheduled_cpu_us).text(2),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            series.excess(base, Measurement::p50_us).text(0),
        );
    }
    text
}

fn close_repeats_table(all: &[Series]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Open loop with close repeats: each eleventh request repeats the one of 0.3 s before; latency in us\n\n\
         {:<36} {:>8} {:>7} {:>7} {:>7} {:>7}",
        "target", "samples", "p50", "p99", "p99.9", "max"
    );
    for series in all {
        let phases = series.rounds.iter().filter_map(|round| round.close_repeats.as_ref());
        let latencies = sorted(phases);
        if latencies.is_empty() {
            continue;
        }
        let at = |share| percentile(&latencies, share);
        let _ = writeln!(
            text,
            "{:<36} {:>8} {:>7.0} {:>7.0} {:>7.0} {:>7.0}",
            series.plan.title(),
            latencies.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
        );
    }
    text
}

/// Returns `sidecar 10.1 + redis 3.0 + postgres 6.2`, if there is more than Envoy.
fn helper_costs(series: &Series) -> Option<String> {
    let names = series.rounds.first()?.saturated.costs.iter().skip(1).map(|cost| cost.name);
    let parts = names.map(|name| {
        let costs = series.rounds.iter().flat_map(|round| &round.saturated.costs);
        let us = median(costs.filter(|cost| cost.name == name).map(|cost| cost.us));
        format!("{name} {us:.1}")
    });
    let parts = parts.collect::<Vec<_>>().join(" + ");
    (!parts.is_empty()).then_some(parts)
}

/// Returns the latencies of all rounds together, in order.
fn sorted<'a>(phases: impl Iterator<Item = &'a Phase>) -> Vec<Duration> {
    let mut all: Vec<Duration> = phases.flat_map(|phase| phase.latencies.clone()).collect();
    all.sort_unstable();
    all
}

/// Returns the smallest value that at least a `share` of all values do not exceed, in microseconds; 0 if there are none.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).map_or(0.0, |latency| latency.as_nanos() as f64 / 1e3)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle), middle.checked_sub(1).and_then(|m| values.get(m)))
    {
        (1, Some(middle), _) => *middle,
        (_, Some(upper), Some(lower)) => f64::midpoint(*upper, *lower),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_has_median_and_tail() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
        let thousand: Vec<Duration> = (1..=1000).map(Duration::from_micros).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|share| percentile(&thousand, share)),
            [500.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    /// A machine that is twice as slow in one round changes times, not ratios.
    #[test]
    fn slow_round_does_not_change_a_ratio() {
        let series = |plan, costs: [f64; 3]| Series {
            plan,
            rounds: costs
                .map(|us| Measurement {
                    saturated: Phase {
                        costs: vec![Cost { name: "envoy", us }],
                        ..Phase::default()
                    },
                    ..Measurement::default()
                })
                .to_vec(),
        };
        let base = series(Plan::Passthrough, [30.0, 60.0, 30.0]);
        let filter = series(Plan::Filter, [36.0, 72.0, 39.0]);
        assert_eq!(filter.ratios(&base, Measurement::cpu_us).text(2), "1.20 [1.20..1.30]");
        assert_eq!(filter.excess(&base, Measurement::cpu_us).text(0), "9 [6..12]");
    }
}
