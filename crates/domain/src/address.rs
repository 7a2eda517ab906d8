//! Addresses of contacts and senders: Twilio's `From` and `To`, split into a channel and a number or id, and the
//! spellings that contacts, operators and applications use. This module knows only the syntax; other modules decide which messages
//! an address may receive.

use std::fmt;

use crate::{
    contact, email,
    email::EmailAddress,
    phone::{self, Region},
};

/// Maximum length of a stored address, in bytes. E.164 has 16; the ids of other channels are well below this.
const MAX_BYTES: usize = 255;

/// One end of a conversation: `whatsapp:+15551234567` is (`whatsapp`, `+15551234567`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Channel in lower case; `sms` when Twilio wrote no prefix.
    pub channel: String,
    /// E.164 on phone channels, a short code, or the channel's own id.
    pub number: String,
}

impl Address {
    /// Parses a `From` or `To`. Returns `None` when it contains no usable address.
    pub fn parse(raw: &str) -> Option<Address> {
        let raw = raw.trim();
        let (channel, number) = raw.split_once(':').unwrap_or(("sms", raw));
        let (channel, number) = (channel.trim().to_ascii_lowercase(), number.trim());
        // Each claim has two addresses, nearly always plain ASCII.
        let has_control = |part: &str| match part.is_ascii() {
            true => part.bytes().fold(false, |found, byte| found | byte.is_ascii_control()),
            false => part.chars().any(char::is_control),
        };
        let fits = |part: &str| (1..=MAX_BYTES).contains(&part.len()) && !has_control(part);
        (fits(&channel) && fits(number)).then(|| Address { channel, number: number.to_owned() })
    }

    /// Parses an address from the API, the command line or a list: `whatsapp:+1 555 123 4567`, or the number alone with
    /// its channel in `channel` (`sms` if that is missing, or `email` for a text with an @). Phone numbers are normalized to
    /// E.164, and addresses of e-mail to lower case; a short code, a WhatsApp user id and the ids of other channels stay
    /// unchanged.
    pub fn given(
        text: &str,
        channel: Option<&str>,
        region: Option<Region>,
    ) -> Result<Address, String> {
        let beside = channel.map(|channel| channel.trim().to_ascii_lowercase());
        let (before, number) = match text.split_once(':') {
            Some((scheme, number)) if scheme.trim().eq_ignore_ascii_case("tel") => (None, number),
            Some((before, number)) => (Some(before.trim().to_ascii_lowercase()), number),
            None if text.contains('@') && beside.is_none() => {
                (Some(email::CHANNEL.to_owned()), text)
            }
            None => (None, text),
        };
        let channel = match (before, beside) {
            (Some(before), Some(beside)) if before != beside => {
                return Err(format!(
                    "the address has the channel {before}, but the field `channel` is {beside}"
                ));
            }
            (before, beside) => before.or(beside).unwrap_or_else(|| "sms".to_owned()),
        };
        let is_channel = (1..=32).contains(&channel.len())
            && channel.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_channel {
            return Err(format!("{channel:?} is not a channel such as sms, whatsapp or messenger"));
        }
        let number = number.trim();
        let is_short_code =
            (3..=8).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = match channel.as_str() {
            "sms" | "mms" if is_short_code => {
                phone::e164(number, region).unwrap_or_else(|_| number.to_owned())
            }
            contact::CHANNEL if contact::is_user_id(number) => number.to_owned(),
            contact::CHANNEL if contact::is_like_user_id(number) => {
                return Err(format!(
                    "{number:?} is not a user id: two capital letters of a country, a dot, letters and digits, as in US.13491208655302741918"
                ));
            }
            "sms" | "mms" | contact::CHANNEL => phone::e164(number, region)?,
            email::CHANNEL => EmailAddress::parse(number)
                .map(|address| address.as_str().to_owned())
                .map_err(|problem| format!("{text:?} is not an address of e-mail: {problem}"))?,
            // RCS agents have names, contacts have numbers.
            "rcs" if !number.starts_with(char::is_alphabetic) => phone::e164(number, region)?,
            _ => number.to_owned(),
        };
        Address::parse(&format!("{channel}:{number}")).ok_or_else(|| {
            format!("{text:?} is not an address: it must have 1 to {MAX_BYTES} bytes and no control characters")
        })
    }

