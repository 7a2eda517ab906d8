//! Parser of `application/x-www-form-urlencoded` as Twilio sends it, and the typed view of its parameters.
//!
//! Decides: how bytes become ordered, possibly repeated parameters; which kind of webhook they describe (`webhook`); and
//! whether the parse can be trusted (`recut`). The last is necessary: Twilio signs names and values concatenated without
//! delimiters, so `Body`+`hello` and `Bodyh`+`ello` have the same signature, and one captured request can be re-cut into
//! others. [`Webhook::read`] accepts only a cut whose fields of identity and effect can be read in no other way.
//!
//! Must not know: keys, HTTP, the host.

mod byte_search;
mod field;
mod keywords;
mod recut;
mod signed_text;
mod value_shapes;
mod webhook;

use std::borrow::Cow;

pub(crate) use self::byte_search::is_printable;
use self::byte_search::separators_and_escapes;
pub(crate) use self::field::Field;
pub use self::keywords::is_opt_keyword;
pub use self::signed_text::SignedText;
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
    /// Places of the parameters in the order in which Twilio signs them.
    signed_order: Vec<Place>,
    /// For each known field the position of its first parameter, counted from 1; 0 if there is none.
    fields: [u16; field::COUNT],
    /// First field that occurs twice although Twilio sends it once.
    repeated: Option<Field>,
    /// The bytes, if they are UTF-8.
    text: Option<&'a str>,
    /// No byte and no escaped byte is beyond ASCII, so the form is UTF-8 both before and after decoding.
    is_ascii: bool,
}

/// Parameter in the signed order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Index in the order received.
    index: u16,
    field: Option<Field>,
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
        let text = std::str::from_utf8(bytes).ok();
        let is_ascii = match text {
            Some(text) => decode(text, &mut |pair| parameters.push(pair.decoded()))?,
            None => {
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
        let mut form = Self {
            signed_order: Vec::with_capacity(parameters.len()),
            parameters,
            fields: [0; field::COUNT],
            repeated: None,
            text,
            is_ascii,
        };
        form.index();
        Ok(form)
    }

    /// Finds the known fields and the signed order: by name, then value, in byte order, equal pairs once. A webhook has about
    /// twenty parameters and never more than [`MAX_PARAMETERS`]; the library's sorts are several times the code.
    fn index(&mut self) {
        let Self { parameters, signed_order, fields, repeated, .. } = self;
        for (parameter, index) in parameters.iter().zip(0_u16..) {
            let field = Field::named(&parameter.0);
            if let Some(field) = field
                && let Some(first) = fields.get_mut(field as usize)
            {
                match *first {
                    0 => *first = index + 1,
                    _ if field.is_single() => *repeated = repeated.or(Some(field)),
                    _ => {}
                }
            }
            // The order of the fields is that of their names, so most names need not be compared.
            let is_before = |other: &Place| match (other.field, field) {
                (Some(other), Some(field)) if other != field => other < field,
                _ => parameters.get(usize::from(other.index)) < Some(parameter),
            };
            let at = signed_order.partition_point(is_before);
            let next = signed_order.get(at).filter(|next| next.field == field);
            if next.and_then(|next| parameters.get(usize::from(next.index))) != Some(parameter) {
                signed_order.insert(at, Place { index, field });
            }
        }
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

    /// Returns the bytes as text, if they are UTF-8.
    pub(crate) fn text(&self) -> Option<&'a str> {
        self.text
    }

    /// Returns the first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// Returns the first value of a known field.
    pub(crate) fn field(&self, field: Field) -> Option<&str> {
        let number = self.fields.get(field as usize).copied().unwrap_or_default();
        let index = usize::from(number).checked_sub(1)?;
        self.parameters.get(index).map(|Parameter(_, value)| value.as_ref())
    }

    /// Returns the value of a known field, unless it is empty.
    pub(crate) fn filled(&self, field: Field) -> Option<&str> {
        self.field(field).filter(|value| !value.is_empty())
    }

    /// Returns the parameters as Twilio signs them: by name, then value, in byte order, equal pairs once.
    pub fn canonical(&self) -> impl Iterator<Item = &Parameter<'a>> {
        let places = self.signed_order.iter();
        places.filter_map(|place| self.parameters.get(usize::from(place.index)))
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
}

/// Visits all pairs of a form, and reports whether all of it is ASCII. Most pairs contain no escape.
fn decode<'t>(text: &'t str, visit: &mut impl FnMut(Pair<'t>)) -> Result<bool, TooManyParameters> {
    let bytes = text.as_bytes();
    let (mut start, mut equals, mut is_escaped) = (0, None, false);
    let (mut separators, mut is_ascii) = (0, true);
    let mut end_pair = |start: usize, equals: &mut Option<usize>, is_escaped: bool, end: usize| {
        let equals = equals.take().unwrap_or(end);
        // An empty pair is none.
        if start != end {
            let name = text.get(start..equals).unwrap_or_default();
            let value = text.get(equals + 1..end).unwrap_or_default();
            visit(Pair { name, value, is_escaped });
        }
    };
    byte_search::visit(bytes, separators_and_escapes, |at| {
        match bytes.get(at) {
            Some(b'&') => {
                separators += 1;
                if separators < MAX_PARAMETERS {
                    end_pair(start, &mut equals, is_escaped, at);
                }
                (start, is_escaped) = (at + 1, false);
            }
            Some(b'=') => equals = equals.or(Some(at)),
            Some(b'+') => is_escaped = true,
            Some(b'%') => {
                is_escaped = true;
                is_ascii &= matches!(bytes.get(at + 1), Some(b'0'..=b'7'));
            }
            _ => is_ascii = false,
        }
        separators < MAX_PARAMETERS
    });
    if separators >= MAX_PARAMETERS {
        return Err(TooManyParameters);
    }
    end_pair(start, &mut equals, is_escaped, bytes.len());
    Ok(is_ascii)
}

/// An undecoded pair.
#[derive(Clone, Copy)]
struct Pair<'t> {
    name: &'t str,
    value: &'t str,
    is_escaped: bool,
}

impl<'t> Pair<'t> {
    fn decoded(self) -> Parameter<'t> {
        match self.is_escaped {
            true => Parameter(unescaped(self.name), unescaped(self.value)),
            false => Parameter(self.name.into(), self.value.into()),
        }
    }
}

/// Decodes a name or a value. Any text has a decoded form.
fn unescaped(text: &str) -> Cow<'_, str> {
    let mut rest = text.as_bytes();
    let is_escape = |byte: &u8| matches!(byte, b'+' | b'%');
    let Some(first) = rest.iter().position(is_escape) else { return text.into() };
    let mut bytes = Vec::with_capacity(text.len());
    let mut next = Some(first);
    while let Some((plain, escaped)) = next.and_then(|at| rest.split_at_checked(at)) {
        bytes.extend_from_slice(plain);
        let digits = escaped.get(1..).and_then(<[u8]>::first_chunk::<2>);
        let (byte, length) = match (escaped.first(), digits.and_then(|it| escaped_byte(*it))) {
            (Some(b'+'), _) => (b' ', 1),
            (_, Some(byte)) => (byte, 3),
            (_, None) => (b'%', 1),
        };
        bytes.push(byte);
        rest = escaped.get(length..).unwrap_or_default();
        next = rest.iter().position(is_escape);
    }
    bytes.extend_from_slice(rest);
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}

fn escaped_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
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
