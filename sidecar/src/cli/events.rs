//! `twilio-edge events`: the received webhooks with their content.

use std::process::ExitCode;

use super::{
    ledger::{self, Place},
    listing::{self, Format, Period},
};
use twilio_edge_api::views::EventTold;
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
    place: Place,
    #[command(flatten)]
    format: Format,
}

const COLUMNS: [&str; 8] =
    ["received_at", "sid", "class", "from", "to", "status", "error_code", "backend"];

pub(super) fn run(args: Args) -> ExitCode {
    let Verb::List(List { number, sid, period, limit, place, format }) = args.verb;
    let (since_ms, until_ms) = period.bounds();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    place.ask(
        async |histories, account| {
            if let Some(sid) = sid {
                let message = histories.message(account, &sid).await?;
                return Ok(message.iter().flat_map(|m| m.timeline()).cloned().collect());
            }
            let search = Search { number, since_ms, until_ms, ..Search::of(account, limit) };
            ledger::gather(search, async |search| histories.events(search).await).await
        },
        |found| {
            let rows: Vec<_> =
                found.iter().map(|heard| ledger::row(&EventTold::of(heard))).collect();
            listing::print(format.output(), &COLUMNS, &rows)
        },
    )
}
