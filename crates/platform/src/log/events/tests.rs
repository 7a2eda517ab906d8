//! Comparison of the table of events with the code and the document.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::*;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// Returns the event and level of each log line in a source file.
fn written(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let calls = code.split("tracing::").skip(1).filter_map(|rest| rest.split_once("!("));
    let levels = ["error", "warn", "info", "debug", "trace"];
    let calls = calls.filter(|(level, _)| levels.contains(level));
    let event = |(level, rest): (&str, &str)| {
        let own = rest.split_once("event = \"").filter(|(before, _)| {
            before.trim().is_empty() || before.trim().starts_with("target: ")
        });
        let problem = format!("{}: a line of {level} without its event", path.display());
        let event = own.map(|(_, rest)| rest.split('"').next().unwrap()).expect(&problem);
        (event.to_owned(), level.to_owned())
    };
    calls.map(event).collect()
}

#[test]
fn table_of_events_lists_the_log_lines_of_the_code() {
    let mut files = Vec::new();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    sources(&repository.join("sidecar/src"), &mut files);
    for member in std::fs::read_dir(repository.join("crates")).unwrap() {
        sources(&member.unwrap().path().join("src"), &mut files);
    }
    files.retain(|path| !path.ends_with("log/events.rs") && !path.ends_with("log/events/tests.rs"));
    let written: BTreeSet<_> = files.iter().flat_map(|path| written(path)).collect();
    let listed = ALL.iter().map(|(event, level, _)| ((*event).to_owned(), (*level).to_owned()));
    assert_eq!(written, listed.collect());
    assert!(ALL.is_sorted_by_key(|(event, ..)| *event), "in their order");
}

#[test]
fn document_contains_the_table_of_events() {
    let document = include_str!("../../../../../docs/OBSERVABILITY.md");
    let remedy = "docs/OBSERVABILITY.md: put in `twilio-edge reference events`";
    assert!(document.contains(&reference()), "{remedy}");
}
