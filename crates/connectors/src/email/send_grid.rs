//! Client of SendGrid's API v3: one `POST /v3/mail/send` for one e-mail.
//! Source: twilio.com/docs/sendgrid/api-reference/mail-send.

use std::time::Duration;

use reqwest::{Client, Response, header, redirect};

use super::{EmailAccounts, Service, accounts::SendGridAccount};
use crate::{
    causes::with_causes,
    send_client::{Pending, SendAnswer, SendClient, SendRequest},
};
use twilio_edge_domain::{
    delivery::parse_retry_after,
    email::{content::Email, outcome::send_grid_outcome},
    sending::{
        call_failure::CallFailure,
        errors::ErrorTable,
        outcome::{CallResponse, SendOutcome},
    },
};
use twilio_edge_platform::{clock::now_ms, config};

/// Hosts of SendGrid: one for all, one for subusers in the EU.
const GLOBAL: &str = "https://api.sendgrid.com";
const EU: &str = "https://api.eu.sendgrid.com";

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Longest pause that `X-RateLimit-Reset` may ask for.
const MAX_RESET: Duration = Duration::from_secs(3600);

/// Time limit of connecting, within the time limit of the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Client of SendGrid for the accounts that use it.
pub struct SendGrid {
    client: Client,
    accounts: EmailAccounts,
    /// Base URL instead of SendGrid's hosts, for a test; empty: SendGrid.
    base_url: String,
    timeout: Duration,
}

impl SendGrid {
    /// Creates the client.
    ///
    /// # Errors
    /// Returns the reason if the TLS library cannot be initialized.
    pub fn new(
        accounts: EmailAccounts,
        settings: &config::Email,
        timeout: Duration,
    ) -> Result<SendGrid, String> {
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No layer below may follow a redirect or retry: the e-mail could be sent twice.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        let base_url = settings.base_url.trim_end_matches('/').to_owned();
        Ok(SendGrid { client, accounts, base_url, timeout })
    }

    fn account(&self, account_sid: &str) -> Option<&SendGridAccount> {
        match &self.accounts.0.get(account_sid)?.service {
            Service::SendGrid(account) => Some(account),
            Service::Smtp(_) => None,
        }
    }

    /// Makes one call. Returns the answer, and SendGrid's id of the e-mail.
    async fn call(
        &self,
        account: &SendGridAccount,
        body: String,
    ) -> (CallResponse, Option<String>) {
        let host = match (self.base_url.as_str(), account.is_eu) {
            ("", true) => EU,
            ("", false) => GLOBAL,
            (base_url, _) => base_url,
        };
        let request = self
            .client
            .post(format!("{host}/v3/mail/send"))
            .header(header::CONTENT_TYPE, "application/json")
            .bearer_auth(&account.api_key)
            .body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return (CallResponse::NotConnected(with_causes(&error.without_url())), None);
            }
            Err(error) => return (CallResponse::Lost(with_causes(&error.without_url())), None),
        };
        let id = text(&response, "x-message-id");
        let (retry_after, status) = (pause(&response), response.status().as_u16());
        let mut body = Vec::new();
        // An incomplete body is dropped: a refusal then has no reason. The header alone proves that SendGrid has an e-mail.
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER_BYTES => {
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    body.clear();
                    break;
                }
            }
        }
        (CallResponse::Http { status, retry_after, body }, id)
    }
}

fn text(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Returns the pause that SendGrid asks for: in `Retry-After`, or up to the time in `X-RateLimit-Reset`.
fn pause(response: &Response) -> Option<Duration> {
    let retry_after = text(response, "retry-after").as_deref().and_then(parse_retry_after);
    retry_after.or_else(|| {
        let reset_s: i64 = text(response, "x-ratelimit-reset")?.trim().parse().ok()?;
        let pause_ms = reset_s.checked_mul(1000)?.checked_sub(now_ms())?;
        u64::try_from(pause_ms).ok().map(|ms| Duration::from_millis(ms).min(MAX_RESET))
    })
}

impl SendClient for SendGrid {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer> {
        Box::pin(async move {
            let Some(account) = self.account(request.account_sid) else {
                return without_call("the account has no SendGrid key in email.file");
            };
            let Some(email) = Email::read(request.form) else {
                return without_call("the stored e-mail is not readable");
            };
            let (answer, id) = self.call(account, email.send_grid_json(request.id)).await;
            let failure = CallFailure::of(&answer, errors);
            let outcome = send_grid_outcome(answer, id.as_deref());
            SendAnswer { outcome, failure, request_id: String::new() }
        })
    }
}

/// Returns the answer of a message for which no call was made.
pub(super) fn without_call(reason: &str) -> SendAnswer {
    let outcome = SendOutcome::Retry {
        code: "not_connected".to_owned(),
        reason: reason.to_owned(),
        retry_after: None,
        is_throttled: false,
    };
    SendAnswer { outcome, failure: Some(CallFailure::NotConnected), request_id: String::new() }
}
