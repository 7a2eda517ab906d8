//! `twilio-edge stats`: counts of the outbound messages of an account over a period, by dimension.

use std::{collections::BTreeSet, process::ExitCode};

use serde_json::{Map, Value};

use super::{
    globals::Globals,
    ledger::{self, Account},
    listing::{self, Output, Period},
};
use crate::cli::{failure::fail, messages::with_messages};
use twilio_edge_api::views::StatisticsView;
use twilio_edge_domain::{period::DAY_MS, sending::statistics::Dimension};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::outbound::statistics::statistics;
use twilio_edge_store::CountQuery;

const COUNTS: [&str; 7] =
    ["accepted", "sent", "delivered", "read", "failed", "refused", "repeated"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: Account,
    /// Group by these dimensions, separated by commas: hour, channel, sender, template, country, code
    #[arg(long, value_delimiter = ',', value_name = "DIMENSION", value_parser = dimension)]
    by: Vec<Dimension>,
    #[command(flatten)]
    period: Period,
    /// Only messages on this channel
    #[arg(long, default_value = "", hide_default_value = true)]
    channel: String,
    /// Only messages from this sender: a number, a sender id, or MG..
    #[arg(long, default_value = "", hide_default_value = true)]
    sender: String,
    /// Only messages with this template: its name in the catalogue, or HX.. if the catalogue does not have it
    #[arg(long, default_value = "", hide_default_value = true)]
    template: String,
    /// Only messages to recipients in this country: DE, ..
    #[arg(long, default_value = "", hide_default_value = true)]
    country: String,
    /// Only events with this error code
    #[arg(long, default_value = "", hide_default_value = true)]
    code: String,
}

fn dimension(text: &str) -> Result<Dimension, String> {
    let names = Dimension::ALL.map(Dimension::as_str).join(", ");
    text.parse().map_err(|_| format!("must be one of {names}"))
}

/// Prints the counts of the last day, or of the given period.
pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let Args { account, by, period, channel, sender, template, country, code } = args;
    let texts = [&channel, &sender, &template, &country, &code];
    if texts.into_iter().any(|text| text.contains('\0')) {
        return fail("a filter must not contain a NUL character");
    }
    let by: BTreeSet<Dimension> = by.into_iter().collect();
    let (since_ms, until_ms) = period.bounds();
    let until_ms = until_ms.min(now_ms());
    let query = CountQuery {
        account_sid: account.account,
        since_ms: if since_ms == i64::MIN { until_ms.saturating_sub(DAY_MS) } else { since_ms },
        until_ms,
        by: by.clone(),
        channel,
        sender,
        template,
        country,
        code,
    };
    with_messages(globals, async |messages, _| {
        let found = statistics(messages, query.clone()).await?;
        Ok(print(&StatisticsView::of(&found, &by), &by, globals.output()))
    })
}

fn print(view: &StatisticsView, by: &BTreeSet<Dimension>, output: Output) -> ExitCode {
    if output == Output::Json {
        let text = serde_json::to_string_pretty(view).unwrap_or_default() + "\n";
        return listing::write(&text);
    }
    let columns: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).chain(COUNTS).collect();
    let mut rows: Vec<Map<String, Value>> = view.groups.iter().map(ledger::row).collect();
    // The last line has the totals.
    let mut totals = ledger::row(&view.totals);
    if let Some(first) = by.first() {
        totals.insert(first.as_str().to_owned(), Value::from("total"));
    }
    rows.push(totals);
    listing::print(output, &columns, &rows)
}
