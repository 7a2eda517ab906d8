//! `twilio-edge keys`: creates, lists and revokes API keys in the database, while a sidecar may be running. Changes are
//! recorded in the audit log.

use std::{fmt::Write as _, future::Future, process::ExitCode};

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    credentials::variable,
    listing::{self, Output},
};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::{api_key::Scope, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{
    config::{Config, without_password},
    terminal,
};
use twilio_edge_services::access::api_keys::{AccessError, Caller, Keys};
use twilio_edge_store::{ApiKeyStore, Key};

/// Columns of tab-separated output.
const COLUMNS: [&str; 7] =
    ["id", "scope", "account_sid", "created_at", "last_used_at", "revoked_at", "name"];

/// Keys per page.
const PAGE: i64 = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a key and print it; it cannot be printed again
    Create {
        /// Permissions of the key
        #[arg(long)]
        scope: ScopeName,
        /// Only account that the key can access (AC..); default: all accounts
        #[arg(long, value_name = "SID")]
        account: Option<String>,
        /// Name for people
        #[arg(long)]
        name: String,
    },
    /// List the keys, the newest first
    List {
        /// Only keys of this account (AC..)
        #[arg(long, value_name = "SID")]
        account: Option<String>,
        /// Include revoked keys
        #[arg(long)]
        all: bool,
    },
    /// Revoke a key for good: at once here, within a second at running sidecars
    Revoke {
        /// Key id, as listed
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeName {
    /// Filter: claims, settlements, the accounts' keys
    Edge,
    /// Application
    App,
    /// Administrator: keys and audit
    Admin,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Scope {
        match name {
            ScopeName::Edge => Scope::Edge,
            ScopeName::App => Scope::App,
            ScopeName::Admin => Scope::Admin,
        }
    }
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
        .block_on(with_keys(&config, async |keys| args.verb.act(&keys, globals.output()).await))
    {
        Ok(text) => listing::write(&text),
        Err(problem) => fail(problem),
    }
}

async fn with_keys<F: Future<Output = Result<String, AccessError>>>(
    config: &Config,
    act: impl FnOnce(Keys) -> F,
) -> Result<String, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: &dyn std::fmt::Display| format!("the database {database} {reason}");
    let store = ApiKeyStore::open(&config.database).await.map_err(|reason| failure(&reason))?;
    let done = act(Keys::new(store.clone(), "")).await;
    store.close().await;
    done.map_err(|refusal| match refusal {
        AccessError::Store(reason) => failure(&reason),
        AccessError::Invalid(problem) => problem.replacen("account_sid:", "--account:", 1),
        AccessError::NoSuchKey => {
            "there is no such key: `twilio-edge keys list --all` shows them".into()
        }
        other => format!("refused: {other:?}"),
    })
}

impl Verb {
    async fn act(self, keys: &Keys, output: Output) -> Result<String, AccessError> {
        let user = variable("USER").unwrap_or_else(|| "unknown".into());
        let by = Caller::command_line(&user);
        match self {
            Verb::Create { scope, account, name } => {
                let (key, token) =
                    keys.create(&by, scope.into(), account, &name, now_ms(), |_| None).await?;
                Ok(match output {
                    Output::Json => line(&json!({"key": shown(&key), "token": token})),
                    Output::Table | Output::Tsv | Output::Csv => format!(
                        "{}\n{token}\n\nThe token is shown only now. Callers send it as\n  Authorization: Bearer {token}\n",
                        table(&[key]),
                    ),
                })
            }
            Verb::List { account, all } => {
                let mut found: Vec<Key> = Vec::new();
                loop {
                    let last = found.last().map(|key| (key.created_at_ms, key.id.clone()));
                    let before = last.as_ref().map(|(ms, id)| (*ms, id.as_str()));
                    let page = keys.list(&by, account.as_deref(), before, PAGE).await?;
                    if page.is_empty() {
                        break;
                    }
                    found.extend(page);
                }
                found.retain(|key| all || key.revoked_at_ms.is_none());
                Ok(match output {
                    Output::Json => line(&found.iter().map(shown).collect::<Value>()),
                    Output::Tsv | Output::Csv => {
                        let rows: Vec<_> = found
                            .iter()
                            .filter_map(|key| shown(key).as_object().cloned())
                            .collect();
                        listing::text(output, &COLUMNS, &rows)
                    }
                    Output::Table if found.is_empty() => "There is no key yet.\n".to_owned(),
                    Output::Table => table(&found),
                })
            }
            Verb::Revoke { id } => {
                let key = keys.revoke(&by, &id, now_ms()).await?;
                Ok(match output {
                    Output::Json => line(&shown(&key)),
                    Output::Table | Output::Tsv | Output::Csv => {
                        format!("{} ({}) is revoked\n", key.id, terminal::line(&key.name))
                    }
                })
            }
        }
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn shown(key: &Key) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "account_sid": key.account_sid,
        "created_at": rfc3339(key.created_at_ms),
        "created_by": key.created_by,
        "last_used_at": key.last_used_at_ms.and_then(rfc3339),
        "revoked_at": key.revoked_at_ms.and_then(rfc3339),
    })
}

fn table(keys: &[Key]) -> String {
    let mut rows =
        vec![["ID", "SCOPE", "ACCOUNT", "CREATED", "LAST USED", "NAME"].map(String::from)];
    let time = |ms: i64| rfc3339(ms).unwrap_or_default();
    rows.extend(keys.iter().map(|key| {
        let used = match (key.revoked_at_ms, key.last_used_at_ms) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(ms)) => time(ms),
            (None, None) => "never".to_owned(),
        };
        let account = key.account_sid.clone().unwrap_or_else(|| "all".into());
        let scope = key.scope.to_string();
        // A name begins no line of its own.
        let name = terminal::line(&key.name).into_owned();
        [key.id.clone(), scope, account, time(key.created_at_ms), used, name]
    }));
    let mut text = String::new();
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
