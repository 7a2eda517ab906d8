//! Phone numbers as people write them: normalization to E.164, alternative spellings of the same number, and the
//! country of a number. libphonenumber provides the numbering plans of the world; `phone/spelling.rs` adds the
//! alternative spellings.

mod spelling;

use std::{fmt, str::FromStr};

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat,
    PhoneNumberType, ValidationError, enums::Region as Code,
};

pub use self::spelling::{identity, is_same, of_each_plan, spellings};

/// Maximum length of parsed text, in characters; the longest spelling of a number is well below it.
const LONGEST: usize = 64;

/// Number of rounds after which a number is refused if formatting it again still changes it.
const MOST_ROUNDS: usize = 4;

/// Region whose numbers may be written without their country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region(Code);

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Region, String> {
        let is_country = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let code = is_country.then(|| text.to_ascii_uppercase().parse::<Code>().ok()).flatten();
        let known =
            code.filter(|code| PHONE_NUMBER_UTIL.get_country_code_for_region(*code).is_some());
        known
            .map(Region)
            .ok_or_else(|| format!("{text:?} is not a country: use two letters, as in FR"))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_region_str())
    }
}

/// Returns the number in E.164: as libphonenumber formats it, or in the alternative spelling that the text has. Blanks,
/// punctuation and a trunk prefix after the country code change nothing.
///
/// # Errors
///
/// The error says what is wrong with the text: letters, no country, a length that the country does not have, an
/// extension.
pub fn e164(text: &str, region: Option<Region>) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > LONGEST {
        return Err(format!(
            "the text is not a phone number: it is longer than {LONGEST} characters"
        ));
    }
    read(text, region).map_err(|problem| format!("{text:?} is not a phone number: {problem}"))
}

fn read(text: &str, region: Option<Region>) -> Result<String, String> {
    let plain = plain(text)?;
    let written = match plain.strip_prefix('+') {
        Some(_) => plain,
        None => international(&plain, region)?,
    };
    // An old numbering plan has numbers that the current one does not.
    if let Some(other) = spelling::second(&written) {
        let is_current = |number: &str| formatted(number).as_deref() == Ok(number);
        if is_current(&written) || is_current(&other) {
            return Ok(written);
        }
    }
    formatted(&written)
}

/// Returns the number without blanks and punctuation if it is in E.164, whether or not the plan of its country knows it.
pub fn as_written(text: &str) -> Option<String> {
    plain(text.trim()).ok().filter(|number| is_e164(number))
}

/// Returns `+` and digits, or digits alone: the text without blanks and punctuation.
fn plain(text: &str) -> Result<String, String> {
    const HOLDS: &str = "it contains invalid characters";
    let has_scheme = text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:"));
    let number = if has_scheme { text.get(4..).unwrap_or_default() } else { text };
    let mut plain = String::with_capacity(number.len());
    for character in number.chars() {
        match character {
            '+' | '\u{ff0b}' if plain.is_empty() => plain.push('+'),
            _ if is_ignored(character) => {}
            _ => match digit(character) {
                Some(digit) => plain.push(digit),
                None if has_extension(text) => {
                    return Err("extensions cannot receive messages".to_owned());
                }
                None if character.is_alphabetic() => return Err("it contains letters".to_owned()),
                None => return Err(HOLDS.to_owned()),
            },
        }
    }
    let has_digits = plain.bytes().any(|byte| byte.is_ascii_digit());
    if has_digits { Ok(plain) } else { Err(HOLDS.to_owned()) }
}

fn has_extension(text: &str) -> bool {
    let number = PHONE_NUMBER_UTIL.parse(text, None).ok();
    let extension = number.and_then(|number| number.extension);
    extension.is_some_and(|extension| !extension.is_empty())
}

/// Returns whether a character is a blank, punctuation or an invisible mark; text copied from a page or a chat contains
/// these.
fn is_ignored(character: char) -> bool {
    let is_blank = character.is_whitespace() && !character.is_control();
    is_blank
        || matches!(
            character,
            '-' | '.' | '/' | '(' | ')' | '[' | ']' | '~'
                | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2010}'..='\u{2015}'
                | '\u{202a}'..='\u{202e}' | '\u{2053}' | '\u{2060}'..='\u{2064}'
                | '\u{2066}'..='\u{2069}' | '\u{2212}' | '\u{223c}' | '\u{30fc}'
                | '\u{feff}' | '\u{ff08}' | '\u{ff09}' | '\u{ff0d}'..='\u{ff0f}'
                | '\u{ff3b}' | '\u{ff3d}' | '\u{ff5e}'
        )
}

