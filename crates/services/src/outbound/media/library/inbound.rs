//! Media of inbound messages in the store. Their rows are staged before the bytes are stored, like those of uploads, and
//! completed together with the result of the fetch.

use axum::body::Bytes;
use sha2::{Digest, Sha256};

use super::{Library, LibraryError, hexadecimal};
use twilio_edge_domain::retention::RetentionPeriod;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{InboundMediaJob, Medium};

/// Author of media of inbound messages.
const INBOUND_AUTHOR: &str = "twilio";

/// Bytes of a medium of an inbound message.
#[derive(Debug)]
pub struct StoredBytes {
    /// Content type, for instance `image/png`.
    pub content_type: String,
    /// Complete content.
    pub bytes: Bytes,
}

impl Library {
    /// Stores a medium of an inbound message, for at most `keep` after its arrival. `delete_by` requests its deletion at
    /// Twilio. Returns false if the medium was deleted meanwhile, or another sidecar holds it.
    ///
    /// # Errors
    /// Returns [`LibraryError`] if the database or the bucket fails.
    pub async fn store_inbound(
        &self,
        job: &InboundMediaJob,
        held_by: &str,
        stored: StoredBytes,
        keep: RetentionPeriod,
        delete_by: Option<&str>,
    ) -> Result<bool, LibraryError> {
        let keep_ms = keep.at_most_ms(self.keep_ms());
        let medium = Medium {
            id: job.id.clone(),
            account_sid: job.account_sid.clone(),
            content_type: stored.content_type,
            bytes: i64::try_from(stored.bytes.len()).unwrap_or(i64::MAX),
            digest: hexadecimal(&Sha256::digest(&stored.bytes)),
            created_at_ms: now_ms(),
            created_by: INBOUND_AUTHOR.to_owned(),
            keep_ms,
            expires_at_ms: job.received_at_ms.saturating_add(keep_ms),
        };
        self.inbound.stage(&medium).await?;
        self.put(&medium, stored.bytes).await?;
        Ok(self.inbound.complete(job, held_by, &medium, delete_by, now_ms()).await?)
    }
}
