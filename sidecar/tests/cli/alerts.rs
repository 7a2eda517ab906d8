//! The alerts for Prometheus, judged by Prometheus's own promtool: each is well-formed, names metrics that are there, fires when
//! its unit test says it should and is silent when it should be. A file of alerts has its unit tests beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::program::{repository, twilio_edge};

const TESTS: &str = ".test.yaml";

#[derive(Deserialize)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    /// None: the rule only records.
    alert: Option<String>,
    expr: String,
}

#[derive(Deserialize)]
struct UnitTests {
    rule_files: Vec<String>,
    tests: Vec<UnitTest>,
}

#[derive(Deserialize)]
struct UnitTest {
    #[serde(default)]
    alert_rule_test: Vec<Moment>,
}

#[derive(Deserialize)]
struct Moment {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<serde_json::Value>,
}

fn folder() -> PathBuf {
    repository().join("envoy/alerts")
}

/// The files of alerts, by name.
fn files() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".yaml") && !name.ends_with(TESTS));
    names.sort();
    assert!(names.len() > 1, "{names:?}");
    names
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unit_tests_of(file: &str) -> String {
    file.replace(".yaml", TESTS)
}

fn rules(file: &str) -> Vec<Rule> {
    read::<Alerts>(&folder().join(file)).groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Fails with what promtool says unless it is content.
fn promtool(what: [&str; 2], files: impl IntoIterator<Item = String>) {
    let program = repository().join(".tools/promtool/promtool");
    let ran = Command::new(&program).args(what).args(files).current_dir(folder()).output();
    let ran = ran.unwrap_or_else(|error| panic!("{}: {error}; make setup-test", program.display()));
    let told = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn prometheus_takes_the_rules() {
    promtool(["check", "rules"], ["--lint-fatal".to_owned()].into_iter().chain(files()));
}

#[test]
fn each_alert_fires_and_is_silent_as_its_unit_tests_say() {
    promtool(["test", "rules"], files().iter().map(|file| unit_tests_of(file)));
}

/// promtool is content with an alert nobody tests.
#[test]
fn each_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_is_silent() {
    let mut untested = Vec::new();
    for file in files() {
        let tests: UnitTests = read(&folder().join(unit_tests_of(&file)));
        assert_eq!(tests.rule_files, [file.as_str()], "{}", unit_tests_of(&file));
        let mut seen: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
        for moment in tests.tests.into_iter().flat_map(|test| test.alert_rule_test) {
            let fires = !moment.exp_alerts.is_empty();
            seen.entry(moment.alertname).or_default().insert(fires);
        }
        let alerts = rules(&file).into_iter().filter_map(|rule| rule.alert);
        let whole = |alert: &String| seen.get(alert).is_some_and(|seen| seen.len() == 2);
        untested.extend(alerts.filter(|alert| !whole(alert)));
    }
    assert!(untested.is_empty(), "no unit test has both of {untested:?}: firing, and silent");
}

/// The labels of each series that filter and sidecar tell, by its name.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let reference = twilio_edge(&["reference", "metrics"]).success();
    let mut told = BTreeMap::new();
    for row in reference.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (family, rest) = row.split_once('`').unwrap();
        let (name, labels) = family.split_once('{').unwrap_or((family, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let labels: BTreeSet<String> =
            labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
        if rest.contains("| histogram |") {
            for part in ["bucket", "sum", "count"] {
                told.insert(format!("{name}_{part}"), labels.clone());
            }
        } else {
            told.insert(name.to_owned(), labels);
        }
    }
    assert!(told.len() > 50, "{told:?}");
    told
}

/// What an expression asks for that nobody tells: of our series, and of their labels.
fn untold(expression: &str, told: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    // What every scrape has.
    const COMMON: [&str; 4] = ["job", "instance", "namespace", "pod"];
    let mut wrong = Vec::new();
    // Values of labels are no names.
    let expression = expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let mut rest = expression.as_str();
    while let Some(at) = rest.find("twilio_edge_") {
        let after = &rest[at..];
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, more) = after.split_at(end.unwrap_or(after.len()));
        rest = more;
        let Some(labels) = told.get(name) else {
            // Envoy's own counters of our VM, under names of its making.
            if !expression.contains(&format!("envoy_wasm_{name}")) {
                wrong.push(name.to_owned());
            }
            continue;
        };
        let selector = more.strip_prefix('{').and_then(|more| more.split('}').next());
        for matcher in selector.unwrap_or_default().split(',').filter(|it| !it.trim().is_empty()) {
            let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
            if !labels.contains(label) && !COMMON.contains(&label) {
                wrong.push(format!("{name}{{{label}}}"));
            }
        }
    }
    wrong
}

#[test]
fn alerts_name_metrics_and_labels_that_are_there() {
    let (told, mut wrong) = (told(), Vec::new());
    for file in files() {
        for rule in rules(&file) {
            let missing = untold(&rule.expr, &told).into_iter();
            wrong.extend(missing.map(|name| format!("{file}: {name}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    let sought = [
        "rate(twilio_edge_spool_byte[5m]) > 0",
        "twilio_edge_redis_state{stat=\"away\"} == 1",
        "twilio_edge_claim_duration_seconds > 1",
    ];
    for expression in sought {
        assert_eq!(untold(expression, &told).len(), 1, "{expression}");
    }
}
