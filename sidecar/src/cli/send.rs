//! `twilio-edge send`: sends one message through the API of a sidecar with an API key, as an application does. Every request
//! has an Idempotency-Key: if no answer comes, the same command with that key sends the message once.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};
use ureq::{Agent, http::Request};

use super::{credentials::variable, listing};
use crate::cli::failure::fail;

/// Environment variable with the API key, for calls without a key file.
const KEY: &str = "TWILIO_EDGE_API_KEY";

/// Time limit of an answer, in addition to `--wait`.
const PATIENCE: Duration = Duration::from_secs(20);

/// Largest key file, in bytes.
const LARGEST_KEY: usize = 4096;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recipient: +15551234567, whatsapp:+15551234567
    #[arg(long, value_name = "NUMBER")]
    to: String,
    /// Sender; without this and --service, a route selects it
    #[arg(long, value_name = "NUMBER", conflicts_with = "service")]
    from: Option<String>,
    /// Messaging Service that sends: MG..
    #[arg(long, value_name = "SID")]
    service: Option<String>,
    /// Text
    #[arg(long, required_unless_present_any = ["media", "content_sid", "template"])]
    body: Option<String>,
    /// URL of a medium; may be repeated
    #[arg(long, value_name = "URL")]
    media: Vec<String>,
    /// Template by its SID at Twilio: HX..
    #[arg(long, value_name = "SID", conflicts_with_all = ["body", "media", "template"])]
    content_sid: Option<String>,
    /// Template by its name in the catalogue
    #[arg(long, value_name = "NAME", conflicts_with_all = ["body", "media"])]
    template: Option<String>,
    /// Language of the template: en_US
    #[arg(long, requires = "template")]
    locale: Option<String>,
    /// Value of a template variable, as 1=Ada; may be repeated
    #[arg(long = "variable", value_name = "NAME=TEXT", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Category: authentication, utility, service, marketing
    #[arg(long)]
    category: Option<String>,
    /// Earliest send time, RFC 3339
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// URL to which Twilio reports the statuses, instead of the configured one; it also gets the end of a message that
    /// Twilio never receives
    #[arg(long, value_name = "URL")]
    status_callback: Option<String>,
    /// Seconds after which the message must no longer be sent: 1 to 36000
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=36_000))]
    validity_period: Option<u32>,
    /// Twilio's price limit, which Twilio ignores since June 2024
    #[arg(long, value_name = "PRICE")]
    max_price: Option<String>,
    /// Metadata that answers about the message return, as order=17; may be repeated
    #[arg(long = "metadata", value_name = "NAME=TEXT", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Only print the verdict of every rule
    #[arg(long)]
    dry_run: bool,
    /// Wait up to this many seconds for Twilio's answer
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "4",
        value_parser = clap::value_parser!(u32).range(0..=60))]
    wait: Option<u32>,
    /// Idempotency key; of two requests with the same key, one is sent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Account of the message, for a key that is bound to no account: AC..
    #[arg(long, value_name = "SID")]
    account: Option<String>,
    /// URL of the sidecar
    #[arg(long, env = "TWILIO_EDGE_API_URL", default_value = "http://127.0.0.1:8081")]
    url: String,
    /// File with an API key of scope app; default: TWILIO_EDGE_API_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(args: Args) -> ExitCode {
    let token = match args.token() {
        Ok(token) => token,
        Err(problem) => return fail(problem),
    };
    let key = match (&args.idempotency_key, getrandom::u64()) {
        (Some(key), _) => key.clone(),
        (None, Ok(dice)) => format!("cli-{dice:016x}"),
        (None, Err(error)) => return fail(format_args!("no random bytes: {error}")),
    };
    match args.request(&token, &key) {
        Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
        Ok((_, problem)) => fail(problem),
        Err(problem) => fail(format_args!(
            "{problem}; the message may have been accepted: repeat the command with --idempotency-key {key}, which sends it once"
        )),
    }
}

impl Args {
    fn token(&self) -> Result<String, String> {
        let Some(file) = &self.key_file else {
            return variable(KEY)
                .ok_or_else(|| format!("there is no API key: use --key-file, or set {KEY}"));
        };
        let text = twilio_edge_platform::file_access::read_secret(file)
            .map_err(|problem| format!("--key-file: {}: {problem}", file.display()))?;
        let token = text.trim();
        let is_one = (1..=LARGEST_KEY).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_one {
            true => Ok(token.to_owned()),
            false => Err(format!("--key-file: {}: has no key", file.display())),
        }
    }

    /// Sends the request; returns the HTTP status and the text to print.
    fn request(&self, token: &str, key: &str) -> Result<(u16, String), String> {
        let wait = Duration::from_secs(self.wait.unwrap_or_default().into());
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE + wait))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let url =
            format!("{}/v1/messages?wait_ms={}", self.url.trim_end_matches('/'), wait.as_millis());
        let mut request = Request::post(url)
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json");
        if !self.dry_run {
            request = request.header("Idempotency-Key", key);
        }
        let request = request.body(self.body().to_string()).map_err(|error| error.to_string())?;
        let mut answer = agent.run(request).map_err(|error| format!("{}: {error}", self.url))?;
        let status = answer.status().as_u16();
        let body =
            answer.body_mut().read_to_string().map_err(|error| format!("{}: {error}", self.url))?;
        let body: Value = serde_json::from_str(&body).map_err(|_| {
            format!(
                "--url: {}: answered with status {status} and no JSON; check that it is a sidecar",
                self.url
            )
        })?;
        let shown = match status {
            200..=299 => serde_json::to_string_pretty(&body).unwrap_or_default(),
            _ => problem(&body),
        };
        Ok((status, shown))
    }

    fn body(&self) -> Value {
        let variables: Map<String, Value> =
            self.variables.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        let mut fields = Map::new();
        let texts = [
            ("account_sid", &self.account),
            ("from", &self.from),
            ("messaging_service_sid", &self.service),
            ("body", &self.body),
            ("content_sid", &self.content_sid),
            ("category", &self.category),
            ("send_at", &self.at),
            ("status_callback", &self.status_callback),
            ("max_price", &self.max_price),
        ];
        fields.insert("to".to_owned(), json!(self.to));
        for (name, text) in texts {
            if let Some(text) = text {
                fields.insert(name.to_owned(), json!(text));
            }
        }
        if let Some(period) = self.validity_period {
            fields.insert("validity_period_s".to_owned(), json!(period));
        }
        if !self.metadata.is_empty() {
            let metadata = self.metadata.iter().map(|(name, text)| (name.clone(), json!(text)));
            fields.insert("metadata".to_owned(), Value::Object(metadata.collect()));
        }
        if !self.media.is_empty() {
            fields.insert("media".to_owned(), json!(self.media));
        }
        if let Some(name) = &self.template {
            let mut template = Map::from_iter([("name".to_owned(), json!(name))]);
            if let Some(locale) = &self.locale {
                template.insert("locale".to_owned(), json!(locale));
            }
            if !variables.is_empty() {
                template.insert("variables".to_owned(), Value::Object(variables));
            }
            fields.insert("template".to_owned(), Value::Object(template));
        } else if !variables.is_empty() {
            fields.insert("content_variables".to_owned(), Value::Object(variables));
        }
        if self.dry_run {
            fields.insert("dry_run".to_owned(), json!(true));
        }
        Value::Object(fields)
    }
}

/// Formats a problem document as one line.
fn problem(body: &Value) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, title, detail, remedy) =
        (text("code"), text("title"), text("detail"), text("remedy"));
    let text = if detail.is_empty() { title } else { detail };
    format!("{code}: {text} {remedy}").trim().to_owned()
}
