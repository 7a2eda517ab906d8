//! Escaping of CSV cells that people open in a spreadsheet.
//!
//! A spreadsheet treats a cell that begins with `=`, `+`, `-` or `@` as a formula, regardless of quotes in the file,
//! and a formula can send the sheet's data to another server. An apostrophe before such a cell marks it as text. The
//! import removes the apostrophe, so that an exported list is imported unchanged.

use super::display::is_hazardous;

/// Returns the cell as a CSV list contains it. [`restored`] is the inverse.
pub fn neutralized(cell: &str) -> String {
    match is_formula(cell) || has_edge_blanks(cell) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

/// Returns the cell as a tab-separated line contains it. Such lines have no quotes of their own, and a program that
/// reads them strips those of a cell: `"=1"` would be a formula.
pub fn neutralized_between_tabs(cell: &str) -> String {
    match is_formula(cell) || cell.trim_start().starts_with('"') {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

/// Returns the cell that [`neutralized`] received. In a list from another program, blanks around a cell are removed,
/// and an apostrophe before other text stays.
pub fn restored(cell: &str) -> &str {
    let is_marked = |rest: &&str| is_formula(rest) || has_edge_blanks(rest);
    match cell.strip_prefix('\'').filter(is_marked) {
        Some(rest) => rest,
        None => {
            let cell = cell.trim();
            cell.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(cell)
        }
    }
}

/// Returns whether a cell, without leading apostrophes, has blanks that an import would remove.
fn has_edge_blanks(cell: &str) -> bool {
    let cell = cell.trim_start_matches('\'');
    cell.trim().len() != cell.len()
}

/// Returns whether a spreadsheet could treat a cell, without leading apostrophes, as a formula. Blanks and invisible
/// characters before a formula do not hide it, and some programs accept full-width signs.
fn is_formula(cell: &str) -> bool {
    let cell = cell.trim_start_matches('\'');
    let is_blank =
        |letter: char| letter.is_whitespace() || letter.is_control() || is_hazardous(letter);
    cell.starts_with(['\t', '\r', '\n'])
        || cell.trim_start_matches(is_blank).starts_with([
            '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{2212}',
            '\u{fe62}', '\u{fe63}', '\u{fe66}', '\u{fe6b}',
        ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_are_text_for_a_spreadsheet() {
        for cell in [
            "=HYPERLINK(\"http://x\")",
            "+14155550123",
            "-1",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "\nx",
            " =1",
            "\u{a0}+1",
            "\u{3000}@x",
            "\u{200b}=1",
            "\u{feff}=1",
            "＝1",
            "＋1",
            "－1",
            "＠x",
            "'=1",
            "''+1",
            "\u{0}=1",
            "\u{2212}1",
        ] {
            let written = neutralized(cell);
            assert_eq!(written, format!("'{cell}"), "{cell:?}");
            assert_eq!(restored(&written), cell);
        }
        for (cell, expected) in [(" x ", "x"), (" '=1", "=1"), (" '+1 ", "+1"), ("x\t", "x")] {
            assert_eq!(restored(cell), expected, "blanks of another's list");
        }
        for (cell, expected) in [
            ("\"=1+1\"", "'\"=1+1\""),
            (" \"x\"", "' \"x\""),
            ("=1", "'=1"),
            ("a \"b\"", "a \"b\""),
            (" x", " x"),
        ] {
            assert_eq!(neutralized_between_tabs(cell), expected);
        }
        for cell in
            ["", "'", "'twas", "whatsapp:+14155550123", "a=b", "STOP", "2026-11-29", "0", "'a'"]
        {
            assert_eq!(neutralized(cell), cell);
            assert_eq!(restored(cell), cell);
        }
        assert_eq!(restored("+14155550123"), "+14155550123", "lists of others have no apostrophes");
    }

    /// Returns whether a cell is a formula without an apostrophe before it.
    fn is_formula_alone(cell: &str) -> bool {
        !cell.starts_with('\'') && is_formula(cell)
    }

    proptest! {
        #[test]
        fn cell_of_any_text_round_trips(cell in "['=+@\\-\t \u{ff0b}a1]{0,6}|\\PC*|(?s:.){0,20}") {
            let written = neutralized(&cell);
            prop_assert!(!is_formula_alone(&written), "{written:?}");
            prop_assert_eq!(restored(&written), cell.as_str());
        }
    }
}
