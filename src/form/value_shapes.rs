//! Shapes of the values that Twilio sends: SIDs, addresses, statuses, codes.
//!
//! Each function checks a whole value. Sources: twilio.com/docs/messaging/guides/webhook-request and
//! .../track-outbound-message-status.

/// Longest value of a field that names a sender or recipient, in bytes.
const MAX_ADDRESS_BYTES: usize = 256;

/// Most characters of an alphanumeric SMS sender: GSM 03.40 has room for eleven.
pub(super) const MAX_SENDER_CHARACTERS: usize = 11;

/// Longest parameter name. Twilio's longest today has 28 characters.
const MAX_NAME_BYTES: usize = 64;

/// Kinds of `From` and `To`, by where their value must end in the signed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Digits, after a plus sign or a channel prefix or neither: the value ends where the digits end.
    Number,
    /// Channel prefix and a name or id, for instance `rcs:brand_agent` or `whatsapp:US.13491208655302741918`.
    Handle,
    /// Alphanumeric SMS sender.
    Text,
}

/// Splits `whatsapp:+14155550123` into channel and address; an address without a prefix is SMS (or MMS).
pub fn split_address(address: &str) -> (&str, &str) {
    match address.split_once(':') {
        Some((channel, rest)) if is_channel(channel) => (channel, rest),
        _ => ("sms", address),
    }
}

/// Reports whether `text` is `AC` and 32 hexadecimal digits.
pub fn is_account_sid(text: &str) -> bool {
    is_sid(text, &["AC"])
}

/// Reports whether `text` has the form of Twilio's parameter names: a letter, then letters, digits and underscores.
pub fn is_parameter_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reports whether `text` is the SID of a message.
pub(super) fn is_message_sid(text: &str) -> bool {
    is_sid(text, &["SM", "MM"])
}

/// Reports whether `text` is the SID of a Messaging Service.
pub(super) fn is_service_sid(text: &str) -> bool {
    is_sid(text, &["MG"])
}

fn is_sid(text: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| sid_bytes(text, prefix) == Some(text.len()))
}

/// Returns the length of the SID of this kind with which `text` begins, in bytes.
pub(super) fn sid_bytes(text: &str, prefix: &str) -> Option<usize> {
    let digits = text.strip_prefix(prefix)?.as_bytes().get(..32)?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some(prefix.len() + 32)
}

/// Reports whether `text` is a status. Twilio adds to its list, so any lower-case word is one.
pub(super) fn is_status(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Reports whether `text` is an error code.
pub(super) fn is_error_code(text: &str) -> bool {
    (1..=10).contains(&text.len()) && is_digits(text)
}

/// Reports whether `text` consists of digits; true for an empty text.
pub(super) fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reports whether `text` is a version such as `2010-04-01`.
pub(super) fn is_api_version(text: &str) -> bool {
    text.len() == 10 && starts_with_api_version(text)
}

/// Reports whether `text` begins with a version.
pub(super) fn starts_with_api_version(text: &str) -> bool {
    let Some(version) = text.as_bytes().get(..10) else { return false };
    version.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    })
}

/// Reports whether `text` is a word such as `text` or `interactive`.
pub(super) fn is_word(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte))
}

/// Reports whether `text` is a channel prefix.
pub(super) fn is_channel(text: &str) -> bool {
    (2..=32).contains(&text.len())
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Returns the kind of address that `text` is, or `None` if Twilio sends no such address.
///
/// A number has 2 to 16 digits: networks send messages of their services from numbers of two digits. A text sender is any
/// text that fits into an SMS (`St Mary's`, `Västtrafik`, `*INFO*`), so only length and control characters distinguish it
/// from other text.
pub(super) fn address(text: &str) -> Option<Address> {
    if text.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let number = |digits: &str| (2..=16).contains(&digits.len()) && is_digits(digits);
    match text.split_once(':') {
        Some((channel, rest)) if is_channel(channel) => match rest.strip_prefix('+') {
            Some(digits) => number(digits).then_some(Address::Number),
            None if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) => None,
            None if is_digits(rest) => Some(Address::Number),
            None => Some(Address::Handle),
        },
        _ => match text.strip_prefix('+') {
            Some(digits) => number(digits).then_some(Address::Number),
            None if is_digits(text) => number(text).then_some(Address::Number),
            None => {
                let fits = text.chars().count() <= MAX_SENDER_CHARACTERS;
                (fits && !text.chars().any(char::is_control)).then_some(Address::Text)
            }
        },
    }
}
