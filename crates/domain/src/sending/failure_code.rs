//! Codes of failures that move a notification on to the next step of its plan.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Number, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

use crate::{email::error_code::EmailErrorCode, refusal::RefusalCode};

/// Twilio's error codes.
const TWILIO_CODES: std::ops::RangeInclusive<u32> = 10_000..=99_999;

/// Code of a failure: Twilio's error code as a number, or the name of a code of this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCode(String);

impl FailureCode {
    /// Returns the code as messages store it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lists the codes of this service: of the rules, and of e-mails.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let of_rules = RefusalCode::of_send_rules().map(RefusalCode::as_str);
        of_rules.chain(EmailErrorCode::ALL.into_iter().map(EmailErrorCode::as_str))
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FailureCode {
    type Err = String;

    /// Parses a number of five digits, or a name.
    fn from_str(text: &str) -> Result<FailureCode, String> {
        let is_number = text.parse().is_ok_and(|number| TWILIO_CODES.contains(&number));
        match is_number || FailureCode::names().any(|name| name == text) {
            true => Ok(FailureCode(text.to_owned())),
            false => Err(format!(
                "{text} is no code of a failure: use an error code of Twilio, such as 63016, or a code of a rule, such as suppressed"
            )),
        }
    }
}

impl Serialize for FailureCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u32>() {
            Ok(number) => serializer.serialize_u32(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for FailureCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FailureCode, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::Number(number) => whole_number(&number).map(|number| number.to_string()),
            Value::String(name) if name.parse::<u32>().is_err() => Some(name),
            _ => None,
        };
        let problem =
            || D::Error::custom("move_on must be a list of codes, as in [63016, \"suppressed\"]");
        text.ok_or_else(problem)?.parse().map_err(D::Error::custom)
    }
}

/// Returns an integer. JSON Schema counts `60.0` as an integer, and some clients write numbers that way.
pub(super) fn whole_number(number: &Number) -> Option<u32> {
    let text = number.to_string();
    text.strip_suffix(".0").unwrap_or(&text).parse().ok()
}

impl PartialSchema for FailureCode {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("Error code of Twilio"))
            .minimum(Some(*TWILIO_CODES.start()))
            .maximum(Some(*TWILIO_CODES.end()));
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Code of a rule, or of an e-mail"))
            .enum_values(Some(FailureCode::names()));
        let either = OneOfBuilder::new().item(number).item(name);
        RefOr::T(Schema::OneOf(either.description(Some("Code of a failure")).build()))
    }
}

impl ToSchema for FailureCode {}
