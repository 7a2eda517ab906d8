//! `twilio-edge tenants`: profiles of accounts, for a machine with access to the database. A running sidecar on that
//! database follows within a second.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::{
    credentials::variable,
    event_reporting::event_reporting,
    ledger,
    listing::{self, Output},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_api::tenants::TenantView;
use twilio_edge_domain::{
    policy::Policies,
    tenant::{Profile, ProfileError, Tenant, is_account_sid},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_services::{
    access::{
        api_keys::{AccessError, Caller},
        tenants::{TenantError, Tenants},
    },
    operations::retention::RetentionPolicies,
};
use twilio_edge_store::{self as store, StoreError};

/// Accounts per page.
const PAGE: i64 = 500;

const COLUMNS: [&str; 6] =
    ["account_sid", "friendly_name", "parent_sid", "revision", "updated_at", "closed_at"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the accounts that have a profile
    List,
    /// Show the profile of one account
    Show {
        /// Account SID (AC..)
        #[arg(value_parser = account)]
        account: String,
    },
    /// Change the profile of one account; options that are not given stay unchanged
    Set(Changes),
}

#[derive(Debug, clap::Args)]
struct Changes {
    /// Account SID (AC..)
    #[arg(value_parser = account)]
    account: String,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Parent account of a subaccount
    #[arg(long, value_name = "SID", value_parser = account)]
    parent: Option<String>,
    /// Number or sender of the account; replaces the previous ones; may be repeated
    #[arg(long)]
    sender: Vec<String>,
    /// Messaging Service of the account (MG..); may be repeated
    #[arg(long, value_name = "SID")]
    service: Vec<String>,
    /// Difference from `[policy]` of the configuration, as in {"stop_reaches": "channel"}
    #[arg(long, value_name = "JSON", value_parser = json)]
    policy: Option<Value>,
    /// Difference from `[retention]` of the configuration, as in {"body": {"keep": "7d"}}
    #[arg(long, value_name = "JSON", value_parser = json)]
    retention: Option<Value>,
}

fn account(text: &str) -> Result<String, String> {
    let must = || "must be AC and 32 lower-case hexadecimal digits".to_owned();
    is_account_sid(text).then(|| text.to_owned()).ok_or_else(must)
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
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
    let one = !matches!(args.verb, Verb::List);
    match runtime.block_on(with_tenants(&config, async |tenants| args.verb.act(&tenants).await)) {
        Ok(found) => show(found, one, globals.output()),
        Err(problem) => fail(problem),
    }
}

async fn with_tenants<F: Future<Output = Result<Vec<Tenant>, TenantError>>>(
    config: &Config,
    act: impl FnOnce(Tenants) -> F,
) -> Result<Vec<Tenant>, String> {
    let failure = |reason: &StoreError| {
        format!("the database {} {reason}", without_password(config.database.url.expose()))
    };
    let store = store::Tenants::open(&config.database, event_reporting(config)?).await;
    let store = store.map_err(|reason| failure(&reason))?;
    let (policies, retention_policies) =
        (Policies::new(config.policy.clone()), RetentionPolicies::new(config));
    let done = act(Tenants::new(store.clone(), policies, retention_policies, config)).await;
    store.close().await;
    done.map_err(|denied| match denied {
        TenantError::Refused(AccessError::Store(reason)) => failure(&reason),
        TenantError::NotFound => {
            "the account has no profile: the settings apply to it without differences".into()
        }
        TenantError::ProfileError(
            ProfileError::Syntax(problem) | ProfileError::Invalid(problem),
        ) => problem,
        TenantError::RevisionRequired(_) | TenantError::RevisionMismatch(_) => {
            "the profile was changed at the same time: show it, and try again".into()
        }
        TenantError::Refused(other) => format!("refused: {other:?}"),
    })
}

impl Verb {
    async fn act(self, tenants: &Tenants) -> Result<Vec<Tenant>, TenantError> {
        let by = Caller::command_line(&variable("USER").unwrap_or_else(|| "unknown".into()));
        match self {
            Verb::List => {
                let mut found: Vec<Tenant> = Vec::new();
                loop {
                    let last = found.last().map(|tenant| tenant.account_sid.clone());
                    let page = tenants.list(&by, None, &last.unwrap_or_default(), PAGE).await;
                    let page = page.map_err(TenantError::Refused)?;
                    if page.is_empty() {
                        return Ok(found);
                    }
                    found.extend(page);
                }
            }
            Verb::Show { account } => Ok(vec![tenants.get(&by, &account).await?]),
            Verb::Set(changes) => {
                let account = changes.account.clone();
                let known = match tenants.get(&by, &account).await {
                    Ok(known) => Some(known),
                    Err(TenantError::NotFound) => None,
                    Err(denied) => return Err(denied),
                };
                let seen = known.as_ref().map(|known| known.revision);
                let before = known.map_or_else(Profile::empty, |known| known.profile);
                let profile = changes.over(before);
                Ok(vec![tenants.put(&by, &account, profile, seen, now_ms()).await?])
            }
        }
    }
}

impl Changes {
    fn over(self, before: Profile) -> Profile {
        let list = |new: Vec<String>, before| if new.is_empty() { before } else { new };
        Profile {
            parent_sid: self.parent.or(before.parent_sid),
            friendly_name: self.name.unwrap_or(before.friendly_name),
            senders: list(self.sender, before.senders),
            services: list(self.service, before.services),
            policy: self.policy.unwrap_or(before.policy),
            retention: self.retention.unwrap_or(before.retention),
        }
    }
}

fn show(found: Vec<Tenant>, one: bool, output: Output) -> ExitCode {
    let shown: Vec<TenantView> = found.into_iter().map(TenantView::of).collect();
    let text = match (output, one) {
        (Output::Json, true) => {
            serde_json::to_string_pretty(&shown.first()).unwrap_or_default() + "\n"
        }
        (Output::Json, false) => serde_json::to_string_pretty(&shown).unwrap_or_default() + "\n",
        (Output::Table, false) if shown.is_empty() => "No account has a profile.\n".to_owned(),
        (_, false) => {
            let rows: Vec<_> = shown.iter().map(ledger::row).collect();
            listing::text(output, &COLUMNS, &rows)
        }
        (_, true) => {
            shown.first().map(|shown| fields(&ledger::row(shown), output)).unwrap_or_default()
        }
    };
    listing::write(&text)
}

/// Formats a row as one line per field.
fn fields(row: &serde_json::Map<String, Value>, output: Output) -> String {
    let rows = row.iter().filter(|(_, value)| !value.is_null()).map(|(field, value)| {
        let field = Value::from(field.as_str());
        serde_json::Map::from_iter([
            ("field".to_owned(), field),
            ("value".to_owned(), value.clone()),
        ])
    });
    listing::text(output, &["field", "value"], &rows.collect::<Vec<_>>())
}
