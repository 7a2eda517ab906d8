//! `twilio-edge notify`: notifies one contact by a plan, through the API of a sidecar with an API key, as an application does. Every
//! request has an Idempotency-Key: if no answer comes, the same command with that key notifies the contact once.

use std::{process::ExitCode, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    api_client::{ApiClient, ApiRequest, idempotency_key, pair},
    listing,
};
use crate::cli::failure::fail;
use twilio_edge_domain::sending::plan::PlanChannel;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the contact, for WhatsApp and SMS: +15551234567
    #[arg(long, value_name = "NUMBER", required_unless_present = "email")]
    to: Option<String>,
    /// E-mail address of the contact
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Name of a plan in the routes
    #[arg(long, value_name = "NAME", required_unless_present = "steps")]
    plan: Option<String>,
    /// Step of a plan, as whatsapp, sms, email, or whatsapp:120 to move on without a delivery in 120 seconds; may be repeated
    #[arg(long = "step", value_name = "CHANNEL[:SECONDS]", conflicts_with = "plan", value_parser = step)]
    steps: Vec<Value>,
    /// Category: authentication, utility, service, marketing
    #[arg(long)]
    category: String,
    /// Text for every channel of the plan
    #[arg(long, required_unless_present_any = ["template", "email_template"])]
    text: Option<String>,
    /// Template for WhatsApp by its name in the catalogue
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Language of the template: en_US
    #[arg(long, requires = "template")]
    locale: Option<String>,
    /// Value of a template variable, as 1=Ada; may be repeated
    #[arg(long = "variable", value_name = "NAME=TEXT", value_parser = pair, requires = "template")]
    variables: Vec<(String, String)>,
    /// Subject of the e-mail
    #[arg(long, value_name = "TEXT", requires = "text")]
    subject: Option<String>,
    /// Template of the e-mail by its id at SendGrid: d-..
    #[arg(long, value_name = "ID", conflicts_with = "subject")]
    email_template: Option<String>,
    /// Earliest time of the first step, RFC 3339
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Metadata that answers about the notification return, as order=17; may be repeated
    #[arg(long = "metadata", value_name = "NAME=TEXT", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Only print the verdict of every rule for each step
    #[arg(long)]
    dry_run: bool,
    /// Wait up to this many seconds for the outcome of the current step
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "4",
        value_parser = clap::value_parser!(u32).range(0..=60))]
    wait: Option<u32>,
    /// Idempotency key; of two requests with the same key, one is carried out
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Account of the notification, for a key that is bound to no account: AC..
    #[arg(long, value_name = "SID")]
    account: Option<String>,
    #[command(flatten)]
    api: ApiClient,
}

pub(super) fn run(args: Args) -> ExitCode {
    let (token, key) = match (args.api.token(), idempotency_key(args.idempotency_key.as_deref())) {
        (Ok(token), Ok(key)) => (token, key),
        (Err(problem), _) | (_, Err(problem)) => return fail(problem),
    };
    let wait = Duration::from_secs(args.wait.unwrap_or_default().into());
    let request = ApiRequest {
        method: "POST",
        path: &format!("/v1/notifications?wait_ms={}", wait.as_millis()),
        body: Some(&args.body()),
        idempotency_key: (!args.dry_run).then_some(key.as_str()),
        wait,
    };
    match args.api.request(&token, request) {
        Ok((200..=299, shown)) => listing::write(&(shown + "\n")),
        Ok((_, problem)) => fail(problem),
        Err(problem) => fail(format_args!(
            "{problem}; the notification may have been accepted: repeat the command with --idempotency-key {key}, which notifies the contact once"
        )),
    }
}

fn step(text: &str) -> Result<Value, String> {
    let (channel, seconds) = match text.split_once(':') {
        Some((channel, seconds)) => {
            let seconds = seconds.parse::<u32>();
            (channel, Some(seconds.map_err(|_| format!("{text}: the seconds must be a number"))?))
        }
        None => (text, None),
    };
    let channel: PlanChannel = channel.parse()?;
    Ok(object([("channel", Some(json!(channel.as_str()))), ("within_s", seconds.map(Value::from))]))
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect())
}

fn texts(pairs: &[(String, String)]) -> Option<Value> {
    let texts: Map<String, Value> =
        pairs.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
    (!texts.is_empty()).then_some(Value::Object(texts))
}

impl Args {
    fn body(&self) -> Value {
        let word = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        let template = self.template.as_ref().map(|name| {
            object([
                ("name", Some(json!(name))),
                ("locale", word(&self.locale)),
                ("variables", texts(&self.variables)),
            ])
        });
        let text = || word(&self.text);
        let on_whatsapp = self.text.is_some() || template.is_some();
        let whatsapp =
            on_whatsapp.then(|| object([("text", text()), ("template", template.clone())]));
        let email = match (&self.email_template, &self.subject) {
            (Some(id), _) => Some(object([("template_id", Some(json!(id)))])),
            (None, Some(subject)) => {
                Some(object([("subject", Some(json!(subject))), ("text", text())]))
            }
            (None, None) => None,
        };
        let sms = self.text.as_ref().map(|_| object([("text", text())]));
        let plan = self.plan.as_ref().map_or_else(|| json!(self.steps), |name| json!(name));
        object([
            ("account_sid", word(&self.account)),
            ("to", Some(object([("number", word(&self.to)), ("email", word(&self.email))]))),
            ("category", Some(json!(self.category))),
            ("content", Some(object([("whatsapp", whatsapp), ("sms", sms), ("email", email)]))),
            ("plan", Some(plan)),
            ("send_at", word(&self.at)),
            ("metadata", texts(&self.metadata)),
            ("dry_run", self.dry_run.then_some(json!(true))),
        ])
    }
}
