//! Words of a command line in the syntax of bash, without running anything.
//!
//! The crates `shlex` and `shell-words` read the quoting of POSIX only: they have no `$'..'`, which browsers write for every
//! text with a line break or a `!`, they take `$NAME` for text, and they do not end at `&`. So this is a reader of its own.
//! The one substitution that it accepts is `$(printf '..')` with octal escapes, which `twilio-edge sign` writes.

use std::iter::Peekable;
use std::slice::Iter;

/// Largest number of words.
const MAX_WORDS: usize = 10_000;

/// Words of the first command of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Words as bytes: `$'\xff'` is no character.
    pub(super) words: Vec<Vec<u8>>,
    /// Operator that ends the command before the end of its line, for instance `&`.
    pub(super) operator: Option<char>,
}

type Bytes<'t> = Peekable<Iter<'t, u8>>;

/// Divides the first command of a text into words.
///
/// # Errors
///
/// A quote without an end, a variable, or a substitution of a command.
pub(super) fn words(text: &str) -> Result<Words, String> {
    let mut found = Words::default();
    let mut bytes = text.as_bytes().iter().peekable();
    let mut word: Option<Vec<u8>> = None;
    while let Some(byte) = bytes.next().copied() {
        match byte {
            b' ' | b'\t' | b'\r' => end(&mut word, &mut found)?,
            b'\n' => {
                end(&mut word, &mut found)?;
                if !found.words.is_empty() {
                    break;
                }
            }
            b'#' if word.is_none() => while bytes.next_if(|byte| **byte != b'\n').is_some() {},
            b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => {
                // `2>` names a stream.
                let is_stream = byte == b'>' && word.as_ref().is_some_and(|word| is_number(word));
                if is_stream {
                    word = None;
                }
                end(&mut word, &mut found)?;
                found.operator = Some(char::from(byte));
                break;
            }
            _ => quoted_or_plain(byte, &mut bytes, &mut word)?,
        }
    }
    end(&mut word, &mut found)?;
    Ok(found)
}

fn is_number(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_digit)
}

fn end(word: &mut Option<Vec<u8>>, found: &mut Words) -> Result<(), String> {
    found.words.extend(word.take());
    match found.words.len() {
        0..=MAX_WORDS => Ok(()),
        _ => Err(format!("the command has more than {MAX_WORDS} words")),
    }
}

fn quoted_or_plain(
    byte: u8,
    bytes: &mut Bytes<'_>,
    word: &mut Option<Vec<u8>>,
) -> Result<(), String> {
    if byte == b'\\' {
        let escaped = escaped(bytes);
        // A continued line is neither a word nor the end of one.
        if let Some(escaped) = escaped {
            word.get_or_insert_default().push(escaped);
        }
        return Ok(());
    }
    let word = word.get_or_insert_default();
    match byte {
        b'\'' => loop {
            match bytes.next() {
                Some(b'\'') => return Ok(()),
                Some(byte) => word.push(*byte),
                None => return Err("a single quote has no end".to_owned()),
            }
        },
        b'"' => double_quoted(bytes, word),
        b'`' => Err(substitution()),
        b'$' => match bytes.peek() {
            Some(b'\'') => {
                bytes.next();
                ansi_c(bytes, word)
            }
            Some(b'"') => Ok(()),
            _ => dollar(bytes, word),
        },
        byte => {
            word.push(byte);
            Ok(())
        }
    }
}

/// Returns the byte after a backslash outside of quotes; `None` for a continued line.
fn escaped(bytes: &mut Bytes<'_>) -> Option<u8> {
    match bytes.next().copied() {
        Some(b'\n') | None => None,
        Some(b'\r') if bytes.next_if(|byte| **byte == b'\n').is_some() => None,
        byte => byte,
    }
}

