//! Search of a text for the places of fields: a field's name, directly followed by a value of its shape, and then by
//! something that can be the next name.

use super::addresses::{may_follow_recipient, may_follow_sender};
use crate::form::Field;
use crate::form::byte_search::{self, capitals};
use crate::form::value_shapes::{is_channel, sid_bytes, starts_with_api_version};

/// Fields of identity or effect.
#[cfg(test)]
pub(super) const FIELDS: [Field; 13] = [
    Field::AccountSid,
    Field::ApiVersion,
    Field::ErrorCode,
    Field::ExternalUserId,
    Field::From,
    Field::MessageSid,
    Field::MessageStatus,
    Field::OptOutType,
    Field::SmsMessageSid,
    Field::SmsSid,
    Field::SmsStatus,
    Field::To,
    Field::WaId,
];

/// Match that the scan of a text finds.
pub(super) enum Hit {
    /// Name, value, and what can be the next name.
    Place(Field),
    /// Name, `=`, value: as in a query.
    Pair(Field),
}

/// Visits every place of a field in order, until the visitor returns false. Skips the places that `is_skipped` names.
pub(super) fn scan(
    text: &str,
    mut is_skipped: impl FnMut(Field, usize) -> bool,
    mut visit: impl FnMut(Hit, usize) -> bool,
) {
    let bytes = text.as_bytes();
    byte_search::visit(bytes, capitals, |at| {
        let Some(two) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else { return true };
        let fields: &[Field] = match two {
            b"Ac" => &[Field::AccountSid],
            b"Ap" => &[Field::ApiVersion],
            b"Er" => &[Field::ErrorCode],
            b"Ex" => &[Field::ExternalUserId],
            b"Fr" => &[Field::From],
            b"Me" => &[Field::MessageSid, Field::MessageStatus],
            b"Op" => &[Field::OptOutType],
            b"Sm" => &[Field::SmsMessageSid, Field::SmsSid, Field::SmsStatus],
            b"To" => &[Field::To],
            b"Wa" => &[Field::WaId],
            _ => return true,
        };
        fields.iter().all(|field| {
            is_skipped(*field, at) || find_at(text, *field, at).is_none_or(|hit| visit(hit, at))
        })
    });
}

/// Returns the match of a field at this position.
fn find_at(text: &str, field: Field, at: usize) -> Option<Hit> {
    let value = text.get(at..)?.strip_prefix(field.as_str())?;
    if shape_bytes(field, value).is_some() {
        return Some(Hit::Place(field));
    }
    let is_pair = matches!(field, Field::AccountSid | Field::MessageSid)
        && sid_of(field, value.strip_prefix('=')?).is_some();
    is_pair.then_some(Hit::Pair(field))
}

/// Returns the length of the field's value at the beginning of `text`, if there is one and the text can continue after it.
pub(super) fn shape_bytes(field: Field, text: &str) -> Option<usize> {
    let length = match field {
        Field::AccountSid | Field::MessageSid | Field::SmsMessageSid | Field::SmsSid => {
            sid_of(field, text)
        }
        Field::ApiVersion => starts_with_api_version(text).then_some(10),
        Field::ErrorCode => run(text, 1..=10, |byte| byte.is_ascii_digit()),
        Field::MessageStatus | Field::SmsStatus => {
            run(text, 2..=32, |byte| byte.is_ascii_lowercase() || byte == b'_')
        }
        Field::WaId => match run(text, 5..=20, |byte| byte.is_ascii_digit()) {
            None if text.get(2..3) == Some(".") => Some(text.len()),
            digits => digits,
        },
        Field::OptOutType => {
            let types = ["STOP", "START", "HELP"];
            types.into_iter().find(|known| text.starts_with(known)).map(str::len)
        }
        Field::ExternalUserId => channel_bytes(text).map(|_| text.len()),
        Field::From => address_bytes(text, may_follow_sender),
        Field::To => address_bytes(text, may_follow_recipient),
        _ => None,
    };
    length.filter(|length| text.get(*length..).is_some_and(goes_on))
}

/// Reports whether a name can begin here, or the text ends.
fn goes_on(rest: &str) -> bool {
    rest.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic())
}

fn sid_of(field: Field, text: &str) -> Option<usize> {
    match field {
        Field::AccountSid => sid_bytes(text, "AC"),
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
