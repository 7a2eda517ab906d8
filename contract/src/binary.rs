//! Compact form of the bodies between filter and sidecar. JSON says the same for people and tests.
//!
//! ```text
//! body    "TE", version (1 byte), two lists: claims and settlements, verdicts and results, or origins and refused requests
//! list    count, then each record
//! record  length in bytes, then its fields in a fixed order
//! text    length + 1, then the bytes (UTF-8); 0: absent
//! number  value + 1; 0: absent
//! ```
//!
//! Counts, lengths and numbers are unsigned LEB128, at most 32 bits. A value of an enumeration is its position in `ALL`.
//! New fields and new values are added at the end only: a reader ignores fields that it does not know, and a record may end
//! before a field that its writer does not know.

use std::fmt;

use crate::PROTOCOL_VERSION;

/// First bytes of every binary body; the protocol version follows them as one byte.
const MAGIC: &[u8; 2] = b"TE";

/// Most records in a list. A reader refuses more before it reserves memory for them.
const MAX_RECORDS: u32 = 4096;

/// Problem of a binary body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The body is of another format.
    NotAnExchange,
    /// The body has this protocol version.
    OtherVersion(u32),
    /// A record is malformed.
    Malformed {
        /// List of the record, for instance `claims`.
        list: &'static str,
        /// Position in the list, from 0.
        index: usize,
        /// Description of the problem.
        problem: FieldProblem,
    },
}

