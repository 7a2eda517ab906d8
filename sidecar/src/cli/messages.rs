//! `twilio-edge messages`: list of messages in both directions, one message with its timeline, and the operator's decisions
//! about outbound messages, which are recorded in the audit log.

mod changes;

use std::process::ExitCode;

use serde_json::{Map, Value, json};

pub(super) use self::changes::with_messages;
use self::changes::{Target, cancel, change, resolve};
use super::{
    globals::Globals,
    ledger::{self, Account, error_table},
    listing::{self, Columns, Output, Period},
};
use crate::cli::failure::fail;
use twilio_edge_api::views::{Message, MessageSummary};
use twilio_edge_domain::message::{Direction, NumberQuery};
use twilio_edge_platform::config::Config;
use twilio_edge_services::outbound::sending::PREFIX;
use twilio_edge_store::message_history::{Search, messages::MessageRecord};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List messages, the latest first; without --account, the outbound messages of all accounts
    List(Box<List>),
    /// Show one message with its timeline
    Show {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        columns: Columns,
        #[command(flatten)]
        account: Account,
    },
    /// Cancel a message that is not yet being sent
    Cancel {
        #[command(flatten)]
        target: Target,
    },
    /// Record whether an unknown message was sent, according to Twilio's console
    Resolve {
        #[command(flatten)]
        target: Target,
        /// SID at Twilio, if it was sent: SM.., MM.., VE.., FN.., or the provider's id of an e-mail
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

#[derive(Debug, clap::Args)]
struct List {
    /// Only messages in this direction
    #[arg(long)]
    direction: Option<Direction>,
    /// Only messages in this state: received, queued, attempting, sent, refused, unknown, not_sent, canceled
    #[arg(long, value_parser = STATES)]
    state: Option<String>,
    /// Only messages from or to this number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(long, value_parser = ledger::number, requires = "account")]
    number: Option<NumberQuery>,
    /// Only messages to this number
    #[arg(long, value_parser = ledger::number, requires = "account")]
    to: Option<NumberQuery>,
    /// Only messages from this number
    #[arg(long, value_parser = ledger::number, requires = "account")]
    from: Option<NumberQuery>,
    #[command(flatten)]
    period: Period,
    /// Only messages with this delivery status: delivered, undelivered, ..
    #[arg(long, requires = "account")]
    status: Option<String>,
    /// Only messages with this error code: 63018, suppressed, ..
    #[arg(long, value_name = "CODE", requires = "account")]
    error_code: Option<String>,
    /// Only messages with this template: its name in the catalogue, or HX.. if the catalogue does not have it
    #[arg(long, value_name = "NAME", requires = "account")]
    template: Option<String>,
    /// Only messages that were requested with this sender: a number, a sender id, or MG..
    #[arg(long, requires = "account")]
    sender: Option<String>,
    /// Largest number of messages
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Messages that are read from the database at a time [default: all of --limit]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "account")]
    page_size: Option<u32>,
    #[command(flatten)]
    columns: Columns,
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
}

