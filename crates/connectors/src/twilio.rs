//! Client of Twilio's REST API for messages and templates. Makes one call with a time limit, and reports whether the
//! request may have reached Twilio when it failed. Credentials are read from a file once, at start. The domain decides
//! the meaning of an answer.

mod accounts;
mod forward;
mod media;
mod studio;
mod verify;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, header, redirect};
use serde::Deserialize;

pub use self::accounts::problems;
use self::accounts::{Account, read};
pub use self::forward::{Forward, Forwarded};
pub use self::media::MediaAnswer;
pub use self::studio::Studio;
pub use self::verify::Verify;
use crate::{
    causes::with_causes,
    send_client::{Pending, ProviderStatus, SendAnswer, SendClient, SendRequest, SentMessage},
};
use twilio_edge_domain::{
    delivery::parse_retry_after,
    sending::{
        call_failure::CallFailure,
        errors::ErrorTable,
        matching::ListedMessage,
        outcome::{CallResponse, send_outcome},
        rate_limit::Rate,
        status_callback::with_message_id,
    },
    template::content::Content,
};
use twilio_edge_platform::config;

/// Largest answer that is read, in bytes. A message is one kilobyte.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Messages per page of a list, and the max_bytes page in bytes: a text is up to 1600 characters of six bytes each in
/// JSON.
const PAGE_SIZE: usize = 100;
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Time limit of connecting, within the time limit of the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One page of the list of messages.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Messages, the newest first.
    pub messages: Vec<ListedMessage>,
    /// URI of the next page; `None` on the last page.
    pub next_page_uri: Option<String>,
}

/// Templates per page of a list, and the max_bytes page in bytes: a template with ten cards is a few kilobytes.
const CONTENTS_PAGE_SIZE: usize = 100;
const MAX_CONTENTS_BYTES: usize = 8 << 20;

/// Path of the list of templates.
const CONTENTS_PATH: &str = "/v1/ContentAndApprovals";

/// One page of the list of templates.
#[derive(Debug, Deserialize)]
pub struct Contents {
    /// Templates, in Twilio's order.
    pub contents: Vec<Content>,
    /// Paging metadata.
    pub meta: Meta,
}

/// Paging metadata of a list.
#[derive(Debug, Deserialize)]
pub struct Meta {
    /// URL of the next page; `None` on the last page.
    pub next_page_url: Option<String>,
}

/// Client of Twilio for the accounts whose credentials are configured. Copies share the connections.
#[derive(Clone)]
pub struct Twilio {
    client: Client,
    base_url: Arc<str>,
    content_base_url: Arc<str>,
    status_callback_url: Arc<str>,
    timeout: Duration,
    accounts: Arc<BTreeMap<String, Account>>,
    /// Rate of a sender that has no rate of its own.
    default_rate: Rate,
}

impl Twilio {
    /// Creates the client with the credentials of the configured file, if there is one. Returns every problem of the
    /// file.
    pub fn open(settings: &config::Sending) -> Result<Twilio, Vec<String>> {
        let accounts = match settings.file.as_str() {
            "" => BTreeMap::new(),
            file => {
                let text = twilio_edge_platform::file_access::read_secret(file.as_ref())
                    .map_err(|problem| vec![problem])?;
                read(&text)?
            }
        };
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::from_millis(settings.timeout_ms);
        // No layer below may follow a redirect or retry: the message could be sent twice.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| vec![error.to_string()])?;
        Ok(Twilio {
            client,
            base_url: settings.base_url.trim_end_matches('/').into(),
            content_base_url: content_base_url(settings).trim_end_matches('/').into(),
            status_callback_url: settings.status_callback_url.as_str().into(),
            timeout,
            accounts: Arc::new(accounts),
            default_rate: Rate::whole(settings.per_second),
        })
    }

    /// Returns whether the account has credentials.
    pub fn has_credentials(&self, account_sid: &str) -> bool {
        self.accounts.contains_key(account_sid)
    }

    /// Returns the accounts that have credentials.
    pub fn account_sids(&self) -> impl Iterator<Item = String> {
        let sids: Vec<String> = self.accounts.keys().cloned().collect();
        sids.into_iter()
    }

