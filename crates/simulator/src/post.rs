//! Webhook calls in the manner of Twilio: timeouts and retries, which the URL's fragment may override. Source: twilio.com/docs/usage/webhooks/webhooks-connection-overrides. Must not know the content of the
//! webhook.

use std::time::Duration;

use reqwest::{Client, Url, header::CONTENT_TYPE, redirect};
use serde::Serialize;
use twilio_edge_filter::signature::Key;

use super::twiml::MAX_BYTES;
use super::webhook::{Content, SignedRequest};

/// Overrides of a fragment, or Twilio's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overrides {
    connect: Duration,
    read: Duration,
    total: Duration,
    retries: u32,
    policy: Vec<String>,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(15),
            total: Duration::from_secs(15),
            retries: 1,
            policy: vec!["ct".to_owned()],
        }
    }
}

impl Overrides {
    /// Reads `ct=..&rt=..&tt=..&rc=..&rp=..`; values that are out of bounds or unknown are ignored, as Twilio does.
    pub(super) fn read(fragment: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(fragment.as_bytes()) {
            let ms = |max: u64| {
                let ms: Option<u64> = value.parse().ok();
                ms.filter(|ms| (100..=max).contains(ms)).map(Duration::from_millis)
            };
            match &*name {
                "ct" => read.connect = ms(10_000).unwrap_or(read.connect),
                "rt" => read.read = ms(15_000).unwrap_or(read.read),
                "tt" => read.total = ms(15_000).unwrap_or(read.total),
                "rc" => {
                    let count: Option<u32> = value.parse().ok();
                    read.retries = count.filter(|count| *count <= 5).unwrap_or(read.retries);
                }
                "rp" => read.policy = value.split(',').map(str::to_owned).collect(),
                _ => {}
            }
        }
        read
    }

    fn retries_after(&self, outcome: &Outcome) -> bool {
        let kind = match outcome {
            Outcome::Status(400..500) => "4xx",
            Outcome::Status(500..) => "5xx",
            Outcome::Status(_) => return false,
            Outcome::NoConnection => "ct",
            Outcome::NoAnswer => "rt",
        };
        self.policy.iter().any(|policy| policy == kind || policy == "all")
    }
}

/// Outcome of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Status(u16),
    NoConnection,
    NoAnswer,
}

/// Outcomes of the calls of one webhook, in order.
pub(super) type Outcomes = Vec<Outcome>;

/// Calls of one URL, and the last answer.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub(super) outcomes: Outcomes,
    content_type: Option<String>,
    body: Vec<u8>,
}

/// Body of a successful answer, with its type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Called {
    /// Returns the successful answer, or Twilio's error code of a failed webhook.
    pub(super) fn answer(&self) -> Result<Answer<'_>, u32> {
        match self.outcomes.last() {
            Some(Outcome::Status(200..300)) => {
                Ok(Answer { content_type: self.content_type.as_deref(), body: &self.body })
            }
            None | Some(Outcome::NoConnection) => Err(11205),
            Some(Outcome::Status(_) | Outcome::NoAnswer) => Err(11200),
        }
    }
}

/// Calls `url` with an event, and repeats the call as the URL's fragment specifies. `signed_origin` is signed and sent as `Host`
/// instead of the called origin.
pub(super) async fn call(
    client: &Client,
    url: &str,
    signed_origin: Option<&str>,
    content: Content,
    key: &Key,
    event: &str,
) -> Called {
    let (bare, fragment) = url.split_once('#').unwrap_or((url, ""));
    let overrides = Overrides::read(fragment);
    let (origin, target) = split(bare);
    let mut signed =
        SignedRequest::new(signed_origin.unwrap_or(origin), target, content, key, event);
    if let Some((_, authority)) = signed_origin.and_then(|origin| origin.split_once("://")) {
        signed.headers.push(("host", authority.to_owned()));
    }
    let own = (overrides.connect != Overrides::default().connect)
        .then(|| self::client(overrides.connect));
    let client = match &own {
        Some(Ok(own)) => own,
        _ => client,
    };
    let mut called = Called::default();
    let all = async {
        for _ in 0..=overrides.retries {
            let outcome = attempt(client, origin, &signed, overrides.read, &mut called).await;
            called.outcomes.push(outcome);
            if !overrides.retries_after(&outcome) {
                break;
            }
        }
    };
    let ended = tokio::time::timeout(overrides.total, all).await;
    if ended.is_err() {
        called.outcomes.push(Outcome::NoAnswer);
    }
    called
}

async fn attempt(
    client: &Client,
    origin: &str,
    signed: &SignedRequest,
    read: Duration,
    called: &mut Called,
) -> Outcome {
    let Ok(url) = Url::parse(&format!("{origin}{}", signed.target)) else {
        return Outcome::NoConnection;
    };
    let request = if signed.method == "GET" { client.get(url) } else { client.post(url) };
    let mut request = request.timeout(read).body(signed.body.clone());
    for (name, value) in &signed.headers {
        request = request.header(*name, value);
    }
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Outcome::NoConnection,
        Err(_) => return Outcome::NoAnswer,
    };
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    called.content_type = content_type.map(str::to_owned);
    called.body.clear();
    // One byte more than the limit shows that the document is too large.
    while called.body.len() <= MAX_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => called.body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => return Outcome::NoAnswer,
        }
    }
    Outcome::Status(answer.status().as_u16())
}

/// Splits a URL into `https://host:1` and `/path?query`.
fn split(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
    let path = url.get(after_scheme..).and_then(|rest| rest.find(['/', '?']));
    let at = path.map_or(url.len(), |path| after_scheme.saturating_add(path));
    url.split_at_checked(at).unwrap_or((url, ""))
}

/// Returns a client for webhooks, without redirects and without a proxy from the environment.
pub(super) fn client(connect: Duration) -> Result<Client, String> {
    // An earlier call has chosen the provider for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        Client::builder().redirect(redirect::Policy::none()).no_proxy().connect_timeout(connect);
    client.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_failures_alone_are_retried_by_default() {
        let usual = Overrides::read("");
        assert!(usual.retries_after(&Outcome::NoConnection));
        assert!(
            !usual.retries_after(&Outcome::Status(500)) && !usual.retries_after(&Outcome::NoAnswer)
        );
        let own = Overrides::read("rc=3&rp=5xx,rt&ct=200&rt=9999999");
        assert_eq!(
            (own.retries, own.connect, own.read),
            (3, Duration::from_millis(200), Duration::from_secs(15))
        );
        assert!(
            own.retries_after(&Outcome::Status(503)) && !own.retries_after(&Outcome::Status(404))
        );
        assert_eq!(Overrides::read("rc=6"), Overrides::default());
    }

    #[test]
    fn urls_are_split_where_the_path_begins() {
        assert_eq!(split("https://a.example:1/b?c=/d"), ("https://a.example:1", "/b?c=/d"));
        assert_eq!(split("http://a?b"), ("http://a", "?b"));
        assert_eq!(split("http://a"), ("http://a", ""));
    }
}
