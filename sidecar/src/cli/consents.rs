//! `twilio-edge consents`: what people agreed to, with the evidence: recorded, taken back, listed, and exchanged as lists.

use std::{path::PathBuf, process::ExitCode};

use super::{
    fail, ledger,
    listing::{self, Format},
    permissions::{Numbers, Place, TOGETHER, accepted, contents},
};
use crate::{
    domain::{
        address::Address,
        consent::{self, Consent, State},
        cursor::Cursor,
        period, phone,
        policy::Category,
    },
    http::now_ms,
    lists::{self, About, ConsentShown},
    store::{Consents, ConsentsPage, StoreError},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Record that a person agreed
    Record(Evidence),
    /// Record that a person took it back
    Withdraw(Evidence),
    /// List what counts, in the order of numbers
    List(List),
    /// Record everything on a list: CSV with columns number, category, source and, where there is something to say,
    /// channel, state, at, proof, ip, user_agent
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
    /// Print everything that was ever said, as CSV
    Export {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Evidence {
    /// In any sensible spelling: "+1 415 555 2671", whatsapp:+14155552671
    number: String,
    /// To which messages: marketing, utility, authentication, service
    #[arg(long, value_parser = category)]
    category: Category,
    /// Where they said so: a form, a call, a contract
    #[arg(long)]
    source: String,
    /// When: a day (UTC) or a time as in 2026-11-23T12:00:00Z; now if not said
    #[arg(long, value_name = "TIME", value_parser = period::instant)]
    at: Option<i64>,
    /// What they were shown, and said
    #[arg(long)]
    proof: Option<String>,
    /// The address they came from
    #[arg(long)]
    ip: Option<String>,
    /// What they used
    #[arg(long)]
    user_agent: Option<String>,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only of this number
    #[arg(long)]
    number: Option<String>,
    /// Only of this category
    #[arg(long, value_parser = category)]
    category: Option<Category>,
    /// Everything that was ever said
    #[arg(long)]
    history: bool,
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
    ["number", "channel", "category", "state", "at", "source", "recorded_by"];

fn category(text: &str) -> Result<Category, String> {
    Category::try_from(text.to_owned())
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Record(evidence) => record(evidence, State::Granted),
        Verb::Withdraw(evidence) => record(evidence, State::Withdrawn),
        Verb::List(list) => run_list(list),
        Verb::Import { file, partial, spelling, place } => {
            let (by, now_ms) = ("command line", now_ms());
            let about = About { account_sid: &place.account, region: spelling.region, by, now_ms };
            let list = contents(&file).and_then(|csv| lists::read_consents(&csv, &about));
            let list = match accepted(list, partial) {
                Ok(list) => list,
                Err(problem) => return fail(problem),
            };
            place.work(
                async |permissions, by, account| {
                    let mut added = 0;
                    for some in list.good.chunks(TOGETHER) {
                        added += permissions.record(by, account, some, true, now_ms).await?;
                    }
                    Ok(format!("{} lines, {added} new consents\n", list.good.len()))
                },
                |told| listing::write(&told),
            )
        }
        Verb::Export { place } => place.work(
            async |permissions, _, account| {
                let names = lists::written([lists::CONSENT_COLUMNS.map(str::to_owned)]);
                listing::write(&String::from_utf8_lossy(&names));
                each_page(&permissions.consents, account, (None, None), true, usize::MAX, |found| {
                    let text = lists::written(found.iter().map(lists::consent_line));
                    listing::write(&String::from_utf8_lossy(&text));
                })
                .await
            },
            |()| ExitCode::SUCCESS,
        ),
    }
}

fn record(evidence: Evidence, state: State) -> ExitCode {
    let Evidence { number, category, source, at, proof, ip, user_agent, spelling, place, format } =
        evidence;
    let now_ms = now_ms();
    let address = match Address::given(&number, spelling.channel.as_deref(), spelling.region) {
        Ok(address) => address,
        Err(problem) => return fail(problem),
    };
    let consent = Consent {
        account_sid: place.account.clone(),
        address,
        category,
        state,
        at_ms: at.unwrap_or(now_ms),
        source,
        proof,
        ip,
        user_agent,
        recorded_at_ms: now_ms,
        recorded_by: "command line".to_owned(),
    };
    if let Err(problem) = consent.check(now_ms) {
        return fail(format_args!("--{}", problem.replacen("user_agent:", "user-agent:", 1)));
    }
    let said = std::slice::from_ref(&consent);
    place.work(
        async |permissions, by, account| permissions.record(by, account, said, false, now_ms).await,
        |_| show(&format, said),
    )
}

fn run_list(list: List) -> ExitCode {
    let List { number, category, history, limit, spelling, place, format } = list;
    let channel = spelling.channel.as_deref();
    let number = number.map(|number| Address::given(&number, channel, spelling.region));
    let number = match number.transpose() {
        Ok(number) => number.map(|address| address.number),
        Err(problem) => return fail(problem),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    place.work(
        async |permissions, _, account| {
            if let Some(number) = number {
                let spellings = phone::spellings(&number);
                let numbers: Vec<&str> = spellings.iter().map(AsRef::as_ref).collect();
                let mut found = permissions.consents.of_numbers(account, &numbers).await?;
                if !history {
                    found = consent::current_of_each(found);
                }
                found.retain(|said| {
                    category.is_none_or(|category| category == said.category)
                        && channel.is_none_or(|channel| channel == said.address.channel)
                });
                found.truncate(limit);
                return Ok(found);
            }
            let mut all = Vec::new();
            let add = |found: &[Consent]| all.extend_from_slice(found);
            each_page(&permissions.consents, account, (channel, category), history, limit, add)
                .await?;
            Ok(all)
        },
        |found| show(&format, &found),
    )
}

/// Walks over an account's, up to a limit.
async fn each_page(
    consents: &Consents,
    account_sid: &str,
    (channel, category): (Option<&str>, Option<Category>),
    history: bool,
    mut limit: usize,
    mut page: impl FnMut(&[Consent]),
) -> Result<(), StoreError> {
    let mut after = None;
    while limit > 0 {
        let most = i64::try_from(limit.min(TOGETHER)).unwrap_or(i64::MAX);
        let asked =
            ConsentsPage { account_sid, channel, category, history, after: after.as_ref(), most };
        let found = consents.list(&asked).await?;
        let Some(last) = found.last() else { break };
        after = Some(Cursor::of_consent(last));
        limit = limit.saturating_sub(found.len());
        page(&found);
    }
    Ok(())
}

fn show(format: &Format, found: &[Consent]) -> ExitCode {
    let rows: Vec<_> =
        found.iter().map(ConsentShown::of).map(|shown| ledger::row(&shown)).collect();
    listing::print(format.output(), &COLUMNS, &rows)
}
