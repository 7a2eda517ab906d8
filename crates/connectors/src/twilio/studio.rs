//! Client of Twilio Studio: starts executions of flows, fetches them, and searches the list of a flow for an execution whose start has
//! no clear answer.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, header};
use serde::Deserialize;

use super::{
    MAX_ANSWER_BYTES, MAX_PAGE_BYTES, Meta, Twilio, call,
    forward::{Forward, Forwarded},
};
use crate::send_client::{Pending, SendAnswer, SendClient, SendRequest, UnknownMessage};
use twilio_edge_domain::{
    sending::{
        call_failure::CallFailure,
        errors::ErrorTable,
        flow::{Execution, ExecutionSearch, has_id, start_outcome},
        matching::Match,
        outcome::CallResponse,
    },
    window::rfc3339,
};
use twilio_edge_platform::config;

/// Base URL of Twilio's own API.
const TWILIO: &str = "https://studio.twilio.com";

/// Executions per page of a list.
const PAGE_SIZE: usize = 100;

/// Upper bound of pages of one search. If a list is longer, absence from it proves nothing.
const MAX_PAGES: usize = 5;

/// Upper bound of contexts that one search reads.
const MAX_CANDIDATES: usize = 20;

const NO_CREDENTIALS: &str = "the account has no credentials in sending.file";

/// Page of the list of executions.
#[derive(Debug, Deserialize)]
struct Executions {
    executions: Vec<Execution>,
    meta: Meta,
}

/// Client of Twilio Studio, with the credentials and connections of [`Twilio`].
#[derive(Clone)]
pub struct Studio {
    twilio: Twilio,
    base_url: Arc<str>,
}

impl Studio {
    /// Creates the client. A `sending.base_url` other than Twilio's own serves Studio as well, unless `studio.base_url` is set.
    pub fn new(twilio: Twilio, settings: &config::Studio) -> Studio {
        let base_url = match (settings.base_url.as_str(), &*twilio.base_url) {
            ("", "https://api.twilio.com") => TWILIO.into(),
            ("", base_url) => base_url.into(),
            (own, _) => own.trim_end_matches('/').into(),
        };
        Studio { twilio, base_url }
    }

    /// Fetches an execution; `None` if Twilio does not have it.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, or Twilio sends no valid answer.
    pub async fn fetch(
        &self,
        account_sid: &str,
        flow_sid: &str,
        execution_sid: &str,
    ) -> Result<Option<Execution>, String> {
        let path = format!("/v2/Flows/{flow_sid}/Executions/{execution_sid}");
        match self.get(account_sid, &path, MAX_PAGE_BYTES).await? {
            Some(body) => {
                serde_json::from_slice(&body).map(Some).map_err(|error| error.to_string())
            }
            None => Ok(None),
        }
    }

    /// Forwards a request about executions to Twilio once. `path` is the whole path.
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

    /// Returns the body of an answer 200; `None` for 404.
    async fn get(
        &self,
        account_sid: &str,
        path: &str,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, String> {
        let request = self.twilio.client.get(format!("{}{path}", self.base_url));
        let request = self.authorized(account_sid, request).ok_or(NO_CREDENTIALS)?;
        match call(request, max_bytes).await.0 {
            CallResponse::Http { status: 200, body, .. } => Ok(Some(body)),
            CallResponse::Http { status: 404, .. } => Ok(None),
            CallResponse::Http { status, .. } => Err(format!("status {status}")),
            CallResponse::NotConnected(reason) | CallResponse::Lost(reason) => Err(reason),
        }
    }

    fn authorized(&self, account_sid: &str, request: RequestBuilder) -> Option<RequestBuilder> {
        let credentials = self.twilio.accounts.get(account_sid)?;
        let request = request.header(header::ACCEPT, "application/json");
        Some(request.basic_auth(&credentials.user, Some(&credentials.secret)))
    }

    /// Lists the executions of a flow that were created in a period. Returns them, and whether the list is whole.
    async fn list(
        &self,
        request: &SendRequest<'_>,
        (since_ms, until_ms): (i64, i64),
    ) -> Result<(Vec<Execution>, bool), String> {
        // Twilio documents whole seconds.
        let time = |at_ms: i64| {
            let whole_ms = at_ms.div_euclid(1000).saturating_mul(1000);
            rfc3339(whole_ms).unwrap_or_default().replace(".000Z", "Z")
        };
        let path = format!("/v2/Flows/{}/Executions?", request.sender);
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("DateCreatedFrom", &time(since_ms))
            .append_pair("DateCreatedTo", &time(until_ms.saturating_add(1000)))
            .append_pair("PageSize", &PAGE_SIZE.to_string())
            .finish();
        let first = format!("{}{path}", self.base_url);
        let mut next = format!("{path}{query}");
        let mut listed = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(body) = self.get(request.account_sid, &next, MAX_PAGE_BYTES).await? else {
                return Ok((listed, true));
            };
            let page: Executions =
                serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            listed.extend(page.executions);
            next = match page.meta.next_page_url {
                None => return Ok((listed, true)),
                Some(url) => match url.strip_prefix(&*self.base_url) {
                    Some(path) if url.starts_with(&first) => path.to_owned(),
                    _ => return Err("Twilio named a next page outside of the list".to_owned()),
                },
            };
        }
        Ok((listed, false))
    }

    /// Returns whether the execution has our id.
    async fn is_ours(
        &self,
        request: &SendRequest<'_>,
        execution: &Execution,
    ) -> Result<bool, String> {
        let path = format!("/v2/Flows/{}/Executions/{}/Context", request.sender, execution.sid);
        let context = self.get(request.account_sid, &path, MAX_PAGE_BYTES).await?;
        Ok(context.is_some_and(|context| has_id(&context, request.id)))
    }
}

impl SendClient for Studio {
    fn timeout(&self) -> Duration {
        self.twilio.timeout
    }

    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer> {
        Box::pin(async move {
            let url = format!("{}/v2/Flows/{}/Executions", self.base_url, request.sender);
            let form = "application/x-www-form-urlencoded";
            let call_request = self.twilio.client.post(url).header(header::CONTENT_TYPE, form);
            let call_request = call_request.body(request.form.to_owned());
            let (answer, request_id) = match self.authorized(request.account_sid, call_request) {
                Some(call_request) => call(call_request, MAX_ANSWER_BYTES).await,
                None => (CallResponse::NotConnected(NO_CREDENTIALS.to_owned()), None),
            };
            let failure = CallFailure::of(&answer, errors);
            let outcome = start_outcome(answer, errors);
            SendAnswer { outcome, failure, request_id: request_id.unwrap_or_default() }
        })
    }

    fn find<'a>(&'a self, unknown: UnknownMessage<'a>) -> Pending<'a, Result<Match, String>> {
        Box::pin(async move {
            let UnknownMessage { request, begun_ms, until_ms, absent_from_ms, at_ms } = unknown;
            let search = ExecutionSearch { form: request.form, begun_ms, until_ms };
            let (listed, is_whole) = self.list(&request, search.period_ms()).await?;
            let candidates: Vec<&Execution> =
                listed.iter().filter(|execution| search.may_be(execution)).collect();
            let is_complete = is_whole && candidates.len() <= MAX_CANDIDATES;
            let mut ours = Vec::new();
            for execution in candidates.into_iter().take(MAX_CANDIDATES) {
                if self.is_ours(&request, execution).await? {
                    ours.push(execution.sid.clone());
                }
            }
            let is_late = absent_from_ms.is_some_and(|from_ms| at_ms >= from_ms);
            Ok(search.conclude(&ours, is_complete && is_late))
        })
    }
}
