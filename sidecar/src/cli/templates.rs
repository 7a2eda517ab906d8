//! `twilio-edge templates`: template catalogue of an account, for a machine with access to the database; it can also be
//! refreshed from Twilio. A running sidecar on that database follows within a second.

use std::{process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

use super::{event_reporting::event_reporting, ledger::account, listing};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_api::templates::TemplateView;
use twilio_edge_connectors::twilio::Twilio;
use twilio_edge_domain::template::{
    Template,
    catalogue::{Catalogue, TemplateChange},
};
use twilio_edge_platform::clock::{millis, now_ms};
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_services::outbound::templates::{
    Templates,
    sync::{SyncError, Syncer},
};
use twilio_edge_store as store;

const COLUMNS: [&str; 6] = ["name", "locale", "approval", "category", "content_sid", "source"];
const CHANGES: [&str; 2] = ["action", "subject"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Args)]
struct Account {
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = account)]
    account: String,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all templates in every language
    List(Account),
    /// Show one template in every language, with its text and variables
    Show {
        /// Name of the template
        name: String,
        #[command(flatten)]
        account: Account,
    },
    /// Fetch the templates from Twilio with the credentials of sending.file, and print the changes
    Sync(Account),
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
    match runtime.block_on(act(args.verb, &config, globals)) {
        Ok(code) => code,
        Err(problem) => fail(problem),
    }
}

async fn act(verb: Verb, config: &Config, globals: &Globals) -> Result<ExitCode, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: store::StoreError| format!("the database {database} {reason}");
    let store = store::Templates::open(&config.database, event_reporting(config)?).await;
    let store = store.map_err(failure)?;
    let templates = Templates::new(store.clone());
    templates.refresh().await.map_err(failure)?;
    let done = match verb {
        Verb::List(Account { account }) => {
            let catalogue = templates.of(&account);
            Ok(listing::print(globals.output(), &COLUMNS, &rows(catalogue.all())))
        }
        Verb::Show { name, account: Account { account } } => {
            let catalogue: &Catalogue = &templates.of(&account);
            let found = rows(catalogue.of_name(&name));
            let columns = [&COLUMNS[..], &["variables", "text"]].concat();
            match found.is_empty() {
                true => Err(format!("the account has no template {name:?}")),
                false => Ok(listing::print(globals.output(), &columns, &found)),
            }
        }
        Verb::Sync(Account { account }) => {
            let twilio = Twilio::open(&config.sending)
                .map_err(|problems| format!("sending.file: {}", problems.join("; ")))?;
            let interval = Duration::from_secs(config.sending.templates_every_s.max(1));
            let due_at_ms = now_ms().saturating_add(millis(interval));
            let syncer = Syncer { templates, twilio, interval };
            match syncer.sync(&account, due_at_ms).await {
                Ok(changes) => Ok(listing::print(globals.output(), &CHANGES, &changed(&changes))),
                Err(SyncError::Twilio(reason)) => Err(format!("Twilio: {reason}")),
                Err(SyncError::Store(reason)) => Err(failure(reason)),
            }
        }
    };
    store.close().await;
    done
}

fn rows<'a>(templates: impl Iterator<Item = &'a Template>) -> Vec<Map<String, Value>> {
    let shown = templates.map(TemplateView::of).map(|one| json!(one));
    shown.filter_map(|one| one.as_object().cloned()).collect()
}

fn changed(changes: &[TemplateChange]) -> Vec<Map<String, Value>> {
    let shown = changes.iter().map(|change| {
        json!({"action": change.action, "subject": change.subject, "detail": change.detail})
    });
    shown.filter_map(|one| one.as_object().cloned()).collect()
}
