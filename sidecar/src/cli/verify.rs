//! `twilio-edge verify`: starts, checks, shows and cancels verifications through the API of a sidecar with an API key, as an
//! application does. A code is read from standard input unless it is an argument.

use std::{io::Read, process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    api_client::{ApiClient, ApiRequest, idempotency_key, pair},
    listing,
};
use crate::cli::failure::fail;
use twilio_edge_domain::sending::verification::VerificationChannel;

/// Longest standard input that is read for a code, in bytes.
const LONGEST: u64 = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Send a code to a number
    Start {
        /// Number: +15551234567
        #[arg(long, value_name = "NUMBER")]
        to: String,
        /// Channel: auto (WhatsApp, and SMS instead if WhatsApp does not deliver), whatsapp or sms
        #[arg(long, default_value = "auto")]
        channel: VerificationChannel,
        /// Language of the message: pt_BR
        #[arg(long)]
        locale: Option<String>,
        /// Network address of the person who asked for the code
        #[arg(long, value_name = "ADDRESS")]
        end_user_address: Option<String>,
        /// Metadata that answers about the verification return, as order=17; may be repeated
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
    },
    /// Check a code; it is read from standard input unless --code is given
    Check {
        #[command(flatten)]
        target: Target,
        /// Code; other users of this machine can see arguments
        #[arg(long)]
        code: Option<String>,
    },
    /// Show a verification with its attempts
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Cancel a verification, so that its code is no longer accepted
    Cancel {
        #[command(flatten)]
        target: Target,
    },
}

/// One verification.
#[derive(Debug, clap::Args)]
struct Target {
    /// Id of the verification: vf_..
    id: String,
    /// Account, for a key that is bound to no account: AC..
    #[arg(long, value_name = "SID")]
    account: Option<String>,
    #[command(flatten)]
    api: ApiClient,
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Start {
            to,
            channel,
            locale,
            end_user_address,
            metadata,
            wait,
            idempotency_key: key,
            account,
            api,
        } => {
            let mut body = Map::from_iter([
                ("to".to_owned(), json!(to)),
                ("channel".to_owned(), json!(channel.as_str())),
            ]);
            let texts = [
                ("account_sid", account),
                ("locale", locale),
                ("end_user_address", end_user_address),
            ];
            for (name, text) in texts {
                body.extend(text.map(|text| (name.to_owned(), json!(text))));
            }
            if !metadata.is_empty() {
                let metadata = metadata.into_iter().map(|(name, text)| (name, json!(text)));
                body.insert("metadata".to_owned(), Value::Object(metadata.collect()));
            }
            start(&api, &Value::Object(body), wait.unwrap_or_default(), key.as_deref())
        }
        Verb::Check { target, code } => match code.map_or_else(read_code, Ok) {
            Ok(code) => target.send("POST", "/check", Some(&json!({"code": code}))),
            Err(problem) => fail(problem),
        },
        Verb::Show { target } => target.send("GET", "", None),
        Verb::Cancel { target } => target.send("POST", "/cancel", None),
    }
}

fn start(api: &ApiClient, body: &Value, wait_s: u32, key: Option<&str>) -> ExitCode {
    let wait = Duration::from_secs(wait_s.into());
    let (token, key) = match (api.token(), idempotency_key(key)) {
        (Ok(token), Ok(key)) => (token, key),
        (Err(problem), _) | (_, Err(problem)) => return fail(problem),
    };
    let request = ApiRequest {
        method: "POST",
        path: &format!("/v1/verifications?wait_ms={}", wait.as_millis()),
        body: Some(body),
        idempotency_key: Some(&key),
        wait,
    };
    match api.request(&token, request) {
        Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
        Ok((_, problem)) => fail(problem),
        Err(problem) => fail(format_args!(
            "{problem}; the verification may have started: repeat the command with --idempotency-key {key}, which starts it once"
        )),
    }
}

fn read_code() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin()
        .take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input: {error}"))?;
    Ok(text.trim().to_owned())
}

impl Target {
    fn send(&self, method: &str, verb: &str, body: Option<&Value>) -> ExitCode {
        let is_id = self.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_id {
            return fail("the id must be vf_ and 32 hexadecimal digits");
        }
        let account = self.account.as_ref().map(|sid| format!("?account_sid={sid}"));
        let path = format!("/v1/verifications/{}{verb}{}", self.id, account.unwrap_or_default());
        let token = match self.api.token() {
            Ok(token) => token,
            Err(problem) => return fail(problem),
        };
        let request =
            ApiRequest { method, path: &path, body, idempotency_key: None, wait: Duration::ZERO };
        match self.api.request(&token, request) {
            Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
            Ok((_, problem)) | Err(problem) => fail(problem),
        }
    }
}
