//! Detection of signed parameters that can be cut in another way with another meaning.
//!
//! Twilio signs the URL and then every name and value, sorted, without separators. The author of a message chooses a part
//! of that text, and anyone who sees its signature can send the same text cut differently. This module searches the text
//! for the *places* of each field of identity or effect: its name, directly followed by a value of its shape, and then by
//! something that can be the next name. The webhook that Twilio sent has each of its fields at such a place. A field whose
//! only place is its own has the same value in every other cut. If there is a second place that fits between the others,
//! the request is refused, forged or not. docs/SIGNATURES.md describes the rules in full.
//!
//! One pass over the text finds all places.

mod addresses;
mod body;
mod scan;

use twilio_edge_contract::Class;

use self::scan::{Hit, scan, shape_bytes};
use super::signed_text::Entry;
use super::value_shapes::{self, is_parameter_name};
use super::webhook::{ShapeError, SignedParameters};
use super::{Field, SignedText};

/// Number of places beside the fields' own at which the search ends: no message has that many by accident.
const MAX_OTHER_PLACES: usize = 64;

/// Parameters that are in every webhook of a message. If one of them is between two names, the first cannot have been at
/// the place of the second.
const LANDMARKS: [Field; 9] = [
    Field::ApiVersion,
    Field::From,
    Field::MessageSid,
    Field::NumMedia,
    Field::NumSegments,
    Field::SmsMessageSid,
    Field::SmsSid,
    Field::SmsStatus,
    Field::To,
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

/// Refuses parameters that can be cut in another way.
pub(super) fn check(
    class: Class,
    signed: &SignedParameters<'_>,
    from: Option<&str>,
    to: &str,
) -> Result<(), ShapeError> {
    if signed.in_query {
        return check_query(signed.target);
    }
    match signed.text {
        Some(text) => check_form(&Cut { class, signed, text }, from, to),
        None => {
            let text = SignedText::new(signed.target, Some(signed.form));
            check_form(&Cut { class, signed, text: &text }, from, to)
        }
    }
}

fn check_form(cut: &Cut<'_>, from: Option<&str>, to: &str) -> Result<(), ShapeError> {
    let is_valid = |entry: &Entry<'_>| {
        entry.field.is_some() || is_parameter_name(entry.name) || cut.signed.knows(entry.name)
    };
    if !cut.entries().iter().all(is_valid) {
        return Err(ShapeError::MalformedName);
    }
    let found = cut.search()?;
    cut.check_places(&found, from)?;
    cut.check_get(&found)?;
    cut.check_names()?;
    cut.check_addresses(from, to)?;
    if cut.class == Class::Inbound {
        cut.check_error_code()?;
        cut.check_body()?;
        cut.check_opt_out_type()?;
        cut.check_button_payload()?;
        cut.check_button_type()?;
    }
    Ok(())
}

/// Checks the query of a target. The separators of a query are signed, so only a posted form that was moved into the URL
/// has a name directly before its value.
fn check_query(target: &str) -> Result<(), ShapeError> {
    let mut place = None;
    let visit = |hit, _| {
        // Every form of a message has these two, and no author of a message writes them this way.
        if let Hit::Place(field @ (Field::AccountSid | Field::MessageSid)) = hit {
            place = Some(field);
        }
        place.is_none()
    };
    scan(target, |_, _| false, visit);
    place.map_or(Ok(()), |field| Err(ShapeError::Ambiguous(field.as_str())))
}

impl SignedParameters<'_> {
    fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }
}

/// The signed text, and the positions at which the request cuts it.
#[derive(Clone, Copy)]
struct Cut<'a> {
    class: Class,
    signed: &'a SignedParameters<'a>,
    text: &'a SignedText<'a>,
}

/// Result of the search for places.
#[derive(Default)]
struct Found {
    /// Places that are not a field's own: field and position.
    others: Vec<(Field, usize)>,
    /// True if the text has a pair as in a query, `AccountSid=AC..` and `MessageSid=SM..`.
    account_pair: bool,
    message_pair: bool,
}

