//! Senders as callers write them: a number, a short code, an alphanumeric sender id, a channel address or a Messaging
//! Service. The API, the drop-in, the routes and the simulator all read a sender here.

use super::request::Sender;
use crate::address::Address;

/// Longest alphanumeric sender id, in characters.
const MAX_ID_CHARS: usize = 11;

/// Characters of an alphanumeric sender id beside ASCII letters and digits (twilio-openapi, `AlphaSender`).
const ID_MARKS: &[u8] = b" -_&+";

/// Digits of a short code; the shortest has three, and some countries have eight.
const SHORT_CODE: std::ops::RangeInclusive<usize> = 3..=8;

/// Longest sender of all, in characters.
const MAX_CHARS: usize = 255;

/// Channels on which alphanumeric sender ids and short codes send.
const SMS: [&str; 2] = ["sms", "mms"];

/// Reads a sender. `channel` is the channel of a sender that names none, normally the recipient's; without it `sms`.
///
/// # Errors
/// A sentence that says what the text must be.
pub fn sender(text: &str, channel: Option<&str>) -> Result<Sender, String> {
    let text = text.trim();
    if is_service(text) {
        return Ok(Sender::Service(text.to_owned()));
    }
    if !(1..=MAX_CHARS).contains(&text.chars().count()) {
        return Err(format!("must be 1 to {MAX_CHARS} characters"));
    }
    let named = channel.unwrap_or("sms");
    if SMS.contains(&named) && is_alphanumeric_id(text) {
        return Ok(Sender::From(Address { channel: named.to_owned(), number: text.to_owned() }));
    }
    Address::given(text, channel, None).map(Sender::From)
}

/// Returns whether the text is the SID of a Messaging Service: `MG` and 32 hexadecimal digits.
pub fn is_service(text: &str) -> bool {
    text.strip_prefix("MG")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns whether the text is an alphanumeric sender id: up to 11 characters, at least one of them a letter.
pub fn is_alphanumeric_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || ID_MARKS.contains(&byte);
    (1..=MAX_ID_CHARS).contains(&text.len())
        && text.bytes().all(is_allowed)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Returns whether the text is a short code.
pub fn is_short_code(text: &str) -> bool {
    SHORT_CODE.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str, channel: Option<&str>) -> Result<String, ()> {
        match sender(text, channel) {
            Ok(Sender::From(from)) => Ok(from.written()),
            Ok(Sender::Service(sid)) => Ok(sid),
            Err(_) => Err(()),
        }
    }

    #[test]
    fn sender_is_a_number_a_code_an_id_or_a_service() {
        let service = "MGffeeddccbbaa99887766554433221100";
        for (text, channel, expected) in [
            ("+14155238886", None, Ok("+14155238886")),
            ("+1 (415) 523-8886", Some("sms"), Ok("+14155238886")),
            ("ACME", Some("sms"), Ok("ACME")),
            ("MGMT", None, Ok("MGMT")),
            ("A-1_b &+ c3d", None, Err(())),
            ("A-1_b &+c3d", None, Ok("A-1_b &+c3d")),
            ("ABCDEFGHIJKL", None, Err(())),
            ("ÄCME", None, Err(())),
            ("AC*E", None, Err(())),
            ("89292", None, Ok("89292")),
            ("892", Some("sms"), Ok("892")),
            ("892924", Some("sms"), Ok("892924")),
            ("89", None, Err(())),
            ("", None, Err(())),
            (service, None, Ok(service)),
            (service, Some("whatsapp"), Ok(service)),
            ("ACME", Some("whatsapp"), Err(())),
            ("whatsapp:ACME", None, Err(())),
            ("89292", Some("whatsapp"), Err(())),
            ("whatsapp:89292", None, Err(())),
            ("+14155238886", Some("whatsapp"), Ok("whatsapp:+14155238886")),
            ("whatsapp:+14155238886", None, Ok("whatsapp:+14155238886")),
            ("messenger:108", Some("messenger"), Ok("messenger:108")),
        ] {
            assert_eq!(written(text, channel), expected.map(str::to_owned), "{text} {channel:?}");
        }
    }

    proptest! {
        #[test]
        fn whatsapp_sender_is_a_number(text in "[A-Za-z0-9 &_-]{1,11}") {
            if let Ok(Sender::From(from)) = sender(&text, Some("whatsapp")) {
                prop_assert!(from.number.starts_with('+'), "{}", text);
            }
        }

        #[test]
        fn sender_of_any_text_is_read_without_panic(text: String) {
            let _ = sender(&text, None);
            let _ = sender(&text, Some("whatsapp"));
        }
    }
}