/// Returns the ASCII digit for a decimal digit of any script.
fn digit(character: char) -> Option<char> {
    const ZEROS: [u32; 20] = [
        0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6,
        0x0d66, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0xff10, 0x30,
    ];
    let code = u32::from(character);
    let value = ZEROS.iter().find_map(|zero| code.checked_sub(*zero).filter(|value| *value < 10));
    value.and_then(|value| char::from_digit(value, 10))
}

/// Parses digits without a `+`, as callers in the region dial them.
fn international(digits: &str, region: Option<Region>) -> Result<String, String> {
    const UNCLEAR: &str = "write it as +, country code and number, or specify its region";
    let Some(Region(code)) = region else { return Err(UNCLEAR.to_owned()) };
    let number = PHONE_NUMBER_UTIL.parse(digits, Some(code)).map_err(|error| of_error(&error))?;
    check_length(&number)?;
    let written = number.format_as(PhoneNumberFormat::E164).into_owned();
    // People in every country write 00 for the +, even where it is not dialled.
    let means = digits.strip_prefix("00").map(|rest| format!("+{rest}"));
    match means.map(|means| formatted(&means)) {
        Some(means) if means.as_ref() != Ok(&written) => Err(UNCLEAR.to_owned()),
        _ => Ok(written),
    }
}

/// Returns `+` and digits as libphonenumber formats them: without a trunk prefix after the country code, however often.
fn formatted(number: &str) -> Result<String, String> {
    let mut number = number.to_owned();
    for _ in 0..MOST_ROUNDS {
        let parsed = PHONE_NUMBER_UTIL.parse(&number, None).map_err(|error| of_error(&error))?;
        check_length(&parsed)?;
        let next = parsed.format_as(PhoneNumberFormat::E164).into_owned();
        if next == number {
            return match has_needless_zero(&parsed) {
                true => Err("it has a superfluous 0 after the country code".to_owned()),
                false => Ok(next),
            };
        }
        number = next;
    }
    Err("it is ambiguous".to_owned())
}

/// Returns whether a number is valid only without its leading zeros: people dial them even in countries without a trunk
/// prefix.
fn has_needless_zero(number: &PhoneNumber) -> bool {
    let rest = number.get_national_significant_number();
    let without = rest.trim_start_matches('0');
    if without.len() == rest.len() || number.is_valid() {
        return false;
    }
    let shorter = PHONE_NUMBER_UTIL.parse(format!("+{}{without}", number.country_code), None);
    shorter.is_ok_and(|shorter| shorter.is_valid())
}

fn of_error(error: &ParseError) -> String {
    let problem = match error {
        ParseError::InvalidCountryCode => "its country code does not exist",
        ParseError::TooShortAfterIdd | ParseError::TooShortNsn => "it is too short",
        ParseError::TooLongNsn => "it is too long",
        ParseError::NotANumber(_) => "it contains invalid characters",
    };
    problem.to_owned()
}

fn check_length(number: &PhoneNumber) -> Result<(), String> {
    let kind = match number.is_possible_with_reason() {
        Ok(NumberLengthType::IsPossible) => return Ok(()),
        Ok(NumberLengthType::IsPossibleLocalOnly) => {
            return Err("its area code is missing".to_owned());
        }
        Err(ValidationError::TooShort) => "too short",
        Err(ValidationError::TooLong) => "too long",
        Err(ValidationError::InvalidCountryCode | ValidationError::InvalidLength) => {
            "of an invalid length"
        }
    };
    Err(format!("it is {kind} for country code {}", number.country_code))
}

/// Returns whether a number is in Twilio's form of E.164: `+` and 7 to 15 digits, the first of which is not 0.
pub fn is_e164(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// Returns the country of a number in E.164, in two letters, or `None` for numbers that belong to no country.
pub fn country(e164: &str) -> Option<String> {
    if !is_e164(e164) {
        return None;
    }
    let number = PHONE_NUMBER_UTIL.parse(e164, None).ok()?;
    // The digits decide where they can (several countries share +1); the country code decides where the number is not
    // assigned.
    let by_number = number.get_region_code();
    let region =
        by_number.or_else(|| PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code))?;
    Some(region.to_string()).filter(|code| code.len() == 2 && code != "ZZ")
}

