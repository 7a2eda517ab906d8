//! `twilio-edge vectors`: agreement with files whose verdicts come from Twilio's own SDKs.

use std::fs;

use serde_json::json;

use crate::support::program::{file, run, twilio_edge};

/// Signed with the Python SDK, judged alike by the Python and the Node SDK: `twilio.jsonl` one case each,
/// `randomized.jsonl` printed by `oracle/generate.py --seed 20261123 --count 400 --longest 1500`.
const FILES: [(&str, u64); 2] = [("vectors/twilio.jsonl", 87), ("vectors/randomized.jsonl", 400)];

#[test]
fn filter_agrees_with_twilios_sdks() {
    for (name, count) in FILES {
        let ran = twilio_edge(&["vectors", &file(name)]);
        assert_eq!(ran.json(), json!({"total": count, "agree": count, "disagreements": []}));
        assert_eq!(ran.code, 0);
    }
}

#[test]
fn disagreement_is_reported_and_fails() {
    let vectors = fs::read_to_string(file("vectors/twilio.jsonl")).unwrap();
    let line = vectors.lines().find(|line| line.contains("s-038-")).unwrap();
    let wrong = line.replace("\"expect\":\"accept\"", "\"expect\":\"reject\"");
    assert_ne!(line, wrong);
    let ran = run(&["vectors", "-"], &[], &format!("{line}\n{wrong}\n"));
    let want = json!({"total": 2, "agree": 1, "disagreements": [{
        "id": "s-038-port-https-signed-without",
        "note": "URL has :8443, signature computed without the port",
        "expect": "reject",
        "got": "accept",
        "why": "the signature is of the URL without its port",
    }]});
    assert_eq!((ran.json(), ran.code), (want, 1));
}

#[test]
fn malformed_vector_is_reported_with_its_line() {
    let good = fs::read_to_string(file("vectors/twilio.jsonl")).unwrap();
    let good = good.lines().next().unwrap();
    for (input, want) in [
        ("", "-:1: no vector in it"),
        (&*format!("{good}\nnonsense\n"), "-:2: expected"),
        (
            &format!("{good}\n\n{}", good.replace("\"accept\"", "\"yes\"")),
            "-:3: unknown variant `yes`",
        ),
        (&good.replace("\"auth_token\"", "\"token\""), "-:1: missing field `auth_token`"),
    ] {
        let ran = run(&["vectors", "-"], &[], input);
        assert_eq!((ran.code, &*ran.out), (2, ""), "{ran:?}");
        assert!(ran.err.starts_with(&format!("twilio-edge vectors: {want}")), "{ran:?}");
    }
    let ran = twilio_edge(&["vectors", "/no/such/file"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("/no/such/file"), "{ran:?}");
}
