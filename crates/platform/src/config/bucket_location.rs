//! Location of a bucket, as the settings name it.

/// Location of a bucket, and the credentials for it.
#[derive(Debug, Clone, Copy)]
pub struct BucketLocation<'a> {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `file:///FOLDER`.
    pub url: &'a str,
    /// Endpoint of an S3-compatible store or a test, such as `https://minio.internal:9000`. Empty: the cloud's own.
    pub endpoint: &'a str,
    /// Amazon's region; empty: `AWS_REGION`, else `us-east-1`.
    pub region: &'a str,
    /// File with credentials: lines as in `~/.aws/credentials`, or Google's JSON. Empty: those of the environment or the
    /// machine.
    pub credentials_file: &'a str,
}

/// BucketKind of store, with its name and the prefix of its keys.
#[derive(Debug, PartialEq, Eq)]
pub enum BucketKind<'a> {
    /// S3 or a compatible store.
    S3 {
        /// Name of the bucket.
        bucket: &'a str,
        /// Prefix of all keys; may be empty.
        prefix: &'a str,
    },
    /// Google Cloud Storage.
    Gcs {
        /// Name of the bucket.
        bucket: &'a str,
        /// Prefix of all keys; may be empty.
        prefix: &'a str,
    },
    /// Absolute path of a folder.
    Folder(&'a str),
}

impl BucketLocation<'_> {
    /// Returns the kind of store that the URL names.
    ///
    /// # Errors
    ///
    /// The URL names none; the text says which URLs do.
    pub fn kind(&self) -> Result<BucketKind<'_>, String> {
        let wrong =
            "url: must be s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER, or be empty";
        let (scheme, rest) = self.url.split_once("://").ok_or(wrong)?;
        if scheme == "file" {
            let is_absolute = rest.starts_with('/') && rest.len() > 1;
            return is_absolute.then_some(BucketKind::Folder(rest)).ok_or_else(|| wrong.to_owned());
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_plain) {
            return Err(wrong.to_owned());
        }
        match scheme {
            "s3" => Ok(BucketKind::S3 { bucket, prefix }),
            "gs" => Ok(BucketKind::Gcs { bucket, prefix }),
            _ => Err(wrong.to_owned()),
        }
    }

    /// Returns the problems that can be found without a connection, each starting with its setting. Without a URL there
    /// are none.
    pub fn problems(&self) -> Vec<String> {
        if self.url.is_empty() {
            return Vec::new();
        }
        let mut problems: Vec<String> = self.kind().err().into_iter().collect();
        let is_web = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if !self.endpoint.is_empty() && !is_web(self.endpoint) {
            problems.push("endpoint: must start with https:// (or http://, for a test)".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> BucketLocation<'_> {
        BucketLocation { url, endpoint: "", region: "", credentials_file: "" }
    }

    #[test]
    fn urls_are_read() {
        let s3 = |bucket, prefix| Ok(BucketKind::S3 { bucket, prefix });
        assert_eq!(at("s3://acme/edge/archive").kind(), s3("acme", "edge/archive"));
        assert_eq!(at("s3://acme").kind(), s3("acme", ""));
        assert_eq!(at("gs://acme/").kind(), Ok(BucketKind::Gcs { bucket: "acme", prefix: "" }));
        assert_eq!(at("file:///var/edge").kind(), Ok(BucketKind::Folder("/var/edge")));
        for wrong in ["acme", "s3://", "s3:///x", "file://x", "file:///", "ftp://acme", "s3://a b"]
        {
            assert!(at(wrong).problems()[0].starts_with("url: must be s3://"), "{wrong}");
        }
        assert_eq!(at("").problems(), Vec::<String>::new());
    }
}
