//! Check of a medium: fetches it as Twilio will, with HEAD and then GET. Each redirect is checked to be public, like
//! the first URL. The check has limits on time, bytes, redirects and concurrency, per account and in total. Good
//! results are cached: a thousand messages with the same picture fetch it once.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response, StatusCode, Url, header, redirect};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use twilio_edge_connectors::public_resolver::{Lookup, NotPublic, PublicResolver};
use twilio_edge_domain::media::{
    MediaProblem, MediaProblemKind,
    limits::{FetchedMedia, SNIFF_BYTES, check_content, check_same_type, content_type},
    url_policy::UrlPolicy,
};
use twilio_edge_platform::{config, metrics::Metrics};

/// A medium is read to its end up to this size in bytes, independent of its declared length. Beyond it, the declared
/// length is trusted, because a client reads no more than that.
const READ_COMPLETELY: u64 = 1 << 20;

/// Upper bound of cached results.
const MAX_CACHED: usize = 4096;

/// Time that an idle connection stays open, for the GET after a HEAD and for the next medium.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks media by fetching them.
pub struct MediaProbe {
    client: Client,
    places: Arc<UrlPolicy>,
    limit: Duration,
    redirects: u32,
    metrics: Arc<Metrics>,
    cache: ResultCache,
    all: Arc<Semaphore>,
    slots_per_account: usize,
    accounts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl MediaProbe {
    pub(super) fn new(
        settings: &config::Media,
        limit: Duration,
        places: &Arc<UrlPolicy>,
        metrics: &Arc<Metrics>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<MediaProbe, String> {
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No proxy: it would connect to addresses that were not checked. No automatic redirects: each one is checked
        // here.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .dns_resolver(Arc::new(PublicResolver { lookup, places: places.clone() }))
            .connect_timeout(limit)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(MediaProbe {
            client,
            places: places.clone(),
            limit,
            redirects: settings.redirects,
            metrics: metrics.clone(),
            cache: ResultCache {
                max_age: Duration::from_secs(settings.remember_s),
                found: Mutex::default(),
            },
            all: Arc::new(Semaphore::new(settings.concurrency)),
            slots_per_account: settings.concurrency_per_account,
            accounts: Mutex::default(),
        })
    }

    /// Returns type and size of a medium of at max_bytes `most` bytes.
    pub(super) async fn check(
        &self,
        account_sid: &str,
        url: &Url,
        max_bytes: u64,
    ) -> Result<FetchedMedia, MediaProblem> {
        let key = ResultCache::key(account_sid, url);
        if let Some(found) = self.cache.get(&key) {
            self.metrics.media.checked("cached");
            return Ok(found);
        }
        let deadline = tokio::time::Instant::now() + self.limit;
        let result = match tokio::time::timeout_at(deadline, self.acquire_slots(account_sid)).await
        {
            Ok(_slots) => {
                // Another check may have finished in the meantime.
                if let Some(found) = self.cache.get(&key) {
                    self.metrics.media.checked("cached");
                    return Ok(found);
                }
                let fetched = tokio::time::timeout_at(deadline, self.fetch(url, max_bytes)).await;
                fetched.unwrap_or_else(|_| Err(self.slow()))
            }
            Err(_) => Err(busy()),
        };
        match &result {
            Ok(found) => {
                self.metrics.media.checked("accepted");
                self.cache.put(key, found.clone());
            }
            Err(unfit) => {
                self.metrics.media.checked(unfit.kind.as_str());
                tracing::info!(
                    event = "media.refused",
                    account.sid = account_sid,
                    why = unfit.kind.as_str(),
                    "the sidecar refused media of a message"
                );
            }
        }
        result
    }

    /// Waits for a slot, first of this account, then of all: one account must not use all slots.
    async fn acquire_slots(
        &self,
        account_sid: &str,
    ) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let account_slots = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            accounts.retain(|name, one| name == account_sid || Arc::strong_count(one) > 1);
            let account_slots = accounts.entry(account_sid.to_owned());
            account_slots
                .or_insert_with(|| Arc::new(Semaphore::new(self.slots_per_account)))
                .clone()
        };
        let account_slots = account_slots.acquire_owned().await.ok();
        (account_slots, self.all.clone().acquire_owned().await.ok())
    }

    fn slow(&self) -> MediaProblem {
        let ms = self.limit.as_millis();
        let detail = format!("took longer than {ms} ms: its server has to respond faster");
        MediaProblem::temporary(MediaProblemKind::Slow, detail)
    }

