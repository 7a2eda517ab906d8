//! `twilio-edge media`: media of inbound messages that the sidecar fetches from Twilio, in the database and beside a running
//! sidecar. A deletion is recorded in the audit log.

use std::{future::Future, process::ExitCode};

use serde_json::{Map, Value};

use super::{
    credentials::variable,
    ledger,
    listing::{self, Output},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_api::views::InboundMediaItem;
use twilio_edge_platform::{
    clock::now_ms,
    config::{Config, without_password},
};
use twilio_edge_services::{access::api_keys::Caller, inbound::media};
use twilio_edge_store::{InboundMedia, StoreError};

const COLUMNS: [&str; 7] =
    ["id", "position", "state", "twilio_state", "content_type", "bytes", "error"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the media of an inbound message, with their states and links
    List {
        /// SID of the message
        message: String,
        #[command(flatten)]
        account: ledger::Account,
    },
    /// Delete stored media
    Delete {
        /// Ids of media (`mi_..`), as `list` shows them
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        account: ledger::Account,
        /// Also delete them at Twilio; the sidecar does that in the background
        #[arg(long)]
        at_twilio: bool,
    },
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
    let act = async |inbound| args.verb.act(&inbound, &config, globals).await;
    runtime.block_on(with_media(&config, act)).unwrap_or_else(fail)
}

async fn with_media<F: Future<Output = Result<ExitCode, StoreError>>>(
    config: &Config,
    act: impl FnOnce(InboundMedia) -> F,
) -> Result<ExitCode, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: StoreError| format!("the database {database} {reason}");
    let inbound = InboundMedia::open(&config.database).await.map_err(failure)?;
    let done = act(inbound.clone()).await;
    inbound.close().await;
    done.map_err(failure)
}

impl Verb {
    async fn act(
        self,
        inbound: &InboundMedia,
        config: &Config,
        globals: &Globals,
    ) -> Result<ExitCode, StoreError> {
        match self {
            Verb::List { message, account } => {
                let found = inbound.of_message(&account.account, &message).await?;
                let (links, now_ms) = (config.media.store.inbound_links(), now_ms());
                let rows = found.iter().map(|medium| {
                    row(&InboundMediaItem::of(medium, links.as_ref(), now_ms), globals.output())
                });
                Ok(listing::print(globals.output(), &COLUMNS, &rows.collect::<Vec<_>>()))
            }
            Verb::Delete { ids, account, at_twilio } => {
                let user = variable("USER").unwrap_or_else(|| "unknown".into());
                let (by, account) = (Caller::command_line(&user), account.account);
                let mut deleted = 0_usize;
                for id in &ids {
                    let removed = media::remove(inbound, &by, &account, id, at_twilio, now_ms());
                    deleted = deleted.saturating_add(removed.await?.into());
                }
                listing::write(&format!("{deleted} of {} media were deleted\n", ids.len()));
                Ok(if deleted == ids.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

/// Formats one medium. A table shows only the code of its error; JSON has all of it.
fn row(item: &InboundMediaItem, output: Output) -> Map<String, Value> {
    let mut row = match serde_json::to_value(item) {
        Ok(Value::Object(row)) => row,
        _ => Map::new(),
    };
    if output != Output::Json {
        let code = item.error.as_ref().map(|error| error.code.clone());
        row.insert("error".to_owned(), code.map_or(Value::Null, Value::String));
    }
    row
}