    /// Returns whether no account has credentials.
    pub fn is_off(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Returns the rate of a sender or a Messaging Service.
    pub fn rate(&self, account_sid: &str, sender: &str) -> Rate {
        let account = self.accounts.get(account_sid);
        let rate = account.and_then(|account| account.rates.get(sender));
        rate.copied().unwrap_or(self.default_rate)
    }

    /// Returns the senders that have a rate of their own, and the rate of all others.
    pub fn rates(&self) -> (impl Iterator<Item = (&str, Rate)>, Rate) {
        let rates = self.accounts.values().flat_map(|account| &account.rates);
        (rates.map(|(sender, rate)| (sender.as_str(), *rate)), self.default_rate)
    }

    /// Returns the time limit of a call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Creates a message from a form. Its status callbacks contain our `id`. Returns the answer, and Twilio's request
    /// id, which Twilio's support asks for.
    async fn create(
        &self,
        account_sid: &str,
        form: &str,
        id: &str,
    ) -> (CallResponse, Option<String>) {
        let Some(credentials) = self.accounts.get(account_sid) else {
            return (
                CallResponse::NotConnected("the account has no credentials in sending.file".into()),
                None,
            );
        };
        let default_url =
            credentials.status_callback_url.as_deref().unwrap_or(&self.status_callback_url);
        let form = with_callback(form, default_url, id);
        let url = format!("{}/2010-04-01/Accounts/{account_sid}/Messages.json", self.base_url);
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret))
            .body(form);
        call(request, MAX_ANSWER_BYTES).await
    }

    /// Lists messages to a recipient, from a sender unless `from` is empty. Returns the first page, or the page at
    /// `next_page_uri`.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, or Twilio sends no valid page.
    pub async fn list(
        &self,
        account_sid: &str,
        to: &str,
        from: &str,
        next_page_uri: Option<&str>,
    ) -> Result<Page, String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("the account has no credentials in sending.file")?;
        let first = format!("/2010-04-01/Accounts/{account_sid}/Messages.json?");
        let uri = match next_page_uri {
            Some(uri) if uri.starts_with(&first) => uri.to_owned(),
            Some(_) => return Err("Twilio named a next page outside of the list".to_owned()),
            None => {
                let length = first.len();
                let mut query = form_urlencoded::Serializer::for_suffix(first, length);
                query.append_pair("To", to);
                if !from.is_empty() {
                    query.append_pair("From", from);
                }
                // The list is not filtered by DateSent, because a message in Twilio's queue has none yet.
                query.append_pair("PageSize", &PAGE_SIZE.to_string()).finish()
            }
        };
        let request = self
            .client
            .get(format!("{}{uri}", self.base_url))
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        match call(request, MAX_PAGE_BYTES).await.0 {
            CallResponse::Http { status: 200, body, .. } => {
                serde_json::from_slice(&body).map_err(|error| error.to_string())
            }
            CallResponse::Http { status, .. } => Err(format!("status {status}")),
            CallResponse::NotConnected(reason) | CallResponse::Lost(reason) => Err(reason),
        }
    }
}

/// Status of a message, in the part of its resource that is read.
#[derive(Debug, Deserialize)]
struct MessageStatus {
    status: String,
    error_code: Option<i64>,
}

impl Twilio {
    /// Returns the status and the error code of a message; `None` if Twilio does not have it. The code is empty without an
    /// error.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, or Twilio sends no valid answer.
    async fn message_status(
        &self,
        account_sid: &str,
        message_sid: &str,
    ) -> Result<Option<ProviderStatus>, String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("the account has no credentials in sending.file")?;
        let path = format!("/2010-04-01/Accounts/{account_sid}/Messages/{message_sid}.json");
        let request = self
            .client
            .get(format!("{}{path}", self.base_url))
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        match call(request, MAX_ANSWER_BYTES).await.0 {
            CallResponse::Http { status: 200, body, .. } => {
                let found: MessageStatus =
                    serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                let code = found.error_code.map(|code| code.to_string()).unwrap_or_default();
                Ok(Some((found.status, code)))
            }
            CallResponse::Http { status: 404, .. } => Ok(None),
            CallResponse::Http { status, .. } => Err(format!("status {status}")),
            CallResponse::NotConnected(reason) | CallResponse::Lost(reason) => Err(reason),
        }
    }

    /// Lists the templates of an account. Returns the first page, or the page at `next_page_url`.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, or Twilio sends no valid page.
    pub async fn contents(
        &self,
        account_sid: &str,
        next_page_url: Option<&str>,
    ) -> Result<Contents, String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("the account has no credentials in sending.file")?;
        let list = format!("{}{CONTENTS_PATH}?", self.content_base_url);
        let url = match next_page_url {
            Some(url) if url.starts_with(&list) => url.to_owned(),
            Some(_) => return Err("Twilio named a next page outside of the list".to_owned()),
            None => format!("{list}PageSize={CONTENTS_PAGE_SIZE}"),
        };
        let request = self
            .client
            .get(url)
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        match call(request, MAX_CONTENTS_BYTES).await.0 {
            CallResponse::Http { status: 200, body, .. } => {
                serde_json::from_slice(&body).map_err(|error| error.to_string())
            }
            CallResponse::Http { status: status @ (401 | 403), .. } => {
                Err(format!("status {status}: the credentials do not permit the Content API"))
            }
            CallResponse::Http { status, .. } => Err(format!("status {status}")),
            CallResponse::NotConnected(reason) | CallResponse::Lost(reason) => Err(reason),
        }
    }
}

