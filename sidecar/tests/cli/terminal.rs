//! Output of commands that show captured requests: text of strangers must not control the terminal.

use crate::support::program::run;

const HOSTILE: &str = "\u{1b}[2J\u{9b}31m\u{202e}evil\u{200b}\u{7}";

fn is_hazardous(letter: char) -> bool {
    let is_invisible = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    (letter.is_control() && !matches!(letter, '\n' | '\t')) || is_invisible
}

#[test]
fn captured_text_cannot_command_the_terminal() {
    let token = [("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")];
    let encoded: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let sid = "SM00112233445566778899aabbccddeeff";
    let requests = [
        // In names and values of parameters.
        format!(
            "POST /twilio/inbound HTTP/1.1\nHost: hooks.example.com\nX-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
             Content-Type: application/x-www-form-urlencoded\n\n\
             AccountSid={encoded}&Body={encoded}&{encoded}={encoded}&MessageSid={sid}&From={encoded}&To={encoded}"
        ),
        // In the request line and the headers, where a proxy would have refused it.
        format!(
            "POST /{HOSTILE}?{HOSTILE}=1 HTTP/1.1\nHost: {HOSTILE}\nX-Twilio-Signature: {HOSTILE}\n\
             Content-Type: {HOSTILE}\nI-Twilio-{HOSTILE}: x\n\nBody=x"
        ),
        format!("{HOSTILE}\n\n{HOSTILE}"),
    ];
    let mut shown = 0;
    for request in &requests {
        for output in [&[][..], &["--json"], &["--show-signatures"]] {
            let arguments =
                [&["explain", "--request", "-", "--origin", "https://hooks.example.com"], output]
                    .concat();
            let ran = run(&arguments, &token, request);
            assert_ne!(ran.code, 0, "{request:?}");
            let text = ran.out + &ran.err;
            let found = text.find(is_hazardous);
            assert!(found.is_none(), "{output:?}: {:?}", found.map(|at| &text[at..]));
            shown += text.matches("\\u001b").count();
        }
    }
    for arguments in [
        &["explain", "--url", HOSTILE, "--data", "x"][..],
        &["explain", "--request", HOSTILE, "--origin", "https://hooks.example.com"],
        &["sign", "inbound", "--body", HOSTILE],
        &["vectors", HOSTILE],
        &["history", HOSTILE],
    ] {
        let ran = run(arguments, &token, "");
        let text = ran.out + &ran.err;
        assert!(!text.contains(is_hazardous), "{arguments:?}: {text:?}");
        shown += text.matches("\\u001b").count();
    }
    assert!(shown > 0, "nothing hostile was shown: this test proves nothing");
}
