//! Replies to opt-out keywords, opt-in keywords and requests for help. The texts are data of the policy. This module decides
//! which text replies to a keyword, and validates the texts. It sends nothing, and does not know which keywords are new.
//!
//! A text with a language replies to keywords of that language; a text with countries, to contacts of these countries; a
//! text with neither, to all others. Of several texts that fit, the language counts more than the country, and the
//! country more than the channel.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use twilio_edge_contract::Opt;

use crate::optout::LOCALES;

/// Longest text, in characters, as of every message.
const MAX_TEXT_CHARS: usize = 1600;

/// Largest number of texts of one account.
const MAX_TEXTS: usize = 200;

/// Largest number of countries of one text.
const MAX_COUNTRIES: usize = 250;

/// Text that replies to a keyword.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyText {
    /// Meaning of the keyword: `stop`, `start` or `help`.
    pub keyword: Opt,
    /// Channel on which the text is sent. Without it, the text is sent on every channel on which Twilio does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Language of the keyword, as in `optout.locales`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Countries of the contact's number: two letters each (ISO 3166-1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// Text of the reply.
    #[schema(min_length = 1, max_length = 1600)]
    pub text: String,
}

/// Keyword of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedKeyword<'a> {
    /// Meaning.
    pub keyword: Opt,
    /// Languages to which the word belongs; empty if it is a keyword in every language.
    pub languages: &'a [String],
    /// Channel on which it arrived.
    pub channel: &'a str,
    /// Country of the contact, if it is known.
    pub country: Option<&'a str>,
}

impl ReplyText {
    /// Returns how well the text fits the keyword, if it may reply to it.
    fn fit(&self, received: ReceivedKeyword<'_>) -> Option<(bool, bool, bool)> {
        let has_language =
            self.language.as_ref().is_none_or(|own| received.languages.contains(own));
        let has_country = self.countries.is_empty()
            || received.country.is_some_and(|country| self.countries.iter().any(|c| c == country));
        let has_channel = self.channel.as_ref().is_none_or(|channel| *channel == received.channel);
        let fits = self.keyword == received.keyword && has_language && has_country && has_channel;
        fits.then(|| (self.language.is_some(), !self.countries.is_empty(), self.channel.is_some()))
    }

    /// Returns whether the text replies to keywords of every language and contacts of every country.
    fn is_default(&self) -> bool {
        self.language.is_none() && self.countries.is_empty()
    }

