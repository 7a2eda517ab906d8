//! `ContentVariables` of Twilio's REST API: a JSON object with a text for each variable. A number stays as it is written:
//! `{"1":19.90}` means the text `19.90`. Everything else is Twilio's 21656, with the name of the variable.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::DropInError;

/// Twilio's title of 21656.
const INVALID: &str = "The ContentVariables Parameter is invalid";

/// Longest name that an error repeats, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Reads the parameter.
///
/// # Errors
/// 21656 for what is no JSON object, for a name that occurs twice, and for `null`, `true`, `false`, an object or a list as a
/// value. The message names the variable.
pub fn read(json: &str) -> Result<BTreeMap<String, String>, DropInError> {
    let wrong = |what: String| DropInError::new(21656, format!("{INVALID}: {what}"));
    let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs>(json) else {
        return Err(wrong("must be a JSON object with a string for each variable".to_owned()));
    };
    let mut variables = BTreeMap::new();
    for (name, value) in pairs {
        let shown_name = shown(&name);
        let text = text(value.get()).map_err(|kind| {
            wrong(format!("variable \"{shown_name}\" is {kind}; it must be a string or a number"))
        })?;
        if variables.insert(name, text).is_some() {
            return Err(wrong(format!("variable \"{shown_name}\" occurs more than once")));
        }
    }
    Ok(variables)
}

/// The text that a JSON value means, or what kind of value it is.
fn text(value: &str) -> Result<String, &'static str> {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map_err(|_| "not a string"),
        Some(b'-' | b'0'..=b'9') => Ok(value.to_owned()),
        Some(b'n') => Err("null"),
        Some(b't') => Err("true"),
        Some(b'f') => Err("false"),
        Some(b'[') => Err("a list"),
        Some(b'{') => Err("an object"),
        _ => Err("not a JSON value"),
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

/// The members of an object in their order, a name that occurs twice included.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_stay_as_they_are_written() {
        for (json, expected) in [
            (r#"{"1":19.90}"#, "19.90"),
            (r#"{"1": 7 }"#, "7"),
            (r#"{"1":-0.50}"#, "-0.50"),
            (r#"{"1":1e3}"#, "1e3"),
            (r#"{"1":12345678901234567890123}"#, "12345678901234567890123"),
            (r#"{"1":"19.90"}"#, "19.90"),
            (r#"{"1":"a\u00e9\n\"b\""}"#, "a\u{e9}\n\"b\""),
            (r#"{"1":""}"#, ""),
        ] {
            assert_eq!(read(json).unwrap().get("1").map(String::as_str), Some(expected), "{json}");
        }
        assert_eq!(read("{}"), Ok(BTreeMap::new()));
    }

    #[test]
    fn error_names_the_variable_and_what_it_is() {
        for (json, named) in [
            (r#"{"1":null}"#, "\"1\" is null"),
            (r#"{"a":"x","order-id":true}"#, "\"order-id\" is true"),
            (r#"{"1":false}"#, "\"1\" is false"),
            (r#"{"1":["Zebra"]}"#, "\"1\" is a list"),
            (r#"{"1":{"a":"Zebra"}}"#, "\"1\" is an object"),
            (r#"{"1":"Zebra","1":"b"}"#, "\"1\" occurs more than once"),
            (r#"["Zebra"]"#, "must be a JSON object"),
            ("null", "must be a JSON object"),
            ("Zebra", "must be a JSON object"),
            (r#"{"1":01}"#, "must be a JSON object"),
            (r#"{"1":"a"} x"#, "must be a JSON object"),
        ] {
            let mistake = read(json).unwrap_err();
            assert_eq!(mistake.code, 21656, "{json}");
            assert!(mistake.message.contains(named), "{json}: {}", mistake.message);
            assert!(!mistake.message.contains("Zebra"), "{json}: {}", mistake.message);
        }
    }

    proptest! {
        #[test]
        fn variables_of_any_text_are_read_without_panic(text: String, name: String) {
            let _ = read(&text);
            let object = serde_json::json!({ name.as_str(): text });
            let variables = read(&object.to_string()).unwrap();
            prop_assert_eq!(variables.get(&name), Some(&text));
        }
    }
}
