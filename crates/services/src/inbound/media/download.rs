//! Download of one medium from Twilio: the first request has the credentials of the account, and goes to the origin of
//! `sending.base_url` only. Redirects are followed without credentials, to permitted public hosts. Time and bytes are
//! limited.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use reqwest::{Client, Response, Url, header, redirect};

use super::DownloadFailure;
use crate::outbound::media::library::StoredBytes;
use twilio_edge_connectors::{
    public_resolver::{PublicResolver, System},
    twilio::{MediaAnswer, Twilio},
};
use twilio_edge_domain::{
    delivery::parse_retry_after,
    media::{
        inbound::{FetchFailure, UNKNOWN_TYPE, is_below},
        limits::{check_content, content_type},
        url_policy::UrlPolicy,
    },
};
use twilio_edge_platform::{clock::millis, config};
use twilio_edge_store::InboundMediaJob;

/// Maximum number of redirects; Twilio uses one.
const MAX_REDIRECTS: usize = 3;

/// Port of redirects.
const HTTPS_PORT: &str = "443";

/// Downloads media from Twilio.
pub(super) struct Downloader {
    twilio: Twilio,
    /// Client for redirects to other hosts; it has no credentials.
    client: Client,
    places: Arc<UrlPolicy>,
    hosts: Vec<String>,
    limit: Duration,
    max_bytes: usize,
}

impl Downloader {
    pub(super) fn new(twilio: Twilio, settings: &config::Media) -> Result<Downloader, String> {
        let ports = [HTTPS_PORT.to_owned()];
        let places = Arc::new(UrlPolicy::new(&settings.trust_addresses, &ports, false)?);
        let limit = Duration::from_millis(settings.inbound.timeout_ms);
        let lookup = Arc::new(System);
        // No proxy: it would connect to addresses that were not checked. No automatic redirects: each one is checked
        // here.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .dns_resolver(Arc::new(PublicResolver { lookup, places: places.clone() }))
            .timeout(limit)
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Downloader {
            twilio,
            client,
            places,
            hosts: settings.inbound.hosts.clone(),
            limit,
            max_bytes: settings.inbound.max_bytes,
        })
    }

    /// Downloads one medium within the time limit.
    pub(super) async fn download(
        &self,
        job: &InboundMediaJob,
    ) -> Result<StoredBytes, DownloadFailure> {
        if job.media_sid.is_empty() {
            let reason = "its URL is not one of Twilio's API";
            return Err(DownloadFailure::new(FetchFailure::NotAtTwilio, reason));
        }
        let downloaded = tokio::time::timeout(self.limit, self.request(job)).await;
        downloaded.unwrap_or_else(|_| {
            let reason = format!("not complete within {} ms", self.limit.as_millis());
            Err(DownloadFailure::new(FetchFailure::Unavailable, reason))
        })
    }

    async fn request(&self, job: &InboundMediaJob) -> Result<StoredBytes, DownloadFailure> {
        let InboundMediaJob { account_sid, message_sid, media_sid, .. } = job;
        let answer = self.twilio.media(account_sid, message_sid, media_sid, self.limit).await;
        let mut response = match answer {
            MediaAnswer::Response(response) => response,
            MediaAnswer::NoCredentials => {
                let reason = "the account has no credentials in sending.file";
                return Err(DownloadFailure::new(FetchFailure::NoCredentials, reason));
            }
            MediaAnswer::Failed(reason) => {
                return Err(DownloadFailure::new(FetchFailure::Unavailable, reason));
            }
        };
        for redirects in 0..=MAX_REDIRECTS {
            let status = response.status().as_u16();
            let failure = match status {
                200 => return self.read(job, response).await,
                301 | 302 | 303 | 307 | 308 => {
                    response = self.follow(&response).await?;
                    continue;
                }
                401 | 403 if redirects == 0 => FetchFailure::Denied,
                404 | 410 if redirects == 0 => FetchFailure::NotFound,
                _ => FetchFailure::Unavailable,
            };
            let pause = response.headers().get(header::RETRY_AFTER);
            let pause = pause.and_then(|value| parse_retry_after(value.to_str().ok()?));
            return Err(DownloadFailure {
                retry_after_ms: pause.map(millis),
                ..DownloadFailure::new(failure, format!("status {status}"))
            });
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects");
        Err(DownloadFailure::new(FetchFailure::Redirect, reason))
    }

    /// Follows one redirect, without credentials.
    async fn follow(&self, response: &Response) -> Result<Response, DownloadFailure> {
        let refused = |reason: String| DownloadFailure::new(FetchFailure::Redirect, reason);
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let url = location.and_then(|location| response.url().join(location).ok());
        let url = url.ok_or_else(|| refused("a redirect without a valid Location".to_owned()))?;
        let unavailable = |reason: String| DownloadFailure::new(FetchFailure::Unavailable, reason);
        if self.twilio.is_own_origin(&url) {
            return self.twilio.media_at(url, self.limit).await.map_err(unavailable);
        }
        self.check(&url).map_err(refused)?;
        let request = self.client.get(url).header(header::ACCEPT_ENCODING, "identity");
        let response = request.send().await;
        let response = response.map_err(|error| unavailable(error.without_url().to_string()))?;
        match response.remote_addr() {
            Some(peer) if self.places.allows(peer.ip()) => Ok(response),
            _ => Err(refused("the redirect is not at a public address".to_owned())),
        }
    }

    /// Checks the target of a redirect. The problem names its host, and no more: its query is a credential.
    fn check(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        if !is_below(host, &self.hosts) {
            return Err(format!("media.inbound.hosts does not permit {host}"));
        }
        match self.places.read(url.as_str()) {
            Ok(_) => Ok(()),
            Err(problem) => Err(format!("the redirect to {host} {}", problem.detail)),
        }
    }

    async fn read(
        &self,
        job: &InboundMediaJob,
        mut response: Response,
    ) -> Result<StoredBytes, DownloadFailure> {
        let max = self.max_bytes;
        let too_large =
            || DownloadFailure::new(FetchFailure::TooLarge, format!("more than {max} bytes"));
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        if length.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let kind = self.content_type(job, &response);
        let mut bytes = Vec::with_capacity(length.unwrap_or_default());
        loop {
            let chunk = response.chunk().await.map_err(|error| {
                let reason = error.without_url().to_string();
                DownloadFailure::new(FetchFailure::Unavailable, reason)
            })?;
            let Some(chunk) = chunk else { break };
            if bytes.len().saturating_add(chunk.len()) > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        check_content(&kind, &bytes)
            .map_err(|problem| DownloadFailure::new(FetchFailure::Mismatch, problem.detail))?;
        Ok(StoredBytes { content_type: kind, bytes: Bytes::from(bytes) })
    }

    /// Returns the type that the webhook declared, or that of the answer. A bucket may declare a type of its own.
    fn content_type(&self, job: &InboundMediaJob, response: &Response) -> String {
        let declared = Some(job.content_type.clone()).filter(|kind| kind != UNKNOWN_TYPE);
        let answered = || {
            let header = response.headers().get(header::CONTENT_TYPE)?;
            content_type(header.to_str().ok()?)
        };
        declared.or_else(answered).unwrap_or_else(|| UNKNOWN_TYPE.to_owned())
    }
}
