//! Client of Twilio Verify: starts, checks and cancels verifications, and lists their attempts. The form of a check contains the code,
//! so neither a request nor an answer is logged.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, header};
use serde::Deserialize;

use super::{
    MAX_ANSWER_BYTES, MAX_PAGE_BYTES, Twilio, call,
    forward::{Forward, Forwarded},
};
use crate::send_client::{
    Pending, ProviderStatus, SendAnswer, SendClient, SendRequest, SentMessage, UnknownMessage,
};
use twilio_edge_domain::{
    sending::{
        call_failure::CallFailure,
        errors::ErrorTable,
        matching::Match,
        outcome::CallResponse,
        verification::start_outcome,
        verification_attempts::{AttemptSearch, ListedAttempt},
    },
    window::rfc3339,
};
use twilio_edge_platform::config;

/// Base URL of Twilio's own API.
const TWILIO: &str = "https://verify.twilio.com";

/// Attempts per page of a list. A number has at most some attempts within the time of one search.
const PAGE_SIZE: usize = 100;

const NO_CREDENTIALS: &str = "the account has no credentials in sending.file";

/// Page of the list of attempts.
#[derive(Debug, Deserialize)]
struct Attempts {
    attempts: Vec<ListedAttempt>,
    meta: Meta,
}

#[derive(Debug, Deserialize)]
struct Meta {
    next_page_url: Option<String>,
}

/// Client of Twilio Verify, with the credentials and connections of [`Twilio`].
#[derive(Clone)]
pub struct Verify {
    twilio: Twilio,
    base_url: Arc<str>,
}

impl Verify {
    /// Creates the client. A `sending.base_url` other than Twilio's own serves Verify as well, unless `verify.base_url` is set.
    pub fn new(twilio: Twilio, settings: &config::Verify) -> Verify {
        let base_url = match (settings.base_url.as_str(), &*twilio.base_url) {
            ("", "https://api.twilio.com") => TWILIO.into(),
            ("", base_url) => base_url.into(),
            (own, _) => own.trim_end_matches('/').into(),
        };
        Verify { twilio, base_url }
    }

    /// Returns whether the account has credentials.
    pub fn has_credentials(&self, account_sid: &str) -> bool {
        self.twilio.has_credentials(account_sid)
    }

    /// Returns the Verify Service of an account.
    pub fn service_sid(&self, account_sid: &str) -> Option<&str> {
        self.twilio.accounts.get(account_sid)?.verify_service_sid.as_deref()
    }

    /// Returns the account of a Verify Service.
    pub fn account_sid(&self, service_sid: &str) -> Option<&str> {
        let is_its = |sid: &Option<String>| sid.as_deref() == Some(service_sid);
        let mut accounts = self.twilio.accounts.iter();
        accounts
            .find(|(_, account)| is_its(&account.verify_service_sid))
            .map(|(sid, _)| sid.as_str())
    }

    /// Checks a code. The form has `Code`, and `VerificationSid` or `To`.
    pub async fn check(&self, account_sid: &str, service_sid: &str, form: String) -> CallResponse {
        self.post(account_sid, &format!("/v2/Services/{service_sid}/VerificationCheck"), form)
            .await
            .0
    }

    /// Cancels a verification.
    pub async fn cancel(
        &self,
        account_sid: &str,
        service_sid: &str,
        verification_sid: &str,
    ) -> CallResponse {
        let path = format!("/v2/Services/{service_sid}/Verifications/{verification_sid}");
        self.post(account_sid, &path, "Status=canceled".to_owned()).await.0
    }

    /// Forwards a request about a verification to Twilio once. `path` is the whole path.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, the connection fails, the answer is late, or it is larger
    /// than 2 MiB.
    pub async fn forward(
        &self,
        account_sid: &str,
        forward: Forward<'_>,
    ) -> Result<Forwarded, String> {
        let url = format!("{}{}", self.base_url, forward.path);
        self.twilio.forward_to(account_sid, url, forward).await
    }

