//! `twilio-edge notifications`: the notifications of an account with their attempts.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{
    globals::Globals,
    ledger::{self, Account, error_table},
    listing::{self, Columns, Output, Period},
};
use crate::cli::failure::fail;
use twilio_edge_api::views::{NotificationAttempt, NotificationState, NotificationView};
use twilio_edge_domain::message::NumberQuery;
use twilio_edge_store::message_history::notifications::NotificationSearch;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List notifications, the latest first, with those that a rule declined
    List(Box<List>),
    /// Show one notification with its attempts
    Show {
        /// Id of the notification: nt_..
        id: String,
        #[command(flatten)]
        account: Account,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only notifications to this number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(long, value_parser = ledger::number)]
    person: Option<NumberQuery>,
    /// Only notifications whose last attempt is in this state: declined, queued, attempting, sent, refused, unknown, not_sent, canceled
    #[arg(long)]
    state: Option<NotificationState>,
    #[command(flatten)]
    period: Period,
    /// Largest number of notifications
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    columns: Columns,
    #[command(flatten)]
    account: Account,
}

const COLUMNS: [&str; 9] =
    ["id", "created_at", "to", "category", "provider", "state", "status", "error", "attempts"];

/// Fields of a notification, in the order of its JSON.
const FIELDS: [&str; 15] = [
    "id",
    "account_sid",
    "to",
    "category",
    "channel",
    "provider",
    "state",
    "status",
    "error",
    "metadata",
    "created_by",
    "created_at",
    "changed_at",
    "attempts",
    "links",
];

const ATTEMPTS: [&str; 9] = [
    "created_at",
    "id",
    "channel",
    "provider",
    "provider_id",
    "state",
    "status",
    "error",
    "changed_at",
];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.verb {
        Verb::List(list) => list.run(globals),
        Verb::Show { id, account } => show(&id, account, globals),
    }
}

impl List {
    fn run(self, globals: &Globals) -> ExitCode {
        let List { person, state, period, limit, columns, account } = self;
        if let Err(problem) = columns.check(&FIELDS) {
            return fail(problem);
        }
        let (since_ms, until_ms) = period.bounds();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        account.query(
            globals,
            async |histories, _, account| {
                let mut search = NotificationSearch {
                    contact: person,
                    state: state.map(|state| state.as_str().to_owned()),
                    since_ms,
                    until_ms,
                    ..NotificationSearch::of(account, limit)
                };
                let mut found = Vec::new();
                loop {
                    let page = histories.notifications(&search).await?;
                    found.extend(page.found);
                    search.limit = limit.saturating_sub(found.len());
                    if page.next.is_none() || search.limit == 0 {
                        return Ok(found);
                    }
                    search.after = page.next;
                }
            },
            |found, config| match error_table(config) {
                Ok(errors) => {
                    let views = found.iter().map(|found| NotificationView::of(found, &errors));
                    let row = |view| match globals.output() {
                        Output::Json => ledger::row(&view),
                        Output::Table | Output::Tsv | Output::Csv => summary_row(&view),
                    };
                    let rows: Vec<_> = views.map(row).collect();
                    columns.print(globals.output(), &COLUMNS, &rows)
                }
                Err(problem) => fail(problem),
            },
        )
    }
}

/// Returns a notification as a row of a table: the error is its code, and the attempts are counted.
pub(super) fn summary_row(notification: &NotificationView) -> Map<String, Value> {
    let mut row = ledger::row(notification);
    let code = notification.error.as_ref().map(|error| &error.code);
    row.insert("error".to_owned(), json!(code));
    row.insert("attempts".to_owned(), json!(notification.attempts.len()));
    row
}

fn show(id: &str, account: Account, globals: &Globals) -> ExitCode {
    let sid = account.account.clone();
    account.query(
        globals,
        async |histories, _, account| histories.notification(account, id).await,
        |found, config| match (found, error_table(config)) {
            (Some(found), Ok(errors)) => {
                print_one(&NotificationView::of(&found, &errors), globals.output())
            }
            (None, _) => fail(format_args!("account {sid} has no notification {id}")),
            (_, Err(problem)) => fail(problem),
        },
    )
}

/// Prints one notification with its attempts, and the remedy of its error.
fn print_one(notification: &NotificationView, output: Output) -> ExitCode {
    let attempts: Vec<_> = notification.attempts.iter().map(attempt_row).collect();
    match output {
        Output::Json => {
            listing::write(&(serde_json::to_string_pretty(notification).unwrap_or_default() + "\n"))
        }
        Output::Tsv | Output::Csv => listing::print(output, &ATTEMPTS, &attempts),
        Output::Table => {
            listing::print(output, &COLUMNS, &[summary_row(notification)]);
            if let Some(error) = &notification.error {
                let reason = error.reason.as_deref().unwrap_or_default();
                let remedy = error.remedy.as_deref().unwrap_or_default();
                let text = format!("{}: {reason}. {remedy}", error.code);
                let line = twilio_edge_platform::terminal::line(text.trim_end());
                listing::write(&format!("\n{line}\n"));
            }
            listing::write("\n");
            listing::print(output, &ATTEMPTS, &attempts)
        }
    }
}

fn attempt_row(attempt: &NotificationAttempt) -> Map<String, Value> {
    let mut row = ledger::row(attempt);
    row.insert("error".to_owned(), json!(attempt.error.as_ref().map(|error| &error.code)));
    row
}
