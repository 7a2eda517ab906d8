//! Search of a text for the places of fields: a field's name, directly followed by a value of its shape, and then by
//! something that can be the next name.

use super::addresses::{may_follow_recipient, may_follow_sender};
use crate::form::value_shapes::{is_channel, sid_bytes, starts_with_api_version};

/// Fields of identity or effect, in signed order.
pub(super) const FIELDS: [&str; 13] = [
    "AccountSid",
    "ApiVersion",
    "ErrorCode",
    "ExternalUserId",
    "From",
    "MessageSid",
    "MessageStatus",
    "OptOutType",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
    "WaId",
];

pub(super) const ACCOUNT_SID: usize = 0;
pub(super) const API_VERSION: usize = 1;
pub(super) const ERROR_CODE: usize = 2;
pub(super) const EXTERNAL_USER_ID: usize = 3;
pub(super) const FROM: usize = 4;
pub(super) const MESSAGE_SID: usize = 5;
pub(super) const MESSAGE_STATUS: usize = 6;
pub(super) const OPT_OUT_TYPE: usize = 7;
pub(super) const SMS_MESSAGE_SID: usize = 8;
pub(super) const SMS_SID: usize = 9;
pub(super) const SMS_STATUS: usize = 10;
pub(super) const TO: usize = 11;
pub(super) const WA_ID: usize = 12;

pub(super) fn name_of(field: usize) -> &'static str {
    FIELDS.get(field).copied().unwrap_or_default()
}

/// Match that the scan of a text finds.
pub(super) enum Hit {
    /// Name, value, and what can be the next name.
    Place(usize),
    /// Name, `=`, value: as in a query.
    Pair(usize),
}

/// Visits every place of a field in order, until the visitor returns false.
pub(super) fn scan(text: &str, mut visit: impl FnMut(Hit, usize) -> bool) {
    let bytes = text.as_bytes();
    for at in capitals(bytes) {
        let (Some(byte), next) = (bytes.get(at), bytes.get(at + 1)) else { continue };
        let fields: &[usize] = match (byte, next) {
            (b'A', Some(b'c')) => &[ACCOUNT_SID],
            (b'A', Some(b'p')) => &[API_VERSION],
            (b'E', Some(b'r')) => &[ERROR_CODE],
            (b'E', Some(b'x')) => &[EXTERNAL_USER_ID],
            (b'F', Some(b'r')) => &[FROM],
            (b'M', Some(b'e')) => &[MESSAGE_SID, MESSAGE_STATUS],
            (b'O', Some(b'p')) => &[OPT_OUT_TYPE],
            (b'S', Some(b'm')) => &[SMS_MESSAGE_SID, SMS_SID, SMS_STATUS],
            (b'T', Some(b'o')) => &[TO],
            (b'W', Some(b'a')) => &[WA_ID],
            _ => continue,
        };
        for field in fields.iter().copied() {
            let rest = text.get(at..).and_then(|rest| rest.strip_prefix(name_of(field)));
            let Some(value) = rest else { continue };
            let hit = if shape_bytes(field, value).is_some() {
                Hit::Place(field)
            } else if let Some(value) = value.strip_prefix('=')
                && matches!(field, ACCOUNT_SID | MESSAGE_SID)
                && sid_of(field, value).is_some()
            {
                Hit::Pair(field)
            } else {
                continue;
            };
            if !visit(hit, at) {
                return;
            }
        }
    }
}

/// Returns the positions of the capital letters A to Z. Tests eight bytes at a time: most bytes are none.
fn capitals(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let masks = chunks.iter().copied().chain(std::iter::once(last)).map(mask);
    masks.enumerate().flat_map(|(index, mut mask)| {
        std::iter::from_fn(move || {
            let bit = usize::try_from(mask.trailing_zeros()).ok().filter(|_| mask != 0)?;
            mask &= mask - 1;
            Some(index * 8 + bit / 8)
        })
    })
}