const STATES: [&str; 8] =
    ["received", "queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

const COLUMNS: [&str; 9] =
    ["id", "sid", "direction", "from", "to", "state", "status", "error", "created_at"];

/// Fields of a message, in the order of its JSON.
const FIELDS: [&str; 24] = [
    "id",
    "sid",
    "account_sid",
    "direction",
    "channel",
    "from",
    "to",
    "messaging_service_sid",
    "state",
    "status",
    "error",
    "attempts",
    "template",
    "metadata",
    "category",
    "kind",
    "fallback_of",
    "reply_to",
    "due_at",
    "valid_until",
    "created_at",
    "changed_at",
    "webhooks",
    "links",
];

const TIMELINE: [&str; 8] =
    ["at", "event", "state", "status", "error", "backend", "attempts", "route"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.verb {
        Verb::List(list) => list.run(globals),
        Verb::Show { target, columns, account } => show(&target.id(), &columns, account, globals),
        Verb::Cancel { target } => {
            let id = target.id();
            change(globals, async |messages| cancel(messages, &id).await)
        }
        Verb::Resolve { target, sent, .. } => {
            let id = target.id();
            change(globals, async |messages| resolve(messages, &id, sent.as_deref()).await)
        }
    }
}

impl List {
    fn run(self, globals: &Globals) -> ExitCode {
        if let Err(problem) = self.columns.check(&FIELDS) {
            return fail(problem);
        }
        let Some(account) = self.account.clone() else { return self.run_for_all(globals) };
        let List { direction, state, number, to, from, period, status, limit, .. } = self;
        let List { error_code, template, sender, page_size, columns, .. } = self;
        let (since_ms, until_ms) = period.bounds();
        let whole = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (limit, page_size) = (whole(limit), page_size.map_or(usize::MAX, whole));
        Account { account }.query(
            globals,
            async |histories, _, account| {
                let search = Search {
                    direction,
                    state,
                    number,
                    to,
                    from,
                    since_ms,
                    until_ms,
                    status,
                    error_code,
                    template,
                    sender,
                    ..Search::of(account, limit)
                };
                let page = async |search: &Search| histories.messages(search).await;
                ledger::gather(search, page_size, page).await
            },
            |found, config| print(&found, config, globals.output(), &columns),
        )
    }

    /// Lists the outbound messages of all accounts that this installation accepted.
    fn run_for_all(self, globals: &Globals) -> ExitCode {
        let is_outbound =
            self.direction != Some(Direction::Inbound) && self.state.as_deref() != Some("received");
        if !is_outbound || self.period.is_limited() {
            return fail(
                "--account: is required, except for outbound messages of all times; name the account (AC..), or set TWILIO_ACCOUNT_SID",
            );
        }
        with_messages(globals, async |messages, config| {
            let found = messages.list_latest(self.state.as_deref(), self.limit).await?;
            let found: Vec<MessageRecord> = found.into_iter().map(MessageRecord::from).collect();
            Ok(print(&found, config, globals.output(), &self.columns))
        })
    }
}

fn print(found: &[MessageRecord], config: &Config, output: Output, columns: &Columns) -> ExitCode {
    let errors = match error_table(config) {
        Ok(errors) => errors,
        Err(problem) => return fail(problem),
    };
    let messages = found.iter().map(|record| MessageSummary::of(record, &errors));
    let rows: Vec<_> = messages
        .map(|message| match output {
            Output::Json => ledger::row(&message),
            Output::Table | Output::Tsv | Output::Csv => summary_row(&message),
        })
        .collect();
    columns.print(output, &COLUMNS, &rows)
}

/// Returns a summary as a row of a table: the error is its code.
fn summary_row(message: &MessageSummary) -> Map<String, Value> {
    let mut row = ledger::row(message);
    row.insert("error".to_owned(), json!(message.error.as_ref().map(|error| &error.code)));
    row
}

fn show(id: &str, columns: &Columns, account: Account, globals: &Globals) -> ExitCode {
    if let Err(problem) = columns.check(&FIELDS) {
        return fail(problem);
    }
    let sid = account.account.clone();
    account.query(
        globals,
        async |histories, _, account| match id.starts_with(PREFIX) {
            true => histories.outbound_message(account, id).await,
            false => histories.message(account, id).await,
        },
        |record, config| match (record, error_table(config)) {
            (Some(record), Ok(errors)) => {
                print_one(&Message::of(&record, None, &errors), globals.output(), columns)
            }
            (None, _) => fail(format_args!("account {sid} has no message {id}")),
            (_, Err(problem)) => fail(problem),
        },
    )
}

/// Prints one message: with the selected fields only these, else with its timeline.
fn print_one(message: &Message, output: Output, columns: &Columns) -> ExitCode {
    if columns.is_selected() {
        return match output {
            Output::Json => {
                let fields = columns.select(&ledger::row(&message.summary));
                let text = serde_json::to_string_pretty(&fields).unwrap_or_default();
                listing::write(&(text + "\n"))
            }
            _ => columns.print(output, &COLUMNS, &[summary_row(&message.summary)]),
        };
    }
    let timeline: Vec<_> = message
        .timeline
        .iter()
        .map(|entry| {
            let mut row = entry.webhook.as_ref().map(ledger::row).unwrap_or_default();
            let own = json!({
                "at": entry.at,
                "event": entry.event,
                "state": entry.state,
                "error": entry.error.as_ref().map(|error| &error.code),
            });
            row.extend(ledger::row(&own));
            row
        })
        .collect();
    match output {
        Output::Json => {
            listing::write(&(serde_json::to_string_pretty(message).unwrap_or_default() + "\n"))
        }
        Output::Tsv | Output::Csv => columns.print(output, &TIMELINE, &timeline),
        Output::Table => {
            columns.print(output, &COLUMNS, &[summary_row(&message.summary)]);
            if let Some(error) = &message.summary.error {
                let remedy = error.remedy.as_deref().unwrap_or_default();
                let reason = error.reason.as_deref().unwrap_or_default();
                listing::write(&format!("\n{}\n", explanation(&error.code, reason, remedy)));
            }
            listing::write("\n");
            columns.print(output, &TIMELINE, &timeline)
        }
    }
}

/// Formats an error as one line.
fn explanation(code: &str, reason: &str, remedy: &str) -> String {
    let text = format!("{code}: {reason}. {remedy}");
    twilio_edge_platform::terminal::line(text.trim_end()).into_owned()
}
