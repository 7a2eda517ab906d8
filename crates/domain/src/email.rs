//! E-mail: addresses, content, the meaning of a provider's answer, and SendGrid's events with their signature. An e-mail is an
//! outbound message on the channel `email`; rules, suppressions and consents treat its recipient as they treat a number. This
//! module makes no call.

pub mod content;
pub mod error_code;
pub mod event;
pub mod outcome;
pub mod signature;

use std::fmt;

use url::Host;

/// Channel of e-mails.
pub const CHANNEL: &str = "email";

/// Largest length of an address (RFC 5321, with errata 1690) and of its local part, in bytes.
const MAX_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;

/// Punctuation that a local part may have without quotes (RFC 5322, `atext`).
const PUNCTUATION: &[u8] = b"!#$%&'*+/=?^_`{|}~-.";

/// E-mail address in the one form in which it is stored: lower case, with the domain in ASCII. RFC 5321 permits local parts
/// that differ only in case; mail providers treat them as one mailbox, and a suppression must match every spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Parses an address without a display name.
    ///
    /// # Errors
    /// Returns the problem. It does not contain the address.
    pub fn parse(text: &str) -> Result<EmailAddress, &'static str> {
        let (local, domain) =
            text.trim().rsplit_once('@').ok_or("it must have the form name@example.com")?;
        let is_plain =
            local.bytes().all(|byte| byte.is_ascii_alphanumeric() || PUNCTUATION.contains(&byte));
        if !(1..=MAX_LOCAL_BYTES).contains(&local.len()) || !is_plain {
            return Err(
                "the part before the @ must have 1 to 64 letters, digits or signs such as . _ + -, without quotes and accents",
            );
        }
        if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
            return Err(
                "the part before the @ must not begin or end with a dot, or contain two in a row",
            );
        }
        let domain = ascii_domain(domain)
            .ok_or("the part after the @ must be a domain such as example.com")?;
        let address = format!("{}@{domain}", local.to_ascii_lowercase());
        if address.len() > MAX_BYTES {
            return Err("it must have at most 254 bytes");
        }
        Ok(EmailAddress(address))
    }

    /// Returns the whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows only the domain, because a whole address must not reach a log.
impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the masked form of an address: two dots, and its domain. A valid address never contains two dots in a row.
pub fn masked(address: &str) -> String {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    format!("..@{domain}")
}

/// Returns a domain in ASCII and lower case; `None` for an address of a host, or a name that mail cannot have.
fn ascii_domain(domain: &str) -> Option<String> {
    // The parser of URLs would decode escapes.
    let Host::Domain(domain) = Host::parse(domain).ok().filter(|_| !domain.contains('%'))? else {
        return None;
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (domain.contains('.') && domain.split('.').all(is_label)).then_some(domain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn address_has_one_stored_form() {
        for (text, stored) in [
            ("Ava@Example.COM", "ava@example.com"),
            (" ava+news@mail.example.com ", "ava+news@mail.example.com"),
            ("o'hara@example.com", "o'hara@example.com"),
            ("ava@b\u{fc}cher.example", "ava@xn--bcher-kva.example"),
        ] {
            let address = EmailAddress::parse(text).unwrap();
            assert_eq!(address.as_str(), stored);
            assert_eq!(EmailAddress::parse(stored), Ok(address));
        }
        let long = format!("{}@example.com", "a".repeat(65));
        let longer = format!("a@{}.com", "a.".repeat(130));
        for text in [
            "",
            "ava",
            "@example.com",
            "ava@",
            "ava@localhost",
            "ava@127.0.0.1",
            "ava@[::1]",
            "ava@exa%6dple.com",
            "ava@-example.com",
            "ava@exa_mple.com",
            "ava@example..com",
            "ava@example.com\nBcc: b@example.com",
            "a..b@example.com",
            ".a@example.com",
            "a.@example.com",
            "\"a b\"@example.com",
            "a,b@example.com",
            "a@b@example.com",
            "Ava <ava@example.com>",
            "av\u{e1}@example.com",
            &long,
            &longer,
        ] {
            assert!(EmailAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn shown_address_has_only_its_domain() {
        let address = EmailAddress::parse("ava@example.com").unwrap();
        assert_eq!(
            (address.to_string(), format!("{address:?}")),
            ("..@example.com".into(), "..@example.com".into())
        );
        assert_eq!(masked("nonsense"), "..@");
    }

    proptest! {
        /// A stored address is its own normal form, fits a header line, and never looks masked.
        #[test]
        fn parsed_address_is_normal(text in "\\PC{0,20}@\\PC{0,20}|[A-Za-z.+]{1,9}@[A-Za-z0-9.-]{1,20}") {
            if let Ok(address) = EmailAddress::parse(&text) {
                prop_assert_eq!(EmailAddress::parse(address.as_str()), Ok(address.clone()));
                prop_assert!(address.as_str().is_ascii() && !address.as_str().contains(char::is_whitespace));
                prop_assert!(!address.as_str().contains(".."));
            }
        }
    }
}
