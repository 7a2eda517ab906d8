//! `twilio-edge deliveries`: pending deliveries to sinks, and dead letters, in the database and beside a running sidecar.
//! Changes are recorded in the audit log.

use std::{future::Future, process::ExitCode};

use serde_json::{Map, Value, json};

use super::{
    credentials::variable,
    ledger,
    listing::{self, Output},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::{
    delivery_attempt::{self, DeliveryAttempt},
    window::rfc3339,
};
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::dead_letters::{self, DeadLetterFilter, DecisionResult, PAGE_SIZE},
};
use twilio_edge_store::{
    DeadLetter, DeadLetterAction, DeadLetters, DeliveryState, Outbox, StoreError,
};

const STANDING: [&str; 4] = ["sink", "state", "count", "oldest"];
const SHOWN: [&str; 8] =
    ["id", "sink", "state", "recorded_at", "ended_at", "tries", "delivery", "reason"];
pub(super) const ATTEMPT: [&str; 7] =
    ["sink", "at", "outcome", "status", "latency_ms", "reason", "answer"];
const DEAD: [&str; 7] = ["id", "sink", "event", "given_up_at", "recorded_at", "tries", "reason"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Count pending deliveries and dead letters by sink
    Status,
    /// List dead letters with their errors, the latest first
    List {
        /// Only this sink
        #[arg(long)]
        sink: Option<String>,
        /// Only this account
        #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
        account: Option<String>,
        /// Largest number of dead letters
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Show the deliveries of one webhook, or one delivery, with the latest attempts
    Show {
        /// Id of a webhook (`event_id`), or of a delivery, as `list` shows it
        id: String,
        /// Only of this account
        #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
        account: Option<String>,
    },
    /// Queue dead letters for delivery again
    Retry(Decision),
    /// Discard dead letters for good
    Discard(Decision),
}

/// The account is outside of the group: an account from the environment alone does not select any dead letters.
#[derive(Debug, clap::Args)]
struct Decision {
    #[command(flatten)]
    selection: Selection,
    /// Only dead letters of this account
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Selection {
    /// Dead letter ids, as listed
    #[arg(conflicts_with = "all")]
    ids: Vec<i64>,
    /// All dead letters
    #[arg(long)]
    all: bool,
    /// With --all: only dead letters of this sink
    #[arg(long, requires = "all")]
    sink: Option<String>,
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime
        .block_on(with_outbox(&config, async |outbox| args.verb.act(&outbox, globals).await))
    {
        Ok(code) => code,
        Err(problem) => fail(problem),
    }
}

async fn with_outbox<F: Future<Output = Result<ExitCode, StoreError>>>(
    config: &Config,
    act: impl FnOnce(Outbox) -> F,
) -> Result<ExitCode, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: StoreError| format!("the database {database} {reason}");
    let outbox = Outbox::open(&config.database).await.map_err(failure)?;
    let done = act(outbox.clone()).await;
    outbox.close().await;
    done.map_err(failure)
}

impl Verb {
    async fn act(self, outbox: &Outbox, globals: &Globals) -> Result<ExitCode, StoreError> {
        match self {
            Verb::Status => {
                let rows: Vec<Map<String, Value>> = outbox
                    .delivery_counts()
                    .await?
                    .into_iter()
                    .map(|standing| {
                        object(json!({
                            "sink": standing.sink,
                            "state": standing.state,
                            "count": standing.count,
                            "oldest": rfc3339(standing.oldest_ms),
                        }))
                    })
                    .collect();
                Ok(listing::print(globals.output(), &STANDING, &rows))
            }
            Verb::List { sink, account, limit } => {
                let of = (account.as_deref(), sink.as_deref());
                let found = gather(outbox, of, limit as usize).await?;
                let rows: Vec<Map<String, Value>> = found.iter().map(row).collect();
                Ok(listing::print(globals.output(), &DEAD, &rows))
            }
            Verb::Show { id, account } => show(outbox, &id, account.as_deref(), globals).await,
            Verb::Retry(decision) => decision.carry_out(DeadLetterAction::Retry, outbox).await,
            Verb::Discard(decision) => decision.carry_out(DeadLetterAction::Discard, outbox).await,
        }
    }
}

impl Decision {
    async fn carry_out(
        self,
        fate: DeadLetterAction,
        outbox: &Outbox,
    ) -> Result<ExitCode, StoreError> {
        let user = variable("USER").unwrap_or_else(|| "unknown".into());
        let Selection { ids, all, sink } = self.selection;
        let ids = Some(ids).filter(|_| !all);
        let selection = DeadLetterFilter { ids, sink, account_sid: self.account };
        let by = Caller::command_line(&user);
        let DecisionResult { found, changed, .. } =
            dead_letters::decide(outbox, &by, fate, &selection, usize::MAX).await?;
        let done = match fate {
            DeadLetterAction::Retry => "dead letters were queued again",
            DeadLetterAction::Discard => "dead letters were discarded",
        };
        listing::write(&format!("{changed} of {found} {done}\n"));
        Ok(if changed == found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn gather(
    outbox: &Outbox,
    (account_sid, sink): (Option<&str>, Option<&str>),
    limit: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut found: Vec<DeadLetter> = Vec::new();
    while found.len() < limit {
        let last = found.last().map(|letter| (letter.ended_at_ms, letter.seq));
        let (before_ms, before_seq) = last.unwrap_or((i64::MAX, i64::MAX));
        let most = i64::try_from(PAGE_SIZE.min(limit - found.len())).unwrap_or(i64::MAX);
        let page = DeadLetters { account_sid, sink, before_ms, before_seq, most };
        let page = outbox.dead_letters(page).await?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    Ok(found)
}

/// Prints the deliveries, then their attempts. JSON has the attempts within each delivery.
async fn show(
    outbox: &Outbox,
    id: &str,
    account_sid: Option<&str>,
    globals: &Globals,
) -> Result<ExitCode, StoreError> {
    let event = match id.parse() {
        Ok(seq) => outbox.dead_letter(seq, account_sid).await?.map(|found| found.due.dedupe_key),
        Err(_) => Some(id.to_owned()),
    };
    let mut found = match &event {
        Some(event) => outbox.deliveries_of_event(event, account_sid).await?,
        None => Vec::new(),
    };
    if let Ok(seq) = id.parse::<i64>() {
        found.retain(|delivery| delivery.seq == seq);
    }
    if found.is_empty() {
        let problem =
            format!("{id} has no deliveries; they are deleted some time after they were completed");
        return Ok(fail(problem));
    }
    let deliveries: Vec<Map<String, Value>> = found.iter().map(delivery_row).collect();
    if globals.output() == Output::Json {
        return Ok(listing::print(Output::Json, &[], &deliveries));
    }
    let attempts = found.iter().flat_map(|delivery| {
        delivery_attempt::read(&delivery.attempts).into_iter().map(|attempt| {
            let mut row = attempt_row(attempt);
            row.insert("sink".to_owned(), json!(delivery.sink));
            row
        })
    });
    let attempts: Vec<Map<String, Value>> = attempts.collect();
    let tables = [
        listing::text(globals.output(), &SHOWN, &deliveries),
        listing::text(globals.output(), &ATTEMPT, &attempts),
    ];
    Ok(listing::write(&tables.join("\n")))
}

fn delivery_row(delivery: &DeliveryState) -> Map<String, Value> {
    let attempts = delivery_attempt::read(&delivery.attempts).into_iter().map(attempt_row);
    object(json!({
        "id": delivery.seq,
        "sink": delivery.sink,
        "event": delivery.dedupe_key,
        "delivery": delivery.delivery_id,
        "account_sid": delivery.account_sid,
        "state": delivery.state,
        "recorded_at": rfc3339(delivery.recorded_at_ms),
        "ended_at": delivery.ended_at_ms.and_then(rfc3339),
        "tries": delivery.tries,
        "reason": delivery.reason,
        "attempts": attempts.collect::<Vec<_>>(),
    }))
}

/// Formats one attempt.
pub(super) fn attempt_row(attempt: DeliveryAttempt) -> Map<String, Value> {
    object(json!({
        "at": rfc3339(attempt.at_ms),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "latency_ms": attempt.latency_ms,
        "reason": attempt.reason,
        "answer": attempt.answer,
    }))
}

fn row(letter: &DeadLetter) -> Map<String, Value> {
    object(json!({
        "id": letter.seq,
        "sink": letter.sink,
        "event": letter.dedupe_key,
        "delivery": letter.delivery_id,
        "account_sid": letter.account_sid,
        "given_up_at": rfc3339(letter.ended_at_ms),
        "recorded_at": rfc3339(letter.recorded_at_ms),
        "tries": letter.tries,
        "reason": letter.reason,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
