//! Requests for our own links. A link to a medium of an inbound message is valid before the medium is stored.

use object_store::{Error, GetOptions, GetRange, GetResult};

use super::{Library, LibraryError};
use twilio_edge_connectors::bucket::reason;
use twilio_edge_domain::media::{inbound::FetchFailure, link};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{InboundMedium, Medium};

/// Target of one of our own links.
#[derive(Debug)]
pub enum LinkTarget {
    /// A medium, with its bytes or a part of them.
    Bytes(Box<(Medium, GetResult)>),
    /// The link is invalid or has expired, or its upload does not exist any more.
    NotFound,
    /// A medium of an inbound message that is not fetched yet.
    Pending,
    /// A medium of an inbound message that was not fetched.
    Refused(FetchFailure),
    /// A medium of an inbound message that was deleted or has expired.
    Gone,
}

impl LinkTarget {
    /// Returns why a medium of an inbound message has no bytes.
    pub fn without_bytes(medium: &InboundMedium) -> LinkTarget {
        match medium.state.as_str() {
            "pending" => LinkTarget::Pending,
            "refused" => medium.code.parse().map_or(LinkTarget::Gone, LinkTarget::Refused),
            _ => LinkTarget::Gone,
        }
    }
}

impl Library {
    /// Serves one of our own links: returns the medium with its bytes, a range of them, or only their metadata.
    ///
    /// # Errors
    /// Returns [`LibraryError`] if the database or the bucket fails.
    pub async fn open_link(
        &self,
        id: &str,
        query: &str,
        range: Option<GetRange>,
        head: bool,
    ) -> Result<LinkTarget, LibraryError> {
        let now_ms = now_ms();
        let key = self.settings.link_key.expose();
        let missing = match link::is_inbound_id(id) {
            true => LinkTarget::Gone,
            false => LinkTarget::NotFound,
        };
        let Some(expires_at_ms) = link::expires_at_ms(key, id, query) else {
            return Ok(LinkTarget::NotFound);
        };
        if now_ms >= expires_at_ms {
            return Ok(missing);
        }
        let Some(medium) = self.rows.fetch(id, None, now_ms).await? else {
            return match link::is_inbound_id(id) {
                true => self.absent_inbound(id, expires_at_ms, now_ms).await,
                false => Ok(LinkTarget::NotFound),
            };
        };
        let options = GetOptions { range, head, ..GetOptions::default() };
        match self.bucket.objects().get_opts(&self.path(&medium), options).await {
            Ok(got) => Ok(LinkTarget::Bytes(Box::new((medium, got)))),
            Err(Error::NotFound { .. }) => Ok(missing),
            Err(error) => Err(LibraryError::Bucket(reason(&error))),
        }
    }

    /// Returns why a medium of an inbound message has no bytes. Its webhook may not be in the ledger yet.
    async fn absent_inbound(
        &self,
        id: &str,
        link_expires_ms: i64,
        now_ms: i64,
    ) -> Result<LinkTarget, LibraryError> {
        let links = self.links.as_ref();
        Ok(match self.inbound.find(id, None).await? {
            Some(medium) => LinkTarget::without_bytes(&medium),
            None if links.is_some_and(|it| it.may_be_unrecorded(link_expires_ms, now_ms)) => {
                LinkTarget::Pending
            }
            None => LinkTarget::Gone,
        })
    }
}
