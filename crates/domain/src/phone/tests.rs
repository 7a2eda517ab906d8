use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

fn region(code: &str) -> Option<Region> {
    Some(code.parse().unwrap())
}

#[test]
fn landline_is_known_where_the_digits_show_it() {
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
fn error_names_the_problem() {
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
fn number_belongs_to_one_country() {
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
    fn number_of_any_text_is_parsed_without_panic(text in "\\PC{0,70}|[+0-9 ().;=/#*x,-]{0,30}|.*", of in "[A-Z]{2}") {
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
    fn number_is_parsed_from_every_format(
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
