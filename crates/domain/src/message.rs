//! View of one message, assembled from all of its webhooks: its ends, its status and its history. No separate record of
//! messages exists, so none can contradict the webhooks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    address::Address,
    phone,
    status::{CallbackStatus, Status, current_status},
};

/// One recorded webhook, with its settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedWebhook {
    /// Dedupe key.
    pub key: String,
    /// Direction of the message it is about.
    pub direction: Direction,
    /// True if it is a status callback rather than the message itself.
    pub is_status: bool,
    /// Account.
    pub account_sid: String,
    /// Message.
    pub message_sid: String,
    /// Twilio's status word; `received` for an inbound message.
    pub status: String,
    /// Error code of a failure.
    pub error_code: Option<String>,
    /// Path of the route; `None` when only its settlement arrived.
    pub route: Option<String>,
    /// All parameters, as they arrived.
    pub form: Option<String>,
    /// The contact's address.
    pub theirs: Option<Address>,
    /// Our number or sender.
    pub ours: Option<String>,
    /// Time of arrival, in milliseconds since 1970.
    pub received_ms: i64,
    /// Number of attempts to deliver it to the backend.
    pub attempts: i64,
    /// `accepted` or `refused` by the backend; `None` while a claim is open, or when no settlement arrived.
    pub outcome: Option<String>,
    /// Time of the settlement, in milliseconds since 1970.
    pub settled_ms: Option<i64>,
    /// Time of its last redaction, in milliseconds since 1970.
    pub redacted_ms: Option<i64>,
}

twilio_edge_contract::string_enum! {
    /// Direction of a message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub enum Direction: serde {
        /// From a contact to us.
        Inbound = "inbound",
        /// From us to a contact.
        Outbound = "outbound",
    }
}

/// Error codes that Twilio assigns to messages that contacts sent to us (docs: twilio.com/docs/api/errors).
const INBOUND_ERROR_CODES: [&str; 1] = ["30039"];

/// Returns whether a status with this word and error code is about a message that a contact sent to us.
pub fn is_of_inbound(word: &str, error_code: Option<&str>) -> bool {
    matches!(Status::parse(word), Some(Status::Receiving | Status::Received))
        || error_code.is_some_and(|code| INBOUND_ERROR_CODES.contains(&code))
}

/// Error codes that Twilio gives only to messages which we sent: of delivery to a phone or to a channel, and of the recipient
/// (docs: twilio.com/docs/api/errors). The list may lack codes.
const OUTBOUND_ERROR_CODES: [&str; 20] = [
    "21610", "21611", "21612", "21614", "30001", "30003", "30004", "30005", "30006", "30007",
    "30022", "30034", "63003", "63013", "63014", "63016", "63018", "63024", "63032", "63049",
];

/// Returns whether a status with this word and error code may be about a message that a contact sent to us, as far as
/// the two show it: beside the statuses of [`is_of_inbound`], such a message only has the status `failed`.
pub fn may_be_of_inbound(word: &str, error_code: Option<&str>) -> bool {
    Status::parse(word) == Some(Status::Failed)
        && error_code.is_none_or(|code| !OUTBOUND_ERROR_CODES.contains(&code))
}

/// Number in a query; on any channel when it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberQuery {
    /// `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// E.164, a short code or the channel's own id.
    pub number: String,
    /// Other ids of the same contact, in every spelling; empty until they are loaded from the database.
    pub other_ids: Vec<String>,
}

impl NumberQuery {
    /// Returns whether an address is this number, in any spelling, or another id of the same contact.
    pub fn is(&self, number: &str) -> bool {
        phone::is_same(number, &self.number)
            || self.other_ids.iter().any(|other_ids| other_ids == number)
    }

    /// Returns whether something on this channel may be about it.
    pub fn is_on(&self, channel: &str) -> bool {
        self.channel.as_deref().is_none_or(|own| own == channel)
    }

