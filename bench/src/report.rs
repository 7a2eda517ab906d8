//! What was measured, made into tables. Medians over rounds; ratios are taken within a round, where both sides met
//! the same machine, and only then is their median taken. Pure: numbers in, text out.

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
    /// Share of it that others used, this machine's noise.
    pub(crate) others: f64,
    /// Envoy first.
    pub(crate) costs: Vec<Cost>,
    pub(crate) latencies: Vec<Duration>,
    /// Requests that were answered otherwise than they had to be, or whose webhook the backend got too often or not.
    pub(crate) off: u64,
}

impl Phase {
    fn total_us(&self) -> f64 {
        self.costs.iter().map(|cost| cost.us).sum()
    }

    fn envoy_us(&self) -> f64 {
        self.costs.first().map_or(0.0, |cost| cost.us)
    }
}

/// Both loads on one target in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurement {
    pub(crate) saturated: Phase,
    pub(crate) scheduled: Phase,
    /// Resident memory of Envoy and of its helpers together, after the loads.
    pub(crate) envoy_bytes: u64,
    pub(crate) helper_bytes: u64,
}

/// All rounds of one target, in order.
pub(crate) struct Series {
    pub(crate) plan: Plan,
    pub(crate) rounds: Vec<Measurement>,
}

/// The tables. The first series is what the others are compared with.
pub(crate) fn tables(all: &[Series], scheduled_rate: u32) -> String {
    let Some(base) = all.first() else { return String::new() };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Saturated: Envoy with one worker and all helpers on one core, CPU in us per request\n\n\
         {:<38} {:>8} {:>5} {:>6} {:>7} {:>8} {:>7}   {:<18} {:>9} {:>9}",
        "target",
        "req/s",
        "busy",
        "others",
        "Envoy",
        "helpers",
        "total",
        "x (a) [min-max]",
        "Envoy RSS",
        "helpers"
    );
    for series in all {
        let of = |what: fn(&Measurement) -> f64| median(series.rounds.iter().map(what));
        let total = of(|round| round.saturated.total_us());
        let envoy = of(|round| round.saturated.envoy_us());
        let helpers = of(|round| round.saturated.total_us() - round.saturated.envoy_us());
        let _ = writeln!(
            text,
            "{:<38} {:>8.0} {:>4.0}% {:>5.0}% {envoy:>7.1} {helpers:>8.1} {total:>7.1}   {:<18} {:>6.0} MB {:>6.0} MB",
            series.plan.title(),
            of(|round| round.saturated.rate),
            of(|round| 100.0 * round.saturated.busy),
            of(|round| 100.0 * round.saturated.others),
            ratio(series, base, |round| round.saturated.total_us()),
            of(|round| round.envoy_bytes as f64 / 1e6),
            of(|round| round.helper_bytes as f64 / 1e6),
        );
        if let Some(parts) = helper_costs(series) {
            let _ = writeln!(text, "    {parts}");
        }
    }
    let _ = writeln!(
        text,
        "\nOpen loop, {scheduled_rate} requests/s, latency in us from when a request was due, all rounds together\n\n\
         {:<38} {:>8} {:>7} {:>7}   {:<18} {:>7} {:>7} {:>7} {:>7}  {:<14}",
        "target",
        "samples",
        "Envoy",
        "total",
        "x (a) [min-max]",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p50 over (a)"
    );
    for series in all {
        let of = |what: fn(&Measurement) -> f64| median(series.rounds.iter().map(what));
        let latencies = sorted(series.rounds.iter());
        let at = |share| percentile(&latencies, share);
        let more = series.rounds.iter().zip(&base.rounds);
        let more: Vec<f64> =
            more.map(|(one, other)| p50(&one.scheduled) - p50(&other.scheduled)).collect();
        let _ = writeln!(
            text,
            "{:<38} {:>8} {:>7.1} {:>7.1}   {:<18} {:>7.0} {:>7.0} {:>7.0} {:>7.0}  {:<14}",
            series.plan.title(),
            latencies.len(),
            of(|round| round.scheduled.envoy_us()),
            of(|round| round.scheduled.total_us()),
            ratio(series, base, |round| round.scheduled.total_us()),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            spread(&more, 0),
        );
    }
    text
}

/// The ratio of what each round of two series has of something.
fn ratio(series: &Series, base: &Series, what: fn(&Measurement) -> f64) -> String {
    let pairs = series.rounds.iter().zip(&base.rounds);
    let ratios: Vec<f64> = pairs.map(|(one, other)| what(one) / what(other)).collect();
    spread(&ratios, 2)
}

fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} [{least:.digits$}-{most:.digits$}]", median(values.iter().copied()))
}

/// `sidecar 10.1 + redis 3.0 + postgres 6.2`, if there is more than Envoy.
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

fn p50(phase: &Phase) -> f64 {
    let mut latencies = phase.latencies.clone();
    latencies.sort_unstable();
    percentile(&latencies, 0.5)
}

fn sorted<'a>(rounds: impl Iterator<Item = &'a Measurement>) -> Vec<Duration> {
    let mut all: Vec<Duration> =
        rounds.flat_map(|round| round.scheduled.latencies.iter().copied()).collect();
    all.sort_unstable();
    all
}

/// The least value that `share` of all are not above, in microseconds; 0 of none.
fn percentile(sorted: &[Duration], share: f64) -> f64 {
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
    fn the_middle_and_the_tail() {
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
    fn a_slow_round_does_not_change_a_ratio() {
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
        assert_eq!(ratio(&filter, &base, |round| round.saturated.total_us()), "1.20 [1.20-1.30]");
    }
}
