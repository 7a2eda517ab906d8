//! `twilio-edge events`: the received webhooks with their content.

use std::process::ExitCode;

use super::{
    globals::Globals,
    ledger::{self, Account},
    listing::{self, Period},
};
use twilio_edge_api::views::Event;
use twilio_edge_domain::message::NumberQuery;
use twilio_edge_store::message_history::Search;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List webhooks, the latest first; webhooks of one message in the order of arrival
    List(List),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only webhooks about a message from or to this number
    #[arg(long, value_parser = ledger::number)]
    number: Option<NumberQuery>,
    /// Only webhooks of this message
    #[arg(long, conflicts_with_all = ["number", "date_sent", "since", "until", "limit"])]
    sid: Option<String>,
    #[command(flatten)]
    period: Period,
    /// Largest number of webhooks
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    account: Account,
}

const COLUMNS: [&str; 8] =
    ["received_at", "sid", "class", "from", "to", "status", "error_code", "backend"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let Verb::List(List { number, sid, period, limit, account }) = args.verb;
    let (since_ms, until_ms) = period.bounds();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    account.query(
        globals,
        async |histories, _, account| {
            if let Some(sid) = sid {
                let message = histories.message(account, &sid).await?;
                let recorded = message.as_ref().and_then(|message| message.recorded());
                return Ok(recorded
                    .iter()
                    .flat_map(|message| message.timeline())
                    .cloned()
                    .collect());
            }
            let search = Search { number, since_ms, until_ms, ..Search::of(account, limit) };
            ledger::gather(search, usize::MAX, async |search| histories.events(search).await).await
        },
        |found, _| {
            let rows: Vec<_> =
                found.iter().map(|webhook| ledger::row(&Event::of(webhook))).collect();
            listing::print(globals.output(), &COLUMNS, &rows)
        },
    )
}
