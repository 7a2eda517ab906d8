//! `twilio-edge sends`: outbound messages, and the operator's decision about those whose outcome at Twilio is unknown.
//! Changes are recorded in the audit log.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{
    credentials::variable,
    listing::{self, Format},
};
use crate::cli::{failure::fail, sources::Sources};
use twilio_edge_domain::{sending::outcome::is_message_sid, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::config::without_password;
use twilio_edge_services::{access::api_keys::Caller, outbound::sending};
use twilio_edge_store::{OutboundMessage, OutboundMessages, StoreError};

const COLUMNS: [&str; 7] =
    ["id", "state", "account_sid", "created_at", "message_sid", "code", "reason"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List outbound messages, the latest first
    List {
        /// Only messages in this state: queued, attempting, sent, refused, unknown, not_sent, canceled
        #[arg(long)]
        state: Option<String>,
        /// Largest number of messages
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        format: Format,
    },
    /// Cancel a message that is not yet being sent
    Cancel {
        /// Message id: ms_..
        id: String,
    },
    /// Record whether an unknown message was sent, according to Twilio's console
    Resolve {
        /// Message id: ms_..
        id: String,
        /// SID of the message at Twilio, if it was sent: SM.., MM..
        #[arg(
            long,
            value_name = "MESSAGE_SID",
            conflicts_with = "not_sent",
            required_unless_present = "not_sent"
        )]
        sent: Option<String>,
        /// Record that it was not sent; send it again yourself if it is still wanted
        #[arg(long)]
        not_sent: bool,
    },
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let database = without_password(config.database.url.expose());
    let done = runtime.block_on(async {
        let sends = OutboundMessages::open(&config.database).await?;
        let done = args.verb.act(&sends).await;
        sends.close().await;
        done
    });
    match done {
        Ok(code) => code,
        Err(reason) => fail(format_args!("the database {database} {reason}")),
    }
}

impl Verb {
    async fn act(self, sends: &OutboundMessages) -> Result<ExitCode, StoreError> {
        match self {
            Verb::List { state, limit, format } => {
                let found = sends.list_latest(state.as_deref(), limit).await?;
                let rows: Vec<Map<String, Value>> = found.iter().map(row).collect();
                Ok(listing::print(format.output(), &COLUMNS, &rows))
            }
            Verb::Cancel { id } => {
                let Some(send) = sends.fetch(&id, None).await? else {
                    return Ok(fail(format_args!("there is no message {id}")));
                };
                let by = Caller::command_line(&variable("USER").unwrap_or_default());
                match sending::cancel(sends, &by, &send, now_ms()).await? {
                    true => Ok(ExitCode::SUCCESS),
                    false => Ok(fail(format_args!("{id} is {}: it is too late", send.state))),
                }
            }
            Verb::Resolve { id, sent, .. } => {
                if sent.as_deref().is_some_and(|sid| !is_message_sid(sid)) {
                    return Ok(fail("--sent: must be SM or MM and 32 hexadecimal digits"));
                }
                let Some(send) = sends.fetch(&id, None).await? else {
                    return Ok(fail(format_args!("there is no message {id}")));
                };
                let by = Caller::command_line(&variable("USER").unwrap_or_default());
                match sending::resolve(sends, &by, &send, sent.as_deref(), now_ms()).await? {
                    true => Ok(ExitCode::SUCCESS),
                    false => Ok(fail(format_args!("{id} is not unknown: nothing was changed"))),
                }
            }
        }
    }
}

fn row(send: &OutboundMessage) -> Map<String, Value> {
    let shown = json!({
        "id": send.id,
        "state": send.state,
        "account_sid": send.account_sid,
        "created_at": rfc3339(send.created_at_ms),
        "message_sid": send.message_sid,
        "attempts": send.attempts,
        "code": send.code,
        "reason": send.reason,
        "request_id": send.request_id,
    });
    match shown {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
