//! Store of uploaded media, and of media of inbound messages. Stores their bytes in the bucket and signs links for Twilio
//! when a message is sent. A link is valid for some time, and points either to the bucket or to our own endpoint. Expired
//! media and unfinished uploads are deleted: the bytes first, then the row.

mod inbound;
mod links;

pub use self::{inbound::StoredBytes, links::LinkTarget};

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use object_store::{
    Attribute, Attributes, Error, ObjectStoreExt, PutOptions, signer::Method,
    signer::SignedUrlOptions,
};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use twilio_edge_connectors::bucket::{Bucket, reason};
use twilio_edge_domain::media::{
    MediaProblem, MediaProblemKind,
    disposition::attachment,
    inbound::MediaLinks,
    limits::{FetchedMedia, check_content},
    link,
};
use twilio_edge_platform::clock::{now_ms, ticks};
use twilio_edge_platform::config;
use twilio_edge_store::{InboundMedia, MediaIndex, Medium, StoreError};

/// Number of expired media per read.
const ROWS_PER_READ: u32 = 100;

/// Concurrent uploads. Each of them is in memory as a whole.
const MAX_UPLOADS: usize = 8;

/// Concurrent downloads through our own links.
const MAX_DOWNLOADS: usize = 256;

/// Stores media and signs links to them. Copies share the limits.
#[derive(Clone)]
pub struct Library {
    bucket: Bucket,
    rows: MediaIndex,
    inbound: InboundMedia,
    /// `None` if links point to the bucket.
    links: Option<Arc<MediaLinks>>,
    settings: Arc<config::MediaStore>,
    uploads: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
}

/// Reason why an operation failed.
#[derive(Debug)]
pub enum LibraryError {
    /// The medium is not acceptable.
    MediaProblem(MediaProblem),
    /// The database failed or is unavailable.
    Store(StoreError),
    /// The bucket failed or is unavailable; the text is for the operator.
    Bucket(String),
}

impl From<StoreError> for LibraryError {
    fn from(reason: StoreError) -> LibraryError {
        LibraryError::Store(reason)
    }
}

/// Upload of a medium.
#[derive(Debug)]
pub struct Upload {
    /// Account that will own the medium.
    pub account_sid: String,
    /// Name of the uploader, for the record.
    pub by: String,
    /// Content type, for instance `image/png`.
    pub content_type: String,
    /// Complete content.
    pub bytes: Bytes,
    /// Time of the upload, in milliseconds since 1970.
    pub at_ms: i64,
    /// True if a repetition of this upload at the same `at_ms` must result in the same id.
    pub is_repeatable: bool,
}

