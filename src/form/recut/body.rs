//! The end of the texts of an inbound message that have no shape, as far as it decides whether the message is an opt-out:
//! its body, the type of its opt-out, and the payload of its button.

use super::Cut;
use crate::form::Field;
use crate::form::byte_search;
use crate::form::keywords::is_opt_keyword;
use crate::form::signed_text::Entry;
use crate::form::value_shapes::{self, sid_bytes};
use crate::form::webhook::ShapeError;

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

/// Message types that are no answer to a button. Twilio may add types, so an unknown one is no contradiction.
const NOT_A_BUTTON: [&str; 9] =
    ["audio", "contacts", "document", "image", "location", "reaction", "sticker", "text", "video"];

impl Cut<'_> {
    /// Refuses an error code without the URL that failed. Twilio sends both to a fallback URL, and an inbound message
    /// has an error code nowhere else (twilio.com/docs/messaging/guides/webhook-request).
    pub(super) fn check_error_code(&self) -> Result<(), ShapeError> {
        let has_code = self.value(Field::ErrorCode).is_some_and(|code| !code.is_empty());
        match has_code && !self.is_fallback() {
            true => Err(ShapeError::Contradictory("ErrorCode")),
            false => Ok(()),
        }
    }

    /// Refuses a body whose beginning or end is not certain, as far as that decides whether it is an opt-out.
    pub(super) fn check_body(&self) -> Result<(), ShapeError> {
        let sender = self.start(Field::From).unwrap_or(self.text().len());
        let version = self.entry(Field::ApiVersion);
        let Some(entry) = version.or_else(|| self.entry(Field::AccountSid)) else { return Ok(()) };
        let pinned = entry.start + entry.name.len() + entry.value.len();
        let before_sender = self.text().get(pinned..sender).unwrap_or_default();
        let Some(Entry { start: body_start, value: body, .. }) = self.entry(Field::Body).copied()
        else {
            return match before_sender.contains("Body") {
                true => Err(ShapeError::Ambiguous("Body")),
                false => Ok(()),
            };
        };
        // The text between them is not the author's, unless there is no version to separate the address from the body.
        let [first, second] = byte_search::find(before_sender, "Body");
        let first = first.map(|at| pinned + at) == Some(body_start);
        let free = version.is_none()
            && [Field::Address, Field::AddOns].iter().any(|field| self.entry(*field).is_some());
        if !first || (free && second.is_some()) {
            return Err(ShapeError::Ambiguous("Body"));
        }
        if swallows(body) {
            return Err(ShapeError::Ambiguous("Body"));
        }
        let Some(next) = self.next(body_start).map(|next| next.name) else { return Ok(()) };
        if next == "From" || self.signed.knows(next) || !is_opt_keyword(body) {
            return Ok(());
        }
        self.check_after_opt_keyword(body, next, before_sender)
    }

    /// Refuses an opt-out that may be the beginning of a longer text. It must be followed by the sender, or by a parameter
    /// whose value has a shape of its own and whose channel fits.
    fn check_after_opt_keyword(
        &self,
        body: &str,
        next: &str,
        region: &str,
    ) -> Result<(), ShapeError> {
        let Some((name, _)) = AFTER_BODY.iter().find(|(name, _)| *name == next) else {
            return Err(ShapeError::Unknown("Body"));
        };
        let entry = self.entries().iter().find(|entry| entry.name == *name);
        let value = entry.map(|entry| entry.value).unwrap_or_default();
        let from = self.value(Field::From).unwrap_or_default();
        let (channel, _) = value_shapes::split_address(from);
        let fits = match *name {
            "ErrorCode" => self.is_fallback(),
            "ExternalUserId" | "Forwarded" | "FrequentlyForwarded" => channel == "whatsapp",
            "ChannelMetadata" => channel != "sms" && value.starts_with('{') && value.ends_with('}'),
            "ChannelPrefix" => channel != "sms" && value_shapes::is_word(value),
            "ChannelInstallSid" => channel != "sms" && sid_bytes(value, "XE") == Some(value.len()),
            "ButtonPayload" | "ButtonText" => {
                let text = self.value(Field::ButtonText).map(str::trim);
                // Without a value, the name alone was cut off from the body.
                !value.is_empty() && channel != "sms" && text.is_none_or(|text| text == body.trim())
            }
            _ => false,
        };
        let quoted = |at: usize| region.get(..at).is_some_and(|before| before.ends_with('"'));
        let mentions = region.match_indices(name).filter(|(at, _)| !quoted(*at)).count();
        match fits && mentions == 1 {
            true => Ok(()),
            false => Err(ShapeError::Contradictory("Body")),
        }
    }

    /// Reports whether an error came with the URL that failed, as Twilio sends them to a fallback URL.
    fn is_fallback(&self) -> bool {
        self.value(Field::ErrorUrl).is_some_and(|url| {
            let is_url = url.starts_with("https://") || url.starts_with("http://");
            is_url && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"".contains(&byte))
        })
    }

    /// Checks `OptOutType`. The profile name is chosen by its owner and is signed after `OptOutType`: a profile name before
    /// it is a cut.
    pub(super) fn check_opt_out_type(&self) -> Result<(), ShapeError> {
        let Some(opt_out) = self.start(Field::OptOutType) else { return Ok(()) };
        let message = self.start(Field::MessageSid).unwrap_or_default();
        let between = self.text().get(message..opt_out).unwrap_or_default();
        match between.contains("ProfileName") || between.contains("Referral") {
            true => Err(ShapeError::Ambiguous("OptOutType")),
            false => Ok(()),
        }
    }

    /// Refuses the fields of a button in a message of another type. Twilio itself sets the type. A cut can hide its
    /// parameter (`MessageTy`=`petext`), but cannot remove its name from the text.
    pub(super) fn check_button_type(&self) -> Result<(), ShapeError> {
        let is_filled = |field| self.value(field).is_some_and(|value| !value.is_empty());
        if !is_filled(Field::ButtonPayload) && !is_filled(Field::ButtonText) {
            return Ok(());
        }
        let contradicts = match self.value(Field::MessageType) {
            Some(kind) => {
                NOT_A_BUTTON.iter().any(|no| no.starts_with(kind) || kind.starts_with(no))
            }
            None => {
                let message = self.start(Field::MessageSid).unwrap_or_default();
                self.text().get(message..).is_some_and(|rest| rest.contains("MessageType"))
            }
        };
        match contradicts {
            true => Err(ShapeError::Contradictory("ButtonPayload")),
            false => Ok(()),
        }
    }

    /// Refuses a payload whose name occurs a second time before the sender: the text of the message, or the title of the
    /// button, may contain the name, and then each of the two places can be the payload.
    pub(super) fn check_button_payload(&self) -> Result<(), ShapeError> {
        let Some(Entry { start, value: payload, .. }) = self.entry(Field::ButtonPayload).copied()
        else {
            return Ok(());
        };
        match self.next(start).map(|next| next.name) {
            Some(next)
                if next == "From"
                    || AFTER_BODY.iter().any(|(name, _)| *name == next)
                    || self.signed.knows(next) => {}
            _ => return Err(ShapeError::Unknown("ButtonPayload")),
        }
        if payload.contains("ButtonText") {
            return Err(ShapeError::Ambiguous("ButtonPayload"));
        }
        let end = self.start(Field::From).unwrap_or(self.text().len());
        let before_sender = self.text().get(..end).unwrap_or_default();
        // Twilio repeats the name in the channel's metadata, quoted.
        let quoted = |at: usize| before_sender.get(..at).is_some_and(|text| text.ends_with('"'));
        match before_sender.match_indices("ButtonPayload").any(|(at, _)| at != start && !quoted(at))
        {
            true => Err(ShapeError::Ambiguous("ButtonPayload")),
            false => Ok(()),
        }
    }
}

/// Reports whether a body may be an opt-out that includes the parameter behind it: one keyword, directly followed by the
/// name and the beginning of the value of a parameter that Twilio puts there.
fn swallows(body: &str) -> bool {
    let word_ends = body.char_indices().take_while(|(at, _)| *at <= 96).skip(1);
    word_ends.filter(|(_, letter)| matches!(letter, 'B' | 'C' | 'E' | 'F')).any(|(at, _)| {
        let (Some(word), Some(rest)) = (body.get(..at), body.get(at..)) else { return false };
        AFTER_BODY.iter().any(|(name, begins)| {
            rest.strip_prefix(name).is_some_and(|value| {
                let first = value.bytes().next();
                let fits = begins.is_empty()
                    || first.is_some_and(|byte| begins.as_bytes().contains(&byte));
                fits && !word.ends_with(char::is_whitespace) && is_opt_keyword(word)
            })
        })
    })
}
