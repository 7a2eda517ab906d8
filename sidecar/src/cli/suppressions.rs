//! `twilio-edge suppressions`: numbers that must not receive messages: add, remove, list, import and export.

use std::process::ExitCode;

use super::{
    globals::Globals,
    ledger, listing,
    permissions::{Account, Export, Import, Numbers, each_page},
};
use crate::cli::failure::fail;
use twilio_edge_api::views::SuppressionView;
use twilio_edge_domain::{
    cursor::Cursor,
    suppression::{NewSuppression, Source, Suppression, parse_expiry},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::contact_records::SuppressionRecords;
use twilio_edge_store::SuppressionsPage;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Suppress numbers from now on
    Add {
        /// Numbers in any common spelling: "+1 415 555 2671", whatsapp:+14155552671
        #[arg(required = true)]
        numbers: Vec<String>,
        /// Time at which the suppression ends by itself: a day (UTC), or a time with its zone
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        #[command(flatten)]
        spelling: Numbers,
        #[command(flatten)]
        account: Account,
    },
    /// End every suppression of a number, on one channel or all
    Remove {
        /// Number in any common spelling
        number: String,
        #[command(flatten)]
        spelling: Numbers,
        #[command(flatten)]
        account: Account,
    },
    /// List suppressions, ordered by number
    List(Filter),
    /// Suppress every number of a list: CSV with a column `number` and, where the number does not name it, `channel`;
    /// the column `expires_at` is optional
    Import(Import),
    /// Print the suppressions in effect as CSV
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only this number
    #[arg(long)]
    number: Option<String>,
    /// Only this source: keyword, opt_out_type, callback, administrator, application, import
    #[arg(long, value_parser = |text: &str| Source::try_from(text.to_owned()))]
    source: Option<Source>,
    /// Include suppressions that have ended
    #[arg(long)]
    ended: bool,
    /// Largest number of suppressions
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    account: Account,
}

const COLUMNS: [&str; 8] =
    ["number", "channel", "source", "error_code", "in_force", "since", "expires_at", "changed_by"];

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.verb {
        Verb::Add { numbers, expires_at, spelling, account } => {
            let now_ms = now_ms();
            account.work(
            globals,
                async |permissions, by, account| {
                    let expiry = |text: &str| {
                        parse_expiry(text, now_ms).map_err(|problem| format!("--expires-at: {problem}"))
                    };
                    let expires_at_ms = expires_at.as_deref().map(expiry).transpose()?;
                    let mut people = Vec::new();
                    for number in &numbers {
                        let address = spelling.person(permissions, account, number).await?;
                        people.push(NewSuppression { address, expires_at_ms });
                    }
                    let source = Source::Administrator;
                    permissions.suppress(by, account, &people, source, now_ms).await?;
                    let numbers: Vec<&str> =
                        people.iter().map(|new| new.address.number.as_str()).collect();
                    Ok(permissions.suppressions.of_numbers(account, &numbers).await?)
                },
                |found| show(globals, &found),
            )
        }
        Verb::Remove { number, spelling, account } => {
            account.work(
            globals,
                async |permissions, by, account| {
                    let person = spelling.person(permissions, account, &number).await?;
                    let says = number.contains(':') || spelling.channel.is_some();
                    let (channel, now_ms) = (says.then_some(person.channel.as_str()), now_ms());
                    let number = &person.number;
                    Ok(permissions.unsuppress(by, account, number, channel, now_ms).await?)
                },
                |ended| match ended.is_empty() {
                    true => fail("no suppression of that number is in effect on that channel: `twilio-edge suppressions list --number .. --ended` shows all of them"),
                    false => show(globals, &ended),
                },
            )
        }
        Verb::List(filter) => run_list(filter, globals),
        Verb::Import(import) => import.run::<SuppressionRecords>(globals),
        Verb::Export(export) => export.run::<SuppressionRecords>(globals),
    }
}

fn run_list(filter: Filter, globals: &Globals) -> ExitCode {
    let Filter { number, source, ended, limit, spelling, account } = filter;
    let channel = spelling.channel.as_deref();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let now_ms = now_ms();
    account.work(
        globals,
        async |permissions, _, account| {
            let suppressions = &permissions.suppressions;
            let policy = permissions.policies.of(account);
            if let Some(number) = number {
                let number = spelling.person(permissions, account, &number).await?.number;
                let keys = permissions.consents.contacts().keys(account, &number).await?;
                let numbers = keys.all();
                let mut found = suppressions.of_numbers(account, &numbers).await?;
                found.retain(|known| {
                    (ended || known.is_in_force(now_ms))
                        && source.is_none_or(|source| source == known.source)
                        && channel.is_none_or(|channel| {
                            known.holds_for(&known.address.number, channel, &policy)
                        })
                });
                return Ok(found);
            }
            let mut all = Vec::new();
            let ask = async |after: Option<&Cursor>, most| {
                let page = SuppressionsPage {
                    account_sid: account,
                    source,
                    channels: channel.map(|channel| policy.channels_with(channel).collect()),
                    ended,
                    now_ms,
                    after,
                    most,
                };
                suppressions.list(&page).await
            };
            each_page(limit, ask, Cursor::of_suppression, |found| all.extend(found)).await?;
            Ok(all)
        },
        |found| show(globals, &found),
    )
}

fn show(globals: &Globals, found: &[Suppression]) -> ExitCode {
    let now_ms = now_ms();
    let rows: Vec<_> =
        found.iter().map(|known| ledger::row(&SuppressionView::of(known, now_ms))).collect();
    listing::print(globals.output(), &COLUMNS, &rows)
}
