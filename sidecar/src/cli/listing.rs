//! Output of ledger rows: a table for people, JSON, tab-separated or comma-separated values for programs. Does not depend on
//! the source of the rows.

use std::io;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::cli::failure::fail;
use twilio_edge_domain::{
    period::{DAY_MS, day, instant},
    spreadsheet::{neutralized, neutralized_between_tabs},
};
use twilio_edge_platform::terminal;

/// Format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// Aligned columns, to read.
    #[value(alias = "columns")]
    Table,
    /// Array of objects.
    Json,
    /// Tab-separated, with a header line; cells that a spreadsheet would take for formulas begin with an apostrophe.
    Tsv,
    /// Comma-separated, with quotes where a cell needs them, and with a header line; formulas as in tsv.
    Csv,
}

/// Columns that a command prints, and its header line.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Columns {
    /// Fields to print, separated by commas, instead of the usual columns
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    properties: Vec<String>,
    /// Omit the header line
    #[arg(long)]
    no_header: bool,
}

impl Columns {
    /// Returns whether the caller names the fields.
    pub(super) fn is_selected(&self) -> bool {
        !self.properties.is_empty()
    }

    /// Checks the names against the fields of a row.
    ///
    /// # Errors
    /// Returns the first unknown name, with the valid ones.
    pub(super) fn check(&self, fields: &[&str]) -> Result<(), String> {
        let unknown = self.properties.iter().find(|name| !fields.contains(&name.as_str()));
        match unknown {
            Some(name) => Err(format!(
                "--properties: there is no field {name:?}; the fields are {}",
                fields.join(", ")
            )),
            None => Ok(()),
        }
    }

    /// Prints rows like [`print()`], with the selected columns or else `usual`. JSON has the selected fields, or all.
    pub(super) fn print(
        &self,
        output: Output,
        usual: &[&str],
        rows: &[Map<String, Value>],
    ) -> ExitCode {
        write(&self.text(output, usual, rows))
    }

    fn text(&self, output: Output, usual: &[&str], rows: &[Map<String, Value>]) -> String {
        let selected: Vec<&str> = self.properties.iter().map(String::as_str).collect();
        let columns = if selected.is_empty() { usual } else { selected.as_slice() };
        if output == Output::Json && self.is_selected() {
            let rows: Vec<_> = rows.iter().map(|row| self.select(row)).collect();
            return text(output, columns, &rows);
        }
        let text = text(output, columns, rows);
        if output == Output::Json || !self.no_header {
            return text;
        }
        // No cell contains a line break, so the header is the first line.
        text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    }

    /// Returns the selected fields of a row.
    pub(super) fn select(&self, row: &Map<String, Value>) -> Map<String, Value> {
        let field = |name: &String| (name.clone(), row.get(name).cloned().unwrap_or_default());
        self.properties.iter().map(field).collect()
    }
}

/// Prints rows that all have the same fields, in the order of `columns`; JSON has every field.
pub(super) fn print(output: Output, columns: &[&str], rows: &[Map<String, Value>]) -> ExitCode {
    write(&text(output, columns, rows))
}

/// Returns the text that [`print()`] writes.
pub(super) fn text(output: Output, columns: &[&str], rows: &[Map<String, Value>]) -> String {
    match output {
        Output::Json => serde_json::to_string_pretty(rows).unwrap_or_default() + "\n",
        Output::Tsv => lines(columns, rows, |cells| {
            cells.iter().map(|cell| neutralized_between_tabs(cell)).collect::<Vec<_>>().join("\t")
        }),
        Output::Csv => csv(columns, rows),
        Output::Table => table(columns, rows),
    }
}

