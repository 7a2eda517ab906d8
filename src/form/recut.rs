//! Whether signed parameters can be cut in another way that says something else.
//!
//! Twilio signs the URL and then every name and value, sorted, with nothing between. Whoever writes a message chooses
//! a part of that text, and whoever sees its signature can send the same text cut elsewhere. This module searches the
//! text for the *places* of each field of identity or effect: its name, directly followed by a value of its shape, and
//! then by something that can be the next name. The webhook Twilio sent has each of its fields at such a place. So
//! where a field has no place but its own, no other cut gives it another value, and where there is a second place
//! that fits between the others, the request is refused, forged or not. docs/SIGNATURES.md tells the rules in full.
//!
//! One pass over the text finds all places. Nothing is allocated but the text itself and the starts of its parameters.

use twilio_edge_contract::Class;

use super::Parameter;
use super::shapes::{
    self, Address, MAX_SENDER_CHARACTERS, is_channel, is_parameter_name, sid_bytes,
    starts_with_api_version,
};
use super::webhook::{Misshape, SignedParameters};
use super::words::is_opt_word;

/// Fields of identity or effect, in signed order.
const FIELDS: [&str; 13] = [
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

const ACCOUNT_SID: usize = 0;
const API_VERSION: usize = 1;
const ERROR_CODE: usize = 2;
const EXTERNAL_USER_ID: usize = 3;
const FROM: usize = 4;
const MESSAGE_SID: usize = 5;
const MESSAGE_STATUS: usize = 6;
const OPT_OUT_TYPE: usize = 7;
const SMS_MESSAGE_SID: usize = 8;
const SMS_SID: usize = 9;
const SMS_STATUS: usize = 10;
const TO: usize = 11;
const WA_ID: usize = 12;

/// Places beside the fields' own after which the search ends: no message has that many by accident.
const MAX_OTHER_PLACES: usize = 64;

/// Parameters that stand in every webhook of a message. One of them between two names proves that the first cannot
/// have been at the place of the second.
const LANDMARKS: [&str; 9] = [
    "ApiVersion",
    "From",
    "MessageSid",
    "NumMedia",
    "NumSegments",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
];

/// Statuses of Twilio's list.
const STATUSES: [&str; 13] = [
    "accepted",
    "canceled",
    "delivered",
    "failed",
    "queued",
    "read",
    "received",
    "receiving",
    "scheduled",
    "sending",
    "sent",
    "partially_delivered",
    "undelivered",
];

/// Names that Twilio puts between `Body` and `From`, with the beginning of their values.
const AFTER_BODY: [(&str, &str); 10] = [
    ("ButtonPayload", ""),
    ("ButtonText", ""),
    ("ChannelInstallSid", "XE"),
    ("ChannelMetadata", "{"),
    ("ChannelPrefix", ""),
    ("ErrorCode", "0123456789"),
    ("ErrorUrl", "h"),
    ("ExternalUserId", "w"),
    ("Forwarded", "tf"),
    ("FrequentlyForwarded", "tf"),
];

/// Names that Twilio puts directly after the sender of an SMS, which has no location and no profile.
const AFTER_SMS_SENDER: [&str; 7] = [
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "MediaContentType0",
    "MediaUrl0",
    "MessageSid",
];

/// Further names that may follow a sender on other channels.
const AFTER_SENDER: [&str; 6] =
    ["InteractiveData", "Label", "Latitude", "ListId", "ListTitle", "Longitude"];

/// Names that may follow a recipient.
const AFTER_RECIPIENT: [&str; 6] = ["ToCity", "ToCountry", "ToState", "ToZip", "Username", "WaId"];

/// Refuses parameters that can be cut in another way.
pub(super) fn check(
    class: Class,
    signed: &SignedParameters<'_>,
    from: Option<&str>,
    to: &str,
) -> Result<(), Misshape> {
    let names = signed.form.iter().map(|(name, _)| name);
    if signed.in_query {
        return check_query(signed.target);
    }
    if names.into_iter().any(|name| !is_parameter_name(name) && !signed.knows(name)) {
        return Err(Misshape::MalformedName);
    }
    let parameters = signed.form.canonical();
    let cut = Cut::of(class, signed, &parameters);
    let found = cut.search()?;
    cut.check_places(&found, from)?;
    cut.check_get(&found, signed.accepts_get)?;
    cut.check_names()?;
    cut.check_addresses(from, to)?;
    if class == Class::Inbound {
        cut.check_error_code()?;
        cut.check_body()?;
        cut.check_opt_out_type()?;
        cut.check_button_payload()?;
    }
    Ok(())
}

/// The separators of a query are signed. Only a posted form that was moved into the URL has a name directly before
/// its value.
fn check_query(target: &str) -> Result<(), Misshape> {
    let mut place = None;
    scan(target, |hit, _| {
        // Every form of a message has these two, and nobody writes them so.
        if let Hit::Place(field @ (ACCOUNT_SID | MESSAGE_SID)) = hit {
            place = Some(field);
        }
        place.is_none()
    });
    place.map_or(Ok(()), |field| Err(Misshape::Ambiguous(name_of(field))))
}

fn name_of(field: usize) -> &'static str {
    FIELDS.get(field).copied().unwrap_or_default()
}

