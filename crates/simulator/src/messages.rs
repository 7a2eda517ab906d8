//! Newest messages, up to a limit, and their representation in Twilio's API. Knows neither HTTP nor the passing of time.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::webhook::derived_sid;
use twilio_edge_domain::dropin::resource::segments;

/// Message, sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sid: String,
    pub(super) account: String,
    pub(super) service: Option<String>,
    /// Sender; unknown until the Messaging Service has selected one.
    pub(super) from: Option<String>,
    pub(super) to: String,
    pub(super) body: String,
    pub(super) media: Vec<String>,
    pub(super) direction: &'static str,
    pub(super) status: &'static str,
    pub(super) error: Option<u32>,
    pub(super) status_callback: Option<String>,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) sent_ms: Option<i64>,
}

/// Filter of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct MessageFilter {
    pub(super) to: Option<String>,
    pub(super) from: Option<String>,
    /// Start (inclusive) and end (exclusive) of the time of sending.
    pub(super) sent_ms: (Option<i64>, Option<i64>),
}

impl MessageFilter {
    fn has(&self, message: &Message) -> bool {
        let sent = message.sent_ms.unwrap_or(message.created_ms);
        self.to.as_ref().is_none_or(|to| *to == message.to)
            && self.from.as_ref().is_none_or(|from| message.from.as_ref() == Some(from))
            && self.sent_ms.0.is_none_or(|first| first <= sent)
            && self.sent_ms.1.is_none_or(|end| sent < end)
    }
}

/// Newest messages; if there are more than `max`, the oldest is dropped.
#[derive(Debug)]
pub(super) struct Messages {
    newest_last: VecDeque<Message>,
    /// Number of each SID; the first message of `newest_last` has the number `first`.
    numbers: HashMap<String, usize>,
    first: usize,
    max: usize,
}

impl Messages {
    pub(super) fn new(max: usize) -> Self {
        Self { newest_last: VecDeque::new(), numbers: HashMap::new(), first: 0, max: max.max(1) }
    }

    pub(super) fn add(&mut self, message: Message) {
        while self.newest_last.len() >= self.max {
            if let Some(oldest) = self.newest_last.pop_front() {
                self.numbers.remove(&oldest.sid);
            }
            self.first = self.first.wrapping_add(1);
        }
        let number = self.first.wrapping_add(self.newest_last.len());
        self.numbers.insert(message.sid.clone(), number);
        self.newest_last.push_back(message);
    }

    pub(super) fn get(&mut self, sid: &str) -> Option<&mut Message> {
        let index = self.numbers.get(sid)?.wrapping_sub(self.first);
        self.newest_last.get_mut(index)
    }

    pub(super) fn remove(&mut self, sid: &str) -> bool {
        // The numbers of the other messages must not change, so the entry stays in its place, but can no longer be found.
        let Some(message) = self.get(sid) else { return false };
        message.account.clear();
        self.numbers.remove(sid).is_some()
    }

    /// Returns the messages of an account, the newest first.
    pub(super) fn list<'a>(
        &'a self,
        account: &'a str,
        filter: &'a MessageFilter,
    ) -> impl Iterator<Item = &'a Message> {
        let newest_first = self.newest_last.iter().rev();
        newest_first.filter(move |message| message.account == account && filter.has(message))
    }

    /// Returns the messages of all accounts, the newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Message> {
        self.newest_last.iter().rev().filter(|message| !message.account.is_empty())
    }
}

impl Message {
    /// Returns the path in Twilio's API, without `.json`.
    pub(super) fn uri(&self) -> String {
        format!("/2010-04-01/Accounts/{}/Messages/{}", self.account, self.sid)
    }

    /// Returns the resource in Twilio's format.
    pub(super) fn to_json(&self) -> Value {
        let uri = self.uri();
        // A Messaging Service counts segments only when it sends.
        let segments = if self.from.is_none() { 0 } else { segments(&self.body) };
        json!({
            "account_sid": self.account, "api_version": "2010-04-01", "body": self.body,
            "date_created": rfc2822(self.created_ms), "date_sent": self.sent_ms.map(rfc2822),
            "date_updated": rfc2822(self.updated_ms), "direction": self.direction,
            "error_code": self.error, "error_message": self.error.map(|code| format!("Error {code}")),
            "from": self.from, "messaging_service_sid": self.service,
            "num_media": self.media.len().to_string(), "num_segments": segments.to_string(),
            "price": null, "price_unit": "USD", "sid": self.sid, "status": self.status,
            "subresource_uris": {
                "media": format!("{uri}/Media.json"), "feedback": format!("{uri}/Feedback.json"),
            },
            "to": self.to, "uri": format!("{uri}.json"),
        })
    }

