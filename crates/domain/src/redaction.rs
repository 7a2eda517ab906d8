//! Redaction of a webhook's form: the result has the same names in the same order and other values, so that every
//! parser of forms can still read it. [`super::part`] decides which parameter belongs to which part;
//! [`super::retention`] decides when a part is due.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;

use super::part::{Part, Parts};

/// Text that replaces a removed value.
pub const MARKER: &str = "[redacted]";

/// Beginning of a hashed value; 16 hexadecimal digits and `]` follow.
const HASHED: &str = "[redacted:";

twilio_edge_contract::string_enum! {
    /// Means of redaction.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    pub enum RedactionMethod: serde {
        /// `[redacted]` replaces the value.
        Remove = "remove",
        /// Every character becomes `*`, except the channel and the last two characters of an address. The length stays
        /// visible, and a contact who requests it can be matched to an address.
        Mask = "mask",
        /// A keyed digest replaces the value: equal values stay equal.
        Hash = "hash",
    }
}

/// Key of the digests. `Debug` does not print it.
#[derive(Clone)]
pub struct HashKey(Hmac<Sha256>);

impl HashKey {
    /// Creates the key from a secret. Returns `None` for an empty one.
    pub fn new(secret: &str) -> Option<HashKey> {
        let mac = Hmac::new_from_slice(secret.as_bytes()).ok()?;
        (!secret.is_empty()).then_some(HashKey(mac))
    }

    fn hash(&self, value: &str) -> String {
        let digest = self.0.clone().chain_update(value.as_bytes()).finalize().into_bytes();
        let mut hashed = HASHED.to_owned();
        digest.iter().take(8).for_each(|byte| hashed.push_str(&format!("{byte:02x}")));
        hashed + "]"
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Form after a redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedForm {
    /// The redacted form.
    pub form: String,
    /// Parts that were changed.
    pub parts: Parts,
}

/// Parts to redact together, each with its means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedactionPlan {
    /// Means by part, in the order of [`Part::ALL`].
    means: [Option<RedactionMethod>; 6],
    codes: bool,
}

impl RedactionPlan {
    /// Creates a plan without parts. `codes`: whether it removes codes from bodies that it does not redact.
    pub fn of_codes(codes: bool) -> RedactionPlan {
        RedactionPlan { codes, ..RedactionPlan::default() }
    }

    /// Adds a part.
    pub fn add(&mut self, part: Part, means: RedactionMethod) {
        if let Some(place) = self.means.get_mut(part as usize) {
            *place = Some(means);
        }
    }

    /// Returns the means for a part, if the plan redacts it.
    pub fn means(&self, part: Part) -> Option<RedactionMethod> {
        self.means.get(part as usize).copied().flatten()
    }

    /// Returns the parts that the plan redacts.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(|part| self.means(*part).is_some())
    }

    /// Returns whether the plan changes no form.
    pub fn is_idle(&self) -> bool {
        !self.codes && self.parts().all(|part| part == Part::Answer)
    }

    /// Returns the redacted form, with the same names in the same order, or `None` when nothing changes. Without a key,
    /// `hash` removes the value instead.
    pub fn redact(&self, form: &str, key: Option<&HashKey>) -> Option<RedactedForm> {
        if self.is_idle() {
            return None;
        }
        let mut redacted =
            RedactedForm { form: String::with_capacity(form.len()), parts: Parts(0) };
        for (place, pair) in form.split('&').enumerate() {
            if place > 0 {
                redacted.form.push('&');
            }
            match self.redact_pair(pair, key) {
                Some((part, name, value)) => {
                    redacted.parts.add(part);
                    redacted.form.push_str(name);
                    redacted.form.push('=');
                    redacted.form.extend(form_urlencoded::byte_serialize(value.as_bytes()));
                }
                None => redacted.form.push_str(pair),
            }
        }
        (redacted.parts != Parts(0)).then_some(redacted)
    }

    /// Returns the part, the encoded name and the decoded new value, if the value changes.
    fn redact_pair<'a>(
        &self,
        pair: &'a str,
        key: Option<&HashKey>,
    ) -> Option<(Part, &'a str, String)> {
        let (spelled, _) = pair.split_once('=')?;
        let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
        let part = Part::of(&name)?;
        let redacted = match self.means(part) {
            Some(means) => means.redact(part, &value, key),
            None if self.codes && part == Part::Body => without_codes(&value)?,
            None => return None,
        };
        (redacted != value).then_some((part, spelled, redacted))
    }
}

