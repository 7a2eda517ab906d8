//! `twilio-edge messages` and `events`: wrong arguments are refused before a database is opened.

use crate::support::program::{run, twilio_edge};

const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";

#[test]
fn account_of_messages_is_required() {
    for arguments in [
        &["events", "list"][..],
        &["messages", "show", "SM1"],
        &["messages", "list", "--number", "+15551230001"],
        &["messages", "list", "--status", "failed"],
        &["messages", "list", "--direction", "inbound"],
        &["messages", "list", "--state", "received"],
        &["messages", "list", "--since", "2026-01-01"],
        &["history", "+15551230001"],
    ] {
        let ran = twilio_edge(arguments);
        assert_ne!(ran.code, 0);
        assert!(ran.err.contains("--account"), "{arguments:?}: {}", ran.err);
    }
    let ran = twilio_edge(&["messages", "list", "--account", "AC1:SM1"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("32 lower-case hexadecimal digits"), "{}", ran.err);
}

#[test]
fn wrong_filter_is_refused_with_its_option() {
    for (option, value, problem) in [
        ("--date-sent", "yesterday", "YYYY-MM-DD"),
        ("--since", "2026-11-23T12:00", "with a time zone"),
        ("--until", "2026-02-30", "is not a date"),
        ("--to", "whatsapp:", "must be an address"),
        ("--state", "gone", "possible values: received, queued"),
        ("--direction", "up", "must be one of inbound, outbound"),
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
    for command in [&["messages", "list"][..], &["messages", "show", "SM1"], &["events", "list"]] {
        let ran = run(command, &environment, "");
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(&url) && ran.err.contains("no such file"), "{}", ran.err);
    }
    assert!(!path.exists());
}

#[test]
fn global_option_works_before_and_after_the_subcommand() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:18481\"\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["--config", file, "print-config"], &["print-config", "--config", file]] {
        let ran = twilio_edge(arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("127.0.0.1:18481"), "{arguments:?}: {}", ran.out);
    }
    for arguments in [
        &["--config", "missing.toml", "messages", "list"][..],
        &["messages", "--config", "missing.toml", "list"],
        &["messages", "list", "--config", "missing.toml"],
    ] {
        let ran = twilio_edge(arguments);
        assert_eq!(ran.code, 1);
        assert!(ran.err.contains("missing.toml"), "{arguments:?}: {}", ran.err);
    }
}
