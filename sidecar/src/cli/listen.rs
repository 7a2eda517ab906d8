//! `twilio-edge listen`: delivers a copy of each webhook to a program on this machine, one after the other, and prints its answers.
//! A copy has the form and the trusted headers of the webhook, and a header that marks it.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use reqwest::{Client, Url, header, redirect};
use serde_json::{Value, json};

use super::{
    credentials,
    failure::{fail, with_causes},
    globals::Globals,
    live::{self, LiveOptions, LiveWebhook},
};
use twilio_edge_contract::headers;
use twilio_edge_demo as demo;
use twilio_edge_filter::{
    form::Form,
    signature::{Key, Payload, sign},
};
use twilio_edge_platform::{clock::millis, terminal};
use twilio_edge_simulator::webhook::SIGNATURE_HEADER;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A copy has the header x-twilio-edge-copy: true. Its answer is printed and not used: the contact gets no reply, \
and a failed copy is not repeated. Ctrl-C ends the command."
)]
pub(super) struct Args {
    /// URL that receives the copies; without a path, the path of the webhook's route is added: http://localhost:3000
    #[arg(long, value_name = "URL")]
    forward: Url,
    /// Sign each copy for its URL as Twilio would, with TWILIO_AUTH_TOKEN or --token-file
    #[arg(long)]
    sign: bool,
    /// File with the auth token in its first line, for --sign
    #[arg(long, value_name = "FILE", requires = "sign")]
    token_file: Option<PathBuf>,
    /// Seconds to wait for an answer; Twilio waits 15
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout: u32,
    #[command(flatten)]
    live: LiveOptions,
}

/// Program that receives the copies.
struct Receiver {
    client: Client,
    url: Url,
    key: Option<Key>,
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let receiver = match Receiver::open(&args) {
        Ok(receiver) => receiver,
        Err(problem) => return fail(problem),
    };
    let is_json = globals.is_json();
    let listened = live::run(args.live.follow(async |webhook| {
        let begun = Instant::now();
        let answer = receiver.deliver(webhook).await;
        let line = match is_json {
            true => json_line(webhook, &answer, begun.elapsed()),
            false => line(webhook, &answer, begun.elapsed()),
        };
        match terminal::print(&line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }));
    match listened {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem),
    }
}

impl Receiver {
    fn open(args: &Args) -> Result<Receiver, String> {
        let url = args.forward.clone();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("--forward: {url}: must be an http or https URL"));
        }
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(args.timeout.into()))
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|error| with_causes(&error))?;
        let key = match args.sign {
            true => Some(key(args.token_file.as_ref())?),
            false => None,
        };
        Ok(Receiver { client, url, key })
    }

    /// Sends a copy. Returns the status of the answer, or why there is none.
    async fn deliver(&self, webhook: &LiveWebhook) -> Result<u16, String> {
        let url = self.url_for(live::text(webhook, "route"));
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(live::parameters(webhook))
            .finish();
        let mut request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .header(headers::COPY, "true");
        for (name, value) in trusted_headers(webhook) {
            request = request.header(name, escaped(value));
        }
        if let (Some(key), Ok(parsed)) = (&self.key, Form::parse(form.as_bytes())) {
            let signature = sign(url.as_str(), Payload::Form(&parsed), key);
            request = request.header(SIGNATURE_HEADER, signature);
        }
        match request.body(form).send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(with_causes(&error.without_url())),
        }
    }

    /// Returns the URL for a webhook of this route.
    fn url_for(&self, route: &str) -> Url {
        let mut url = self.url.clone();
        if url.path() == "/" && url.query().is_none() {
            url.set_path(route);
        }
        url
    }
}

/// Reads the key that signs copies: that of the caller's auth token, or of the demo's.
fn key(token_file: Option<&PathBuf>) -> Result<Key, String> {
    let token = match token_file {
        Some(file) => credentials::tokens_in(std::slice::from_ref(file))?.into_iter().next(),
        None => credentials::tokens_in_environment().into_iter().next(),
    };
    let (label, secret) = match token {
        Some(token) => (token.label, token.secret),
        None => ("the demo's auth token".to_owned(), demo::AUTH_TOKEN.to_owned()),
    };
    Key::auth_token(&label, &secret).ok_or_else(|| format!("{label} cannot be a key"))
}

/// Returns the trusted headers of a webhook that its record shows.
fn trusted_headers(webhook: &LiveWebhook) -> impl Iterator<Item = (&'static str, &str)> {
    let of = |name| live::text(webhook, name);
    let status = if of("class") == "status" { of("status") } else { "" };
    [
        (headers::VERIFIED, of("account_sid")),
        (headers::CLASS, of("class")),
        (headers::MESSAGE_SID, of("sid")),
        (headers::STATUS, status),
        (headers::FROM, of("from")),
        (headers::TO, of("to")),
        (headers::CHANNEL, of("channel")),
        (headers::DEDUPE, "first"),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
}

/// Escapes a value for a header as the filter does: values are visible ASCII and spaces.
fn escaped(value: &str) -> String {
    match value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        true => value.to_owned(),
        false => percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
            .to_string(),
    }
}

fn line(webhook: &LiveWebhook, answer: &Result<u16, String>, took: Duration) -> String {
    let answer = match answer {
        Ok(status) => format!("{status} ({} ms)", millis(took)),
        Err(problem) => format!("no answer: {problem}"),
    };
    format!("{}  => {answer}\n", live::line(webhook))
}

fn json_line(webhook: &LiveWebhook, answer: &Result<u16, String>, took: Duration) -> String {
    let mut webhook = webhook.clone();
    let (status, problem) = (answer.as_ref().ok(), answer.as_ref().err());
    let copy = json!({"status": status, "problem": problem, "duration_ms": millis(took)});
    webhook.insert("copy".to_owned(), copy);
    format!("{}\n", Value::Object(webhook))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(url: &str) -> Receiver {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Receiver { client: Client::new(), url: url.parse().unwrap(), key: None }
    }

    #[test]
    fn url_without_a_path_gets_that_of_the_route() {
        for (url, expected) in [
            ("http://localhost:3000", "http://localhost:3000/twilio/inbound"),
            ("http://localhost:3000/", "http://localhost:3000/twilio/inbound"),
            ("http://localhost:3000/hook", "http://localhost:3000/hook"),
            ("http://localhost:3000/?a=b", "http://localhost:3000/?a=b"),
        ] {
            assert_eq!(receiver(url).url_for("/twilio/inbound").as_str(), expected);
        }
    }

    #[test]
    fn headers_are_those_that_the_record_shows() {
        let webhook = json!({
            "account_sid": "AC1", "class": "inbound", "sid": "SM1", "status": "received",
            "from": "Caf\u{e9}", "to": "+14155550100", "channel": "sms", "error_code": null,
        });
        let Value::Object(webhook) = webhook else { unreachable!() };
        let found: Vec<(&str, String)> =
            trusted_headers(&webhook).map(|(name, value)| (name, escaped(value))).collect();
        let expected = [
            ("x-twilio-edge-verified", "AC1"),
            ("x-twilio-edge-class", "inbound"),
            ("x-twilio-edge-message-sid", "SM1"),
            ("x-twilio-edge-from", "Caf%C3%A9"),
            ("x-twilio-edge-to", "+14155550100"),
            ("x-twilio-edge-channel", "sms"),
            ("x-twilio-edge-dedupe", "first"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name, value.to_owned())));
    }
}
