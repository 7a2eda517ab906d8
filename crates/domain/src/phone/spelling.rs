//! Alternative spellings of one number. Five countries changed how their numbers are written, and networks and WhatsApp
//! still use the old spelling beside the new one. Older rows may also have a trunk prefix after the country code. This
//! module works on text alone, because it runs for every webhook.

use std::borrow::Cow;

use super::is_e164;

/// Number as the current numbering plan writes it, and as an older one does.
struct Spellings {
    today: String,
    before: String,
}

/// Trunk prefixes, each with the country codes of numbers that never begin with it. It is a table because computing it
/// from the numbering plans would take too long at the first call; a test compares the two.
const TRUNKS: [(&str, &[&str]); 4] = [
    (
        "0",
        &[
            "20", "211", "212", "213", "218", "231", "232", "233", "234", "243", "249", "250",
            "251", "252", "254", "255", "256", "260", "261", "262", "263", "264", "265", "27",
            "291", "31", "32", "33", "353", "355", "358", "359", "370", "373", "374", "375", "377",
            "380", "381", "382", "383", "385", "386", "387", "389", "40", "41", "421", "423", "43",
            "44", "46", "49", "508", "51", "53", "54", "55", "57", "58", "590", "591", "593",
            "594", "595", "596", "598", "60", "61", "62", "63", "64", "66", "686", "81", "82",
            "84", "850", "855", "856", "86", "880", "886", "90", "91", "92", "93", "94", "95",
            "961", "962", "963", "964", "966", "967", "970", "971", "972", "976", "977", "98",
            "994", "995", "996",
        ],
    ),
    ("06", &["36"]),
    ("1", &["1", "692"]),
    ("8", &["993"]),
];

/// Returns the number and every other spelling under which the same contact may be stored, the number first.
pub fn spellings(e164: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(e164)];
    if !is_e164(e164) {
        return all;
    }
    let (without, with) = trunk(e164);
    let base = without.as_deref().unwrap_or(e164);
    let second = second(base);
    let of_second = second.as_deref().and_then(|second| trunk(second).1);
    for other in [without.clone(), second, with, of_second].into_iter().flatten() {
        if !all.contains(&Cow::Borrowed(other.as_str())) {
            all.push(Cow::Owned(other));
        }
    }
    all
}

/// Returns the spellings of a number that another system may use: the given one, and one for each plan of its country.
pub fn of_each_plan(number: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(number)];
    let today = identity(number);
    let second = second(&today).map(Cow::Owned);
    for other in [Some(today), second].into_iter().flatten() {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

/// Returns the one spelling that represents all [`spellings`] of a number. Text that is not in E.164 represents itself.
pub fn identity(number: &str) -> Cow<'_, str> {
    if !is_e164(number) {
        return Cow::Borrowed(number);
    }
    let base = trunk(number).0.map_or(Cow::Borrowed(number), Cow::Owned);
    match spelled(&base) {
        Some(Spellings { today, .. }) => Cow::Owned(today),
        None => base,
    }
}

/// Returns whether two numbers reach the same contact.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || identity(one) == identity(other)
}

/// Returns the spelling of the same number in another plan of its country, if there is one.
pub(super) fn second(e164: &str) -> Option<String> {
    let Spellings { today, before } = spelled(e164)?;
    Some(if today == e164 { before } else { today })
}

fn spelled(e164: &str) -> Option<Spellings> {
    let rest = e164.strip_prefix('+').filter(|_| is_e164(e164))?;
    let of_country = |code: &str| rest.strip_prefix(code);
    of_country("52")
        .and_then(mexico)
        .or_else(|| of_country("54").and_then(argentina))
        .or_else(|| of_country("55").and_then(brazil))
        .or_else(|| of_country("225").and_then(ivory_coast))
        .or_else(|| of_country("229").and_then(benin))
        // No number begins with the trunk prefix of its country.
        .filter(|found| [&found.today, &found.before].iter().all(|one| trunk(one).0.is_none()))
}

/// Parses a Mexican number: until 2019 a mobile had a 1 before its ten digits.
fn mexico(rest: &str) -> Option<Spellings> {
    let ten = match rest.len() {
        10 => Some(rest),
        11 => rest.strip_prefix('1'),
        _ => None,
    }?;
    Some(Spellings { today: format!("+52{ten}"), before: format!("+521{ten}") })
}

/// Parses an Argentine number: a mobile has a 9 before its ten digits in calls from abroad; many people write it
/// without.
fn argentina(rest: &str) -> Option<Spellings> {
    let ten = match rest.len() {
        10 => Some(rest),
        11 => rest.strip_prefix('9'),
        _ => None,
    }?;
    Some(Spellings { today: format!("+549{ten}"), before: format!("+54{ten}") })
}

/// Parses a Brazilian number: since 2016 every mobile has a ninth digit, a 9 after the area code.
fn brazil(rest: &str) -> Option<Spellings> {
    let (area, number) = rest.split_at_checked(2)?;
    let eight = match number.len() {
        8 => Some(number),
        9 => number.strip_prefix('9'),
        _ => None,
    };
    let eight = eight.filter(|eight| eight.starts_with(['6', '7', '8', '9']))?;
    Some(Spellings { today: format!("+55{area}9{eight}"), before: format!("+55{area}{eight}") })
}