/// Returns whether a number is certainly a landline, in every spelling that the current numbering plan knows. False
/// where the digits do not decide, as in the United States and in Argentina.
pub fn is_landline(e164: &str) -> bool {
    let kind = |number: &str| PHONE_NUMBER_UTIL.parse(number, None).map(|number| number.get_type());
    let second = spelling::second(e164);
    let all = [Some(e164), second.as_deref()];
    let kinds =
        all.into_iter().flatten().filter(|number| is_e164(number)).filter_map(|n| kind(n).ok());
    let mut kinds = kinds.filter(|kind| *kind != PhoneNumberType::Unknown).peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == PhoneNumberType::FixedLine)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn region(code: &str) -> Option<Region> {
        Some(code.parse().unwrap())
    }

    #[test]
    fn a_landline_is_one_where_the_digits_tell() {
        for (number, expected) in [
            ("+493012345678", true),
            ("+4915123456789", false),
            ("+442071234567", true),
            ("+447400123456", false),
            ("+16132345678", false),
            ("15123", false),
            // The same number with the 9 is a mobile.
            ("+541169071234", false),
            ("+5491169071234", false),
            ("+22520301234", true),
        ] {
            assert_eq!(is_landline(number), expected, "{number}");
        }
    }

    /// Returns the trunk prefixes that people dial in a region: the difference between the national format and the
    /// digits, and the prefixes that libphonenumber drops for that region.
    fn trunks(region: Code, number: &PhoneNumber) -> Vec<String> {
        let rest = number.get_national_significant_number();
        let national = number.format_as(PhoneNumberFormat::National);
        let national: String = national.chars().filter(char::is_ascii_digit).collect();
        let shown = national.strip_suffix(&rest).filter(|trunk| !trunk.is_empty());
        let dialled = ["0", "1", "8", "06", "01"].into_iter().filter(|trunk| {
            let dialled = PHONE_NUMBER_UTIL.parse(format!("{trunk}{rest}"), Some(region));
            dialled.is_ok_and(|dialled| dialled == *number)
        });
        dialled.chain(shown).map(str::to_owned).collect()
    }

    #[test]
    fn trunk_prefix_and_punctuation_make_no_second_person_in_any_region() {
        let (mut regions, mut with_trunk) = (0, 0);
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            let Ok(number) = PHONE_NUMBER_UTIL
                .get_example_number_for_type_and_region(region, PhoneNumberType::Mobile)
            else {
                continue;
            };
            regions += 1;
            let of = Some(Region(region));
            let text = number.format_as(PhoneNumberFormat::E164).into_owned();
            assert_eq!(e164(&text, None).as_deref(), Ok(&*text), "{region}");
            let code = number.country_code.to_string();
            let rest = number.get_national_significant_number();
            let trunks = trunks(region, &number);
            with_trunk += usize::from(!trunks.is_empty());
            let wide = |text: &str| {
                let wide = |c: char| {
                    let digit = c.to_digit(10).and_then(|d| char::from_u32(0xff10 + d));
                    digit.unwrap_or(if c == '+' { '\u{ff0b}' } else { c })
                };
                text.chars().map(wide).collect::<String>()
            };
            let spaced = |separator: &str| {
                let digits: Vec<String> = rest.chars().map(String::from).collect();
                format!("+{code}{separator}{}", digits.join(separator))
            };
            for same in [
                spaced(" "),
                spaced("\u{a0}"),
                spaced("."),
                spaced("-"),
                spaced("/"),
                spaced("\u{2011}"),
                format!("(+{code}) [{rest}]"),
                format!("tel:{text}"),
                format!("TEL:{text}"),
                format!("\u{202a}{text}\u{202c}"),
                wide(&text),
            ] {
                assert_eq!(e164(&same, None).as_deref(), Ok(&*text), "{region} {same}");
            }
            let is_same_or_refused = |spelled: &str, of: Option<Region>| {
                if let Ok(read) = e164(spelled, of) {
                    assert!(is_same(&read, &text), "{region} {spelled} -> {read}, not {text}");
                }
            };
            is_same_or_refused(&format!("00{code}{rest}"), of);
            is_same_or_refused(&format!("00 {code} {rest}"), "FR".parse().ok());
            is_same_or_refused(&format!("00{code}{rest}"), "US".parse().ok());
            is_same_or_refused(&format!("00{code}{rest}"), "JP".parse().ok());
            for trunk in trunks {
                for spelled in [
                    format!("+{code}{trunk}{rest}"),
                    format!("+{code} ({trunk}) {rest}"),
                    format!("+{code}-{trunk}{trunk}{rest}"),
                    wide(&format!("+{code} {trunk}{rest}")),
                ] {
                    is_same_or_refused(&spelled, None);
                }
            }
        }
        assert!(regions > 200 && with_trunk > 100, "{regions} {with_trunk}");
    }

    #[test]
    fn old_rows_with_a_trunk_prefix_are_found() {
        for (today, before) in [
            ("+447400123456", "+4407400123456"),
            ("+4915123456789", "+49015123456789"),
            ("+33612345678", "+330612345678"),
            ("+14155552671", "+114155552671"),
        ] {
            assert!(spellings(today).contains(&Cow::Borrowed(before)), "{:?}", spellings(today));
            assert!(spellings(before).contains(&Cow::Borrowed(today)), "{:?}", spellings(before));
            assert_eq!(e164(before, None).as_deref(), Ok(today));
            assert!(is_same(today, before));
        }
        // A number that really begins with a zero is a different number.
        assert!(!is_same("+390612345678", "+39612345678"));
        assert!(!is_same("+2250707123456", "+225707123456"));
    }

    #[test]
    fn blanks_change_nothing_of_a_second_spelling() {
        for (text, number, today) in [
            ("+52 1 55 1234 5678", "+5215512345678", "+525512345678"),
            ("+52-55-1234-5678", "+525512345678", "+525512345678"),
            ("+54 9 11 6907-1234", "+5491169071234", "+5491169071234"),
            ("+54 11 6907 1234", "+541169071234", "+5491169071234"),
            ("+55 11 8765-4321", "+551187654321", "+5511987654321"),
            ("+225 07 12 34 56", "+22507123456", "+2250707123456"),
            ("+225 05 12 34 56", "+22505123456", "+2250505123456"),
            ("+225 01 12 34 56", "+22501123456", "+2250101123456"),
            ("+225 20 30 12 34", "+22520301234", "+2252720301234"),
            ("+229 97 12 34 56", "+22997123456", "+2290197123456"),
        ] {
            assert_eq!(e164(text, None).as_deref(), Ok(number), "{text}");
            assert_eq!(identity(number), today);
            assert!(spellings(today).contains(&Cow::Borrowed(number)), "{number}");
        }
        // Landlines of MTN and Moov have other prefixes, and no mobile has the prefix of another operator.
        assert_eq!(identity("+22520001234"), "+2252520001234");
        assert_eq!(identity("+22520801234"), "+2252120801234");
        assert!(!is_same("+22507123456", "+2250107123456"));
    }

    #[test]
    fn any_sensible_spelling_is_the_same_number() {
        for (text, of, number) in [
            ("+14155552671", None, "+14155552671"),
            (" +1 (415) 555-2671 ", None, "+14155552671"),
            ("\u{ff0b}\u{ff11} 415.555.2671", None, "+14155552671"),
            ("(415) 555-2671", Some("US"), "+14155552671"),
            ("1 415 555 2671", Some("US"), "+14155552671"),
            ("011 44 20 7946 0018", Some("us"), "+442079460018"),
            ("+44 (0)20 7946 0018", None, "+442079460018"),
            ("020 7946 0018", Some("GB"), "+442079460018"),
            ("06 12 34 56 78", Some("FR"), "+33612345678"),
            ("06 12 34 56 78", Some("IT"), "+390612345678"),
            ("0151 23456789", Some("DE"), "+4915123456789"),
            ("tel:+1-415-555-2671", None, "+14155552671"),
            // Not assigned, but well-formed, as Twilio's own test numbers are.
            ("+15005550006", None, "+15005550006"),
            ("+14155550123", None, "+14155550123"),
            // Twilio writes it this way; the current numbering plan writes it without the 1.
            ("+5215512345678", None, "+5215512345678"),
        ] {
            assert_eq!(e164(text, of.and_then(region)).as_deref(), Ok(number), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (text, of, problem) in [
            ("4155552671", None, "write it as +, country code and number"),
            ("+999123456789", None, "its country code does not exist"),
            ("hello", Some("US"), "it contains letters"),
            ("+5511XXXXXXXXX", None, "it contains letters"),
            ("+1510ABC-DEFG", None, "it contains letters"),
            ("+1415555XXXX", None, "it contains letters"),
            ("+1415\u{ff21}\u{ff22}\u{ff23}1234", None, "it contains letters"),
            ("1-800-FLOWERS", Some("US"), "it contains letters"),
            ("+1 415 555 2671 #5", None, "extensions cannot receive messages"),
            ("+1*415*5552671", None, "it contains invalid characters"),
            ("+1+4155552671", None, "it contains invalid characters"),
            ("+14155552671,+14155552672", None, "it contains invalid characters"),
            ("+15550123", None, "its area code is missing"),
            ("", Some("US"), "it contains invalid characters"),
            ("+1415", None, "it is too short"),
            ("+1415555267", None, "it is too short for country code 1"),
            ("+141555526712", None, "it is too long for country code 1"),
            ("+14155552671 ext. 5", None, "extensions cannot receive messages"),
        ] {
            let said = e164(text, of.and_then(region)).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
        assert!(e164(&"1".repeat(65), None).unwrap_err().contains("longer than 64 characters"));
        for bad in ["", "F", "FRA", "ZZ", "001", "é", "12"] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_of_one_country() {
        for (number, of) in [
            ("+14155552671", Some("US")),
            ("+16132345678", Some("CA")),
            ("+18765551234", Some("JM")),
            ("+15551230001", Some("US")),
            ("+33612345678", Some("FR")),
            ("+393471234567", Some("IT")),
            ("+5215512345678", Some("MX")),
            ("+80012345678", None),
            ("12345", None),
            ("messenger", None),
        ] {
            assert_eq!(country(number).as_deref(), of, "{number}");
        }
    }

    #[test]
    fn other_spellings_of_one_mobile() {
        for (one, other) in [
            ("+5215512345678", "+525512345678"),
            ("+5491123456789", "+541123456789"),
            ("+5511987654321", "+551187654321"),
        ] {
            assert_eq!(spellings(one)[..2], [one, other]);
            assert_eq!(spellings(other)[..2], [other, one]);
            assert_eq!(of_each_plan(one), [one, other]);
            assert_eq!(of_each_plan(other), [other, one]);
        }
        for alone in ["+14155552671", "+551133334444", "+5212345", "12345", ""] {
            assert_eq!(of_each_plan(alone), [alone]);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,70}|[+0-9 ().;=/#*x,-]{0,30}|.*", of in "[A-Z]{2}") {
            let number = e164(&text, of.parse().ok());
            country(&text);
            spellings(&text);
            if let Ok(number) = number {
                prop_assert!(is_e164(&number), "{}", number);
                prop_assert_eq!(e164(&number, None), Ok(number.clone()));
                country(&number);
            }
        }

        #[test]
        fn a_number_survives_being_written_in_every_format(
            text in "\\+(1[2-9][0-9]{9}|44[1-9][0-9]{9}|33[1-9][0-9]{8}|49[1-9][0-9]{9}|55[1-9]{2}9[0-9]{8}|91[6-9][0-9]{9}|7[3489][0-9]{9})",
        ) {
            let number = PHONE_NUMBER_UTIL.parse(&text, None).unwrap();
            prop_assume!(number.is_valid());
            for format in [
                PhoneNumberFormat::E164,
                PhoneNumberFormat::International,
                PhoneNumberFormat::RFC3966,
            ] {
                let written = number.format_as(format).into_owned();
                prop_assert_eq!(e164(&written, None), Ok(text.clone()), "{}", written);
            }
            let of = country(&text).unwrap();
            let national = number.format_as(PhoneNumberFormat::National).into_owned();
            prop_assert_eq!(e164(&national, of.parse().ok()), Ok(text), "{}", national);
        }

        #[test]
        fn spellings_are_mutual(text in "\\+(5[245]|22[59]|44|1)0?[0-9]{8,12}|\\PC{0,20}") {
            let has_one_trunk = !text.contains("00") && !text.contains("11");
            for other in spellings(&text) {
                let back = spellings(&other);
                let is_mutual = back.contains(&Cow::Borrowed(text.as_str()));
                prop_assert!(is_mutual || !has_one_trunk, "{}", other);
                prop_assert_eq!(identity(&other), identity(&text));
            }
        }
    }
}
