//! Changes of one message by an operator, beside a sidecar that may run: cancels it, or resolves its unknown outcome.

use std::process::ExitCode;

use crate::cli::{
    credentials::variable, event_reporting::event_reporting, failure::fail, globals::Globals,
};
use twilio_edge_domain::dropin::resource::id_of_sid;
use twilio_edge_platform::{
    clock::now_ms,
    config::{Config, without_password},
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{self, PREFIX},
};
use twilio_edge_store::{OutboundMessage, OutboundMessages, StoreError};

/// The message of a command.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// Message id: ms_.., SM.. or MM.. of Twilio, or the SM.. of the drop-in API
    id: Option<String>,
    /// The same, as Twilio's command line has it
    #[arg(long, value_name = "SID")]
    sid: Option<String>,
}

impl Target {
    /// Returns the id.
    pub(super) fn id(self) -> String {
        self.id.or(self.sid).unwrap_or_default()
    }
}

/// Finds a message by our id, by Twilio's SID, or by the SID that the drop-in API derives from our id.
async fn find(
    messages: &OutboundMessages,
    id: &str,
) -> Result<Option<OutboundMessage>, StoreError> {
    if id.starts_with(PREFIX) {
        return messages.fetch(id, None).await;
    }
    if let Some(message) = messages.by_sids(&[id]).await?.into_iter().next() {
        return Ok(Some(message));
    }
    match id_of_sid(id) {
        Some(id) => messages.fetch(&id, None).await,
        None => Ok(None),
    }
}

/// Cancels a message, or returns the problem.
pub(super) async fn cancel(
    messages: &OutboundMessages,
    id: &str,
) -> Result<Result<(), String>, StoreError> {
    let Some(message) = find(messages, id).await? else { return Ok(Err(no_message(id))) };
    Ok(match sending::cancel(messages, &operator(), &message, now_ms()).await? {
        true => Ok(()),
        false => {
            Err(format!("{id} is {}: only a message that is queued can be canceled", message.state))
        }
    })
}

/// Resolves an unknown message, or returns the problem.
pub(super) async fn resolve(
    messages: &OutboundMessages,
    id: &str,
    sent: Option<&str>,
) -> Result<Result<(), String>, StoreError> {
    let Some(message) = find(messages, id).await? else { return Ok(Err(no_message(id))) };
    let provider = message.provider();
    if sent.is_some_and(|id| !provider.is_id(id)) {
        return Ok(Err(format!("--sent: must be {}", provider.id_form())));
    }
    Ok(match sending::resolve(messages, &operator(), &message, sent, now_ms()).await? {
        true => Ok(()),
        false => Err(format!("{id} is not unknown: nothing was changed")),
    })
}

fn no_message(id: &str) -> String {
    format!("there is no message {id}: `twilio-edge messages list` shows the ids")
}

fn operator() -> Caller {
    Caller::command_line(&variable("USER").unwrap_or_default())
}

/// Carries out a change of one message.
pub(super) fn change(
    globals: &Globals,
    act: impl AsyncFnOnce(&OutboundMessages) -> Result<Result<(), String>, StoreError>,
) -> ExitCode {
    with_messages(globals, async |messages, _| {
        Ok(match act(messages).await? {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => fail(problem),
        })
    })
}

/// Opens the store of outbound messages for `act`.
pub(in crate::cli) fn with_messages(
    globals: &Globals,
    act: impl AsyncFnOnce(&OutboundMessages, &Config) -> Result<ExitCode, StoreError>,
) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let reporting = match event_reporting(&config) {
        Ok(reporting) => reporting,
        Err(problem) => return fail(problem),
    };
    let done = runtime.block_on(async {
        let messages = OutboundMessages::open(&config.database, reporting).await?;
        let done = act(&messages, &config).await;
        messages.close().await;
        done
    });
    match done {
        Ok(code) => code,
        Err(reason) => {
            let database = without_password(config.database.url.expose());
            fail(format_args!("the database {database} {reason}"))
        }
    }
}
