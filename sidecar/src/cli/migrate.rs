//! `twilio-edge migrate`: migrates the database, so that a deployment can do it before any sidecar starts.

use std::process::ExitCode;
use twilio_edge_platform::terminal;

use crate::cli::{failure::fail, sources::Sources};
use twilio_edge_platform::config::without_password;
use twilio_edge_store::Stores;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(Stores::migrate(&config)) {
        Ok(()) => {
            let database = without_password(config.database.url.expose());
            terminal::print_line(&format!("{database} is up to date"));
            ExitCode::SUCCESS
        }
        Err(problem) => fail(problem),
    }
}