    /// Parses `+15551234567` or `whatsapp:+15551234567`. Returns `None` when it is no address.
    pub fn parse(raw: &str) -> Option<NumberQuery> {
        let Address { channel, number } = Address::parse(raw)?;
        let channel = raw.contains(':').then_some(channel);
        Some(NumberQuery { channel, number, other_ids: Vec::new() })
    }

    /// Parses the number of a query, as [`NumberQuery::QUERY_PATTERN`] describes it: any text that an address in a webhook may have,
    /// with an optional channel. An unescaped `+` in a URL arrives as a blank and is read as `+`.
    pub fn parse_query(text: &str) -> Option<NumberQuery> {
        let (channel, number) = match text.split_once(':') {
            Some((channel, number)) => (Some(channel), number),
            None => (None, text),
        };
        let is_channel = |channel: &str| {
            (1..=32).contains(&channel.len())
                && channel.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        };
        let rest = number.strip_prefix(' ').unwrap_or(number);
        let is_number = (1..=254).contains(&rest.chars().count())
            && !rest.starts_with(char::is_whitespace)
            && !rest.contains(|c: char| c.is_control() || c == ':');
        if !is_number || !channel.is_none_or(is_channel) {
            return None;
        }
        let plus = number.strip_prefix(' ').map(|rest| format!("+{rest}"));
        let number = plus.unwrap_or_else(|| number.to_owned()).trim_end().to_owned();
        // Twilio writes `+1 (555) 123-4567` as +15551234567; text that is no phone number stays as it is.
        let as_twilio_writes = match number.starts_with('+') {
            true => phone::e164(&number, None).ok(),
            false => None,
        };
        Some(NumberQuery {
            channel: channel.map(str::to_ascii_lowercase),
            number: as_twilio_writes.unwrap_or(number),
            other_ids: Vec::new(),
        })
    }

    /// Regular expression of the text that [`NumberQuery::parse_query`] accepts; the API describes its parameters with it.
    pub const QUERY_PATTERN: &str =
        r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$";
}

impl RecordedWebhook {
    /// Returns whether it is a later step of a message ([`twilio_edge_contract::Identity::step_key`]), which no list
    /// contains.
    pub fn is_step(&self) -> bool {
        !self.is_status && self.key.split(':').count() > 3
    }

    /// Returns the sender of the message.
    pub fn from(&self) -> Option<&str> {
        match self.direction {
            Direction::Inbound => self.theirs.as_ref().map(|theirs| theirs.number.as_str()),
            Direction::Outbound => self.ours.as_deref(),
        }
    }

    /// Returns the recipient of the message.
    pub fn to(&self) -> Option<&str> {
        match self.direction {
            Direction::Inbound => self.ours.as_deref(),
            Direction::Outbound => self.theirs.as_ref().map(|theirs| theirs.number.as_str()),
        }
    }

    /// Returns the channel of the message.
    pub fn channel(&self) -> Option<&str> {
        self.theirs.as_ref().map(|theirs| theirs.channel.as_str())
    }

    /// Returns whether sender and recipient match those that are given.
    pub fn has_ends(&self, from: Option<&NumberQuery>, to: Option<&NumberQuery>) -> bool {
        let is = |wanted: Option<&NumberQuery>, end: Option<&str>| {
            wanted.is_none_or(|wanted| {
                end.is_some_and(|end| wanted.is(end))
                    && (wanted.channel.is_none() || wanted.channel.as_deref() == self.channel())
            })
        };
        is(from, self.from()) && is(to, self.to())
    }

    /// Returns whether this number is the sender or the recipient.
    pub fn involves(&self, number: &NumberQuery) -> bool {
        self.has_ends(Some(number), None) || self.has_ends(None, Some(number))
    }
}

