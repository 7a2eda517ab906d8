//! Twilio's error code for each of our refusals, for clients that know only Twilio's codes. The table is that of
//! [`RefusalCode`]; `twilio-edge reference drop-in` prints it for docs/DROP-IN.md.

use std::fmt::Write as _;

use axum::http::StatusCode;
use twilio_edge_domain::{
    dropin::codes::{ENDS, of_status},
    refusal::{RefusalCode, TwilioError},
};

/// Prefix of all paths of Twilio's API of messages.
pub(super) const PATHS: &str = "/2010-04-01/";

/// Prefix of all paths of Twilio Verify.
const VERIFY_PATHS: &str = "/v2/Services/";

/// Prefix of all paths of Twilio Studio.
const STUDIO_PATHS: &str = "/v2/Flows/";

/// Returns whether the path is one of Twilio's REST APIs.
pub(super) fn is_twilios(path: &str) -> bool {
    [PATHS, VERIFY_PATHS, STUDIO_PATHS].into_iter().any(|prefix| path.starts_with(prefix))
}

/// Returns the Twilio code and the HTTP status of a refusal. A refusal without a Twilio error gets the code of its status.
pub(super) fn of(code: Option<RefusalCode>, status: StatusCode) -> (u32, u16) {
    match code.and_then(|code| code.row().drop_in) {
        Some(TwilioError { code, status, .. }) => (code, status),
        None => (of_status(status.as_u16()), status.as_u16()),
    }
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
    }
}