    /// Returns the media in Twilio's format.
    pub(super) fn media_json(&self) -> Vec<Value> {
        // Deleted media have an empty URL.
        let left = (0_u32..).zip(&self.media).filter(|(_, url)| !url.is_empty());
        let shown = left.map(|(index, url)| {
            let sid = self.media_sid(index);
            json!({
                "sid": sid, "account_sid": self.account, "parent_sid": self.sid,
                "content_type": content_type(url), "date_created": rfc2822(self.created_ms),
                "date_updated": rfc2822(self.updated_ms), "uri": format!("{}/Media/{sid}.json", self.uri()),
            })
        });
        shown.collect()
    }

    /// Deletes a medium; returns false if there is no such medium.
    pub(super) fn delete_medium(&mut self, sid: &str) -> bool {
        let index = (0_u32..)
            .zip(&self.media)
            .find(|(index, url)| !url.is_empty() && self.media_sid(*index) == sid);
        let index = index.and_then(|(index, _)| usize::try_from(index).ok());
        match index.and_then(|index| self.media.get_mut(index)) {
            Some(url) => {
                url.clear();
                true
            }
            None => false,
        }
    }

    /// Returns whether the message is unfinished, and can be neither redacted nor deleted.
    pub(super) fn is_incomplete(&self) -> bool {
        matches!(self.status, "accepted" | "scheduled" | "queued" | "sending")
    }

    /// Returns the SID of a medium.
    pub(super) fn media_sid(&self, index: u32) -> String {
        derived_sid(&self.sid, "ME", index)
    }
}

/// Formats a time as Twilio does.
pub(super) fn rfc2822(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// Returns the type of a medium: a sample is named by its type, a URL has an extension.
pub(super) fn content_type(url: &str) -> &str {
    if !url.contains("://") {
        return url;
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    match path.rsplit('.').next().unwrap_or("").to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "ogg" => "audio/ogg",
        "vcf" => "text/vcard",
        _ => "image/jpeg",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize) -> Message {
        Message {
            sid: format!("SM{number:032x}"),
            account: "AC1".to_owned(),
            service: None,
            from: Some("+14155238886".to_owned()),
            to: "+14155550123".to_owned(),
            body: String::new(),
            media: vec!["https://example.com/a.png?x=1".to_owned()],
            direction: "outbound-api",
            status: "queued",
            error: None,
            status_callback: None,
            created_ms: i64::try_from(number).unwrap(),
            updated_ms: 0,
            sent_ms: None,
        }
    }

    #[test]
    fn oldest_message_is_dropped_and_others_are_found() {
        let mut messages = Messages::new(3);
        (0..5).for_each(|number| messages.add(message(number)));
        assert!(messages.get(&message(1).sid).is_none());
        for number in 2..5 {
            assert_eq!(messages.get(&message(number).sid).unwrap().sid, message(number).sid);
        }
        assert!(messages.remove(&message(3).sid) && !messages.remove(&message(3).sid));
        let filter = MessageFilter::default();
        let left: Vec<_> = messages.list("AC1", &filter).map(|found| found.created_ms).collect();
        assert_eq!(left, [4, 2]);
        let filter = MessageFilter { sent_ms: (Some(3), None), ..MessageFilter::default() };
        assert_eq!(messages.list("AC1", &filter).count(), 1);
        assert_eq!(messages.list("AC2", &filter).count(), 0);
    }

    #[test]
    fn times_and_media_are_shown_as_twilio_does() {
        assert_eq!(rfc2822(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        let shown = message(1).media_json();
        assert_eq!(shown[0]["content_type"], "image/png");
        assert_eq!(shown[0]["sid"].as_str().unwrap().len(), 34);
    }
}
