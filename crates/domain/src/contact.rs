//! Ids of one contact: a WhatsApp user has a phone number, a business-scoped user id, or both. This module knows the
//! syntax of such an id and its country; the crate `twilio_edge_store` stores which ids belong together.

use crate::{address::Address, phone};

/// Channel that has users without a phone number.
pub const CHANNEL: &str = "whatsapp";

/// Maximum length of the part after the country, in characters (Meta, business-scoped user ids).
const MAX_ID_CHARS: usize = 128;

/// Mark of an id that several businesses of one owner share.
const SHARED: &str = "ENT.";

/// Maximum number of stored numbers for one user id, and of user ids for one number.
pub const MAX_LINKS: usize = 8;

/// Number and user id that one webhook contained together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The account.
    pub account_sid: String,
    /// The number, in E.164.
    pub number: String,
    /// The user id.
    pub user_id: String,
    /// True if the form can be parsed in only one way.
    pub is_certain: bool,
}

/// One stored direction of a [`Link`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLink {
    /// A number or a user id.
    pub number: String,
    /// The other of the two.
    pub other: String,
    /// True if it is certain enough for consents, a START and a window.
    pub is_certain: bool,
}

/// All keys under which one contact may be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactKeys {
    /// The number of the query in every spelling, or the user id.
    pub own: Vec<String>,
    /// Keys that certainly belong to the same contact: consents, a START and a window apply to them.
    pub certain: Vec<String>,
    /// Keys that may belong to the same contact: only a STOP and a withdrawal apply to them.
    pub possible: Vec<String>,
}

impl ContactKeys {
    /// Classifies the keys that are tied to a number, directly or through another key.
    pub fn of(number: &str, links: &[StoredLink]) -> ContactKeys {
        let own: Vec<String> = phone::spellings(number).into_iter().map(Into::into).collect();
        let mut keys = ContactKeys { own, ..ContactKeys::default() };
        // Two sidecars may each have stored a different number as the first one: then neither is certain.
        let has_one_number = |id: &str| {
            let certain = links.iter().filter(|link| link.number == id && link.is_certain);
            let mut numbers = certain.map(|link| phone::identity(&link.other));
            let first = numbers.next();
            numbers.all(|number| Some(number) == first)
        };
        for link in links {
            if keys.has(&link.other) {
                continue;
            }
            let id = if is_user_id(&link.number) { &link.number } else { &link.other };
            let is_near = keys.own.contains(&link.number);
            match is_near && link.is_certain && has_one_number(id) {
                true => keys.certain.push(link.other.clone()),
                false => keys.possible.push(link.other.clone()),
            }
        }
        let certain = keys.certain.clone();
        keys.possible.retain(|key| !certain.contains(key));
        keys
    }

    fn has(&self, key: &str) -> bool {
        self.own.iter().chain(&self.certain).any(|known| known == key)
            || self.possible.iter().any(|known| known == key)
    }

    /// Returns the keys that certainly belong to the contact.
    pub fn certain_keys(&self) -> Vec<&str> {
        self.own.iter().chain(&self.certain).map(String::as_str).collect()
    }

    /// Returns every key.
    pub fn all(&self) -> Vec<&str> {
        self.own.iter().chain(&self.certain).chain(&self.possible).map(String::as_str).collect()
    }
}

/// Returns whether a text is a business-scoped user id: two capital letters of a country, a dot, and letters and
/// digits, as in `US.13491208655302741918` or `US.ENT.11815799212886844830`.
pub fn is_user_id(text: &str) -> bool {
    let Some((country, rest)) = text.split_once('.') else { return false };
    let id = rest.strip_prefix(SHARED).unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=MAX_ID_CHARS).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Returns whether a text is intended as a user id: it begins with letters, which no number does.
pub fn is_like_user_id(text: &str) -> bool {
    text.starts_with(char::is_alphabetic) && text.contains('.')
}

/// Returns the id of a parameter such as `whatsapp:US.13491208655302741918`.
pub fn user_id(parameter: &str) -> Option<String> {
    let address = Address::parse(parameter)?;
    (address.channel == CHANNEL && is_user_id(&address.number)).then_some(address.number)
}

/// Returns the country of an address, in two letters: from the prefix of a user id, or from the digits of a number.
pub fn country(channel: &str, number: &str) -> Option<String> {
    let is_id = channel == CHANNEL && is_user_id(number);
    let of_id = number.get(..2).filter(|_| is_id);
    of_id.map(str::to_owned).or_else(|| phone::country(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_id_is_a_country_and_a_token() {
        for id in ["US.31491208655302741900", "DE.1512345678", "BR.a1B2", "US.ENT.118157"] {
            assert!(is_user_id(id), "{id}");
        }
        let long = format!("US.{}", "1".repeat(129));
        for no in
            ["us.1", "USA.1", "US.", "US.ENT.", "US", "US.1.2", "US.1 2", "U1.1", "+1.2", &long]
        {
            assert!(!is_user_id(no), "{no}");
        }
        assert_eq!(user_id("whatsapp:US.31").as_deref(), Some("US.31"));
        for no in
            ["US.31", "messenger:US.31", "whatsapp:+14155552671", "whatsapp:US.3whatsapp:US.1"]
        {
            assert_eq!(user_id(no), None, "{no}");
        }
    }

    #[test]
    fn first_number_of_a_user_id_is_certain_and_later_ones_are_not() {
        let link = |number: &str, other: &str, is_certain| StoredLink {
            number: number.into(),
            other: other.into(),
            is_certain,
        };
        let first = "+14155552671";
        let links = [
            link(first, "US.1", true),
            link("US.1", first, true),
            link("US.1", "+447400123456", false),
        ];
        let keys = ContactKeys::of(first, &links);
        assert_eq!(
            (keys.certain, keys.possible),
            (vec!["US.1".into()], vec!["+447400123456".into()])
        );
        let of_id = ContactKeys::of("US.1", &links[1..]);
        assert_eq!(
            (of_id.certain, of_id.possible),
            (vec![first.into()], vec!["+447400123456".into()])
        );
        let later = ContactKeys::of(
            "+447400123456",
            &[link("+447400123456", "US.1", false), link("US.1", first, true)],
        );
        assert_eq!(later.certain, Vec::<String>::new());
        assert_eq!(later.possible, ["US.1", first]);
        // Two numbers both claim to be the first: neither is certain.
        let both = [link("US.1", first, true), link("US.1", "+447400123456", true)];
        assert_eq!(ContactKeys::of("US.1", &both).certain, Vec::<String>::new());
    }

    #[test]
    fn country_of_a_user_id_is_its_first_two_letters() {
        assert_eq!(country(CHANNEL, "DE.1512345678").as_deref(), Some("DE"));
        assert_eq!(country(CHANNEL, "+4915123456789").as_deref(), Some("DE"));
        assert_eq!(country("messenger", "DE.1512345678"), None);
    }
}
