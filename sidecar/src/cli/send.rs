//! `twilio-edge send`: sends one message or e-mail through the API of a sidecar with an API key, as an application does. Every
//! request has an Idempotency-Key: if no answer comes, the same command with that key sends the message once.

use std::{process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    api_client::{ApiClient, ApiRequest, idempotency_key, pair},
    listing,
};
use crate::cli::failure::fail;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Recipient: +15551234567, whatsapp:+15551234567, ava@example.com
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Sender; without this and --service, a route selects it
    #[arg(long, value_name = "ADDRESS", conflicts_with = "service")]
    from: Option<String>,
    /// Messaging Service that sends: MG..
    #[arg(long, value_name = "SID")]
    service: Option<String>,
    /// Text
    #[arg(long, required_unless_present_any = ["media", "content_sid", "template", "html"])]
    body: Option<String>,
    /// Subject of an e-mail
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["media", "content_sid", "service"])]
    subject: Option<String>,
    /// HTML of an e-mail, beside its text or instead of it
    #[arg(long, requires = "subject")]
    html: Option<String>,
    /// URL of a medium; may be repeated
    #[arg(long, value_name = "URL")]
    media: Vec<String>,
    /// Template by its SID at Twilio: HX..
    #[arg(long, value_name = "SID", conflicts_with_all = ["body", "media", "template"])]
    content_sid: Option<String>,
    /// Template by its name in the catalogue, or of an e-mail by its id at SendGrid: d-..
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
    #[command(flatten)]
    api: ApiClient,
}

pub(super) fn run(args: Args) -> ExitCode {
    let token = match args.api.token() {
        Ok(token) => token,
        Err(problem) => return fail(problem),
    };
    let key = match idempotency_key(args.idempotency_key.as_deref()) {
        Ok(key) => key,
        Err(problem) => return fail(problem),
    };
    let wait = Duration::from_secs(args.wait.unwrap_or_default().into());
    let resource = if args.is_email() { "emails" } else { "messages" };
    let request = ApiRequest {
        method: "POST",
        path: &format!("/v1/{resource}?wait_ms={}", wait.as_millis()),
        body: Some(&args.body()),
        idempotency_key: (!args.dry_run).then_some(key.as_str()),
        wait,
    };
    match args.api.request(&token, request) {
        Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
        Ok((_, problem)) => fail(problem),
        Err(problem) => fail(format_args!(
            "{problem}; the message may have been accepted: repeat the command with --idempotency-key {key}, which sends it once"
        )),
    }
}

impl Args {
    fn is_email(&self) -> bool {
        self.to.contains('@')
    }

    fn body(&self) -> Value {
        let variables: Map<String, Value> =
            self.variables.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        let mut fields = Map::new();
        let texts = [
            ("account_sid", &self.account),
            ("from", &self.from),
            ("messaging_service_sid", &self.service),
            (if self.is_email() { "text" } else { "body" }, &self.body),
            ("subject", &self.subject),
            ("html", &self.html),
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
        if let Some(id) = self.template.as_ref().filter(|_| self.is_email()) {
            fields.insert("template_id".to_owned(), json!(id));
            fields.insert("data".to_owned(), Value::Object(variables));
        } else if let Some(name) = &self.template {
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
