//! `twilio-edge archive`: state of the archive queue and its end, in the database.

use std::process::ExitCode;

use super::listing;
use crate::cli::{failure::fail, globals::Globals};
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
    Status,
    /// Stop queueing webhooks for the archive and drop the queue; archived objects stay
    Stop,
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(act(args.command, &config)) {
        Ok(text) => listing::write(&text),
        Err(reason) => fail(format!(
            "the database {} {reason}",
            without_password(config.database.url.expose())
        )),
    }
}

async fn act(command: Command, config: &Config) -> Result<String, StoreError> {
    let queue = ArchiveQueue::open(&config.database).await?;
    let done = command.act(&queue).await;
    queue.close().await;
    done
}

impl Command {
    async fn act(self, queue: &ArchiveQueue) -> Result<String, StoreError> {
        let time = |ms| rfc3339(ms).unwrap_or_default();
        let Some(since_ms) = queue.since().await? else {
            return Ok("no webhook is queued for an archive\n".to_owned());
        };
        match self {
            Command::Stop => {
                queue.stop().await?;
                let hint = "a sidecar with archive.url starts it again";
                Ok(format!("the archive queue was stopped and dropped; {hint}\n"))
            }
            Command::Status => {
                let oldest = match queue.oldest().await? {
                    Some(oldest_ms) => {
                        format!("the oldest one was received at {}", time(oldest_ms))
                    }
                    None => "none is waiting".to_owned(),
                };
                let since = time(since_ms);
                Ok(format!("webhooks are queued for the archive since {since}; {oldest}\n"))
            }
        }
    }
}
