//! Goals for the cost of the filter and the sidecar, and whether this run met them. They are ratios, so that they do not
//! depend on the speed of the machine; a goal is left out if one of its two sides did not run. Pure: numbers in, text out.

use std::fmt::Write as _;

use crate::report::{Measurement, Series};
use crate::target::Plan;

/// CPU of the filter alone, as a multiple of Envoy's without it.
const FILTER_TO_ENVOY: f64 = 1.45;
/// CPU of the native module alone, as a multiple of Envoy's without it.
const NATIVE_TO_ENVOY: f64 = 1.25;
/// CPU of the native module, the sidecar and stores together, as a multiple of Envoy's without the filter.
const NATIVE_STORES_TO_ENVOY: f64 = 2.0;
/// Resident memory that the filter adds to Envoy's.
const ADDED_MEGABYTES: f64 = 28.0;
/// Resident memory that the native module adds to Envoy's.
const NATIVE_ADDED_MEGABYTES: f64 = 6.0;
const WASM_BYTES: u64 = 300_000;
/// 99th percentile in milliseconds of the open loop with close repeats.
const CLOSE_REPEATS_P99_MS: f64 = 10.0;
/// Milliseconds that filter and sidecar on a slow disk add to the 99th percentile of the open loop of Envoy alone.
const SLOW_DISK_P99_MS: f64 = 5.0;

/// Returns the goals for the CPU of filter, sidecar and stores together: as a multiple of Envoy's without the filter, and of
/// Envoy with an authorization service.
fn most(plan: Plan) -> Option<(f64, f64)> {
    match plan {
        Plan::Embedded => Some((2.2, 0.8)),
        Plan::Stores => Some((2.4, 0.9)),
        Plan::Passthrough
        | Plan::Filter
        | Plan::Native
        | Plan::NativeStores
        | Plan::ExtAuthz
        | Plan::Slow(_)
        | Plan::Accepting(_) => None,
    }
}

/// One goal, measured.
struct Goal {
    what: String,
    measured: String,
    at_most: String,
    met: bool,
}

/// Returns the table of goals.
pub(crate) fn table(all: &[Series], wasm_bytes: u64) -> String {
    let mut text = format!("{:<44} {:<22} {:<12}\n", "Goal", "measured [min..max]", "at max");
    for goal in goals(all, wasm_bytes) {
        let verdict = if goal.met { "met" } else { "not met" };
        let Goal { what, measured, at_most, .. } = goal;
        let _ = writeln!(text, "{what:<44} {measured:<22} {at_most:<12} {verdict}");
    }
    text
}

fn goals(all: &[Series], wasm_bytes: u64) -> Vec<Goal> {
    let of = |plan| all.iter().find(|series| series.plan == plan);
    let ours = || all.iter().filter(|series| series.plan.filters() && !series.plan.is_slow());
    let mut goals = Vec::new();
    if let Some(base) = of(Plan::Passthrough) {
        goals.extend(ours().map(|series| {
            let max = match series.plan {
                Plan::Native => NATIVE_TO_ENVOY,
                Plan::NativeStores => NATIVE_STORES_TO_ENVOY,
                plan => most(plan).map_or(FILTER_TO_ENVOY, |(to_envoy, _)| to_envoy),
            };
            cpu(series, base, max)
        }));
    }
    if let Some(service) = of(Plan::ExtAuthz) {
        let with_sidecar = || all.iter().filter_map(|series| Some((series, most(series.plan)?)));
        goals.extend(with_sidecar().map(|(series, (_, max))| cpu(series, service, max)));
        goals.extend(with_sidecar().map(|(series, _)| p50(series, service)));
    }
    if let Some(base) = of(Plan::Passthrough) {
        goals.extend(all.iter().filter(|series| series.plan.is_slow()).map(|series| {
            let added = series.excess(base, |round| round.p99_us() / 1e3);
            Goal {
                what: format!("{} p99 of the open loop over (a), ms", series.plan.letter()),
                measured: added.text(1),
                at_most: format!("{SLOW_DISK_P99_MS:.0}"),
                met: added.median() <= SLOW_DISK_P99_MS,
            }
        }));
        goals.extend(ours().map(|series| {
            let megabytes = series.median(Measurement::envoy_megabytes)
                - base.median(Measurement::envoy_megabytes);
            let at_most = match series.plan.is_native() {
                true => NATIVE_ADDED_MEGABYTES,
                false => ADDED_MEGABYTES,
            };
            Goal {
                what: format!(
                    "{} Envoy's memory over {}",
                    series.plan.letter(),
                    base.plan.letter()
                ),
                measured: format!("{megabytes:.0} MB"),
                at_most: format!("{at_most:.0} MB"),
                met: megabytes <= at_most,
            }
        }));
    }
    goals.extend(ours().filter_map(|series| {
        let p99 = series.ms(|round| Some(round.close_repeats.as_ref()?.p99_us()));
        (!p99.is_empty()).then(|| Goal {
            what: format!("{} p99 with close repeats, ms", series.plan.letter()),
            measured: p99.text(1),
            at_most: format!("{CLOSE_REPEATS_P99_MS:.0}"),
            met: p99.median() <= CLOSE_REPEATS_P99_MS,
        })
    }));
    goals.push(Goal {
        what: "the wasm file".to_owned(),
        measured: format!("{wasm_bytes} bytes"),
        at_most: format!("{WASM_BYTES} bytes"),
        met: wasm_bytes <= WASM_BYTES,
    });
    goals
}

