//! Who is on the other side: Twilio's `From` and `To`, taken apart into a channel and an address. Knows the
//! spelling only; what an address may be sent is decided elsewhere.

use std::fmt;

/// Longest address kept, in bytes. E.164 has 16; the ids of other channels are well below this.
const MAX_BYTES: usize = 255;

/// One end of a conversation: `whatsapp:+15551234567` is (`whatsapp`, `+15551234567`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Lower case; `sms` when Twilio wrote no prefix.
    pub channel: String,
    /// E.164 on phone channels, a short code, or the channel's own id.
    pub number: String,
}

impl Address {
    /// Reads a `From` or `To`; none when there is nothing to answer to.
    pub fn parse(raw: &str) -> Option<Address> {
        let raw = raw.trim();
        let (channel, number) = raw.split_once(':').unwrap_or(("sms", raw));
        let (channel, number) = (channel.trim().to_ascii_lowercase(), number.trim());
        let fits = |part: &str| {
            !part.is_empty() && part.len() <= MAX_BYTES && !part.chars().any(char::is_control)
        };
        (fits(&channel) && fits(number)).then(|| Address { channel, number: number.to_owned() })
    }
}

/// A person's address must not reach a log whole: the channel, and the last two characters.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn the_prefix_is_the_channel() {
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
    fn no_log_line_holds_a_whole_number() {
        let address = Address::parse("whatsapp:+15551234567").unwrap();
        assert_eq!(format!("{address} {address:?}"), "whatsapp:..67 whatsapp:..67");
        assert_eq!(Address::parse("7").unwrap().to_string(), "sms:..");
    }
}
