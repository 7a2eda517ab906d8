//! `twilio-edge sign`: a webhook with Twilio's signature, printed as a curl command or sent.
//!
//! Decides: whether the arguments of the command line make sense. `webhook.rs` builds the webhook, `curl.rs` prints it,
//! `send.rs` sends it.

mod curl;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;
use twilio_edge_platform::terminal;

use twilio_edge_filter::signature::Key;

use self::send::Edge;
use super::credentials::{self, variable};
use twilio_edge_demo as demo;
use twilio_edge_simulator::webhook::{self, Channel, Content, Message, Parameters, SignedRequest};

/// Largest number of webhooks per call.
const MAX_COUNT: u32 = 1000;

/// Statuses of a successful message; only Messaging Services send the first one.
const SEQUENCE: [&str; 4] = ["queued", "sent", "delivered", "read"];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The auth token is read from TWILIO_AUTH_TOKEN or --token-file; without TWILIO_ACCOUNT_SID \
and token, the demo's account is used.\n\
With --send the exit code is 0 if every answer was 2xx, 1 if one was not, 2 if one did not come."
)]
pub(super) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// Inbound message
    Inbound {
        /// Text of the message
        #[arg(long, default_value = "Hello")]
        body: String,
        #[command(flatten)]
        options: Options,
    },
    /// STOP: an opt-out
    Stop {
        #[command(flatten)]
        options: Options,
    },
    /// START: an opt-in
    Start {
        #[command(flatten)]
        options: Options,
    },
    /// Inbound message with pictures
    Media {
        /// Number of pictures
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
        count: u32,
        /// Text of the message
        #[arg(long, default_value = "")]
        body: String,
        #[command(flatten)]
        options: Options,
    },
    /// Status callback of an outbound message
    Status {
        /// queued, sent, delivered, read, failed, undelivered, ..
        #[arg(long, default_value = "delivered", conflicts_with = "sequence")]
        status: String,
        /// Error code of a failure
        #[arg(long)]
        error_code: Option<String>,
        /// Send queued, sent, delivered and read in turn; SMS has no read
        #[arg(long)]
        sequence: bool,
        #[command(flatten)]
        options: Options,
    },
    /// One message several times, as Twilio retries
    Duplicates {
        /// Number of copies
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT as i64))]
        count: u32,
        /// Send them at the same time instead of one after the other
        #[arg(long, requires = "send")]
        concurrent: bool,
        /// Text of the message
        #[arg(long, default_value = "Hello")]
        body: String,
        #[command(flatten)]
        options: Options,
    },
    /// Neither message nor status: a call, or any JSON with its hash in the URL
    Other {
        /// JSON body to send instead of a form
        #[arg(long = "json-body", value_name = "JSON")]
        json_body: Option<String>,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Send it and print the answer, instead of printing a curl command
    #[arg(long)]
    send: bool,
    /// Message SID, to repeat a message; default: a new one
    #[arg(long, value_name = "SM..")]
    message_sid: Option<String>,
    /// Sender
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,
    /// Recipient
    #[arg(long, value_name = "NUMBER")]
    to: Option<String>,
    /// Channel
    #[arg(long, value_enum, default_value = "whatsapp")]
    channel: Channel,
    /// Add or replace a parameter; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// HTTP method; GET puts the parameters into the URL
    #[arg(long, default_value = "POST", value_parser = ["GET", "POST"])]
    method: String,
    /// Path and query of the webhook [default: /twilio/inbound, /twilio/status or /twilio/other]
    #[arg(long)]
    path: Option<String>,
    /// Public origin, which is signed [env: PUBLIC_ORIGIN] [default: the value of --edge]
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
    /// URL of the edge that receives it [default: http://127.0.0.1:8080, or EDGE_PORT]
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
    /// Account of the webhook [env: TWILIO_ACCOUNT_SID]
    #[arg(long, value_name = "AC..")]
    account: Option<String>,
    /// File with the auth token in its first line [env: TWILIO_AUTH_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> ExitCode {
    match sign(args.kind) {
        Ok(code) => code,
        Err(problem) => {
            terminal::print_error(&format!("twilio-edge sign: {problem}"));
            ExitCode::from(2)
        }
    }
}