/// Problem of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldProblem {
    /// The body ends within the record.
    EndsEarly,
    /// A number has more than 32 bits.
    NumberTooLarge,
    /// The text of this field is not UTF-8.
    NotUtf8(&'static str),
    /// This required field is absent.
    Missing(&'static str),
    /// The value of this field is not one that this version knows.
    UnknownValue(&'static str),
    /// The list has too many records.
    TooManyRecords,
}

impl FieldProblem {
    pub(crate) fn at(self, list: &'static str, index: usize) -> DecodeError {
        DecodeError::Malformed { list, index, problem: self }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::NotAnExchange => f.write_str("the body does not begin with \"TE\""),
            DecodeError::OtherVersion(version) => write!(f, "protocol version {version}"),
            DecodeError::Malformed { list, index, problem } => {
                write!(f, "{list}[{index}]")?;
                match problem {
                    FieldProblem::EndsEarly => f.write_str(" ends early"),
                    FieldProblem::NumberTooLarge => {
                        f.write_str(" contains a number of more than 32 bits")
                    }
                    FieldProblem::NotUtf8(field) => write!(f, ".{field} is not UTF-8"),
                    FieldProblem::Missing(field) => write!(f, ".{field} is missing"),
                    FieldProblem::UnknownValue(field) => write!(f, ".{field} has an unknown value"),
                    FieldProblem::TooManyRecords => f.write_str(": the list is too long"),
                }
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Value with a binary form.
pub(crate) trait Record: Sized {
    fn write(&self, writer: &mut Writer);

    /// Reads the fields. Unknown fields after them are ignored by the caller.
    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem>;

    /// Returns the fields, without the length of the record.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        self.write(&mut writer);
        writer.finish()
    }
}

/// Returns the body of two lists of encoded records.
pub(crate) fn encode_lists(first: &[impl AsRef<[u8]>], second: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let bytes = first.iter().map(|item| item.as_ref().len()).sum::<usize>()
        + second.iter().map(|item| item.as_ref().len()).sum::<usize>();
    let mut body = Writer::with_capacity(bytes + (first.len() + second.len()) * 3 + 16);
    body.bytes(MAGIC);
    body.byte(version_byte());
    body.list(first);
    body.list(second);
    body.finish()
}

fn version_byte() -> u8 {
    const { assert!(PROTOCOL_VERSION < 256) };
    PROTOCOL_VERSION as u8
}

/// Reads a body of two lists of records; the names are for its errors.
pub(crate) fn decode_lists<A: Record, B: Record>(
    body: &[u8],
    first: &'static str,
    second: &'static str,
) -> Result<(Vec<A>, Vec<B>), DecodeError> {
    let Some(rest) = body.strip_prefix(MAGIC) else { return Err(DecodeError::NotAnExchange) };
    let mut reader = Reader::new(rest);
    let version = reader.byte().map_err(|problem| problem.at("version", 0))?;
    if version != version_byte() {
        return Err(DecodeError::OtherVersion(version.into()));
    }
    let firsts = read_list(&mut reader, first)?;
    let seconds = read_list(&mut reader, second)?;
    Ok((firsts, seconds))
}

/// Reads a list of records; `name` is for its errors.
fn read_list<T: Record>(
    reader: &mut Reader<'_>,
    name: &'static str,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.number().map_err(|problem| problem.at(name, 0))?;
    if count > MAX_RECORDS {
        return Err(FieldProblem::TooManyRecords.at(name, 0));
    }
    let count = count as usize;
    // Each record has at least the byte of its length.
    let mut records = Vec::with_capacity(count.min(reader.rest.len()));
    for index in 0..count {
        let record = reader.record().and_then(|mut fields| T::read(&mut fields));
        records.push(record.map_err(|problem| problem.at(name, index))?);
    }
    Ok(records)
}

/// Writer of a binary body.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes an unsigned LEB128.
    pub(crate) fn number(&mut self, number: usize) {
        let mut rest = number;
        while rest >= 0x80 {
            self.0.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() + 1);
        self.bytes(text.as_bytes());
    }

    pub(crate) fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.byte(0),
        }
    }

    pub(crate) fn optional_number(&mut self, number: Option<u32>) {
        // The largest number has no form of its own: it is written as the one before it.
        self.number(number.map_or(0, |number| number.saturating_add(1)) as usize);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    /// Writes a value of an enumeration as its position among `all`.
    pub(crate) fn value<T: PartialEq>(&mut self, value: &T, all: &[T]) {
        self.number(position(value, all));
    }

    /// Writes a value as [`Writer::value`], or its absence.
    pub(crate) fn optional_value<T: PartialEq>(&mut self, value: Option<&T>, all: &[T]) {
        self.number(value.map_or(0, |value| position(value, all) + 1));
    }

    pub(crate) fn list(&mut self, records: &[impl AsRef<[u8]>]) {
        self.number(records.len());
        for record in records {
            self.number(record.as_ref().len());
            self.bytes(record.as_ref());
        }
    }
}

fn position<T: PartialEq>(value: &T, all: &[T]) -> usize {
    all.iter().position(|one| one == value).unwrap_or(all.len())
}

/// Reader of a binary body, or of one record of it.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, FieldProblem> {
        let (byte, rest) = self.rest.split_first().ok_or(FieldProblem::EndsEarly)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn number(&mut self) -> Result<u32, FieldProblem> {
        let mut number: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| FieldProblem::NumberTooLarge);
            }
        }
        Err(FieldProblem::NumberTooLarge)
    }

    fn record(&mut self) -> Result<Reader<'a>, FieldProblem> {
        let length = self.number()?;
        Ok(Reader::new(self.take(length as usize)?))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FieldProblem> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FieldProblem::EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a list of records within a record. It is empty at the end of the record.
    pub(crate) fn list<T: Record>(&mut self) -> Result<Vec<T>, FieldProblem> {
        if self.rest.is_empty() {
            return Ok(Vec::new());
        }
        let count = self.number()?;
        if count > MAX_RECORDS {
            return Err(FieldProblem::TooManyRecords);
        }
        (0..count).map(|_| T::read(&mut self.record()?)).collect()
    }

    /// Reads a number that an older writer does not know. It is absent at the end of the record.
    pub(crate) fn optional_number(&mut self) -> Result<Option<u32>, FieldProblem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(self.number()?.checked_sub(1))
    }

    pub(crate) fn optional_text(
        &mut self,
        field: &'static str,
    ) -> Result<Option<String>, FieldProblem> {
        let Some(length) = self.optional_number()? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length as usize)?);
        text.map(|text| Some(text.to_owned())).map_err(|_| FieldProblem::NotUtf8(field))
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, FieldProblem> {
        self.optional_text(field)?.ok_or(FieldProblem::Missing(field))
    }

    /// Reads a flag; it is false at the end of the record.
    pub(crate) fn flag(&mut self) -> Result<bool, FieldProblem> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        Ok(self.byte()? != 0)
    }

    pub(crate) fn value<T: Copy>(
        &mut self,
        field: &'static str,
        all: &[T],
    ) -> Result<T, FieldProblem> {
        let at = self.number()? as usize;
        all.get(at).copied().ok_or(FieldProblem::UnknownValue(field))
    }

    pub(crate) fn optional_value<T: Copy>(
        &mut self,
        field: &'static str,
        all: &[T],
    ) -> Result<Option<T>, FieldProblem> {
        let Some(at) = self.optional_number()? else { return Ok(None) };
        all.get(at as usize).copied().map(Some).ok_or(FieldProblem::UnknownValue(field))
    }
}
