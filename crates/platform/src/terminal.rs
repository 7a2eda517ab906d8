//! Output for humans: the only module that writes to standard output and standard error.
//!
//! Most of the text that commands and logs show comes from outside: the text of a message, the name of a sender, the
//! answer of a server. A terminal executes control characters in it, and bidirectional and invisible characters change
//! how it reads. All of them are therefore shown as `\u001b`, which is also JSON's escape: JSON stays JSON of the same
//! value.
//!
//! Architecture invariant: no other module of the product prints; clippy's `print_stdout`, `print_stderr` and
//! `disallowed_methods` (`clippy.toml`) refuse it.

#![expect(clippy::disallowed_methods, reason = "the one place that escapes what it prints")]

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::fmt::MakeWriter;

pub use twilio_edge_domain::display::{line, page};

/// Writes to standard output.
///
/// # Errors
///
/// The output is closed or full.
pub fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(page(text).as_bytes())
}

/// Writes a line to standard output. A closed reader is not an error.
pub fn print_line(text: &str) {
    let _ = print(&format!("{text}\n"));
}

/// Writes a line to standard error.
pub fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{}\n", page(text)).as_bytes());
}

/// Writes data that a program reads back: as it is into a file or a pipe, escaped on a terminal.
///
/// # Errors
///
/// The output is closed or full.
pub fn print_data(data: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.is_terminal() {
        true => output.write_all(page(&String::from_utf8_lossy(data)).as_bytes()),
        false => output.write_all(data),
    }
}

/// Writer of log lines to standard error; each event stays in one line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLines;

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for LogLines {
    /// The formatter writes each event in one call, with a line break at its end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(log_line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn log_line(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    match text.strip_suffix('\n') {
        Some(text) => format!("{}\n", line(text)),
        None => line(&text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_line_is_one_line() {
        assert_eq!(
            log_line(b"reason=a\nERROR forged\x1b[0m\n"),
            "reason=a\\u000aERROR forged\\u001b[0m\n"
        );
        assert_eq!(log_line(b"\xff\n"), "\u{fffd}\n");
    }
}