    fn problems(&self, path: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let chars = self.text.chars().count();
        if !(1..=MAX_TEXT_CHARS).contains(&chars) || self.text.trim().is_empty() {
            problems.push(format!("{path}.text: must have 1 to {MAX_TEXT_CHARS} characters"));
        }
        if self.text.chars().any(|c| c.is_control() && c != '\n') {
            problems.push(format!("{path}.text: must have no control characters but line feeds"));
        }
        let is_channel = |channel: &str| {
            (1..=32).contains(&channel.len())
                && channel.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        if let Some(channel) = self.channel.as_deref().filter(|channel| !is_channel(channel)) {
            problems.push(format!("{path}.channel: {channel:?} is not a channel such as whatsapp"));
        }
        if let Some(language) = &self.language
            && !LOCALES.iter().any(|locale| locale.tag == *language)
        {
            let tags: Vec<&str> = LOCALES.iter().map(|locale| locale.tag.as_str()).collect();
            let tags = tags.join(", ");
            problems.push(format!("{path}.language: {language:?} must be one of {tags}"));
        }
        if self.countries.len() > MAX_COUNTRIES {
            problems.push(format!("{path}.countries: must have at most {MAX_COUNTRIES} entries"));
        }
        let is_country =
            |code: &str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        if let Some(country) = self.countries.iter().find(|code| !is_country(code)) {
            problems.push(format!(
                "{path}.countries: {country:?} is not a country: use two capital letters, as in FR"
            ));
        }
        problems
    }
}

/// Returns the text that replies to a keyword, if there is one.
pub fn select<'t>(texts: &'t [ReplyText], received: ReceivedKeyword<'_>) -> Option<&'t ReplyText> {
    let fitting = texts.iter().filter_map(|text| Some((text.fit(received)?, text)));
    // Of equal texts the first one is taken; `max_by_key` would return the last.
    fitting.rev().max_by_key(|(fit, _)| *fit).map(|(_, text)| text)
}

/// Returns every problem of the texts, each with its path. `answered_by_twilio` has the channels on which Twilio answers.
pub fn problems(texts: &[ReplyText], answered_by_twilio: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if texts.len() > MAX_TEXTS {
        problems.push(format!("replies: must have at most {MAX_TEXTS} texts"));
    }
    for (place, text) in texts.iter().enumerate() {
        let path = format!("replies[{place}]");
        problems.extend(text.problems(&path));
        let channel = text.channel.as_deref();
        if let Some(channel) = channel.filter(|own| answered_by_twilio.iter().any(|c| c == own)) {
            problems.push(format!(
                "{path}.channel: Twilio answers keywords on {channel}: if it does not for this account, remove {channel} from twilio_answers"
            ));
        }
        let is_same = |other: &&ReplyText| {
            (other.keyword, &other.channel, &other.language)
                == (text.keyword, &text.channel, &text.language)
                && countries(other) == countries(text)
        };
        if texts.iter().take(place).any(|other| is_same(&other)) {
            problems.push(format!(
                "{path}: an earlier text has the same keyword, channel, language and countries"
            ));
        }
        let covers = |other: &ReplyText| {
            other.is_default()
                && other.keyword == text.keyword
                && (other.channel.is_none() || other.channel == text.channel)
        };
        if !texts.iter().any(covers) {
            let keyword = text.keyword.as_str();
            problems.push(format!(
                "{path}: {keyword} needs a text without language and countries, for all other contacts"
            ));
        }
    }
    problems
}

fn countries(text: &ReplyText) -> BTreeSet<&str> {
    text.countries.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(keyword: Opt, text: &str) -> ReplyText {
        let text = text.to_owned();
        ReplyText { keyword, channel: None, language: None, countries: Vec::new(), text }
    }

    fn texts() -> Vec<ReplyText> {
        let stop = |words: &str| text(Opt::Stop, words);
        let (channel, language) = (Some("messenger".to_owned()), Some("fr".to_owned()));
        vec![
            stop("default"),
            ReplyText { language: language.clone(), ..stop("french") },
            ReplyText { countries: vec!["DE".into(), "AT".into()], ..stop("german number") },
            ReplyText { language, countries: vec!["CA".into()], ..stop("canadian french") },
            ReplyText { channel, ..stop("messenger") },
            text(Opt::Help, "help"),
        ]
    }

    fn selected(keyword: Opt, channel: &str, languages: &[&str], country: Option<&str>) -> String {
        let languages: Vec<String> = languages.iter().map(|tag| (*tag).to_owned()).collect();
        let received = ReceivedKeyword { keyword, languages: &languages, channel, country };
        let all = texts();
        select(&all, received).map(|found| found.text.clone()).unwrap_or_default()
    }

    #[test]
    fn reply_has_the_language_of_the_keyword_else_of_the_country() {
        for (channel, languages, country, expected) in [
            ("whatsapp", &[][..], None, "default"),
            ("whatsapp", &[], Some("FR"), "default"),
            ("whatsapp", &["es", "fr"], None, "french"),
            ("whatsapp", &["es"], None, "default"),
            ("whatsapp", &[], Some("AT"), "german number"),
            ("whatsapp", &["fr"], Some("AT"), "french"),
            ("whatsapp", &["fr"], Some("CA"), "canadian french"),
            ("messenger", &[], None, "messenger"),
            ("messenger", &["fr"], None, "french"),
        ] {
            let found = selected(Opt::Stop, channel, languages, country);
            assert_eq!(found, expected, "{channel} {languages:?} {country:?}");
        }
        assert_eq!(selected(Opt::Help, "whatsapp", &["fr"], Some("DE")), "help");
        assert_eq!(selected(Opt::Start, "whatsapp", &[], None), "", "START has no text");
    }

    #[test]
    fn invalid_reply_is_refused_with_its_path() {
        let twilio = ["sms".to_owned()];
        assert_eq!(problems(&texts(), &twilio), Vec::<String>::new());
        let stop = || text(Opt::Stop, "bye");
        let wrong = |change: fn(&mut ReplyText)| {
            let mut one = stop();
            change(&mut one);
            problems(&[text(Opt::Stop, "default"), one], &twilio).join("; ")
        };
        for (found, expected) in [
            (wrong(|one| one.text = " \n".into()), "replies[1].text: must have 1 to 1600"),
            (wrong(|one| one.text = "x".repeat(1601)), "replies[1].text: must have 1 to 1600"),
            (wrong(|one| one.text = "a\u{7}".into()), "replies[1].text: must have no control"),
            (wrong(|one| one.channel = Some("Sms".into())), "replies[1].channel: \"Sms\" is not"),
            (wrong(|one| one.channel = Some("sms".into())), "replies[1].channel: Twilio answers"),
            (wrong(|one| one.language = Some("xx".into())), "replies[1].language: \"xx\" must be"),
            (wrong(|one| one.countries = vec!["de".into()]), "replies[1].countries: \"de\" is not"),
            (wrong(|_| ()), "replies[1]: an earlier text has the same keyword"),
        ] {
            assert!(found.starts_with(expected), "{found}");
        }
        let french = ReplyText { language: Some("fr".into()), ..stop() };
        let alone = problems(std::slice::from_ref(&french), &twilio).join("; ");
        assert!(alone.starts_with("replies[0]: stop needs a text without language"), "{alone}");
        let elsewhere = ReplyText { channel: Some("rcs".into()), ..stop() };
        assert_eq!(problems(&[french, elsewhere], &twilio).len(), 1);
        assert_eq!(problems(&vec![stop(); 201], &twilio).len(), 201);
    }

    fn any_text() -> impl Strategy<Value = ReplyText> {
        let option = |values: &'static [&'static str]| {
            prop::option::of(prop::sample::select(values).prop_map(str::to_owned))
        };
        let keyword = prop::sample::select(&[Opt::Stop, Opt::Start, Opt::Help][..]);
        let channel = option(&["whatsapp", "messenger", "rcs", "sms", ""]);
        let language = option(&["fr", "de", "xx"]);
        let country = prop::sample::select(&["FR", "DE", "d"][..]).prop_map(str::to_owned);
        let countries = prop::collection::vec(country, 0..3);
        (keyword, channel, language, countries, "\\PC{0,4}").prop_map(
            |(keyword, channel, language, countries, text)| ReplyText {
                keyword,
                channel,
                language,
                countries,
                text,
            },
        )
    }

