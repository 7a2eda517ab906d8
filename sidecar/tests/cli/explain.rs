//! `twilio-edge explain`: what it finds out about requests that something on the way has changed.

use std::fs;

use serde_json::Value;

use crate::support::program::{Ran, file, run};

const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const OURS: [(&str, &str); 2] =
    [("TWILIO_ACCOUNT_SID", ACCOUNT), ("TWILIO_AUTH_TOKEN", TOKEN)];
pub(crate) const SID: &str = "SM00112233445566778899aabbccddeeff";

/// A webhook as `sign` makes it, and as a proxy's dump would show it.
#[derive(Clone)]
pub(crate) struct Dump {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Dump {
    /// Signed for `url` with the arguments of `sign`.
    pub(crate) fn signed(url: &str, arguments: &[&str]) -> Self {
        let at = url.find('/').map(|scheme| scheme + 2).unwrap();
        let at = url[at..].find('/').map_or(url.len(), |path| at + path);
        let (origin, path) = url.split_at(at);
        let signing =
            ["sign", arguments[0], "--origin", origin, "--path", path, "--message-sid", SID];
        let script = run(&[&signing, &arguments[1..]].concat(), &OURS, "").success();
        // Single quotes only: that is how `sign` quotes, and nothing here has one inside.
        let quoted: Vec<&str> = script.split('\'').skip(1).step_by(2).collect();
        let edge = quoted[0].find("8080").unwrap() + 4;
        let is_header = |text: &&&str| text.split(": ").count() == 2 && !text.contains('{');
        Self {
            method: if script.contains("--data-raw") { "POST" } else { "GET" }.to_owned(),
            target: quoted[0][edge..].to_owned(),
            headers: quoted[1..]
                .iter()
                .filter(is_header)
                .map(|header| header.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: if script.contains("--data-raw") { quoted.last().unwrap() } else { "" }
                .to_string(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(have, _)| have != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(have, _)| have == name).unwrap().1.clone()
    }

    fn raw(&self) -> String {
        let mut raw = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{raw}Content-Length: {}\r\n\r\n{}", self.body.len(), self.body)
    }
}

pub(crate) fn explain(dump: &Dump, arguments: &[&str]) -> Ran {
    run(&[&["explain", "--request", "-"], arguments].concat(), &OURS, &dump.raw())
}

/// Differences between the two requests, in one word each.
pub(crate) fn changes(report: &Value) -> Vec<&str> {
    let changes = report["signed"]["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    changes.iter().map(|change| change["what"].as_str().unwrap()).collect()
}

fn finding(report: &Value) -> &str {
    report["signed"]["changes"][0]["finding"].as_str().unwrap_or_default()
}

pub(crate) const URL: &str = "https://hooks.example.com/twilio/inbound?tenant=acme+inc&x=1";
pub(crate) const ORIGIN: &[&str] = &["--json", "--origin", "https://hooks.example.com"];

#[test]
fn verdict_of_explain_is_that_of_the_filter() {
    let vectors = fs::read_to_string(file("vectors/twilio.jsonl")).unwrap();
    let mut accepted = 0;
    for line in vectors.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        // Those that nothing near them explains take seconds each, and are judged by `vectors` all the same.
        if vector["expect"] == "accept" {
            let ran = run(&["explain", "--json", "--request", "-"], &[], line);
            assert_eq!((ran.code, &ran.json()["matches"]), (0, &Value::Bool(true)), "{line}");
            accepted += 1;
        }
    }
    assert_eq!(accepted, 52);
}

#[test]
fn explain_finds_a_url_changed_by_a_proxy() {
    let signed = Dump::signed(URL, &["inbound"]);
    type Act = fn(&mut Dump);
    let cases: [(&[&str], Act, &[&str]); 15] = [
        (&["--origin", "http://hooks.example.com"], |_| (), &["scheme"]),
        (
            &["--origin", "https://other.example.com"],
            |dump| dump.set("X-Forwarded-Host", "hooks.example.com"),
            &["host"],
        ),
        (
            &["--origin", "http://inner:9000"],
            |dump| dump.set("Host", "hooks.example.com"),
            &["scheme", "host"],
        ),
        (&["--origin", "https://HOOKS.example.com"], |_| (), &["host"]),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target = dump.target.replace("/twilio/inbound", "/twilio/inbound/"),
            &["path"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target = dump.target.replace("/twilio/inbound", "/inbound"),
            &["path"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target = format!("/gateway{}", dump.target),
            &["path"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target = dump.target.replace("+", "%20"),
            &["query"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target = "/twilio/inbound?x=1&tenant=acme+inc".into(),
            &["query"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target.push_str("&utm_source=cdn"),
            &["query"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| dump.target.push_str("#rc=2"),
            &["fragment"],
        ),
        (
            &["--origin", "https://hooks.example.com"],
            |dump| {
                let original = std::mem::replace(&mut dump.target, "/backend/7".into());
                dump.set("X-Envoy-Original-Path", &original);
            },
            &["path"],
        ),
        (
            &["--origin", "https://a.example", "--try-url", URL],
            |dump| dump.target = "/b".into(),
            &["url"],
        ),
        (
            &["--origin", "http://hooks.example.com"],
            |dump| dump.target = dump.target.replace("/twilio", "//twilio"),
            &["scheme", "path"],
        ),
        (
            &["--origin", "http://hooks.example.com"],
            |dump| dump.body.push_str("&Admin=1"),
            &["scheme", "parameter"],
        ),
    ];
    for (arguments, act, want) in cases {
        let mut dump = signed.clone();
        act(&mut dump);
        let ran = explain(&dump, &[arguments, &["--json"]].concat());
        let report = ran.json();
        assert_eq!((ran.code, changes(&report)), (1, want.to_vec()), "{report}");
        assert_eq!(report["signed"]["url"], URL, "{report}");
    }
}

#[test]
fn every_port_is_found() {
    let signed = Dump::signed("https://hooks.example.com:9443/in", &["inbound"]);
    let report = explain(&signed, ORIGIN).json();
    assert_eq!(changes(&report), ["port"]);
    assert_eq!(report["signed"]["url"], "https://hooks.example.com:9443/in");
    // With and without the scheme's own port is not a difference.
    let signed = Dump::signed("https://hooks.example.com:443/in", &["inbound"]);
    assert_eq!(explain(&signed, ORIGIN).code, 0);
}

#[test]
fn explain_finds_changed_parameters() {
    let url = "https://hooks.example.com/twilio/inbound";
    let arguments = ["inbound", "--channel", "sms", "--body", " caf\u{e9} <3 \r\nand & more "];
    let signed = Dump::signed(url, &arguments);
    let dropped = |names: &[&str]| {
        let keep = |pair: &&str| !names.contains(&pair.split('=').next().unwrap());
        signed.body.split('&').filter(keep).collect::<Vec<_>>().join("&")
    };
    let body = &signed.body;
    let cases = [
        (body.replace("+caf", "caf").replace("more+", "more"), "parameter", "Body was trimmed"),
        (body.replace("%0D%0A", "%0A"), "encoding", "line feeds"),
        (body.replace("%C3%A9", "%E9"), "encoding", "ISO-8859-1"),
        (body.replace("%C3%A9", "%C3%83%C2%A9"), "encoding", "ISO-8859-1"),
        (
            body.replace("%3C3", "%26lt%3B3").replace("%26+more", "%26amp%3B+more"),
            "encoding",
            "HTML",
        ),
        (body.replace("%2B1415", "+1415"), "encoding", "phone numbers"),
        (body.replace('%', "%25").replace('+', "%2B"), "encoding", "encoded twice"),
        (format!("{body}&Admin=1"), "parameter", "Admin was added"),
        (format!("{body}&From=%2B1&From=%2B2"), "parameter", "after the first"),
        (dropped(&["ApiVersion"]), "parameter", "ApiVersion was dropped"),
        (
            dropped(&["ToState", "ToCity", "ToZip"]),
            "parameter",
            "ToCity, ToState, ToZip, empty, were dropped",
        ),
    ];
    for (body, what, words) in cases {
        assert_ne!(&body, &signed.body, "{words}");
        let ran = explain(&Dump { body, ..signed.clone() }, ORIGIN);
        let report = ran.json();
        assert_eq!((ran.code, changes(&report)), (1, vec![what]), "{words}: {report}");
        assert!(finding(&report).contains(words), "{words}: {report}");
        assert!(!ran.out.contains("caf"), "the report contains a value: {report}");
    }
}

#[test]
fn explain_finds_a_changed_type_method_or_body() {
    let url = "https://hooks.example.com/in";
    let form = Dump::signed(url, &["inbound"]);
    let json = Dump::signed(url, &["other", "--json-body", "{\"a\": 1, \"b\": [2]}"]);
    let get = Dump::signed(url, &["inbound", "--method", "GET"]);

    let mut typeless = form.clone();
    typeless.headers.retain(|(name, _)| name != "Content-Type");
    let mut retyped = json.clone();
    retyped.set("Content-Type", "application/x-www-form-urlencoded");
    let to_get = Dump {
        method: "GET".into(),
        target: format!("/in?{}", form.body),
        body: String::new(),
        ..typeless.clone()
    };
    let mut to_post = Dump {
        method: "POST".into(),
        target: "/in".into(),
        body: get.target[4..].to_owned(),
        ..get.clone()
    };
    to_post.set("Content-Type", "application/x-www-form-urlencoded");
    let hashless = Dump { target: "/in".into(), ..json.clone() };
    let respaced = Dump { body: "{\"a\":1,\"b\":[2]}".into(), ..json.clone() };
    let cut = Dump { body: String::new(), ..json.clone() };
    for (dump, reason, what, words) in [
        (&typeless, "missing-body-hash", "content_type", "arrived without one"),
        (&retyped, "invalid-signature", "content_type", "URL alone"),
        (&to_get, "invalid-signature", "method", "signed a POST"),
        (&to_post, "invalid-signature", "method", "signed a GET"),
        (&hashless, "missing-body-hash", "query", "bodySHA256"),
        (&respaced, "invalid-body-hash", "body", "less white space"),
        (&cut, "invalid-body-hash", "body", "body is gone"),
    ] {
        let report = explain(dump, ORIGIN).json();
        assert_eq!(report["reason"], reason, "{report}");
        assert_eq!(changes(&report), [what], "{report}");
        assert!(finding(&report).contains(words), "{words}: {report}");
    }
    for good in [&form, &json, &get] {
        assert_eq!(explain(good, ORIGIN).code, 0);
    }
}

#[test]
fn explain_finds_a_changed_signature_or_token() {
    let signed = Dump::signed(URL, &["inbound"]);
    let signature = signed.header("X-Twilio-Signature");
    for (value, words) in [
        (format!("\"{signature}\""), "quotes"),
        (format!("{signature}, {signature}"), "more than once"),
        (signature.to_lowercase(), "lost their case"),
        (signature.trim_end_matches('=').to_owned(), "lost its ="),
        (signature[..20].to_owned(), "cut off"),
        (signature.replace('=', "%3D").replace('+', "%2B").replace('/', "%2F"), "percent-encoded"),
    ] {
        let mut dump = signed.clone();
        dump.set("X-Twilio-Signature", &value);
        let report = explain(&dump, ORIGIN).json();
        assert_eq!(changes(&report), ["signature"], "{report}");
        assert!(finding(&report).contains(words), "{words}: {report}");
    }
    for (token, words) in
        [(format!(" {TOKEN}\n"), "white space"), (TOKEN.to_uppercase(), "upper case")]
    {
        let arguments = [&["explain", "--request", "-"], ORIGIN].concat();
        let ran = run(&arguments, &[("TWILIO_AUTH_TOKEN", &token)], &signed.raw());
        let report = ran.json();
        assert_eq!((ran.code, changes(&report)), (1, vec!["token"]), "{report}");
        assert!(finding(&report).contains(words), "{words}: {report}");
    }
}

#[test]
fn key_that_matches_is_named_and_none_is_shown() {
    let signed = Dump::signed(URL, &["inbound"]);
    let other = "00000000000000000000000000000000";
    let environment = [("TWILIO_AUTH_TOKEN", other), ("TWILIO_AUTH_TOKEN_NEXT", TOKEN)];
    let arguments = ["explain", "--request", "-", "--origin", "https://hooks.example.com"];
    let ran = run(&arguments, &environment, &signed.raw());
    assert!(ran.out.contains("TWILIO_AUTH_TOKEN_NEXT signed"), "{ran:?}");
    assert_eq!(ran.code, 0);

    let signature = signed.header("X-Twilio-Signature");
    let mut stranger = signed.clone();
    stranger.set("X-Twilio-Signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for (dump, shows) in [(&signed, &[][..]), (&stranger, &["--json"])] {
        let plain = run(&[&arguments[..], shows].concat(), &environment, &dump.raw());
        for secret in [TOKEN, other, &signature] {
            assert!(!plain.out.contains(secret), "{plain:?}");
        }
    }
    let shown =
        run(&[&arguments[..], &["--show-signatures"]].concat(), &environment, &stranger.raw());
    assert!(
        shown.out.contains(&format!("{signature} would be TWILIO_AUTH_TOKEN_NEXT's")),
        "{shown:?}"
    );
    assert!(!shown.out.contains(TOKEN), "{shown:?}");
}

#[test]
fn unexplained_failure_lists_the_likeliest_causes() {
    let signed = Dump::signed(URL, &["inbound"]);
    let arguments = ["explain", "--request", "-", "--origin", "https://hooks.example.com"];
    let environment = [
        ("TWILIO_AUTH_TOKEN", "SKsecret"),
        ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000000"),
    ];
    let ran = run(&arguments, &environment, &signed.raw());
    assert_eq!(ran.code, 1);
    for words in [
        "Nothing near it has this signature",
        &format!("The request is of account {ACCOUNT}, the tokens are of AC0000"),
        "TWILIO_AUTH_TOKEN does not look like an auth token",
        "Its parameters are what a route of class inbound takes.",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let mut unsigned = signed.clone();
    unsigned.headers.retain(|(name, _)| name != "X-Twilio-Signature");
    let ran = explain(&unsigned, &["--origin", "https://hooks.example.com"]);
    assert!(
        ran.out.contains("missing-signature") && ran.out.contains("dropped the header"),
        "{}",
        ran.out
    );
}

#[test]
fn explain_checks_the_shape() {
    let status = Dump::signed(URL, &["status"]);
    let ran = explain(&status, &[ORIGIN, &["--class", "inbound"]].concat());
    let report = ran.json();
    assert_eq!(ran.code, 0, "the exit code is the signature's");
    assert_eq!(report["shape"]["reason"], "wrong-class");
    assert_eq!(explain(&status, ORIGIN).json()["shape"]["class"], "status");
    let partial = Dump::signed(URL, &["inbound", "--param", "From="]);
    let shape = explain(&partial, ORIGIN).json()["shape"].clone();
    assert_eq!((&shape["reason"], &shape["field"]), (&"missing-field".into(), &"From".into()));
}

#[test]
fn flags_and_files_say_the_same() {
    let signed = Dump::signed(URL, &["inbound"]);
    let signature = format!("X-Twilio-Signature: {}", signed.header("X-Twilio-Signature"));
    let content_type = format!("Content-Type: {}", signed.header("Content-Type"));
    let folder = tempfile::tempdir().unwrap();
    let (body, request) = (folder.path().join("body"), folder.path().join("request"));
    fs::write(&body, &signed.body).unwrap();
    fs::write(&request, signed.raw()).unwrap();
    let flags = ["explain", "--url", URL, "-H", &signature, "--header", &content_type];
    let body = ["--data-file", body.to_str().unwrap()];
    for arguments in [
        [&flags[..], &["--data", &signed.body]].concat(),
        [&flags[..], &body].concat(),
        vec![
            "explain",
            "--request",
            request.to_str().unwrap(),
            "--origin",
            "https://hooks.example.com",
        ],
    ] {
        let ran = run(&arguments, &OURS, "");
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    // Without an origin the Host header is believed, and that is said.
    let mut hosted = signed.clone();
    hosted.set("Host", "hooks.example.com");
    let ran = explain(&hosted, &[]);
    assert!(
        ran.out.contains("https://hooks.example.com was taken from the Host header"),
        "{ran:?}"
    );
    assert_eq!(ran.code, 0);
}

#[test]
fn password_in_the_url_is_found_and_not_shown() {
    let mut signed = Dump::signed("https://user:hunter2@hooks.example.com/in", &["inbound"]);
    signed.set("Authorization", "Basic dXNlcjpodW50ZXIy");
    let ran = explain(&signed, ORIGIN);
    assert_eq!(changes(&ran.json()), ["userinfo"]);
    assert!(!ran.out.contains("hunter2"), "{}", ran.out);
}

#[test]
fn input_without_a_request_is_refused() {
    for (arguments, environment, input, want) in [
        (&["--request", "-"][..], &OURS[..], "", "the request is empty"),
        (&["--request", "-"], &OURS, "hello\n", "is no request line"),
        (&["--request", "-"], &OURS, "{\"method\": 1}", "invalid type"),
        (&["--request", "-"], &OURS, "POST / HTTP/1.1\n\n", "neither --origin nor a Host"),
        (&["--request", "/no/such/file"], &OURS, "", "/no/such/file"),
        (&["--url", "hooks.example.com"], &OURS, "", "must be a URL"),
        (&["--url", "https://h/", "-H", "nonsense"], &OURS, "", "is no header"),
        (&["--url", "https://h/"], &[], "", "there is no auth token"),
        (&["--url", "https://h/", "--class", "x"], &OURS, "", "inbound, status or other"),
        (&[], &OURS, "", "required"),
    ] {
        let ran = run(&[&["explain"], arguments].concat(), environment, input);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(want), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn long_requests_are_searched_in_bounded_time() {
    let signed = Dump::signed(URL, &["inbound"]);
    let long = "a=1&".repeat(900) + &"x".repeat(1 << 20);
    let started = std::time::Instant::now();
    let report = explain(&Dump { body: long, ..signed }, ORIGIN).json();
    assert_eq!(report["matches"], false);
    assert_eq!(report["complete"], false);
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}

/// The filter's configuration with one route, as JSON.
fn filter_config(folder: &tempfile::TempDir, route: &str) -> String {
    let path = folder.path().join("filter.json");
    let text = format!(
        r#"{{"origins": [{{"env": "NOT_SET"}}], "accounts": [{{"sid": {{"env": "NOT_SET"}}}}], "routes": [{route}]}}"#
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn method_that_a_route_refuses_is_reported_with_the_line_to_change() {
    let signed = Dump::signed(URL, &["inbound", "--method", "GET"]);
    assert_eq!(signed.method, "GET");
    // Without the configuration, the default is what is known.
    let ran = explain(&signed, ORIGIN);
    let report = ran.json();
    assert_eq!((ran.code, &report["matches"]), (0, &Value::Bool(true)), "the signature does match");
    let route = &report["route"];
    assert_eq!((&route["route"], &route["accepted"]), (&Value::Null, &Value::Null));
    assert_eq!(route["refusals"][0]["reason"], "method-not-enabled");
    let ran = explain(&signed, &ORIGIN[1..]);
    let fix = r#"Set "methods": ["GET", "POST"] in the route of /twilio/inbound in the filter's configuration, or select POST for the webhook at Twilio."#;
    assert!(ran.out.contains(fix), "{}", ran.out);

    let folder = tempfile::tempdir().unwrap();
    let route =
        r#"{"path": "/twilio/inbound", "class": "inbound", "accounts": [{"env": "NOT_SET"}]"#;
    for (line, accepted) in [("", false), (r#", "methods": ["POST"]"#, false)]
        .into_iter()
        .chain([(r#", "methods": ["GET"]"#, true), (r#", "methods": ["GET", "POST"]"#, true)])
    {
        let file = filter_config(&folder, &format!("{route}{line}}}"));
        let ran = explain(&signed, &[&ORIGIN[1..], &["--filter-config", &file]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        let refusal = "routes[0] would refuse it: method-not-enabled.";
        let fix = format!(r#"Set "methods": ["GET", "POST"] in routes[0] of {file}"#);
        assert_eq!(ran.out.contains(refusal) && ran.out.contains(&fix), !accepted, "{}", ran.out);
        let accepts = "routes[0] accepts its method and its body.";
        assert_eq!(ran.out.contains(accepts), accepted, "{}", ran.out);
    }
    let post = Dump::signed(URL, &["inbound"]);
    let file = filter_config(&folder, &format!(r#"{route}, "methods": ["GET"]}}"#));
    let report = explain(&post, &[ORIGIN, &["--filter-config", &file]].concat()).json();
    assert_eq!(report["route"]["accepted"], false);
    assert_eq!(report["route"]["refusals"][0]["reason"], "method-not-enabled");
}

#[test]
fn body_that_a_route_refuses_is_reported_with_the_line_to_change() {
    let url = "https://hooks.example.com/twilio/other";
    let signed = Dump::signed(url, &["other", "--json-body", r#"{"a":1}"#]);
    let report = explain(&signed, ORIGIN).json();
    assert_eq!((&report["matches"], &report["body_rule"]), (&Value::Bool(true), &"hash".into()));
    assert_eq!(report["route"]["refusals"][0]["reason"], "body-not-enabled");
    let folder = tempfile::tempdir().unwrap();
    let of = |route: &str, dump: &Dump| {
        let file = filter_config(&folder, route);
        explain(dump, &[&ORIGIN[1..], &["--filter-config", &file]].concat()).out
    };
    let out = of(r#"{"prefix": "/twilio/", "class": "other"}"#, &signed);
    assert!(out.contains("routes[0] would refuse it: body-not-enabled."), "{out}");
    assert!(out.contains(r#"Set "bodies": ["form", "hash"] in routes[0] of "#), "{out}");
    let out = of(r#"{"prefix": "/twilio/", "class": "other", "bodies": ["hash"]}"#, &signed);
    assert!(out.contains("routes[0] accepts its method and its body."), "{out}");
    // Messages have no such line.
    let out = of(r#"{"prefix": "/twilio/", "class": "inbound"}"#, &signed);
    assert!(out.contains(r#"a route of class other that sets "bodies": ["hash"]"#), "{out}");
    let form = Dump::signed(URL, &["inbound"]);
    let out = of(r#"{"prefix": "/twilio/", "class": "other", "bodies": ["hash"]}"#, &form);
    assert!(out.contains("body-not-enabled"), "{out}");
}

#[test]
fn routes_that_decide_nothing_are_reported() {
    let signed = Dump::signed(URL, &["inbound", "--method", "GET"]);
    let folder = tempfile::tempdir().unwrap();
    let route = |path: &str, mode: &str| {
        let route = format!(r#"{{"path": "{path}", "class": "inbound", "mode": "{mode}"}}"#);
        let file = filter_config(&folder, &route);
        explain(&signed, &[&ORIGIN[1..], &["--filter-config", &file]].concat()).out
    };
    let out = route("/elsewhere", "enforce");
    assert!(out.contains("guards /twilio/inbound: the filter lets such requests pass"), "{out}");
    let out = route("/twilio/inbound", "off");
    assert!(out.contains("routes[0] is in mode off"), "{out}");
    assert!(!out.contains("would refuse it") && !out.contains("accepts"), "{out}");
    let out = route("/twilio/inbound", "shadow");
    assert!(out.contains("method-not-enabled") && out.contains("mode shadow"), "{out}");
    // The Envoy configuration that is shipped holds the filter's.
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/envoy.yaml");
    let ran = explain(&signed, &[&ORIGIN[1..], &["--filter-config", shipped]].concat());
    assert!(ran.out.contains("routes[0] would refuse it: method-not-enabled."), "{}", ran.out);
    let file = filter_config(&folder, r#"{"path": "/in", "class": "inbound", "methods": ["PUT"]}"#);
    for (file, want) in [
        (file.as_str(), "routes[0].methods[0]: must be one of GET, POST"),
        ("/no/such/file", "--filter-config /no/such/file"),
    ] {
        let ran = explain(&signed, &[&ORIGIN[1..], &["--filter-config", file]].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(want), "{ran:?}");
    }
}
