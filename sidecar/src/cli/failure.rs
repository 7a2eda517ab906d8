//! Failure of a command.

use std::{error::Error, iter, process::ExitCode};

use twilio_edge_platform::terminal;

/// Prints the problem in one line to standard error and returns a failure.
pub(super) fn fail(problem: impl std::fmt::Display) -> ExitCode {
    terminal::print_error(&format!("twilio-edge: {problem}"));
    ExitCode::FAILURE
}

/// Formats an error with its causes.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}