    async fn post(
        &self,
        account_sid: &str,
        path: &str,
        form: String,
    ) -> (CallResponse, Option<String>) {
        let request = self.twilio.client.post(format!("{}{path}", self.base_url));
        let request =
            request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        match self.authorized(account_sid, request) {
            Some(request) => call(request, MAX_ANSWER_BYTES).await,
            None => (CallResponse::NotConnected(NO_CREDENTIALS.to_owned()), None),
        }
    }

    fn authorized(&self, account_sid: &str, request: RequestBuilder) -> Option<RequestBuilder> {
        let credentials = self.twilio.accounts.get(account_sid)?;
        let request = request.header(header::ACCEPT, "application/json");
        Some(request.basic_auth(&credentials.user, Some(&credentials.secret)))
    }

    /// Lists attempts. Returns the first page, and whether it is the whole list.
    async fn attempts(
        &self,
        account_sid: &str,
        conditions: &[(&str, &str)],
    ) -> Result<(Vec<ListedAttempt>, bool), String> {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(conditions)
            .append_pair("PageSize", &PAGE_SIZE.to_string())
            .finish();
        let url = format!("{}/v2/Attempts?{query}", self.base_url);
        let request = self.authorized(account_sid, self.twilio.client.get(url));
        match call(request.ok_or(NO_CREDENTIALS)?, MAX_PAGE_BYTES).await.0 {
            CallResponse::Http { status: 200, body, .. } => {
                let page: Attempts =
                    serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                let is_whole = page.meta.next_page_url.is_none();
                Ok((page.attempts, is_whole))
            }
            CallResponse::Http { status, .. } => Err(format!("status {status}")),
            CallResponse::NotConnected(reason) | CallResponse::Lost(reason) => Err(reason),
        }
    }
}

impl SendClient for Verify {
    fn timeout(&self) -> Duration {
        self.twilio.timeout
    }

    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer> {
        Box::pin(async move {
            let path = format!("/v2/Services/{}/Verifications", request.sender);
            let (answer, request_id) =
                self.post(request.account_sid, &path, request.form.to_owned()).await;
            let failure = CallFailure::of(&answer, errors);
            let outcome = start_outcome(answer, errors);
            SendAnswer { outcome, failure, request_id: request_id.unwrap_or_default() }
        })
    }

    fn status<'a>(
        &'a self,
        sent: SentMessage<'a>,
    ) -> Pending<'a, Result<Option<ProviderStatus>, String>> {
        Box::pin(async move {
            let SentMessage { request, provider_id, sent_ms } = sent;
            let conditions = [("VerificationSid", provider_id)];
            let (listed, _) = self.attempts(request.account_sid, &conditions).await?;
            let until_ms = sent_ms.saturating_add(self.timeout_ms());
            let search = AttemptSearch { channel: request.channel, begun_ms: sent_ms, until_ms };
            Ok(search.status_in(&listed))
        })
    }

    fn find<'a>(&'a self, unknown: UnknownMessage<'a>) -> Pending<'a, Result<Match, String>> {
        Box::pin(async move {
            let UnknownMessage { request, begun_ms, until_ms, absent_from_ms, at_ms } = unknown;
            let search = AttemptSearch { channel: request.channel, begun_ms, until_ms };
            // Twilio accepts whole seconds only.
            let since_ms = search.since_ms().div_euclid(1000).saturating_mul(1000);
            let since = rfc3339(since_ms).unwrap_or_default().replace(".000Z", "Z");
            let to = form_urlencoded::parse(request.form.as_bytes()).find(|(name, _)| name == "To");
            let to = to.map(|(_, to)| to.into_owned()).unwrap_or_default();
            let conditions = [
                ("ChannelData.To", to.as_str()),
                ("VerifyServiceSid", request.sender),
                ("DateCreatedAfter", &since),
            ];
            let (listed, is_whole) = self.attempts(request.account_sid, &conditions).await?;
            let is_late = absent_from_ms.is_some_and(|from_ms| at_ms >= from_ms);
            Ok(search.find_in(&listed, is_whole && is_late))
        })
    }
}

impl Verify {
    fn timeout_ms(&self) -> i64 {
        i64::try_from(self.twilio.timeout.as_millis()).unwrap_or(i64::MAX)
    }
}
