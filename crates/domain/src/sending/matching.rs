//! Match of an `unknown` message against Twilio's list of messages: found, certainly absent, or unclear. It never guesses: a
//! candidate that cannot be distinguished is unclear. An absence proves something only if the whole list was read, long
//! enough after the message could have been sent. Pure.

use std::collections::BTreeSet;

use jiff::fmt::rfc2822;
use serde::Deserialize;

use crate::{address::Address, contact, phone};

/// Largest difference between Twilio's clock and ours at which a listed message matches, in milliseconds.
const NEAR_MS: i64 = 60_000;

/// Largest difference at which a listed message remains a candidate, in milliseconds.
pub const FAR_MS: i64 = 3_600_000;

/// First pause between two lookups, in milliseconds; each later pause is twice as long.
const PAUSE_MS: i64 = 2_000;

/// Longest pause between two lookups, in milliseconds.
const MAX_PAUSE_MS: i64 = 300_000;

/// Message in Twilio's list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedMessage {
    /// `SM..` or `MM..`
    pub sid: String,
    /// Text; of a template the text with its variables filled in; none if Twilio does not store it.
    pub body: Option<String>,
    /// Recipient.
    pub to: Option<String>,
    /// Sender; with a Messaging Service it may not be selected yet.
    pub from: Option<String>,
    /// SID of the Messaging Service.
    pub messaging_service_sid: Option<String>,
    /// Direction: `outbound-api` for a message that was created through the API.
    pub direction: Option<String>,
    /// Creation time in RFC 2822 format.
    pub date_created: Option<String>,
}

/// Search for one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageSearch {
    /// Recipient.
    pub to: String,
    /// Other addresses of the same contact, any of which Twilio may list.
    pub also_to: Vec<String>,
    /// Sender, or empty.
    pub from: String,
    /// SID of the Messaging Service, or empty.
    pub service: String,
    /// Text; `None` for a message with media alone, and for a template, because only Twilio has its text.
    pub body: Option<String>,
    /// Begin of the attempt, in milliseconds since 1970.
    pub begun_ms: i64,
    /// Latest time at which the attempt could have been sent, in milliseconds since 1970.
    pub until_ms: i64,
}

/// Result of the comparison with the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// SID of the message.
    Found(String),
    /// Certainly absent from the list, now and later.
    Absent,
    /// Undecided, for now or for good.
    Unclear,
}

/// Extent and time of the lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCoverage {
    /// True if the list was read back to [`FAR_MS`] before the attempt.
    pub is_whole: bool,
    /// Begin of the lookup, in milliseconds since 1970.
    pub at_ms: i64,
    /// Time from which an absence counts as proof, in milliseconds since 1970; `None` if it never does.
    pub absent_from_ms: Option<i64>,
    /// True if another `unknown` message of ours may be the one in the list.
    pub has_twin: bool,
}

impl MessageSearch {
    /// Reads the search from the form that was posted to Twilio.
    pub fn of(form: &str, begun_ms: i64, until_ms: i64) -> MessageSearch {
        let mut search = MessageSearch { begun_ms, until_ms, ..MessageSearch::default() };
        for (name, value) in form_urlencoded::parse(form.as_bytes()) {
            match &*name {
                "To" => search.to = value.into_owned(),
                "From" => search.from = value.into_owned(),
                "MessagingServiceSid" => search.service = value.into_owned(),
                "Body" if !value.is_empty() => search.body = Some(value.into_owned()),
                _ => {}
            }
        }
        search
    }

    /// Returns whether the listed message is a candidate: created through the API, with the same recipient and sender, at
    /// about the time of the attempt.
    pub fn is_candidate(&self, listed: &ListedMessage) -> bool {
        let is = |have: &Option<String>, want: &str| have.as_deref() == Some(want);
        let reaches = |have: &Option<String>, want: &str| {
            have.as_deref().is_some_and(|have| is_same_address(have, want))
        };
        let is_to = |want: &String| reaches(&listed.to, want);
        let created_ms = listed.created_ms();
        is(&listed.direction, "outbound-api")
            && (is_to(&self.to) || self.also_to.iter().any(is_to))
            && (self.service.is_empty() || is(&listed.messaging_service_sid, &self.service))
            && (self.from.is_empty() || reaches(&listed.from, &self.from))
            && created_ms.is_none_or(|at_ms| self.is_within(at_ms, FAR_MS))
    }

