//! Ledger access of the read-only commands: the account, the database, and the spelling of numbers. It reads beside the
//! sidecar that writes.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::{
    message::NumberQuery, sending::errors::ErrorTable, tenant::is_account_sid,
};
use twilio_edge_platform::config::{self, Config, without_password};
use twilio_edge_services::outbound::sending;
use twilio_edge_store::{
    StoreError,
    message_history::{MessageHistory, Page, Search},
};

/// Shortest timeout of one database query for an operator, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Account of the data that a command shows.
#[derive(Debug, clap::Args)]
pub(super) struct Account {
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = account)]
    pub(super) account: String,
}

/// Reads an account SID from the command line.
pub(super) fn account(text: &str) -> Result<String, String> {
    match is_account_sid(text) {
        true => Ok(text.to_owned()),
        false => Err("must be AC and 32 lower-case hexadecimal digits".to_owned()),
    }
}

/// Reads a number from the command line.
pub(super) fn number(text: &str) -> Result<NumberQuery, String> {
    NumberQuery::parse_query(text).ok_or_else(|| {
        "must be an address such as +15551234567, or one on a channel: whatsapp:+15551234567"
            .to_owned()
    })
}

impl Account {
    /// Opens the ledger, runs `query` and prints the result with `show`.
    pub(super) fn query<T>(
        self,
        globals: &Globals,
        query: impl AsyncFnOnce(&MessageHistory, &Config, &str) -> Result<T, StoreError>,
        show: impl FnOnce(T, &Config) -> ExitCode,
    ) -> ExitCode {
        let config = match globals.settings().check() {
            Ok(config) => config,
            Err(problems) => return fail(problems),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(error),
        };
        let answer = runtime.block_on(async {
            // Only the operator waits for this query.
            let patient = config::Database {
                read_timeout_ms: config.database.read_timeout_ms.max(PATIENCE_MS),
                ..config.database.clone()
            };
            let histories = MessageHistory::open(&patient).await?;
            query(&histories, &config, &self.account).await
        });
        match answer {
            Ok(answer) => show(answer, &config),
            Err(error) => {
                let database = without_password(config.database.url.expose());
                fail(format_args!("the database {database} {error}"))
            }
        }
    }
}

/// Collects the items of every page, up to the limit. A page has at most `page_size` items.
pub(super) async fn gather<T>(
    mut search: Search,
    page_size: usize,
    mut ask: impl AsyncFnMut(&Search) -> Result<Page<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let limit = search.limit;
    let mut found = Vec::new();
    search.limit = limit.min(page_size);
    loop {
        let page = ask(&search).await?;
        found.extend(page.found);
        search.limit = limit.saturating_sub(found.len()).min(page_size);
        if page.next.is_none() || search.limit == 0 {
            return Ok(found);
        }
        search.after = page.next;
    }
}

/// Returns the meaning of Twilio's error codes, with the operator's changes.
pub(super) fn error_table(config: &Config) -> Result<ErrorTable, String> {
    let file = &config.sending.errors_file;
    sending::errors(file)
        .map_err(|problems| format!("sending.errors_file: {file}: {}", problems.join("; ")))
}

/// Returns a view as a row of a table or as JSON.
pub(super) fn row(shown: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(shown) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
