//! Strict reader of TOML files with secrets. It reports all problems at once, each with its path and never with a value,
//! because a secret may be anywhere in a wrong file. Does not read files itself.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// Largest number of listed problems; further ones are only counted.
pub const LISTED_PROBLEMS: usize = 20;

/// Reader that continues after a problem, to find the others.
#[derive(Debug, Default)]
pub struct TomlReader {
    problems: Vec<String>,
}

impl TomlReader {
    /// Returns the value if there were no problems, else the problems.
    pub fn outcome<T>(mut self, read: T) -> Result<T, Vec<String>> {
        if self.problems.is_empty() {
            return Ok(read);
        }
        let more = self.problems.len().saturating_sub(LISTED_PROBLEMS);
        self.problems.truncate(LISTED_PROBLEMS);
        if more > 0 {
            self.problems.push(format!("and {more} more"));
        }
        Err(self.problems)
    }

    /// Returns whether there are no problems so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds a problem.
    pub fn problem(&mut self, path: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{path}: {problem}"));
    }

    /// Returns the fields of a table; none if the value is not a table.
    pub fn table<'v>(&mut self, path: &str, value: &'v Value, fields: &[&str]) -> Fields<'v> {
        let table = value.as_table();
        match table {
            Some(table) => self.known_fields(&format!("{path}."), table, fields),
            None => self.problem(path, "must be a table"),
        }
        Fields(table)
    }

    /// Reports every field that is not in `fields`.
    pub fn known_fields(&mut self, parent: &str, table: &Table, fields: &[&str]) {
        for name in table.keys().filter(|name| !fields.contains(&name.as_str())) {
            self.problem(&format!("{parent}{name}"), "there is no such field");
        }
    }

    /// Returns the elements of a list; none if there is no list.
    pub fn list<'v>(&mut self, path: &str, value: Option<&'v Value>, most: usize) -> &'v [Value] {
        match value {
            None => &[],
            Some(Value::Array(list)) if list.len() <= most => list,
            Some(Value::Array(list)) => {
                self.problem(
                    path,
                    format_args!("has {} entries, at most {most} are taken", list.len()),
                );
                &[]
            }
            Some(_) => {
                self.problem(path, "must be a list");
                &[]
            }
        }
    }

    /// Returns a required text that is valid in a header or a key; an empty text if it is missing or invalid.
    pub fn text(&mut self, path: &str, value: Option<&Value>) -> String {
        let problem = match value {
            None => "is required",
            Some(Value::String(text)) if text.is_empty() => "must not be empty",
            Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return text.clone();
            }
            Some(Value::String(_)) => "holds a blank, a line break or another character no key has",
            Some(_) => "must be a text",
        };
        self.problem(path, problem);
        String::new()
    }

    /// Reports repeated values.
    pub fn refuse_repeats<'t>(
        &mut self,
        path: &str,
        field: &str,
        values: impl Iterator<Item = &'t String>,
    ) {
        let mut seen = BTreeSet::new();
        for (n, value) in values.enumerate() {
            if !value.is_empty() && !seen.insert(value) {
                self.problem(&format!("{path}[{n}].{field}"), "is that of an earlier one");
            }
        }
    }
}

/// Fields of a table, or of a value that should have been one.
#[derive(Clone, Copy)]
pub struct Fields<'v>(Option<&'v Table>);

impl<'v> Fields<'v> {
    /// Returns the field `name`.
    pub fn get(self, name: &str) -> Option<&'v Value> {
        self.0?.get(name)
    }
}
