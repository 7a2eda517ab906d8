//! Failure of a command.

use std::process::ExitCode;

use twilio_edge_platform::terminal;

/// Prints the problem in one line to standard error and returns a failure.
pub(super) fn fail(problem: impl std::fmt::Display) -> ExitCode {
    terminal::print_error(&format!("twilio-edge: {problem}"));
    ExitCode::FAILURE
}