    /// Parses the address of a contact for a suppression or a consent: as [`Address::given`], or as Twilio may have
    /// written it. The contact may have written to us from a number that no numbering plan contains.
    ///
    /// # Errors
    ///
    /// Returns the error of [`Address::given`].
    pub fn recordable(
        text: &str,
        channel: Option<&str>,
        region: Option<Region>,
    ) -> Result<Address, String> {
        // Only one channel has user ids, so they need no prefix.
        let of_id = contact::is_user_id(text.trim()).then_some(contact::CHANNEL);
        let channel = channel.or(of_id);
        let written = |problem| Address::as_twilio_writes(text, channel).ok_or(problem);
        Address::given(text, channel, region).or_else(written)
    }

    /// Parses an address as Twilio may have written it in a webhook: a number in E.164 apart from blanks and
    /// punctuation, also one that the current numbering plan does not contain.
    pub fn as_twilio_writes(text: &str, channel: Option<&str>) -> Option<Address> {
        let address = match text.contains(':') {
            true => Address::parse(text)?,
            false => Address::parse(&format!("{}:{text}", channel.unwrap_or("sms")))?,
        };
        let is_of = |channel: &str| channel.trim().eq_ignore_ascii_case(&address.channel);
        let is_of_phones = matches!(address.channel.as_str(), "sms" | "mms" | "rcs" | "whatsapp");
        let number = phone::as_written(&address.number).filter(|_| is_of_phones)?;
        channel.is_none_or(is_of).then_some(Address { number, ..address })
    }

    /// Parses an address exactly as a webhook may contain it, including senders such as `O'Reilly` or `12`, which
    /// callers cannot create. Use it only for addresses that are then looked up in the database.
    pub fn as_in_webhook(text: &str, channel: Option<&str>) -> Option<Address> {
        let written = Address::as_twilio_writes(text, channel);
        written.or_else(|| match (text.contains(':'), channel) {
            (true, channel) => Address::parse(text)
                .filter(|address| channel.is_none_or(|channel| channel == address.channel)),
            (false, channel) => Address::parse(&format!("{}:{text}", channel.unwrap_or("sms"))),
        })
    }

    /// Returns the address as Twilio writes it: `sms` has no prefix.
    pub fn written(&self) -> String {
        match self.channel.as_str() {
            "sms" => self.number.clone(),
            channel => format!("{channel}:{}", self.number),
        }
    }
}

