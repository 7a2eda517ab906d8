//! `twilio-edge messages`: list of messages in both directions, one message with its timeline, and the operator's decisions
//! about outbound messages, which are recorded in the audit log.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{
    credentials::variable,
    event_reporting::event_reporting,
    globals::Globals,
    ledger::{self, Account, error_table},
    listing::{self, Output, Period},
};
use crate::cli::failure::fail;
use twilio_edge_api::views::{Message, MessageSummary};
use twilio_edge_domain::{
    message::{Direction, NumberQuery},
    sending::outcome::is_message_sid,
};
use twilio_edge_platform::{
    clock::now_ms,
    config::{Config, without_password},
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{self, PREFIX},
};
use twilio_edge_store::{
    OutboundMessages, StoreError,
    message_history::{Search, messages::MessageRecord},
};

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
        /// Message id: ms_.., or SM.. or MM.. of Twilio
        id: String,
        #[command(flatten)]
        account: Account,
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
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
}

const STATES: [&str; 8] =
    ["received", "queued", "attempting", "sent", "refused", "unknown", "not_sent", "canceled"];

const COLUMNS: [&str; 9] =
    ["id", "sid", "direction", "from", "to", "state", "status", "error", "created_at"];

const TIMELINE: [&str; 8] =
    ["at", "event", "state", "status", "error", "backend", "attempts", "route"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.verb {
        Verb::List(list) => list.run(globals),
        Verb::Show { id, account } => show(&id, account, globals),
        Verb::Cancel { id } => change(globals, async |messages| cancel(messages, &id).await),
        Verb::Resolve { id, sent, .. } => {
            if sent.as_deref().is_some_and(|sid| !is_message_sid(sid)) {
                return fail("--sent: must be SM or MM and 32 hexadecimal digits");
            }
            change(globals, async |messages| resolve(messages, &id, sent.as_deref()).await)
        }
    }
}

impl List {
    fn run(self, globals: &Globals) -> ExitCode {
        let Some(account) = self.account.clone() else { return self.run_for_all(globals) };
        let List { direction, state, number, to, from, period, status, limit, .. } = self;
        let List { error_code, template, sender, .. } = self;
        let (since_ms, until_ms) = period.bounds();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
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
                ledger::gather(search, async |search| histories.messages(search).await).await
            },
            |found, config| print(&found, config, globals.output()),
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
            Ok(print(&found, config, globals.output()))
        })
    }
}

fn print(found: &[MessageRecord], config: &Config, output: Output) -> ExitCode {
    let errors = match error_table(config) {
        Ok(errors) => errors,
        Err(problem) => return fail(problem),
    };
    let messages = found.iter().map(|record| MessageSummary::of(record, &errors));
    let rows: Vec<_> = messages
        .map(|message| match output {
            Output::Json => ledger::row(&message),
            Output::Table | Output::Tsv => summary_row(&message),
        })
        .collect();
    listing::print(output, &COLUMNS, &rows)
}

/// Returns a summary as a row of a table: the error is its code.
fn summary_row(message: &MessageSummary) -> Map<String, Value> {
    let mut row = ledger::row(message);
    row.insert("error".to_owned(), json!(message.error.as_ref().map(|error| &error.code)));
    row
}

fn show(id: &str, account: Account, globals: &Globals) -> ExitCode {
    let sid = account.account.clone();
    account.query(
        globals,
        async |histories, _, account| match id.starts_with(PREFIX) {
            true => histories.outbound_message(account, id).await,
            false => histories.message(account, id).await,
        },
        |record, config| match (record, error_table(config)) {
            (Some(record), Ok(errors)) => {
                print_one(&Message::of(&record, None, &errors), globals.output())
            }
            (None, _) => fail(format_args!("account {sid} has no message {id}")),
            (_, Err(problem)) => fail(problem),
        },
    )
}

fn print_one(message: &Message, output: Output) -> ExitCode {
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
        Output::Tsv => listing::print(output, &TIMELINE, &timeline),
        Output::Table => {
            listing::print(output, &COLUMNS, &[summary_row(&message.summary)]);
            if let Some(error) = &message.summary.error {
                let remedy = error.remedy.as_deref().unwrap_or_default();
                let reason = error.reason.as_deref().unwrap_or_default();
                listing::write(&format!("\n{}\n", explanation(&error.code, reason, remedy)));
            }
            listing::write("\n");
            listing::print(output, &TIMELINE, &timeline)
        }
    }
}

/// Formats an error as one line.
fn explanation(code: &str, reason: &str, remedy: &str) -> String {
    let text = format!("{code}: {reason}. {remedy}");
    twilio_edge_platform::terminal::line(text.trim_end()).into_owned()
}

async fn cancel(messages: &OutboundMessages, id: &str) -> Result<Result<(), String>, StoreError> {
    let Some(message) = messages.fetch(id, None).await? else { return Ok(Err(no_message(id))) };
    Ok(match sending::cancel(messages, &operator(), &message, now_ms()).await? {
        true => Ok(()),
        false => {
            Err(format!("{id} is {}: only a message that is queued can be canceled", message.state))
        }
    })
}

async fn resolve(
    messages: &OutboundMessages,
    id: &str,
    sent: Option<&str>,
) -> Result<Result<(), String>, StoreError> {
    let Some(message) = messages.fetch(id, None).await? else { return Ok(Err(no_message(id))) };
    Ok(match sending::resolve(messages, &operator(), &message, sent, now_ms()).await? {
        true => Ok(()),
        false => Err(format!("{id} is not unknown: nothing was changed")),
    })
}

fn no_message(id: &str) -> String {
    format!("there is no message {id}: `twilio-edge messages list` shows the ids")
}

fn operator() -> Caller {
    Caller::command_line(&variable("USER").unwrap_or_default())
}

/// Carries out a change of one message.
fn change(
    globals: &Globals,
    act: impl AsyncFnOnce(&OutboundMessages) -> Result<Result<(), String>, StoreError>,
) -> ExitCode {
    with_messages(globals, async |messages, _| {
        Ok(match act(messages).await? {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => fail(problem),
        })
    })
}

/// Opens the store of outbound messages for `act`.
pub(super) fn with_messages(
    globals: &Globals,
    act: impl AsyncFnOnce(&OutboundMessages, &Config) -> Result<ExitCode, StoreError>,
) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let reporting = match event_reporting(&config) {
        Ok(reporting) => reporting,
        Err(problem) => return fail(problem),
    };
    let done = runtime.block_on(async {
        let messages = OutboundMessages::open(&config.database, reporting).await?;
        let done = act(&messages, &config).await;
        messages.close().await;
        done
    });
    match done {
        Ok(code) => code,
        Err(reason) => {
            let database = without_password(config.database.url.expose());
            fail(format_args!("the database {database} {reason}"))
        }
    }
}