fn double_quoted(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Result<(), String> {
    loop {
        match bytes.next().copied() {
            None => return Err("a double quote has no end".to_owned()),
            Some(b'"') => return Ok(()),
            Some(b'`') => return Err(substitution()),
            Some(b'$') => dollar(bytes, word)?,
            Some(b'\\') => match bytes.next().copied() {
                Some(b'\n') => {}
                Some(byte @ (b'$' | b'`' | b'"' | b'\\')) => word.push(byte),
                byte => {
                    word.push(b'\\');
                    word.extend(byte);
                }
            },
            Some(byte) => word.push(byte),
        }
    }
}

fn substitution() -> String {
    "the command contains the output of another one, $(..) or `..`: put the text there".to_owned()
}

/// Reads what follows a `$` that is not the beginning of a quote.
fn dollar(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Result<(), String> {
    match bytes.peek() {
        Some(b'(') => printf(bytes, word),
        Some(b'{') => Err("the command contains a variable, ${..}: put its value there".to_owned()),
        Some(byte) if byte.is_ascii_alphabetic() || **byte == b'_' => {
            let mut name = String::new();
            while let Some(byte) =
                bytes.next_if(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
            {
                if name.len() < 64 {
                    name.push(char::from(*byte));
                }
            }
            Err(format!("the command contains the variable ${name}: put its value there"))
        }
        _ => {
            word.push(b'$');
            Ok(())
        }
    }
}

/// Reads `(printf '..')`, in which every backslash begins an octal escape.
fn printf(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Result<(), String> {
    for want in b"(printf '" {
        if bytes.next() != Some(want) {
            return Err(substitution());
        }
    }
    loop {
        match bytes.next().copied() {
            Some(b'\'') => break,
            Some(b'\\') => match octal(bytes) {
                Some(byte) => word.push(byte),
                None => return Err(substitution()),
            },
            None | Some(b'%') => return Err(substitution()),
            Some(byte) => word.push(byte),
        }
    }
    if bytes.next() == Some(&b')') { Ok(()) } else { Err(substitution()) }
}

fn octal(bytes: &mut Bytes<'_>) -> Option<u8> {
    digits(bytes, 8, 3).map(|number| (number & 0xff) as u8)
}

/// Reads at most `most` digits of a number.
fn digits(bytes: &mut Bytes<'_>, radix: u32, most: usize) -> Option<u32> {
    let mut number = None;
    for _ in 0..most {
        let Some(digit) = bytes.peek().and_then(|byte| char::from(**byte).to_digit(radix)) else {
            break;
        };
        bytes.next();
        number = Some(number.unwrap_or(0_u32).wrapping_mul(radix).wrapping_add(digit));
    }
    number
}

/// Reads a text after `$'`, with the escapes of C.
fn ansi_c(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Result<(), String> {
    loop {
        let byte = match bytes.next().copied() {
            None => return Err("a quote that begins with $' has no end".to_owned()),
            Some(b'\'') => return Ok(()),
            Some(b'\\') => bytes.next().copied(),
            Some(byte) => {
                word.push(byte);
                continue;
            }
        };
        let Some(byte) = byte else { continue };
        let simple = match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 0x07,
            b'b' => 0x08,
            b'e' | b'E' => 0x1b,
            b'f' => 0x0c,
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' | b'?' => byte,
            b'0'..=b'7' => {
                let mut number = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(*byte)) else {
                        break;
                    };
                    number = number * 8 + u32::from(digit - b'0');
                }
                (number & 0xff) as u8
            }
            b'x' => match digits(bytes, 16, 2) {
                Some(number) => (number & 0xff) as u8,
                None => {
                    word.extend(b"\\x");
                    continue;
                }
            },
            b'u' | b'U' => {
                let most = if byte == b'u' { 4 } else { 8 };
                let letter = digits(bytes, 16, most).and_then(char::from_u32);
                let letter = letter.unwrap_or(char::REPLACEMENT_CHARACTER);
                word.extend(letter.encode_utf8(&mut [0; 4]).bytes());
                continue;
            }
            b'c' => bytes.next().map_or(b'c', |byte| byte & 0x1f),
            other => {
                word.push(b'\\');
                other
            }
        };
        word.push(simple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<String> {
        let words = words(text).unwrap().words;
        words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn words_are_those_of_bash() {
        let cases = [
            r"a b\ c 'd e' f",
            "a \\\n  b\\\r\nc",
            "'it'\\''s' \"a \\\"b\\\" \\n \\$x\"",
            r"$'line\nbreak\t\u00e9\x41\101\041\e\q\'' ''",
            "a'\"$(printf '\\342\\200\\256')\"'b",
            "# comment\ncurl 'x' # more\nother",
            "curl a#b $ \"$\" $\"x\"",
            "curl 'a' 2>/dev/null",
        ];
        for case in cases {
            // bash itself is the judge.
            let script = case.replacen("curl", "", 1);
            let script = format!("set -- {script}").replace("set -- # comment\n", "set -- ");
            let script = script.lines().take_while(|line| *line != "other");
            let script = script.collect::<Vec<_>>().join("\n") + "\nprintf '%s\\0' \"$@\"";
            let ran = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            let want = String::from_utf8(ran.stdout).unwrap();
            let want: Vec<&str> = want.split_terminator('\0').collect();
            let have = texts(case);
            let have: Vec<&str> =
                have.iter().map(String::as_str).filter(|word| *word != "curl").collect();
            assert_eq!(have, want, "{case}");
        }
    }

    #[test]
    fn end_of_a_command_and_what_only_a_shell_can_replace_are_reported() {
        let cut = words("curl http://h/a?b=1&c=2").unwrap();
        assert_eq!((cut.words.len(), cut.operator), (2, Some('&')));
        for (text, want) in [
            ("curl $URL", "$URL"),
            ("curl \"${URL}\"", "variable"),
            ("curl \"$(cat x)\"", "output of another"),
            ("curl `x`", "output of another"),
            ("curl 'x", "no end"),
            ("curl \"x", "no end"),
            ("curl $'x", "no end"),
        ] {
            let problem = words(text).unwrap_err();
            assert!(problem.contains(want), "{text}: {problem}");
        }
        assert!(words(&"a ".repeat(MAX_WORDS + 2)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_in_single_quotes_is_one_word(text in "\\PC{0,40}") {
            let quoted = format!("'{}'", text.replace('\'', r"'\''"));
            prop_assert_eq!(texts(&quoted), [text]);
        }

        #[test]
        fn no_text_causes_a_panic(text in "[\\\\$'\"`(){}#&x0-7uUc\n ]{0,60}|\\PC{0,60}") {
            let _ = words(&text);
        }
    }
}
