//! `twilio-edge flows`: starts and shows executions of Studio flows through the API of a sidecar with an API key, as an application
//! does.

use std::{process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    api_client::{ApiClient, ApiRequest, idempotency_key, pair},
    listing,
};
use crate::cli::failure::fail;
use twilio_edge_domain::sending::flow::is_flow_sid;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start an execution of a flow for a contact
    Start(Box<Start>),
    /// Show an execution, with its status at Twilio
    Show {
        /// Flow: FW..
        #[arg(value_parser = flow)]
        flow: String,
        /// Id of the execution: fx_..
        id: String,
        /// Account, for a key that is bound to no account: AC..
        #[arg(long, value_name = "SID")]
        account: Option<String>,
        #[command(flatten)]
        api: ApiClient,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// Flow: FW..
    #[arg(value_parser = flow)]
    flow: String,
    /// Contact: +15551234567, whatsapp:+15551234567
    #[arg(long, value_name = "NUMBER")]
    to: String,
    /// Sender of the flow's messages; without it, a route selects it
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,
    /// Parameter of the flow, as name=Ada; may be repeated
    #[arg(long = "parameter", value_name = "NAME=TEXT", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// Kind of the flow's first message: session (a text, which needs an open window on WhatsApp) or template
    #[arg(long, default_value = "session", value_parser = ["session", "template"])]
    first_message: String,
    /// Category: authentication, utility, service, marketing
    #[arg(long)]
    category: Option<String>,
    /// Metadata that answers about the execution return, as order=17; may be repeated
    #[arg(long = "metadata", value_name = "NAME=TEXT", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Wait up to this many seconds for Twilio's answer
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "4",
        value_parser = clap::value_parser!(u32).range(0..=60))]
    wait: Option<u32>,
    /// Idempotency key; of two requests with the same key, one is carried out
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Account, for a key that is bound to no account: AC..
    #[arg(long, value_name = "SID")]
    account: Option<String>,
    #[command(flatten)]
    api: ApiClient,
}

fn flow(text: &str) -> Result<String, String> {
    match is_flow_sid(text) {
        true => Ok(text.to_owned()),
        false => Err("must be FW and 32 hexadecimal digits".to_owned()),
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Start(start) => start.run(),
        Verb::Show { flow, id, account, api } => show(&flow, &id, account.as_deref(), &api),
    }
}

impl Start {
    fn run(self) -> ExitCode {
        let wait = Duration::from_secs(self.wait.unwrap_or_default().into());
        let (token, key) =
            match (self.api.token(), idempotency_key(self.idempotency_key.as_deref())) {
                (Ok(token), Ok(key)) => (token, key),
                (Err(problem), _) | (_, Err(problem)) => return fail(problem),
            };
        let request = ApiRequest {
            method: "POST",
            path: &format!("/v1/flows/{}/executions?wait_ms={}", self.flow, wait.as_millis()),
            body: Some(&self.body()),
            idempotency_key: Some(&key),
            wait,
        };
        match self.api.request(&token, request) {
            Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
            Ok((_, problem)) => fail(problem),
            Err(problem) => fail(format_args!(
                "{problem}; the execution may have been accepted: repeat the command with --idempotency-key {key}, which starts it once"
            )),
        }
    }

    fn body(&self) -> Value {
        let object = |pairs: &[(String, String)]| -> Value {
            pairs
                .iter()
                .map(|(name, text)| (name.clone(), json!(text)))
                .collect::<Map<_, _>>()
                .into()
        };
        let mut fields = Map::from_iter([
            ("to".to_owned(), json!(self.to)),
            ("first_message".to_owned(), json!(self.first_message)),
            ("parameters".to_owned(), object(&self.parameters)),
            ("metadata".to_owned(), object(&self.metadata)),
        ]);
        let texts =
            [("account_sid", &self.account), ("from", &self.from), ("category", &self.category)];
        for (name, text) in texts {
            fields.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
        }
        Value::Object(fields)
    }
}

fn show(flow: &str, id: &str, account: Option<&str>, api: &ApiClient) -> ExitCode {
    let token = match api.token() {
        Ok(token) => token,
        Err(problem) => return fail(problem),
    };
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return fail("the id of an execution is fx_ and 32 hexadecimal digits");
    }
    let account = account.map(|sid| format!("?account_sid={sid}")).unwrap_or_default();
    let request = ApiRequest {
        method: "GET",
        path: &format!("/v1/flows/{flow}/executions/{id}{account}"),
        body: None,
        idempotency_key: None,
        wait: Duration::ZERO,
    };
    match api.request(&token, request) {
        Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
        Ok((_, problem)) | Err(problem) => fail(problem),
    }
}
