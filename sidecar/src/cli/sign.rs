//! `twilio-edge sign`: a webhook with Twilio's signature, printed as a curl command or sent.
//!
//! Decides: whether the arguments of the command line make sense. `webhook.rs` builds the webhook, `curl.rs` prints it,
//! `send.rs` sends it.

mod curl;
mod send;

use std::process::ExitCode;
use twilio_edge_platform::terminal;

use self::send::Edge;
use super::signing::{SigningOptions, checked_path};
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
    #[command(flatten)]
    signing: SigningOptions,
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
    let signing = options.signing.resolve()?;
    let message_sid = match &options.message_sid {
        Some(sid) => sid.clone(),
        None => fresh_message_sid()?,
    };
    let message = Message {
        account_sid: &signing.account_sid,
        message_sid: &message_sid,
        channel: options.channel,
        from: options.from.as_deref(),
        to: options.to.as_deref(),
    };
    let target = kind.target()?;
    let mut all = Vec::new();
    for (event, content) in kind.contents(&message)? {
        all.push(SignedRequest::new(
            &signing.origin,
            &target,
            content,
            &signing.key,
            &format!("{message_sid}{event}"),
        ));
    }
    let copies = if let Kind::Duplicates { count, .. } = &kind { *count as usize } else { 1 };
    let all: Vec<_> = std::iter::repeat_n(all, copies).flatten().collect();

    let host = signing.other_host().map(str::to_owned);
    // Shell comment, since the commands below are pasted into a shell.
    let mark = if options.send { "" } else { "# " };
    terminal::print_line(&format!(
        "{mark}MessageSid {message_sid} (repeat it with --message-sid), signed for {}{target}",
        signing.origin
    ));
    if !options.send {
        for signed in &all {
            terminal::print_line(&curl::command(signed, &signing.edge, host.as_deref()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let at_once = matches!(kind, Kind::Duplicates { concurrent: true, .. });
    let answers = Edge::new(signing.edge, host).send_all(&all, at_once)?;
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
        checked_path("--path", target)?;
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

fn fresh_message_sid() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("SM{:032x}", u128::from_be_bytes(bytes)))
}
