//! `twilio-edge refused`: requests that filters refused, by their cause, in the database and beside a running sidecar.
//! `twilio-edge explain` examines a request from a file.

use std::{fmt::Write as _, future::Future, process::ExitCode};

use serde_json::Value;

use super::{
    ledger,
    listing::{self, Output},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_api::views::{ExplainedRequest, RefusalGroup, RefusedRequestSummary};
use twilio_edge_domain::{cursor::Cursor, refused_request::RefusalKind};
use twilio_edge_platform::{
    config::{Config, without_password},
    terminal::line,
};
use twilio_edge_store::{
    RefusedGroup, RefusedRequests, RefusedRequestsPage, StoreError, StoredRefusedRequest,
};

const GROUPS: [&str; 6] = ["id", "kind", "cause", "last_at", "summary", "remedy"];
const REQUESTS: [&str; 7] = ["id", "at", "cause", "reason", "method", "path", "message_sid"];

/// Rows of one read.
const PAGE_SIZE: i64 = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the causes, the one with the latest request first
    List(List),
    /// Show the latest requests of one cause
    Show {
        /// Id of a cause, as `list` shows it
        group: String,
    },
    /// Explain one request: what Twilio signed, and what to change
    Explain {
        /// Id of a request, as `show` lists it
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only this kind: misconfiguration, stranger or unexamined
    #[arg(long, value_parser = kind)]
    kind: Option<RefusalKind>,
    /// Only requests that a key of this account signed
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
    /// Largest number of causes
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

fn kind(text: &str) -> Result<RefusalKind, String> {
    text.parse()
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
    let done = with_store(&config, async |store| args.verb.act(&store, globals).await);
    match runtime.block_on(done) {
        Ok(code) => code,
        Err(problem) => fail(problem),
    }
}

async fn with_store<F: Future<Output = Result<ExitCode, StoreError>>>(
    config: &Config,
    act: impl FnOnce(RefusedRequests) -> F,
) -> Result<ExitCode, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: StoreError| format!("the database {database} {reason}");
    let store = RefusedRequests::open(&config.database).await.map_err(failure)?;
    let done = act(store.clone()).await;
    store.close().await;
    done.map_err(failure)
}

impl Verb {
    async fn act(self, store: &RefusedRequests, globals: &Globals) -> Result<ExitCode, StoreError> {
        match self {
            Verb::List(list) => {
                let groups = list.gather(store).await?;
                let rows: Vec<_> =
                    groups.into_iter().map(|group| ledger::row(&RefusalGroup::of(group))).collect();
                Ok(listing::print(globals.output(), &GROUPS, &rows))
            }
            Verb::Show { group } => {
                let page = RefusedRequestsPage {
                    group_id: Some(&group),
                    most: PAGE_SIZE,
                    ..RefusedRequestsPage::default()
                };
                let found = store.requests(&page).await?;
                if found.is_empty() {
                    return Ok(fail(format!("{group} has no stored requests")));
                }
                let summary = |request| ledger::row(&RefusedRequestSummary::of(request));
                let rows: Vec<_> = found.into_iter().map(summary).collect();
                Ok(listing::print(globals.output(), &REQUESTS, &rows))
            }
            Verb::Explain { id } => {
                let Some(found) = store.find(&id, None).await? else {
                    return Ok(fail(format!("there is no refused request {id}")));
                };
                Ok(explain(found, globals))
            }
        }
    }
}

impl List {
    async fn gather(&self, store: &RefusedRequests) -> Result<Vec<RefusedGroup>, StoreError> {
        let limit = self.limit as usize;
        let mut found: Vec<RefusedGroup> = Vec::new();
        while found.len() < limit {
            let after = found
                .last()
                .map(|last| Cursor::RefusedGroup { at_ms: last.last_at_ms, id: last.id.clone() });
            let page = RefusedRequestsPage {
                account_sid: self.account.as_deref(),
                kind: self.kind,
                after: after.as_ref(),
                most: PAGE_SIZE.min(i64::try_from(limit - found.len()).unwrap_or(PAGE_SIZE)),
                ..RefusedRequestsPage::default()
            };
            let page = store.groups(&page).await?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        Ok(found)
    }
}

fn explain(found: StoredRefusedRequest, globals: &Globals) -> ExitCode {
    let request = ExplainedRequest::of(found);
    let json = serde_json::to_value(&request).unwrap_or_default();
    if globals.output() == Output::Json {
        let text = serde_json::to_string_pretty(&json).unwrap_or_default();
        return listing::write(&format!("{text}\n"));
    }
    listing::write(&text(&request, &json))
}

/// Returns the explanation as sentences.
fn text(request: &ExplainedRequest, json: &Value) -> String {
    let field =
        |name: &str| line(json.get(name).and_then(Value::as_str).unwrap_or("-")).into_owned();
    let [at, method, path, authority, reason] =
        ["at", "method", "path", "authority", "reason"].map(field);
    let mut text =
        format!("{at}  {method} {path} at {authority}\nThe filter refused it: {reason}.\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Cause: {} ({})", field("cause"), field("kind"));
    let _ = writeln!(text, "  The request {}.", line(request.finding.trim_end_matches('.')));
    let _ = writeln!(text, "  To do: {}", line(&request.remedy));
    let signed = request.explanation.as_ref().and_then(|report| report.get("signed"));
    let part = |value: Option<&Value>, name: &str| {
        let text = value.and_then(|value| value.get(name)).and_then(Value::as_str);
        line(text.unwrap_or_default()).into_owned()
    };
    let changes = signed.and_then(|signed| signed.get("changes")).and_then(Value::as_array);
    for change in changes.into_iter().flatten() {
        let change = Some(change);
        let _ = writeln!(text, "  - {}\n    {}", part(change, "finding"), part(change, "fix"));
    }
    if let Some(signed) = signed.filter(|signed| !signed.is_null()) {
        let signed = Some(signed);
        let _ = writeln!(text, "Signed by {}:\n    {}", part(signed, "key"), part(signed, "url"));
    }
    let names: Vec<String> =
        request.parameters.iter().map(|name| line(name).into_owned()).collect();
    let _ = writeln!(text, "Parameters: {}", names.join(", "));
    text
}
