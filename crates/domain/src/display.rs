//! Escaping of untrusted text for terminals.
//!
//! A terminal executes control characters, and bidirectional and invisible characters make a text look like another
//! one. They are shown as `\u001b`, which is also JSON's escape: JSON stays JSON with the same value.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns whether a terminal would execute a character or show nothing for it, or whether it reorders or hides the
/// text around it.
pub fn is_hazardous(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Escapes a text of one line: every hazardous character, line breaks and tabs included.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Escapes a text of several lines, or JSON, and keeps its line breaks and tabs.
pub fn page(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| matches!(letter, '\n' | '\t'))
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escapes = |letter: char| is_hazardous(letter) && !kept(letter);
    if !text.contains(escapes) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len().saturating_mul(2));
    for letter in text.chars() {
        if !escapes(letter) {
            escaped.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to memory does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTILE: [char; 22] = [
        '\0',
        '\u{7}',
        '\u{8}',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{9d}',
        '\u{61c}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn hostile_characters_are_shown_and_not_executed() {
        for letter in HOSTILE {
            let text = format!("a{letter}b");
            for shown in [line(&text), page(&text)] {
                assert!(
                    !shown.contains(letter) && shown.starts_with("a\\u"),
                    "{letter:?}: {shown}"
                );
            }
        }
        assert_eq!(line("\u{1b}[2J\u{202e}\n\t"), "\\u001b[2J\\u202e\\u000a\\u0009");
        assert_eq!(page("\u{e0041}\n\t"), "\\udb40\\udc41\n\t");
        let plain = "Grüße, 你好, مرحبا, שלום, 👍🏽 ❤️ +1 415";
        assert!(matches!(line(plain), Cow::Borrowed(_)), "what people write is kept");
    }

    proptest! {
        #[test]
        fn json_stays_json_of_the_same_value(text in any::<String>(), hostile in prop::sample::select(HOSTILE.to_vec())) {
            let value = serde_json::json!({ "text": format!("{text}{hostile}"), "list": [text] });
            let printed = serde_json::to_string_pretty(&value).unwrap();
            let shown = page(&printed);
            prop_assert!(!shown.contains(|letter| is_hazardous(letter) && letter != '\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
