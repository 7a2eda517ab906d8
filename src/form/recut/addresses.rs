//! The end of an address in the signed text. A number ends with its digits. Any other sender or recipient must be followed
//! by the name of a parameter that is known to follow.

use super::Cut;
use crate::form::Field;
use crate::form::signed_text::Entry;
use crate::form::value_shapes::{self, Address, MAX_SENDER_CHARACTERS};
use crate::form::webhook::ShapeError;
use twilio_edge_contract::Class;

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

/// Returns whether a text begins with the name of a parameter that may follow a sender.
pub(super) fn may_follow_sender(text: &str) -> bool {
    AFTER_SMS_SENDER.iter().chain(&AFTER_SENDER).any(|name| text.starts_with(name))
}

/// Returns whether a text begins with the name of a parameter that may follow a recipient, or is empty.
pub(super) fn may_follow_recipient(text: &str) -> bool {
    text.is_empty() || AFTER_RECIPIENT.iter().any(|name| text.starts_with(name))
}

impl Cut<'_> {
    /// Refuses an address whose end is not certain.
    pub(super) fn check_addresses(&self, from: Option<&str>, to: &str) -> Result<(), ShapeError> {
        if let Some(from) = from
            && let Some(start) = self.start(Field::From)
        {
            self.check_end(start, from, "From", &AFTER_SENDER)?;
            match self.class {
                Class::Inbound if value_shapes::split_address(from).0 == "sms" => {
                    self.check_sms_sender(start, from)?;
                }
                Class::Status => self.check_status_sender(start, from)?,
                Class::Inbound | Class::Other => {}
            }
        }
        match self.start(Field::To) {
            Some(start) => self.check_end(start, to, "To", &AFTER_RECIPIENT),
            None => Ok(()),
        }
    }

    /// Checks the end of an address. A number ends where its digits end. Any other address must not contain the name of a
    /// parameter, and a known parameter must follow it: an unknown one could be its end.
    fn check_end(
        &self,
        start: usize,
        address: &str,
        field: &'static str,
        followers: &[&str],
    ) -> Result<(), ShapeError> {
        if value_shapes::address(address) == Some(Address::Number) {
            return Ok(());
        }
        let followers = || followers.iter().chain(&AFTER_SMS_SENDER);
        if followers().any(|name| address.contains(name)) || address.contains("From") {
            return Err(ShapeError::Ambiguous(field));
        }
        match self.next(start).map(|next| next.name) {
            None => Ok(()),
            Some(next) if followers().any(|name| *name == next) || self.signed.knows(next) => {
                Ok(())
            }
            Some(_) => Err(ShapeError::Unknown(field)),
        }
    }

    /// Refuses a text sender behind a message of a channel. Only an SMS has a text sender, and a status of an SMS has no
    /// `ChannelStatusMessage` (twilio.com/docs/messaging/guides/track-outbound-message-status). So the sender was cut out of
    /// that text. A forger can divide the name of the parameter (`Channe`=`lStatusMessage..`), but the signed text still
    /// contains the whole name.
    fn check_status_sender(&self, start: usize, from: &str) -> Result<(), ShapeError> {
        let is_text = value_shapes::address(from) == Some(Address::Text);
        let before = self.text().get(..start).unwrap_or_default();
        match is_text && before.contains("ChannelStatusMessage") {
            true => Err(ShapeError::Ambiguous("From")),
            false => Ok(()),
        }
    }

    /// Checks a text sender, whose place cannot be found by its shape. Only the body of an SMS is chosen by its author, and
    /// it comes before the sender, so a captured sender would be between this one and `MessageSid`.
    fn check_sms_sender(&self, start: usize, from: &str) -> Result<(), ShapeError> {
        let text_sender = value_shapes::address(from) == Some(Address::Text);
        let mut places = 0;
        for entry in self.entries().iter().filter(|entry| entry.start > start) {
            let Entry { start: at, name, value, field } = *entry;
            let is_place = match field {
                Some(Field::MessageSid) => break,
                Some(Field::FromCity | Field::FromCountry | Field::FromState | Field::FromZip) => {
                    true
                }
                _ => false,
            };
            places += usize::from(is_place);
            let rest = name.strip_prefix("From").filter(|_| !is_place && !self.signed.knows(name));
            let as_sender = rest.is_some_and(|rest| {
                rest.chars().chain(value.chars()).count() <= MAX_SENDER_CHARACTERS
            });
            let end = self.text().len().min(at + name.len() + value.len() + 3);
            let within = self.text().as_bytes().get(at + 1..end).unwrap_or_default();
            let straddles = within.windows(4).any(|four| four == b"From");
            if as_sender || straddles {
                return Err(ShapeError::Ambiguous("From"));
            }
            if text_sender && name == "MediaUrl0" && !value.starts_with("http") {
                return Err(ShapeError::Ambiguous("From"));
            }
        }
        // The name `FromZip` is not a sender `Zip`, if a sender may be before it.
        let is_place = ["City", "Country", "State", "Zip"].iter().any(|it| from.starts_with(it));
        let before = self.text().get(..start).unwrap_or_default();
        if text_sender && is_place && before.contains("From") {
            return Err(ShapeError::Ambiguous("From"));
        }
        // Twilio sends all four or none, so the end of a text sender cannot imitate one of them.
        match text_sender && !matches!(places, 0 | 4) {
            true => Err(ShapeError::Ambiguous("From")),
            false => Ok(()),
        }
    }
}