/// What the scan of a text finds.
enum Hit {
    /// Name, value, and what can be the next name.
    Place(usize),
    /// Name, `=`, value: as in a query.
    Pair(usize),
}

/// Visits every place of a field in order, until the visitor returns false.
fn scan(text: &str, mut visit: impl FnMut(Hit, usize) -> bool) {
    for (at, two) in text.as_bytes().windows(2).enumerate() {
        // Most bytes are no capital letter.
        let [b'A'..=b'Z', _] = two else { continue };
        let fields: &[usize] = match two {
            b"Ac" => &[ACCOUNT_SID],
            b"Ap" => &[API_VERSION],
            b"Er" => &[ERROR_CODE],
            b"Ex" => &[EXTERNAL_USER_ID],
            b"Fr" => &[FROM],
            b"Me" => &[MESSAGE_SID, MESSAGE_STATUS],
            b"Op" => &[OPT_OUT_TYPE],
            b"Sm" => &[SMS_MESSAGE_SID, SMS_SID, SMS_STATUS],
            b"To" => &[TO],
            b"Wa" => &[WA_ID],
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

/// Length of the field's value at the beginning of `text`, if one is there and the text can go on after it.
fn shape_bytes(field: usize, text: &str) -> Option<usize> {
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
        FROM => address_bytes(text, |rest| {
            AFTER_SMS_SENDER.iter().chain(&AFTER_SENDER).any(|name| rest.starts_with(name))
        }),
        TO => address_bytes(text, |rest| {
            rest.is_empty() || AFTER_RECIPIENT.iter().any(|name| rest.starts_with(name))
        }),
        _ => None,
    };
    length.filter(|length| text.get(*length..).is_some_and(goes_on))
}

/// Whether a name can begin here, or the text ends.
fn goes_on(rest: &str) -> bool {
    rest.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic())
}

fn sid_of(field: usize, text: &str) -> Option<usize> {
    match field {
        ACCOUNT_SID => sid_bytes(text, "AC"),
        _ => sid_bytes(text, "SM").or_else(|| sid_bytes(text, "MM")),
    }
}

/// Length of the run of bytes at the beginning of `text`, if it is within bounds.
fn run(
    text: &str,
    lengths: std::ops::RangeInclusive<usize>,
    of: impl Fn(u8) -> bool,
) -> Option<usize> {
    let length = text.bytes().take_while(|byte| of(*byte)).count();
    lengths.contains(&length).then_some(length)
}

/// Length of a channel prefix and its colon, if an id follows; `https://` is none.
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

/// Length of an address. Bare digits are one only before a name that is known to follow: `HowTo101` is a word.
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
    // The end of any other id is not known, so the text can always go on after it.
    Some(digits(rest.get(plus..)?).map_or(text.len(), |length| prefix + plus + length))
}

impl SignedParameters<'_> {
    fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }
}

/// The signed text, and how the request cuts it.
struct Cut<'a> {
    class: Class,
    signed: &'a SignedParameters<'a>,
    parameters: &'a [&'a Parameter<'a>],
    /// Target, then names and values run together.
    text: String,
    /// Where each parameter begins in the text.
    starts: Vec<usize>,
}

/// The result of the search for places.
#[derive(Default)]
struct Found {
    /// Where the fields are that the request has.
    own: [Option<usize>; FIELDS.len()],
    /// Places that are not a field's own.
    others: Vec<(usize, usize)>,
    /// Whether the text has a pair as in a query, `AccountSid=AC..` and `MessageSid=SM..`.
    account_pair: bool,
    message_pair: bool,
}

