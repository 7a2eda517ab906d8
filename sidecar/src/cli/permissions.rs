//! Common part of the commands for suppressions and consents: the account, the database, and the spelling of numbers. The
//! commands run beside a sidecar; their changes are recorded in the audit log.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};
use twilio_edge_platform::terminal;

use super::{credentials::variable, event_reporting::event_reporting, ledger, listing};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::{
    address::Address,
    csv_import::{CsvList, ImportContext},
    cursor::Cursor,
    operational_event::EventReporting,
    phone::Region,
    policy::Policies,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::config::{self, Config, without_password};
use twilio_edge_services::access::{
    api_keys::Caller,
    contact_records::ContactRecords,
    permissions::{PAGE_SIZE, Permissions},
};
use twilio_edge_store::{Consents, StoreError, Tenants};

/// Shortest timeout of one database query for an operator, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Largest list that is read, in bytes: some million lines.
const LARGEST: u64 = 1 << 27;

/// Account of the data that a command reads or changes.
#[derive(Debug, clap::Args)]
pub(super) struct Account {
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    pub(super) account: String,
}

/// Spelling of numbers.
#[derive(Debug, clap::Args)]
pub(super) struct Numbers {
    /// Country of numbers without a country code: two letters, as in FR
    #[arg(long)]
    pub(super) region: Option<Region>,
    /// Channel of numbers that do not name one
    #[arg(long)]
    pub(super) channel: Option<String>,
}

/// Failure of a command.
pub(super) enum Failure {
    /// The database failed.
    Store(StoreError),
    /// The input is invalid.
    Given(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl From<String> for Failure {
    fn from(problem: String) -> Failure {
        Failure::Given(problem)
    }
}

impl Numbers {
    /// Reads a contact; also accepts an address that is invalid for new contacts but already known to the account.
    pub(super) async fn person(
        &self,
        permissions: &Permissions,
        account_sid: &str,
        text: &str,
    ) -> Result<Address, Failure> {
        let channel = self.channel.as_deref();
        let person = permissions.resolve_contact(account_sid, text, channel, self.region).await?;
        Ok(person?)
    }

    /// Returns the defaults for the fields that a line of a list omits.
    fn about(&self, account: &Account, now_ms: i64) -> ImportContext {
        ImportContext {
            account_sid: account.account.clone(),
            region: self.region,
            channel: self.channel.clone(),
            known: BTreeSet::new(),
            by: "command line".to_owned(),
            now_ms,
        }
    }
}

impl Account {
    /// Opens the database, runs `act` and prints its result with `show`.
    pub(super) fn work<T>(
        self,
        globals: &Globals,
        act: impl AsyncFnOnce(&Permissions, &Caller, &str) -> Result<T, Failure>,
        show: impl FnOnce(T) -> ExitCode,
    ) -> ExitCode {
        let config = match globals.settings().check() {
            Ok(config) => config,
            Err(problems) => return fail(problems),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(error),
        };
        let user = variable("USER").unwrap_or_else(|| "unknown".into());
        let by = Caller::command_line(&user);
        let reporting = match event_reporting(&config) {
            Ok(reporting) => reporting,
            Err(problem) => return fail(problem),
        };
        let done = runtime.block_on(async {
            let patient = config::Database {
                connect_timeout_ms: config.database.connect_timeout_ms.max(PATIENCE_MS),
                ..config.database.clone()
            };
            let consents = Consents::open(&patient, reporting).await?;
            let policies = policies(&config, &self.account).await?;
            let permissions = Permissions::new(consents.clone(), policies, None);
            let done = act(&permissions, &by, &self.account).await;
            consents.close().await;
            done
        });
        match done {
            Ok(done) => show(done),
            Err(Failure::Given(problem)) => fail(problem),
            Err(Failure::Store(error)) => {
                let database = without_password(config.database.url.expose());
                fail(format_args!("the database {database} {error}"))
            }
        }
    }
}

/// Returns the policy of the account: the configured one with the changes of its tenant profile.
pub(super) async fn policies(config: &Config, account_sid: &str) -> Result<Policies, StoreError> {
    let policies = Policies::new(config.policy.clone());
    let tenants = Tenants::open(&config.database, EventReporting::default()).await?;
    let tenant = tenants.get(account_sid).await;
    tenants.close().await;
    if let Some(Ok(own)) = tenant?.map(|tenant| config.policy.with(&tenant.profile.policy)) {
        policies.replace([(account_sid.to_owned(), own)].into());
    }
    Ok(policies)
}

/// Reads a whole list; `-` is standard input.
fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes).map_err(problem)?;
    } else {
        let file = File::open(path).map_err(problem)?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(problem)?;
    }
    match bytes.len() as u64 {
        ..=LARGEST => Ok(bytes),
        _ => Err(format!("{}: is larger than {LARGEST} bytes; split it", path.display())),
    }
}