    /// Returns the pairs of recipient and sender to query: every spelling that Twilio may have stored.
    pub fn queries(&self) -> Vec<(String, String)> {
        let recipients = std::iter::once(&self.to).chain(&self.also_to).flat_map(|to| written(to));
        let senders = if self.from.is_empty() { vec![String::new()] } else { written(&self.from) };
        let pairs =
            recipients.flat_map(|to| senders.iter().map(move |from| (to.clone(), from.clone())));
        let pairs: BTreeSet<(String, String)> = pairs.collect();
        pairs.into_iter().collect()
    }

    /// Returns whether an absence is proof at all: Twilio does not document how it lists a message to a user id.
    fn is_always_listed(&self) -> bool {
        contact::user_id(&self.to).is_none()
    }

    fn is_match(&self, listed: &ListedMessage) -> bool {
        let is_near = listed.created_ms().is_some_and(|at_ms| self.is_within(at_ms, NEAR_MS));
        let has_same_text =
            self.body.as_deref().is_none_or(|body| body == listed.body.as_deref().unwrap_or(""));
        is_near && has_same_text
    }

    fn is_within(&self, at_ms: i64, apart_ms: i64) -> bool {
        at_ms >= self.begun_ms.saturating_sub(apart_ms)
            && at_ms <= self.until_ms.saturating_add(apart_ms)
    }

    /// Decides the match. `owned` are the SIDs of our other messages.
    pub fn find_match(
        &self,
        listed: &[ListedMessage],
        owned: &BTreeSet<String>,
        seen: ListCoverage,
    ) -> Match {
        let free = |one: &&ListedMessage| self.is_candidate(one) && !owned.contains(&one.sid);
        let candidates: BTreeSet<&str> =
            listed.iter().filter(free).map(|one| one.sid.as_str()).collect();
        let certain: BTreeSet<&str> = listed
            .iter()
            .filter(free)
            .filter(|one| self.is_match(one))
            .map(|one| one.sid.as_str())
            .collect();
        let mut certain = certain.into_iter();
        match (certain.next(), certain.next()) {
            // Without a text to compare, the candidate must be the only one.
            (Some(sid), None)
                if !seen.has_twin && (self.body.is_some() || candidates.len() == 1) =>
            {
                Match::Found(sid.to_owned())
            }
            (None, _)
                if candidates.is_empty()
                    && seen.is_whole
                    && self.is_always_listed()
                    && seen.absent_from_ms.is_some_and(|from_ms| seen.at_ms >= from_ms) =>
            {
                Match::Absent
            }
            _ => Match::Unclear,
        }
    }
}

/// Returns whether both addresses have the same channel and reach the same recipient.
fn is_same_address(one: &str, other: &str) -> bool {
    match (Address::parse(one), Address::parse(other)) {
        (Some(one), Some(other)) => {
            one.channel == other.channel && phone::is_same(&one.number, &other.number)
        }
        _ => one == other,
    }
}

/// Returns the address in every spelling that Twilio may have stored.
fn written(address: &str) -> Vec<String> {
    let Some(Address { channel, number }) = Address::parse(address) else {
        return vec![address.to_owned()];
    };
    let spelled = phone::of_each_plan(&number).into_iter();
    spelled
        .map(|number| Address { channel: channel.clone(), number: number.into_owned() }.written())
        .collect()
}

impl ListedMessage {
    /// Returns the creation time, in milliseconds since 1970.
    pub fn created_ms(&self) -> Option<i64> {
        let text = self.date_created.as_deref()?;
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(at.as_millisecond())
    }
}

