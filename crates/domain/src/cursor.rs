//! Where a page of a list ended, as text for who asks for the next one: opaque, stable, checked when it comes back. It is a
//! place in an order, not a count of rows, so that nothing is skipped or shown twice when rows are added meanwhile. It gives
//! no right to anything: the list it continues is asked for anew, with everything that was asked.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{consent::Consent, suppression::Suppression};

/// Longest text that is looked at.
const LONGEST: usize = 4096;

/// A place in what is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Cursor {
    /// In webhooks and messages, the latest first.
    #[serde(rename = "e")]
    Event {
        /// When it was heard, in milliseconds since 1970.
        #[serde(rename = "t")]
        heard_ms: i64,
        /// Which of those heard then.
        #[serde(rename = "k")]
        key: String,
    },
    /// In windows, by our number.
    #[serde(rename = "w")]
    Pair {
        /// Our number or sender.
        #[serde(rename = "o")]
        ours: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
    },
    /// In suppressions, by number.
    #[serde(rename = "s")]
    Suppression {
        /// The person's number.
        #[serde(rename = "n")]
        number: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
        /// Of a callback.
        #[serde(rename = "e")]
        error_code: String,
        /// Where it comes from.
        #[serde(rename = "s")]
        source: String,
    },
    /// In consents, by number, the earliest of each first.
    #[serde(rename = "a")]
    Consent {
        /// The person's number.
        #[serde(rename = "n")]
        number: String,
        /// The channel.
        #[serde(rename = "c")]
        channel: String,
        /// To which messages.
        #[serde(rename = "g")]
        category: String,
        /// When they said so, in milliseconds since 1970.
        #[serde(rename = "t")]
        at_ms: i64,
        /// What they said.
        #[serde(rename = "s")]
        state: String,
        /// Which of those.
        #[serde(rename = "i")]
        id: String,
    },
    /// In API keys, the newest first.
    #[serde(rename = "k")]
    Key {
        /// When it was made, in milliseconds since 1970.
        #[serde(rename = "t")]
        created_ms: i64,
        /// Its public part.
        #[serde(rename = "i")]
        id: String,
    },
    /// In the audit, the newest first.
    #[serde(rename = "l")]
    Entry {
        /// Its number.
        #[serde(rename = "i")]
        id: i64,
    },
    /// In dead letters, the latest first.
    #[serde(rename = "d")]
    DeadLetter {
        /// When it was given up, in milliseconds since 1970.
        #[serde(rename = "t")]
        ended_ms: i64,
        /// Its number.
        #[serde(rename = "i")]
        seq: i64,
    },
    /// In templates, by name and language.
    #[serde(rename = "h")]
    Template {
        /// Its name.
        #[serde(rename = "n")]
        name: String,
        /// Its language.
        #[serde(rename = "l")]
        locale: String,
        /// Which of those.
        #[serde(rename = "r")]
        reference: String,
    },
    /// In messages that were taken on, the latest first.
    #[serde(rename = "m")]
    Send {
        /// When that was, in milliseconds since 1970.
        #[serde(rename = "t")]
        created_ms: i64,
        /// Ours.
        #[serde(rename = "i")]
        id: String,
    },
    /// In accounts, by SID.
    #[serde(rename = "t")]
    Tenant {
        /// Which one.
        #[serde(rename = "a")]
        account_sid: String,
    },
}

impl Cursor {
    /// After this one.
    pub fn of_suppression(last: &Suppression) -> Cursor {
        Cursor::Suppression {
            number: last.address.number.clone(),
            channel: last.address.channel.clone(),
            error_code: last.error_code.clone(),
            source: last.source.as_str().to_owned(),
        }
    }

    /// After this one.
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
        // No database takes it.
        let parts = match &cursor {
            Cursor::Event { key, .. } => vec![key],
            Cursor::Pair { ours, channel } => vec![ours, channel],
            Cursor::Suppression { number, channel, error_code, source } => {
                vec![number, channel, error_code, source]
            }
            Cursor::Consent { number, channel, category, state, id, .. } => {
                vec![number, channel, category, state, id]
            }
            Cursor::Key { id, .. } | Cursor::Send { id, .. } => vec![id],
            Cursor::Entry { .. } | Cursor::DeadLetter { .. } => vec![],
            Cursor::Template { name, locale, reference } => vec![name, locale, reference],
            Cursor::Tenant { account_sid } => vec![account_sid],
        };
        if parts.iter().any(|part| part.contains('\0')) { Err(()) } else { Ok(cursor) }
    }
}

/// Text as a word that fits a URL anywhere.
pub fn token(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// What [`token`] made a word of.
pub fn read(word: &str) -> Option<String> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(word).ok()?).ok()?;
    // No database takes it.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_of_this_version_is_read_by_the_next() {
        let event = Cursor::Event { heard_ms: 1_795_436_897_042, key: "inbound:AC1:SM1".into() };
        let text = "eyJlIjp7InQiOjE3OTU0MzY4OTcwNDIsImsiOiJpbmJvdW5kOkFDMTpTTTEifX0";
        assert_eq!((event.to_string().as_str(), text.parse()), (text, Ok(event)));
        let pair = Cursor::Pair { ours: "+15550001111".into(), channel: "sms".into() };
        let text = "eyJ3Ijp7Im8iOiIrMTU1NTAwMDExMTEiLCJjIjoic21zIn19";
        assert_eq!((pair.to_string().as_str(), text.parse()), (text, Ok(pair)));
    }

    #[test]
    fn only_what_a_database_takes_is_a_place() {
        for text in
            [r#"{"e":{"t":1,"k":"\u0000"}}"#, r#"{"w":{"o":"","c":"\u0000"}}"#, "{}", "\0", ""]
        {
            assert_eq!(token(text).parse::<Cursor>(), Err(()), "{text:?}");
        }
        assert!(token(r#"{"e":{"t":1,"k":""}}"#).parse::<Cursor>().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(heard_ms: i64, key in "[^\0]{0,300}") {
            let cursor = Cursor::Event { heard_ms, key };
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            if text.len() <= LONGEST {
                prop_assert_eq!(text.parse(), Ok(cursor));
            }
        }

        #[test]
        fn nothing_that_comes_panics(text: String, bytes: Vec<u8>) {
            let _ = text.parse::<Cursor>();
            let _ = URL_SAFE_NO_PAD.encode(bytes).parse::<Cursor>();
        }
    }
}