impl<'a> Cut<'a> {
    fn text(&self) -> &'a str {
        self.text.as_str()
    }

    fn entries(&self) -> &'a [Entry<'a>] {
        self.text.entries()
    }

    /// Returns a field that Twilio sends once.
    fn entry(&self, field: Field) -> Option<&'a Entry<'a>> {
        self.entries().iter().find(|entry| entry.field == Some(field))
    }

    fn start(&self, field: Field) -> Option<usize> {
        self.entry(field).map(|entry| entry.start)
    }

    fn value(&self, field: Field) -> Option<&'a str> {
        self.entry(field).map(|entry| entry.value)
    }

    /// Returns the parameter that follows the one which begins at `start`.
    fn next(&self, start: usize) -> Option<&'a Entry<'a>> {
        self.entries().iter().find(|entry| entry.start > start)
    }

    fn search(&self) -> Result<Found, ShapeError> {
        let mut found = Found::default();
        let mut excess = None;
        let mut entries = self.entries().iter().peekable();
        // The place of a field that the request itself has there. It matters only if the value was cut off from the name.
        let is_own = |field, at| {
            while entries.next_if(|entry| entry.start < at).is_some() {}
            entries.peek().is_some_and(|entry| {
                entry.start == at
                    && entry.field == Some(field)
                    && !(entry.value.is_empty() || entry.value.starts_with('='))
            })
        };
        let visit = |hit, at| {
            match hit {
                Hit::Pair(Field::AccountSid) => found.account_pair = true,
                Hit::Pair(_) => found.message_pair = true,
                Hit::Place(field) => {
                    let own = self.entry(field).filter(|entry| entry.start == at);
                    if own.is_some_and(|entry| entry.value.is_empty()) {
                        excess = Some(field);
                    }
                    if own.is_none() && !self.is_compound(field, at) && !self.is_word(field, at) {
                        found.others.push((field, at));
                    }
                    if found.others.len() > MAX_OTHER_PLACES {
                        excess = Some(field);
                    }
                }
            }
            excess.is_none()
        };
        scan(self.text(), is_own, visit);
        match excess {
            Some(field) => Err(ShapeError::Ambiguous(field.as_str())),
            None => Ok(found),
        }
    }

    /// Reports whether the place is the end of a longer name, such as `OriginalRepliedMessageSid`, that cannot be the field:
    /// the value is the whole value of that name, and a landmark separates the two names in signed order.
    fn is_compound(&self, field: Field, at: usize) -> bool {
        let containing = self.entries().iter().take_while(|entry| entry.start <= at).last();
        let Some(Entry { start, name, value, .. }) = containing.copied() else { return false };
        let wanted = field.as_str();
        let is_end = name.len() > wanted.len()
            && name.ends_with(wanted)
            && at == start + name.len() - wanted.len();
        if !is_end {
            return false;
        }
        if name == Field::SmsMessageSid.as_str() || self.signed.knows(name) {
            return true;
        }
        let whole = match field {
            Field::From | Field::To => value_shapes::address(value).is_some(),
            _ => shape_bytes(field, value) == Some(value.len()),
        };
        whole
            && LANDMARKS.iter().any(|landmark| {
                let between = landmark.as_str();
                let is_between =
                    (wanted < between && between < name) || (name < between && between < wanted);
                is_between && self.entry(*landmark).is_some()
            })
    }

    /// Reports whether `To` and bare digits are part of a word such as `HowTo101`. Twilio's `To` follows a status or a SID.
    fn is_word(&self, field: Field, at: usize) -> bool {
        let is_bare = self.text().as_bytes().get(at + 2).is_some_and(u8::is_ascii_digit);
        if field != Field::To || !is_bare {
            return false;
        }
        let before = self.text().get(..at).unwrap_or_default();
        let sid = before.as_bytes().last_chunk::<32>();
        let is_sid = sid.is_some_and(|sid| sid.iter().all(u8::is_ascii_hexdigit));
        let is_status = STATUSES.iter().any(|status| before.ends_with(status));
        !is_sid && !is_status && !before.ends_with(|c: char| c.is_ascii_digit())
    }

    /// Iterates over all places of a field.
    fn places<'f>(&self, found: &'f Found, field: Field) -> impl Iterator<Item = usize> + use<'f> {
        let others = found.others.iter().filter(move |(other, _)| *other == field);
        self.start(field).into_iter().chain(others.map(|(_, at)| *at))
    }

    /// Refuses a second place of a field if it fits between the places of its neighbours.
    fn check_places(&self, found: &Found, from: Option<&str>) -> Result<(), ShapeError> {
        if found.others.is_empty() {
            return Ok(());
        }
        let chain = [
            Some(Field::AccountSid),
            from.map(|_| Field::From),
            Some(Field::MessageSid),
            (self.class == Class::Status).then_some(Field::MessageStatus),
            Some(Field::To),
        ];
        for (field, at) in &found.others {
            if self.is_idle(*field, *at) {
                continue;
            }
            // The earliest places of the preceding fields, one after the other, and the latest places of the following
            // fields.
            let mut before = chain.iter().flatten().filter(|other| **other < *field);
            let earliest = before.try_fold(0, |end, other| {
                let places = self.places(found, *other);
                places.filter(|place| *place >= end).min().map(|place| place + 1)
            });
            let mut after = chain.iter().rev().flatten().filter(|other| **other > *field);
            let latest = after.try_fold(usize::MAX, |end, other| {
                self.places(found, *other).filter(|place| *place < end).max()
            });
            let fits = earliest.is_some_and(|earliest| *at >= earliest)
                && latest.is_some_and(|latest| *at < latest);
            if fits {
                return Err(ShapeError::Ambiguous(field.as_str()));
            }
        }
        Ok(())
    }

    /// Reports whether the field at this place has no effect: an inbound message without an error code may mention one in
    /// its text. A parameter that begins with the field's name is a cut all the same.
    fn is_idle(&self, field: Field, at: usize) -> bool {
        field == Field::ErrorCode
            && self.class == Class::Inbound
            && self.entry(Field::ErrorCode).is_none()
            && !self.entries().iter().any(|entry| entry.start == at)
    }

    /// Refuses a GET whose query was moved into a form. If the route accepts no GET, Twilio should never have signed one for
    /// this URL, and a single pair may be text that the author of a message wrote.
    fn check_get(&self, found: &Found) -> Result<(), ShapeError> {
        let whole =
            found.account_pair && self.text().contains("From=") && self.text().contains("To=");
        match found.message_pair && (self.signed.accepts_get || whole) {
            true => Err(ShapeError::Ambiguous("method")),
            false => Ok(()),
        }
    }

    /// Refuses a name that is the beginning of a field's name and whose value begins with the rest, such as
    /// `F`=`rom+1415..`: the field was hidden.
    fn check_names(&self) -> Result<(), ShapeError> {
        for Entry { start, name, .. } in self.entries() {
            let Some(first) = name.bytes().next() else { continue };
            let hidden = hideable(first).iter().find(|field| {
                name.len() < field.len()
                    && field.starts_with(name)
                    && self.text().get(*start..).is_some_and(|text| text.starts_with(*field))
            });
            if let Some(field) = hidden {
                return Err(ShapeError::Ambiguous(field));
            }
        }
        Ok(())
    }
}

/// Returns the fields with this initial that a cut could hide.
fn hideable(initial: u8) -> &'static [&'static str] {
    match initial {
        b'A' => &["AccountSid", "ApiVersion"],
        b'B' => &["Body", "ButtonPayload"],
        b'E' => &["ErrorCode", "ExternalUserId"],
        b'F' => &["From"],
        b'M' => &["MessageSid", "MessageStatus"],
        b'O' => &["OptOutType"],
        b'S' => &["SmsMessageSid", "SmsSid", "SmsStatus"],
        b'T' => &["To"],
        b'W' => &["WaId"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::scan::FIELDS;
    use super::*;

    #[test]
    fn every_field_can_be_hidden_by_its_initial() {
        for field in FIELDS.iter().map(|field| field.as_str()).chain(["Body", "ButtonPayload"]) {
            let initial = field.bytes().next().unwrap();
            assert!(hideable(initial).contains(&field), "{field}");
        }
        let hideable = (0..=255).map(|initial| hideable(initial).len()).sum::<usize>();
        assert_eq!(hideable, FIELDS.len() + 2);
    }
}