/// Returns the list and the number of its valid lines, if the list is accepted; reports the invalid lines. Addresses that the
/// account already knows are good.
async fn accepted<C: AsRef<[u8]>, T>(
    permissions: &Permissions,
    account_sid: &str,
    list: Result<CsvList<C, T>, String>,
    partial: bool,
) -> Result<(CsvList<C, T>, usize), Failure> {
    let mut list = list?;
    let mut checked = list.check();
    if checked.invalid_lines > 0 {
        let known = permissions.known_addresses(account_sid, list.unparsed_addresses()).await?;
        list = list.with_known(known);
        checked = list.check();
    }
    match checked.error_summary() {
        Some(complaint) if !partial => Err(Failure::Given(format!(
            "{complaint}\nnothing was imported; correct these lines, or skip them with --partial"
        ))),
        complaint => {
            complaint
                .iter()
                .for_each(|line| terminal::print_error(&format!("twilio-edge: skipped: {line}")));
            Ok((list, checked.valid))
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// File to import; - reads standard input
    file: PathBuf,
    /// Skip bad lines; without it, one bad line refuses the list
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    spelling: Numbers,
    #[command(flatten)]
    account: Account,
}

impl Import {
    /// Imports a list, and prints the number of its lines and of new entries.
    pub(super) fn run<R: ContactRecords>(self, globals: &Globals) -> ExitCode {
        let Import { file, partial, spelling, account } = self;
        let now_ms = now_ms();
        let about = spelling.about(&account, now_ms);
        let list = contents(&file).and_then(|csv| R::parse(csv, about));
        account.work(
            globals,
            async |permissions, by, account| {
                let (list, lines) = accepted(permissions, account, list, partial).await?;
                Ok((lines, R::import(permissions, by, account, list.valid_rows(), now_ms).await?))
            },
            |(lines, added)| listing::write(&format!("{lines} lines, {added} new {}\n", R::NAME)),
        )
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    account: Account,
}

impl Export {
    /// Prints a list as CSV.
    pub(super) fn run<R: ContactRecords>(self, globals: &Globals) -> ExitCode {
        self.account.work(
            globals,
            async |permissions, _, account| {
                listing::write_data(&R::header());
                let most = i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX);
                let mut after = None;
                loop {
                    let page = R::export(permissions, account, after.as_ref(), most).await?;
                    listing::write_data(&page.text);
                    if page.last.is_none() {
                        return Ok(());
                    }
                    after = page.last;
                }
            },
            |()| ExitCode::SUCCESS,
        )
    }
}

/// Iterates over a list page by page up to a limit: `ask` gets the last row and the page size, `page` gets the rows.
pub(super) async fn each_page<T>(
    mut limit: usize,
    mut ask: impl AsyncFnMut(Option<&Cursor>, i64) -> Result<Vec<T>, StoreError>,
    place: impl Fn(&T) -> Cursor,
    mut page: impl FnMut(Vec<T>),
) -> Result<(), StoreError> {
    let mut after = None;
    while limit > 0 {
        let most = i64::try_from(limit.min(PAGE_SIZE)).unwrap_or(i64::MAX);
        let found = ask(after.as_ref(), most).await?;
        let Some(last) = found.last() else { break };
        after = Some(place(last));
        limit = limit.saturating_sub(found.len());
        page(found);
    }
    Ok(())
}