/// Message with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Current status ([`current_status`]).
    pub status: String,
    /// Error code of a failure.
    pub error_code: Option<String>,
    /// Earliest of its webhooks; it identifies the message.
    pub first: RecordedWebhook,
    /// The other webhooks, in the order of arrival.
    pub later: Vec<RecordedWebhook>,
}

impl Message {
    /// Assembles a message from its webhooks, in any order. Returns `None` when there are none.
    pub fn of(mut webhook: Vec<RecordedWebhook>) -> Option<Message> {
        webhook.sort_by(|a, b| (a.received_ms, &a.key).cmp(&(b.received_ms, &b.key)));
        let statuses =
            |webhook: &RecordedWebhook| (webhook.status.clone(), webhook.error_code.clone());
        let statuses: Vec<_> = webhook.iter().map(statuses).collect();
        let statuses = statuses
            .iter()
            .map(|(word, code)| CallbackStatus { word, error_code: code.as_deref() });
        let standing = current_status(statuses)?;
        // A webhook with only a settlement has no addresses; they are taken from another webhook of the message.
        let direction = match webhook.iter().any(|webhook| webhook.direction == Direction::Inbound)
        {
            true => Direction::Inbound,
            false => Direction::Outbound,
        };
        let is_named =
            |webhook: &&RecordedWebhook| webhook.direction == direction && webhook.theirs.is_some();
        let named = webhook.iter().find(is_named);
        let (theirs, ours) = named.map(|n| (n.theirs.clone(), n.ours.clone())).unwrap_or_default();
        let mut webhook = webhook.into_iter().map(|webhook| {
            // A status that was parsed before its message was known as inbound has the two ends exchanged.
            let kept = webhook.direction == direction;
            RecordedWebhook {
                direction,
                theirs: webhook.theirs.filter(|_| kept).or_else(|| theirs.clone()),
                ours: webhook.ours.filter(|_| kept).or_else(|| ours.clone()),
                ..webhook
            }
        });
        Some(Message {
            status: standing.word.to_owned(),
            error_code: standing.error_code.map(str::to_owned),
            first: webhook.next()?,
            later: webhook.collect(),
        })
    }

    /// Returns all of its webhooks, in the order of arrival.
    pub fn timeline(&self) -> impl Iterator<Item = &RecordedWebhook> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// Returns the time of its last webhook, in milliseconds since 1970.
    pub fn last_received_ms(&self) -> i64 {
        self.later.last().unwrap_or(&self.first).received_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_query_may_be_any_address() {
        for (text, channel, number) in [
            ("+15551234567", None, "+15551234567"),
            (" 15551234567", None, "+15551234567"),
            ("+1 (555) 123-4567", None, "+15551234567"),
            ("whatsapp:+15551234567", Some("whatsapp"), "+15551234567"),
            ("WhatsApp: 15551234567", Some("whatsapp"), "+15551234567"),
            ("whatsapp:US.13491208655302741918", Some("whatsapp"), "US.13491208655302741918"),
            ("Caf\u{e9} M\u{fc}nchen", None, "Caf\u{e9} M\u{fc}nchen"),
            ("\u{65e5}\u{672c}", None, "\u{65e5}\u{672c}"),
            ("O'Reilly/Bar", None, "O'Reilly/Bar"),
            ("facebook_page:108", Some("facebook_page"), "108"),
            ("12345", None, "12345"),
        ] {
            let found = NumberQuery::parse_query(text).unwrap();
            assert_eq!((found.channel.as_deref(), found.number.as_str()), (channel, number));
        }
        let longest = "\u{e9}".repeat(254);
        assert_eq!(NumberQuery::parse_query(&longest).unwrap().number, longest);
        for text in [
            "",
            " ",
            "  1",
            "a\u{0}b",
            "a\u{85}",
            "whatsapp:",
            "1:2",
            "a:b:c",
            "\u{3000}1",
            &"9".repeat(255),
        ] {
            assert_eq!(NumberQuery::parse_query(text), None, "{text:?}");
        }
    }
}
