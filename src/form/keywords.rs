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
    narrow.map(lower).collect()
}

/// Returns a letter in lower case, if a keyword has that letter. The library's tables of all scripts would be a fiftieth of
/// the filter's file.
fn lower(letter: char) -> char {
    let next = |distance| char::from_u32(u32::from(letter) + distance).unwrap_or(letter);
    match letter {
        'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ' => next(32),
        // The sign of Kelvin and of the angstrom, and a letter that keeps its dot as a separate sign, which is ignored.
        '\u{212a}' => 'k',
        '\u{212b}' => 'å',
        'İ' => 'i',
        'Ā'..='Ķ' | 'Ŋ'..='Ŷ' => next(u32::from(u32::from(letter) % 2 == 0)),
        'Ĺ'..='Ň' | 'Ź'..='Ž' => next(u32::from(letter) % 2),
        other => other,
    }
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
    fn letters_of_keywords_are_folded_as_the_library_folds_them() {
        let is_mark = |letter: &char| matches!(letter, '\u{300}'..='\u{36f}');
        let letters: std::collections::BTreeSet<char> =
            WORDS.iter().flat_map(|word| word.chars()).collect();
        for letter in '\0'..=char::MAX {
            let full: Vec<char> = letter.to_lowercase().filter(|it| !is_mark(it)).collect();
            let has_keyword = !full.is_empty() && full.iter().all(|it| letters.contains(it));
            match has_keyword {
                true => assert_eq!(full, [lower(letter)], "{letter}"),
                false => assert!(!letters.contains(&lower(letter)), "{letter}"),
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
