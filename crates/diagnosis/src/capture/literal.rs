//! Values as JavaScript prints them: JSON, and the output of Node's `util.inspect`, which `console.log` uses.
//!
//! Decides: the value, and whether the printer shortened it (`[Object]`, `... 3 more items`). Source of the form:
//! <https://nodejs.org/api/util.html#utilinspectobject-options>.

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// Value of a literal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text between quotes.
    Text(String),
    /// Number, `true`, `null`, `undefined`, or another word.
    Word(String),
    /// `<Buffer 61 3d>`.
    Bytes(Vec<u8>),
    /// `[a, b]`.
    List(Vec<Value>),
    /// `{ name: value }`, in the order printed.
    Object(Vec<(String, Value)>),
    /// Value that the printer shortened.
    Shortened,
}

impl Value {
    /// Returns whether the printer shortened the value or a part of it.
    pub(super) fn is_shortened(&self) -> bool {
        match self {
            Self::Shortened => true,
            Self::List(items) => items.iter().any(Self::is_shortened),
            Self::Object(fields) => fields.iter().any(|(_, value)| value.is_shortened()),
            Self::Text(_) | Self::Word(_) | Self::Bytes(_) => false,
        }
    }

    /// Returns the text of a text or of a word.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Word(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the field of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => {
                fields.iter().find(|(have, _)| have == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// Reader of values, one after the other.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text }
    }