impl SendClient for Twilio {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer> {
        Box::pin(async move {
            let SendRequest { account_sid, form, id, .. } = request;
            let (answer, request_id) = self.create(account_sid, form, id).await;
            let failure = CallFailure::of(&answer, errors);
            let outcome = send_outcome(answer, errors);
            SendAnswer { outcome, failure, request_id: request_id.unwrap_or_default() }
        })
    }

    fn status<'a>(
        &'a self,
        sent: SentMessage<'a>,
    ) -> Pending<'a, Result<Option<ProviderStatus>, String>> {
        Box::pin(self.message_status(sent.request.account_sid, sent.provider_id))
    }
}

/// Returns the base URL of the Content API. A `base_url` other than Twilio's own serves it as well.
fn content_base_url(settings: &config::Sending) -> &str {
    match (settings.content_base_url.as_str(), settings.base_url.as_str()) {
        ("", base_url) if base_url.trim_end_matches('/') == "https://api.twilio.com" => {
            "https://content.twilio.com"
        }
        ("", base_url) => base_url,
        (own, _) => own,
    }
}

/// Adds the callback URL with our id to the form: the form's own callback, or else the configured one.
fn with_callback(form: &str, default_url: &str, id: &str) -> String {
    let is_callback = |name: &str| name == "StatusCallback";
    let mut pairs = form_urlencoded::parse(form.as_bytes());
    let own = pairs.find(|(name, _)| is_callback(name)).map(|(_, url)| url.into_owned());
    let url = own.as_deref().unwrap_or(default_url);
    if url.is_empty() {
        return form.to_owned();
    }
    let others = form_urlencoded::parse(form.as_bytes()).filter(|(name, _)| !is_callback(name));
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(others)
        .append_pair("StatusCallback", &with_message_id(url, id))
        .finish()
}

/// Makes one call. Returns the answer and Twilio's request id.
async fn call(request: RequestBuilder, max_bytes: usize) -> (CallResponse, Option<String>) {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return (CallResponse::NotConnected(with_causes(&error.without_url())), None);
        }
        Err(error) => return (CallResponse::Lost(with_causes(&error.without_url())), None),
    };
    let text = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(|value| value.chars().take(64).collect::<String>())
    };
    let request_id = text("twilio-request-id");
    let retry_after = text("retry-after").as_deref().and_then(parse_retry_after);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= max_bytes => {
                body.extend_from_slice(&chunk);
            }
            Ok(None) => break,
            // An incomplete body is dropped: a success then has no message SID, and a refusal has no error text.
            Ok(Some(_)) | Err(_) => {
                body.clear();
                break;
            }
        }
    }
    (CallResponse::Http { status, retry_after, body }, request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_may_specify_the_callback_url() {
        let own = "To=a&StatusCallback=https%3A%2F%2Fown.example%2Fs&Body=%26";
        let callback = "StatusCallback=https%3A%2F%2Fown.example%2Fs%3Ftwilio_edge_message%3Dms_0";
        assert_eq!(
            with_callback(own, "https://default_url", "ms_0"),
            format!("To=a&Body=%26&{callback}")
        );
        assert_eq!(with_callback("To=a", "", "ms_0"), "To=a");
        let default_url =
            "To=a&StatusCallback=https%3A%2F%2Fdefault_url%3Ftwilio_edge_message%3Dms_0";
        assert_eq!(with_callback("To=a", "https://default_url", "ms_0"), default_url);
    }
}
