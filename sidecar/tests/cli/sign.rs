//! `twilio-edge sign`: the requests that a backend receives, and the output for the user.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread::{self, JoinHandle};

use crate::support::program::{Ran, run, twilio_edge};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const OURS: [(&str, &str); 2] = [("TWILIO_ACCOUNT_SID", ACCOUNT), ("TWILIO_AUTH_TOKEN", TOKEN)];

/// Gives these answers, each to one request on its own connection. Returns the requests byte for byte.
fn edge(answers: Vec<&'static str>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        answers.into_iter().map(|answer| serve_one(&listener, answer)).collect()
    });
    (url, served)
}

fn serve_one(listener: &TcpListener, answer: &str) -> String {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.push_str(std::str::from_utf8(&body).unwrap());
    write!(reader.get_mut(), "HTTP/1.1 {answer}").unwrap();
    request
}

const ACCEPTED: &str = "200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: 11\r\n\r\n<Response/>";
const REFUSED: &str = "403 Forbidden\r\nX-Twilio-Edge-Reason: invalid-signature\r\nConnection: close\r\nContent-Length: 8\r\n\r\n\x1b[31mno!";

/// Runs `explain` on a received request.
fn explained(request: &str, origin: &str) -> Ran {
    run(&["explain", "--json", "--request", "-", "--origin", origin], &OURS, request)
}

#[test]
fn signed_request_is_for_the_public_origin() {
    let origin = "https://hooks.example.com";
    for kind in [
        &["inbound", "--body", "Where's my order? ü😀 + & ="][..],
        &["inbound", "--channel", "sms", "--method", "GET"],
        &["stop", "--path", "/hook//a/../%2F?tenant=acme+inc&x='y'"],
        &["start", "--from", "+4512345678", "--param", "OptOutType=START"],
        &["media", "--count", "10"],
        &["status", "--status", "failed", "--error-code", "63016"],
        &["other"],
        &["other", "--json-body", "{\"it's\": \"ü\"}"],
    ] {
        let (url, served) = edge(vec![ACCEPTED]);
        let arguments = [&["sign"], kind, &["--send", "--origin", origin, "--edge", &url]].concat();
        let out = run(&arguments, &OURS, "").success();
        let request = served.join().unwrap().concat();
        let verdict = explained(&request, origin).json();
        assert_eq!(verdict["matches"], true, "{kind:?}: {request}\n{verdict}");
        assert_eq!(verdict["shape"]["accepted"], true, "{kind:?}: {request}\n{verdict}");
        assert!(
            request.to_ascii_lowercase().contains("\r\nhost: hooks.example.com\r\n"),
            "{request}"
        );
        assert!(out.contains("200 OK after "), "{out}");
        assert!(out.contains("    <Response/>"), "{out}");
        assert!(!out.contains(TOKEN), "{out}");
    }
}

