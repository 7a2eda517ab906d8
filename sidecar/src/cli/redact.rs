//! `twilio-edge redact`: removes stored content from the ledger at once, for instance at the request of the data subject.
//! Works on the database, beside a running sidecar.

use std::process::ExitCode;

use serde_json::json;

use super::{
    credentials::variable,
    ledger::{account, number},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::{message::NumberQuery, period::instant};
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_services::{
    access::api_keys::{AccessError, Caller},
    operations::erasure::{self, ErasureRequest, ErasureResult},
};
use twilio_edge_store::Sweeper;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["message_sid", "number", "since", "until"])))]
pub(super) struct Args {
    /// Everything about this message
    #[arg(long, value_name = "SID")]
    message_sid: Option<String>,
    /// Everything about this number: +15551234567 on every channel, whatsapp:+15551234567 on one
    #[arg(long, value_parser = number)]
    number: Option<NumberQuery>,
    /// Start, inclusive: a day (UTC) or a time as in 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<i64>,
    /// End, exclusive
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<i64>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Delete rows of which no duplicate can arrive any more; redact the others
    #[arg(long)]
    delete: bool,
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = account)]
    account: String,
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
    let (dry_run, as_json) = (args.dry_run, globals.is_json());
    let request = ErasureRequest {
        account_sid: Some(args.account),
        message_sid: args.message_sid,
        number: args.number,
        since_ms: args.since,
        until_ms: args.until,
        text_only: false,
        dry_run,
        delete: args.delete,
    };
    match runtime.block_on(redact(&config, request)) {
        Ok(done) => super::listing::write(&report(&done, dry_run, as_json)),
        Err(problem) => fail(problem),
    }
}

async fn redact(config: &Config, request: ErasureRequest) -> Result<ErasureResult, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: &dyn std::fmt::Display| format!("the database {database} {reason}");
    let sweeper =
        Sweeper::open(&config.database, &config.leases).await.map_err(|reason| failure(&reason))?;
    let user = variable("USER").unwrap_or_else(|| "unknown".into());
    let done = erasure::erase(&sweeper, &Caller::command_line(&user), request, usize::MAX).await;
    sweeper.close().await;
    done.map_err(|refusal| match refusal {
        AccessError::Store(reason) => failure(&reason),
        AccessError::Invalid(problem) => problem,
        other => format!("refused: {other:?}"),
    })
}

fn report(done: &ErasureResult, dry_run: bool, as_json: bool) -> String {
    let swept = &done.swept;
    let parts = swept.redacted.iter().map(|(part, count)| (part.as_str().to_owned(), json!(count)));
    if as_json {
        let report = json!({
            "dry_run": dry_run,
            "found": swept.found,
            "redacted": swept.rows,
            "parts": parts.collect::<serde_json::Map<_, _>>(),
            "deleted": swept.deleted,
        });
        return format!("{report}\n");
    }
    let parts: Vec<String> = parts.map(|(part, count)| format!("{part} {count}")).collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let would = if dry_run { "would be " } else { "" };
    format!(
        "{} webhooks found: {} {would}redacted{parts}, {} {would}deleted\n",
        swept.found, swept.rows, swept.deleted
    )
}
