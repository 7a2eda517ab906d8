//! `twilio-edge history +15551234567`: the history of a number with one command.

use std::process::ExitCode;

use serde::Serialize;

use super::{
    globals::Globals,
    ledger::{self, Account, error_table},
    listing::{self, Output},
    notifications::summary_row,
    permissions::policies,
};
use crate::cli::failure::fail;
use twilio_edge_api::views::NumberHistory;
use twilio_edge_domain::message::NumberQuery;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::contact_history;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(value_parser = ledger::number)]
    number: NumberQuery,
    /// Largest number of messages, of notifications, and of webhooks
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    account: Account,
}

const WINDOWS: [&str; 6] = ["channel", "person", "sender", "last_inbound_at", "expires_at", "open"];

const SUPPRESSIONS: [&str; 7] =
    ["channel", "source", "error_code", "in_force", "since", "expires_at", "changed_at"];

const CONSENTS: [&str; 5] = ["channel", "category", "state", "at", "source"];

const MESSAGES: [&str; 7] = ["created_at", "id", "direction", "from", "to", "state", "status"];

const NOTIFICATIONS: [&str; 7] = ["created_at", "id", "to", "provider", "state", "status", "error"];

const EVENTS: [&str; 6] = ["received_at", "sid", "class", "status", "error_code", "backend"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let Args { number, limit, account } = args;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    account.query(
        globals,
        async |histories, config, account| {
            let policy = policies(config, account).await?.of(account);
            contact_history::of(histories, &policy, account, &number, limit).await
        },
        |history, config| {
            let errors = match error_table(config) {
                Ok(errors) => errors,
                Err(problem) => return fail(problem),
            };
            let history = NumberHistory::of(&history, &errors, now_ms());
            match globals.output() {
                Output::Json => {
                    let text = serde_json::to_string_pretty(&history).unwrap_or_default();
                    listing::write(&(text + "\n"))
                }
                Output::Table | Output::Tsv | Output::Csv => {
                    listing::write(&text(&history, globals.output()))
                }
            }
        },
    )
}

/// Formats the history: each part that exists, under its title.
fn text(history: &NumberHistory, output: Output) -> String {
    let channel = history.channel.as_ref().map(|channel| format!("{channel}:")).unwrap_or_default();
    let title = format!("{channel}{} in {}", history.number, history.account_sid);
    let parts = [
        part(output, "Suppressions, in effect and ended", &SUPPRESSIONS, &history.suppressions),
        part(output, "Consents, given and withdrawn", &CONSENTS, &history.consents),
        part(
            output,
            "Conversation windows, in which free text may be sent",
            &WINDOWS,
            &history.windows,
        ),
        part(output, "Messages, the latest first", &MESSAGES, &history.messages),
        notifications(output, history),
        part(output, "Webhooks, the latest first", &EVENTS, &history.events),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => format!("{title}\n\nThe database has nothing about this number.\n"),
        false => format!("{title}\n\n{}", parts.join("\n")),
    }
}

/// Formats the notifications: the error is its code.
fn notifications(output: Output, history: &NumberHistory) -> Option<String> {
    let rows: Vec<_> = history.notifications.iter().map(summary_row).collect();
    part(output, "Notifications, the latest first", &NOTIFICATIONS, &rows)
}

fn part(
    output: Output,
    title: &str,
    columns: &[&str],
    entries: &[impl Serialize],
) -> Option<String> {
    let rows: Vec<_> = entries.iter().map(ledger::row).collect();
    (!rows.is_empty()).then(|| format!("{title}\n{}", listing::text(output, columns, &rows)))
}
