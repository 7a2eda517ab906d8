//! Tests of the accepted and the refused configurations, and of the messages.

use super::*;
use crate::signature::{Algorithm, Key};
use proptest::prelude::*;

const SID: &str = "AC00112233445566778899aabbccddeeff";

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("0123456789abcdef".to_owned()),
        "ORIGIN" => Some("http://127.0.0.1:8080".to_owned()),
        _ => None,
    }
}

fn parse(json: &str) -> Result<Config, Vec<String>> {
    Config::parse(json.as_bytes(), &environment)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn complete() -> String {
    format!(
        r#"{{"origins": ["https://hooks.example.com", {{"env": "ORIGIN"}}],
            "accounts": [{{"sid": "{SID}", "auth_tokens": [{{"env": "TOKEN"}}, {{"env": "NEXT", "optional": true}}, "abc"]}}],
            "routes": [{{"path": "/twilio/inbound", "class": "inbound"}},
                       {{"path": "/twilio/status", "class": "status", "on_unavailable": "forward"}}],
            "on_unavailable": {{"inbound": "reject", "status": "reject"}},
            "sidecar": {{"cluster": "sidecar", "token": {{"env": "TOKEN"}}, "timeout_ms": 250.0}}}}"#
    )
}

#[test]
fn complete_configuration_is_read() {
    let config = parse(&complete()).unwrap();
    assert_eq!(config.origins, ["https://hooks.example.com", "http://127.0.0.1:8080"]);
    let labels: Vec<_> = config.account(SID).unwrap().keys.iter().map(Key::label).collect();
    assert_eq!(labels, ["current", "next"]);
    assert_eq!(config.route("/twilio/inbound").unwrap().on_unavailable, OnUnavailable::Reject);
    assert_eq!(config.route("/twilio/status").unwrap().on_unavailable, OnUnavailable::Forward);
    assert_eq!(config.route("/twilio/status/"), None);
    let sidecar = config.sidecar.as_ref().unwrap();
    assert_eq!((sidecar.timeout_ms, sidecar.in_flight_wait_ms), (250, 8_000));
    assert_eq!(config.max_body_bytes, 65_536);
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "no secret in Debug");
}

#[test]
fn smallest_configuration_has_no_sidecar() {
    let json = format!(
        r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
            "routes": [{{"path": "/in", "class": "inbound"}}]}}"#
    );
    assert!(parse(&json).unwrap().sidecar.is_none());
}

#[test]
fn routes_keys_and_modes_are_read() {
    let json = format!(
        r#"{{"origins": ["https://h"],
            "accounts": [{{"sid": "{SID}", "shared_keys": [
                {{"id": "webhooks_sharedkey_1", "secret": {{"env": "TOKEN"}}}},
                {{"id": "webhooks_sharedkey_2", "secret": "s", "algorithm": "hmac_sha1"}}]}}],
            "routes": [{{"prefix": "/", "class": "other", "mode": "off"}},
                       {{"prefix": "/twilio/", "class": "inbound", "mode": "shadow", "timeout_ms": 900}},
                       {{"path": "/twilio/status", "class": "status", "accounts": ["{SID}"]}}],
            "sidecar": {{"cluster": "sidecar", "token": "t"}}}}"#
    );
    let config = parse(&json).unwrap();
    let algorithms: Vec<_> =
        config.accounts[0].shared_keys.iter().map(|shared| shared.key.algorithm()).collect();
    assert_eq!(algorithms, [Algorithm::HmacSha256, Algorithm::HmacSha1]);
    let mode = |path| config.route(path).map(|route| (route.class, route.mode, route.timeout_ms));
    assert_eq!(mode("/x"), Some((Class::Other, Mode::Off, 500)));
    assert_eq!(mode("/twilio/x"), Some((Class::Inbound, Mode::Shadow, 900)));
    assert_eq!(mode("/twilio/status"), Some((Class::Status, Mode::Enforce, 500)));
    assert_eq!(config.sidecar.unwrap().timeout_ms, 900, "a callout waits as long as any route");
}

