//! List of messages in the pages of Twilio's API: the parameters, and the links of a page. Waiting messages come first, on
//! pages of their own, then the pages of Twilio; the page token distinguishes the two. This module does no lookups.

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use super::DropInError;
use crate::address::Address;

/// Default and highest page size; Twilio's own limit is 1000.
const PAGE: (usize, usize) = (50, 100);

/// Token of Twilio's first page, and the prefix of our own tokens. Twilio's own tokens begin with PA.
const TWILIOS: &str = "TWILIO";
const OURS: &str = "WAITING";

/// Page of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListPosition {
    /// Waiting messages that are older than this: a time in milliseconds since 1970, and an id.
    Waiting(i64, String),
    /// Messages of Twilio at this query.
    Twilio(String),
}

/// Request for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Recipient, if the query has one.
    pub to: Option<Address>,
    /// Sender, or empty.
    pub from: String,
    /// Page size.
    pub size: usize,
    /// Page.
    pub place: ListPosition,
    number: usize,
    /// Query that all pages have in common.
    shared_query: String,
}

impl ListRequest {
    /// Reads a query.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub fn read(query: &str) -> Result<ListRequest, DropInError> {
        let (mut to, mut from, mut size, mut number) = (None, String::new(), PAGE.0, 0);
        let (mut token, mut page, mut has_date) = (None, None, false);
        let mut shared_query = Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let whole = || {
                let wrong = |_| DropInError::new(20001, format!("{name}: must be a number"));
                value.parse::<usize>().map_err(wrong)
            };
            match &*name {
                "To" => to = Address::parse(&value),
                "From" => {
                    from = Address::parse(&value).map_or_else(String::new, |from| from.written())
                }
                "DateSent" | "DateSent<" | "DateSent>" => has_date = true,
                "PageSize" => size = whole()?.clamp(1, PAGE.1),
                "Page" => (number, page) = (whole()?, Some(value.to_string())),
                "PageToken" => token = Some(value.to_string()),
                _ => {
                    let problem = format!("{name} is not a parameter of this list");
                    return Err(DropInError::new(20001, problem));
                }
            }
            if !matches!(&*name, "PageSize" | "Page" | "PageToken") {
                shared_query.append_pair(&name, &value);
            }
        }
        let shared_query = shared_query.append_pair("PageSize", &size.to_string()).finish();
        let twilios =
            |more: &[(&str, &str)]| ListPosition::Twilio(with_parameters(&shared_query, more));
        let place = match (token.as_deref(), page.as_deref()) {
            (Some(TWILIOS), _) => twilios(&[]),
            (Some(token), _) if token.starts_with(OURS) => parse_token(token)
                .ok_or_else(|| DropInError::new(20001, "PageToken: is invalid"))?,
            (Some(token), page) => twilios(&[("Page", page.unwrap_or("0")), ("PageToken", token)]),
            (None, Some(page)) if number > 0 => twilios(&[("Page", page)]),
            // Waiting messages have no date of sending.
            (None, _) if has_date => twilios(&[]),
            (None, _) => ListPosition::Waiting(i64::MAX, String::new()),
        };
        Ok(ListRequest { to, from, size, place, number, shared_query })
    }

    /// Returns the query of Twilio's first page.
    pub fn twilio_query(&self) -> &str {
        &self.shared_query
    }

    /// Returns a page of waiting messages; `last` is the time and the id of its last message, if more follow.
    pub fn page(&self, account_sid: &str, shown: &[Value], last: Option<(i64, &str)>) -> Value {
        let uri = |rest: String| {
            format!("/2010-04-01/Accounts/{account_sid}/Messages.json?{}{rest}", self.shared_query)
        };
        let token = match last {
            Some((at_ms, id)) => format!("{OURS}-{at_ms}-{id}"),
            None => TWILIOS.to_owned(),
        };
        let own = match &self.place {
            ListPosition::Waiting(at_ms, id) if self.number > 0 => {
                format!("&Page={}&PageToken={OURS}-{at_ms}-{id}", self.number)
            }
            _ => String::new(),
        };
        let start = self.number.saturating_mul(self.size);
        let next = self.number.saturating_add(1);
        json!({
            "first_page_uri": uri("&Page=0".to_owned()), "uri": uri(own), "page": self.number,
            "page_size": self.size, "start": start,
            "end": start.saturating_add(shown.len().saturating_sub(1)),
            "next_page_uri": uri(format!("&Page={next}&PageToken={token}")),
            "previous_page_uri": null, "messages": shown,
        })
    }
}

fn with_parameters(query: &str, more: &[(&str, &str)]) -> String {
    Serializer::new(query.to_owned()).extend_pairs(more).finish()
}

fn parse_token(token: &str) -> Option<ListPosition> {
    let (at_ms, id) = token.strip_prefix(OURS)?.strip_prefix('-')?.split_once('-')?;
    let is_id =
        id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_id.then_some(ListPosition::Waiting(at_ms.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(query: &str) -> ListPosition {
        ListRequest::read(query).unwrap().place
    }

    fn twilio(query: &str) -> ListPosition {
        ListPosition::Twilio(query.to_owned())
    }

    #[test]
    fn waiting_messages_precede_the_pages_of_twilio() {
        let first = ListRequest::read("To=%2B16132345678&PageSize=2").unwrap();
        assert_eq!(first.place, ListPosition::Waiting(i64::MAX, String::new()));
        let page = first.page("AC1", &[json!(1), json!(2)], Some((7, "ms_0a")));
        let next = page["next_page_uri"].as_str().unwrap().to_owned();
        let query = next.split_once('?').unwrap().1;
        assert_eq!(place(query), ListPosition::Waiting(7, "ms_0a".into()));
        let second = ListRequest::read(query).unwrap();
        assert_eq!((second.size, second.to.as_ref()), (2, first.to.as_ref()));
        let last = second.page("AC1", &[json!(3)], None);
        assert_eq!(
            (&last["page"], &last["start"], &last["end"]),
            (&json!(1), &json!(2), &json!(2))
        );
        let next = last["next_page_uri"].as_str().unwrap();
        assert_eq!(place(next.split_once('?').unwrap().1), twilio("To=%2B16132345678&PageSize=2"));
    }

    #[test]
    fn date_filter_starts_with_the_pages_of_twilio() {
        for (query, asked) in [
            ("DateSent%3E=2026-11-24", "DateSent%3E=2026-11-24&PageSize=50"),
            ("PageSize=5000&Page=2", "PageSize=100&Page=2"),
            ("Page=1&PageToken=PASM1", "PageSize=50&Page=1&PageToken=PASM1"),
        ] {
            assert_eq!(place(query), twilio(asked));
        }
        for wrong in ["Colour=red", "PageSize=x", "PageToken=WAITING", "PageToken=WAITING-x-ms_0"] {
            assert_eq!(ListRequest::read(wrong).map(|_| ()).unwrap_err().code, 20001, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn list_query_of_any_text_is_read_without_panic(query: String) {
            let _ = ListRequest::read(&query);
            let _ = ListRequest::read(&format!("PageToken=WAITING-{query}"));
        }
    }
}