/// Returns the time of the next lookup after `looks` lookups, in milliseconds since 1970: after a longer pause each time,
/// once at the time from which an absence counts, and 0 if it would be after `last_ms`.
pub fn next_search_ms(looks: i64, now_ms: i64, absent_from_ms: Option<i64>, last_ms: i64) -> i64 {
    let doublings = u32::try_from(looks.clamp(0, 16)).unwrap_or_default();
    let pause_ms = PAUSE_MS.saturating_mul(1 << doublings).min(MAX_PAUSE_MS);
    let next_ms = now_ms.saturating_add(pause_ms);
    let next_ms = match absent_from_ms {
        Some(from_ms) if from_ms > now_ms => next_ms.min(from_ms),
        _ => next_ms,
    };
    if next_ms > last_ms { 0 } else { next_ms }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT_MS: i64 = 1_790_000_000_000;

    fn search(form: &str) -> MessageSearch {
        MessageSearch::of(form, AT_MS, AT_MS + 55_000)
    }

    fn listed(n: u32, body: &str, after_ms: i64) -> ListedMessage {
        let at = jiff::Timestamp::from_millisecond(AT_MS + after_ms).unwrap();
        ListedMessage {
            sid: format!("SM{n:032x}"),
            body: Some(body.into()),
            to: Some("+1555".into()),
            from: Some("+1444".into()),
            messaging_service_sid: None,
            direction: Some("outbound-api".into()),
            date_created: Some(at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()),
        }
    }

    fn late() -> ListCoverage {
        let from_ms = AT_MS + 955_000;
        ListCoverage {
            is_whole: true,
            at_ms: from_ms,
            absent_from_ms: Some(from_ms),
            has_twin: false,
        }
    }

    const TEXT: &str = "To=%2B1555&From=%2B1444&Body=hello+you";
    const TEMPLATE: &str = "To=%2B1555&From=%2B1444&ContentSid=HX1";

    fn of(
        form: &str,
        list: &[ListedMessage],
        owned: &[&ListedMessage],
        seen: ListCoverage,
    ) -> Match {
        let owned = owned.iter().map(|one| one.sid.clone()).collect();
        search(form).find_match(list, &owned, seen)
    }

    #[test]
    fn message_is_found_only_if_the_match_is_unique() {
        let one = listed(1, "hello you", 1000);
        let found = Match::Found(one.sid.clone());
        assert_eq!(of(TEXT, std::slice::from_ref(&one), &[], late()), found);
        // Twilio lists a message as soon as it has it, so a match is valid at once.
        let early = ListCoverage { at_ms: AT_MS, is_whole: false, ..late() };
        assert_eq!(of(TEXT, std::slice::from_ref(&one), &[], early), found);
        // A message with another text leaves the match clear; another one with the same text does not.
        let other = listed(2, "something else", 1000);
        assert_eq!(of(TEXT, &[one.clone(), other.clone()], &[], late()), found);
        let twin = listed(3, "hello you", 2000);
        assert_eq!(of(TEXT, &[one.clone(), twin.clone()], &[], late()), Match::Unclear);
        assert_eq!(of(TEXT, &[one.clone(), twin.clone()], &[&twin], late()), found);
        let like = ListCoverage { has_twin: true, ..late() };
        assert_eq!(of(TEXT, std::slice::from_ref(&one), &[], like), Match::Unclear);
        // The text of a template is unknown: the message must be the only candidate.
        assert_eq!(of(TEMPLATE, std::slice::from_ref(&one), &[], late()), found);
        assert_eq!(of(TEMPLATE, &[one.clone(), other], &[], late()), Match::Unclear);
    }

    #[test]
    fn absence_is_proof_only_late_and_in_a_whole_list() {
        assert_eq!(of(TEXT, &[], &[], late()), Match::Absent);
        let from_ms = late().at_ms;
        let unclear = [
            ListCoverage { is_whole: false, ..late() },
            ListCoverage { at_ms: from_ms - 1, ..late() },
            ListCoverage { absent_from_ms: None, ..late() },
        ];
        for seen in unclear {
            assert_eq!(of(TEXT, &[], &[], seen), Match::Unclear, "{seen:?}");
        }
        // A message between the same two addresses that no other record of ours explains may be this one, with a changed
        // text.
        let other = listed(1, "Hello you", 1000);
        assert_eq!(of(TEXT, std::slice::from_ref(&other), &[], late()), Match::Unclear);
        assert_eq!(of(TEXT, std::slice::from_ref(&other), &[&other], late()), Match::Absent);
        let yesterday = listed(1, "hello you", -86_400_000);
        assert_eq!(of(TEXT, &[yesterday], &[], late()), Match::Absent);
        let an_hour_off = listed(1, "hello you", -3_000_000);
        assert_eq!(of(TEXT, &[an_hour_off], &[], late()), Match::Unclear);
        let theirs =
            ListedMessage { direction: Some("inbound".into()), ..listed(1, "hello you", 0) };
        assert_eq!(of(TEXT, &[theirs], &[], late()), Match::Absent);
    }

    #[test]
    fn message_is_found_under_every_spelling_that_twilio_may_list() {
        for (sent, listed_as) in [
            ("+4407400123477", "+447400123477"),
            ("whatsapp:+5215512345678", "whatsapp:+525512345678"),
            ("whatsapp:+525512345678", "whatsapp:+5215512345678"),
            ("+5511987654321", "+551187654321"),
            ("+541169071234", "+5491169071234"),
            ("whatsapp:+22507123456", "whatsapp:+2250707123456"),
            ("whatsapp:+22505123456", "whatsapp:+2250505123456"),
            ("whatsapp:+22997123456", "whatsapp:+2290197123456"),
        ] {
            let form = format!("To={}&From=%2B1444&Body=hello+you", sent.replace('+', "%2B"));
            let one = ListedMessage { to: Some(listed_as.into()), ..listed(1, "hello you", 1000) };
            let found = Match::Found(one.sid.clone());
            assert_eq!(of(&form, std::slice::from_ref(&one), &[], late()), found, "{sent}");
            let asked = search(&form).queries();
            assert!(asked.contains(&(listed_as.to_owned(), "+1444".to_owned())), "{asked:?}");
            let changed = ListedMessage { body: Some("hello".into()), ..one.clone() };
            assert_eq!(of(&form, &[changed], &[], late()), Match::Unclear, "{sent}");
        }
        let sms = "To=%2B525512345678&From=%2B1444&Body=hello+you";
        let other = ListedMessage {
            to: Some("whatsapp:+525512345678".into()),
            ..listed(1, "hello you", 0)
        };
        assert_eq!(of(sms, &[other], &[], late()), Match::Absent, "another channel");
    }

    #[test]
    fn absence_of_a_user_id_is_no_proof() {
        let form = "To=whatsapp%3AUS.3149&From=whatsapp%3A%2B1444&Body=hello+you";
        assert_eq!(of(form, &[], &[], late()), Match::Unclear);
        let mut search =
            search("To=whatsapp%3A%2B14155552671&From=whatsapp%3A%2B1444&Body=hello+you");
        search.also_to.push("whatsapp:US.3149".into());
        let one = ListedMessage {
            to: Some("whatsapp:US.3149".into()),
            from: Some("whatsapp:+1444".into()),
            ..listed(1, "hello you", 0)
        };
        let found = search.find_match(std::slice::from_ref(&one), &BTreeSet::new(), late());
        assert_eq!(found, Match::Found(one.sid));
    }

    #[test]
    fn search_pauses_grow_and_searches_end() {
        assert_eq!(next_search_ms(0, 1_000_000, None, i64::MAX), 1_002_000);
        assert_eq!(next_search_ms(5, 1_000_000, None, i64::MAX), 1_064_000);
        assert_eq!(next_search_ms(5, 1_000_000, Some(1_010_000), i64::MAX), 1_010_000);
        assert_eq!(next_search_ms(60, 1_000_000, None, i64::MAX), 1_300_000);
        assert_eq!(next_search_ms(60, 1_000_000, None, 1_200_000), 0);
    }

    proptest! {
        /// If Twilio lists a candidate, the result is never `Absent`.
        #[test]
        fn candidate_in_the_list_is_never_absent(
            bodies in prop::collection::vec(("[a-c]{0,2}", -3_600_000i64..3_600_000), 1..6),
            text: bool, at_ms: i64, is_whole: bool, has_twin: bool,
        ) {
            let list: Vec<ListedMessage> = (1u32..).zip(&bodies)
                .map(|(n, (body, after_ms))| listed(n, body, *after_ms)).collect();
            let seen = ListCoverage { is_whole, at_ms, absent_from_ms: Some(AT_MS), has_twin };
            let form = if text { TEXT } else { TEMPLATE };
            prop_assert_ne!(of(form, &list, &[], seen), Match::Absent);
        }
    }
}