/// Returns the goal for the CPU when saturated.
fn cpu(series: &Series, base: &Series, max: f64) -> Goal {
    let ratios = series.ratios(base, Measurement::cpu_us);
    Goal {
        what: format!("{} CPU x {}", series.plan.letter(), base.plan.letter()),
        measured: ratios.text(2),
        at_most: format!("{max:.2}"),
        met: ratios.median() <= max,
    }
}

/// Returns the goal for the median latency. Both sides have (a) in common, so it compares what they add to it.
fn p50(series: &Series, service: &Series) -> Goal {
    let excess = series.excess(service, Measurement::p50_us);
    Goal {
        what: format!(
            "{} p50 of the open loop over {}, us",
            series.plan.letter(),
            service.plan.letter()
        ),
        measured: excess.text(0),
        at_most: "0".to_owned(),
        met: excess.median() <= 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{Cost, Phase};
    use crate::target::Stores;

    fn series(plan: Plan, us: f64, p50_us: u64, megabytes: u64) -> Series {
        let cost = Phase { costs: vec![Cost { name: "envoy", us }], ..Phase::default() };
        let latencies = vec![Duration::from_micros(p50_us)];
        let round = Measurement {
            saturated: cost,
            close_repeats: Some(Phase { latencies: latencies.clone(), ..Phase::default() })
                .filter(|_| plan.remembers()),
            scheduled: Phase { latencies, ..Phase::default() },
            envoy_bytes: megabytes * 1_000_000,
            helper_bytes: 0,
        };
        Series { plan, rounds: vec![round] }
    }

    fn met(all: &[Series], wasm_bytes: u64) -> Vec<(String, bool)> {
        goals(all, wasm_bytes).into_iter().map(|goal| (goal.what, goal.met)).collect()
    }

    #[test]
    fn goal_is_met_up_to_its_last_hundredth() {
        let all = [
            series(Plan::Passthrough, 100.0, 100, 70),
            series(Plan::Filter, 145.0, 130, 98),
            series(Plan::Embedded, 221.0, 251, 99),
            series(Plan::Stores, 240.0, 250, 97),
            series(Plan::ExtAuthz, 270.0, 250, 200),
            series(Plan::Slow(Stores::Sqlite), 300.0, 5_100, 97),
            series(Plan::Slow(Stores::RedisPostgres), 300.0, 5_101, 97),
            series(Plan::Native, 125.0, 120, 76),
            series(Plan::NativeStores, 201.0, 200, 77),
        ];
        let expected = [
            ("(b) CPU x (a)", true),
            ("(c) CPU x (a)", false),
            ("(d) CPU x (a)", true),
            ("(n) CPU x (a)", true),
            ("(s) CPU x (a)", false),
            ("(c) CPU x (e)", false),
            ("(d) CPU x (e)", true),
            ("(c) p50 of the open loop over (e), us", false),
            ("(d) p50 of the open loop over (e), us", true),
            ("(f) p99 of the open loop over (a), ms", true),
            ("(g) p99 of the open loop over (a), ms", false),
            ("(b) Envoy's memory over (a)", true),
            ("(c) Envoy's memory over (a)", false),
            ("(d) Envoy's memory over (a)", true),
            ("(n) Envoy's memory over (a)", true),
            ("(s) Envoy's memory over (a)", false),
            ("(c) p99 with close repeats, ms", true),
            ("(d) p99 with close repeats, ms", true),
            ("(s) p99 with close repeats, ms", true),
            ("the wasm file", true),
        ]
        .map(|(what, met)| (what.to_owned(), met));
        assert_eq!(met(&all, 300_000), expected);
        let text = table(&all, 300_001);
        assert!(text.ends_with("300001 bytes           300000 bytes not met\n"), "{text}");
    }

    #[test]
    fn goals_without_redis_skip_the_comparison() {
        let all = [series(Plan::Passthrough, 100.0, 100, 70), series(Plan::Filter, 120.0, 120, 90)];
        let named: Vec<String> = met(&all, 1).into_iter().map(|(what, _)| what).collect();
        assert_eq!(named, ["(b) CPU x (a)", "(b) Envoy's memory over (a)", "the wasm file"]);
    }
}
