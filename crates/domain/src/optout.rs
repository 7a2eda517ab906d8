//! Classifier of opt-outs, opt-ins and requests for help. The words are data: `[optout]` of the configuration, and
//! `keywords.toml` for other languages. The rule is Twilio's: the whole message is one keyword of the list (docs:
//! advanced-opt-out). Only differences that carry no meaning are ignored around and inside that word:
//!
//! - everything that is neither a letter nor a digit before and after it: blanks, punctuation, quotes, emoji;
//! - letter case, and the full width that Asian keyboards type (`ＳＴＯＰ`).
//!
//! "please stop" is not an opt-out by this rule, and Twilio does not treat it as one either. A keyword may have several
//! words (`OPT OUT`) if the settings list it. The business chose the text of a button or a list row, so only the words
//! of `button_stop` opt out there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    sync::LazyLock,
};

use serde::{Deserialize, Serialize};
use twilio_edge_contract::Opt;

/// Keywords by meaning, as configured. They are folded before they are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keywords {
    /// Suppress the sender from now on.
    pub stop: Vec<String>,
    /// End the suppression.
    pub start: Vec<String>,
    /// Ask for help; they change nothing.
    pub help: Vec<String>,
    /// Words that suppress as the reply of a button or a list row.
    pub button_stop: Vec<String>,
    /// Languages with keywords that are also in effect: tags of [`LOCALES`].
    pub locales: Vec<String>,
    /// Error codes of status callbacks that suppress the recipient.
    pub error_codes: Vec<String>,
    /// Error codes of status callbacks that withdraw the recipient's consent to marketing.
    pub marketing_error_codes: Vec<String>,
}

/// Keywords of one language.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeywordLocale {
    /// Two letters (ISO 639-1).
    pub tag: String,
    /// English name of the language.
    pub language: String,
    /// As in [`Keywords`].
    pub stop: Vec<String>,
    /// As in [`Keywords`].
    pub start: Vec<String>,
    /// As in [`Keywords`].
    pub help: Vec<String>,
    /// As in [`Keywords`].
    pub button_stop: Vec<String>,
    /// Words that are left out, each with its other meaning.
    pub ambiguous: BTreeMap<String, String>,
}

/// Languages that are known, in the order of their tags.
pub static LOCALES: LazyLock<Vec<KeywordLocale>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        locale: Vec<KeywordLocale>,
    }
    let file = toml::from_str::<File>(include_str!("../keywords.toml"));
    file.map(|file| file.locale).unwrap_or_default()
});

/// [`Keywords`] in hash tables, because every webhook is classified.
#[derive(Debug, Clone, Default)]
pub struct Lexicon {
    words: HashMap<String, Opt>,
    /// Languages of the words that are no keywords of `stop`, `start`, `help` or `button_stop`.
    languages: HashMap<String, Vec<String>>,
    buttons: HashSet<String>,
    codes: HashSet<String>,
    marketing_codes: HashSet<String>,
    longest: usize,
}

/// Upper bound of words in one keyword. While no sidecar is available, the filter holds back the answer to shorter
/// messages.
const MAX_WORDS: usize = 2;

twilio_edge_contract::string_enum! {
    /// Reason why a message is an [`Opt`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Cause {
        /// `OptOutType`: Twilio's Advanced Opt-Out already acted on it.
        OptOutType = "opt_out_type",
        /// The message is a keyword.
        Keyword = "keyword",
    }
}

/// Time between the arrival of a message and its processing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Processed on arrival: everything recorded before it was also sent before it.
    OnTime,
    /// Processed up to [`LATE_MS`] after arrival, because no sidecar was available then.
    Late,
}

/// Milliseconds for which a filter keeps a webhook that it forwarded without a verdict.
const LATE_MS: i64 = 60 * 60 * 1000;

/// Returns whether a START ends a suppression recorded at `suppressed_at_ms`. A late START may be older than that STOP;
/// where the order is unknown, STOP wins.
pub fn is_ended_by_start(arrival: Arrival, suppressed_at_ms: i64, now_ms: i64) -> bool {
    arrival == Arrival::OnTime || now_ms.saturating_sub(suppressed_at_ms) > LATE_MS
}

