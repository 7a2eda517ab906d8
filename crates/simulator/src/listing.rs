//! Lists in the format of Twilio's older APIs: the query parameters, and a page. Knows neither the caller nor HTTP.

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use super::messages::MessageFilter;
use super::refusal::Refusal;

/// Default and highest page size.
pub(super) const PAGE: (usize, usize) = (50, 1000);
const DAY_MS: i64 = 86_400_000;

/// Query of a list of messages.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) filter: MessageFilter,
    pub(super) size: usize,
    pub(super) number: usize,
    /// Query parameters that the next page repeats.
    repeated: String,
}

impl Listing {
    /// Reads a query.
    ///
    /// # Errors
    /// The first invalid parameter.
    pub(super) fn read(query: &str) -> Result<Self, Refusal> {
        let (mut filter, mut size, mut number) = (MessageFilter::default(), PAGE.0, 0_usize);
        let mut repeated = Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "To" => filter.to = Some(value.to_string()),
                "From" => filter.from = Some(value.to_string()),
                "DateSent" => {
                    // SDKs send a day as its first instant.
                    let start = day(&value)?.0.div_euclid(DAY_MS).saturating_mul(DAY_MS);
                    filter.sent_ms = (Some(start), Some(start.saturating_add(DAY_MS)));
                }
                // Twilio puts the comparison into the parameter's name.
                "DateSent>" => filter.sent_ms.0 = Some(day(&value)?.0),
                "DateSent<" => filter.sent_ms.1 = Some(day(&value)?.1),
                "PageSize" => size = value.parse().unwrap_or(PAGE.0).clamp(1, PAGE.1),
                "Page" => number = value.parse().unwrap_or(0),
                "PageToken" => {}
                _ => {
                    return Err(Refusal::bad(
                        20001,
                        format!("{name} is not a parameter of a list"),
                    ));
                }
            }
            if !matches!(&*name, "Page" | "PageSize" | "PageToken") {
                repeated.append_pair(&name, &value);
            }
        }
        Ok(Self { filter, size, number, repeated: repeated.finish() })
    }

    /// Returns the page. `found` starts at its first item and has one more item than the page if more follow.
    pub(super) fn page(&self, account: &str, mut found: Vec<Value>) -> Value {
        let has_more = found.len() > self.size;
        found.truncate(self.size);
        let and = if self.repeated.is_empty() { "" } else { "&" };
        let uri = format!("/2010-04-01/Accounts/{account}/Messages.json?{}{and}", self.repeated);
        page(&uri, "messages", found, self.number, self.size, has_more)
    }
}

/// Returns a page of any items.
pub(super) fn page(
    uri: &str,
    name: &str,
    items: Vec<Value>,
    number: usize,
    size: usize,
    has_more: bool,
) -> Value {
    let joint = if uri.ends_with('&') || uri.ends_with('?') { "" } else { "?" };
    let at = |number: usize| format!("{uri}{joint}PageSize={size}&Page={number}");
    let start = number.saturating_mul(size);
    json!({
        "first_page_uri": at(0), "uri": at(number), "page": number, "page_size": size, "start": start,
        "end": start.saturating_add(items.len().saturating_sub(1)),
        "next_page_uri": has_more.then(|| at(number.saturating_add(1))),
        "previous_page_uri": number.checked_sub(1).map(at),
        name: items,
    })
}

/// Returns the start and end of a day, or of the given instant.
fn day(text: &str) -> Result<(i64, i64), Refusal> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        let at = at.as_millisecond();
        return Ok((at, at.saturating_add(1)));
    }
    let start: jiff::Timestamp = format!("{text}T00:00:00Z")
        .parse()
        .map_err(|_| Refusal::bad(20001, format!("DateSent: {text} is no date")))?;
    let start = start.as_millisecond();
    Ok((start, start.saturating_add(DAY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_is_asked_for_in_every_way_of_the_sdks() {
        let sent = |query: &str| Listing::read(query).map(|listing| listing.filter.sent_ms);
        let day = (Some(DAY_MS), Some(2 * DAY_MS));
        for query in ["DateSent=1970-01-02", "DateSent=1970-01-02T00%3A00%3A00Z"] {
            assert_eq!(sent(query), Ok(day), "{query}");
        }
        assert_eq!(sent("DateSent%3E=1970-01-02&DateSent%3C=1970-01-02"), Ok(day));
        assert_eq!(sent("DateSent=yesterday").unwrap_err().code, 20001);
        assert_eq!(sent("Colour=red").unwrap_err().code, 20001);
    }

    #[test]
    fn page_links_to_its_neighbours() {
        let listing = Listing::read("To=%2B1&PageSize=2&Page=1").unwrap();
        let page = listing.page("AC1", vec![json!(1), json!(2), json!(3)]);
        assert_eq!(
            (&page["messages"], &page["start"], &page["end"]),
            (&json!([1, 2]), &json!(2), &json!(3))
        );
        let next = "/2010-04-01/Accounts/AC1/Messages.json?To=%2B1&PageSize=2&Page=2";
        assert_eq!(page["next_page_uri"], next);
        assert!(page["previous_page_uri"].as_str().unwrap().ends_with("&Page=0"));
        let last = Listing::read("").unwrap().page("AC1", vec![json!(1)]);
        assert_eq!(
            (&last["next_page_uri"], &last["previous_page_uri"]),
            (&json!(null), &json!(null))
        );
    }
}