    async fn fetch(&self, url: &Url, max_bytes: u64) -> Result<FetchedMedia, MediaProblem> {
        let head = self.request(Method::HEAD, url).await?;
        // Some servers do not support HEAD, for instance a URL that is presigned for GET. The result of GET alone
        // decides then.
        let head = head.status().is_success().then(|| declared(&head)).transpose()?;
        let response = self.request(Method::GET, url).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let detail = format!(
                "responds with status {}: its server has to permit a GET of the URL without credentials",
                status.as_u16()
            );
            let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            return Err(MediaProblem {
                is_temporary: passes,
                ..MediaProblem::new(MediaProblemKind::Status, detail)
            });
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            let detail = "has a Content-Encoding that was not requested: its server has to send it unencoded";
            return Err(MediaProblem::new(MediaProblemKind::Encoded, detail));
        }
        let kind = declared(&response)?;
        if let Some(head) = head {
            check_same_type(&head, &kind)?;
        }
        let (bytes, first) = read(response, max_bytes).await?;
        check_content(&kind, &first)?;
        Ok(FetchedMedia { content_type: kind, bytes })
    }

    /// Sends the request and follows redirects. Returns the final response.
    async fn request(&self, method: Method, url: &Url) -> Result<Response, MediaProblem> {
        let mut url = url.clone();
        for _ in 0..=self.redirects {
            let request = self.client.request(method.clone(), url.clone());
            let request =
                request.header(header::ACCEPT_ENCODING, "identity").header(header::ACCEPT, "*/*");
            let response = request.send().await.map_err(|error| unreachable(&error))?;
            let peer = response.remote_addr().map(|peer| peer.ip());
            if !peer.is_some_and(|peer| self.places.allows(peer)) {
                return Err(MediaProblem::not_public());
            }
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION);
            let next =
                location.and_then(|next| next.to_str().ok()).and_then(|next| url.join(next).ok());
            let Some(next) = next else {
                return Err(MediaProblem::new(
                    MediaProblemKind::Redirects,
                    "redirects without a valid Location",
                ));
            };
            url = self.places.read(next.as_str()).map_err(|unfit| {
                let detail = format!("redirects to a URL that {}", unfit.detail);
                MediaProblem { detail, ..unfit }
            })?;
        }
        let detail = format!("redirects more than {} times", self.redirects);
        Err(MediaProblem::new(MediaProblemKind::Redirects, detail))
    }
}

fn busy() -> MediaProblem {
    MediaProblem::temporary(
        MediaProblemKind::Busy,
        "was not result at: there are too many at a time; ask again",
    )
}

fn declared(response: &Response) -> Result<String, MediaProblem> {
    let header = response.headers().get(header::CONTENT_TYPE);
    let kind = header.and_then(|header| header.to_str().ok()).and_then(content_type);
    kind.ok_or_else(|| {
        MediaProblem::new(MediaProblemKind::Type, "has no Content-Type: its server has to send one")
    })
}

/// Reads the body. Returns its size, and its first bytes.
async fn read(mut response: Response, max_bytes: u64) -> Result<(u64, Vec<u8>), MediaProblem> {
    let too_large =
        || MediaProblem::new(MediaProblemKind::Size, format!("has more than {max_bytes} bytes"));
    let length = response.content_length();
    if length.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let (mut bytes, mut first) = (0_u64, Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > max_bytes {
            return Err(too_large());
        }
        first.extend(chunk.iter().take(SNIFF_BYTES.saturating_sub(first.len())));
        if let Some(length) = length.filter(|_| bytes >= READ_COMPLETELY) {
            return Ok((length, first));
        }
    }
    Ok((bytes, first))
}

/// Describes why there is no response, without any detail of the internal network.
fn unreachable(error: &reqwest::Error) -> MediaProblem {
    if is_inside(error) {
        // A name that cannot be resolved now looks the same, and the error must not reveal the difference.
        return MediaProblem { is_temporary: true, ..MediaProblem::not_public() };
    }
    let detail = match error.is_connect() {
        true => "cannot be fetched: the connection failed, or the certificate is not trusted",
        false => "cannot be fetched: the response broke off, or is not HTTP",
    };
    MediaProblem::temporary(MediaProblemKind::Unreachable, detail)
}

/// Returns whether a cause of the error is a name that is not public.
fn is_inside(error: &(dyn Error + 'static)) -> bool {
    error.is::<NotPublic>() || error.source().is_some_and(is_inside)
}

type Key = [u8; 32];

/// Cache of good results.
struct ResultCache {
    max_age: Duration,
    found: Mutex<HashMap<Key, (Instant, FetchedMedia)>>,
}

impl ResultCache {
    /// The key is a digest, because URLs may contain secrets.
    fn key(account_sid: &str, url: &Url) -> Key {
        Sha256::new()
            .chain_update(account_sid)
            .chain_update([0])
            .chain_update(url.as_str())
            .finalize()
            .into()
    }

    fn get(&self, key: &Key) -> Option<FetchedMedia> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, one) = found.get(key)?;
        (at.elapsed() < self.max_age).then(|| one.clone())
    }

    fn put(&self, key: Key, one: FetchedMedia) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_CACHED {
            found.retain(|_, (at, _)| at.elapsed() < self.max_age);
        }
        if found.len() < MAX_CACHED {
            found.insert(key, (Instant::now(), one));
        }
    }
}