impl Keywords {
    /// Returns the lists with meaning and name, the strictest first.
    fn lists(&self) -> impl Iterator<Item = (Opt, String, &[String])> {
        let own: [(Opt, &[String]); 3] =
            [(Opt::Stop, &self.stop), (Opt::Start, &self.start), (Opt::Help, &self.help)];
        let chosen = LOCALES.iter().filter(|locale| self.locales.contains(&locale.tag));
        let foreign = chosen.flat_map(|locale| {
            let lists: [(Opt, &[String]); 3] =
                [(Opt::Stop, &locale.stop), (Opt::Start, &locale.start), (Opt::Help, &locale.help)];
            lists.map(|(opt, words)| (opt, format!("locales, {}", locale.tag), words))
        });
        own.map(|(opt, words)| (opt, opt.as_str().to_owned(), words)).into_iter().chain(foreign)
    }

    /// Returns the words that opt out as the reply of a button: the configured ones and those of the chosen languages.
    fn button_words(&self) -> impl Iterator<Item = &String> {
        let chosen = LOCALES.iter().filter(|locale| self.locales.contains(&locale.tag));
        self.button_stop.iter().chain(chosen.flat_map(|locale| &locale.button_stop))
    }

    /// Returns the languages of each word of the chosen languages. A word that is also configured for all languages has none.
    fn languages(&self) -> HashMap<String, Vec<String>> {
        let mut languages: HashMap<String, Vec<String>> = HashMap::new();
        for locale in LOCALES.iter().filter(|locale| self.locales.contains(&locale.tag)) {
            let lists = [&locale.stop, &locale.start, &locale.help, &locale.button_stop];
            for word in lists.into_iter().flatten() {
                let of_word = languages.entry(fold(word)).or_default();
                if !of_word.contains(&locale.tag) {
                    of_word.push(locale.tag.clone());
                }
            }
        }
        let general = [&self.stop, &self.start, &self.help, &self.button_stop];
        for word in general.into_iter().flatten() {
            languages.remove(&fold(word));
        }
        languages
    }

    /// Returns the lexicon, or every problem: entries that are no keyword, and words with two meanings.
    pub fn lexicon(&self) -> Result<Lexicon, Vec<String>> {
        let mut problems = Vec::new();
        let mut meanings: HashMap<String, (Opt, String)> = HashMap::new();
        let (mut longest, mut buttons) = (1, HashSet::new());
        for tag in &self.locales {
            if !LOCALES.iter().any(|locale| locale.tag == *tag) {
                let tags: Vec<&str> = LOCALES.iter().map(|locale| locale.tag.as_str()).collect();
                problems.push(format!("locales: {tag:?} must be one of {}", tags.join(", ")));
            }
        }
        for (opt, list, words) in self.lists() {
            for word in words {
                let folded = fold(word);
                let words = folded.split_whitespace().count();
                if !(1..=MAX_WORDS).contains(&words) {
                    problems.push(format!("{list}: {word:?} must have 1 to {MAX_WORDS} words"));
                }
                longest = longest.max(words);
                let (other, other_list) =
                    meanings.entry(folded).or_insert_with(|| (opt, list.clone()));
                if *other != opt {
                    problems.push(format!("{list}: {word:?} is also in optout.{other_list}"));
                }
            }
        }
        for word in self.button_words() {
            let folded = fold(word);
            let words = folded.split_whitespace().count();
            if !(1..=MAX_WORDS).contains(&words) {
                problems.push(format!("button_stop: {word:?} must have 1 to {MAX_WORDS} words"));
            }
            if let Some((_, list)) = meanings.get(&folded).filter(|(opt, _)| *opt != Opt::Stop) {
                problems.push(format!("button_stop: {word:?} is also in optout.{list}"));
            }
            buttons.insert(folded);
        }
        for (list, codes) in [
            ("error_codes", &self.error_codes),
            ("marketing_error_codes", &self.marketing_error_codes),
        ] {
            for code in codes {
                if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_digit()) {
                    problems
                        .push(format!("{list}: {code:?} is not an error code: it must have digits only, as in 21610"));
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Lexicon {
                languages: self.languages(),
                words: meanings.into_iter().map(|(word, (opt, _))| (word, opt)).collect(),
                buttons,
                codes: self.error_codes.iter().cloned().collect(),
                marketing_codes: self.marketing_error_codes.iter().cloned().collect(),
                longest,
            }),
            false => Err(problems),
        }
    }
}