/// Shows the channel and the last two characters only, or the domain of an e-mail, because a contact's full address must not
/// reach a log.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.channel == email::CHANNEL {
            return write!(f, "{}:{}", self.channel, email::masked(&self.number));
        }
        let skipped = self.number.chars().count().saturating_sub(2);
        let tail: String = self.number.chars().skip(skipped.max(1)).collect();
        write!(f, "{}:..{tail}", self.channel)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_prefix_is_the_channel() {
        for (raw, channel, number) in [
            ("+15551234567", "sms", "+15551234567"),
            ("12345", "sms", "12345"),
            ("whatsapp:+15551234567", "whatsapp", "+15551234567"),
            ("WhatsApp: +15551234567 ", "whatsapp", "+15551234567"),
            ("messenger:108", "messenger", "108"),
            ("rcs:brand_agent", "rcs", "brand_agent"),
        ] {
            let address = Address::parse(raw).unwrap();
            assert_eq!((address.channel.as_str(), address.number.as_str()), (channel, number));
        }
        for raw in ["", "  ", "whatsapp:", ":+1555", "+1\u{0}555", &"9".repeat(256)] {
            assert_eq!(Address::parse(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn address_is_normalized_to_the_form_of_twilio() {
        let us = "US".parse().ok();
        for (text, channel, region, written) in [
            ("+1 (415) 555-2671", None, None, "+14155552671"),
            ("(415) 555-2671", None, us, "+14155552671"),
            ("tel:+1-415-555-2671", None, None, "+14155552671"),
            ("WhatsApp: +1 415 555 2671", None, None, "whatsapp:+14155552671"),
            ("4155552671", Some("whatsapp"), us, "whatsapp:+14155552671"),
            ("12345", None, us, "12345"),
            ("messenger:108", None, us, "messenger:108"),
            ("brand_agent", Some("rcs"), None, "rcs:brand_agent"),
            ("Tel:+1-415-555-2671", None, None, "+14155552671"),
            ("whatsapp:+52 1 55 1234 5678", None, None, "whatsapp:+5215512345678"),
            ("whatsapp:US.31491208655302741900", None, None, "whatsapp:US.31491208655302741900"),
            ("whatsapp:DE.1512345678", None, "DE".parse().ok(), "whatsapp:DE.1512345678"),
            ("DE.1512345678", Some("whatsapp"), None, "whatsapp:DE.1512345678"),
            ("Ava@Example.com", None, None, "email:ava@example.com"),
            ("ava@example.com", Some("email"), None, "email:ava@example.com"),
            ("email: Ava@example.com", None, None, "email:ava@example.com"),
        ] {
            let address = Address::given(text, channel, region).unwrap();
            assert_eq!(address.written(), written, "{text}");
            assert_eq!(Address::parse(written), Some(address.clone()), "as in a webhook");
            assert_eq!(Address::given(written, None, None), Ok(address));
        }
        for (text, channel, problem) in [
            (
                "whatsapp:+14155552671",
                Some("sms"),
                "the address has the channel whatsapp, but the field `channel` is sms",
            ),
            ("whatsapp:12345", None, "write it as +, country code and number"),
            ("what's up:+14155552671", None, "is not a channel"),
            ("whatsapp:us.31491208655302741900", None, "is not a user id"),
            ("whatsapp:US.3149120 8655", None, "is not a user id"),
            ("DE.1512345678", Some("sms"), "it contains letters"),
            ("rcs:+1415555XXXX", None, "it contains letters"),
            ("messenger:", None, "is not an address"),
            ("email:ava", None, "is not an address of e-mail"),
            ("ava@example.com", Some("sms"), "it contains letters"),
            ("messenger:a\u{0}b", None, "is not an address"),
        ] {
            let said = Address::given(text, channel, None).unwrap_err();
            assert!(said.contains(problem), "{said}");
        }
    }

    #[test]
    fn recordable_address_is_as_wide_as_a_webhook() {
        for (text, channel, written) in [
            ("whatsapp:+225071234567", None, "whatsapp:+225071234567"),
            ("+225 07 123 4567", Some("whatsapp"), "whatsapp:+225071234567"),
            ("rcs:+225071234567", None, "rcs:+225071234567"),
            ("whatsapp:US.31491208655302741900", None, "whatsapp:US.31491208655302741900"),
            ("whatsapp:+44 (0) 7400 123456", None, "whatsapp:+447400123456"),
            ("US.31491208655302741900", None, "whatsapp:US.31491208655302741900"),
            ("messenger:108", None, "messenger:108"),
        ] {
            let address = Address::recordable(text, channel, None).unwrap();
            assert_eq!(address.written(), written, "{text}");
        }
        for (text, channel) in [
            ("+5511XXXXXXXXX", None),
            ("+1415", None),
            ("whatsapp:us.31491208655302741900", None),
            ("whatsapp:+225071234567", Some("sms")),
            ("5551230001", None),
            ("DE.1512345678", Some("sms")),
        ] {
            let problem = Address::given(text, channel, None);
            assert_eq!(Address::recordable(text, channel, None), problem, "{text}");
            assert!(problem.is_err(), "{text}");
        }
    }

    #[test]
    fn address_of_a_webhook_may_be_any_sender() {
        for (text, channel, written) in [
            ("O'Reilly", None, "O'Reilly"),
            ("Caf\u{e9}/Bar", Some("sms"), "Caf\u{e9}/Bar"),
            ("12", None, "12"),
            ("rcs:acme_agent", None, "rcs:acme_agent"),
            ("whatsapp:+225 071 234 567", None, "whatsapp:+225071234567"),
        ] {
            let address = Address::as_in_webhook(text, channel).unwrap();
            assert_eq!(address.written(), written);
        }
        for (text, channel) in [("", None), ("a\u{0}", None), ("rcs:x", Some("sms"))] {
            assert_eq!(Address::as_in_webhook(text, channel), None, "{text:?}");
        }
    }

    #[test]
    fn address_in_a_log_line_hides_the_number() {
        let address = Address::parse("whatsapp:+15551234567").unwrap();
        assert_eq!(format!("{address} {address:?}"), "whatsapp:..67 whatsapp:..67");
        assert_eq!(Address::parse("7").unwrap().to_string(), "sms:..");
    }
}
