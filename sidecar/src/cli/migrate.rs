//! `twilio-edge migrate`: migrates the database, so that a deployment can do it before any sidecar starts.

use std::process::ExitCode;
use twilio_edge_platform::terminal;

use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_platform::config::without_password;
use twilio_edge_store::Stores;

pub(super) fn run(globals: &Globals) -> ExitCode {
    let config = match globals.settings().check() {
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
