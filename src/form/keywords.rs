//! Keywords that mean STOP, START or HELP, in every language that the sidecar knows.
//!
//! The filter uses them for one decision: whether a message could become an opt-out if its end were cut off. The sidecar's
//! own lists (`[optout]` of its settings, `keywords.toml`) decide the meaning of a message.

/// Keywords in lower case. A test compares them with those lists.
const WORDS: &[&str] = &[
    "aanmelden",
    "abbestellen",
    "abmelden",
    "abmeldung",
    "afmeld",
    "afmelden",
    "afmelding",
    "aide",
    "aiuto",
    "ajuda",
    "alta",
    "alto",
    "anmelden",
    "arret",
    "arreter",
    "arrêt",
    "arrêter",
    "avmeld",
    "avregistrera",
    "avsluta",
    "avslutt",
    "ayuda",
    "baja",
    "bantuan",
    "baslat",
    "başlat",
    "berhenti",
    "cancel",
    "cancelar",
    "cancellami",
    "comecar",
    "comenzar",
    "começar",
    "demarrer",
    "desabonner",
    "descadastrar",
    "desinscrire",
    "detener",
    "disiscrivimi",
    "disiscriviti",
    "dur",
    "durdur",
    "démarrer",
    "désabonner",
    "désinscrire",
    "end",
    "ferma",
    "frameld",
    "help",
    "hilfe",
    "hjaelp",
    "hjalp",
    "hjelp",
    "hjälp",
    "hjælp",
    "hulp",
    "info",
    "iniciar",
    "inizia",
    "iscrivimi",
    "mulai",
    "opt in",
    "opt out",
    "optin",
    "optout",
    "parar",
    "pare",
    "pomoc",
    "påmeld",
    "quit",
    "reabonner",
    "remove",
    "ret",
    "revoke",
    "rezygnacja",
    "rezygnuje",
    "rezygnuję",
    "réabonner",
    "sair",
    "start",
    "starta",
    "stop",
    "stop all",
    "stopall",
    "stopp",
    "stoppen",
    "subscribe",
    "tilmeld",
    "uitschrijven",
    "unstop",
    "unsubscribe",
    "wypisz",
    "yardim",
    "yes",
    "zapisz",
    "إلغاء",
    "إيقاف",
    "ابدأ",
    "ابدا",
    "اشتراك",
    "الغاء",
    "ايقاف",
    "توقف",
    "مساعدة",
    "मदद",
    "रोकें",
    "रोको",
    "शुरू",
    "ヘルプ",
    "停止",
    "再開",
    "解除",
    "配信停止",
    "配信再開",
];

/// Reports whether `text` is a single keyword, regardless of letter case, width, and surrounding punctuation.
pub fn is_opt_keyword(text: &str) -> bool {
    // Longer than any keyword, with room for punctuation.
    if text.len() > 96 {
        return false;
    }
    let mut words = text.split(char::is_whitespace).map(bare).filter(|word| !word.is_empty());
    let (Some(first), second, None) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let (first, second) = (folded(first), second.map(folded));
    match second {
        None => WORDS.iter().any(|word| same(bare(word), &first)),
        Some(second) => WORDS
            .iter()
            .filter_map(|words| words.split_once(' '))
            .any(|(one, two)| same(one, &first) && same(two, &second)),
    }
}

/// Returns a word in lower case and narrow letters.
fn folded(word: &str) -> String {
    let narrow = word.chars().map(|c| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        other => other,
    });
    narrow.flat_map(char::to_lowercase).collect()
}

/// Returns the word without surrounding punctuation.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// Reports whether two words are equal, ignoring accents that are separate characters.
fn same(word: &str, text: &str) -> bool {
    let base = |c: &char| !matches!(c, '\u{300}'..='\u{36f}');
    word.chars().filter(base).eq(text.chars().filter(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the words of the lists `stop`, `start` and `help` of a file in TOML.
    fn listed(toml: &str) -> Vec<&str> {
        let is_list = |line: &&str| {
            ["stop = [", "start = [", "help = ["].iter().any(|list| line.starts_with(list))
        };
        let words =
            toml.lines().filter(is_list).flat_map(|line| line.split('"').skip(1).step_by(2));
        words.collect()
    }

    #[test]
    fn every_keyword_of_the_sidecar_is_known() {
        for file in [
            include_str!("../../crates/domain/keywords.toml"),
            include_str!("../../crates/platform/defaults.toml"),
        ] {
            let words = listed(file);
            assert!(words.len() >= 14, "{words:?}");
            for word in words {
                assert!(is_opt_keyword(word), "{word}");
                assert!(is_opt_keyword(&format!(" «{}»! ", word.to_lowercase())), "{word}");
            }
        }
    }

    #[test]
    fn sentence_is_not_a_keyword() {
        for text in ["", "please stop", "STOP calling", "stopped", "Hello", "Open24Hours"] {
            assert!(!is_opt_keyword(text), "{text}");
        }
        assert!(
            is_opt_keyword("ＳＴＯＰ") && is_opt_keyword("Opt out.") && is_opt_keyword("stop 👍")
        );
    }
}
