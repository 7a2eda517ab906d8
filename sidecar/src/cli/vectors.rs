//! `twilio-edge vectors FILE`: compares the filter's verdicts with a file of signed requests and their expected verdicts.
//!
//! One JSON object per line: `id`, `note`, `method`, `url` (as the public sees it), `headers`, `content_type`, `body` or
//! `body_b64`, `auth_token`, `expect` (`accept` or `reject`); other fields are ignored.
//!
//! Decides: what counts as agreement, and what is printed. The verdict is the filter's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use twilio_edge_platform::terminal;

use serde::{Deserialize, Serialize};
use twilio_edge_diagnosis::JsonLine;
use twilio_edge_filter::signature::Candidate;

/// Longest line that is read, in bytes: a body at Envoy's own limit (1 MiB) with every character escaped in JSON.
const MAX_LINE_BYTES: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File of JSON lines; `-` reads standard input
    file: PathBuf,
}

/// Expected verdict of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Accept,
    Reject,
}

#[derive(Debug, Deserialize)]
struct Vector {
    id: String,
    #[serde(default)]
    note: String,
    expect: Verdict,
    #[serde(flatten)]
    request: JsonLine,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Disagreement {
    id: String,
    note: String,
    expect: Verdict,
    got: Verdict,
    why: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    total: usize,
    agree: usize,
    disagreements: Vec<Disagreement>,
}

/// Exit 0 when all agree, 1 when one does not, 2 when the file cannot be read.
pub(super) fn run(args: Args) -> ExitCode {
    let name = args.file.display().to_string();
    let input: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin())
    } else {
        match File::open(&args.file) {
            Ok(file) => Box::new(file),
            Err(error) => return unreadable(&format!("{name}: {error}")),
        }
    };
    let report = match judge_all(BufReader::new(input)) {
        Ok(report) => report,
        Err(problem) => return unreadable(&format!("{name}:{problem}")),
    };
    match serde_json::to_string(&report) {
        Ok(json) => terminal::print_line(&json),
        Err(error) => return unreadable(&error.to_string()),
    }
    if report.disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn unreadable(problem: &str) -> ExitCode {
    terminal::print_error(&format!("twilio-edge vectors: {problem}"));
    ExitCode::from(2)
}

/// Compares all lines. The error begins with the number of its line.
fn judge_all(mut lines: impl BufRead) -> Result<Report, String> {
    let mut report = Report::default();
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let read = lines
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("{number}: {error}"))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE_BYTES {
            return Err(format!("{number}: longer than {MAX_LINE_BYTES} bytes"));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let disagreement = judge(&line).map_err(|problem| format!("{number}: {problem}"))?;
        report.total += 1;
        match disagreement {
            None => report.agree += 1,
            Some(disagreement) => report.disagreements.push(disagreement),
        }
    }
    // A run without any vector must not pass.
    if report.total == 0 { Err("1: no vector in it".to_owned()) } else { Ok(report) }
}

fn judge(line: &[u8]) -> Result<Option<Disagreement>, String> {
    let vector: Vector = serde_json::from_slice(line)
        .map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))?;
    let token = vector.request.auth_token().ok_or("missing field `auth_token`")?.to_owned();
    let request = vector.request.into_captured()?;
    let key = request.key("auth_token", &token).ok_or("`auth_token` cannot be a key")?;
    let (got, why) = match request.judge(&[key]) {
        Ok(found) => (
            Verdict::Accept,
            match found.candidate {
                Candidate::WithoutPort => "the signature is of the URL without its port".to_owned(),
                Candidate::WithPort => "the signature is of the URL with its port".to_owned(),
            },
        ),
        Err(rejection) => (Verdict::Reject, rejection.to_string()),
    };
    let Vector { id, note, expect, .. } = vector;
    Ok((got != expect).then_some(Disagreement { id, note, expect, got, why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of Twilio's documentation, which every official SDK tests with.
    const PUBLISHED: &str = r#"{"id":"famous","method":"POST","url":"https://mycompany.com/myapp.php?foo=1&bar=2","headers":{"content-type":"application/x-www-form-urlencoded","x-twilio-signature":"RSOYDt4T1cUTdK1PDd93/VVr8B8="},"body":"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212","auth_token":"12345","expect":"accept"}"#;

    #[test]
    fn agreement_is_counted_and_disagreement_explained() {
        let wrong = PUBLISHED.replace("\"accept\"", "\"reject\"");
        let tampered = PUBLISHED.replace("Digits=1234", "Digits=1235");
        let file = format!("{PUBLISHED}\n\n{wrong}\r\n{tampered}");
        let report = judge_all(file.as_bytes()).unwrap();
        assert_eq!((report.total, report.agree), (3, 1));
        let got: Vec<_> = report.disagreements.iter().map(|d| (d.got, d.why.as_str())).collect();
        assert_eq!(
            got,
            [
                (Verdict::Accept, "the signature is of the URL without its port"),
                (
                    Verdict::Reject,
                    "no key given signed this URL, with or without its port, and these parameters"
                ),
            ]
        );
    }

    #[test]
    fn shared_key_is_used_as_the_request_says() {
        // Computed with PyPI twilio 9.13.0, algorithm HMAC_SHA256.
        let signed = |settings: &str| {
            let settings = format!(r#""x-twilio-webhooks-signature-settings":"{settings}","#);
            PUBLISHED
                .replace(r#""x-twilio-signature""#, &format!(r#"{settings}"x-twilio-signature""#))
                .replace(
                    "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
                    "URweRwxe8s99gM7bKJ2P7Q0dplvm0Oi0SIeBzkJ7akI=",
                )
                .replace(r#""auth_token":"12345""#, r#""auth_token":"secret""#)
        };
        let agree = |line: String| judge_all(line.as_bytes()).unwrap().agree;
        assert_eq!(agree(signed("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")), 1);
        assert_eq!(agree(signed("key=webhooks_sharedkey_1,algorithm=HMAC_SHA1")), 0);
        assert_eq!(agree(signed("key=webhooks_sharedkey_1,algorithm=HMAC_MD5")), 0);
        assert_eq!(agree(signed("")), 0);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line() {
        for (file, want) in [
            ("", "1: no vector"),
            ("\n \n", "1: no vector"),
            ("{", "1: EOF"),
            (&format!("{PUBLISHED}\n{{}}"), "2: missing field"),
            (&PUBLISHED.replace("accept", "maybe"), "1: unknown variant `maybe`"),
            (&PUBLISHED.replace("\"body\"", "\"body_b64\""), "1: `body_b64` is not base64"),
            (&PUBLISHED.replace("auth_token", "token"), "1: missing field `auth_token`"),
        ] {
            let problem = judge_all(file.as_bytes()).unwrap_err();
            assert!(problem.starts_with(want), "{problem}");
        }
    }

    #[test]
    fn endless_line_is_not_read_to_its_end() {
        let endless = std::io::BufReader::new(std::io::repeat(b' '));
        assert!(judge_all(endless).unwrap_err().contains("longer than"));
    }
}
