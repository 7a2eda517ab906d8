//! `twilio-edge messages` and `events`: what is asked for wrongly is said before any database is looked for.

use crate::support::program::{run, twilio_edge};

const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";

#[test]
fn account_option_is_required() {
    let ran = twilio_edge(&["messages", "list"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--account"), "{}", ran.err);
    let ran = twilio_edge(&["messages", "list", "--account", "AC1:SM1"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("no account SID"), "{}", ran.err);
}

#[test]
fn malformed_time_is_refused() {
    for (option, value, problem) in [
        ("--date-sent", "yesterday", "YYYY-MM-DD"),
        ("--since", "2026-11-23T12:00", "with its zone"),
        ("--until", "2026-02-30", "no day"),
        ("--to", "whatsapp:", "no address"),
        ("--limit", "0", "--limit"),
        ("--output", "xml", "possible values: table, json, tsv"),
    ] {
        let ran = run(&["messages", "list", option, value], &[("TWILIO_ACCOUNT_SID", ACCOUNT)], "");
        assert_eq!(ran.code, 2, "{option}");
        assert!(ran.err.contains(problem), "{option}: {}", ran.err);
    }
}

#[test]
fn missing_database_is_named_and_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.db");
    let url = format!("sqlite://{}", path.display());
    let environment = [("TWILIO_ACCOUNT_SID", ACCOUNT), ("DATABASE_URL", url.as_str())];
    for command in [&["messages", "list"][..], &["messages", "fetch", "SM1"], &["events", "list"]] {
        let ran = run(command, &environment, "");
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(&url) && ran.err.contains("no such file"), "{}", ran.err);
    }
    assert!(!path.exists());
}
