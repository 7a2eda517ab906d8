//! Language of a template, as Twilio and Meta write it (`en`, `pt_BR`), and its substitutes.

use std::fmt;

/// Default language, the last substitute of every other one.
const DEFAULT: &str = "en_US";

/// Language, optionally with script and country.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locale(String);

impl Locale {
    /// Parses `en`, `pt_BR`, `zh_Hant_TW`; accepts `-` for `_`, and any letter case.
    pub fn parse(text: &str) -> Option<Locale> {
        let mut written = String::with_capacity(text.len());
        for (n, part) in text.split(['-', '_']).enumerate() {
            let is_letters = part.bytes().all(|byte| byte.is_ascii_alphabetic());
            let is_digits = part.bytes().all(|byte| byte.is_ascii_digit());
            let lower = part.to_ascii_lowercase();
            let part = match (n, part.len()) {
                (0, 2 | 3) if is_letters => lower,
                (1, 4) if is_letters => {
                    let (first, rest) = lower.split_at_checked(1)?;
                    format!("{}{rest}", first.to_ascii_uppercase())
                }
                (1 | 2, 2) if is_letters => lower.to_ascii_uppercase(),
                (1 | 2, 3) if is_digits => lower,
                _ => return None,
            };
            if n > 0 {
                written.push('_');
            }
            written.push_str(&part);
        }
        Some(Locale(written))
    }

    /// Returns the default language.
    pub fn default_locale() -> Locale {
        Locale(DEFAULT.to_owned())
    }

    /// Returns the language as Twilio writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the language and its substitutes, the best first: without country, without script; then the default
    /// language, likewise.
    pub fn chain(&self) -> Vec<Locale> {
        let mut chain: Vec<Locale> = Vec::new();
        for locale in [self.0.as_str(), DEFAULT] {
            let mut rest = Some(locale);
            while let Some(locale) = rest {
                if !chain.iter().any(|have| have.0 == locale) {
                    chain.push(Locale(locale.to_owned()));
                }
                rest = locale.rsplit_once('_').map(|(wider, _)| wider);
            }
        }
        chain
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locale_is_normalized() {
        for (text, written) in [
            ("en", Some("en")),
            ("pt-br", Some("pt_BR")),
            ("PT_BR", Some("pt_BR")),
            ("zh_hant_tw", Some("zh_Hant_TW")),
            ("es_419", Some("es_419")),
            ("fil", Some("fil")),
            ("", None),
            ("e", None),
            ("en_", None),
            ("english", None),
            ("en_USA", None),
            ("en us", None),
            ("en_US_x", None),
            ("é1", None),
        ] {
            assert_eq!(Locale::parse(text).as_ref().map(Locale::as_str), written, "{text}");
        }
    }

    #[test]
    fn another_language_does_instead() {
        let chain = |text| {
            let chain = Locale::parse(text).unwrap().chain();
            chain.iter().map(|locale| locale.0.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chain("pt_BR"), "pt_BR pt en_US en");
        assert_eq!(chain("zh_Hant_TW"), "zh_Hant_TW zh_Hant zh en_US en");
        assert_eq!(chain("en_GB"), "en_GB en en_US");
        assert_eq!(chain("en_US"), "en_US en");
        assert_eq!(chain("de"), "de en_US en");
    }

    proptest! {
        #[test]
        fn locale_round_trips(text in "[a-zA-Z0-9_-]{0,12}|\\PC{0,8}") {
            if let Some(locale) = Locale::parse(&text) {
                prop_assert_eq!(Locale::parse(locale.as_str()), Some(locale.clone()));
                prop_assert_eq!(&locale.chain()[0], &locale);
                prop_assert!(locale.chain().contains(&Locale::default_locale()));
            }
        }
    }
}
