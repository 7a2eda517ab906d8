//! Detection of signed parameters that can be cut in another way with another meaning.
//!
//! Twilio signs the URL and then every name and value, sorted, without separators. The author of a message chooses a part
//! of that text, and anyone who sees its signature can send the same text cut differently. This module searches the text
//! for the *places* of each field of identity or effect: its name, directly followed by a value of its shape, and then by
//! something that can be the next name. The webhook that Twilio sent has each of its fields at such a place. A field whose
//! only place is its own has the same value in every other cut. If there is a second place that fits between the others,
//! the request is refused, forged or not. docs/SIGNATURES.md describes the rules in full.
//!
//! One pass over the text finds all places. It allocates only the text itself and the starts of its parameters.

mod addresses;
mod body;
mod scan;

use twilio_edge_contract::Class;

use self::scan::{
    ACCOUNT_SID, ERROR_CODE, FIELDS, FROM, Hit, MESSAGE_SID, MESSAGE_STATUS, TO, name_of, scan,
    shape_bytes,
};
use super::Parameter;
use super::value_shapes::{self, is_parameter_name};
use super::webhook::{ShapeError, SignedParameters};

/// Number of places beside the fields' own at which the search ends: no message has that many by accident.
const MAX_OTHER_PLACES: usize = 64;

/// Parameters that are in every webhook of a message. If one of them is between two names, the first cannot have been at
/// the place of the second.
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

/// Refuses parameters that can be cut in another way.
pub(super) fn check(
    class: Class,
    signed: &SignedParameters<'_>,
    from: Option<&str>,
    to: &str,
) -> Result<(), ShapeError> {
    let names = signed.form.iter().map(|(name, _)| name);
    if signed.in_query {
        return check_query(signed.target);
    }
    if names.into_iter().any(|name| !is_parameter_name(name) && !signed.knows(name)) {
        return Err(ShapeError::MalformedName);
    }
    let parameters = signed.form.canonical();
    let cut = Cut::new(class, signed, &parameters);
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
        cut.check_button_type()?;
    }
    Ok(())
}

/// Checks the query of a target. The separators of a query are signed, so only a posted form that was moved into the URL
/// has a name directly before its value.
fn check_query(target: &str) -> Result<(), ShapeError> {
    let mut place = None;
    scan(target, |hit, _| {
        // Every form of a message has these two, and no author of a message writes them this way.
        if let Hit::Place(field @ (ACCOUNT_SID | MESSAGE_SID)) = hit {
            place = Some(field);
        }
        place.is_none()
    });
    place.map_or(Ok(()), |field| Err(ShapeError::Ambiguous(name_of(field))))
}

impl SignedParameters<'_> {
    fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }
}

/// The signed text, and the positions at which the request cuts it.
struct Cut<'a> {
    class: Class,
    signed: &'a SignedParameters<'a>,
    parameters: &'a [&'a Parameter<'a>],
    /// The target, then names and values concatenated.
    text: String,
    /// Position in the text at which each parameter begins.
    starts: Vec<usize>,
}

/// Result of the search for places.
#[derive(Default)]
struct Found {
    /// Positions of the fields that the request has.
    own: [Option<usize>; FIELDS.len()],
    /// Places that are not a field's own: field and position.
    others: Vec<(usize, usize)>,
    /// True if the text has a pair as in a query, `AccountSid=AC..` and `MessageSid=SM..`.
    account_pair: bool,
    message_pair: bool,
}

impl<'a> Cut<'a> {
    fn new(
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

    /// Returns the name that follows the parameter which begins at `start`.
    fn next_name(&self, start: usize) -> Option<&'a str> {
        self.entries().find(|(at, ..)| *at > start).map(|(_, name, _)| name)
    }

    fn search(&self) -> Result<Found, ShapeError> {
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
                    // The value was cut off from its name.
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
            Some(field) => Err(ShapeError::Ambiguous(name_of(field))),
            None => Ok(found),
        }
    }

    /// Reports whether the place is the end of a longer name, such as `OriginalRepliedMessageSid`, that cannot be the field:
    /// the value is the whole value of that name, and a landmark separates the two names in signed order.
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
            FROM | TO => value_shapes::address(value).is_some(),
            _ => shape_bytes(index, value) == Some(value.len()),
        };
        whole
            && LANDMARKS.iter().any(|landmark| {
                let between = (field < *landmark && *landmark < name)
                    || (name < *landmark && *landmark < field);
                between && self.has(landmark)
            })
    }

    /// Reports whether `To` and bare digits are part of a word such as `HowTo101`. Twilio's `To` follows a status or a SID.
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
    fn check_places(&self, found: &Found, from: Option<&str>) -> Result<(), ShapeError> {
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
            // The earliest places of the preceding fields, one after the other, and the latest places of the following
            // fields.
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
                return Err(ShapeError::Ambiguous(name_of(*field)));
            }
        }
        Ok(())
    }

    /// Reports whether the field at this place has no effect: an inbound message without an error code may mention one in
    /// its text. A parameter that begins with the field's name is a cut all the same.
    fn is_idle(&self, found: &Found, field: usize, at: usize) -> bool {
        field == ERROR_CODE
            && self.class == Class::Inbound
            && found.own.get(ERROR_CODE).copied().flatten().is_none()
            && !self.starts.contains(&at)
    }

    /// Refuses a GET whose query was moved into a form. If the route accepts no GET, Twilio should never have signed one for
    /// this URL, and a single pair may be text that the author of a message wrote.
    fn check_get(&self, found: &Found, accepts_get: bool) -> Result<(), ShapeError> {
        let whole = found.account_pair && self.text.contains("From=") && self.text.contains("To=");
        match found.message_pair && (accepts_get || whole) {
            true => Err(ShapeError::Ambiguous("method")),
            false => Ok(()),
        }
    }

    /// Refuses a name that is the beginning of a field's name and whose value begins with the rest, such as
    /// `F`=`rom+1415..`: the field was hidden.
    fn check_names(&self) -> Result<(), ShapeError> {
        for (start, name, _) in self.entries() {
            let Some(first) = name.bytes().next() else { continue };
            let hidden = hideable(first).iter().find(|field| {
                name.len() < field.len()
                    && field.starts_with(name)
                    && self.text.get(start..).is_some_and(|text| text.starts_with(*field))
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

impl Found {
    /// Iterates over all places of a field.
    fn places(&self, field: usize) -> impl Iterator<Item = usize> {
        let own = self.own.get(field).copied().flatten();
        let others = self.others.iter().filter(move |(other, _)| *other == field);
        own.into_iter().chain(others.map(|(_, at)| *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_hidden_by_its_initial() {
        for field in FIELDS.iter().chain(&["Body", "ButtonPayload"]) {
            let initial = field.bytes().next().unwrap();
            assert!(hideable(initial).contains(field), "{field}");
        }
        let hideable = (0..=255).map(|initial| hideable(initial).len()).sum::<usize>();
        assert_eq!(hideable, FIELDS.len() + 2);
    }
}