impl<'a> Cut<'a> {
    fn of(
        class: Class,
        signed: &'a SignedParameters<'a>,
        parameters: &'a [&'a Parameter<'a>],
    ) -> Self {
        let bytes = |parameter: &&Parameter<'_>| parameter.0.len() + parameter.1.len();
        let length = signed.target.len() + parameters.iter().map(bytes).sum::<usize>();
        let mut text = String::with_capacity(length);
        text.push_str(signed.target);
        let mut starts = Vec::with_capacity(parameters.len());
        for Parameter(name, value) in parameters.iter().copied() {
            starts.push(text.len());
            text.push_str(name);
            text.push_str(value);
        }
        Self { class, signed, parameters, text, starts }
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
        let starts = self.starts.iter().copied();
        let pairs = self.parameters.iter();
        starts
            .zip(pairs)
            .map(|(start, Parameter(name, value))| (start, name.as_ref(), value.as_ref()))
    }

    fn entry(&self, wanted: &str) -> Option<(usize, &'a str)> {
        self.entries().find(|(_, name, _)| *name == wanted).map(|(start, _, value)| (start, value))
    }

    fn has(&self, wanted: &str) -> bool {
        self.parameters.iter().any(|Parameter(name, _)| name == wanted)
    }

    /// The name that follows the parameter which begins at `start`.
    fn next_name(&self, start: usize) -> Option<&'a str> {
        self.entries().find(|(at, ..)| *at > start).map(|(_, name, _)| name)
    }

    fn search(&self) -> Result<Found, Misshape> {
        let mut found = Found::default();
        for (start, name, _) in self.entries() {
            // Lengths differ, so this is cheaper than a search by order.
            let field = FIELDS.iter().position(|field| *field == name);
            if let Some(own) = field.and_then(|field| found.own.get_mut(field)) {
                *own = Some(start);
            }
        }
        let mut excess = None;
        scan(&self.text, |hit, at| {
            match hit {
                Hit::Pair(ACCOUNT_SID) => found.account_pair = true,
                Hit::Pair(_) => found.message_pair = true,
                Hit::Place(field) => {
                    let own = found.own.get(field).copied().flatten() == Some(at);
                    // The value was cut off its name.
                    if own && self.entry(name_of(field)).is_some_and(|(_, value)| value.is_empty())
                    {
                        excess = Some(field);
                    }
                    if !own && !self.is_compound(field, at) && !self.is_word(field, at) {
                        found.others.push((field, at));
                    }
                    if found.others.len() > MAX_OTHER_PLACES {
                        excess = Some(field);
                    }
                }
            }
            excess.is_none()
        });
        match excess {
            Some(field) => Err(Misshape::Ambiguous(name_of(field))),
            None => Ok(found),
        }
    }

    /// Whether the place is the end of a longer name, such as `OriginalRepliedMessageSid`, that cannot be the field:
    /// the value is all there is to it, and a landmark separates the two names in signed order.
    fn is_compound(&self, field: usize, at: usize) -> bool {
        let (index, field) = (field, name_of(field));
        let containing = self.entries().take_while(|(start, ..)| *start <= at).last();
        let Some((start, name, value)) = containing else { return false };
        let is_end = name.len() > field.len()
            && name.ends_with(field)
            && at == start + name.len() - field.len();
        if !is_end {
            return false;
        }
        if name == "SmsMessageSid" || self.signed.knows(name) {
            return true;
        }
        let whole = match index {
            FROM | TO => shapes::address(value).is_some(),
            _ => shape_bytes(index, value) == Some(value.len()),
        };
        whole
            && LANDMARKS.iter().any(|landmark| {
                let between = (field < *landmark && *landmark < name)
                    || (name < *landmark && *landmark < field);
                between && self.has(landmark)
            })
    }

    /// Whether `To` and bare digits are part of a word such as `HowTo101`. Twilio's `To` comes after a status or a SID.
    fn is_word(&self, field: usize, at: usize) -> bool {
        let is_bare = self.text.as_bytes().get(at + 2).is_some_and(u8::is_ascii_digit);
        if field != TO || !is_bare {
            return false;
        }
        let before = self.text.get(..at).unwrap_or_default();
        let sid = before.as_bytes().last_chunk::<32>();
        let is_sid = sid.is_some_and(|sid| sid.iter().all(u8::is_ascii_hexdigit));
        let is_status = STATUSES.iter().any(|status| before.ends_with(status));
        !is_sid && !is_status && !before.ends_with(|c: char| c.is_ascii_digit())
    }

    /// Refuses a second place of a field if it fits between the places of its neighbours.
    fn check_places(&self, found: &Found, from: Option<&str>) -> Result<(), Misshape> {
        if found.others.is_empty() {
            return Ok(());
        }
        let mut chain = vec![ACCOUNT_SID];
        if from.is_some() {
            chain.push(FROM);
        }
        chain.push(MESSAGE_SID);
        if self.class == Class::Status {
            chain.push(MESSAGE_STATUS);
        }
        chain.push(TO);
        for (field, at) in &found.others {
            if self.is_idle(found, *field, *at) {
                continue;
            }
            // The first places that the fields before can have, one after the other, and the last of those after.
            let mut before = chain.iter().filter(|other| **other < *field);
            let earliest = before.try_fold(0, |end, other| {
                found.places(*other).filter(|place| *place >= end).min().map(|place| place + 1)
            });
            let mut after = chain.iter().rev().filter(|other| **other > *field);
            let latest = after.try_fold(usize::MAX, |end, other| {
                found.places(*other).filter(|place| *place < end).max()
            });
            let fits = earliest.is_some_and(|earliest| *at >= earliest)
                && latest.is_some_and(|latest| *at < latest);
            if fits {
                return Err(Misshape::Ambiguous(name_of(*field)));
            }
        }
        Ok(())
    }

    /// Whether nothing is decided by the field at this place: an inbound message that has no error code may speak of
    /// one. A parameter that begins with the field's name is a cut all the same.
    fn is_idle(&self, found: &Found, field: usize, at: usize) -> bool {
        field == ERROR_CODE
            && self.class == Class::Inbound
            && found.own.get(ERROR_CODE).copied().flatten().is_none()
            && !self.starts.contains(&at)
    }

    /// Refuses a GET whose query was moved into a form. Where the route accepts no GET, Twilio should never have
    /// signed one for this URL, and one pair alone may be what somebody wrote.
    fn check_get(&self, found: &Found, accepts_get: bool) -> Result<(), Misshape> {
        let whole = found.account_pair && self.text.contains("From=") && self.text.contains("To=");
        match found.message_pair && (accepts_get || whole) {
            true => Err(Misshape::Ambiguous("method")),
            false => Ok(()),
        }
    }

    /// Refuses a name that is the beginning of a field's name and whose value begins with the rest, such as
    /// `F`=`rom+1415..`: the field was hidden.
    fn check_names(&self) -> Result<(), Misshape> {
        for (start, name, _) in self.entries() {
            let first = name.as_bytes().first();
            let hidden = FIELDS.iter().chain(&["Body", "ButtonPayload"]).find(|field| {
                field.as_bytes().first() == first
                    && name.len() < field.len()
                    && field.starts_with(name)
                    && self.text.get(start..).is_some_and(|text| text.starts_with(*field))
            });
            if let Some(field) = hidden {
                return Err(Misshape::Ambiguous(field));
            }
        }
        Ok(())
    }

    /// Refuses an error code without the URL that failed. Twilio sends both to a fallback URL, and an inbound message
    /// has an error code nowhere else (twilio.com/docs/messaging/guides/webhook-request).
    fn check_error_code(&self) -> Result<(), Misshape> {
        let has_code = self.entry("ErrorCode").is_some_and(|(_, code)| !code.is_empty());
        match has_code && !self.is_fallback() {
            true => Err(Misshape::Contradictory("ErrorCode")),
            false => Ok(()),
        }
    }

    /// Refuses an address whose end is not certain.
    fn check_addresses(&self, from: Option<&str>, to: &str) -> Result<(), Misshape> {
        if let Some(from) = from
            && let Some((start, _)) = self.entry("From")
        {
            self.check_end(start, from, "From", &AFTER_SENDER)?;
            if self.class == Class::Inbound && shapes::split_address(from).0 == "sms" {
                self.check_sms_sender(start, from)?;
            }
        }
        match self.entry("To") {
            Some((start, _)) => self.check_end(start, to, "To", &AFTER_RECIPIENT),
            None => Ok(()),
        }
    }

    /// A number ends where its digits end. Any other address must not hold the name of a parameter, and a parameter
    /// that is known must follow it: an unknown one could be its end.
    fn check_end(
        &self,
        start: usize,
        address: &str,
        field: &'static str,
        followers: &[&str],
    ) -> Result<(), Misshape> {
        if shapes::address(address) == Some(Address::Number) {
            return Ok(());
        }
        let followers = || followers.iter().chain(&AFTER_SMS_SENDER);
        if followers().any(|name| address.contains(name)) || address.contains("From") {
            return Err(Misshape::Ambiguous(field));
        }
        match self.next_name(start) {
            None => Ok(()),
            Some(next) if followers().any(|name| *name == next) || self.signed.knows(next) => {
                Ok(())
            }
            Some(_) => Err(Misshape::Unknown(field)),
        }
    }

    /// The text sender of a captured SMS has no shape to be found by. But only the body of an SMS is its writer's,
    /// and it stands before the sender, so the captured sender would stand between this one and `MessageSid`.
    fn check_sms_sender(&self, start: usize, from: &str) -> Result<(), Misshape> {
        let text_sender = shapes::address(from) == Some(Address::Text);
        let mut places = 0;
        for (at, name, value) in self.entries().filter(|(at, ..)| *at > start) {
            if name == "MessageSid" {
                break;
            }
            let is_place = matches!(name, "FromCity" | "FromCountry" | "FromState" | "FromZip");
            places += usize::from(is_place);
            let rest = name.strip_prefix("From").filter(|_| !is_place && !self.signed.knows(name));
            let as_sender = rest.is_some_and(|rest| {
                rest.chars().chain(value.chars()).count() <= MAX_SENDER_CHARACTERS
            });
            let end = self.text.len().min(at + name.len() + value.len() + 3);
            let within = self.text.as_bytes().get(at + 1..end).unwrap_or_default();
            let straddles = within.windows(4).any(|four| four == b"From");
            if as_sender || straddles {
                return Err(Misshape::Ambiguous("From"));
            }
            if text_sender && name == "MediaUrl0" && !value.starts_with("http") {
                return Err(Misshape::Ambiguous("From"));
            }
        }
        // The name `FromZip` is no sender `Zip`, if a sender may stand before it.
        let is_place = ["City", "Country", "State", "Zip"].iter().any(|it| from.starts_with(it));
        let before = self.text.get(..start).unwrap_or_default();
        if text_sender && is_place && before.contains("From") {
            return Err(Misshape::Ambiguous("From"));
        }
        // Twilio sends all four or none, so the end of a text sender cannot pass for one of them.
        match text_sender && !matches!(places, 0 | 4) {
            true => Err(Misshape::Ambiguous("From")),
            false => Ok(()),
        }
    }

    /// Refuses a body whose beginning or end is not certain, as far as that decides whether it is an opt-out.
    fn check_body(&self) -> Result<(), Misshape> {
        let sender = self.entry("From").map_or(self.text.len(), |(start, _)| start);
        let version = self.entry("ApiVersion").map(|(start, value)| (start, "ApiVersion", value));
        let account =
            || self.entry("AccountSid").map(|(start, value)| (start, "AccountSid", value));
        let Some((start, name, value)) = version.or_else(account) else { return Ok(()) };
        let pinned = start + name.len() + value.len();
        let before_sender = self.text.get(pinned..sender).unwrap_or_default();
        let Some((body_start, body)) = self.entry("Body") else {
            return match before_sender.contains("Body") {
                true => Err(Misshape::Ambiguous("Body")),
                false => Ok(()),
            };
        };
        // What stands between is not the writer's, unless there is no version to separate the address from the body.
        let mut mentions = before_sender.match_indices("Body").map(|(at, _)| pinned + at);
        let first = mentions.next() == Some(body_start);
        let free = version.is_none() && (self.has("Address") || self.has("AddOns"));
        if !first || (free && mentions.next().is_some()) {
            return Err(Misshape::Ambiguous("Body"));
        }
        if swallows(body) {
            return Err(Misshape::Ambiguous("Body"));
        }
        let Some(next) = self.next_name(body_start) else { return Ok(()) };
        if next == "From" || self.signed.knows(next) || !is_opt_word(body) {
            return Ok(());
        }
        self.check_after_opt_word(body, next, before_sender)
    }

    /// Refuses an opt-out that may be the beginning of a longer text. What follows it must be the sender, or a
    /// parameter whose value has a shape of its own and whose channel fits.
    fn check_after_opt_word(&self, body: &str, next: &str, region: &str) -> Result<(), Misshape> {
        let Some((name, _)) = AFTER_BODY.iter().find(|(name, _)| *name == next) else {
            return Err(Misshape::Unknown("Body"));
        };
        let value = self.entry(name).map(|(_, value)| value).unwrap_or_default();
        let from = self.entry("From").map(|(_, from)| from).unwrap_or_default();
        let (channel, _) = shapes::split_address(from);
        let fits = match *name {
            "ErrorCode" => self.is_fallback(),
            "ExternalUserId" | "Forwarded" | "FrequentlyForwarded" => channel == "whatsapp",
            "ChannelMetadata" => channel != "sms" && value.starts_with('{') && value.ends_with('}'),
            "ChannelPrefix" => channel != "sms" && shapes::is_word(value),
            "ChannelInstallSid" => channel != "sms" && sid_bytes(value, "XE") == Some(value.len()),
            "ButtonPayload" | "ButtonText" => {
                let text = self.entry("ButtonText").map(|(_, text)| text.trim());
                // Without a value, the name is all that was cut off the body.
                !value.is_empty() && channel != "sms" && text.is_none_or(|text| text == body.trim())
            }
            _ => false,
        };
        let quoted = |at: usize| region.get(..at).is_some_and(|before| before.ends_with('"'));
        let mentions = region.match_indices(name).filter(|(at, _)| !quoted(*at)).count();
        match fits && mentions == 1 {
            true => Ok(()),
            false => Err(Misshape::Contradictory("Body")),
        }
    }

    /// Whether an error came with the URL that failed, as Twilio sends them to a fallback URL.
    fn is_fallback(&self) -> bool {
        self.entry("ErrorUrl").is_some_and(|(_, url)| {
            let is_url = url.starts_with("https://") || url.starts_with("http://");
            is_url && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"".contains(&byte))
        })
    }

    /// The profile name is its owner's and is signed after `OptOutType`: before it, it is a cut.
    fn check_opt_out_type(&self) -> Result<(), Misshape> {
        let Some((opt_out, _)) = self.entry("OptOutType") else { return Ok(()) };
        let message = self.entry("MessageSid").map_or(0, |(start, _)| start);
        let between = self.text.get(message..opt_out).unwrap_or_default();
        match between.contains("ProfileName") || between.contains("Referral") {
            true => Err(Misshape::Ambiguous("OptOutType")),
            false => Ok(()),
        }
    }

    /// Refuses a payload whose name stands a second time before the sender: the text of the message, or the title of the
    /// button, may hold the name, and then each of the two places can be the payload.
    fn check_button_payload(&self) -> Result<(), Misshape> {
        let Some((start, payload)) = self.entry("ButtonPayload") else { return Ok(()) };
        match self.next_name(start) {
            Some(next)
                if next == "From"
                    || AFTER_BODY.iter().any(|(name, _)| *name == next)
                    || self.signed.knows(next) => {}
            _ => return Err(Misshape::Unknown("ButtonPayload")),
        }
        if payload.contains("ButtonText") {
            return Err(Misshape::Ambiguous("ButtonPayload"));
        }
        let end = self.entry("From").map_or(self.text.len(), |(start, _)| start);
        let before_sender = self.text.get(..end).unwrap_or_default();
        // Twilio repeats the name in the channel's metadata, quoted.
        let quoted = |at: usize| before_sender.get(..at).is_some_and(|text| text.ends_with('"'));
        match before_sender.match_indices("ButtonPayload").any(|(at, _)| at != start && !quoted(at))
        {
            true => Err(Misshape::Ambiguous("ButtonPayload")),
            false => Ok(()),
        }
    }
}

impl Found {
    /// All places of a field.
    fn places(&self, field: usize) -> impl Iterator<Item = usize> {
        let own = self.own.get(field).copied().flatten();
        let others = self.others.iter().filter(move |(other, _)| *other == field);
        own.into_iter().chain(others.map(|(_, at)| *at))
    }
}

/// Whether a body may be an opt-out that took in the parameter behind it: one word of the list, directly followed by
/// the name and the beginning of the value of what Twilio puts there.
fn swallows(body: &str) -> bool {
    let word_ends = body.char_indices().take_while(|(at, _)| *at <= 96).skip(1);
    word_ends.filter(|(_, letter)| matches!(letter, 'B' | 'C' | 'E' | 'F')).any(|(at, _)| {
        let (Some(word), Some(rest)) = (body.get(..at), body.get(at..)) else { return false };
        AFTER_BODY.iter().any(|(name, begins)| {
            rest.strip_prefix(name).is_some_and(|value| {
                let first = value.bytes().next();
                let fits = begins.is_empty()
                    || first.is_some_and(|byte| begins.as_bytes().contains(&byte));
                fits && !word.ends_with(char::is_whitespace) && is_opt_word(word)
            })
        })
    })
}
