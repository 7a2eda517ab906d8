//! `twilio-edge migrate`: brings the database up to date, so that a deployment can do it before any sidecar starts.

use std::{process::ExitCode, sync::Arc, time::Duration};

use super::{Sources, fail};
use crate::{config::without_password, metrics::Metrics, store::Stores};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check(false) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let database = without_password(config.database.url.expose());
    match runtime.block_on(Stores::open(&config, Arc::new(Metrics::default()))) {
        Ok(stores) => {
            runtime.block_on(stores.close(Duration::from_secs(1)));
            println!("{database} is up to date");
            ExitCode::SUCCESS
        }
        Err(error) => fail(format_args!("the database {database} {error}")),
    }
}
