//! The ledger as the commands that look into it find it: of which account, in which database, and how what was heard is
//! spelled in their output. It is read only, beside the sidecar that writes it.

use std::process::ExitCode;

use serde_json::{Map, Value, json};
use twilio_edge_filter::form::is_account_sid;

use super::{Sources, fail, listing::time};
use crate::{
    config::without_password,
    domain::message::{Heard, Message, Number},
    store::{
        StoreError,
        histories::{Histories, Page, Search},
    },
};

/// Whose ledger, and where it is.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The account whose they are
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = account)]
    pub(super) account: String,
    #[command(flatten)]
    sources: Sources,
}

fn account(text: &str) -> Result<String, String> {
    match is_account_sid(text) {
        true => Ok(text.to_owned()),
        false => Err("no account SID: AC and 32 hexadecimal digits".to_owned()),
    }
}

/// Reads a number from the command line.
pub(super) fn number(text: &str) -> Result<Number, String> {
    Number::parse(text)
        .ok_or_else(|| "no address: +15551234567 or whatsapp:+15551234567".to_owned())
}

impl Place {
    /// Opens the ledger, asks it with `question` and shows the answer with `show`.
    pub(super) fn ask<T>(
        self,
        question: impl AsyncFnOnce(&mut Histories, &str) -> Result<T, StoreError>,
        show: impl FnOnce(T) -> ExitCode,
    ) -> ExitCode {
        let config = match self.sources.read().check(false) {
            Ok(config) => config,
            Err(problems) => return fail(problems),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(error),
        };
        let answer = runtime.block_on(async {
            let mut histories = Histories::open(&config.database).await?;
            question(&mut histories, &self.account).await
        });
        match answer {
            Ok(answer) => show(answer),
            Err(error) => {
                let database = without_password(config.database.url.expose());
                fail(format_args!("the database {database} {error}"))
            }
        }
    }
}

/// What is found on every page, up to the limit.
pub(super) async fn gather<T>(
    mut search: Search,
    mut ask: impl AsyncFnMut(&Search) -> Result<Page<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let limit = search.limit;
    let mut found = Vec::new();
    loop {
        let page = ask(&search).await?;
        found.extend(page.found);
        search.limit = limit.saturating_sub(found.len());
        if page.next.is_none() || search.limit == 0 {
            return Ok(found);
        }
        search.after = page.next;
    }
}

/// A message as its row: what is there to say without its story.
pub(super) fn message(message: &Message) -> Map<String, Value> {
    fields(json!({
        "sid": message.first.message_sid,
        "direction": message.first.direction,
        "channel": message.first.channel(),
        "from": message.first.from(),
        "to": message.first.to(),
        "status": message.status,
        "error_code": message.error_code,
        "first_heard": time(message.first.heard_ms),
        "last_heard": time(message.last_heard_ms()),
        "webhooks": message.story().count(),
    }))
}

/// A webhook as its row, with every parameter it had.
pub(super) fn event(heard: &Heard) -> Map<String, Value> {
    let form = heard.form.as_deref().unwrap_or_default();
    let parameters: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
    fields(json!({
        "heard": time(heard.heard_ms),
        "sid": heard.message_sid,
        "direction": heard.direction,
        "channel": heard.channel(),
        "from": heard.from(),
        "to": heard.to(),
        "status": heard.status,
        "error_code": heard.error_code,
        "route": heard.route,
        "attempts": heard.attempts,
        "backend": heard.outcome,
        "settled": heard.settled_ms.map(time),
        // In their order, and a name as often as it came.
        "parameters": parameters,
    }))
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