#[test]
fn printed_command_sends_the_same_bytes() {
    let origin = "https://hooks.example.com";
    let path = "/in?a=[1]&b={2,3}&c='d'";
    let sid = "SM00000000000000000000000000000001";
    let arguments = ["sign", "inbound", "--body", "it's $HOME `x` \"y\"\n\\", "--message-sid", sid];
    let (url, served) = edge(vec![ACCEPTED]);
    let sending =
        [&arguments[..], &["--path", path, "--origin", origin, "--send", "--edge", &url]].concat();
    run(&sending, &OURS, "").success();
    let sent = served.join().unwrap().concat();

    let printing =
        [&arguments[..], &["--path", path, "--origin", origin, "--edge", "http://edge.example"]]
            .concat();
    let script = run(&printing, &OURS, "").success();
    // curl itself is not what is tested here: a shell function shows the arguments it would get.
    let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{script}");
    let shown = Command::new("sh").args(["-c", &script]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let shown: Vec<&str> = shown.split_terminator('\0').collect();
    assert!(shown.contains(&&*format!("http://edge.example{path}")), "{shown:?}");
    assert!(shown.contains(&"Host: hooks.example.com"), "{shown:?}");
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert_eq!(shown.last(), Some(&body));
    for header in shown.iter().zip(shown.iter().skip(1)).filter(|(flag, _)| **flag == "--header") {
        let header = header.1.to_ascii_lowercase();
        assert!(head.to_ascii_lowercase().contains(&header), "{header} in {head}");
    }
}

#[test]
fn message_has_a_new_sid_unless_one_is_given() {
    let body = |arguments: &[&str]| {
        let out = twilio_edge(&[&["sign", "inbound"], arguments].concat()).success();
        let sid = out.split_ascii_whitespace().nth(2).unwrap().to_owned();
        (sid, out)
    };
    let ((first, _), (second, _)) = (body(&[]), body(&[]));
    assert_ne!(first, second);
    let (again, once) = body(&["--message-sid", &first]);
    assert_eq!(again, first);
    assert_eq!(body(&["--message-sid", &first]).1, once);
}

#[test]
fn sequence_is_one_message_and_duplicates_are_one_request() {
    let (url, served) = edge(vec![ACCEPTED; 4]);
    let out = run(&["sign", "status", "--sequence", "--send", "--edge", &url], &OURS, "").success();
    assert!(out.ends_with("4 of 4 were answered 2xx\n"), "{out}");
    let requests = served.join().unwrap();
    let statuses: Vec<_> = requests
        .iter()
        .map(|request| request.split("MessageStatus=").nth(1).unwrap().split('&').next().unwrap())
        .collect();
    assert_eq!(statuses, ["queued", "sent", "delivered", "read"]);
    let token = |request: &String| {
        request.to_ascii_lowercase().split("i-twilio-idempotency-token: ").nth(1).unwrap()[..36]
            .to_owned()
    };
    assert_ne!(token(&requests[0]), token(&requests[1]), "each status is an event of its own");

    let (url, served) = edge(vec![ACCEPTED; 5]);
    let arguments =
        ["sign", "duplicates", "--count", "5", "--concurrent", "--send", "--edge", &url];
    run(&arguments, &OURS, "").success();
    let mut requests = served.join().unwrap();
    requests.dedup();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

#[test]
fn refusal_is_shown_and_fails() {
    let (url, served) = edge(vec![REFUSED]);
    let ran = run(&["sign", "inbound", "--send", "--edge", &url], &OURS, "");
    served.join().unwrap();
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("403 Forbidden after "), "{ran:?}");
    assert!(ran.out.contains("\n  x-twilio-edge-reason: invalid-signature\n"), "{ran:?}");
    assert!(!ran.out.contains('\x1b'), "an answer must not steer the terminal: {ran:?}");
}

#[test]
fn impossible_request_is_reported_before_anything_is_sent() {
    let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("http://{unreachable}");
    for (arguments, environment, want) in [
        (&["inbound", "--send", "--edge", &unreachable][..], &OURS[..], "no answer"),
        (&["inbound", "--path", "hook"], &OURS, "a path begins with /"),
        (&["inbound", "--path", "/hook#rc=2"], &OURS, "fragment"),
        (&["inbound", "--origin", "hooks.example.com"], &OURS, "is no origin"),
        (&["inbound", "--origin", "https://h/path"], &OURS, "is no origin"),
        (&["inbound", "--param", "Body"], &OURS, "NAME=VALUE"),
        (&["inbound", "--account", "AC1"], &OURS, "must be an account SID"),
        (&["inbound"], &OURS[..1], "there is no auth token for AC0123"),
        (&["inbound"], &OURS[1..], "TWILIO_AUTH_TOKEN has no account"),
        (&["inbound", "--token-file", "/no/such/file"], &OURS, "/no/such/file"),
        (&["other", "--json-body", "{}", "--method", "GET"], &OURS, "--json-body"),
        (&["media", "--count", "11"], &OURS, "11 is not in 1..=10"),
        (&["inbound", "--token", TOKEN], &OURS, "unexpected argument '--token'"),
    ] {
        let ran = run(&[&["sign"], arguments].concat(), environment, "");
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(want), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn token_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, format!("# current\n  {TOKEN} \n\nnext\n")).unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&file, mode(0o644)).unwrap();
    let exposed = ["sign", "inbound", "--token-file", file.to_str().unwrap()];
    let refused = run(&exposed, &OURS, "");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("run `chmod 600 "), "{refused:?}");
    std::fs::set_permissions(&file, mode(0o600)).unwrap();
    let sid = "SM00000000000000000000000000000001";
    let from_file =
        ["sign", "inbound", "--message-sid", sid, "--token-file", file.to_str().unwrap()];
    let from_environment = run(&from_file[..4], &OURS, "").success();
    assert_eq!(run(&from_file, &OURS[..1], "").success(), from_environment);
}