fn csv(columns: &[&str], rows: &[Map<String, Value>]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for cells in cells(columns, rows) {
        // A write to memory does not fail.
        let _ = writer.write_record(cells.iter().map(|cell| neutralized(cell)));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Writes to standard output; a closed pipe (`| head`) is no failure.
pub(super) fn write(text: &str) -> ExitCode {
    written(terminal::print(text))
}

/// Writes data that a program reads back to standard output, like [`write()`].
pub(super) fn write_data(data: &[u8]) -> ExitCode {
    written(terminal::print_data(data))
}

fn written(written: io::Result<()>) -> ExitCode {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => ExitCode::SUCCESS,
    }
}

fn lines(
    columns: &[&str],
    rows: &[Map<String, Value>],
    line: impl Fn(&[String]) -> String,
) -> String {
    cells(columns, rows).iter().map(|cells| line(cells) + "\n").collect()
}

/// Returns the cells of the header line and of all rows.
fn cells(columns: &[&str], rows: &[Map<String, Value>]) -> Vec<Vec<String>> {
    let titles: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let cells =
        rows.iter().map(|row| columns.iter().map(|column| cell(row.get(*column))).collect());
    std::iter::once(titles).chain(cells).collect()
}

fn table(columns: &[&str], rows: &[Map<String, Value>]) -> String {
    let width = |column: &&str| {
        let cells = rows.iter().map(|row| cell(row.get(*column)).chars().count());
        cells.max().unwrap_or_default().max(column.len())
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    lines(columns, rows, |cells| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    })
}

/// Formats one cell: text of a contact must neither start a new line nor reach the terminal as a command.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    terminal::line(&text).into_owned()
}

/// Period in milliseconds since 1970: the start is inclusive, the end exclusive.
#[derive(Debug, clap::Args)]
pub(super) struct Period {
    /// Only this day (UTC)
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day, conflicts_with_all = ["since", "until"])]
    date_sent: Option<i64>,
    /// Start, inclusive: a day (UTC) or a time as in 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<i64>,
    /// End, exclusive: a day (UTC) or a time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<i64>,
}

impl Period {
    pub(super) fn bounds(&self) -> (i64, i64) {
        match self.date_sent {
            Some(day) => (day, day.saturating_add(DAY_MS)),
            None => (self.since.unwrap_or(i64::MIN), self.until.unwrap_or(i64::MAX)),
        }
    }

