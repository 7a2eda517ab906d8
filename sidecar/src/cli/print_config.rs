//! `twilio-edge print-config`: the settings in effect, without secrets, and their problems.

use std::process::ExitCode;
use twilio_edge_platform::terminal;

use crate::cli::{failure::fail, sources::Sources};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let merged = args.sources.read();
    let _ = terminal::print(&merged.redacted());
    match merged.check() {
        Ok(config) => {
            for problem in config.warnings() {
                terminal::complain(&format!("twilio-edge: warning: {problem}"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => fail(problems),
    }
}