    /// Returns what is not read yet, without the space and the separators before it.
    pub(super) fn rest(&mut self) -> &'t str {
        self.skip(|letter| letter.is_whitespace() || matches!(letter, ',' | ';'));
        self.rest
    }

    /// Takes the beginning of the rest, up to the first character for which `ends` is true.
    pub(super) fn take_until(&mut self, ends: impl Fn(char) -> bool) -> &'t str {
        let at = self.rest.find(ends).unwrap_or(self.rest.len());
        self.take(at)
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(skipped);
    }

    fn skip_space(&mut self) {
        self.skip(char::is_whitespace);
    }

    fn eat(&mut self, text: &str) -> bool {
        let after = self.rest.strip_prefix(text);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Reads one value.
    ///
    /// # Errors
    ///
    /// A sentence with the beginning of what cannot be read.
    pub(super) fn value(&mut self) -> Result<Value, String> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        self.skip_space();
        match self.rest.chars().next() {
            None => Err("it ends where a value must be: it is cut".to_owned()),
            Some('{') => self.object(depth),
            Some('[') => self.bracket(depth),
            Some('<') => self.angle(depth),
            Some(quote @ ('\'' | '"' | '`')) => self.text(quote),
            Some(_) => {
                let ends = |letter: char| letter.is_whitespace() || ",]}:;{[".contains(letter);
                let word = self.take_until(ends);
                if word.is_empty() {
                    return Err(self.unexpected());
                }
                // `IncomingMessage {`, `Object [..] {`: the name of a class.
                let is_class = word.starts_with(|letter: char| letter.is_ascii_uppercase());
                if is_class && self.rest.trim_start().starts_with('{') {
                    self.skip_space();
                    return self.object(depth);
                }
                Ok(Value::Word(word.to_owned()))
            }
        }
    }

    fn unexpected(&self) -> String {
        let found: String = self.rest.chars().take(20).collect();
        format!("`{found}` is not the beginning of a value")
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        self.eat("{");
        let mut fields = Vec::new();
        loop {
            match self.rest().chars().next() {
                None => return Err("an object has no end: the output is cut".to_owned()),
                Some('}') => break,
                Some('.') => {
                    self.take_until(|letter| letter == '}' || letter == '\n');
                    fields.push((String::new(), Value::Shortened));
                    continue;
                }
                Some(_) => {}
            }
            let name = match self.rest.chars().next() {
                Some(quote @ ('\'' | '"' | '`')) => match self.text(quote)? {
                    Value::Text(name) => name,
                    _ => return Err("the name of a field is shortened".to_owned()),
                },
                // `[Symbol(name)]`
                Some('[') => self.take_until(|letter| letter == ':').to_owned(),
                _ => self.take_until(|letter| ":,{}\n".contains(letter)).trim().to_owned(),
            };
            self.skip_space();
            if !self.eat(":") {
                let name: String = name.chars().take(20).collect();
                return Err(format!("there is no colon after the name `{name}`"));
            }
            fields.push((name, self.nested(depth + 1)?));
        }
        self.eat("}");
        Ok(Value::Object(fields))
    }

    /// Reads a list, `[Object]`, or an object without a prototype.
    fn bracket(&mut self, depth: usize) -> Result<Value, String> {
        self.eat("[");
        if self.rest.starts_with(|letter: char| letter.is_ascii_uppercase()) {
            let before = self.rest;
            let name = self.take_until(|letter| "],\n".contains(letter));
            if self.eat("]") {
                let is_object = self.rest.trim_start().starts_with('{');
                if is_object && name.starts_with("Object") {
                    self.skip_space();
                    return self.object(depth);
                }
                return Ok(Value::Shortened);
            }
            self.rest = before;
        }
        let mut items = Vec::new();
        loop {
            match self.rest().chars().next() {
                None => return Err("a list has no end: the output is cut".to_owned()),
                Some(']') => break,
                Some('.') => {
                    self.take_until(|letter| letter == ']' || letter == '\n');
                    items.push(Value::Shortened);
                }
                Some(_) => items.push(self.nested(depth + 1)?),
            }
        }
        self.eat("]");
        Ok(Value::List(items))
    }

    /// Reads `<Buffer ..>`, or the value after `<ref *1>`.
    fn angle(&mut self, depth: usize) -> Result<Value, String> {
        if self.rest.starts_with("<ref ") {
            self.take_until(|letter| letter == '>');
            self.eat(">");
            return self.nested(depth + 1);
        }
        if !self.eat("<Buffer") {
            return Err(self.unexpected());
        }
        let digits = self.take_until(|letter| letter == '>');
        if !self.eat(">") {
            return Err("a Buffer has no end: the output is cut".to_owned());
        }
        if digits.contains("more byte") {
            return Ok(Value::Shortened);
        }
        let bytes = digits.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16));
        bytes.collect::<Result<Vec<u8>, _>>().map(Value::Bytes).map_err(|_| {
            "a Buffer contains something else than pairs of hexadecimal digits".to_owned()
        })
    }

    /// Reads a text, and the parts after a `+`, into which `util.inspect` divides long texts.
    fn text(&mut self, quote: char) -> Result<Value, String> {
        let mut text = String::new();
        let mut quote = quote;
        loop {
            self.part(quote, &mut text)?;
            let after = self.rest.trim_start();
            if after.starts_with("... ") && after.contains("more character") {
                self.take_until(|letter| letter == ',' || letter == '\n' || letter == '}');
                return Ok(Value::Shortened);
            }
            let next = after.strip_prefix('+').map(str::trim_start);
            let Some(next) = next.filter(|next| next.starts_with(['\'', '"', '`'])) else {
                return Ok(Value::Text(text));
            };
            quote = next.chars().next().unwrap_or(quote);
            self.rest = next;
        }
    }

    fn part(&mut self, quote: char, text: &mut String) -> Result<(), String> {
        self.take(quote.len_utf8());
        loop {
            text.push_str(self.take_until(|letter| letter == quote || letter == '\\'));
            let letter = self.next().ok_or("a text has no end: the output is cut")?;
            if letter == quote {
                return Ok(());
            }
            let escape = self.next().ok_or("a text has no end: the output is cut")?;
            match escape {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'v' => text.push('\u{b}'),
                '0' => text.push('\0'),
                'x' => text.push(self.digits(2).and_then(char::from_u32).ok_or_else(bad_escape)?),
                'u' => text.push(self.unicode()?),
                '\n' => {}
                other => text.push(other),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.rest.chars().next()?;
        self.take(letter.len_utf8());
        Some(letter)
    }

    fn digits(&mut self, number: usize) -> Option<u32> {
        let digits = self.rest.get(..number)?;
        let value = u32::from_str_radix(digits, 16).ok()?;
        self.take(number);
        Some(value)
    }

    /// Reads `XXXX` or `{X..}`, and the second half of a surrogate pair; half a pair is U+FFFD.
    fn unicode(&mut self) -> Result<char, String> {
        if self.eat("{") {
            let digits = self.take_until(|letter| letter == '}');
            self.eat("}");
            let code = u32::from_str_radix(digits, 16).map_err(|_| bad_escape())?;
            return char::from_u32(code).ok_or_else(bad_escape);
        }
        let first = self.digits(4).ok_or_else(bad_escape)?;
        let before = self.rest;
        if (0xd800..0xdc00).contains(&first) && self.eat("\\u") {
            match self.digits(4) {
                Some(second @ 0xdc00..0xe000) => {
                    let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                _ => self.rest = before,
            }
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

fn bad_escape() -> String {
    "a text contains an escape that is no character".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(value: &Value) -> serde_json::Value {
        match value {
            Value::Text(text) => text.clone().into(),
            Value::Word(word) => serde_json::from_str(word).unwrap(),
            Value::List(items) => items.iter().map(json).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), json(value))).collect()
            }
            Value::Bytes(_) | Value::Shortened => panic!("{value:?}"),
        }
    }

    #[test]
    fn output_of_node_is_read() {
        let printed = "[Object: null prototype] {\n  'a-b': 'it\\'s',\n  c: [ 1, true, null, \"d\" ],\n  e: `f` +\n    'g\\n\\u{1F600}\\x41',\n  h: Foo { i: '' }\n}";
        let value = Reader::new(printed).value().unwrap();
        let want = serde_json::json!({ "a-b": "it's", "c": [1, true, null, "d"],
            "e": "fg\n\u{1f600}A", "h": { "i": "" } });
        assert_eq!(json(&value), want);
        let buffer = Reader::new("<Buffer 61 3d>").value().unwrap();
        assert_eq!(buffer, Value::Bytes(b"a=".to_vec()));
    }

    #[test]
    fn shortened_output_is_known() {
        for printed in [
            "{ a: [Object] }",
            "{ a: [Array] }",
            "[ 1, ... 3 more items ]",
            "{ a: 'x'... 12 more characters }",
            "{ a: <Buffer 61 ... 50 more bytes> }",
            "{ a: [Getter/Setter] }",
        ] {
            let value = Reader::new(printed)
                .value()
                .unwrap_or_else(|problem| panic!("{printed}: {problem}"));
            assert!(value.is_shortened(), "{printed}: {value:?}");
        }
        for printed in ["{ a: 'x", "{ a: ", "{ a", "[ 1,", "<Buffer 61", "<Foo>", "'\\u12'"] {
            assert!(Reader::new(printed).value().is_err(), "{printed}");
        }
        assert!(Reader::new(&"[".repeat(100_000)).value().unwrap_err().contains("deeper"));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,12}|[\"'\\\\\n\u{1f600}]{0,4}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map("\\PC{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_text_is_read(value in any_json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(json(&Reader::new(&text).value().unwrap()), value.clone());
            }
        }

        #[test]
        fn no_text_causes_a_panic(text in "[\\[\\]{}<>'\"`:,.+\\\\ux0aB \n]{0,60}|\\PC{0,60}") {
            let _ = Reader::new(&text).value();
        }
    }
}
