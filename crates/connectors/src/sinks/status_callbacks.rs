//! Built-in sink of the sidecar's own status callbacks: one form for each delivery, to the StatusCallback of the caller, with
//! Twilio's signature. Connects to public addresses only, like the check of media. Does not know which messages are
//! reported.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use reqwest::{Client, header, redirect};
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, RetryPolicy, SinkAnswer, outcome_of_response, parse_retry_after},
    delivery_attempt::{EXCERPT_BYTES, excerpt},
    event::{Delivery, SinkEvent},
    media::url_policy::UrlPolicy,
    sending::status_callback::{SINK, StatusCallback, signature},
    sink_filter::SinkFilter,
};

use super::{Sink, Sinks, client::read_beginning, sink_type::OpenSink};
use crate::{
    causes::with_causes,
    public_resolver::{NotPublic, PublicResolver, System},
};

/// Time limit of connecting and of the answer, each.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Callbacks that one sidecar sends at the same time.
const CONCURRENCY: usize = 16;

/// Retries of one callback.
const RETRY_POLICY: RetryPolicy = RetryPolicy {
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_secs(300),
    give_up_after: Duration::from_secs(4 * 3600),
};

/// Future of an auth token.
pub type AuthTokenLookup<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// Source of the auth tokens with which Twilio signs the requests of an account.
pub trait AuthTokens: fmt::Debug + Send + Sync {
    /// Returns the token in use; `None` if the account has none.
    fn auth_token<'a>(&'a self, account_sid: &'a str) -> AuthTokenLookup<'a>;
}

/// The sink. It has no settings in the sinks file.
#[derive(Debug)]
struct StatusCallbacks {
    client: Client,
    places: UrlPolicy,
    tokens: Arc<dyn AuthTokens>,
}

impl Sinks {
    /// Returns the built-in sink of status callbacks, alone. `places` are the permitted locations of URLs.
    ///
    /// # Errors
    /// Returns the problem of the HTTP client.
    pub fn of_status_callbacks(
        places: &UrlPolicy,
        tokens: Arc<dyn AuthTokens>,
    ) -> Result<Sinks, String> {
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver =
            PublicResolver { lookup: Arc::new(System), places: Arc::new(places.clone()) };
        // No proxy: it would connect to addresses that were not checked. No redirects: the signature is for this URL.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(resolver))
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        let sink = Sink {
            name: SINK.to_owned(),
            type_name: SINK,
            filter: SinkFilter::default(),
            retry_policy: RETRY_POLICY,
            concurrency: CONCURRENCY,
            attempt_timeout: 2 * TIMEOUT,
            pace: None,
            open: Box::new(StatusCallbacks { client, places: places.clone(), tokens }),
        };
        Ok(Sinks { all: [sink].into() })
    }
}

impl OpenSink for StatusCallbacks {
    fn deliver<'a>(
        &'a self,
        delivery: &'a Delivery<'_>,
    ) -> Pin<Box<dyn Future<Output = SinkAnswer> + Send + 'a>> {
        Box::pin(self.send(delivery))
    }
}