impl Library {
    /// Opens the store; returns `None` if no bucket is configured.
    pub fn open(
        settings: &config::MediaStore,
        rows: MediaIndex,
        inbound: InboundMedia,
    ) -> Result<Option<Library>, String> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let bucket = Bucket::open(&settings.bucket_location())?;
        let uploads = Arc::new(Semaphore::new(MAX_UPLOADS));
        let fetches = Arc::new(Semaphore::new(MAX_DOWNLOADS));
        let links = settings.inbound_links().map(Arc::new);
        let settings = Arc::new(settings.clone());
        Ok(Some(Library { bucket, rows, inbound, links, settings, uploads, fetches }))
    }

    /// Returns the media of inbound messages.
    pub fn inbound(&self) -> &InboundMedia {
        &self.inbound
    }

    /// Returns the creator of links to media of inbound messages; `None` if links point to the bucket.
    pub fn links(&self) -> Option<&Arc<MediaLinks>> {
        self.links.as_ref()
    }

    /// Waits for a slot for one upload.
    pub async fn upload_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.uploads.clone().acquire_owned().await.ok()
    }

    /// Returns a slot for one download, if one is free now.
    pub fn download_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.fetches.clone().try_acquire_owned().ok()
    }

    /// Stores a medium. The row is written before the bytes, so that the bucket holds no object without a row.
    ///
    /// # Errors
    /// Returns [`LibraryError`] if the content does not match its type, or the database or the bucket fails.
    pub async fn add(&self, upload: Upload) -> Result<Medium, LibraryError> {
        check_content(&upload.content_type, &upload.bytes).map_err(LibraryError::MediaProblem)?;
        let digest = Sha256::digest(&upload.bytes);
        let keep_ms = self.keep_ms();
        let medium = Medium {
            id: link::id(id_bits(&upload, &digest).map_err(LibraryError::Bucket)?),
            account_sid: upload.account_sid,
            content_type: upload.content_type,
            bytes: i64::try_from(upload.bytes.len()).unwrap_or(i64::MAX),
            digest: hexadecimal(&digest),
            created_at_ms: upload.at_ms,
            created_by: upload.by,
            keep_ms,
            expires_at_ms: now_ms().saturating_add(keep_ms),
        };
        self.rows.add(&medium).await?;
        self.put(&medium, upload.bytes).await?;
        self.rows.mark_stored(&medium.id).await?;
        Ok(medium)
    }

    fn keep_ms(&self) -> i64 {
        i64::from(self.settings.keep_days).saturating_mul(86_400_000)
    }

    async fn put(&self, medium: &Medium, bytes: Bytes) -> Result<(), LibraryError> {
        let mut options = PutOptions::default();
        // A folder stores no content types; our own endpoint sends the type from the row.
        if self.bucket.signer().is_some() {
            let kind = medium.content_type.clone();
            // A bucket sends no Content-Security-Policy, so a browser must download the medium, not display it.
            let disposition = attachment(&medium.id, &kind);
            options.attributes = Attributes::from_iter([
                (Attribute::ContentType, kind),
                (Attribute::ContentDisposition, disposition),
            ]);
        }
        let path = self.path(medium);
        let put = self.bucket.objects().put_opts(&path, bytes.into(), options).await;
        put.map(|_| ()).map_err(|error| LibraryError::Bucket(reason(&error)))
    }

    /// Returns a medium of this account, if it exists and has not expired.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn fetch(&self, id: &str, account_sid: &str) -> Result<Option<Medium>, StoreError> {
        match link::is_id(id) {
            true => self.rows.fetch(id, Some(account_sid), now_ms()).await,
            false => Ok(None),
        }
    }

    /// Expires a medium immediately; its bytes are deleted later. Returns false if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn drop(&self, id: &str, account_sid: &str) -> Result<bool, StoreError> {
        self.rows.expire(id, account_sid).await
    }

    /// Returns type and size of a medium, for a message of this account.
    ///
    /// # Errors
    /// Returns [`MediaProblem`] if the medium does not exist, or the database fails.
    pub async fn describe(
        &self,
        id: &str,
        account_sid: &str,
    ) -> Result<FetchedMedia, MediaProblem> {
        match self.fetch(id, account_sid).await {
            Ok(Some(medium)) => Ok(FetchedMedia {
                content_type: medium.content_type,
                bytes: u64::try_from(medium.bytes).unwrap_or_default(),
            }),
            Ok(None) => Err(MediaProblem::new(
                MediaProblemKind::Missing,
                "does not exist: upload it with POST /v1/media",
            )),
            Err(_) => Err(MediaProblem::temporary(
                MediaProblemKind::Busy,
                "was not checked, because the database is unavailable: retry later",
            )),
        }
    }

    /// Signs a link for a message of this account.
    ///
    /// # Errors
    /// Returns [`MediaProblem`] if the medium does not exist or has expired, or the database or the bucket fails.
    pub async fn signed_url(&self, id: &str, account_sid: &str) -> Result<String, MediaProblem> {
        let unavailable = |what: &str| {
            MediaProblem::temporary(
                MediaProblemKind::Busy,
                format!("has no link, because {what}: retry later"),
            )
        };
        let found = self.fetch(id, account_sid).await;
        let found = found.map_err(|_| unavailable("the database is unavailable"))?;
        let medium = found.ok_or_else(|| {
            MediaProblem::new(MediaProblemKind::Missing, "has expired or was deleted")
        })?;
        match self.link(&medium).await {
            Ok((url, _)) => Ok(url),
            Err(reason) => {
                tracing::warn!(
                    event = "media.bucket_failed",
                    reason,
                    "the bucket of media.store failed an operation"
                );
                Err(unavailable("the bucket is unavailable"))
            }
        }
    }

    /// Signs a link that is valid for the configured time from now on. Returns it with its expiry, in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// Returns the reason if a setting is missing or the bucket cannot sign.
    pub async fn link(&self, medium: &Medium) -> Result<(String, i64), String> {
        let expires_s = now_ms() / 1000 + i64::from(self.settings.link_ttl_s);
        let url = match self.settings.public_url.trim_end_matches('/') {
            "" => {
                let signer = self.bucket.signer().ok_or("media.store.public_url: missing")?;
                let good_for = Duration::from_secs(self.settings.link_ttl_s.into());
                let options = SignedUrlOptions::default().with_query([
                    ("response-content-disposition", attachment(&medium.id, &medium.content_type)),
                    ("response-content-type", medium.content_type.clone()),
                ]);
                let path = self.path(medium);
                let signed = signer.signed_url_opts(Method::GET, &path, good_for, &options).await;
                signed.map_err(|error| reason(&error))?.to_string()
            }
            base => {
                let key = self.settings.link_key.expose();
                format!("{base}{}", link::path(key, &medium.id, expires_s))
            }
        };
        Ok((url, expires_s.saturating_mul(1000)))
    }

    /// Deletes expired media, at this interval, for ever.
    pub async fn run_cleanup(self, interval: Duration) {
        let mut poll = ticks(interval);
        loop {
            poll.tick().await;
            if let Err(reason) = self.delete_expired().await {
                tracing::warn!(
                    event = "media.delete_failed",
                    reason,
                    "the sidecar could not delete expired media; it retries"
                );
            }
        }
    }

    async fn delete_expired(&self) -> Result<(), String> {
        loop {
            let due = self
                .rows
                .due_for_deletion(now_ms(), ROWS_PER_READ)
                .await
                .map_err(|reason| reason.to_string())?;
            for medium in &due {
                match self.bucket.objects().delete(&self.path(medium)).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(reason(&error)),
                }
                let deleted = self.rows.delete(&medium.id, now_ms()).await;
                deleted.map_err(|reason| reason.to_string())?;
            }
            if due.len() < usize::try_from(ROWS_PER_READ).unwrap_or(usize::MAX) {
                // The links to these media have expired.
                let until_ms = now_ms().saturating_sub(self.keep_ms());
                let deleted = self.inbound.delete_until(until_ms).await;
                return deleted.map_err(|reason| reason.to_string());
            }
        }
    }

    fn path(&self, medium: &Medium) -> object_store::path::Path {
        self.bucket.path(&format!("media/{}/{}", medium.account_sid, medium.id))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the bits of the id: a digest if the upload is repeatable, otherwise random bits that cannot be guessed.
fn id_bits(upload: &Upload, digest: &[u8]) -> Result<u128, String> {
    let half = |bytes: &[u8]| {
        bytes.iter().take(16).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte))
    };
    if upload.is_repeatable {
        let mut all = Sha256::new();
        for part in [
            upload.account_sid.as_bytes(),
            upload.by.as_bytes(),
            upload.content_type.as_bytes(),
            digest,
        ] {
            all.update((part.len() as u64).to_be_bytes());
            all.update(part);
        }
        all.update(upload.at_ms.to_be_bytes());
        return Ok(half(&all.finalize()));
    }
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(half(&bits))
}
