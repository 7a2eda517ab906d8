//! Requests of callers that are forwarded to Twilio with the credentials of their account: one call, with limits on
//! time and size. The caller of this module decides which requests are forwarded.

use reqwest::{
    Method,
    header::{self, HeaderMap, HeaderName},
};

use super::{MAX_PAGE_BYTES, Twilio};
use crate::causes::with_causes;

/// Headers of Twilio's answer that are returned with it.
const FORWARDED_HEADERS: [&str; 6] = [
    "content-type",
    "location",
    "retry-after",
    "twilio-concurrent-requests",
    "twilio-request-duration",
    "twilio-request-id",
];

/// Request of a caller that is forwarded to Twilio.
#[derive(Debug)]
pub struct Forward<'a> {
    /// GET, POST or DELETE.
    pub method: Method,
    /// Path and query after `/Accounts/AC..`; `.json` for the account itself. For Verify and Studio the whole path.
    pub path: &'a str,
    /// Form of a POST.
    pub form: Option<Vec<u8>>,
}

/// Twilio's answer to a forwarded request.
#[derive(Debug)]
pub struct Forwarded {
    /// HTTP status.
    pub status: u16,
    /// Headers of the answer that are returned to the caller.
    pub headers: HeaderMap,
    /// Body, of 2 MiB at most.
    pub body: Vec<u8>,
}

impl Twilio {
    /// Forwards a request to Twilio once, with the credentials of the account.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, the connection fails, the answer is late, or it is larger
    /// than 2 MiB.
    pub async fn forward(
        &self,
        account_sid: &str,
        forward: Forward<'_>,
    ) -> Result<Forwarded, String> {
        let url = format!("{}/2010-04-01/Accounts/{account_sid}{}", self.base_url, forward.path);
        self.forward_to(account_sid, url, forward).await
    }

    /// Forwards a request to this URL of Twilio.
    pub(super) async fn forward_to(
        &self,
        account_sid: &str,
        url: String,
        forward: Forward<'_>,
    ) -> Result<Forwarded, String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("the account has no credentials in sending.file")?;
        let Forward { method, form, .. } = forward;
        let mut request = self
            .client
            .request(method, url)
            .header(header::ACCEPT, "application/json, */*;q=0.5")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        if let Some(form) = form {
            request = request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form);
        }
        let failed = |error: reqwest::Error| with_causes(&error.without_url());
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let is_forwarded = |name: &HeaderName| FORWARDED_HEADERS.contains(&name.as_str());
        let headers = response.headers().iter().filter(|(name, _)| is_forwarded(name));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_PAGE_BYTES {
                return Err(format!("Twilio's answer has more than {MAX_PAGE_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Forwarded { status, headers, body })
    }
}
