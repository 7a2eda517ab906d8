//! Media of messages at Twilio: one request for the bytes, with the credentials of the account, and one for their
//! deletion. Twilio redirects to its content network, whose servers must not receive the credentials.

use std::time::Duration;

use reqwest::{Response, Url, header};

use super::{Forward, Twilio};
use crate::causes::with_causes;

/// Twilio's answer to a request for the bytes of a medium.
#[derive(Debug)]
pub enum MediaAnswer {
    /// An answer with any status. Redirects are not followed.
    Response(Response),
    /// The account has no credentials.
    NoCredentials,
    /// No answer; the text is the reason.
    Failed(String),
}

impl Twilio {
    /// Requests the bytes of a medium with the credentials of the account.
    pub async fn media(
        &self,
        account_sid: &str,
        message_sid: &str,
        media_sid: &str,
        limit: Duration,
    ) -> MediaAnswer {
        let Some(credentials) = self.accounts.get(account_sid) else {
            return MediaAnswer::NoCredentials;
        };
        let base = &self.base_url;
        let path = format!("/2010-04-01/Accounts/{account_sid}/Messages/{message_sid}");
        let request = self
            .client
            .get(format!("{base}{path}/Media/{media_sid}"))
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, "identity")
            .basic_auth(&credentials.user, Some(&credentials.secret))
            .timeout(limit);
        match request.send().await {
            Ok(response) => MediaAnswer::Response(response),
            Err(error) => MediaAnswer::Failed(with_causes(&error.without_url())),
        }
    }

    /// Returns whether a URL is at the origin that the operator configured for Twilio.
    pub fn is_own_origin(&self, url: &Url) -> bool {
        Url::parse(&self.base_url).is_ok_and(|base| base.origin() == url.origin())
    }

    /// Requests a URL at the configured origin, without credentials.
    ///
    /// # Errors
    /// Returns the reason if there is no answer.
    pub async fn media_at(&self, url: Url, limit: Duration) -> Result<Response, String> {
        let request = self.client.get(url).header(header::ACCEPT_ENCODING, "identity");
        request.timeout(limit).send().await.map_err(|error| with_causes(&error.without_url()))
    }

    /// Deletes a medium. Returns Twilio's status.
    ///
    /// # Errors
    /// Returns the reason if the account has no credentials, or there is no answer.
    pub async fn delete_media(
        &self,
        account_sid: &str,
        message_sid: &str,
        media_sid: &str,
    ) -> Result<u16, String> {
        let path = format!("/Messages/{message_sid}/Media/{media_sid}.json");
        let request = Forward { method: reqwest::Method::DELETE, path: &path, form: None };
        self.forward(account_sid, request).await.map(|answer| answer.status)
    }
}