fn sign(kind: Kind) -> Result<ExitCode, String> {
    let options = kind.options();
    let account = credentials::account(options.account.as_deref(), options.token_file.as_deref())?;
    let key = Key::auth_token(account.token.label, &account.token.secret)
        .ok_or("the auth token cannot be a key")?;
    let local = format!(
        "http://127.0.0.1:{}",
        variable("EDGE_PORT").unwrap_or(demo::EDGE_PORT.to_string())
    );
    let edge = checked_origin(options.edge.as_deref().unwrap_or(&local))?;
    let origin = options.origin.clone().or_else(|| variable("PUBLIC_ORIGIN"));
    let origin = checked_origin(origin.as_deref().unwrap_or(&edge))?;
    let message_sid = match &options.message_sid {
        Some(sid) => sid.clone(),
        None => fresh_message_sid()?,
    };
    let message = Message {
        account_sid: &account.sid,
        message_sid: &message_sid,
        channel: options.channel,
        from: options.from.as_deref(),
        to: options.to.as_deref(),
    };
    let target = kind.target()?;
    let mut all = Vec::new();
    for (event, content) in kind.contents(&message)? {
        all.push(SignedRequest::new(
            &origin,
            &target,
            content,
            &key,
            &format!("{message_sid}{event}"),
        ));
    }
    let copies = if let Kind::Duplicates { count, .. } = &kind { *count as usize } else { 1 };
    let all: Vec<_> = std::iter::repeat_n(all, copies).flatten().collect();

    let host = authority(&origin).filter(|host| Some(*host) != authority(&edge)).map(str::to_owned);
    // Shell comment, since the commands below are pasted into a shell.
    let mark = if options.send { "" } else { "# " };
    terminal::print_line(&format!(
        "{mark}MessageSid {message_sid} (repeat it with --message-sid), signed for {origin}{target}"
    ));
    if !options.send {
        for signed in &all {
            terminal::print_line(&curl::command(signed, &edge, host.as_deref()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let at_once = matches!(kind, Kind::Duplicates { concurrent: true, .. });
    let answers = Edge::new(edge, host).send_all(&all, at_once)?;
    let accepted = answers.iter().filter(|answer| (200..300).contains(&answer.status)).count();
    if answers.len() > 1 {
        terminal::print_line(&format!("{accepted} of {} were answered 2xx", answers.len()));
    }
    Ok(if accepted == answers.len() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

impl Kind {
    fn options(&self) -> &Options {
        match self {
            Kind::Inbound { options, .. }
            | Kind::Stop { options }
            | Kind::Start { options }
            | Kind::Media { options, .. }
            | Kind::Status { options, .. }
            | Kind::Duplicates { options, .. }
            | Kind::Other { options, .. } => options,
        }
    }

    /// Returns the path and query to sign.
    fn target(&self) -> Result<String, String> {
        let default = match self {
            Kind::Status { .. } => "/twilio/status",
            Kind::Other { .. } => "/twilio/other",
            _ => "/twilio/inbound",
        };
        let target = self.options().path.as_deref().unwrap_or(default);
        if !target.starts_with('/') {
            return Err(format!("--path {target}: a path begins with /"));
        }
        if target.contains('#') {
            return Err(format!("--path {target}: a fragment is neither sent nor signed"));
        }
        Ok(target.to_owned())
    }

    /// Returns the contents to send, each with the name of its event.
    fn contents(&self, message: &Message<'_>) -> Result<Vec<(String, Content)>, String> {
        let options = self.options();
        let inbound = |body: &str, media| vec![(String::new(), message.inbound(body, media))];
        let now = jiff::Timestamp::now().strftime("%y%m%d%H%M").to_string();
        let all = match self {
            Kind::Inbound { body, .. } | Kind::Duplicates { body, .. } => inbound(body, 0),
            Kind::Stop { .. } => inbound("STOP", 0),
            Kind::Start { .. } => inbound("START", 0),
            Kind::Media { count, body, .. } => inbound(body, *count),
            Kind::Status { sequence: true, .. } => SEQUENCE
                .iter()
                .filter(|status| options.channel == Channel::Whatsapp || **status != "read")
                .map(|status| ((*status).to_owned(), message.status(status, None, &now)))
                .collect(),
            Kind::Status { status, error_code, .. } => {
                vec![(status.clone(), message.status(status, error_code.as_deref(), &now))]
            }
            Kind::Other { json_body: Some(json), .. } => {
                if options.method == "GET" || !options.parameters.is_empty() {
                    return Err(
                        "--json-body cannot be combined with --method GET or --param".to_owned()
                    );
                }
                return Ok(vec![("json".to_owned(), Content::Json(json.clone()))]);
            }
            Kind::Other { .. } => vec![("call".to_owned(), message.call())],
        };
        all.into_iter()
            .map(|(event, mut parameters)| {
                options.add_to(&mut parameters)?;
                let content = if options.method == "GET" { Content::Get } else { Content::Post };
                Ok((event, content(parameters)))
            })
            .collect()
    }
}

impl Options {
    fn add_to(&self, parameters: &mut Parameters) -> Result<(), String> {
        for given in &self.parameters {
            let (name, value) =
                given.split_once('=').ok_or_else(|| format!("--param {given}: give NAME=VALUE"))?;
            webhook::set(parameters, name, value);
        }
        Ok(())
    }
}

/// Checks that the text is `scheme://host[:port]` and nothing more, so that origin and path form the URL.
fn checked_origin(text: &str) -> Result<String, String> {
    let origin = text.strip_suffix('/').unwrap_or(text);
    match authority(origin) {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => {
            Ok(origin.to_owned())
        }
        _ => Err(format!(
            "{text} is no origin: give http://host or https://host, with a port if need be"
        )),
    }
}

fn authority(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}

fn fresh_message_sid() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("SM{:032x}", u128::from_be_bytes(bytes)))
}
