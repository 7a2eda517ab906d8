//! `twilio-edge messages`: list of an account's messages, and the history of one.

use std::process::ExitCode;

use super::{
    ledger::{self, Place},
    listing::{self, Format, Output, Period},
};
use crate::cli::failure::fail;
use twilio_edge_api::views::{MessageDetail, MessageSummary};
use twilio_edge_domain::message::{Message, NumberQuery};
use twilio_edge_store::message_history::Search;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List messages, the latest first
    List(List),
    /// Show one message with its whole history
    Fetch {
        /// Message SID
        sid: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only messages to this number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(long, value_parser = ledger::number)]
    to: Option<NumberQuery>,
    /// Only messages from this number
    #[arg(long, value_parser = ledger::number)]
    from: Option<NumberQuery>,
    #[command(flatten)]
    period: Period,
    /// Only messages with this status: delivered, undelivered, ..
    #[arg(long)]
    status: Option<String>,
    /// Largest number of messages
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: Format,
}

const COLUMNS: [&str; 7] =
    ["sid", "direction", "from", "to", "status", "error_code", "first_received_at"];

const TIMELINE: [&str; 6] = ["received_at", "status", "error_code", "backend", "attempts", "route"];

pub(super) fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::List(list) => run_list(list),
        Verb::Fetch { sid, place, format } => {
            let account = place.account.clone();
            place.ask(
                async |histories, account| histories.message(account, &sid).await,
                |message| match message {
                    Some(message) => show(&message, format.output()),
                    None => fail(format_args!("nothing was heard of {sid} in {account}")),
                },
            )
        }
    }
}

fn run_list(list: List) -> ExitCode {
    let List { to, from, period, status, limit, place, format } = list;
    let (since_ms, until_ms) = period.bounds();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    place.ask(
        async |histories, account| {
            let search =
                Search { to, from, since_ms, until_ms, status, ..Search::of(account, limit) };
            ledger::gather(search, async |search| histories.messages(search).await).await
        },
        |found| {
            let rows: Vec<_> =
                found.iter().map(|message| ledger::row(&MessageSummary::of(message))).collect();
            listing::print(format.output(), &COLUMNS, &rows)
        },
    )
}

fn show(message: &Message, output: Output) -> ExitCode {
    let told = MessageDetail::of(message);
    let timeline: Vec<_> = told.timeline.iter().map(ledger::row).collect();
    match output {
        Output::Json => {
            listing::write(&(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"))
        }
        Output::Tsv => listing::print(output, &TIMELINE, &timeline),
        Output::Table => {
            listing::print(output, &COLUMNS, &[ledger::row(&told.message)]);
            listing::write("\n");
            listing::print(output, &TIMELINE, &timeline)
        }
    }
}
