//! Cursors of lists: the position at which a page ended, as opaque and stable text that is validated on return. A
//! cursor is a position in an order, not a count of rows, so new rows neither hide nor repeat others. It grants no
//! permission: the next request repeats all filters and is authorized anew.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{consent::Consent, live_stream::StreamPosition, suppression::Suppression};

/// Maximum length of a cursor's text, in bytes.
const MAX_LENGTH: usize = 4096;

/// Position in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Cursor {
    /// Position in webhooks, the latest first.
    #[serde(rename = "e")]
    Event {
        /// Time of arrival, in milliseconds since 1970.
        #[serde(rename = "t")]
        received_ms: i64,
        /// Key among those of the same time.
        #[serde(rename = "k")]
        key: String,
    },
    /// Position in a live stream, in the order of recording.
    #[serde(rename = "v")]
    Stream {
        /// Position in the order of recording.
        #[serde(rename = "p")]
        position: StreamPosition,
        /// Time at which the stream was there, in milliseconds since 1970.
        #[serde(rename = "a")]
        at_ms: i64,
    },
    /// Position in conversation windows, by our number.
    #[serde(rename = "w")]
    Pair {
        /// Our number or sender.
        #[serde(rename = "o")]
        ours: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
    },
    /// Position in suppressions, by number.
    #[serde(rename = "s")]
    Suppression {
        /// The contact's number.
        #[serde(rename = "n")]
        number: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
        /// Error code of a callback.
        #[serde(rename = "e")]
        error_code: String,
        /// Source.
        #[serde(rename = "s")]
        source: String,
    },
    /// Position in consents, by number, the earliest of each first.
    #[serde(rename = "a")]
    Consent {
        /// The contact's number.
        #[serde(rename = "n")]
        number: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
        /// Category of messages.
        #[serde(rename = "g")]
        category: String,
        /// Time of the consent, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// Granted or withdrawn.
        #[serde(rename = "s")]
        state: String,
        /// Id among those of the same time.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in API keys, the newest first.
    #[serde(rename = "k")]
    Key {
        /// Time of creation, in milliseconds since 1970.
        #[serde(rename = "t")]
        created_ms: i64,
        /// Public part of the key.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in the audit log, the newest first.
    #[serde(rename = "l")]
    Entry {
        /// Time of the change, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// Sequence number.
        #[serde(rename = "i")]
        id: i64,
    },
    /// Position in replays, the latest first.
    #[serde(rename = "p")]
    Replay {
        /// Time of the request, in milliseconds since 1970.
        #[serde(rename = "t")]
        created_ms: i64,
        /// Id among those of the same time.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in dead letters, the latest first.
    #[serde(rename = "d")]
    DeadLetter {
        /// Time when its delivery was given up, in milliseconds since 1970.
        #[serde(rename = "t")]
        ended_ms: i64,
        /// Sequence number.
        #[serde(rename = "i")]
        seq: i64,
    },
    /// Position in templates, by name and language.
    #[serde(rename = "h")]
    Template {
        /// Template name.
        #[serde(rename = "n")]
        name: String,
        /// Language.
        #[serde(rename = "l")]
        locale: String,
        /// Reference among those of the same name and language.
        #[serde(rename = "r")]
        reference: String,
    },
    /// Position in messages of both directions, the latest first.
    #[serde(rename = "m")]
    Message {
        /// Time of the message, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// Key among those of the same time: our message id, or the dedupe key of the first webhook.
        #[serde(rename = "k")]
        key: String,
    },
    /// Position in groups of refused requests, the latest first.
    #[serde(rename = "g")]
    RefusedGroup {
        /// Time of the latest request, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// Id among those of the same time.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in refused requests, the latest first.
    #[serde(rename = "r")]
    RefusedRequest {
        /// Time of the refusal, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// Id among those of the same time.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in notifications, the latest first.
    #[serde(rename = "n")]
    Notification {
        /// Time of the first message, in milliseconds since 1970.
        #[serde(rename = "t")]
        created_ms: i64,
        /// Our id of that message.
        #[serde(rename = "i")]
        id: String,
    },
    /// Position in accounts, by SID.
    #[serde(rename = "t")]
    Tenant {
        /// Account.
        #[serde(rename = "a")]
        account_sid: String,
    },
}

impl Cursor {
    /// Returns the position after this suppression.
    pub fn of_suppression(last: &Suppression) -> Cursor {
        Cursor::Suppression {
            number: last.address.number.clone(),
            channel: last.address.channel.clone(),
            error_code: last.error_code.clone(),
            source: last.source.as_str().to_owned(),
        }
    }

    /// Returns the position after this consent.
    pub fn of_consent(last: &Consent) -> Cursor {
        Cursor::Consent {
            number: last.address.number.clone(),
            channel: last.address.channel.clone(),
            category: last.category.as_str().to_owned(),
            at_ms: last.at_ms,
            state: last.state.as_str().to_owned(),
            id: last.id(),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&token(&serde_json::to_string(self).map_err(|_| fmt::Error)?))
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let cursor = serde_json::from_str(&read(text).ok_or(())?).map_err(|_| ())?;
        // PostgreSQL refuses NUL in text.
        let parts = match &cursor {
            Cursor::Event { key, .. } | Cursor::Message { key, .. } => vec![key],
            Cursor::Stream { position, .. } => vec![&position.key],
            Cursor::Pair { ours, channel } => vec![ours, channel],
            Cursor::Suppression { number, channel, error_code, source } => {
                vec![number, channel, error_code, source]
            }
            Cursor::Consent { number, channel, category, state, id, .. } => {
                vec![number, channel, category, state, id]
            }
            Cursor::Key { id, .. }
            | Cursor::RefusedGroup { id, .. }
            | Cursor::RefusedRequest { id, .. }
            | Cursor::Replay { id, .. }
            | Cursor::Notification { id, .. } => vec![id],
            Cursor::Entry { .. } | Cursor::DeadLetter { .. } => vec![],
            Cursor::Template { name, locale, reference } => vec![name, locale, reference],
            Cursor::Tenant { account_sid } => vec![account_sid],
        };
        if parts.iter().any(|part| part.contains('\0')) { Err(()) } else { Ok(cursor) }
    }
}

/// Encodes text as a word that needs no escapes in a URL.
pub fn token(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Decodes a word of [`token`].
pub fn read(word: &str) -> Option<String> {
    if word.is_empty() || word.len() > MAX_LENGTH {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(word).ok()?).ok()?;
    // PostgreSQL refuses NUL in text.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursor_format_is_stable() {
        let event = Cursor::Event { received_ms: 1_795_436_897_042, key: "inbound:AC1:SM1".into() };
        let text = "eyJlIjp7InQiOjE3OTU0MzY4OTcwNDIsImsiOiJpbmJvdW5kOkFDMTpTTTEifX0";
        assert_eq!((event.to_string().as_str(), text.parse()), (text, Ok(event)));
        let pair = Cursor::Pair { ours: "+15550001111".into(), channel: "sms".into() };
        let text = "eyJ3Ijp7Im8iOiIrMTU1NTAwMDExMTEiLCJjIjoic21zIn19";
        assert_eq!((pair.to_string().as_str(), text.parse()), (text, Ok(pair)));
    }

    #[test]
    fn cursor_rejects_values_that_a_database_refuses() {
        for text in
            [r#"{"e":{"t":1,"k":"\u0000"}}"#, r#"{"w":{"o":"","c":"\u0000"}}"#, "{}", "\0", ""]
        {
            assert_eq!(token(text).parse::<Cursor>(), Err(()), "{text:?}");
        }
        assert!(token(r#"{"e":{"t":1,"k":""}}"#).parse::<Cursor>().is_ok());
    }

    proptest! {
        #[test]
        fn cursor_round_trips(received_ms: i64, key in "[^\0]{0,300}") {
            let cursor = Cursor::Event { received_ms, key };
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            if text.len() <= MAX_LENGTH {
                prop_assert_eq!(text.parse(), Ok(cursor));
            }
        }

        #[test]
        fn cursor_of_any_text_is_read_without_panic(text: String, bytes: Vec<u8>) {
            let _ = text.parse::<Cursor>();
            let _ = URL_SAFE_NO_PAD.encode(bytes).parse::<Cursor>();
        }
    }
}
