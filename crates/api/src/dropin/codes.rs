//! Twilio's error code for each of our refusals, for clients that know only Twilio's codes. The table is also the
//! document: a test compares docs/DROP-IN.md with the output of `twilio-edge reference drop-in`.

use std::fmt::Write as _;

use axum::http::StatusCode;

use super::super::kinds::{self, Kind};

/// Prefix of all paths of Twilio's REST API.
pub(super) const PATHS: &str = "/2010-04-01/";

/// A Twilio error code with the HTTP status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) code: u32,
    pub(super) status: u16,
}

/// Our refusal, Twilio's code, the HTTP status, and Twilio's name of the error.
const TABLE: &[(Kind, u32, u16, &str)] = &[
    (kinds::SUPPRESSED, 21610, 400, "unsubscribed recipient"),
    (
        kinds::NO_CONSENT,
        21610,
        400,
        "unsubscribed recipient: as little may be sent to who has not agreed",
    ),
    (kinds::CONSENT_STALE, 21610, 400, "the same, of who agreed too long ago"),
    (kinds::WINDOW_CLOSED, 63016, 400, "free-form message outside of the window"),
    (kinds::TEMPLATE_UNKNOWN, 21655, 400, "the ContentSid is invalid"),
    (kinds::TEMPLATE_NOT_APPROVED, 63040, 400, "template is not approved"),
    (kinds::VARIABLES_REJECTED, 21656, 400, "the ContentVariables parameter is invalid"),
    (kinds::INVALID_RECIPIENT, 21211, 400, "invalid To"),
    (kinds::SENDER_UNKNOWN, 21603, 400, "From or MessagingServiceSid is required"),
    (kinds::CONTENT_REJECTED, 21617, 400, "body too long"),
    (kinds::MEDIA_REJECTED, 21620, 400, "invalid media"),
    (kinds::TOO_MANY_MEDIA, 21623, 400, "number of media files exceeds the limit"),
    (kinds::MEDIA_TOO_LARGE, 11751, 400, "media exceed the size limit"),
    (kinds::MEDIA_UNREACHABLE, 63019, 400, "media failed to download"),
    (kinds::REGION_BLOCKED, 21408, 400, "permission to send to the region is not enabled"),
    (kinds::UNCLEAR_MESSAGE, 21619, 400, "body or media are required"),
    (kinds::INVALID_FIELD, 20001, 400, "invalid parameter"),
    (kinds::MALFORMED_REQUEST, 20001, 400, "invalid parameter"),
    (kinds::IDEMPOTENCY_KEY_REUSED, 20001, 400, "the idempotency key is another request's"),
    (kinds::BODY_TOO_LARGE, 20001, 413, "too large"),
    (kinds::UNAUTHORIZED, 20003, 401, "authenticate"),
    (kinds::WRONG_SCOPE, 20003, 403, "permission denied"),
    (kinds::OTHER_ACCOUNT, 20003, 403, "permission denied"),
    (kinds::ACCOUNT_CLOSED, 20005, 403, "account not active"),
    (
        kinds::NO_CREDENTIALS,
        20003,
        403,
        "permission denied: the sidecar has no credentials of the account",
    ),
    (kinds::NO_SUCH_MESSAGE, 20404, 404, "not found"),
    (kinds::NOT_FOUND, 20404, 404, "not found"),
    (kinds::METHOD_NOT_ALLOWED, 20004, 405, "method not allowed"),
    (
        kinds::REQUEST_IN_PROGRESS,
        20409,
        409,
        "conflict: a copy of the request is being carried out",
    ),
    (kinds::RATE_LIMITED, 20429, 429, "too many requests"),
    (kinds::TOO_MANY_BAD_TOKENS, 20429, 429, "too many requests"),
    (kinds::INTERNAL, 20500, 500, "internal error"),
    (kinds::UNAVAILABLE, 20503, 503, "service unavailable"),
    (kinds::TIMEOUT, 20503, 503, "service unavailable"),
];

/// Codes with which an accepted message can end, besides Twilio's own codes and those in the table above.
const ENDS: &[(&str, u32, &str)] = &[
    ("expired", 30036, "validity period expired: it waited longer than `sending.give_up_s`"),
    ("erased", 30008, "unknown error: its text was taken out before it was sent"),
];

/// Returns the Twilio code of a refusal. A refusal outside the table gets the code of its status.
pub(super) fn of(code: &str, status: StatusCode) -> Told {
    let found = TABLE.iter().find(|(kind, ..)| kind.code == code);
    if let Some((_, code, status, _)) = found {
        return Told { code: *code, status: *status };
    }
    let status = status.as_u16();
    Told { code: of_status(status), status }
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
    let ends = || ENDS.iter().find(|(end, ..)| *end == code).map(|(_, code, _)| *code);
    let refusals = || TABLE.iter().find(|(kind, ..)| kind.code == code).map(|(_, code, ..)| *code);
    // A number from 100 to 599 is an HTTP status, not a Twilio code.
    let twilios = || match code.parse::<u32>() {
        Ok(status @ 100..=599) => u16::try_from(status).ok().map(of_status),
        parsed => parsed.ok(),
    };
    twilios().or_else(ends).or_else(refusals)
}

/// Renders the table as Markdown.
pub fn reference() -> String {
    let mut text =
        "| ours | Twilio's | status | what Twilio calls it |\n|---|---|---|---|\n".to_owned();
    for (kind, code, status, title) in TABLE {
        let _ = writeln!(text, "| `{}` | {code} | {status} | {title} |", kind.code);
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
    fn the_guide_has_the_table_of_this_version() {
        let guide = include_str!("../../../../docs/DROP-IN.md");
        let told = "docs/DROP-IN.md is not what `twilio-edge reference drop-in` prints";
        assert!(guide.contains(&reference()), "{told}:\n{}", reference());
    }

    #[test]
    fn every_refusal_has_a_code_of_twilios() {
        let of = |code, status| of(code, StatusCode::from_u16(status).unwrap());
        assert_eq!(of("suppressed", 409), Told { code: 21610, status: 400 });
        assert_eq!(of("invented tomorrow", 409), Told { code: 20001, status: 409 });
        assert_eq!(of("invented tomorrow", 503), Told { code: 20503, status: 503 });
        assert_eq!(of_end("30003"), Some(30003));
        assert_eq!(of_end("404"), Some(20404));
        assert_eq!(of_end("expired"), Some(30036));
        assert_eq!(of_end("window_closed"), Some(63016));
        assert_eq!(of_end("not_connected"), None);
    }
}
