//! Is this message an opt-out, an opt-in or a call for help? The words are data (`[optout]` of the configuration);
//! the rule is Twilio's: the whole message is one word of the list (docs: advanced-opt-out). Only what a person
//! could not have meant to say is ignored around and inside that word:
//!
//! - whatever is neither a letter nor a digit before and after it: blanks, punctuation, quotes, emoji;
//! - letter case, and the full width that Asian keyboards type (`ＳＴＯＰ`).
//!
//! "please stop" is not an opt-out by this rule, as it is none for Twilio.

use serde::{Deserialize, Serialize};
use twilio_edge_contract::Opt;

/// The words, by what they mean. As configured; compared after folding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keywords {
    /// The sender is suppressed from now on.
    pub stop: Vec<String>,
    /// The suppression ends.
    pub start: Vec<String>,
    /// Nothing changes.
    pub help: Vec<String>,
}

/// What made a message an [`Opt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `OptOutType`: Twilio's Advanced Opt-Out already acted on it.
    OptOutType,
    /// The message's one word.
    Keyword,
}

impl Cause {
    /// The word kept in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::OptOutType => "opt_out_type",
            Cause::Keyword => "keyword",
        }
    }
}

/// When we hear of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// When it came: what was recorded before it was said before it.
    OnTime,
    /// Up to [`LATE_MS`] after it came, because no sidecar could be asked then.
    Late,
}

/// How long a filter keeps what it forwarded without a verdict.
const LATE_MS: i64 = 60 * 60 * 1000;

/// Whether a START ends a suppression recorded at `suppressed_at_ms`. A late one may have been said before that STOP;
/// where the order is not known, STOP wins.
pub fn lifts(arrival: Arrival, suppressed_at_ms: i64, now_ms: i64) -> bool {
    arrival == Arrival::OnTime || now_ms.saturating_sub(suppressed_at_ms) > LATE_MS
}

impl Keywords {
    /// The lists with their meaning, the strictest first: a word in two lists is an opt-out.
    pub fn lists(&self) -> [(Opt, &[String]); 3] {
        [(Opt::Stop, &self.stop), (Opt::Start, &self.start), (Opt::Help, &self.help)]
    }

    /// What a message means. `opt_out_type` is Twilio's own verdict and wins when it is one we know.
    pub fn classify(&self, body: &str, opt_out_type: Option<&str>) -> Option<(Opt, Cause)> {
        if let Some(opt) = opt_out_type.and_then(by_opt_out_type) {
            return Some((opt, Cause::OptOutType));
        }
        let word = fold(body);
        if word.is_empty() || word.contains(char::is_whitespace) {
            return None;
        }
        self.lists()
            .into_iter()
            .find(|(_, words)| words.iter().any(|known| fold(known) == word))
            .map(|(opt, _)| (opt, Cause::Keyword))
    }
}

fn by_opt_out_type(value: &str) -> Option<Opt> {
    match value.trim().to_ascii_uppercase().as_str() {
        "STOP" => Some(Opt::Stop),
        "START" => Some(Opt::Start),
        "HELP" => Some(Opt::Help),
        _ => None,
    }
}

/// A message or keyword as it is compared: narrow, lower case, bare of what surrounds it.
pub fn fold(text: &str) -> String {
    let narrow: String = text.chars().map(narrow).collect();
    narrow.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// The ASCII twin of a full-width form (U+FF01 to U+FF5E mirror U+0021 to U+007E).
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

    fn shipped() -> Keywords {
        crate::config::defaults().optout
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
            // ours
            ("Subscribe", Some(Opt::Start)),
            // as typed
            (" Stop \r\n", Some(Opt::Stop)),
            ("STOP.", Some(Opt::Stop)),
            ("\"stop!\"", Some(Opt::Stop)),
            ("ＳＴＯＰ", Some(Opt::Stop)),
            ("\u{3000}ｓｔｏｐ！", Some(Opt::Stop)),
            ("stop \u{1f6d1}", Some(Opt::Stop)),
            // not one word of the lists
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
    fn twilios_own_verdict_wins() {
        let shipped = shipped();
        let with = |body, opt_out_type| shipped.classify(body, Some(opt_out_type));
        assert_eq!(with("Arrêt", "STOP"), Some((Opt::Stop, Cause::OptOutType)));
        assert_eq!(with("stop", "START"), Some((Opt::Start, Cause::OptOutType)));
        assert_eq!(with("hello", "help"), Some((Opt::Help, Cause::OptOutType)));
        // one we do not know says nothing, so the word still counts
        assert_eq!(with("stop", ""), Some((Opt::Stop, Cause::Keyword)));
        assert_eq!(with("stop", "SNOOZE"), Some((Opt::Stop, Cause::Keyword)));
    }

    #[test]
    fn a_late_start_does_not_undo_a_stop_it_may_have_come_before() {
        assert!(lifts(Arrival::OnTime, 1000, 1001));
        assert!(!lifts(Arrival::Late, 1000, 1001));
        assert!(!lifts(Arrival::Late, 1000, 1000 + LATE_MS));
        assert!(lifts(Arrival::Late, 1000, 1001 + LATE_MS));
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
            let shipped = shipped();
            let all: Vec<(Opt, String)> = shipped
                .lists()
                .into_iter()
                .flat_map(|(opt, words)| words.iter().map(move |word| (opt, word.clone())))
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
            prop_assert_eq!(shipped.classify(&body, None), Some((*opt, Cause::Keyword)), "{:?}", body);
        }

        #[test]
        fn two_words_are_never_a_keyword(body in "\\PC{0,20}[a-zA-Z] +[a-zA-Z]\\PC{0,20}") {
            prop_assert_eq!(shipped().classify(&body, None), None);
        }

        #[test]
        fn nothing_panics_and_folding_is_stable(body in any::<String>(), kind in any::<Option<String>>()) {
            shipped().classify(&body, kind.as_deref());
            // Case folding may bare another edge once ("ŉ" becomes "ʼn"), never twice.
            let once = fold(&fold(&body));
            prop_assert_eq!(fold(&once), once);
        }
    }
}
