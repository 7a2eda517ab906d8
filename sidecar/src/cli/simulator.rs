//! `twilio-edge simulator`: runs a simulator of Twilio until a stop signal; `simulator reply` sends a message of a contact
//! to it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use twilio_edge_platform::terminal;

use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::credentials;
use crate::cli::failure::fail;
use twilio_edge_platform::file_access;
use twilio_edge_simulator::{self as simulator, Account, Content, Settings, usual_catalogue};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Send a message from a contact to one of the senders
    Reply {
        /// Number of the contact: +14155550123, or whatsapp:+14155550123
        #[arg(long)]
        from: String,
        /// Sender that receives the message
        #[arg(long)]
        to: String,
        /// URL of the simulator
        #[arg(long, default_value = "http://127.0.0.1:8083")]
        simulator: String,
        /// Medium of the message, repeatable: a URL, or a type with a sample, for instance image/jpeg
        #[arg(long, value_name = "URL|TYPE")]
        media: Vec<String>,
        /// Text of the message
        body: String,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8083")]
    listen: SocketAddr,
    /// TOML with `[[account]]` sid, auth_token, `api_keys = [["SK..", ".."]]`; else TWILIO_ACCOUNT_SID, or the demo's account
    #[arg(long, value_name = "FILE")]
    accounts: Option<PathBuf>,
    /// TOML with `[[content]]` sid, friendly_name, language, body, approval
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Milliseconds from one status of a message to the next
    #[arg(long, default_value_t = 300)]
    step_ms: u32,
    /// Speed factor for statuses, queues, schedules and the window of 24 hours
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    speed: u32,
    /// Requests per second and account; further ones get 429 and 20429. 0: no limit
    #[arg(long, default_value_t = 0)]
    requests_per_second: u32,
    /// Messages per second and sender
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=1000))]
    mps: u32,
    /// Time to answer a request for a message, in milliseconds; the message exists after half of it
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    latency_ms: u32,
    /// Largest number of stored messages
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    capacity: u32,
    /// Allow free texts to WhatsApp without a message of the contact within 24 hours
    #[arg(long)]
    no_windows: bool,
    /// Webhook URL for inbound messages
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/twilio/inbound")]
    inbound_url: String,
    /// Webhook URL that is called if the first one fails
    #[arg(long, value_name = "URL")]
    inbound_fallback_url: Option<String>,
    /// URL for the signed events about e-mails, for instance http://127.0.0.1:8081/email/events/AC..
    #[arg(long, value_name = "URL")]
    email_events_url: Option<String>,
}

pub(super) fn run(args: Args) -> ExitCode {
    let ran = match args.action {
        Some(Action::Reply { from, to, simulator, media, body }) => {
            reply(&simulator, &from, &to, &media, &body)
        }
        None => args.serve.settings().and_then(|settings| {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let served =
                runtime.and_then(|runtime| runtime.block_on(serve(args.serve.listen, settings)));
            served.map_err(|error| format!("simulator: {error}"))
        }),
    };
    ran.map_or_else(fail, |()| ExitCode::SUCCESS)
}

async fn serve(listen: SocketAddr, settings: Settings) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = tokio::net::TcpListener::bind(listen).await?;
    terminal::print_line(&format!("simulator on http://{}", listener.local_addr()?));
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    simulator::serve(listener, settings, stop).await
}

fn reply(
    simulator: &str,
    from: &str,
    to: &str,
    media: &[String],
    body: &str,
) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(40)));
    let agent = config.proxy(None).http_status_as_error(false).build().new_agent();
    let json = serde_json::json!({ "from": from, "to": to, "body": body, "media": media });
    let json = json.to_string();
    let url = format!("{simulator}/simulator/inbound");
    let sent = agent.post(&url).header("Content-Type", "application/json").send(json);
    let mut answer = sent.map_err(|error| format!("{url}: {error}"))?;
    let text = answer.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    if !answer.status().is_success() {
        return Err(text);
    }
    terminal::print_line(&text);
    Ok(())
}

impl Serve {
    fn settings(&self) -> Result<Settings, String> {
        Ok(Settings {
            accounts: self.accounts()?,
            catalogue: self
                .catalogue
                .as_deref()
                .map_or_else(|| Ok(usual_catalogue()), catalogue)?,
            step_ms: self.step_ms,
            speed: self.speed,
            requests_per_second: self.requests_per_second,
            mps: self.mps,
            latency_ms: self.latency_ms,
            capacity: self.capacity.try_into().unwrap_or(usize::MAX),
            windows: !self.no_windows,
            inbound_url: self.inbound_url.clone(),
            inbound_fallback_url: self.inbound_fallback_url.clone(),
            email_events_url: self.email_events_url.clone(),
        })
    }

    fn accounts(&self) -> Result<Vec<Account>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            account: Vec<Given>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Given {
            sid: String,
            auth_token: String,
            #[serde(default)]
            api_keys: Vec<(String, String)>,
        }
        let Some(path) = &self.accounts else {
            let one = credentials::account(None, None)?;
            return Ok(vec![Account {
                sid: one.sid,
                auth_token: one.token.secret,
                api_keys: Vec::new(),
            }]);
        };
        let text = file_access::read_secret(path)
            .map_err(|problem| format!("{}: {problem}", path.display()))?;
        let all = toml::from_str::<File>(&text)
            .map_err(|error| format!("{}: {}", path.display(), error.message()))?;
        let all = all.account.into_iter();
        Ok(all
            .map(|Given { sid, auth_token, api_keys }| Account { sid, auth_token, api_keys })
            .collect())
    }
}

fn catalogue(path: &Path) -> Result<Vec<Content>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        content: Vec<Content>,
    }
    let file = toml::from_str::<File>(&read(path)?);
    file.map(|file| file.content).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
