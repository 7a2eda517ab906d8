//! `twilio-edge archive`: state of the archive queue and its end, in the database.

use std::process::ExitCode;

use super::listing;
use crate::cli::{failure::fail, sources::Sources};
use twilio_edge_domain::window::rfc3339;
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_store::{ArchiveQueue, StoreError};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show since when webhooks are queued for the archive, and the oldest one that waits
    Status(Status),
    /// Stop queueing webhooks for the archive and drop the queue; archived objects stay
    Stop(Stop),
}

#[derive(Debug, clap::Args)]
struct Status {
    #[command(flatten)]
    sources: Sources,
}

#[derive(Debug, clap::Args)]
struct Stop {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let (sources, stops) = match args.command {
        Command::Status(status) => (status.sources, false),
        Command::Stop(stop) => (stop.sources, true),
    };
    let config = match sources.read().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(carried_out(&config, stops)) {
        Ok(said) => listing::write(&said),
        Err(reason) => fail(format!(
            "the database {} {reason}",
            without_password(config.database.url.expose())
        )),
    }
}

async fn carried_out(config: &Config, stops: bool) -> Result<String, StoreError> {
    let queue = ArchiveQueue::open(&config.database).await?;
    let said = said(&queue, stops).await;
    queue.close().await;
    said
}

async fn said(queue: &ArchiveQueue, stops: bool) -> Result<String, StoreError> {
    let time = |ms| rfc3339(ms).unwrap_or_default();
    let Some(since_ms) = queue.since().await? else {
        return Ok("nothing is kept for an archive\n".to_owned());
    };
    if stops {
        queue.stop().await?;
        let beware = "a sidecar with archive.url begins again at its next start";
        return Ok(format!("nothing is kept for the archive any more; {beware}\n"));
    }
    let waits = match queue.oldest().await? {
        Some(oldest_ms) => format!("the oldest that waits came at {}", time(oldest_ms)),
        None => "nothing waits".to_owned(),
    };
    Ok(format!("webhooks are kept for the archive since {}; {waits}\n", time(since_ms)))
}
