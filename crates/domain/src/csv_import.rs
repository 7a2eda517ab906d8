//! CSV import and export of suppressions and consents (RFC 4180). The caller can check every line of a list before it
//! applies any, and each invalid line is reported with its number. This module knows no store.

mod export;

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    address::Address,
    consent::{Consent, State},
    period,
    phone::Region,
    policy::Category,
    spreadsheet::restored,
    suppression::{self, NewSuppression},
};

pub use self::export::{
    CONSENT_COLUMNS, SUPPRESSION_COLUMNS, consent_row, suppression_row, to_csv,
};

/// Uploaded list. It is parsed line by line on every pass, so that a long list takes no more memory than its text.
#[derive(Debug, Clone)]
pub struct CsvList<C, T> {
    csv: C,
    about: ImportContext,
    names: csv::ByteRecord,
    read: fn(&csv::ByteRecord, &csv::ByteRecord, &ImportContext) -> Result<T, String>,
}

/// Context of a list: its account, and the rules for reading its numbers.
#[derive(Debug, Clone)]
pub struct ImportContext {
    /// The account.
    pub account_sid: String,
    /// Region of numbers without a country code.
    pub region: Option<Region>,
    /// Channel of lines where neither the number nor a column names one.
    pub channel: Option<String>,
    /// Addresses that the account already knows, and that are valid although a caller could not create them.
    pub known: BTreeSet<Address>,
    /// API key or command that imports the list.
    pub by: String,
    /// Time of the import, in milliseconds since 1970.
    pub now_ms: i64,
}

impl ImportContext {
    /// Returns the channel of a number: the column's, or the default one.
    fn channel_of<'a>(&'a self, number: &str, column: Option<&'a str>) -> Option<&'a str> {
        column.or(self.channel.as_deref().filter(|_| !number.contains(':')))
    }

    /// Returns the parsed address, or the address exactly as a webhook named it, if the account knows it.
    fn or_known(
        &self,
        read: Result<Address, String>,
        number: &str,
        channel: Option<&str>,
    ) -> Result<Address, String> {
        read.or_else(|problem| {
            let address = Address::as_in_webhook(number, channel);
            address.filter(|address| self.known.contains(address)).ok_or(problem)
        })
    }
}

/// Invalid line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InvalidLine {
    /// Line number, from 1; the header line has number 1.
    pub line: u64,
    /// Problem, with the name of the column.
    pub problem: String,
}

/// Result of checking a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// Number of valid lines.
    pub valid: usize,
    /// Invalid lines, at most the first hundred.
    pub invalid: Vec<InvalidLine>,
    /// Number of invalid lines.
    pub invalid_lines: usize,
}

impl ImportReport {
    /// Returns the first twenty invalid lines in one sentence.
    pub fn error_summary(&self) -> Option<String> {
        const MAX_SHOWN: usize = 20;
        if self.invalid.is_empty() {
            return None;
        }
        let shown = self.invalid.iter().take(MAX_SHOWN);
        let shown: Vec<String> =
            shown.map(|invalid| format!("line {}: {}", invalid.line, invalid.problem)).collect();
        let more = match self.invalid_lines.saturating_sub(MAX_SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(shown.join("; ") + &more)
    }
}

impl<C: AsRef<[u8]>> CsvList<C, NewSuppression> {
    /// Parses a list of contacts to suppress: a column `number` with the channel before the number or in a column
    /// `channel`, and optionally `expires_at`. Other columns are ignored.
    pub fn of_suppressions(
        csv: C,
        about: ImportContext,
    ) -> Result<CsvList<C, NewSuppression>, String> {
        CsvList::new(csv, about, &["number"], |names, line, about| {
            let line: SuppressionLine = deserialized(names, line)?;
            let channel = about.channel_of(&line.number, line.channel.as_deref());
            let contact = suppression::parse_contact(&line.number, channel, about.region);
            let address = about.or_known(contact, &line.number, channel);
            let address = address.map_err(of_column("number"))?;
            let expires_at = line.expires_at.as_deref().filter(|text| !text.trim().is_empty());
            let expires_at_ms =
                expires_at.map(|text| suppression::parse_expiry(text.trim(), about.now_ms));
            let expires_at_ms = expires_at_ms.transpose().map_err(of_column("expires_at"))?;
            Ok(NewSuppression { address, expires_at_ms })
        })
    }
}

impl<C: AsRef<[u8]>> CsvList<C, Consent> {
    /// Parses a list of consents: columns `number`, `category` and `source`, and optionally `channel`, `state`, `at`,
    /// `proof`, `ip`, `user_agent`.
    pub fn of_consents(csv: C, about: ImportContext) -> Result<CsvList<C, Consent>, String> {
        CsvList::new(csv, about, &["number", "category", "source"], |names, line, about| {
            deserialized::<ConsentLine>(names, line)?.read(about)
        })
    }
}

impl<C: AsRef<[u8]>, T> CsvList<C, T> {
    fn new(
        csv: C,
        about: ImportContext,
        needed: &[&str],
        read: fn(&csv::ByteRecord, &csv::ByteRecord, &ImportContext) -> Result<T, String>,
    ) -> Result<CsvList<C, T>, String> {
        let mut reader = reader(csv.as_ref());
        let names = reader.headers().map_err(|error| format!("line 1: {error}"))?.clone();
        let is_there = |needed: &&str| names.iter().any(|name| name == *needed);
        match needed.iter().find(|needed| !is_there(needed)) {
            Some(missing) => Err(format!(
                "line 1: the column `{missing}` is missing; the required columns are {}",
                needed.join(", ")
            )),
            None => Ok(CsvList { csv, about, names: names.into_byte_record(), read }),
        }
    }