/// Returns a number with the highest bit set of each byte that is a capital letter.
fn mask(bytes: [u8; 8]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = EACH * 0x80;
    let bytes = u64::from_le_bytes(bytes);
    let low = bytes & !HIGHEST;
    // The highest bit of a byte is set in the first sum from `A` on, in the second above `Z`. No sum exceeds its byte.
    let from_a = low + EACH * (0x80 - b'A') as u64;
    let above_z = low + EACH * (0x7f - b'Z') as u64;
    from_a & !above_z & !bytes & HIGHEST
}

/// Returns the length of the field's value at the beginning of `text`, if there is one and the text can continue after it.
pub(super) fn shape_bytes(field: usize, text: &str) -> Option<usize> {
    let length = match field {
        ACCOUNT_SID | MESSAGE_SID | SMS_MESSAGE_SID | SMS_SID => sid_of(field, text),
        API_VERSION => starts_with_api_version(text).then_some(10),
        ERROR_CODE => run(text, 1..=10, |byte| byte.is_ascii_digit()),
        MESSAGE_STATUS | SMS_STATUS => {
            run(text, 2..=32, |byte| byte.is_ascii_lowercase() || byte == b'_')
        }
        WA_ID => match run(text, 5..=20, |byte| byte.is_ascii_digit()) {
            None if text.get(2..3) == Some(".") => Some(text.len()),
            digits => digits,
        },
        OPT_OUT_TYPE => {
            let types = ["STOP", "START", "HELP"];
            types.into_iter().find(|known| text.starts_with(known)).map(str::len)
        }
        EXTERNAL_USER_ID => channel_bytes(text).map(|_| text.len()),
        FROM => address_bytes(text, may_follow_sender),
        TO => address_bytes(text, may_follow_recipient),
        _ => None,
    };
    length.filter(|length| text.get(*length..).is_some_and(goes_on))
}

/// Reports whether a name can begin here, or the text ends.
fn goes_on(rest: &str) -> bool {
    rest.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic())
}

fn sid_of(field: usize, text: &str) -> Option<usize> {
    match field {
        ACCOUNT_SID => sid_bytes(text, "AC"),
        _ => sid_bytes(text, "SM").or_else(|| sid_bytes(text, "MM")),
    }
}

/// Returns the length of the run of bytes at the beginning of `text`, if it is within bounds.
fn run(
    text: &str,
    lengths: std::ops::RangeInclusive<usize>,
    of: impl Fn(u8) -> bool,
) -> Option<usize> {
    let length = text.bytes().take_while(|byte| of(*byte)).count();
    lengths.contains(&length).then_some(length)
}

/// Returns the length of a channel prefix and its colon, if an id follows; `https://` is not a prefix.
fn channel_bytes(text: &str) -> Option<usize> {
    let is_end = |byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let colon = text.bytes().take(33).position(is_end)?;
    if text.as_bytes().get(colon) != Some(&b':') {
        return None;
    }
    let (channel, rest) = (text.get(..colon)?, text.get(colon + 1..)?);
    let has_id = rest.bytes().next().is_some_and(|byte| byte.is_ascii_graphic());
    (is_channel(channel) && has_id && !rest.starts_with("//")).then_some(colon + 1)
}

/// Returns the length of an address. Bare digits are one only before a name that is known to follow: `HowTo101` is a word.
fn address_bytes(text: &str, is_followed: impl Fn(&str) -> bool) -> Option<usize> {
    let digits = |text: &str| run(text, 2..=16, |byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('+') {
        return digits(rest).map(|length| length + 1);
    }
    if text.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
        return digits(text).filter(|length| text.get(*length..).is_some_and(is_followed));
    }
    let prefix = channel_bytes(text)?;
    let rest = text.get(prefix..)?;
    let plus = usize::from(rest.starts_with('+'));
    // The end of any other id is not known, so the text can always continue after it.
    Some(digits(rest.get(plus..)?).map_or(text.len(), |length| prefix + plus + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn capitals_are_found_in_any_bytes(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 60_u8..95], 0..64),
        ) {
            let each = bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_uppercase());
            let want: Vec<usize> = each.map(|(at, _)| at).collect();
            prop_assert_eq!(capitals(&bytes).collect::<Vec<_>>(), want);
        }
    }
}
