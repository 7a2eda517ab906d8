//! `twilio-edge suppressions`: who must not be written to: added, ended, listed, and exchanged as lists.

use std::{path::PathBuf, process::ExitCode};

use super::{
    fail, ledger,
    listing::{self, Format},
    permissions::{Numbers, Place, TOGETHER, accepted, contents},
};
use crate::{
    domain::{
        address::Address,
        cursor::Cursor,
        phone,
        suppression::{EVERY_CHANNEL, Source, Suppression},
    },
    http::now_ms,
    lists::{self, About, SuppressionShown},
    store::{StoreError, Suppressions, SuppressionsPage},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Suppress numbers, from now on
    Add {
        /// In any sensible spelling: "+1 415 555 2671", whatsapp:+14155552671
        #[arg(required = true)]
        numbers: Vec<String>,
        #[command(flatten)]
        spelling: Numbers,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        format: Format,
    },
    /// End every suppression of a number, on one channel or all
    Remove {
        /// In any sensible spelling
        number: String,
        #[command(flatten)]
        spelling: Numbers,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        format: Format,
    },
    /// List them, in the order of numbers
    List(List),
    /// Suppress everybody on a list: CSV with a column `number` and, where the number does not say, `channel`
    Import {
        /// The list; - is standard input
        file: PathBuf,
        /// Leave bad lines out; without, one bad line refuses the list
        #[arg(long)]
        partial: bool,
        #[command(flatten)]
        spelling: Numbers,
        #[command(flatten)]
        place: Place,
    },
    /// Print those that hold, as CSV
    Export {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only of this number
    #[arg(long)]
    number: Option<String>,
    /// Only from this source: keyword, opt_out_type, callback, administrator, application, import
    #[arg(long, value_parser = |text: &str| Source::try_from(text.to_owned()))]
    source: Option<Source>,
    /// Also those that do not hold any more
    #[arg(long)]
    ended: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: Format,
}

const COLUMNS: [&str; 7] =
    ["number", "channel", "source", "error_code", "in_force", "since", "changed_by"];

pub(super) fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Add { numbers, spelling, place, format } => {
            let people: Result<Vec<Address>, String> =
                numbers.iter().map(|number| person(number, &spelling)).collect();
            let people = match people {
                Ok(people) => people,
                Err(problem) => return fail(problem),
            };
            place.work(
                async |permissions, by, account| {
                    let source = Source::Administrator;
                    permissions.suppress(by, account, &people, source, now_ms()).await?;
                    let numbers: Vec<&str> = people.iter().map(|a| a.number.as_str()).collect();
                    permissions.suppressions.of_numbers(account, &numbers).await
                },
                |found| show(&format, &found),
            )
        }
        Verb::Remove { number, spelling, place, format } => {
            let person = match person(&number, &spelling) {
                Ok(person) => person,
                Err(problem) => return fail(problem),
            };
            let says = number.contains(':') || spelling.channel.is_some();
            let channel = says.then_some(person.channel.as_str());
            place.work(
                async |permissions, by, account| {
                    permissions.unsuppress(by, account, &person.number, channel, now_ms()).await
                },
                |ended| match ended.is_empty() {
                    true => fail("no suppression of that number holds there: `twilio-edge suppressions list --number .. --ended` tells what is known of it"),
                    false => show(&format, &ended),
                },
            )
        }
        Verb::List(list) => run_list(list),
        Verb::Import { file, partial, spelling, place } => {
            let (by, now_ms) = ("command line", now_ms());
            let about = About { account_sid: &place.account, region: spelling.region, by, now_ms };
            let list = contents(&file).and_then(|csv| lists::read_suppressions(&csv, &about));
            let list = match accepted(list, partial) {
                Ok(list) => list,
                Err(problem) => return fail(problem),
            };
            place.work(
                async |permissions, by, account| {
                    let mut added = 0;
                    for some in list.good.chunks(TOGETHER) {
                        let new =
                            permissions.suppress(by, account, some, Source::Import, now_ms).await?;
                        added += new.len();
                    }
                    Ok(format!("{} lines, {added} new suppressions\n", list.good.len()))
                },
                |told| listing::write(&told),
            )
        }
        Verb::Export { place } => place.work(
            async |permissions, _, account| {
                let names = lists::written([lists::SUPPRESSION_COLUMNS.map(str::to_owned)]);
                listing::write(&String::from_utf8_lossy(&names));
                each_page(
                    &permissions.suppressions,
                    account,
                    None,
                    None,
                    false,
                    usize::MAX,
                    |found| {
                        let text = lists::written(found.iter().map(lists::suppression_line));
                        listing::write(&String::from_utf8_lossy(&text));
                    },
                )
                .await
            },
            |()| ExitCode::SUCCESS,
        ),
    }
}

fn run_list(list: List) -> ExitCode {
    let List { number, source, ended, limit, spelling, place, format } = list;
    let number = match number.map(|number| person(&number, &spelling)).transpose() {
        Ok(number) => number.map(|person| person.number),
        Err(problem) => return fail(problem),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let channel = spelling.channel.as_deref();
    place.work(
        async |permissions, _, account| {
            let suppressions = &permissions.suppressions;
            if let Some(number) = number {
                let spellings = phone::spellings(&number);
                let numbers: Vec<&str> = spellings.iter().map(AsRef::as_ref).collect();
                let mut found = suppressions.of_numbers(account, &numbers).await?;
                found.retain(|known| {
                    (ended || known.in_force)
                        && source.is_none_or(|source| source == known.source)
                        && channel.is_none_or(|channel| known.address.channel == channel)
                });
                return Ok(found);
            }
            let mut all = Vec::new();
            let add = |found: &[Suppression]| all.extend_from_slice(found);
            each_page(suppressions, account, source, channel, ended, limit, add).await?;
            Ok(all)
        },
        |found| show(&format, &found),
    )
}

/// Walks over an account's, up to a limit.
async fn each_page(
    suppressions: &Suppressions,
    account_sid: &str,
    source: Option<Source>,
    channel: Option<&str>,
    ended: bool,
    mut limit: usize,
    mut page: impl FnMut(&[Suppression]),
) -> Result<(), StoreError> {
    let mut after = None;
    while limit > 0 {
        let most = i64::try_from(limit.min(TOGETHER)).unwrap_or(i64::MAX);
        let asked =
            SuppressionsPage { account_sid, source, channel, ended, after: after.as_ref(), most };
        let found = suppressions.list(&asked).await?;
        let Some(last) = found.last() else { break };
        after = Some(Cursor::of_suppression(last));
        limit = limit.saturating_sub(found.len());
        page(&found);
    }
    Ok(())
}

fn person(number: &str, spelling: &Numbers) -> Result<Address, String> {
    match spelling.channel.as_deref() {
        Some(EVERY_CHANNEL) => {
            let address = Address::given(number, None, spelling.region)?;
            Ok(Address { channel: EVERY_CHANNEL.to_owned(), ..address })
        }
        channel => Address::given(number, channel, spelling.region),
    }
}

fn show(format: &Format, found: &[Suppression]) -> ExitCode {
    let rows: Vec<_> =
        found.iter().map(SuppressionShown::of).map(|shown| ledger::row(&shown)).collect();
    listing::print(format.output(), &COLUMNS, &rows)
}