/// Parses an Ivorian number: since 31 January 2021 the operator's prefix precedes the eight digits (ARTCI). Mobiles
/// have 01 (Moov), 05 (MTN) or 07 (Orange), by their second digit. Landlines begin with 2 or 3 and have 21, 25 or 27,
/// by their third digit.
fn ivory_coast(rest: &str) -> Option<Spellings> {
    let eight = match rest.len() {
        8 => Some(rest),
        10 => rest.get(2..),
        _ => None,
    }?;
    let prefix = match eight.as_bytes() {
        [b'2', _, b'8', ..] => "21",
        [b'2' | b'3', _, b'0', ..] => "25",
        [b'2' | b'3', ..] => "27",
        [_, b'0'..=b'3', ..] => "01",
        [_, b'4'..=b'6', ..] => "05",
        [_, _, ..] => "07",
        _ => return None,
    };
    let is_its = rest.len() == 8 || rest.starts_with(prefix);
    is_its.then(|| Spellings {
        today: format!("+225{prefix}{eight}"),
        before: format!("+225{eight}"),
    })
}

/// Parses a Beninese number: since 30 November 2024 01 precedes the eight digits.
fn benin(rest: &str) -> Option<Spellings> {
    let eight = match rest.len() {
        8 => Some(rest),
        10 => rest.strip_prefix("01"),
        _ => None,
    }?;
    Some(Spellings { today: format!("+22901{eight}"), before: format!("+229{eight}") })
}

/// Returns the number without the trunk prefix after its country code, if it has one, and the number with it, if it has
/// none.
fn trunk(e164: &str) -> (Option<String>, Option<String>) {
    let digits = e164.strip_prefix('+').unwrap_or_default();
    let found = (1..=3).find_map(|length| {
        let (code, rest) = digits.split_at_checked(length)?;
        let (trunk, _) = TRUNKS.iter().find(|(_, codes)| codes.contains(&code))?;
        Some((code, *trunk, rest))
    });
    let Some((code, trunk, rest)) = found else { return (None, None) };
    let bare = rest.trim_start_matches(trunk);
    if bare.len() == rest.len() {
        let with = format!("+{code}{trunk}{rest}");
        return (None, Some(with).filter(|with| is_e164(with)));
    }
    let without = format!("+{code}{bare}");
    (Some(without).filter(|without| is_e164(without)), None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};

    use super::*;

    #[test]
    fn trunk_prefixes_are_those_of_the_numbering_plans() {
        let codes = |(trunk, codes): &(&str, &[&str])| {
            let of = |code: &&str| ((*code).to_owned(), (*trunk).to_owned());
            codes.iter().map(of).collect::<Vec<_>>()
        };
        let table: BTreeMap<String, String> = TRUNKS.iter().flat_map(codes).collect();
        assert_eq!(table, trunks());
    }

    /// Types of numbers for which libphonenumber has examples.
    const KINDS: [PhoneNumberType; 10] = [
        PhoneNumberType::FixedLine,
        PhoneNumberType::Mobile,
        PhoneNumberType::TollFree,
        PhoneNumberType::PremiumRate,
        PhoneNumberType::SharedCost,
        PhoneNumberType::VoIP,
        PhoneNumberType::PersonalNumber,
        PhoneNumberType::Pager,
        PhoneNumberType::UAN,
        PhoneNumberType::VoiceMail,
    ];

    /// Trunk prefixes of the world.
    const PREFIXES: [&str; 5] = ["0", "8", "06", "1", "01"];

    fn trunks() -> BTreeMap<String, String> {
        let mut trunks: BTreeMap<String, Option<&str>> = BTreeMap::new();
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            let Some(code) = PHONE_NUMBER_UTIL.get_country_code_for_region(region) else {
                continue;
            };
            let start = format!("+{code}");
            let examples = KINDS.iter().filter_map(|kind| {
                let example =
                    PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, *kind);
                Some(example.ok()?.format_as(PhoneNumberFormat::E164).into_owned())
            });
            let examples: Vec<String> = examples.collect();
            let rests: Vec<&str> =
                examples.iter().filter_map(|number| number.strip_prefix(&start)).collect();
            let is_dropped = |trunk: &str, rest: &str| {
                let with = format!("{start}{trunk}{rest}");
                super::super::formatted(&with)
                    .is_ok_and(|number| number.strip_prefix(&start) == Some(rest))
            };
            let is_trunk = |trunk: &&&str| {
                rests.iter().all(|rest| !rest.starts_with(**trunk))
                    && rests.iter().any(|rest| is_dropped(trunk, rest))
            };
            let trunk = PREFIXES.iter().find(is_trunk).copied();
            let known = trunks.entry(code.to_string()).or_insert(trunk);
            // Regions that share a country code have to agree.
            if *known != trunk {
                *known = None;
            }
        }
        let found = trunks.into_iter().filter_map(|(code, trunk)| Some((code, trunk?.to_owned())));
        found.collect()
    }
}
