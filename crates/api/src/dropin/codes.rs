//! Twilio's error code for each of our refusals, for clients that know only Twilio's codes. The table is that of
//! [`RefusalCode`]; `twilio-edge reference drop-in` prints it for docs/DROP-IN.md.

use std::fmt::Write as _;

use axum::http::StatusCode;
use twilio_edge_domain::refusal::{RefusalCode, TwilioError};

/// Prefix of all paths of Twilio's REST API.
pub(super) const PATHS: &str = "/2010-04-01/";

/// Codes with which an accepted message can end, besides Twilio's own codes and those of refusals.
const ENDS: [(&str, u32, &str); 2] = [
    (
        "expired",
        30036,
        "validity period expired: the message waited longer than `sending.give_up_s`",
    ),
    ("erased", 30008, "unknown error: the text was redacted before the message was sent"),
];

/// Returns the Twilio code and the HTTP status of a refusal. A refusal without a Twilio error gets the code of its status.
pub(super) fn of(code: Option<RefusalCode>, status: StatusCode) -> (u32, u16) {
    match code.and_then(|code| code.row().drop_in) {
        Some(TwilioError { code, status, .. }) => (code, status),
        None => (of_status(status.as_u16()), status.as_u16()),
    }
}

/// Returns Twilio's code for an HTTP status if nothing more is known.
pub(super) fn of_status(status: u16) -> u32 {
    match status {
        401 | 403 => 20003,
        404 => 20404,
        405 => 20004,
        429 => 20429,
        503 => 20503,
        500.. => 20500,
        _ => 20001,
    }
}

/// Returns the Twilio code for the reason why an accepted message was not sent: Twilio's own code, or the one of our
/// code.
pub(super) fn of_end(code: &str) -> Option<u32> {
    // A number from 100 to 599 is an HTTP status, not a Twilio code.
    let of_twilio = || match code.parse::<u32>() {
        Ok(status @ 100..=599) => u16::try_from(status).ok().map(of_status),
        parsed => parsed.ok(),
    };
    let of_end = || ENDS.iter().find(|(end, ..)| *end == code).map(|(_, code, _)| *code);
    let of_refusal = || Some(RefusalCode::find(code)?.row().drop_in?.code);
    of_twilio().or_else(of_end).or_else(of_refusal)
}

/// Renders the table as Markdown.
pub fn reference() -> String {
    let mut text =
        "| our code | Twilio's code | status | Twilio's title |\n|---|---|---|---|\n".to_owned();
    for refusal in RefusalCode::ALL {
        if let Some(TwilioError { code, status, title }) = refusal.row().drop_in {
            let _ = writeln!(text, "| `{}` | {code} | {status} | {title} |", refusal.as_str());
        }
    }
    for (end, code, title) in ENDS {
        let _ = writeln!(text, "| `{end}` | {code} | 400 | {title} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guide_has_the_table_of_this_version() {
        let guide = include_str!("../../../../docs/DROP-IN.md");
        assert!(
            guide.contains(&reference()),
            "docs/DROP-IN.md is not what `twilio-edge reference drop-in` prints:\n{}",
            reference()
        );
    }

    #[test]
    fn refusal_has_a_code_and_a_status_of_twilio() {
        let of = |word, status| of(RefusalCode::find(word), StatusCode::from_u16(status).unwrap());
        assert_eq!(of("suppressed", 409), (21610, 400));
        assert_eq!(of("no_such_replay", 404), (20404, 404));
        assert_eq!(of("invented tomorrow", 409), (20001, 409));
        assert_eq!(of("invented tomorrow", 503), (20503, 503));
        assert_eq!(of_end("30003"), Some(30003));
        assert_eq!(of_end("404"), Some(20404));
        assert_eq!(of_end("expired"), Some(30036));
        assert_eq!(of_end("window_closed"), Some(63016));
        assert_eq!(of_end("not_connected"), None);
    }
}
