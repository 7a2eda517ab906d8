//! Checks the Grafana dashboard against the types of the oldest and the newest supported Grafana. promtool checks its
//! expressions, and each metric in them must exist.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    promql::{KnownSeries, promtool},
    support::program::repository,
};

const FILE: &str = "envoy/dashboards/twilio-edge.json";

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(repository().join(FILE)).unwrap()).unwrap()
}

/// Returns title and expression of each query of each panel.
fn questions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let questions = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    let questions: Vec<(String, String)> = questions.collect();
    assert!(questions.len() > 40, "{questions:?}");
    questions
}

/// Returns the type errors of the dashboard, or an empty string.
fn judged(dashboard: &Value) -> String {
    let folder = repository().join(".tools/manifests");
    assert!(folder.join("node_modules/@grafana").exists(), "no types: run `make setup-test`");
    let script = fs::read_to_string(repository().join("sidecar/tests/cli/dashboard.mjs")).unwrap();
    let mut node = Command::new("node")
        .args(["--input-type=module", "--eval", &script])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(dashboard.to_string().as_bytes()).unwrap();
    let said = node.wait_with_output().unwrap();
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert_eq!(said.status.success(), text.is_empty(), "{}: {text}", said.status);
    text
}

#[test]
fn dashboard_conforms_to_grafana_types() {
    let dashboard = dashboard();
    assert_eq!(judged(&dashboard), "");
    for (place, value) in [
        ("/refreshes", Value::from("30s")),
        ("/panels/1/options/graphMode", Value::from("lines")),
        ("/panels/8/fieldConfig/defaults/custom/drawStyle", Value::from("dotted")),
    ] {
        let mut wrong = dashboard.clone();
        match wrong.pointer_mut(place) {
            Some(there) => *there = value,
            None => wrong[place.trim_start_matches('/')] = value,
        }
        assert!(judged(&wrong).contains("error TS"), "the check accepts an invalid {place}");
    }
}

/// Grafana accepts two panels at one place, and shows only one.
#[test]
fn panels_have_unique_ids_and_places() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for y in side("y")..side("y") + side("h") {
            for x in side("x")..side("x") + side("w") {
                assert!(x < 24 && cells.insert((x, y)), "{} is over another", panel["title"]);
            }
        }
    }
}

#[test]
fn panel_expressions_are_valid_promql() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let mut rules = "groups:\n  - name: panels\n    rules:\n".to_owned();
    for (nth, (_, expression)) in questions().iter().enumerate() {
        // Grafana replaces these variables before it sends the query.
        let expression = expression.replace("$__rate_interval", "5m").replace('$', "");
        let expression = Value::from(expression);
        write!(rules, "      - record: panel:{nth}\n        expr: {expression}\n").unwrap();
    }
    fs::write(file.path(), rules).unwrap();
    promtool(["check", "rules"], [file.path().display().to_string()]);
}

#[test]
fn panels_name_metrics_and_variables_that_are_there() {
    let (reference, dashboard) = (KnownSeries::reference(), dashboard());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: BTreeSet<&str> =
        variables.filter_map(|it| it["name"].as_str()).chain(["__rate_interval"]).collect();
    let mut wrong = Vec::new();
    for (title, expression) in questions() {
        let missing = reference.wrong_with(&expression).into_iter();
        wrong.extend(missing.map(|name| format!("{title}: {name}")));
        for after in expression.split('$').skip(1) {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &after[..end.unwrap_or(after.len())];
            if !variables.contains(name) {
                wrong.push(format!("{title}: ${name}"));
            }
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            wrong.extend(reference.wrong_with(query));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Each metric must be used by a panel or an alert, so that operators see it.
#[test]
fn each_series_of_filter_and_sidecar_is_in_a_dashboard() {
    // Operators find these numbers elsewhere, for instance those of suppressed log lines, lost traces and the retention job.
    const ELSEWHERE: [&str; 12] = [
        "twilio_edge_generation",
        "twilio_edge_settlement_results",
        "twilio_edge_settlements_total",
        "twilio_edge_batch_size",
        "twilio_edge_spool_replayed_total",
        "twilio_edge_spool_torn_total",
        "twilio_edge_trace_exports_failed_total",
        "twilio_edge_log_lines_suppressed_total",
        "twilio_edge_retention_redacted_total",
        "twilio_edge_retention_deleted_total",
        "twilio_edge_retention_last_run_timestamp_seconds",
        "process_start_time_seconds",
    ];
    let mut looked = fs::read_to_string(repository().join(FILE)).unwrap();
    for entry in fs::read_dir(repository().join("envoy/alerts")).unwrap() {
        looked.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let reference = crate::support::program::twilio_edge(&["reference", "metrics"]).success();
    let families = reference.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split(['`', '{']).next()?;
        let word = |at: usize| looked[at + name.len()..].chars().next();
        let is_there = looked.match_indices(name).any(|(at, _)| {
            let after = &looked[at + name.len()..];
            let ends = word(at).is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
            ends || ["_bucket", "_sum", "_count"].iter().any(|part| after.starts_with(part))
        });
        (!is_there && !ELSEWHERE.contains(&name)).then_some(name)
    });
    assert_eq!(families.collect::<Vec<_>>(), Vec::<&str>::new());
}
