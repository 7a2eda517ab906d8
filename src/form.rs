//! Parser of `application/x-www-form-urlencoded` as Twilio sends it, and the typed view of its parameters.
//!
//! Decides: how bytes become ordered, possibly repeated parameters; which kind of webhook they describe (`webhook`); and
//! whether the parse can be trusted (`recut`). The last is necessary: Twilio signs names and values concatenated without
//! delimiters, so `Body`+`hello` and `Bodyh`+`ello` have the same signature, and one captured request can be re-cut into
//! others. [`Webhook::read`] accepts only a cut whose fields of identity and effect can be read in no other way.
//!
//! Must not know: keys, HTTP, the host.

mod keywords;
mod recut;
mod value_shapes;
mod webhook;

use std::borrow::Cow;

pub use self::keywords::is_opt_keyword;
pub use self::value_shapes::{is_account_sid, is_parameter_name, split_address};
pub use self::webhook::{ShapeError, SignedParameters, Webhook};

/// Most parameters of a form. Twilio sends about twenty; its Node SDK stops at 1000 too.
pub const MAX_PARAMETERS: usize = 1000;

/// Number of parameters for which room is made at once.
const USUAL_PARAMETERS: usize = 32;

/// One decoded parameter, borrowed from the body if nothing had to be decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parameter<'a>(
    /// Name.
    pub Cow<'a, str>,
    /// Value.
    pub Cow<'a, str>,
);

/// The parameters in the order received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    parameters: Vec<Parameter<'a>>,
    /// Indexes of the parameters in the order in which Twilio signs them.
    signed_order: Vec<usize>,
    /// No byte and no escaped byte is beyond ASCII, so the form is UTF-8 both before and after decoding.
    is_ascii: bool,
}

/// Error: the form has more than [`MAX_PARAMETERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyParameters;

impl<'a> Form<'a> {
    /// Decodes `&`-separated pairs: `+` is a space, `%XX` a byte, a malformed escape stays as it is, and bytes that are not
    /// UTF-8 become U+FFFD. Raw bytes are replaced before escapes are decoded: one half of a character raw and the other
    /// half escaped do not make a character. Both of Twilio's validators do the same.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TooManyParameters> {
        let mut parameters = Vec::with_capacity(USUAL_PARAMETERS);
        let is_ascii = match std::str::from_utf8(bytes) {
            Ok(text) => decode(text, &mut parameters)?,
            Err(_) => {
                let text = String::from_utf8_lossy(bytes);
                if text.bytes().filter(|byte| *byte == b'&').count() >= MAX_PARAMETERS {
                    return Err(TooManyParameters);
                }
                let pairs: Vec<(String, String)> =
                    serde_urlencoded::from_str(&text).unwrap_or_default();
                let pairs = pairs.into_iter();
                parameters.extend(pairs.map(|(name, value)| Parameter(name.into(), value.into())));
                false
            }
        };
        let signed_order = sorted(&parameters);
        Ok(Self { parameters, signed_order, is_ascii })
    }

    /// Iterates over the parameters in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|Parameter(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Returns the number of parameters.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Reports whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Returns the first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// Returns the parameters as Twilio signs them: by name, then value, in byte order, equal pairs once.
    pub fn canonical(&self) -> Vec<&Parameter<'a>> {
        self.signed_order.iter().filter_map(|index| self.parameters.get(*index)).collect()
    }

    /// Returns the values of each name, both in the order received.
    pub fn by_name(&self) -> Vec<(&str, Vec<&str>)> {
        let mut by_name: Vec<(&str, Vec<&str>)> = Vec::with_capacity(self.parameters.len());
        for (name, value) in self.iter() {
            match by_name.iter_mut().find(|(have, _)| *have == name) {
                Some((_, values)) => values.push(value),
                None => by_name.push((name, vec![value])),
            }
        }
        by_name
    }

    /// Returns a name of `names` that occurs more than once.
    fn repeated(&self, names: &[&'static str]) -> Option<&'static str> {
        let mut seen: Vec<&str> = Vec::with_capacity(self.parameters.len());
        for (name, _) in self.iter() {
            if seen.contains(&name)
                && let Some(name) = names.iter().find(|single| **single == name)
            {
                return Some(name);
            }
            seen.push(name);
        }
        None
    }
}

/// Bytes of a form that need attention: separators, escapes, and everything beyond ASCII.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        special[byte] = byte >= 128 || matches!(byte as u8, b'&' | b'=' | b'+' | b'%');
        byte += 1;
    }
    special
};

