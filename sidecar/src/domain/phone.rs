//! Phone numbers as people write them, made into E.164; and whose country a number is of. What Twilio wrote is taken as it
//! is ([`Address::parse`]): this is for what comes by API, by command line and in lists. The numbering plans of the world
//! are libphonenumber's.
//!
//! [`Address::parse`]: crate::domain::address::Address::parse

use std::{borrow::Cow, fmt, str::FromStr};

use rlibphonenumber::{
    PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberFormat, PhoneNumberType,
    ValidationError, enums::Region as Code,
};

/// Longest text that is looked at; the longest spelling of a number is well below it.
const LONGEST: usize = 64;

/// The country whose numbers may be written without their country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region(Code);

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Region, String> {
        let is_country = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let code = is_country.then(|| text.to_ascii_uppercase().parse::<Code>().ok()).flatten();
        let known =
            code.filter(|code| PHONE_NUMBER_UTIL.get_country_code_for_region(*code).is_some());
        known.map(Region).ok_or_else(|| format!("{text:?} is no country: two letters, as in FR"))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_region_str())
    }
}

/// The number in E.164. What is E.164 already stays as it is written, so that it is the number that Twilio names.
pub fn e164(text: &str, region: Option<Region>) -> Result<String, String> {
    let text = text.trim();
    let problem = |problem: &str| Err(format!("{text:?} is no phone number: {problem}"));
    if text.len() > LONGEST {
        return Err(format!("this is no phone number: it is longer than {LONGEST} bytes"));
    }
    let number = match PHONE_NUMBER_UTIL.parse(text, region.map(|region| region.0)) {
        Ok(number) => number,
        Err(ParseError::InvalidCountryCode) if text.starts_with(['+', '\u{ff0b}']) => {
            return problem("no country has that code");
        }
        Err(ParseError::InvalidCountryCode) => {
            return problem("write it as +, country code and number, or say of which region it is");
        }
        Err(ParseError::TooShortAfterIdd | ParseError::TooShortNsn) => {
            return problem("it is too short");
        }
        Err(ParseError::TooLongNsn) => return problem("it is too long"),
        Err(ParseError::NotANumber(_)) => return problem("it holds something else"),
    };
    if number.extension.as_deref().is_some_and(|extension| !extension.is_empty()) {
        return problem("no message reaches an extension");
    }
    if is_e164(text) && spellings(text).iter().any(|spelling| is_possible(spelling)) {
        return Ok(text.to_owned());
    }
    if let Err(reason) = number.is_possible_with_reason() {
        return problem(&of_its_country(&number, &reason));
    }
    Ok(number.format_as(PhoneNumberFormat::E164).into_owned())
}

fn is_possible(e164: &str) -> bool {
    let number = PHONE_NUMBER_UTIL.parse(e164, None);
    number.is_ok_and(|number| number.is_possible_with_reason().is_ok())
}

fn of_its_country(number: &PhoneNumber, reason: &ValidationError) -> String {
    let kind = match reason {
        ValidationError::TooShort => "too short",
        ValidationError::TooLong => "too long",
        ValidationError::InvalidCountryCode | ValidationError::InvalidLength => {
            "of no length that there is"
        }
    };
    format!("it is {kind} for country code {}", number.country_code)
}

/// Whether it is written as Twilio writes it: `+` and 7 to 15 digits, the first of which is no 0.
pub fn is_e164(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// The country of a number in E.164, in two letters; none of those that belong to no country.
pub fn country(e164: &str) -> Option<String> {
    if !is_e164(e164) {
        return None;
    }
    let number = PHONE_NUMBER_UTIL.parse(e164, None).ok()?;
    // By the digits where they tell (several countries share +1); by the code where the number is not assigned.
    let by_number = number.get_region_code();
    let region =
        by_number.or_else(|| PHONE_NUMBER_UTIL.get_region_for_country_code(number.country_code))?;
    Some(region.to_string()).filter(|code| code.len() == 2 && code != "ZZ")
}

/// Whether it is of a telephone on a wall, certainly: where the digits do not tell (as in the United States) it is not.
pub fn is_landline(e164: &str) -> bool {
    let number = is_e164(e164).then(|| PHONE_NUMBER_UTIL.parse(e164, None).ok()).flatten();
    number.is_some_and(|number| number.get_type() == PhoneNumberType::FixedLine)
}

/// The number and every other spelling that reaches the same person: three countries changed how mobiles are written, and
/// networks and WhatsApp still use both.
pub fn spellings(e164: &str) -> Vec<Cow<'_, str>> {
    let is_mobile = |old: &str| old.starts_with(['6', '7', '8', '9']);
    let mut all = vec![Cow::Borrowed(e164)];
    if !is_e164(e164) {
        return all;
    }
    let other = if let Some(rest) = e164.strip_prefix("+521").filter(|rest| rest.len() == 10) {
        Some(format!("+52{rest}"))
    } else if let Some(rest) = e164.strip_prefix("+52").filter(|rest| rest.len() == 10) {
        Some(format!("+521{rest}"))
    } else if let Some(rest) = e164.strip_prefix("+549").filter(|rest| rest.len() == 10) {
        Some(format!("+54{rest}"))
    } else if let Some(rest) = e164.strip_prefix("+54").filter(|rest| rest.len() == 10) {
        Some(format!("+549{rest}"))
    } else if let Some((area, rest)) = e164.strip_prefix("+55").and_then(|r| r.split_at_checked(2))
    {
        match (rest.len(), rest.strip_prefix('9')) {
            (9, Some(old)) if is_mobile(old) => Some(format!("+55{area}{old}")),
            (8, _) if is_mobile(rest) => Some(format!("+55{area}9{rest}")),
            _ => None,
        }
    } else {
        None
    };
    all.extend(other.map(Cow::Owned));
    all
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(is_landline(number), expected, "{number}");
        }
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
            // Nobody has these, but they are written well: as Twilio's own test numbers are.
            ("+15005550006", None, "+15005550006"),
            // As Twilio writes it, though the plan of today writes it without the 1.
            ("+5215512345678", None, "+5215512345678"),
        ] {
            assert_eq!(e164(text, of.and_then(region)).as_deref(), Ok(number), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (text, of, problem) in [
            ("4155552671", None, "write it as +, country code and number"),
            ("+999123456789", None, "no country has that code"),
            ("hello", Some("US"), "it holds something else"),
            ("", Some("US"), "it holds something else"),
            ("+1415", None, "it is too short"),
            ("+1415555267", None, "it is too short for country code 1"),
            ("+141555526712", None, "it is too long for country code 1"),
            ("+14155552671 ext. 5", None, "no message reaches an extension"),
        ] {
            let said = e164(text, of.and_then(region)).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
        assert!(e164(&"1".repeat(65), None).unwrap_err().contains("longer than 64 bytes"));
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
            assert_eq!(spellings(one), [one, other]);
            assert_eq!(spellings(other), [other, one]);
        }
        for alone in ["+14155552671", "+551133334444", "+5212345", "12345", ""] {
            assert_eq!(spellings(alone), [alone]);
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
        fn spellings_are_mutual(text in "\\+5[245][0-9]{8,12}|\\PC{0,20}") {
            for other in spellings(&text) {
                prop_assert!(spellings(&other).contains(&Cow::Borrowed(text.as_str())), "{}", other);
            }
        }
    }
}
