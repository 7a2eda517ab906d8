//! `twilio-edge explain --request`: each form in which people have a request leads to the result of the raw request.

use std::process::{Command, Stdio};
use std::{fs, io::Write as _};

use serde_json::{Value, json};

use crate::explain::{Dump, ORIGIN, OURS, SID, URL, changes, explain};
use crate::support::program::{Ran, repository, run};

fn explain_text(text: &str, arguments: &[&str]) -> Ran {
    run(&[&["explain", "--request", "-"], arguments].concat(), &OURS, text)
}

/// Quotes a text as browsers do: `$'..'` if it has a character that an interactive shell would replace.
fn quoted(text: &str) -> String {
    if !text.contains(['!', '\'', '\n']) {
        return format!("'{text}'");
    }
    let text = text.replace('\\', r"\\").replace('\'', r"\'").replace('\n', r"\n");
    format!("$'{}'", text.replace('!', r"\u0021"))
}

fn curl_of_a_browser(dump: &Dump) -> String {
    let mut command =
        format!("curl {}", quoted(&format!("https://hooks.example.com{}", dump.target)));
    if dump.method != "POST" {
        command.push_str(&format!(" \\\n  -X {}", dump.method));
    }
    for (name, value) in &dump.headers {
        command.push_str(&format!(
            " \\\n  -H {}",
            quoted(&format!("{}: {value}", name.to_lowercase()))
        ));
    }
    if dump.body.is_empty() {
        return command;
    }
    command + &format!(" \\\n  --data-raw {} \\\n  --compressed", quoted(&dump.body))
}

/// Postman writes long options, and each parameter of a form separately.
fn curl_of_postman(dump: &Dump) -> String {
    let url = format!("https://hooks.example.com{}", dump.target);
    let mut command = format!("curl --location --request {} '{url}'", dump.method);
    for (name, value) in &dump.headers {
        command.push_str(&format!(" \\\n--header {}", quoted(&format!("{name}: {value}"))));
    }
    for (name, value) in form_urlencoded::parse(dump.body.as_bytes()) {
        command.push_str(&format!(" \\\n--data-urlencode {}", quoted(&format!("{name}={value}"))));
    }
    command
}

fn har_entry(dump: &Dump) -> Value {
    let headers = dump.headers.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let mut request = json!({
        "method": dump.method,
        "url": format!("https://hooks.example.com{}", dump.target),
        "httpVersion": "HTTP/1.1",
        "headers": headers.collect::<Vec<_>>(),
        "queryString": [],
    });
    if !dump.body.is_empty() {
        request["postData"] = json!({
            "mimeType": "application/x-www-form-urlencoded; charset=utf-8", "text": dump.body,
        });
    }
    json!({ "startedDateTime": "2026-11-30T09:40:12.031Z", "request": request,
        "response": { "status": 403 } })
}

fn har(entries: &[Value]) -> String {
    json!({ "log": { "version": "1.2", "creator": { "name": "test", "version": "1" }, "entries": entries } })
        .to_string()
}

fn alert(dump: &Dump, headers: bool) -> Value {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let names = dump.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let encoded = form.extend_pairs(names).finish();
    json!({
        "sid": "NO00112233445566778899aabbccddeeff",
        "error_code": "11200",
        "log_level": "error",
        "more_info": "https://www.twilio.com/docs/errors/11200",
        "alert_text": "Msg=&httpResponse=403&ErrorCode=11200",
        "request_method": dump.method,
        "request_url": format!("https://hooks.example.com{}", dump.target),
        "request_variables": dump.body,
        "request_headers": if headers { json!(encoded) } else { Value::Null },
        "response_headers": "Content-Length=18&Server=envoy",
        "response_body": "",
    })
}

/// The parts of the request as an Express application has them.
fn express(dump: &Dump) -> Value {
    let headers =
        dump.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone().into()));
    let mut headers: serde_json::Map<String, Value> = headers.collect();
    headers.insert("host".to_owned(), "hooks.example.com".into());
    headers.insert("content-length".to_owned(), dump.body.len().to_string().into());
    let body = form_urlencoded::parse(dump.body.as_bytes());
    let body: serde_json::Map<String, Value> =
        body.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    json!({ "method": dump.method, "originalUrl": dump.target, "headers": headers, "body": body })
}