/// Decodes all pairs of a form, and reports whether all of it is ASCII. Reads every byte once. Most pairs contain no escape
/// and are borrowed unchanged.
fn decode<'a>(
    text: &'a str,
    parameters: &mut Vec<Parameter<'a>>,
) -> Result<bool, TooManyParameters> {
    let bytes = text.as_bytes();
    let (mut pair, mut separators, mut is_ascii) = (Pair::from(0), 0, true);
    for (at, byte) in bytes.iter().copied().enumerate() {
        if !SPECIAL.get(usize::from(byte)).is_some_and(|special| *special) {
            continue;
        }
        match byte {
            b'&' => {
                separators += 1;
                if separators >= MAX_PARAMETERS {
                    return Err(TooManyParameters);
                }
                parameters.extend(pair.decoded(text, at));
                pair = Pair::from(at + 1);
            }
            b'=' => pair.equals = pair.equals.or(Some(at)),
            b'+' => pair.is_escaped = true,
            b'%' => {
                pair.is_escaped = true;
                let digit = bytes.get(at + 1).copied().unwrap_or_default();
                is_ascii &= matches!(digit, b'0'..=b'7');
            }
            _ => is_ascii = false,
        }
    }
    parameters.extend(pair.decoded(text, bytes.len()));
    Ok(is_ascii)
}

/// A pair whose end has not been reached yet.
#[derive(Clone, Copy)]
struct Pair {
    start: usize,
    equals: Option<usize>,
    is_escaped: bool,
}

impl Pair {
    fn from(start: usize) -> Self {
        Self { start, equals: None, is_escaped: false }
    }

    /// Returns the parameter that ends at `end`; an empty pair is none.
    fn decoded(self, text: &str, end: usize) -> Option<Parameter<'_>> {
        if self.start == end {
            return None;
        }
        let equals = self.equals.unwrap_or(end);
        let name = text.get(self.start..equals).unwrap_or_default();
        let value = text.get(equals + 1..end).unwrap_or_default();
        Some(match self.is_escaped {
            true => Parameter(unescaped(name), unescaped(value)),
            false => Parameter(name.into(), value.into()),
        })
    }
}

/// Decodes a name or a value. Any text has a decoded form.
fn unescaped(text: &str) -> Cow<'_, str> {
    let escape = text.bytes().position(|byte| byte == b'+' || byte == b'%');
    let Some((plain, rest)) = escape.and_then(|at| text.as_bytes().split_at_checked(at)) else {
        return text.into();
    };
    let mut bytes = Vec::with_capacity(text.len());
    bytes.extend_from_slice(plain);
    let mut rest = rest;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match after.split_first_chunk::<2>() {
                Some((digits, after)) if let Some(byte) = escaped_byte(*digits) => {
                    rest = after;
                    byte
                }
                _ => b'%',
            },
            byte => *byte,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}

fn escaped_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// Returns the indexes of the parameters by name, then value, in byte order, equal pairs once. A webhook has about twenty
/// parameters and never more than [`MAX_PARAMETERS`]; the library's sorts are several times the code.
fn sorted(parameters: &[Parameter<'_>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(parameters.len());
    for (index, parameter) in parameters.iter().enumerate() {
        let at = order.partition_point(|other| parameters.get(*other) < Some(parameter));
        let next = order.get(at).and_then(|other| parameters.get(*other));
        if next != Some(parameter) {
            order.insert(at, index);
        }
    }
    order
}

fn is_utf8_once_decoded(form: &Form<'_>, raw: &[u8]) -> bool {
    // Nearly every webhook.
    if form.is_ascii {
        return true;
    }
    let suspicious = form.iter().any(|(name, value)| {
        name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER)
    });
    // A sender may really have typed U+FFFD, so check the bytes. Separators are ASCII and cannot be part of a sequence, so
    // the whole body can be checked at once.
    !suspicious
        || (std::str::from_utf8(raw).is_ok()
            && percent_encoding::percent_decode(raw).decode_utf8().is_ok())
}

#[cfg(test)]
mod tests;
