//! `twilio-edge print-config`: the settings in effect, without secrets, and their problems.

use std::process::ExitCode;
use twilio_edge_platform::terminal;

use crate::cli::{failure::fail, globals::Globals};

pub(super) fn run(globals: &Globals) -> ExitCode {
    let merged = globals.settings();
    let _ = terminal::print(&merged.redacted());
    match merged.check() {
        Ok(config) => {
            for problem in config.warnings() {
                terminal::print_error(&format!("twilio-edge: warning: {problem}"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => fail(problems),
    }
}