impl fmt::Display for RedactionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.parts().map(Part::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

impl RedactionMethod {
    /// Returns the replacement of a value. A value that was redacted before keeps its replacement.
    fn redact(self, part: Part, value: &str, key: Option<&HashKey>) -> String {
        let is_hashed = value.starts_with(HASHED) && value.ends_with(']');
        match (self, key) {
            _ if value.is_empty() || value == MARKER => value.to_owned(),
            (RedactionMethod::Hash, Some(_)) if is_hashed => value.to_owned(),
            (RedactionMethod::Hash, Some(key)) => key.hash(value),
            (RedactionMethod::Mask, _) if part == Part::Addresses => masked_address(value),
            (RedactionMethod::Mask, _) => "*".repeat(value.chars().count()),
            (RedactionMethod::Remove | RedactionMethod::Hash, _) => MARKER.to_owned(),
        }
    }
}

/// Returns the channel and the last two characters: `whatsapp:**********67`.
pub fn masked_address(address: &str) -> String {
    let (channel, number) = match address.split_once(':') {
        Some((channel, number)) => (Some(channel), number),
        None => (None, address),
    };
    let length = number.chars().count();
    // The last two characters of a very short address would be half of it.
    let shown = if length < 5 { 0 } else { 2 };
    let masked = number
        .chars()
        .enumerate()
        .map(|(place, character)| if place + shown < length { '*' } else { character });
    channel.map(|channel| format!("{channel}:")).unwrap_or_default() + &masked.collect::<String>()
}

/// Returns the text without codes: runs of at least four digits, with single blanks or hyphens between them. A group of more
/// than eight digits without a separator is a phone number and stays. Dates and amounts look like codes and are removed as
/// well. Returns `None` when the text has no codes.
pub fn without_codes(text: &str) -> Option<String> {
    let mut clean = String::with_capacity(text.len());
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(char::is_numeric) {
        let (before, from) = rest.split_at_checked(start)?;
        let (run, after) = run_of_digits(from);
        clean.push_str(before);
        let is_code = run.chars().filter(|character| character.is_numeric()).count() >= 4;
        let mut groups = run;
        while !groups.is_empty() {
            let end = groups.find([' ', '-']).unwrap_or(groups.len());
            let (group, others) = groups.split_at_checked(end)?;
            let is_code = is_code && group.chars().count() <= 8;
            found |= is_code;
            clean.push_str(if is_code { MARKER } else { group });
            let parted = others.chars().next();
            clean.extend(parted);
            groups = parted.map_or("", |parted| others.strip_prefix(parted).unwrap_or_default());
        }
        rest = after;
    }
    clean.push_str(rest);
    found.then_some(clean)
}

/// Splits off the leading digits, with at most one blank or hyphen between two of them. `text` begins with a digit.
fn run_of_digits(text: &str) -> (&str, &str) {
    let mut end = 0;
    let mut parted = false;
    for (place, character) in text.char_indices() {
        match character {
            _ if character.is_numeric() => (end, parted) = (place + character.len_utf8(), false),
            ' ' | '-' if !parted => parted = true,
            _ => break,
        }
    }
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::part;

    fn plan(parts: &[Part], means: RedactionMethod) -> RedactionPlan {
        let mut plan = RedactionPlan::default();
        parts.iter().for_each(|part| plan.add(*part, means));
        plan
    }

    fn pairs(form: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(form.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect()
    }

    const FORM: &str = "MessageSid=SM1&From=whatsapp%3A%2B15551234567&WaId=15551234567&Body=Hi+Ava%21&\
        MediaUrl0=https%3A%2F%2Fm&MediaUrl10=x&MediaUrlX=y&ProfileName=&NumMedia=2&odd";

    #[test]
    fn redacted_part_leaves_the_rest_unchanged() {
        let redacted = |parts, means| plan(parts, means).redact(FORM, None).unwrap().form;
        assert_eq!(
            redacted(&[Part::Body], RedactionMethod::Remove),
            FORM.replace("Hi+Ava%21", "%5Bredacted%5D")
        );
        assert_eq!(
            redacted(&[Part::Body], RedactionMethod::Mask),
            FORM.replace("Hi+Ava%21", "*******")
        );
        assert_eq!(
            redacted(&[Part::Media], RedactionMethod::Remove),
            FORM.replace("https%3A%2F%2Fm", "%5Bredacted%5D").replace("10=x", "10=%5Bredacted%5D")
        );
        assert_eq!(
            redacted(&[Part::Other], RedactionMethod::Remove),
            FORM.replace("X=y", "X=%5Bredacted%5D")
        );
        assert_eq!(
            redacted(&[Part::Addresses], RedactionMethod::Mask),
            FORM.replace("%3A%2B15551234567", "%3A**********67")
                .replace("=15551234567", "=*********67")
        );
        assert_eq!(
            plan(&[Part::Person], RedactionMethod::Remove).redact(FORM, None),
            None,
            "it is empty"
        );
        assert_eq!(RedactionPlan::default().redact(FORM, None), None);
    }

    #[test]
    fn hashed_values_stay_equal_and_need_the_key() {
        let (key, other) = (HashKey::new("one").unwrap(), HashKey::new("two").unwrap());
        let hash = plan(&[Part::Addresses], RedactionMethod::Hash);
        let hashed = hash.redact("From=%2B1555&To=%2B1555&WaId=1555", Some(&key)).unwrap().form;
        let values: Vec<String> = pairs(&hashed).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values[0], values[1]);
        assert_ne!(values[0], values[2]);
        assert_ne!(
            hashed,
            hash.redact("From=%2B1555&To=%2B1555&WaId=1555", Some(&other)).unwrap().form
        );
        assert_eq!(hash.redact(&hashed, Some(&key)), None, "not a hash of a hash");
        assert_eq!(hash.redact("From=%2B1", None).unwrap().form, "From=%5Bredacted%5D");
        assert!(HashKey::new("").is_none());
    }

    #[test]
    fn masked_address_keeps_its_channel_and_two_characters() {
        for (address, masked) in [
            ("whatsapp:+15551234567", "whatsapp:**********67"),
            ("+15551234567", "**********67"),
            ("12345", "***45"),
            ("1234", "****"),
            ("", ""),
        ] {
            assert_eq!(masked_address(address), masked);
            assert_eq!(masked_address(masked), masked, "once is enough");
        }
    }

    #[test]
    fn codes_are_removed_from_texts() {
        for (text, clean) in [
            ("Your code is 123456.", "Your code is [redacted]."),
            ("1234", "[redacted]"),
            ("G-12345678 is it", "G-[redacted] is it"),
            ("use 123 456 now", "use [redacted] [redacted] now"),
            ("123-456", "[redacted]-[redacted]"),
            ("\u{661}\u{662}\u{663}\u{664}", "[redacted]"),
            ("15551234567 123 456", "15551234567 [redacted] [redacted]"),
            ("2026-11-23 987654", "[redacted]-[redacted]-[redacted] [redacted]"),
        ] {
            assert_eq!(without_codes(text).as_deref(), Some(clean), "{text}");
            assert_eq!(without_codes(clean), None, "{clean}");
        }
        for text in ["", "no digits", "see you at 10", "3 of 12", "call +15551234567", "12  34"] {
            assert_eq!(without_codes(text), None, "{text}");
        }
        let codes = RedactionPlan::of_codes(true);
        assert_eq!(
            codes.redact("From=123456&Body=it+is+123456&Label=123456", None).unwrap().form,
            "From=123456&Body=it+is+%5Bredacted%5D&Label=123456",
            "only what was written"
        );
    }

    /// Generates forms with values that do not occur in any name or other value by chance.
    fn form() -> impl Strategy<Value = Vec<(String, String)>> {
        let names: Vec<String> = part::listed().map(|name| name.replace('*', "3")).collect();
        let name = prop_oneof![proptest::sample::select(names), "[A-Za-z0-9 +&=%\u{e9}]{0,12}"];
        let value = prop_oneof![Just(String::new()), "[a-z &=+%:\u{e9}\u{1f44b}]{3,20}Q[a-z]{6}"];
        proptest::collection::vec((name, value), 0..20)
    }

    proptest! {
        #[test]
        fn redacted_form_has_the_same_names_and_none_of_the_values(
            form in form(),
            parts in proptest::sample::subsequence(Part::ALL.to_vec(), 0..6),
            means in proptest::sample::select(vec![RedactionMethod::Remove, RedactionMethod::Mask, RedactionMethod::Hash]),
            keyed in any::<bool>(),
        ) {
            let raw = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
            let key = HashKey::new("key").filter(|_| keyed);
            let plan = plan(&parts, means);
            let redacted = plan.redact(&raw, key.as_ref()).map_or_else(|| raw.clone(), |redacted| redacted.form);
            let after = pairs(&redacted);
            prop_assert_eq!(after.len(), form.len());
            for ((name, value), (name_after, value_after)) in form.iter().zip(&after) {
                prop_assert_eq!(name, name_after);
                let part = Part::of(name);
                let goes = part.is_some_and(|part| parts.contains(&part)) && !value.is_empty();
                // A mask shows the channel and the end of an address; text before a `:` is its channel.
                let shows = means == RedactionMethod::Mask && part == Some(Part::Addresses);
                match goes {
                    true if shows => prop_assert_ne!(value, value_after),
                    true => {
                        let spelled: String =
                            form_urlencoded::byte_serialize(value.as_bytes()).collect();
                        prop_assert!(!after.iter().any(|(_, other)| other.contains(value.as_str()))
                            || form.iter().any(|(other, kept)| kept.contains(value.as_str())
                                && !Part::of(other).is_some_and(|part| parts.contains(&part))));
                        prop_assert!(value_after != value && *value_after != spelled);
                    }
                    false => prop_assert_eq!(value, value_after),
                }
            }
            prop_assert_eq!(plan.redact(&redacted, key.as_ref()), None, "once is enough");
        }

        #[test]
        fn redaction_of_any_text_never_panics(text in any::<String>()) {
            let mut all = plan(&Part::ALL, RedactionMethod::Mask);
            all.codes = true;
            let _ = all.redact(&text, None);
            if let Some(clean) = without_codes(&text) {
                prop_assert_eq!(without_codes(&clean), None);
            }
        }
    }
}
