//! `twilio-edge story +15551234567`: the history of a number with one command.

use std::process::ExitCode;

use serde::Serialize;

use super::{
    ledger::{self, Place},
    listing::{self, Output},
    permissions::policies,
};
use twilio_edge_api::views::Story;
use twilio_edge_domain::message::NumberQuery;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::contact_history as story;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(value_parser = ledger::number)]
    number: NumberQuery,
    /// Largest number of messages, and of webhooks
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    place: Place,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

const WINDOWS: [&str; 6] = ["channel", "person", "sender", "last_inbound_at", "expires_at", "open"];

const SUPPRESSIONS: [&str; 6] =
    ["channel", "source", "error_code", "in_force", "since", "changed_at"];

const CONSENTS: [&str; 5] = ["channel", "category", "state", "at", "source"];

const MESSAGES: [&str; 7] =
    ["first_received_at", "sid", "direction", "from", "to", "status", "error_code"];

const EVENTS: [&str; 6] = ["received_at", "sid", "class", "status", "error_code", "backend"];

pub(super) fn run(args: Args) -> ExitCode {
    let Args { number, limit, place, json } = args;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    place.ask_with(
        async |histories, config, account| {
            let policy = policies(config, account).await?.of(account);
            let now_ms = now_ms();
            let history = story::of(histories, &policy, account, &number, limit).await?;
            Ok(Story::of(&history, now_ms))
        },
        |story| match json {
            true => {
                let text = serde_json::to_string_pretty(&story).unwrap_or_default();
                listing::write(&(text + "\n"))
            }
            false => listing::write(&told(&story)),
        },
    )
}

/// Formats the history for people: each part that exists, under its title.
fn told(story: &Story) -> String {
    let channel = story.channel.as_ref().map(|channel| format!("{channel}:")).unwrap_or_default();
    let title = format!("{channel}{} in {}", story.number, story.account_sid);
    let parts = [
        part(
            "Suppressions: why it must not be written to, or must not have been",
            &SUPPRESSIONS,
            &story.suppressions,
        ),
        part("Consents: what was agreed to and taken back", &CONSENTS, &story.consents),
        part("Windows: until when free text may be sent", &WINDOWS, &story.windows),
        part("Messages, the latest first", &MESSAGES, &story.messages),
        part("Webhooks, the latest first", &EVENTS, &story.events),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => format!("{title}\n\nNothing is known of this number.\n"),
        false => format!("{title}\n\n{}", parts.join("\n")),
    }
}

fn part(title: &str, columns: &[&str], shown: &[impl Serialize]) -> Option<String> {
    let rows: Vec<_> = shown.iter().map(ledger::row).collect();
    (!rows.is_empty()).then(|| format!("{title}\n{}", listing::text(Output::Table, columns, &rows)))
}