#[test]
fn invalid_route_is_refused() {
    let with = |route: &str| {
        let json = format!(
            r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
                "routes": [{route}]}}"#
        );
        parse(&json).unwrap_err().join("; ")
    };
    for (route, want) in [
        (r#"{"class": "other"}"#, "routes[0]: needs either"),
        (r#"{"class": "other", "path": "/", "prefix": "/"}"#, "routes[0]: needs either"),
        (
            r#"{"class": "other", "prefix": "/twilio"}"#,
            "routes[0].prefix: \"/twilio\" must end with /",
        ),
        (
            r#"{"class": "other", "path": "/a/%2E%2e/b"}"#,
            "routes[0].path: \"/a/%2E%2e/b\" contains a dot",
        ),
        (r#"{"class": "other", "path": "/a?b"}"#, "must have no query"),
        (r#"{"class": "other", "path": "/", "mode": "on"}"#, "routes[0].mode: must be"),
        (r#"{"class": "other", "path": "/", "accounts": ["AC1"]}"#, "is not among the accounts"),
        (r#"{"class": "other", "path": "/", "accounts": []}"#, "routes[0].accounts: is required"),
    ] {
        let problems = with(route);
        assert!(problems.contains(want), "{route}: {problems}");
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_path() {
    let problems = parse(
        r#"{"origins": ["hooks.example.com", "https://h/"], "accounts": [{"sid": "AC1", "auth_tokens": [{"env": "GONE"}, "a b"]}],
            "routes": [{"path": "x", "class": "voice"}, {"path": "/a/../b", "class": "other", "retries": 3}],
            "on_unavailable": {"inbound": "fail"}, "sidecar": {"timeout_ms": 0}, "max_body_bytes": 1.5, "colour": 1}"#,
    )
    .unwrap_err();
    for path in [
        "colour:",
        "origins[0]:",
        "origins[1]:",
        "accounts[0].sid:",
        "accounts[0].auth_tokens[0]: GONE is not set",
        "accounts[0].auth_tokens[1]:",
        "routes[0].path:",
        "routes[0].class:",
        "routes[1].path:",
        "routes[1].retries:",
        "on_unavailable.inbound:",
        "sidecar.cluster:",
        "sidecar.token:",
        "sidecar.timeout_ms:",
        "max_body_bytes:",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(path)),
            "{path} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 15, "{problems:#?}");
}

#[test]
fn ambiguous_configuration_is_refused() {
    let twice = complete().replace("/twilio/status", "/twilio/inbound");
    assert_eq!(parse(&twice).unwrap_err(), ["routes: \"/twilio/inbound\" occurs twice"]);
    for json in ["", "null", "[]", "{", "\"x\"", "{}"] {
        assert!(parse(json).is_err(), "{json}");
    }
}

proptest! {
    #[test]
    fn configuration_of_any_bytes_is_parsed_or_refused(json in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(problems) = Config::parse(&json, &environment) {
            prop_assert!(!problems.is_empty());
        }
    }
}

#[test]
fn route_that_accepts_messages_may_answer_them() {
    let config = |class: &str, delivery: &str, answer: &str| {
        format!(
            r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
                "routes": [{{"path": "/in", "class": "{class}", "delivery": "{delivery}", "answer": "{answer}"}}],
                "sidecar": {{"cluster": "c", "token": "t"}}}}"#
        )
    };
    let answer = "<Response><Message>We have it.</Message></Response>";
    let read = parse(&config("inbound", "accept", answer)).unwrap();
    let answers = read.routes[0].answers.as_ref().unwrap();
    assert_eq!(answers.of(None), Some(answer));
    assert_eq!(answers.of(Some(Opt::Stop)), Some(answer));
    for (class, delivery, answer, what) in [
        ("inbound", "forward", answer, "is only for class inbound with delivery accept"),
        ("status", "accept", answer, "is only for class inbound with delivery accept"),
        ("inbound", "accept", "We have it.", "is not valid TwiML: it is not one <Response>"),
        (
            "inbound",
            "accept",
            &format!("<Response>{}</Response>", "x".repeat(4096)),
            "more than 4096",
        ),
    ] {
        let problems = parse(&config(class, delivery, answer)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("routes[0].answer") && problems[0].contains(what),
            "{problems:?}"
        );
    }
}

#[test]
fn accepted_keyword_may_have_an_answer_of_its_own() {
    let config = |class: &str, keyword_answers: &str| {
        format!(
            r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
                "routes": [{{"path": "/in", "class": "{class}", "delivery": "accept",
                    "answer": "<Response/>", "keyword_answers": {keyword_answers}}}],
                "sidecar": {{"cluster": "c", "token": "t"}}}}"#
        )
    };
    let bye = "<Response><Message>Bye.</Message></Response>";
    let read = parse(&config("inbound", &format!(r#"{{"stop": "{bye}"}}"#))).unwrap();
    let answers = read.routes[0].answers.as_ref().unwrap();
    assert_eq!(answers.of(Some(Opt::Stop)), Some(bye));
    for opt in [None, Some(Opt::Start), Some(Opt::Help)] {
        assert_eq!(answers.of(opt), Some("<Response/>"), "{opt:?}");
    }
    for (class, answers, path, what) in [
        ("inbound", r#"{"stop": "Bye."}"#, "keyword_answers.stop", "is not valid TwiML"),
        ("inbound", r#"{"cancel": "<Response/>"}"#, "keyword_answers.cancel", "is unknown"),
        ("inbound", r#"["stop"]"#, "keyword_answers", "must be an object"),
        ("inbound", r#"{"help": 1}"#, "keyword_answers.help", ""),
        ("status", r#"{"help": "<Response/>"}"#, "keyword_answers.help", "is only for class"),
    ] {
        let problems = parse(&config(class, answers)).unwrap_err();
        let problem = problems.iter().find(|problem| problem.contains("keyword_answers")).unwrap();
        assert!(
            problem.starts_with(&format!("routes[0].{path}")) && problem.contains(what),
            "{problems:?}"
        );
    }
}

proptest! {
    /// Property: TwiML that is accepted is stored unchanged, and any other text is refused with its path.
    #[test]
    fn keyword_answer_of_any_text_is_kept_or_refused(text in "\\PC{0,40}|<Response>[a-z<>/&;]{0,20}</Response>") {
        let answers = serde_json::json!({ "stop": text });
        let config = serde_json::json!({
            "origins": ["https://h"], "accounts": [{ "sid": SID, "auth_tokens": ["t"] }],
            "routes": [{ "path": "/in", "class": "inbound", "delivery": "accept", "keyword_answers": answers }],
            "sidecar": { "cluster": "c", "token": "t" },
        });
        match parse(&config.to_string()) {
            Ok(read) => {
                let answers = read.routes[0].answers.as_ref().unwrap();
                prop_assert_eq!(answers.of(Some(Opt::Stop)), Some(text.as_str()));
                prop_assert_eq!(answers.of(None), None);
            }
            Err(problems) => {
                prop_assert!(problems.iter().all(|problem| problem.starts_with("routes[0].keyword_answers.stop")), "{:?}", problems);
            }
        }
    }
}

#[test]
fn reports_of_refused_requests_are_enabled_by_a_sidecar_and_checked_strictly() {
    let with = |settings: &str| {
        let complete = complete();
        let (rest, _) = complete.rsplit_once('}').unwrap();
        parse(&format!("{rest}, \"refused_requests\": {settings}}}"))
    };
    let usual = Reports { body: ReportedBody::Full, max_body_bytes: 16_384, per_minute: 60 };
    assert_eq!(parse(&complete()).unwrap().reports, Some(usual));
    assert_eq!(with("{\"report\": false}").unwrap().reports, None);
    let names = Reports { body: ReportedBody::Names, per_minute: 10, ..usual };
    let settings = "{\"body\": \"names\", \"per_minute\": 10}";
    assert_eq!(with(settings).unwrap().reports, Some(names));
    let problems = with(
        "{\"report\": 1, \"body\": \"all\", \"max_body_bytes\": 65537, \"per_minute\": 0, \"rate\": 1}",
    );
    assert_eq!(
        problems.unwrap_err(),
        [
            "refused_requests.rate: is unknown; valid fields are report, body, max_body_bytes, per_minute",
            "refused_requests.report: must be true or false",
            "refused_requests.body: must be \"full\", \"names\" or \"none\"",
            "refused_requests.max_body_bytes: must be a whole number from 0 to 65536",
            "refused_requests.per_minute: must be a whole number from 1 to 600",
        ]
    );
    let alone = format!(
        r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
            "routes": [{{"path": "/in", "class": "inbound"}}], "refused_requests": {{"report": true}}}}"#
    );
    let problems = parse(&alone).unwrap_err();
    assert!(problems[0].starts_with("refused_requests.report: needs a sidecar"), "{problems:?}");
}
