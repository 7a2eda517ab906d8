//! Twilio's error code of an accepted message that was not sent, for clients that know only Twilio's codes.

use crate::refusal::RefusalCode;

/// Twilio's error 30008 (unknown error), used if the reason is unknown.
pub const UNKNOWN: u32 = 30008;

/// Codes with which an accepted message can end, besides Twilio's own codes and those of refusals.
pub const ENDS: [(&str, u32, &str); 2] = [
    (
        "expired",
        30036,
        "validity period expired: the message waited longer than `sending.give_up_s`",
    ),
    ("erased", UNKNOWN, "unknown error: the text was redacted before the message was sent"),
];

/// Returns Twilio's code for an HTTP status if nothing more is known.
pub fn of_status(status: u16) -> u32 {
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
pub fn of_end(code: &str) -> Option<u32> {
    // A number from 100 to 599 is an HTTP status, not a Twilio code.
    let of_twilio = || match code.parse::<u32>() {
        Ok(status @ 100..=599) => u16::try_from(status).ok().map(of_status),
        parsed => parsed.ok(),
    };
    let of_end = || ENDS.iter().find(|(end, ..)| *end == code).map(|(_, code, _)| *code);
    let of_refusal = || Some(RefusalCode::find(code)?.row().drop_in?.code);
    of_twilio().or_else(of_end).or_else(of_refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_message_has_a_code_of_twilio() {
        assert_eq!(of_end("30003"), Some(30003));
        assert_eq!(of_end("404"), Some(20404));
        assert_eq!(of_end("expired"), Some(30036));
        assert_eq!(of_end("window_closed"), Some(63016));
        assert_eq!(of_end("not_connected"), None);
    }
}
