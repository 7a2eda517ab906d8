//! Phone numbers in any written form: normalization to E.164, alternative spellings of the same number, and the
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
const MAX_CHARS: usize = 64;

/// Number of rounds after which a number is refused if formatting it again still changes it.
const MAX_ROUNDS: usize = 4;

/// Region of numbers without a country code.
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
    if text.chars().count() > MAX_CHARS {
        return Err(format!(
            "the text is not a phone number: it is longer than {MAX_CHARS} characters"
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
    for _ in 0..MAX_ROUNDS {
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
mod tests;
