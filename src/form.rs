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

use serde::Deserialize;

pub use self::keywords::is_opt_keyword;
pub use self::value_shapes::{is_account_sid, is_parameter_name, split_address};
pub use self::webhook::{ShapeError, SignedParameters, Webhook};

/// Most parameters of a form. Twilio sends about twenty; its Node SDK stops at 1000 too.
pub const MAX_PARAMETERS: usize = 1000;

/// One decoded parameter, borrowed from the body if nothing had to be decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Parameter<'a>(
    /// Name.
    #[serde(borrow)]
    pub Cow<'a, str>,
    /// Value.
    #[serde(borrow)]
    pub Cow<'a, str>,
);

/// The parameters in the order received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    parameters: Vec<Parameter<'a>>,
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
        let separators = bytes.iter().filter(|byte| **byte == b'&').count();
        if separators >= MAX_PARAMETERS {
            return Err(TooManyParameters);
        }
        let mut form = Self { parameters: Vec::with_capacity(separators + 1), is_ascii: true };
        match std::str::from_utf8(bytes) {
            Ok(text) => form.decode(text),
            Err(_) => {
                let mut lossy = Form { parameters: Vec::new(), is_ascii: false };
                let text = String::from_utf8_lossy(bytes);
                lossy.decode(&text);
                form = Self { parameters: owned(lossy.parameters), is_ascii: false };
            }
        }
        Ok(form)
    }

    /// Reads every byte once. Most pairs contain no escape and are borrowed unchanged. The decoder of the others is total:
    /// any text has a decoded form, so there is no error.
    fn decode(&mut self, text: &'a str) {
        let bytes = text.as_bytes();
        let mut pair = Pair::from(0);
        for (at, byte) in bytes.iter().copied().enumerate() {
            match byte {
                b'&' => {
                    self.push(text, pair, at);
                    pair = Pair::from(at + 1);
                }
                b'=' if pair.equals.is_none() => pair.equals = Some(at),
                b'+' => pair.is_escaped = true,
                b'%' => {
                    pair.is_escaped = true;
                    let digit = bytes.get(at + 1).copied().unwrap_or_default();
                    self.is_ascii &= (b'0'..=b'7').contains(&digit);
                }
                byte => self.is_ascii &= byte.is_ascii(),
            }
        }
        self.push(text, pair, bytes.len());
    }

    fn push(&mut self, text: &'a str, pair: Pair, end: usize) {
        let Some(whole) = text.get(pair.start..end).filter(|whole| !whole.is_empty()) else {
            return;
        };
        if pair.is_escaped {
            let decoded: Vec<Parameter<'a>> = serde_urlencoded::from_str(whole).unwrap_or_default();
            self.parameters.extend(decoded);
            return;
        }
        let equals = pair.equals.unwrap_or(end);
        let name = text.get(pair.start..equals).unwrap_or_default();
        let value = text.get(equals + 1..end).unwrap_or_default();
        self.parameters.push(Parameter(name.into(), value.into()));
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
        let mut sorted = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            insert(&mut sorted, parameter);
        }
        sorted
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
}

/// Inserts an item into a sorted list, unless it is there. A webhook has about twenty parameters and never more than
/// [`MAX_PARAMETERS`]; the library's sorts are several times the code.
fn insert<T: Ord>(sorted: &mut Vec<T>, item: T) {
    let at = sorted.partition_point(|other| *other < item);
    if sorted.get(at) != Some(&item) {
        sorted.insert(at, item);
    }
}

fn owned(parameters: Vec<Parameter<'_>>) -> Vec<Parameter<'static>> {
    parameters
        .into_iter()
        .map(|Parameter(name, value)| {
            Parameter(name.into_owned().into(), value.into_owned().into())
        })
        .collect()
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
