//! Validation of template variables: each has a value, no unknown ones are given, and no value makes WhatsApp refuse
//! the whole message (Twilio's 21656 and 63013, Meta's limits of a template).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::MAX_VARIABLES;

/// Maximum length of the filled text of a WhatsApp template that has more than a body (a header, buttons, media), in
/// characters. Meta permits 32,768 where the body is the only component (Cloud API, template messages, parameter
/// object).
const MAX_CHARS_WITH_OTHERS: usize = 1024;

/// Maximum length of any text at Twilio, in characters: of `twilio/text` and of one variable (Twilio's Content API).
const MAX_CHARS: usize = 1600;

/// Maximum number of consecutive spaces.
const MAX_SPACES: usize = 4;

/// Maximum length of a variable's name, in characters. Twilio documents 16; Twilio itself refuses longer ones.
const MAX_NAME_CHARS: usize = 64;

/// Maximum number of problems reported at once.
const MAX_PROBLEMS: usize = 10;

/// Returns the names of all variables in a template's content: for `{"body": "Hello {{1}}"}` that is `1`.
pub fn variable_names(shown: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(shown, &mut found);
    found
}

fn collect(shown: &Value, found: &mut BTreeSet<String>) {
    match shown {
        Value::String(text) => found.extend(places_of(text).map(str::to_owned)),
        Value::Array(list) => list.iter().for_each(|one| collect(one, found)),
        Value::Object(fields) => fields.values().for_each(|one| collect(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn places_of(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("{{").skip(1);
    ends.filter_map(|rest| rest.split_once("}}"))
        .map(|(name, _)| name.trim())
        .filter(|name| is_variable_name(name))
}

/// Returns whether a variable can have this name: any text without blanks and braces, for example `order-id` and
/// `first_name`.
pub fn is_variable_name(name: &str) -> bool {
    let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '{' | '}');
    (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && name.chars().all(is_allowed)
}

/// Returns whether a set of names can be the variables of a template.
pub fn are_variable_names(names: &BTreeSet<String>) -> bool {
    names.len() <= MAX_VARIABLES && names.iter().all(|name| is_variable_name(name))
}

/// Known properties of a template, and its channel.
#[derive(Debug, Clone, Copy)]
pub struct VariableContext<'a> {
    /// Names of its variables, if known.
    pub places: Option<&'a BTreeSet<String>>,
    /// Text; empty if unknown.
    pub text: &'a str,
    /// True if it has more than its text, as far as known.
    pub has_others: bool,
    /// Channel.
    pub channel: &'a str,
}

/// Returns the problems of the given values, at most `MAX_PROBLEMS`. No problem repeats a value.
pub fn problems(asked: VariableContext<'_>, given: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(places) = asked.places {
        let missing = places.iter().filter(|name| !given.contains_key(*name));
        problems.extend(missing.map(|name| format!("{name}: is missing")));
        let extra = given.keys().filter(|name| !places.contains(*name));
        let there = match places.is_empty() {
            true => "none".to_owned(),
            false => places.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        };
        problems.extend(extra.map(|name| {
            format!(
                "{}: is not a variable of the template, whose variables are {there}",
                short(name)
            )
        }));
    } else if given.len() > MAX_VARIABLES {
        problems.push(format!("must have at most {MAX_VARIABLES} variables"));
    }
    let is_whatsapp = asked.channel == "whatsapp";
    let longest = if is_whatsapp && asked.has_others { MAX_CHARS_WITH_OTHERS } else { MAX_CHARS };
    for (name, value) in given {
        let wrong = |what: &str| format!("{}: {what}", short(name));
        if value.trim().is_empty() {
            problems.push(wrong("is empty"));
        } else if value.chars().count() > longest {
            problems.push(wrong(&format!("is longer than {longest} characters")));
        }
        if is_whatsapp && value.contains(['\n', '\r', '\t']) {
            problems.push(wrong("has a line break or a tab, which WhatsApp refuses"));
        }
        if is_whatsapp && value.contains(&" ".repeat(MAX_SPACES + 1)) {
            problems.push(wrong(&format!(
                "has more than {MAX_SPACES} spaces in a row, which WhatsApp refuses"
            )));
        }
    }
    if problems.is_empty() {
        let length = filled(asked.text, given).chars().count();
        if length > longest {
            problems.push(format!(
                "the text with these values has {length} characters; the limit is {longest}"
            ));
        }
    }
    problems.truncate(MAX_PROBLEMS);
    problems
}

/// Shortens a caller's name of a variable for an error text.
fn short(name: &str) -> String {
    let found = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect::<String>();
    if found.is_empty() { "a name without letters".to_owned() } else { found }
}

/// Returns the text with all variables replaced in one pass: a value that looks like a variable is not replaced again.
pub fn filled(text: &str, given: &BTreeMap<String, String>) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        whole.push_str(before);
        let place = after.split_once("}}").filter(|(name, _)| is_variable_name(name.trim()));
        match place {
            Some((name, after)) => {
                whole.push_str(given.get(name.trim()).map_or("", String::as_str));
                rest = after;
            }
            None => {
                whole.push_str("{{");
                rest = after;
            }
        }
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn wrong(channel: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let places = variable_names(&json!("Hello {{1}}, order {{2}}"));
        let (channel, has_others) = match channel.strip_suffix(" card") {
            Some(channel) => (channel, true),
            None => (channel, false),
        };
        let text = "Hello {{1}}, order {{2}}";
        problems(
            VariableContext { places: Some(&places), text, has_others, channel },
            &given(pairs),
        )
    }

    #[test]
    fn variable_names_are_found_in_all_content() {
        let shown = json!({
            "twilio/card": {"title": "Hi {{ 1 }}", "media": ["https://a.example/{{name}}.png"]},
            "twilio/text": {"body": "{{1}} {{}} {{not this}} {{2", "n": 3},
            "twilio/media": {"body": "{{order-id}} {{first_name}} {{a.b}} {{{c}}} {{Größe}}"},
        });
        let expected = ["1", "Größe", "a.b", "first_name", "name", "order-id"];
        assert_eq!(variable_names(&shown).into_iter().collect::<Vec<_>>(), expected);
        let given = given(&[("order-id", "7"), ("first_name", "Ada")]);
        assert_eq!(filled("{{first_name}}: {{ order-id }}", &given), "Ada: 7");
    }

    #[test]
    fn variable_problem_names_its_variable() {
        let (longer, most) = ("x".repeat(1601), "x".repeat(1590));
        let (long, less) = ("x".repeat(1025), "x".repeat(1020));
        for (channel, pairs, found) in [
            ("whatsapp", &[("1", "Ada"), ("2", "7")][..], ""),
            ("whatsapp", &[("1", "Ada")], "2: is missing"),
            (
                "whatsapp",
                &[("1", "Ada"), ("2", "7"), ("3", "x")],
                "3: is not a variable of the template, whose variables are 1, 2",
            ),
            ("whatsapp", &[("1", " "), ("2", "7")], "1: is empty"),
            ("whatsapp", &[("1", "a\nb"), ("2", "7")], "1: has a line break or a tab"),
            ("whatsapp", &[("1", "a\tb"), ("2", "7")], "1: has a line break or a tab"),
            ("whatsapp", &[("1", "a     b"), ("2", "7")], "1: has more than 4 spaces"),
            ("whatsapp", &[("1", "a    b"), ("2", "7")], ""),
            ("whatsapp card", &[("1", &long), ("2", "7")], "1: is longer than 1024"),
            (
                "whatsapp card",
                &[("1", &less), ("2", "7")],
                "the text with these values has 1035 characters",
            ),
            ("sms card", &[("1", &long), ("2", "7")], ""),
            ("whatsapp", &[("1", &long), ("2", "7")], ""),
            ("whatsapp", &[("1", &longer), ("2", "7")], "1: is longer than 1600"),
            (
                "whatsapp",
                &[("1", &most), ("2", "7")],
                "the text with these values has 1605 characters",
            ),
            ("sms", &[("1", &less), ("2", "7")], ""),
            ("sms", &[("1", "a\nb     c"), ("2", "7")], ""),
        ] {
            let problems = wrong(channel, pairs);
            match found {
                "" => assert!(problems.is_empty(), "{problems:?}"),
                found => {
                    assert_eq!(problems.len(), 1, "{problems:?}");
                    assert!(problems[0].starts_with(found), "{problems:?}");
                }
            }
        }
        let unknown =
            VariableContext { places: None, text: "", has_others: false, channel: "whatsapp" };
        assert!(problems(unknown, &given(&[("x", "y")])).is_empty(), "its variables are unknown");
        assert_eq!(problems(unknown, &given(&[("x", "")])), ["x: is empty"]);
    }

    proptest! {
        /// Property: accepted values cover all variables and fit; otherwise there is a problem, and it repeats no
        /// value.
        #[test]
        fn accepted_variables_are_complete_and_fit(
            text in "[a-z {}12]{0,40}",
            values in prop::collection::btree_map("[123]|\\PC{0,3}", "[ \\n\\ta-c]{0,12}|Zebra", 0..4),
            channel in "whatsapp|sms",
        ) {
            let places = variable_names(&json!(&text));
            let has_others = false;
            let asked = VariableContext { places: Some(&places), text: &text, has_others, channel: &channel };
            let found = problems(asked, &values);
            if found.is_empty() {
                prop_assert!(places.iter().eq(values.keys()));
                for value in values.values() {
                    prop_assert!(!value.trim().is_empty());
                    if channel == "whatsapp" {
                        prop_assert!(!value.contains(['\n', '\t']) && !value.contains("     "));
                    }
                }
                prop_assert!(filled(&text, &values).chars().count() <= 1600);
            }
            prop_assert!(found.len() <= MAX_PROBLEMS);
            prop_assert!(found.iter().all(|one| !one.contains("Zebra")));
        }

        /// Property: every variable is replaced once, and a value is never read as a variable.
        #[test]
        fn variable_value_is_never_read_as_a_variable(value in "[{}12]{0,8}") {
            let values = given(&[("1", &value), ("2", "two")]);
            prop_assert_eq!(filled("<{{1}}|{{2}}>", &values), format!("<{value}|two>"));
        }
    }
}
