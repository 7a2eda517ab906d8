//! Verification attempts in Twilio's list: the delivery status of a code that was sent, and the search for a verification whose start
//! has no clear answer. Pure.

use serde::Deserialize;

use super::{matching::Match, verification::is_verification_sid};
use crate::period::instant;

/// Largest difference between Twilio's clock and ours at which an attempt matches, in milliseconds.
const NEAR_MS: i64 = 60_000;

/// Attempt in Twilio's list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedAttempt {
    /// `VE..`
    pub verification_sid: Option<String>,
    /// Channel: `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// Creation time, in ISO 8601.
    pub date_created: Option<String>,
    /// Properties of the channel.
    pub channel_data: Option<ChannelData>,
}

/// Properties of an attempt on its channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ChannelData {
    /// Status of the message that has the code, as in a status callback.
    pub message_status: Option<String>,
    /// Error code of the message: a text, or a number, which is 0 without an error.
    pub error_code: Option<serde_json::Value>,
}

/// Search for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptSearch<'a> {
    /// Channel.
    pub channel: &'a str,
    /// Start of the call, in milliseconds since 1970.
    pub begun_ms: i64,
    /// Latest time at which the call could have reached Twilio, in milliseconds since 1970.
    pub until_ms: i64,
}

impl ListedAttempt {
    fn created_ms(&self) -> Option<i64> {
        instant(self.date_created.as_deref()?).ok()
    }

    /// Returns the status in the words of a status callback, and the error code, empty without an error.
    fn status(&self) -> Option<(String, String)> {
        let data = self.channel_data.as_ref()?;
        let status = data.message_status.as_ref()?.to_ascii_lowercase();
        let code = match &data.error_code {
            Some(serde_json::Value::String(code)) => code.clone(),
            Some(serde_json::Value::Number(code)) => code.to_string(),
            _ => String::new(),
        };
        let is_code = code != "0" && code.len() <= 16 && code.bytes().all(|b| b.is_ascii_digit());
        Some((status, if is_code { code } else { String::new() }))
    }
}

impl AttemptSearch<'_> {
    /// Returns the earliest time of a matching attempt, in milliseconds since 1970.
    pub fn since_ms(&self) -> i64 {
        self.begun_ms.saturating_sub(NEAR_MS)
    }

    fn has(&self, attempt: &ListedAttempt) -> bool {
        let until_ms = self.until_ms.saturating_add(NEAR_MS);
        attempt.channel.as_deref() == Some(self.channel)
            && attempt
                .created_ms()
                .is_some_and(|at_ms| (self.since_ms()..=until_ms).contains(&at_ms))
    }

    /// Returns the status of the attempt that this call made: of several, the one whose time is nearest.
    pub fn status_in(&self, listed: &[ListedAttempt]) -> Option<(String, String)> {
        let candidates = listed.iter().filter(|attempt| self.has(attempt));
        let distance = |attempt: &&ListedAttempt| {
            attempt.created_ms().map_or(u64::MAX, |at_ms| at_ms.abs_diff(self.begun_ms))
        };
        candidates.min_by_key(distance)?.status()
    }

    /// Compares the call with the whole list of its time. Attempts of one verification send the same code, so any of them may be the
    /// one of this call. `is_proof` is true if an absence counts by now.
    pub fn find_in(&self, listed: &[ListedAttempt], is_proof: bool) -> Match {
        let mut sids: Vec<&str> = listed
            .iter()
            .filter(|attempt| self.has(attempt))
            .filter_map(|attempt| attempt.verification_sid.as_deref())
            .filter(|sid| is_verification_sid(sid))
            .collect();
        sids.sort_unstable();
        sids.dedup();
        match sids.as_slice() {
            [sid] => Match::Found((*sid).to_owned()),
            [] if is_proof => Match::Absent,
            _ => Match::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attempt(digit: char, channel: &str, at: &str, data: serde_json::Value) -> ListedAttempt {
        let sid = format!("VE{}", digit.to_string().repeat(32));
        serde_json::from_value(json!({
            "verification_sid": sid, "channel": channel, "date_created": at, "channel_data": data,
            "sid": "VL", "price": null,
        }))
        .unwrap()
    }

    fn search() -> AttemptSearch<'static> {
        let begun_ms = instant("2026-11-30T12:00:00Z").unwrap();
        AttemptSearch { channel: "whatsapp", begun_ms, until_ms: begun_ms + 15_000 }
    }

    #[test]
    fn status_is_that_of_the_nearest_attempt_on_the_channel() {
        let undelivered = json!({"message_status": "UNDELIVERED", "error_code": 63024});
        let listed = [
            attempt('1', "sms", "2026-11-30T12:00:00Z", json!({"message_status": "delivered"})),
            attempt('1', "whatsapp", "2026-11-30T12:00:01Z", undelivered),
            attempt('1', "whatsapp", "2026-11-30T12:00:50Z", json!({"message_status": "sent"})),
        ];
        let status = search().status_in(&listed);
        assert_eq!(status, Some(("undelivered".to_owned(), "63024".to_owned())));
        let delivered = json!({"message_status": "delivered", "error_code": 0});
        let listed = [attempt('1', "whatsapp", "2026-11-30T12:00:01Z", delivered)];
        assert_eq!(search().status_in(&listed), Some(("delivered".to_owned(), String::new())));
        assert_eq!(search().status_in(&[]), None);
    }

    #[test]
    fn verification_is_found_absent_or_unclear() {
        let at = "2026-11-30T12:00:20Z";
        let one = attempt('1', "whatsapp", at, json!(null));
        let found = format!("VE{}", "1".repeat(32));
        assert_eq!(search().find_in(&[one.clone(), one.clone()], false), Match::Found(found));
        let two = attempt('2', "whatsapp", at, json!(null));
        assert_eq!(search().find_in(&[one, two], true), Match::Unclear);
        let early = attempt('1', "whatsapp", "2026-11-30T11:58:00Z", json!(null));
        let other = attempt('1', "sms", at, json!(null));
        assert_eq!(search().find_in(&[early.clone(), other.clone()], true), Match::Absent);
        assert_eq!(search().find_in(&[early, other], false), Match::Unclear);
    }
}