/// Prints the parts with Node itself, as `script` does with `req`.
fn printed_by_node(dump: &Dump, script: &str) -> String {
    let script = format!(
        "const req = JSON.parse(require('fs').readFileSync(0, 'utf8'));
         req.body = Object.assign(Object.create(null), req.body);
         {script}"
    );
    let mut child = Command::new("node")
        .args(["-e", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(express(dump).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Each form of one request: its name for `--format`, and the text.
fn forms(dump: &Dump) -> Vec<(&'static str, String)> {
    let mut other = dump.clone();
    other.headers.retain(|(name, _)| name != "X-Twilio-Signature");
    other.target = "/favicon.ico".to_owned();
    let line = json!({
        "method": dump.method, "url": format!("https://hooks.example.com{}", dump.target),
        "headers": dump.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "body": dump.body,
    });
    let camel = alert(dump, true);
    let camel: serde_json::Map<String, Value> = camel
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            let mut words = name.split('_');
            let first = words.next().unwrap().to_owned();
            let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
            (words.fold(first, |name, word| name + &upper(word)), value.clone())
        })
        .collect();
    let mut forms = vec![
        ("json", line.to_string()),
        ("curl", curl_of_a_browser(dump)),
        ("har", har(&[har_entry(&other), har_entry(dump)])),
        ("express", express(dump).to_string()),
        (
            "express",
            printed_by_node(
                dump,
                "console.log(req.headers, req.body, req.originalUrl, req.method)",
            ),
        ),
        (
            "express",
            printed_by_node(
                dump,
                "console.log(`${req.method} ${req.originalUrl}`, req.headers, req.body)",
            ),
        ),
        (
            "express",
            printed_by_node(
                dump,
                "console.log('headers:', req.headers); console.log('body:', req.body); console.log('originalUrl:', req.originalUrl); console.log('method:', req.method)",
            ),
        ),
        (
            "express",
            printed_by_node(
                dump,
                "console.log({ method: req.method, originalUrl: req.originalUrl, headers: req.headers, body: req.body })",
            ),
        ),
        (
            "express",
            printed_by_node(
                dump,
                "for (const part of [req.headers, req.body, req.originalUrl, req.method]) console.log(JSON.stringify(part))",
            ),
        ),
    ];
    if dump.method == "POST" {
        forms.push(("curl", curl_of_postman(dump)));
        forms.push(("alert", alert(dump, true).to_string()));
        forms.push(("alert", Value::Array(vec![Value::Object(camel)]).to_string()));
    }
    forms
}

/// The report without what depends on the form.
fn comparable(ran: &Ran) -> Value {
    let mut report = ran.json();
    let fields = report.as_object_mut().unwrap();
    // A form that is encoded again has another length; a URL that is known to be called is one variant more.
    for name in ["notes", "body_bytes", "tried"] {
        fields.remove(name);
    }
    report
}

#[test]
fn every_form_has_the_result_of_the_raw_request() {
    let text =
        ["inbound", "--channel", "sms", "--body", "It's caf\u{e9}! <3 \r\nand & more\\ {}[]"];
    let signed = Dump::signed(URL, &text);
    let get = Dump::signed(URL, &["inbound", "--method", "GET"]);
    let stripped = Dump { target: signed.target.replace("/twilio", ""), ..signed.clone() };
    let extended = Dump { body: format!("{}&Admin=1", signed.body), ..signed.clone() };
    for (dump, code, what) in [
        (&signed, 0, &[][..]),
        (&get, 0, &[]),
        (&stripped, 1, &["path"]),
        (&extended, 1, &["parameter"]),
    ] {
        let raw = explain(dump, ORIGIN);
        assert_eq!((raw.code, changes(&raw.json())), (code, what.to_vec()), "{raw:?}");
        for (format, text) in forms(dump) {
            let ran = explain_text(&text, ORIGIN);
            assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{format}: {text}\n{ran:?}");
            assert_eq!(comparable(&ran), comparable(&raw), "{format}: {text}");
            let forced = explain_text(&text, &[ORIGIN, &["--format", format]].concat());
            assert_eq!(comparable(&forced), comparable(&raw), "{format}: {text}");
        }
    }
}

#[test]
fn output_of_sign_is_explained_as_it_is_printed() {
    for body in ["it's \u{202e} hidden", "a\nb $(x) `y`"] {
        let arguments = ["sign", "inbound", "--body", body, "--message-sid", SID];
        let printed = run(&arguments, &OURS, "").success();
        assert!(printed.starts_with("# MessageSid"));
        let ran = explain_text(&printed, &[]);
        assert_eq!(ran.code, 0, "{printed}\n{ran:?}");
    }
    // The command goes to the edge's own address, and the signature covers the public one.
    let public = ["--origin", "https://hooks.example.com", "--edge", "http://127.0.0.1:9"];
    let printed = run(&[&["sign", "status"], &public[..]].concat(), &OURS, "").success();
    let ran = explain_text(&printed, &["--json"]);
    assert_eq!(changes(&ran.json()), ["scheme"], "{ran:?}");
    assert_eq!(explain_text(&printed, ORIGIN).code, 0);
    // A substitution that `sign` writes for what a terminal would hide.
    let json = run(&["sign", "other", "--json-body", "{\"a\":\"\u{202e}\"}"], &OURS, "").success();
    assert!(json.contains("$(printf"), "{json}");
    assert_eq!(explain_text(&json, &[]).code, 0, "{json}");
}

#[test]
fn several_requests_are_listed_and_one_is_selected() {
    let signed = Dump::signed(URL, &["inbound"]);
    let status = Dump::signed(URL, &["status"]);
    let two = har(&[har_entry(&signed), har_entry(&status)]);
    let ran = explain_text(&two, ORIGIN);
    assert_eq!(ran.code, 2);
    for words in [
        "recognized as a HAR file",
        "there are 2 requests",
        "--entry 1",
        "--entry 2",
        "POST https://hooks.example.com/twilio/inbound -> 403",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    assert!(!ran.err.contains("tenant="), "a list of requests contains a query: {}", ran.err);
    let second = explain_text(&two, &[ORIGIN, &["--entry", "2"]].concat());
    assert_eq!((second.code, &second.json()["shape"]["class"]), (0, &"status".into()));
}

const COMBINED: &str = r#"203.0.113.7 - - [30/Nov/2026:09:40:12 +0000] "POST /twilio/inbound/?x=1&tenant=acme+inc HTTP/1.1" 403 18 "-" "TwilioProxy/1.1""#;
const ENVOY: &str = r#"[2026-11-30T09:40:12.031Z] "POST /twilio/inbound/?x=1&tenant=acme+inc HTTP/1.1" 403 - 371 18 0 - "203.0.113.7" "TwilioProxy/1.1" "0bc33b53-f785-9b1e-e19f-9efb12846e6a" "hooks.example.com" "-""#;
const OURS_IN_JSON: &str = r#"{"time":"2026-11-30T09:40:12.031Z","method":"POST","path":"/twilio/inbound/","status":403,"verdict":"invalid-signature","account":null,"message_sid":null,"flags":"-","duration_ms":0,"upstream":null,"request_id":"0bc33b53-f785-9b1e-e19f-9efb12846e6a"}"#;

#[test]
fn log_line_is_checked_without_a_claim_about_its_signature() {
    let origin = ["--origin", "https://hooks.example.com", "--try-url", URL];
    for (line, has_query) in [(COMBINED, true), (ENVOY, true), (OURS_IN_JSON, false)] {
        // Nothing is secret about a URL: no token is needed.
        let ran = run(&[&["explain", "--request", "-"], &origin[..]].concat(), &[], line);
        assert_eq!(ran.code, 3, "{ran:?}");
        for words in [
            "Whether Twilio signed it cannot be checked: this capture has no signature and no body",
            "WRONG  The slash at the end differs: Twilio signs /twilio/inbound, and /twilio/inbound/ arrived.",
            "The answer was 403.",
        ] {
            assert!(ran.out.contains(words), "{words}: {}", ran.out);
        }
        let order = "WRONG  The query was put into another order.";
        assert_eq!(ran.out.contains(order), has_query, "{}", ran.out);
        let json =
            run(&[&["explain", "--json", "--request", "-"], &origin[..]].concat(), &[], line);
        let report = json.json();
        assert_eq!((json.code, &report["matches"]), (3, &Value::Null));
        let verdicts: Vec<(&str, &str)> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| (check["what"].as_str().unwrap(), check["verdict"].as_str().unwrap()))
            .collect();
        let query = if has_query { "different" } else { "suspicious" };
        let want = [
            ("scheme", "fine"),
            ("host", "fine"),
            ("port", "fine"),
            ("path", "different"),
            ("query", query),
        ];
        assert_eq!(verdicts, want);
    }
    // The combined format has no host.
    let ran = explain_text(COMBINED, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("line of an access log") && ran.err.contains("--origin"), "{ran:?}");
    let hidden = "https://user:hunter2@hooks.example.com/in";
    let ran = explain_text(ENVOY, &["--try-url", hidden]);
    assert!(ran.code == 3 && !ran.out.contains("hunter2"), "{ran:?}");
    let ran = explain_text(ENVOY, &["--origin", "http://inner:8443"]);
    assert!(ran.out.contains("check  The request was for hooks.example.com"), "{}", ran.out);
    assert!(ran.out.contains("check  The query is not in alphabetical order"), "{}", ran.out);
}

#[test]
fn log_line_is_judged_by_the_route() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("filter.json").display().to_string();
    fs::write(&file, r#"{"origins": [], "accounts": [], "routes": [{"path": "/elsewhere", "class": "inbound"}]}"#).unwrap();
    let ran = explain_text(ENVOY, &["--filter-config", &file]);
    assert!(
        ran.out.contains("guards /twilio/inbound/: the filter lets such requests pass"),
        "{ran:?}"
    );
}

#[test]
fn alert_without_headers_is_checked_as_far_as_it_goes() {
    let signed = Dump::signed(URL, &["inbound"]);
    let text = alert(&signed, false).to_string();
    let ran = explain_text(&text, &["--origin", "http://hooks.example.com"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    for words in [
        "this capture has no signature.",
        "WRONG  Twilio signs https, and the filter's origin says http.",
        "Its parameters are what a route of class inbound takes.",
        "Twilio reports error 11200",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
}

#[test]
fn input_that_is_not_complete_says_what_was_recognized_and_what_is_missing() {
    let signed = Dump::signed(URL, &["inbound"]);
    let parts = "console.log(req.headers, {}, req.originalUrl)";
    for (text, arguments, words) in [
        (
            "curl https://h/ -d @body",
            &[][..],
            &["recognized as a curl command", "file body", "--data-file"][..],
        ),
        ("curl \"$URL\"", &[], &["variable $URL"]),
        (
            "{\"log\":{\"entries\":[]}}",
            &[],
            &["recognized as a HAR file", "none of its 0 requests"],
        ),
        (
            "{ headers: [Object], originalUrl: '/in' }",
            &[],
            &["Express application", "JSON.stringify(req.headers)"],
        ),
        (&printed_by_node(&signed, parts), &[], &["the body is missing", "express.urlencoded()"]),
        (
            "{\"alert_text\":\"x\",\"request_url\":\"\"}",
            &[],
            &["alert of Twilio's debugger", "`request_url`"],
        ),
        ("POST / HTTP/1.1\n\n", &["--format", "har"], &["read as a HAR file"]),
        (
            "POST / HTTP/1.1\n\n",
            &["--entry", "1"],
            &["--entry is for inputs with several requests"],
        ),
        ("POST / HTTP/1.1\n\n", &["--format", "pcap"], &["must be one of http, json, curl"]),
        ("hello\n", &[], &["recognized as a raw HTTP request", "--format with one of json, curl"]),
    ] {
        let ran = explain_text(text, &[ORIGIN, arguments].concat());
        assert_eq!(ran.code, 2, "{text}: {ran:?}");
        for words in words {
            assert!(ran.err.contains(words), "{words}: {}", ran.err);
        }
    }
}

/// Runs the examples of docs/SIGNATURES.md in bash, and compares their output with the document.
#[test]
fn examples_of_the_document_have_the_documented_output() {
    let document = fs::read_to_string(repository().join("docs/SIGNATURES.md")).unwrap();
    let section = document.split("### Forms of a captured request\n").nth(1).unwrap();
    let section = section.split("\n### ").next().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_twilio-edge"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut examples = 0;
    for example in section.split("```sh\n").skip(1) {
        let (script, rest) = example.split_once("\n```").unwrap();
        let want = rest.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
        let output = Command::new("bash")
            .args(["-c", script])
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        let have = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        // The document shows the beginning.
        assert!(have.starts_with(want), "{script}\n{have}{errors}\ninstead of\n{want}");
        examples += 1;
    }
    assert_eq!(examples, 5);
}
