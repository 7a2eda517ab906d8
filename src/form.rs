//! `application/x-www-form-urlencoded` as Twilio sends it, and the typed view of what it says.
//!
//! Decides: how bytes become ordered, possibly repeated parameters; what kind of webhook they describe; and
//! whether the parse can be believed. The last is not pedantry: Twilio signs names and values run together
//! without delimiters, so `Body`+`hello` and `Bodyh`+`ello` have the same signature, and one captured request
//! can be re-cut into others. [`Webhook::read`] accepts only the cut that has every required field, well
//! formed, once.
//!
//! Must not know: keys, HTTP, the host.

use std::borrow::Cow;

use serde::Deserialize;
use twilio_edge_contract::{Class, Identity};

/// Most parameters a form may have. Twilio sends about twenty; its Node SDK stops at 1000 too.
pub const MAX_PARAMETERS: usize = 1000;

/// Longest value of a field that names somebody (`From`, `To`), in bytes.
const MAX_ADDRESS_BYTES: usize = 256;

/// Parameters Twilio documents, each of which it sends once. A second one can only come from re-cutting.
/// Source: twilio.com/docs/messaging/guides/webhook-request and .../track-outbound-message-status.
const SINGLE_VALUED: [&str; 22] = [
    "AccountSid",
    "ApiVersion",
    "Body",
    "ButtonPayload",
    "ButtonText",
    "ChannelPrefix",
    "ChannelToAddress",
    "ErrorCode",
    "EventType",
    "From",
    "MessageSid",
    "MessageStatus",
    "MessagingServiceSid",
    "NumMedia",
    "NumSegments",
    "OptOutType",
    "ProfileName",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
    "WaId",
];

/// One decoded parameter, borrowed from the body where nothing had to be decoded.
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
    /// Neither a byte nor an escape of one is beyond ASCII, so it is UTF-8 however it is looked at.
    is_ascii: bool,
}

/// More than [`MAX_PARAMETERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyParameters;

impl<'a> Form<'a> {
    /// Decodes `&`-separated pairs: `+` is a space, `%XX` a byte, a malformed escape stays as it is, bytes
    /// that are no UTF-8 become U+FFFD, raw ones before escapes are decoded: half a character that is raw and
    /// half that is escaped do not make one. All of it as both of Twilio's validators do.
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

    /// Reads every byte once. Most pairs hold nothing escaped and are lent as they stand; the decoder of the others
    /// is total: text comes out of any text, so there is no error to tell of.
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

    /// The parameters in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|Parameter(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// The parameters as Twilio signs them: by name, then value, in byte order, equal pairs once.
    pub fn canonical(&self) -> Vec<&Parameter<'a>> {
        let mut sorted = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            insert(&mut sorted, parameter);
        }
        sorted
    }

    /// The values of each name, both in the order received.
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

    /// A name of `names` that is there more than once.
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

/// A pair of which the end has not been seen yet.
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

/// Inserts into what is sorted, unless it is there. A webhook has about twenty parameters and never more than
/// [`MAX_PARAMETERS`]; the library's sorts are several times the code.
fn insert<T: Ord>(sorted: &mut Vec<T>, item: T) {
    let at = sorted.partition_point(|other| *other < item);
    if sorted.get(at) != Some(&item) {
        sorted.insert(at, item);
    }
}