    /// Returns the first 1,000 addresses on invalid lines that a webhook may have named; the database decides whether
    /// one did.
    pub fn unparsed_addresses(&self) -> BTreeSet<Address> {
        const MAX_ADDRESSES: usize = 1_000;
        let mut unread = BTreeSet::new();
        let mut reader = reader(self.csv.as_ref());
        let mut record = csv::ByteRecord::new();
        let is_named = reader.byte_headers().is_ok();
        while is_named && unread.len() < MAX_ADDRESSES {
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => continue,
            }
            let line = as_written(&record);
            let Ok(line) = deserialized::<SuppressionLine>(&self.names, &line) else { continue };
            let channel = self.about.channel_of(&line.number, line.channel.as_deref());
            if suppression::parse_contact(&line.number, channel, self.about.region).is_err() {
                unread.extend(Address::as_in_webhook(&line.number, channel));
            }
        }
        unread
    }

    /// Returns the list with known addresses. Their lines are valid although a caller could not create such addresses.
    pub fn with_known(mut self, known: BTreeSet<Address>) -> CsvList<C, T> {
        self.about.known = known;
        self
    }

    /// Checks every line without storing the valid ones.
    pub fn check(&self) -> ImportReport {
        const MAX_STORED: usize = 100;
        let mut checked = ImportReport::default();
        for line in self.lines() {
            match line {
                Ok(_) => checked.valid += 1,
                Err(invalid) => {
                    checked.invalid_lines += 1;
                    checked
                        .invalid
                        .extend(Some(invalid).filter(|_| checked.invalid_lines <= MAX_STORED));
                }
            }
        }
        checked
    }

    /// Returns the values of the valid lines, in order.
    pub fn valid_rows(&self) -> impl Iterator<Item = T> {
        self.lines().filter_map(Result::ok)
    }

    fn lines(&self) -> impl Iterator<Item = Result<T, InvalidLine>> {
        let csv = self.csv.as_ref();
        let mut reader = reader(csv);
        let mut lines = Lines { csv, from: 0, line: 1 };
        let mut record = csv::ByteRecord::new();
        // Skips the header line, which was parsed when the list was created.
        let named = reader.byte_headers().is_ok();
        std::iter::from_fn(move || {
            let line = lines.at(reader.position().byte());
            let read = match reader.read_byte_record(&mut record) {
                Ok(false) => return None,
                Ok(true) => (self.read)(&self.names, &as_written(&record), &self.about),
                Err(error) => Err(shortened(&error)),
            };
            Some(read.map_err(|problem| InvalidLine { line, problem }))
        })
        .take_while(move |_| named)
    }
}

/// Returns the record as it was before the export escaped it; cells of a list from another program are trimmed.
fn as_written(record: &csv::ByteRecord) -> Cow<'_, csv::ByteRecord> {
    let as_was = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| restored(text) == text);
    if record.iter().all(as_was) {
        return Cow::Borrowed(record);
    }
    let cells = record.iter().map(|cell| match std::str::from_utf8(cell) {
        Ok(text) => restored(text).as_bytes(),
        Err(_) => cell.trim_ascii(),
    });
    Cow::Owned(cells.collect())
}

/// Trims the names of columns; `restored` decides about blanks around cells.
fn reader(csv: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(csv)
}

fn deserialized<'r, L: Deserialize<'r>>(
    names: &'r csv::ByteRecord,
    line: &'r csv::ByteRecord,
) -> Result<L, String> {
    line.deserialize(Some(names)).map_err(|error| shortened(&error))
}

fn of_column(name: &'static str) -> impl Fn(String) -> String {
    move |problem| format!("{name}: {problem}")
}

#[derive(Deserialize)]
struct SuppressionLine {
    number: String,
    channel: Option<String>,
    expires_at: Option<String>,
}

#[derive(Deserialize)]
struct ConsentLine {
    number: String,
    channel: Option<String>,
    category: String,
    state: Option<String>,
    at: Option<String>,
    source: String,
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
}

impl ConsentLine {
    fn read(self, about: &ImportContext) -> Result<Consent, String> {
        let state = self.state.map(State::try_from).transpose().map_err(of_column("state"))?;
        let at_ms = self.at.as_deref().map(period::instant).transpose();
        let channel = about.channel_of(&self.number, self.channel.as_deref());
        let address = Address::recordable(&self.number, channel, about.region);
        let address = about.or_known(address, &self.number, channel);
        let consent = Consent {
            account_sid: about.account_sid.clone(),
            address: address.map_err(of_column("number"))?,
            category: Category::try_from(self.category).map_err(of_column("category"))?,
            state: state.unwrap_or(State::Granted),
            at_ms: at_ms.map_err(of_column("at"))?.unwrap_or(about.now_ms),
            source: self.source,
            proof: self.proof,
            ip: self.ip,
            user_agent: self.user_agent,
            recorded_at_ms: about.now_ms,
            recorded_by: about.by.clone(),
            stored_id: None,
        };
        consent.check(about.now_ms)?;
        Ok(consent)
    }
}

/// Counts lines as an editor does; the CSV reader counts records, and skips blank lines.
struct Lines<'a> {
    csv: &'a [u8],
    from: usize,
    line: u64,
}

impl Lines<'_> {
    /// Returns the line number of the record at or after a byte position. Positions must not decrease.
    fn at(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        let rest = self.csv.get(byte..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let to = byte.saturating_add(blank);
        let passed = self.csv.get(self.from..to).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.from = self.from.max(to);
        self.line
    }
}

/// Returns the message without the position, which [`InvalidLine::line`] has.
fn shortened(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} columns, but line 1 names {expected_len}")
        }
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
