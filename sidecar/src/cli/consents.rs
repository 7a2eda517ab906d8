//! `twilio-edge consents`: consents of contacts with their evidence: record, withdraw, list, import and export.

use std::process::ExitCode;

use super::{
    globals::Globals,
    ledger, listing,
    permissions::{Account, Export, Failure, Import, Numbers, each_page},
};
use twilio_edge_api::views::ConsentView;
use twilio_edge_domain::{
    address::Address,
    consent::{self, Consent, State},
    cursor::Cursor,
    period,
    policy::Category,
    suppression::EVERY_CHANNEL,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::{contact_records::ConsentRecords, permissions::Permissions};
use twilio_edge_store::ConsentsPage;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Record a consent
    Record(Evidence),
    /// Record the withdrawal of a consent
    Withdraw(Evidence),
    /// List the consents in effect, ordered by number
    List(Filter),
    /// Import a list: CSV with columns number, category, source and, optionally, channel, state, at, proof, ip, user_agent
    Import(Import),
    /// Print all recorded events as CSV
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Evidence {
    /// Number in any common spelling: "+1 415 555 2671", whatsapp:+14155552671
    number: String,
    /// Category of the messages: marketing, utility, authentication, service
    #[arg(long, value_parser = category)]
    category: Category,
    /// Origin of the consent: a form, a call, a contract
    #[arg(long)]
    source: String,
    /// Time of the consent: a day (UTC) or a time as in 2026-11-23T12:00:00Z; default: now
    #[arg(long, value_name = "TIME", value_parser = period::instant)]
    at: Option<i64>,
    /// Text that the contact saw, and the answer
    #[arg(long)]
    proof: Option<String>,
    /// IP address of the contact
    #[arg(long)]
    ip: Option<String>,
    /// User agent of the contact
    #[arg(long)]
    user_agent: Option<String>,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    account: Account,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only this number
    #[arg(long)]
    number: Option<String>,
    /// Only this category
    #[arg(long, value_parser = category)]
    category: Option<Category>,
    /// Show all recorded events
    #[arg(long)]
    history: bool,
    /// Largest number of consents
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    account: Account,
}

const COLUMNS: [&str; 7] =
    ["number", "channel", "category", "state", "at", "source", "recorded_by"];

fn category(text: &str) -> Result<Category, String> {
    Category::try_from(text.to_owned())
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.verb {
        Verb::Record(evidence) => record(evidence, State::Granted, globals),
        Verb::Withdraw(evidence) => record(evidence, State::Withdrawn, globals),
        Verb::List(filter) => run_list(filter, globals),
        Verb::Import(import) => import.run::<ConsentRecords>(globals),
        Verb::Export(export) => export.run::<ConsentRecords>(globals),
    }
}

fn record(evidence: Evidence, state: State, globals: &Globals) -> ExitCode {
    let Evidence { number, category, source, at, proof, ip, user_agent, spelling, account } =
        evidence;
    let now_ms = now_ms();
    account.work(
        globals,
        async |permissions, by, account| {
            let consent = Consent {
                account_sid: account.to_owned(),
                address: address(&spelling, permissions, account, &number).await?,
                category,
                state,
                at_ms: at.unwrap_or(now_ms),
                source,
                proof,
                ip,
                user_agent,
                recorded_at_ms: now_ms,
                recorded_by: "command line".to_owned(),
                stored_id: None,
            };
            let option = |problem: String| {
                format!("--{}", problem.replacen("user_agent:", "user-agent:", 1))
            };
            consent.check(now_ms).map_err(option)?;
            permissions.record(by, account, &consent, now_ms).await?;
            Ok(consent)
        },
        |consent| show(globals, std::slice::from_ref(&consent)),
    )
}

/// Reads the contact of a consent, which always applies to one channel.
async fn address(
    spelling: &Numbers,
    permissions: &Permissions,
    account_sid: &str,
    number: &str,
) -> Result<Address, Failure> {
    let address = spelling.person(permissions, account_sid, number).await?;
    match address.channel == EVERY_CHANNEL {
        true => {
            Err(format!("{EVERY_CHANNEL:?} is not a channel such as sms, whatsapp or messenger")
                .into())
        }
        false => Ok(address),
    }
}

fn run_list(filter: Filter, globals: &Globals) -> ExitCode {
    let Filter { number, category, history, limit, spelling, account } = filter;
    let channel = spelling.channel.as_deref();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    account.work(
        globals,
        async |permissions, _, account| {
            if let Some(number) = number {
                let number = address(&spelling, permissions, account, &number).await?.number;
                let keys = permissions.consents.contacts().keys(account, &number).await?;
                let numbers = keys.all();
                let mut found = permissions.consents.of_numbers(account, &numbers).await?;
                if !history {
                    found = consent::current_of_each(found);
                }
                found.retain(|consent| {
                    category.is_none_or(|category| category == consent.category)
                        && channel.is_none_or(|channel| channel == consent.address.channel)
                });
                found.truncate(limit);
                return Ok(found);
            }
            let mut all = Vec::new();
            let ask = async |after: Option<&Cursor>, most| {
                let account_sid = account;
                let page = ConsentsPage { account_sid, channel, category, history, after, most };
                permissions.consents.list(&page).await
            };
            each_page(limit, ask, Cursor::of_consent, |found| all.extend(found)).await?;
            Ok(all)
        },
        |found| show(globals, &found),
    )
}

fn show(globals: &Globals, found: &[Consent]) -> ExitCode {
    let rows: Vec<_> = found.iter().map(ConsentView::of).map(|view| ledger::row(&view)).collect();
    listing::print(globals.output(), &COLUMNS, &rows)
}
