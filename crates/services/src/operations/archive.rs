//! Archive: raw webhooks outside of the ledger, in objects that any program can read. Finds, reads and writes objects.
//! The domain decides their format; the bucket decides their location.

mod archivist;
mod erasing;
mod walk;

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{Error, ObjectStoreExt};

pub use self::{
    archivist::Archivist,
    walk::{ArchiveFilter, ArchiveWalk},
};
use twilio_edge_connectors::bucket::{Bucket, reason};
use twilio_edge_domain::archive::{
    ArchivedWebhook, INDEX_BYTES, IndexMark, ObjectName, ROOT, folder, folder_of_day, may_contain,
    pack, unpack,
};
use twilio_edge_platform::config;
use twilio_edge_store::ArchiveBatch;

/// Number of objects whose index is read concurrently.
const CONCURRENT_READS: usize = 16;

/// Our objects in one bucket.
#[derive(Debug, Clone)]
pub struct Archive {
    bucket: Bucket,
}

impl Archive {
    /// Opens the archive without a request to it; returns `None` if none is configured. An error starts with the name
    /// of the setting.
    pub fn open(settings: &config::Archive) -> Result<Option<Archive>, String> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let bucket = Bucket::open(&settings.bucket_location());
        let bucket = bucket.map_err(|problem| format!("archive.{problem}"))?;
        Ok(Some(Archive { bucket }))
    }

    /// Returns the configured URL; it contains no secret.
    pub fn url(&self) -> &str {
        self.bucket.url()
    }

    async fn write(&self, batch: &ArchiveBatch) -> Result<(), String> {
        match batch.lines.as_slice() {
            [] => Ok(()),
            lines => self.put(&batch.name, lines).await,
        }
    }

    async fn put(&self, name: &ObjectName, lines: &[ArchivedWebhook]) -> Result<(), String> {
        let object = pack(lines).map_err(|error| error.to_string())?;
        let path = self.bucket.path(&name.key());
        let put = self.bucket.objects().put(&path, object.into());
        put.await.map(|_| ()).map_err(|error| reason(&error))
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), String> {
        match self.bucket.objects().delete(&self.bucket.path(&name.key())).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }

    /// Lists every account that has objects, in order.
    async fn accounts(&self) -> Result<BTreeSet<String>, String> {
        let found = self.bucket.objects().list_with_delimiter(Some(&self.bucket.path(ROOT))).await;
        let found = found.map_err(|error| reason(&error))?;
        let account = |path: &object_store::path::Path| {
            path.filename()?.strip_prefix("account=").map(str::to_owned)
        };
        Ok(found.common_prefixes.iter().filter_map(account).collect())
    }

    /// Lists the objects of an account that contain webhooks of this time, in chronological order. The listing starts
    /// at the first day; a thousand objects cost one request.
    async fn names(
        &self,
        account_sid: &str,
        since_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<ObjectName>, String> {
        let prefix = self.bucket.path(&folder(account_sid));
        let from = self.bucket.path(&folder_of_day(account_sid, since_ms.max(0)));
        let above = self.bucket.path("").as_ref().len();
        let mut found = self.bucket.objects().list_with_offset(Some(&prefix), &from);
        let mut names = Vec::new();
        while let Some(object) = found.next().await {
            let object = object.map_err(|error| reason(&error))?;
            let key = object.location.as_ref().get(above..).unwrap_or_default();
            // Objects that other programs put there are ignored.
            names.extend(
                ObjectName::parse(key.trim_start_matches('/'))
                    .filter(|name| name.overlaps(since_ms, until_ms)),
            );
        }
        // A folder lists its files in no order.
        names.sort();
        Ok(names)
    }

    /// Filters the objects that may contain a webhook with this mark, by the first bytes of each.
    async fn holding(
        &self,
        names: Vec<ObjectName>,
        mark: IndexMark,
    ) -> Result<Vec<ObjectName>, String> {
        let holding = stream::iter(names).map(async |name: ObjectName| {
            let path = self.bucket.path(&name.key());
            match self.bucket.objects().get_range(&path, 0..INDEX_BYTES).await {
                Ok(start) => Ok(may_contain(&start, mark).then_some(name)),
                // The object expired between the listing and this read.
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(reason(&error)),
            }
        });
        holding.buffered(CONCURRENT_READS).try_filter_map(async |name| Ok(name)).try_collect().await
    }

    /// Reads the lines of an object; returns no line if the object does not exist any more.
    async fn read(&self, name: &ObjectName) -> Result<Vec<ArchivedWebhook>, String> {
        let path = self.bucket.path(&name.key());
        let object = match self.bucket.objects().get(&path).await {
            Ok(object) => object.bytes().await,
            Err(error) => Err(error),
        };
        match object {
            Ok(object) => unpack(&object).map_err(|problem| format!("{path}: {problem}")),
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(reason(&error)),
        }
    }
}
