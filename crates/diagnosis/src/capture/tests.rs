//! Properties of every form.

use proptest::prelude::*;

use super::{parts::MAX_LISTED, *};

/// Inputs that begin like each form, so that random ends reach its parser.
const BEGINNINGS: [&str; 12] = [
    "",
    "POST /in HTTP/1.1\nHost: h\n",
    "{\"method\":\"POST\",\"url\":\"https://h/\",\"headers\":{}",
    "curl 'https://h/in' -H 'X-Twilio-Signature: s' -d ",
    "{\"log\":{\"entries\":[{\"request\":{\"method\":\"POST\",\"url\":\"https://h/\"",
    "1.2.3.4 - - [30/Nov/2026:09:40:12 +0000] \"POST /in HTTP/1.1\" 403 ",
    "[2026-11-30T09:40:12.031Z] \"POST /in HTTP/1.1\" 403 - ",
    "{\"request_url\":\"https://h/in\",\"request_variables\":",
    "{ headers: { host: 'h', 'x-twilio-signature': ",
    "/in?a=1 { host: 'h', 'user-agent': 'TwilioProxy/1.1' } {",
    "{\"method\":\"POST\",\"path\":\"/in\",\"status\":",
    "{\"headers\":{\"host\":\"h\"},\"body\":{\"a\":",
];

#[test]
fn name_of_each_format_is_read_again() {
    for format in Format::ALL {
        assert_eq!(Format::parse(format.as_str()), Some(format));
    }
    assert_eq!(Format::parse("pcap"), None);
}

#[test]
fn errors_name_the_form_and_the_others() {
    let problem = Capture::read(b"curl -d x", None, None).unwrap_err();
    assert!(
        problem.starts_with("recognized as a curl command: the command has no URL"),
        "{problem}"
    );
    assert!(problem.contains("--format with one of http, json, har"), "{problem}");
    let problem = Capture::read(b"curl -d x", Some(Format::Har), None).unwrap_err();
    assert!(problem.starts_with("read as a HAR file: "), "{problem}");
    let problem = Capture::read(b"curl h", None, Some(1)).unwrap_err();
    assert!(problem.contains("--entry is for inputs with several requests"), "{problem}");
    let problem = Capture::read(&vec![b'x'; MAX_BYTES + 1], None, None).unwrap_err();
    assert!(problem.contains("longer than"), "{problem}");
    let many = format!("GET / HTTP/1.1\n{}\n", "A: b\n".repeat(MAX_HEADERS + 1));
    assert!(Capture::read(many.as_bytes(), None, None).unwrap_err().contains("1001 headers"));
}

#[test]
fn requests_beyond_the_limit_are_counted_and_not_listed() {
    let line = "1.2.3.4 - - [t] \"POST /in HTTP/1.1\" 403 1 \"-\" \"-\"\n";
    let problem = Capture::read(line.repeat(25).as_bytes(), None, None).unwrap_err();
    assert_eq!(problem.matches("--entry").count(), MAX_LISTED);
    assert!(problem.contains("and 5 more"), "{problem}");
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(
        beginning in prop::sample::select(&BEGINNINGS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        ascii in "[ -~\n]{0,80}",
        entry in prop::option::of(0_usize..3),
    ) {
        for end in [bytes.as_slice(), ascii.as_bytes()] {
            let raw = [beginning.as_bytes(), end].concat();
            let _ = Capture::read(&raw, None, entry);
            for format in Format::ALL {
                if let Ok(capture) = Capture::read(&raw, Some(format), entry) {
                    prop_assert_eq!(capture.format, format);
                    prop_assert!(capture.headers.len() <= MAX_HEADERS);
                }
            }
        }
    }
}