    /// Returns whether the period has a start or an end.
    pub(super) fn is_limited(&self) -> bool {
        self.bounds() != (i64::MIN, i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_cell_breaks_its_line_or_speaks_to_the_terminal() {
        let hostile = Value::String("a\tb\nc\u{1b}[2Jd".into());
        let row = Map::from_iter([("body".to_owned(), hostile)]);
        let text = lines(&["body"], &[row], |cells| cells.join("\t"));
        assert_eq!(text, "BODY\na\\u0009b\\u000ac\\u001b[2Jd\n");
    }

    #[test]
    fn tsv_has_no_formulas_and_other_outputs_have_no_apostrophes() {
        let row = Map::from_iter([
            ("from".to_owned(), Value::from("+14155550123")),
            ("body".to_owned(), Value::from(" =1+1")),
        ]);
        let shown = |output| text(output, &["from", "body"], std::slice::from_ref(&row));
        assert_eq!(shown(Output::Tsv), "FROM\tBODY\n'+14155550123\t' =1+1\n");
        assert_eq!(shown(Output::Csv), "FROM,BODY\n'+14155550123,' =1+1\n");
        assert!(!shown(Output::Table).contains('\'') && !shown(Output::Json).contains('\''));
    }

    #[test]
    fn properties_select_the_columns_in_their_order() {
        let row = Map::from_iter([
            ("id".to_owned(), Value::from("ms_1")),
            ("body".to_owned(), Value::from("a, \"b\"\nc")),
            ("none".to_owned(), Value::Null),
        ]);
        let rows = std::slice::from_ref(&row);
        let of = |names: &[&str], no_header| Columns {
            properties: names.iter().map(|name| (*name).to_owned()).collect(),
            no_header,
        };
        let selected = of(&["body", "none", "id"], false);
        assert_eq!(
            selected.text(Output::Csv, &["id"], rows),
            "BODY,NONE,ID\n\"a, \"\"b\"\"\\u000ac\",,ms_1\n"
        );
        let json: Value = serde_json::from_str(&selected.text(Output::Json, &[], rows)).unwrap();
        assert_eq!(json, serde_json::json!([{"body": "a, \"b\"\nc", "none": null, "id": "ms_1"}]));
        assert_eq!(of(&[], true).text(Output::Csv, &["id", "none"], rows), "ms_1,\n");
        assert_eq!(of(&[], true).text(Output::Table, &["id"], rows), "ms_1\n");
        assert_eq!(of(&[], true).text(Output::Tsv, &["id"], &[]), "");
        assert_eq!(of(&["id"], false).check(&["id", "body"]), Ok(()));
        assert_eq!(
            of(&["id", "date"], false).check(&["id", "body"]).unwrap_err(),
            "--properties: there is no field \"date\"; the fields are id, body"
        );
    }

    proptest! {
        /// A reader of CSV gets each cell back, and none is a formula.
        #[test]
        fn csv_of_any_text_is_read_back(
            rows in prop::collection::vec(prop::array::uniform2("['=+@\\-\t\r\n \",]{0,6}|\\PC{0,20}|(?s:.){0,10}"), 0..5),
        ) {
            let columns = ["a", "b"];
            let maps: Vec<_> = rows.iter().map(|row| {
                Map::from_iter(columns.iter().zip(row).map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))))
            }).collect();
            let shown = text(Output::Csv, &columns, &maps);
            let mut reader = csv::Reader::from_reader(shown.as_bytes());
            let read: Vec<csv::StringRecord> = reader.records().map(|record| record.unwrap()).collect();
            prop_assert_eq!(read.len(), rows.len());
            for (record, row) in read.iter().zip(&rows) {
                for (cell, text) in record.iter().zip(row) {
                    prop_assert_eq!(twilio_edge_domain::spreadsheet::restored(cell), terminal::line(text));
                }
            }
        }

        /// The output has as many lines and cells as rows and columns, none is a formula, and each is the
        /// escaped text except for one apostrophe.
        #[test]
        fn tsv_of_any_text_has_a_cell_for_each(
            rows in prop::collection::vec(prop::array::uniform2("['=+@\\-\t\r\n \"]{0,6}|\\PC{0,20}|(?s:.){0,10}"), 0..5),
        ) {
            let columns = ["a", "b"];
            let maps: Vec<_> = rows.iter().map(|row| {
                Map::from_iter(columns.iter().zip(row).map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))))
            }).collect();
            let shown = text(Output::Tsv, &columns, &maps);
            let lines: Vec<&str> = shown.strip_suffix('\n').unwrap().split('\n').collect();
            prop_assert_eq!(lines.len(), rows.len() + 1);
            for (line, row) in lines.iter().skip(1).zip(&rows) {
                let cells: Vec<&str> = line.split('\t').collect();
                prop_assert_eq!(cells.len(), columns.len());
                for (cell, text) in cells.iter().zip(row) {
                    let signs = ['=', '+', '-', '@', '"'];
                    prop_assert!(!cell.trim_start().starts_with(signs), "{cell:?}");
                    let escaped = terminal::line(text);
                    prop_assert!(*cell == escaped || cell.strip_prefix('\'') == Some(&*escaped), "{cell:?}");
                }
            }
        }
    }

    #[test]
    fn bidirectional_text_is_escaped_in_every_output() {
        let row = Map::from_iter([("body".to_owned(), Value::from("a\u{202e}b\u{2066}"))]);
        for output in [Output::Table, Output::Tsv, Output::Csv, Output::Json] {
            let shown =
                terminal::page(&text(output, &["body"], std::slice::from_ref(&row))).into_owned();
            assert!(shown.contains("a\\u202eb\\u2066"), "{shown}");
        }
    }
}
