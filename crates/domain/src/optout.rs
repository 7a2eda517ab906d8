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
    /// Languages whose words are also in effect: tags of [`LOCALES`].
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
    buttons: HashSet<String>,
    codes: HashSet<String>,
    marketing_codes: HashSet<String>,
    longest: usize,
}

/// Upper bound of words in one keyword. While no sidecar is available, the filter holds back the answer to shorter
/// messages.
const MOST_WORDS: usize = 2;

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
                if !(1..=MOST_WORDS).contains(&words) {
                    problems.push(format!("{list}: {word:?} must have 1 to {MOST_WORDS} words"));
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
            if !(1..=MOST_WORDS).contains(&words) {
                problems.push(format!("button_stop: {word:?} must have 1 to {MOST_WORDS} words"));
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
        "| language | STOP | STOP as a button | START | HELP | left out, and what else it means |\n\
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shipped() -> Lexicon {
        crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap()
    }

    fn everywhere() -> Keywords {
        let locales = LOCALES.iter().map(|locale| locale.tag.clone()).collect();
        Keywords { locales, ..crate::defaults::section("optout") }
    }

    #[test]
    fn every_language_is_whole_and_contradicts_no_other() {
        let tags: Vec<&str> = LOCALES.iter().map(|locale| locale.tag.as_str()).collect();
        assert!(tags.len() >= 15 && tags.is_sorted(), "{tags:?}");
        let all = everywhere().lexicon().unwrap();
        for locale in LOCALES.iter() {
            for (opt, words) in
                [(Opt::Stop, &locale.stop), (Opt::Start, &locale.start), (Opt::Help, &locale.help)]
            {
                assert!(!words.is_empty(), "{}", locale.tag);
                for word in words {
                    assert_eq!(all.classify(word, None), Some((opt, Cause::Keyword)), "{word}");
                    let lower = format!(" {}! ", word.to_lowercase());
                    assert_eq!(all.classify(&lower, None), Some((opt, Cause::Keyword)), "{word}");
                }
            }
            for word in locale.ambiguous.keys() {
                assert_eq!(all.classify(word, None), None, "{word} is told to be left out");
            }
        }
    }

    #[test]
    fn a_language_counts_where_it_is_chosen() {
        let shipped = shipped();
        assert_eq!(shipped.classify("ARRÊT", None), None);
        let french = Keywords { locales: vec!["fr".into()], ..crate::defaults::section("optout") };
        let french = french.lexicon().unwrap();
        for body in ["ARRÊT", "arrêt.", "ARRET", "arre\u{302}t", "Stop"] {
            assert_eq!(french.classify(body, None), Some((Opt::Stop, Cause::Keyword)), "{body}");
        }
        assert_eq!(french.classify("ALTO", None), None);
    }

    #[test]
    fn what_is_no_word_or_means_two_things_is_told() {
        let refused = |change: fn(&mut Keywords)| {
            let mut keywords: Keywords = crate::defaults::section("optout");
            change(&mut keywords);
            keywords.lexicon().unwrap_err().join("; ")
        };
        assert!(
            refused(|k| k.stop.push("do not write to me".into()))
                .contains("stop: \"do not write to me\" must have 1 to 2 words")
        );
        assert!(refused(|k| k.stop.push("!?".into())).contains("must have 1 to 2 words"));
        assert!(
            refused(|k| k.button_stop.push("Start".into()))
                .contains("button_stop: \"Start\" is also in optout.start")
        );
        assert!(
            refused(|k| k.marketing_error_codes.push("x".into()))
                .contains("marketing_error_codes: \"x\" is no error code")
        );
        assert!(
            refused(|k| k.help.push("Stop!".into()))
                .contains("help: \"Stop!\" is also in optout.stop")
        );
        assert!(
            refused(|k| k.locales.push("xx".into()))
                .contains("locales: \"xx\" must be one of ar, da")
        );
        assert!(refused(|k| k.error_codes.push("x".into())).contains("error_codes: \"x\" is no"));
        let clash = refused(|k| {
            k.locales.push("es".into());
            k.help.push("baja".into());
        });
        assert!(clash.contains("locales, es: \"BAJA\" is also in optout.help"), "{clash}");
    }

    #[test]
    fn the_guide_has_every_word() {
        let guide = include_str!("../../../docs/COMPLIANCE.md");
        let table = reference(&crate::defaults::section("optout"));
        let told = "docs/COMPLIANCE.md is not what `twilio-edge reference keywords` prints";
        assert!(guide.contains(&table), "{told}:\n{table}");
    }

    #[test]
    fn codes_of_callbacks_are_data() {
        let shipped = shipped();
        assert!(shipped.suppresses("21610") && shipped.suppresses("63014"));
        assert!(!shipped.suppresses("30003") && !shipped.suppresses(""));
        assert!(shipped.withdraws_marketing("63033") && !shipped.suppresses("63033"));
        assert!(!shipped.withdraws_marketing("21610") && !shipped.withdraws_marketing(""));
    }

    #[test]
    fn the_documented_words_in_the_ways_people_write_them() {
        let shipped = shipped();
        for (body, want) in [
            // Twilio's defaults
            ("STOP", Some(Opt::Stop)),
            ("Unsubscribe", Some(Opt::Stop)),
            ("end", Some(Opt::Stop)),
            ("QUIT", Some(Opt::Stop)),
            ("STOPALL", Some(Opt::Stop)),
            ("revoke", Some(Opt::Stop)),
            ("OptOut", Some(Opt::Stop)),
            ("cancel", Some(Opt::Stop)),
            ("START", Some(Opt::Start)),
            ("yes", Some(Opt::Start)),
            ("UNSTOP", Some(Opt::Start)),
            ("HELP", Some(Opt::Help)),
            ("info", Some(Opt::Help)),
            // our own additions
            ("Subscribe", Some(Opt::Start)),
            // as typed
            (" Stop \r\n", Some(Opt::Stop)),
            ("STOP.", Some(Opt::Stop)),
            ("\"stop!\"", Some(Opt::Stop)),
            ("ＳＴＯＰ", Some(Opt::Stop)),
            ("\u{3000}ｓｔｏｐ！", Some(Opt::Stop)),
            ("stop \u{1f6d1}", Some(Opt::Stop)),
            // not exactly one word of the lists
            ("", None),
            ("!?", None),
            ("please stop", None),
            ("STOP IT", None),
            ("stop\nnow", None),
            ("stopped", None),
            ("don't stop", None),
            ("s t o p", None),
            ("yes please", None),
        ] {
            assert_eq!(shipped.classify(body, None).map(|(opt, _)| opt), want, "{body:?}");
        }
    }

    #[test]
    fn keyword_of_several_words_is_found_where_it_is_configured() {
        assert_eq!(shipped().classify("OPT OUT", None), None);
        let mut keywords: Keywords = crate::defaults::section("optout");
        keywords.stop.push("Opt  out".into());
        let lexicon = keywords.lexicon().unwrap();
        for body in ["OPT OUT", " opt \t out!", "opt\nout", "ＯＰＴ\u{3000}ＯＵＴ"] {
            assert_eq!(lexicon.classify(body, None), Some((Opt::Stop, Cause::Keyword)), "{body:?}");
        }
        for body in ["opt", "out", "opt out now", "please opt out", "stop out"] {
            assert_eq!(lexicon.classify(body, None), None, "{body:?}");
        }
        assert_eq!(lexicon.classify("stop", None), Some((Opt::Stop, Cause::Keyword)));
    }

    #[test]
    fn button_opts_out_by_an_unambiguous_word_only() {
        let shipped = shipped();
        for text in ["STOP", "Stop all", "stopall", "Unsubscribe", "OPTOUT", "revoke", "Stop!"] {
            let want = (text != "Stop all").then_some((Opt::Stop, Cause::Keyword));
            assert_eq!(shipped.classify_button([text], None), want, "{text}");
        }
        for text in ["Cancel", "End", "Quit", "Yes", "Start", "Unstop", "Subscribe", "Help", ""] {
            assert_eq!(shipped.classify_button([text], None), None, "{text}");
        }
        assert_eq!(
            shipped.classify_button(["Cancel"], Some("STOP")),
            Some((Opt::Stop, Cause::OptOutType))
        );
        let spanish = Keywords { locales: vec!["es".into()], ..crate::defaults::section("optout") };
        let spanish = spanish.lexicon().unwrap();
        assert_eq!(spanish.classify_button(["Cancelar"], None), None);
        assert_eq!(spanish.classify_button(["Baja"], None), Some((Opt::Stop, Cause::Keyword)));
    }

    #[test]
    fn twilios_own_verdict_wins() {
        let shipped = shipped();
        let with = |body, opt_out_type| shipped.classify(body, Some(opt_out_type));
        assert_eq!(with("Arrêt", "STOP"), Some((Opt::Stop, Cause::OptOutType)));
        assert_eq!(with("stop", "START"), Some((Opt::Start, Cause::OptOutType)));
        assert_eq!(with("hello", "help"), Some((Opt::Help, Cause::OptOutType)));
        // an unknown value is ignored, so the word still decides
        assert_eq!(with("stop", ""), Some((Opt::Stop, Cause::Keyword)));
        assert_eq!(with("stop", "SNOOZE"), Some((Opt::Stop, Cause::Keyword)));
    }

    #[test]
    fn a_late_start_does_not_undo_a_stop_it_may_have_come_before() {
        assert!(is_ended_by_start(Arrival::OnTime, 1000, 1001));
        assert!(!is_ended_by_start(Arrival::Late, 1000, 1001));
        assert!(!is_ended_by_start(Arrival::Late, 1000, 1000 + LATE_MS));
        assert!(is_ended_by_start(Arrival::Late, 1000, 1001 + LATE_MS));
    }

    proptest! {
        #[test]
        fn a_keyword_is_found_however_it_is_dressed(
            pick in any::<prop::sample::Index>(),
            upper in prop::collection::vec(any::<bool>(), 16),
            wide in prop::collection::vec(any::<bool>(), 16),
            before in "[ \\t\\r\\n.,!?\"'(…]{0,5}",
            after in "[ \\t\\r\\n.,!?\"')…🙏]{0,5}",
        ) {
            let keywords = everywhere();
            let all: Vec<(Opt, String)> = keywords
                .lists()
                .flat_map(|(opt, _, words)| words.iter().map(move |word| (opt, word.clone())))
                .collect();
            let (opt, word) = &all[pick.index(all.len())];
            let dressed: String = word
                .chars()
                .enumerate()
                .map(|(i, c)| if upper[i % 16] { c.to_ascii_uppercase() } else { c })
                .enumerate()
                .map(|(i, c)| match wide[i % 16] && c.is_ascii_graphic() {
                    true => char::from_u32(u32::from(c) + 0xfee0).unwrap(),
                    false => c,
                })
                .collect();
            let body = format!("{before}{dressed}{after}");
            prop_assert_eq!(keywords.lexicon().unwrap().classify(&body, None), Some((*opt, Cause::Keyword)), "{:?}", body);
        }

        #[test]
        fn two_words_are_never_a_keyword(body in "\\PC{0,20}[a-zA-Z] +[a-zA-Z]\\PC{0,20}") {
            prop_assert_eq!(shipped().classify(&body, None), None);
        }

        #[test]
        fn nothing_panics_and_folding_is_stable(body in any::<String>(), kind in any::<Option<String>>()) {
            shipped().classify(&body, kind.as_deref());
            // Case folding may expose one more edge to trim ("ŉ" becomes "ʼn"), never two.
            let once = fold(&fold(&body));
            prop_assert_eq!(fold(&once), once);
        }
    }
}
