//! Prometheus alerts, checked with Prometheus's own promtool: each alert is well-formed, names existing metrics, and fires
//! and stays silent as its unit tests specify. Each file of alerts has its unit tests beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    promql::{KnownSeries, promtool},
    support::program::{repository, twilio_edge},
};

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
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
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

#[test]
fn prometheus_takes_the_rules() {
    promtool(["check", "rules"], ["--lint-fatal".to_owned()].into_iter().chain(files()));
}

/// As docs/OBSERVABILITY.md has it, with every file of alerts.
#[test]
fn prometheus_takes_the_configuration_that_is_shown() {
    let document = fs::read_to_string(repository().join("docs/OBSERVABILITY.md")).unwrap();
    let shown = document.split("```yaml\n").find(|text| text.starts_with("rule_files:")).unwrap();
    let shown = shown.split("```").next().unwrap();
    let named = shown.lines().filter_map(|line| line.split_once("- twilio-edge/alerts/"));
    let mut named: Vec<&str> = named.map(|(_, file)| file).collect();
    named.sort_unstable();
    assert_eq!(named, files());
    let place = tempfile::TempDir::new().unwrap();
    fs::create_dir(place.path().join("twilio-edge")).unwrap();
    std::os::unix::fs::symlink(folder(), place.path().join("twilio-edge/alerts")).unwrap();
    let file = place.path().join("prometheus.yml");
    fs::write(&file, shown).unwrap();
    promtool(["check", "config"], [file.display().to_string()]);
}

#[test]
fn each_alert_fires_and_is_silent_as_its_unit_tests_say() {
    promtool(["test", "rules"], files().iter().map(|file| unit_tests_of(file)));
}

/// promtool itself does not require a unit test for each alert.
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

#[test]
fn alerts_name_metrics_and_labels_that_are_there() {
    let (reference, mut wrong) = (KnownSeries::reference(), Vec::new());
    for file in files() {
        for rule in rules(&file) {
            let missing = reference.wrong_with(&rule.expr).into_iter();
            wrong.extend(missing.map(|name| format!("{file}: {name}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Every alert has a section in the runbooks, and every section of the runbooks has an existing alert.
#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    const PARTS: [&str; 4] = ["**Means**", "**Confirm**", "**Do**", "**Do not**"];
    let runbooks = fs::read_to_string(repository().join("docs/RUNBOOKS.md")).unwrap();
    let sections = runbooks.split("\n### ").skip(1);
    let sections: BTreeMap<&str, &str> = sections.filter_map(|it| it.split_once('\n')).collect();
    let alerts = files().into_iter().flat_map(|file| rules(&file));
    let alerts: BTreeMap<String, Rule> =
        alerts.filter_map(|rule| Some((rule.alert.clone()?, rule))).collect();
    let names: BTreeSet<&str> = alerts.keys().map(String::as_str).collect();
    assert_eq!(sections.keys().copied().collect::<BTreeSet<_>>(), names);
    for (name, text) in sections {
        let parts: Vec<&str> = PARTS.into_iter().filter(|part| text.contains(part)).collect();
        assert_eq!(parts, PARTS, "{name}");
        let runbook = format!("docs/RUNBOOKS.md#{}", name.to_lowercase());
        assert_eq!(alerts[name].annotations["runbook"], runbook);
        let severity = alerts[name].labels["severity"].as_str();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        // What a section says of other alerts and of the log is there as well.
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let mut others = words.filter(|word| word.starts_with("TwilioEdge"));
        assert_eq!(others.find(|word| !names.contains(word)), None, "{name}");
    }
    let events = twilio_edge(&["reference", "events"]).success();
    let events = events.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let events: BTreeSet<&str> = events.collect();
    let families: BTreeSet<&str> = events.iter().filter_map(|it| it.split('.').next()).collect();
    let spans = runbooks.split('`').skip(1).step_by(2);
    let mut named = spans.filter(|span| {
        let plain = span.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
        plain && span.split_once('.').is_some_and(|(family, _)| families.contains(family))
    });
    let settings = fs::read_to_string(repository().join("crates/platform/defaults.toml")).unwrap();
    let settings: toml::Table = settings.parse().unwrap();
    let is_setting = |span: &str| {
        let (table, name) = span.split_once('.').unwrap();
        settings.get(table).is_some_and(|table| table.get(name).is_some())
    };
    assert_eq!(named.find(|span| !events.contains(span) && !is_setting(span)), None);
}