impl StatusCallbacks {
    async fn send(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let refused = |reason: String| SinkAnswer::from(DeliveryOutcome::Refused { reason });
        let callback = match &delivery.event {
            SinkEvent::Operational(event) => serde_json::from_str::<StatusCallback>(event.data())
                .map(|callback| (callback, event.account_sid()))
                .map_err(|error| error.to_string()),
            SinkEvent::Webhook(_) => Err("the event is a webhook".to_owned()),
        };
        let (StatusCallback { url, form }, account_sid) = match callback {
            Ok(callback) => callback,
            Err(problem) => return refused(problem),
        };
        let url = match self.places.read(&url) {
            Ok(url) => url,
            Err(problem) => return refused(format!("the StatusCallback URL {}", problem.detail)),
        };
        let token = self.tokens.auth_token(account_sid).await;
        let Some(signature) = token.and_then(|token| signature(&token, url.as_str(), &form)) else {
            let reason =
                "accounts.file has no auth token of the account, so the callback cannot be signed";
            return failed(reason.to_owned());
        };
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .header(header::ACCEPT, "*/*")
            .header("x-twilio-signature", signature)
            .header("i-twilio-idempotency-token", &delivery.id)
            .body(form);
        match request.send().await {
            Ok(response) => {
                let wait = response.headers().get(header::RETRY_AFTER);
                let wait = wait.and_then(|wait| wait.to_str().ok()).and_then(parse_retry_after);
                let status = response.status().as_u16();
                let excerpt = excerpt(&read_beginning(response, EXCERPT_BYTES).await);
                let outcome = match outcome_of_response(status, wait, &excerpt) {
                    // Each URL is a receiver of its own: its outage pauses no other callback.
                    DeliveryOutcome::Failed { reason, retry_after, .. } => {
                        DeliveryOutcome::Failed { reason, retry_after, is_outage: false }
                    }
                    outcome => outcome,
                };
                SinkAnswer { status: Some(status), excerpt, ..outcome.into() }
            }
            // A name that cannot be resolved now looks the same as one that is not public.
            Err(error) if is_not_public(&error) => {
                failed("the StatusCallback URL is not at a public address".to_owned())
            }
            // The URL is removed from the reason, because it may contain a token.
            Err(error) => failed(with_causes(&error.without_url())),
        }
    }
}

fn failed(reason: String) -> SinkAnswer {
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: false }.into()
}

fn is_not_public(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<NotPublic>() || error.source().is_some_and(is_not_public)
}

#[cfg(test)]
mod tests {
    use twilio_edge_domain::operational_event::{PublishedEvent, StoredEvent};

    use super::*;

    #[derive(Debug)]
    struct NoTokens;

    impl AuthTokens for NoTokens {
        fn auth_token<'a>(&'a self, _account_sid: &'a str) -> AuthTokenLookup<'a> {
            Box::pin(async { None })
        }
    }

    async fn outcome(data: &str) -> DeliveryOutcome {
        let places = UrlPolicy::new(&[], &["443".to_owned()], false).unwrap();
        let sinks = Sinks::of_status_callbacks(&places, Arc::new(NoTokens)).unwrap();
        let stored = StoredEvent {
            event_id: "status_callback:ms_1",
            event_type: "status_callback",
            account_sid: "AC1",
            key: "ms_1",
            recorded_at_ms: 0,
            data,
            replay_id: None,
        };
        let event = SinkEvent::Operational(PublishedEvent::of(stored).unwrap());
        let delivery = Delivery { id: "d".to_owned(), event, form: None, replay_id: None };
        sinks.get(SINK).unwrap().deliver(&delivery).await.outcome
    }

    #[tokio::test]
    async fn internal_address_is_refused_and_a_missing_token_is_retried() {
        for (url, reason) in [
            ("https://127.0.0.1/s", "the StatusCallback URL is not at a public address"),
            ("https://10.0.0.1/s", "the StatusCallback URL is not at a public address"),
            ("https://metadata.internal/s", "the StatusCallback URL is not at a public address"),
            ("ftp://app.example/s", "the StatusCallback URL must begin with https://"),
        ] {
            let data = format!(r#"{{"url": "{url}", "form": "MessageSid=SM1"}}"#);
            let DeliveryOutcome::Refused { reason: found } = outcome(&data).await else {
                panic!("{url}")
            };
            assert!(found.starts_with(reason), "{found}");
        }
        let DeliveryOutcome::Refused { .. } = outcome(r#"{"url": 1}"#).await else { panic!() };
        let data = r#"{"url": "https://app.example/s", "form": "MessageSid=SM1"}"#;
        let DeliveryOutcome::Failed { reason, is_outage: false, .. } = outcome(data).await else {
            panic!()
        };
        assert!(reason.starts_with("accounts.file has no auth token"), "{reason}");
    }
}
