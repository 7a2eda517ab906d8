//! Options of a message that no rule reads: the callback URL, the validity period, the price limit, and the caller's metadata.
//! Parses and checks them; knows neither the request nor the store.

use std::collections::BTreeMap;

use form_urlencoded::{Serializer, parse};
use serde::{Deserialize, Serialize};

/// Longest validity period, in seconds; Twilio's limit and default.
pub const MAX_VALIDITY_S: u32 = 36_000;

/// Parameter of Twilio's API with the validity period.
const VALIDITY: &str = "ValidityPeriod";

/// Options of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageOptions {
    /// URL to which Twilio reports the statuses, instead of the configured one.
    pub status_callback: Option<String>,
    /// Validity period, in seconds.
    pub validity_period_s: Option<u32>,
    /// Twilio's price limit, a decimal number; Twilio ignores it since June 2024.
    pub max_price: Option<String>,
    /// Data of the caller, which is returned unchanged.
    pub metadata: Metadata,
}

/// Data of the caller: texts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub BTreeMap<String, String>);

impl Metadata {
    /// Largest number of entries.
    pub const MAX_ENTRIES: usize = 20;
    /// Largest number of characters in a name.
    pub const MAX_NAME: usize = 64;
    /// Largest number of characters in a value.
    pub const MAX_VALUE: usize = 500;

    /// Returns the stored form; empty without entries.
    pub fn to_json(&self) -> String {
        match self.0.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&self.0).unwrap_or_default(),
        }
    }

    /// Reads the stored form.
    pub fn read(text: &str) -> Metadata {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn problem(&self) -> Option<String> {
        let is_text =
            |text: &str, most: usize| text.chars().count() <= most && !text.contains('\0');
        if self.0.len() > Metadata::MAX_ENTRIES {
            return Some(format!("must have at most {} entries", Metadata::MAX_ENTRIES));
        }
        let is_wrong = |(name, value): &(&String, &String)| {
            name.is_empty()
                || !is_text(name, Metadata::MAX_NAME)
                || !is_text(value, Metadata::MAX_VALUE)
        };
        self.0.iter().find(is_wrong).map(|_| {
            let (name, value) = (Metadata::MAX_NAME, Metadata::MAX_VALUE);
            format!("must have names of 1 to {name} characters and values of at most {value}, without NUL")
        })
    }
}

impl MessageOptions {
    /// Returns the first wrong option: its field, and the reason.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if self.status_callback.as_deref().is_some_and(|url| !is_url(url)) {
            let must = "must be an http or https URL; Twilio refuses an underscore in its host";
            return Some(("status_callback", must.to_owned()));
        }
        if self.validity_period_s.is_some_and(|period| !(1..=MAX_VALIDITY_S).contains(&period)) {
            return Some(("validity_period_s", format!("must be 1 to {MAX_VALIDITY_S}")));
        }
        if self.max_price.as_deref().is_some_and(|price| !is_price(price)) {
            return Some(("max_price", "must be a decimal number such as 0.05".to_owned()));
        }
        self.metadata.problem().map(|problem| ("metadata", problem))
    }

    /// Adds the options for Twilio to a form.
    pub fn add_to(&self, form: &mut Serializer<'_, String>) {
        if let Some(url) = &self.status_callback {
            form.append_pair("StatusCallback", url);
        }
        if let Some(period) = self.validity_period_s {
            form.append_pair(VALIDITY, &period.to_string());
        }
        if let Some(price) = &self.max_price {
            form.append_pair("MaxPrice", price);
        }
    }
}

/// Returns whether the text is an http or https URL with a host; Twilio refuses underscores in the host.
pub fn is_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.contains('_'))
    })
}

fn is_price(text: &str) -> bool {
    let is_number = |text: &str| {
        (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    match text.split_once('.') {
        Some((whole, part)) => is_number(whole) && is_number(part),
        None => is_number(text),
    }
}

/// Returns the validity period of a form for Twilio, in milliseconds.
pub fn validity_ms(form: &str) -> Option<i64> {
    let (_, seconds) = parse(form.as_bytes()).find(|(name, _)| name == VALIDITY)?;
    let seconds =
        seconds.parse::<u32>().ok().filter(|seconds| (1..=MAX_VALIDITY_S).contains(seconds));
    seconds.map(|seconds| i64::from(seconds) * 1000)
}

/// Returns the form with the rest of the validity period, in whole seconds: the message may have waited here.
pub fn with_rest_of_validity(form: &str, rest_ms: i64) -> String {
    let rest_s = (rest_ms / 1000).clamp(1, i64::from(MAX_VALIDITY_S)).to_string();
    let mut written = Serializer::new(String::new());
    for (name, value) in parse(form.as_bytes()) {
        let value = if name == VALIDITY { rest_s.as_str() } else { &value };
        written.append_pair(&name, value);
    }
    written.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_options_are_named() {
        let field = |options: MessageOptions| options.problem().map(|(field, _)| field);
        let options = MessageOptions::default;
        assert_eq!(field(options()), None);
        for (url, is_right) in [
            ("https://app.example/status?x=1", true),
            ("http://app.example", true),
            ("app.example", false),
            ("ftp://app.example", false),
            ("https://my_app.example", false),
        ] {
            let found = field(MessageOptions { status_callback: Some(url.into()), ..options() });
            assert_eq!(found.is_none(), is_right, "{url}");
        }
        for (period, is_right) in [(0, false), (1, true), (36_000, true), (36_001, false)] {
            let found = field(MessageOptions { validity_period_s: Some(period), ..options() });
            assert_eq!(found.is_none(), is_right, "{period}");
        }
        for (price, is_right) in
            [("0.05", true), ("1", true), ("1.", false), ("-1", false), ("1e5", false), ("", false)]
        {
            let found = field(MessageOptions { max_price: Some(price.into()), ..options() });
            assert_eq!(found.is_none(), is_right, "{price}");
        }
        let of = |name: &str, value: &str| {
            let metadata = Metadata([(name.to_owned(), value.to_owned())].into());
            field(MessageOptions { metadata, ..options() })
        };
        assert_eq!(of("order", "17"), None);
        for (name, value) in
            [("", "x"), (&*"x".repeat(65), "x"), ("x", &*"y".repeat(501)), ("x", "\0")]
        {
            assert_eq!(of(name, value), Some("metadata"));
        }
        let many = (0..21).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(
            field(MessageOptions { metadata: Metadata(many), ..options() }),
            Some("metadata")
        );
    }

    #[test]
    fn rest_of_the_validity_period_replaces_it() {
        let form = "To=%2B1&ValidityPeriod=600&Body=a+%26+b";
        assert_eq!(validity_ms(form), Some(600_000));
        assert_eq!(with_rest_of_validity(form, 59_999), "To=%2B1&ValidityPeriod=59&Body=a+%26+b");
        assert_eq!(with_rest_of_validity(form, 10), "To=%2B1&ValidityPeriod=1&Body=a+%26+b");
        assert_eq!(with_rest_of_validity("To=%2B1", 10), "To=%2B1");
        for none in ["", "ValidityPeriod=0", "ValidityPeriod=x", "ValidityPeriod=36001"] {
            assert_eq!(validity_ms(none), None, "{none}");
        }
    }

    proptest! {
        /// Metadata is returned as it was stored, and any stored text is read.
        #[test]
        fn metadata_is_returned_unchanged(entries in prop::collection::btree_map(".{1,5}", ".{0,5}", 0..5), text: String) {
            let metadata = Metadata(entries);
            prop_assert_eq!(Metadata::read(&metadata.to_json()), metadata);
            let _ = Metadata::read(&text);
        }
    }
}
