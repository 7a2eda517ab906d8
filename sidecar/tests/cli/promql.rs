//! What an expression for Prometheus asks for that nobody tells: series, labels, values of labels. What filter and sidecar tell is
//! what the program prints of itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::program::{repository, twilio_edge};

/// One series: its labels, and every word its row has for their values.
struct Series {
    labels: BTreeSet<String>,
    words: BTreeSet<String>,
}

/// Every series that there is, by its name.
pub(crate) struct Told(BTreeMap<String, Series>);

impl Told {
    pub(crate) fn reference() -> Told {
        let reference = twilio_edge(&["reference", "metrics"]).success();
        let refusals = twilio_edge(&["reference", "refusals"]).success();
        let slugs = refusals.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let slugs: BTreeSet<String> = slugs.map(str::to_owned).collect();
        let mut told = BTreeMap::new();
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
                told.insert(format!("{name}{part}"), series);
            }
        }
        assert!(told.len() > 50, "{:?}", told.keys());
        Told(told)
    }

    /// What is wrong with `expression`, of our series alone. Labels that every scrape has may always be asked for.
    pub(crate) fn wrong_with(&self, expression: &str) -> Vec<String> {
        const OF_A_SCRAPE: [&str; 4] = ["job", "instance", "namespace", "pod"];
        // Their values are in no table: too many, or the operator's own.
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

/// Each of our series in `expression`, with the labels it is chosen by.
fn asked(expression: &str) -> Vec<(String, Matchers)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut asked, mut rest) = (Vec::new(), expression);
    while let Some(at) = rest.find("twilio_edge_") {
        // Envoy's own counters of our VM have a name of Envoy's; it is looked for in a running one (wasm-tests).
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

/// Fails with what Prometheus's own promtool says unless it is content with these files.
pub(crate) fn promtool(what: [&str; 2], files: impl IntoIterator<Item = String>) {
    let program = repository().join(".tools/promtool/promtool");
    let ran = std::process::Command::new(&program)
        .args(what)
        .args(files)
        .current_dir(repository().join("envoy/alerts"))
        .output();
    let ran = ran.unwrap_or_else(|error| panic!("{}: {error}; make setup-test", program.display()));
    let told = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn unknown_series_are_found() {
    let told = Told::reference();
    for expression in [
        "rate(twilio_edge_spool_byte[5m]) > 0",
        "twilio_edge_redis_state{stat=\"away\"} == 1",
        "twilio_edge_redis_state{state=\"gone\"} == 1",
        "twilio_edge_rejected{reason=~\"no-keys|no-key\"}",
        "twilio_edge_claim_duration_seconds > 1",
    ] {
        assert_eq!(told.wrong_with(expression).len(), 1, "{expression}");
    }
    for expression in [
        "twilio_edge_rejected{reason=~\"no-keys|no-body\", instance=~\"$edge\"}",
        "increase(envoy_wasm_twilio_edge_vm_reload_success[1h]) > 0",
    ] {
        assert_eq!(told.wrong_with(expression), Vec::<String>::new(), "{expression}");
    }
}