    proptest! {
        /// Property: with valid texts, every contact gets an answer to a keyword that has a text for the channel, and the
        /// answer is for that keyword, channel, language and country.
        #[test]
        fn valid_texts_answer_every_contact(
            texts in prop::collection::vec(any_text(), 0..6), channel in "whatsapp|messenger|rcs",
            languages in prop::collection::vec("fr|de|es", 0..3), country in prop::option::of("FR|DE|US"),
        ) {
            let all_problems = problems(&texts, &["sms".to_owned()]);
            for problem in &all_problems {
                prop_assert!(problem.starts_with("replies"), "{}", problem);
            }
            for keyword in [Opt::Stop, Opt::Start, Opt::Help] {
                let country = country.as_deref();
                let received = ReceivedKeyword { keyword, languages: &languages, channel: &channel, country };
                let found = select(&texts, received);
                if let Some(found) = found {
                    prop_assert_eq!(found.keyword, keyword);
                    prop_assert!(found.channel.as_ref().is_none_or(|own| *own == channel));
                    prop_assert!(found.language.as_ref().is_none_or(|own| languages.contains(own)));
                    let has_country = country.is_some_and(|country| found.countries.iter().any(|own| own == country));
                    prop_assert!(found.countries.is_empty() || has_country);
                }
                let has_text = texts.iter().any(|text| {
                    text.keyword == keyword && text.channel.as_ref().is_none_or(|own| *own == channel)
                });
                if all_problems.is_empty() {
                    prop_assert_eq!(found.is_some(), has_text);
                }
            }
        }

        /// Property: any JSON is read as texts or refused, without a panic; what is read is written as the same JSON.
        #[test]
        fn texts_are_read_and_written_unchanged(texts in prop::collection::vec(any_text(), 0..4)) {
            let written = serde_json::to_string(&texts).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<ReplyText>>(&written).unwrap(), texts);
        }
    }
}