impl Lexicon {
    /// Returns the meaning of a message. `opt_out_type` is Twilio's own verdict and wins when its value is known.
    pub fn classify(&self, body: &str, opt_out_type: Option<&str>) -> Option<(Opt, Cause)> {
        if let Some(opt) = opt_out_type.and_then(by_opt_out_type) {
            return Some((opt, Cause::OptOutType));
        }
        // Most messages have more words than any keyword, so they need no folding.
        let words = body.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
        let most = self.most_words();
        if !(1..=most).contains(&words.take(most.saturating_add(1)).count()) {
            return None;
        }
        self.words.get(&fold(body)).map(|opt| (*opt, Cause::Keyword))
    }

    /// Returns the meaning of a reply by button or list row. The business chose its texts and ids, so only a word of
    /// `button_stop` opts out, and no word opts in. `opt_out_type` is Twilio's own verdict and wins.
    pub fn classify_button<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        opt_out_type: Option<&str>,
    ) -> Option<(Opt, Cause)> {
        if let Some(opt) = opt_out_type.and_then(by_opt_out_type) {
            return Some((opt, Cause::OptOutType));
        }
        let is_stop = texts.into_iter().any(|text| self.buttons.contains(&fold(text)));
        is_stop.then_some((Opt::Stop, Cause::Keyword))
    }

    /// Returns the languages to which a keyword belongs; empty for a keyword of all languages, and for any other text.
    pub fn languages(&self, keyword: &str) -> &[String] {
        self.languages.get(&fold(keyword)).map_or(&[], Vec::as_slice)
    }

    /// Returns the number of words of the longest keyword.
    pub fn most_words(&self) -> usize {
        self.longest.max(1)
    }

    /// Returns whether a status callback with this error code withdraws the recipient's consent to marketing.
    pub fn withdraws_marketing(&self, error_code: &str) -> bool {
        self.marketing_codes.contains(error_code)
    }

    /// Returns whether a status callback with this error code suppresses the recipient.
    pub fn suppresses(&self, error_code: &str) -> bool {
        self.codes.contains(error_code)
    }
}

/// Returns the keyword table of docs/COMPLIANCE.md: the words of the settings and of each language.
pub fn reference(usual: &Keywords) -> String {
    let mut text =
        "| language | STOP | STOP as a button | START | HELP | excluded words, with their other meaning |\n\
         |---|---|---|---|---|---|\n"
            .to_owned();
    let mut row = |language: &str, lists: [&[String]; 4], left_out: &str| {
        let [stop, button, start, help] = lists.map(|words| words.join(", "));
        let _ =
            writeln!(text, "| {language} | {stop} | {button} | {start} | {help} | {left_out} |");
    };
    row("English (always)", [&usual.stop, &usual.button_stop, &usual.start, &usual.help], "");
    for KeywordLocale { tag, language, stop, start, help, button_stop, ambiguous } in LOCALES.iter()
    {
        let left_out: Vec<String> =
            ambiguous.iter().map(|(word, meaning)| format!("{word}: {meaning}")).collect();
        row(
            &format!("{language} (`{tag}`)"),
            [stop, button_stop, start, help],
            &left_out.join("; "),
        );
    }
    text
}

fn by_opt_out_type(value: &str) -> Option<Opt> {
    match value.trim().to_ascii_uppercase().as_str() {
        "STOP" => Some(Opt::Stop),
        "START" => Some(Opt::Start),
        "HELP" => Some(Opt::Help),
        _ => None,
    }
}

/// Returns the normal form in which messages and keywords are compared: narrow, lower case, without surrounding
/// punctuation and without combining accents.
fn fold(text: &str) -> String {
    let narrow: String = text.chars().map(narrow).collect();
    let lower = narrow.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let bare: String = lower.chars().filter(|c| !matches!(c, '\u{300}'..='\u{36f}')).collect();
    match bare.contains(char::is_whitespace) {
        true => bare.split_whitespace().collect::<Vec<&str>>().join(" "),
        false => bare,
    }
}

/// Returns the ASCII twin of a full-width form (U+FF01 to U+FF5E mirror U+0021 to U+007E).
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests;