/// Why signed parameters are not the webhook their route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misshape {
    /// A required field is absent or empty.
    Missing(&'static str),
    /// A field is not of the form Twilio documents.
    Malformed(&'static str),
    /// A single-valued field came more than once.
    Repeated(&'static str),
    /// A value is not UTF-8. Twilio never sends that, and different bytes would share one signature.
    NotUtf8,
    /// A status callback on a route for messages, or the other way round.
    WrongClass,
}

/// A proven and believable webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// What makes it the same webhook as another; none for [`Class::Other`].
    pub identity: Option<Identity>,
    /// Class of the route it came on.
    pub class: Class,
    /// Sender, without channel prefix.
    pub from: Option<String>,
    /// Recipient, without channel prefix.
    pub to: Option<String>,
    /// `sms`, or the channel prefix of the addresses.
    pub channel: Option<String>,
}

impl Webhook {
    /// Reads the webhook a route of class `class` expects out of `form`, whose undecoded bytes are `raw`.
    pub fn read(class: Class, form: &Form<'_>, raw: &[u8]) -> Result<Self, Misshape> {
        if !is_utf8_once_decoded(form, raw) {
            return Err(Misshape::NotUtf8);
        }
        if let Some(name) = form.repeated(&SINGLE_VALUED) {
            return Err(Misshape::Repeated(name));
        }
        if class == Class::Other {
            return Ok(Self { identity: None, class, from: None, to: None, channel: None });
        }
        let account_sid = required(form, "AccountSid", is_account_sid)?;
        let message_sid = required(form, "MessageSid", is_message_sid)?;
        let from = required(form, "From", is_address)?;
        let to = required(form, "To", is_address)?;
        // Of the two, only a status callback has MessageStatus. An inbound message may carry an ErrorCode:
        // that is how Twilio calls the fallback URL.
        let status = match (class, form.get("MessageStatus")) {
            (Class::Status, Some(_)) => {
                Some(required(form, "MessageStatus", is_status)?.to_owned())
            }
            (Class::Status, None) => return Err(Misshape::WrongClass),
            (_, Some(_)) => return Err(Misshape::WrongClass),
            (_, None) => None,
        };
        let error_code = match form.get("ErrorCode") {
            Some(code) if !code.is_empty() && class == Class::Status => {
                Some(required(form, "ErrorCode", is_error_code)?.to_owned())
            }
            _ => None,
        };
        let (channel, from) = split_address(from);
        let (_, to) = split_address(to);
        Ok(Self {
            identity: Some(Identity {
                class,
                account_sid: account_sid.to_owned(),
                message_sid: message_sid.to_owned(),
                status,
                error_code,
            }),
            class,
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            channel: Some(channel.to_owned()),
        })
    }
}

/// Splits `whatsapp:+14155550123` into channel and address; an address without a prefix is SMS (or MMS).
pub fn split_address(address: &str) -> (&str, &str) {
    address.split_once(':').unwrap_or(("sms", address))
}

/// `AC` and 32 hexadecimal digits.
pub fn is_account_sid(text: &str) -> bool {
    is_sid(text, &["AC"])
}

fn is_message_sid(text: &str) -> bool {
    is_sid(text, &["SM", "MM"])
}

fn is_sid(text: &str, prefixes: &[&str]) -> bool {
    prefixes
        .iter()
        .filter_map(|prefix| text.strip_prefix(prefix))
        .any(|digits| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Statuses are a closed list today, but Twilio adds to it: any lower-case word will do.
fn is_status(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn is_error_code(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A phone number or short code, an alphanumeric SMS sender, or whatever another channel calls its users.
///
/// As narrow as Twilio's documents allow: `From=+1415..` next to `FromCity=X` could be re-cut into one longer
/// `From`, and the wrong person would be suppressed.
fn is_address(text: &str) -> bool {
    if text.len() > MAX_ADDRESS_BYTES {
        return false;
    }
    let number = |digits: &str| {
        (3..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    match text.split_once(':') {
        Some((channel, address)) => {
            let word =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let is_channel = !channel.is_empty() && channel.bytes().all(word);
            is_channel
                && match address.strip_prefix('+') {
                    Some(digits) => number(digits),
                    None => {
                        !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_graphic())
                    }
                }
        }
        None => {
            // Sender names have at most 11 characters: letters, digits, space and some punctuation.
            let sender = |byte: u8| byte.is_ascii_alphanumeric() || b" &+-._".contains(&byte);
            number(text.strip_prefix('+').unwrap_or(text))
                || text.len() <= 11
                    && text.bytes().all(sender)
                    && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        }
    }
}

fn required<'f>(
    form: &'f Form<'_>,
    name: &'static str,
    well_formed: fn(&str) -> bool,
) -> Result<&'f str, Misshape> {
    match form.get(name) {
        None | Some("") => Err(Misshape::Missing(name)),
        Some(value) if well_formed(value) => Ok(value),
        Some(_) => Err(Misshape::Malformed(name)),
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
    // A person may really have typed U+FFFD, so look at the bytes. Separators are ASCII and cannot be part
    // of a sequence, so the whole body can be judged at once.
    !suspicious
        || (std::str::from_utf8(raw).is_ok()
            && percent_encoding::percent_decode(raw).decode_utf8().is_ok())
}

#[cfg(test)]
mod tests;
