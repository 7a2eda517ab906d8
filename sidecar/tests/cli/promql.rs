//! Finds unknown series, labels and label values in Prometheus expressions. The known ones are in the reference of metrics that
//! the program prints.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::program::{repository, twilio_edge};

/// One series: its labels, and all words of its row, which are the known label values.
struct Series {
    labels: BTreeSet<String>,
    words: BTreeSet<String>,
}

/// All series of the filter and the sidecar, by name.
pub(crate) struct KnownSeries(BTreeMap<String, Series>);

impl KnownSeries {
    /// Returns the series of the printed reference.
    pub(crate) fn reference() -> KnownSeries {
        let reference = twilio_edge(&["reference", "metrics"]).success();
        let refusals = twilio_edge(&["reference", "refusals"]).success();
        let slugs = refusals.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let slugs: BTreeSet<String> = slugs.map(str::to_owned).collect();
        let mut known = BTreeMap::new();
        for row in reference.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (family, rest) = row.split_once('`').unwrap();
            let (name, labels) = family.split_once('{').unwrap_or((family, ""));
            let labels = labels.trim_end_matches('}').split(',');
            let labels: BTreeSet<String> =
                labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
            let mut words: BTreeSet<String> =
                rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            if ["twilio_edge_rejected", "twilio_edge_shadowed"].contains(&name) {
                words.extend(slugs.iter().cloned());
            }
            let parts: &[&str] = match rest.contains("| histogram |") {
                true => &["_bucket", "_sum", "_count"],
                false => &[""],
            };
            for part in parts {
                let series = Series { labels: labels.clone(), words: words.clone() };
                known.insert(format!("{name}{part}"), series);
            }
        }
        assert!(known.len() > 50, "{:?}", known.keys());
        KnownSeries(known)
    }

    /// Returns the unknown series, labels and label values of `expression`. Ignores series of others and the labels of every
    /// scrape.
    pub(crate) fn wrong_with(&self, expression: &str) -> Vec<String> {
        const OF_A_SCRAPE: [&str; 4] = ["job", "instance", "namespace", "pod"];
        // The reference does not list the values of these labels: they are too many, or the operator chooses them.
        const OPEN: [&str; 4] = ["operation", "route", "sink", "source"];
        let mut wrong = Vec::new();
        for (name, matchers) in asked(expression) {
            let Some(series) = self.0.get(&name) else {
                wrong.push(name);
                continue;
            };
            for (label, values) in matchers {
                if OF_A_SCRAPE.contains(&label.as_str()) {
                    continue;
                }
                if !series.labels.contains(&label) {
                    wrong.push(format!("{name}{{{label}}}"));
                } else if !OPEN.contains(&label.as_str()) {
                    let unknown = values.split('|').filter(|value| !series.words.contains(*value));
                    wrong.extend(unknown.map(|value| format!("{name}{{{label}=\"{value}\"}}")));
                }
            }
        }
        wrong
    }
}

type Matchers = Vec<(String, String)>;

/// Returns each of our series in `expression`, with its label matchers.
fn asked(expression: &str) -> Vec<(String, Matchers)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut asked, mut rest) = (Vec::new(), expression);
    while let Some(at) = rest.find("twilio_edge_") {
        // Envoy's own counters of our VM have names of Envoy; wasm-tests checks them in a running Envoy.
        let is_ours = !rest[..at].ends_with(is_part);
        let after = &rest[at..];
        let (name, more) = after.split_at(after.find(|c| !is_part(c)).unwrap_or(after.len()));
        rest = more;
        let selector = more.strip_prefix('{').and_then(|more| more.split('}').next());
        let matchers = selector.unwrap_or_default().split(',').filter_map(|matcher| {
            let (label, value) = matcher.split_once(['=', '!'])?;
            let value = value.trim_start_matches(['=', '~']).trim().trim_matches('"');
            Some((label.trim().to_owned(), value.to_owned()))
        });
        if is_ours {
            asked.push((name.to_owned(), matchers.collect()));
        }
    }
    asked
}

/// Runs Prometheus's own promtool on these files. Panics with its output if it reports an error.
pub(crate) fn promtool(what: [&str; 2], files: impl IntoIterator<Item = String>) {
    let program = repository().join(".tools/promtool/promtool");
    let ran = std::process::Command::new(&program)
        .args(what)
        .args(files)
        .current_dir(repository().join("envoy/alerts"))
        .output();
    let ran = ran.unwrap_or_else(|error| panic!("{}: {error}; make setup-test", program.display()));
    let output = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&output));
}

#[test]
fn unknown_series_are_found() {
    let known = KnownSeries::reference();
    for expression in [
        "rate(twilio_edge_spool_byte[5m]) > 0",
        "twilio_edge_redis_state{stat=\"unavailable\"} == 1",
        "twilio_edge_redis_state{state=\"gone\"} == 1",
        "twilio_edge_rejected{reason=~\"no-keys|no-key\"}",
        "twilio_edge_claim_duration_seconds > 1",
    ] {
        assert_eq!(known.wrong_with(expression).len(), 1, "{expression}");
    }
    for expression in [
        "twilio_edge_rejected{reason=~\"no-keys|no-body\", instance=~\"$edge\"}",
        "increase(envoy_wasm_twilio_edge_vm_reload_success[1h]) > 0",
    ] {
        assert_eq!(known.wrong_with(expression), Vec::<String>::new(), "{expression}");
    }
}
