//! Readers of JSON values that find every problem in one pass: each notes a problem under its path and continues with a
//! harmless value. This module does not know the fields of the plugin configuration.

use std::cell::RefCell;
use std::fmt;

use serde_json::{Map, Value};

/// One problem of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path, as `routes[1].class`.
    pub path: String,
    /// Problem, and the correct form.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

/// One pass over the JSON that collects problems instead of stopping at the first.
pub(super) struct Reader<'a> {
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

impl Reader<'_> {
    pub(super) fn problem(&self, path: &str, message: impl Into<String>) {
        let problem = Problem { path: path.to_owned(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn refuse_repeats(&self, list: &str, names: impl Iterator<Item = impl AsRef<str>>) {
        let mut seen: Vec<String> = Vec::new();
        for name in names {
            let name = name.as_ref();
            match seen.iter().any(|seen| seen == name) {
                true => self.problem(list, format!("{name:?} occurs twice")),
                false => seen.push(name.to_owned()),
            }
        }
    }

    pub(super) fn object<'v>(
        &self,
        path: &str,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.problem(path, format!("must be an object with {}", known.join(", ")));
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.problem(&path, format!("is unknown; valid fields are {}", known.join(", ")));
        }
        Some(object)
    }

    pub(super) fn list<'v>(
        &self,
        path: &str,
        value: Option<&'v Value>,
        max: usize,
    ) -> impl Iterator<Item = (String, &'v Value)> {
        if value.and_then(Value::as_array).is_none_or(Vec::is_empty) {
            self.problem(path, "is required: a list with at least one entry");
        }
        self.optional_list(path, value, max)
    }

    pub(super) fn optional_list<'v>(
        &self,
        path: &str,
        value: Option<&'v Value>,
        max: usize,
    ) -> impl Iterator<Item = (String, &'v Value)> {
        let items = match value {
            None => &[][..],
            Some(Value::Array(items)) => items.as_slice(),
            Some(_) => {
                self.problem(path, "must be a list");
                &[]
            }
        };
        if items.len() > max {
            self.problem(path, format!("has {} entries; at most {max} are allowed", items.len()));
        }
        let path = path.to_owned();
        items.iter().take(max).enumerate().map(move |(i, value)| (format!("{path}[{i}]"), value))
    }

    pub(super) fn required_text(
        &self,
        path: &str,
        object: Option<&Map<String, Value>>,
        name: &str,
        meaning: &str,
    ) -> Option<String> {
        let path = format!("{path}.{name}");
        match field(object, name) {
            Some(value) => self.text(&path, value),
            None => {
                self.problem(&path, format!("is required: {meaning}"));
                None
            }
        }
    }

    pub(super) fn boolean(&self, path: &str, value: Option<&Value>, default: bool) -> bool {
        match value.map(Value::as_bool) {
            None => default,
            Some(Some(value)) => value,
            Some(None) => {
                self.problem(path, "must be true or false");
                default
            }
        }
    }

    pub(super) fn integer(
        &self,
        path: &str,
        value: Option<&Value>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default };
        match whole(value).filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let (min, max) = (range.start(), range.end());
                self.problem(path, format!("must be a whole number from {min} to {max}"));
                default
            }
        }
    }

    /// Reads text inline or from the environment. An optional variable that is absent yields `None` without a problem.
    pub(super) fn text(&self, path: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Object(object) => {
                let source = self.object(path, value, &["env", "optional"]);
                let optional = match field(source, "optional") {
                    None => false,
                    Some(Value::Bool(optional)) => *optional,
                    Some(_) => {
                        self.problem(&format!("{path}.optional"), "must be true or false");
                        false
                    }
                };
                let Some(name) = object.get("env").and_then(Value::as_str) else {
                    self.problem(
                        &format!("{path}.env"),
                        "is required: the name of an environment variable",
                    );
                    return None;
                };
                let found = (self.environment)(name).filter(|text| !text.is_empty());
                if found.is_none() && !optional {
                    self.problem(
                        path,
                        format!(
                            "{name} is not set: add it to Envoy's environment and list it in vm_config.environment_variables.host_env_keys"
                        ),
                    );
                }
                found
            }
            _ => {
                self.problem(path, "must be text, or {\"env\": \"NAME\"}");
                None
            }
        }
    }

    /// Reads text as [`Self::text`], and refuses a secret with a stray space or line break.
    pub(super) fn secret(&self, path: &str, value: &Value) -> Option<String> {
        let secret = self.text(path, value)?;
        if secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(secret);
        }
        self.problem(
            path,
            "contains a character that no token has, for instance a space or a line break",
        );
        None
    }
}

pub(super) fn field<'v>(object: Option<&'v Map<String, Value>>, name: &str) -> Option<&'v Value> {
    object.and_then(|object| object.get(name))
}

/// Returns a whole number. Envoy passes a Struct configuration as JSON in which every number may be a double.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // Exact below 2^53; any larger number is out of every range here.
        (number.fract() == 0.0 && (0.0..9.0e15).contains(&number)).then_some(number as u64)
    })
}
