//! Object store: an S3-compatible bucket, a bucket of Google Cloud Storage, or a folder. Reads its location and credentials,
//! and describes errors so that the operator knows who must act. Knows nothing of the content of the objects.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use object_store::ObjectStoreExt;
//! use twilio_edge_connectors::bucket::{Bucket, reason};
//! use twilio_edge_platform::config::bucket_location::BucketLocation;
//!
//! let location = BucketLocation {
//!     url: "s3://acme-webhooks/edge",
//!     endpoint: "",
//!     region: "eu-central-1",
//!     credentials_file: "",
//! };
//! let bucket = Bucket::open(&location)?; // reaches nothing yet
//! let path = bucket.path("media/MM00112233445566778899aabbccddeeff");
//! bucket.objects().put(&path, "bytes".into()).await.map_err(|error| reason(&error))?;
//! # Ok(())
//! # }
//! ```
//!
//! Callers decide about retries and time limits of an operation. Within it, each request is retried up to twice, within
//! seconds.

use std::{error::Error as _, fmt, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, Error, HeaderValue, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    client::{HttpError, HttpErrorKind},
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::Path,
    signer::Signer,
};
use twilio_edge_platform::config::bucket_location::{BucketKind, BucketLocation};

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Immediate retries of the client library. More of them would only delay the caller.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
    },
    max_retries: 2,
    retry_timeout: Duration::from_secs(10),
};

/// An open bucket; cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
    url: Arc<str>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.url).finish()
    }
}

/// Returns the problems of a location and its credentials that can be found without a request to the store. Each starts
/// with the name of its setting. Returns no problem if the URL is empty.
pub fn problems(location: &BucketLocation<'_>) -> Vec<String> {
    match location.url {
        "" => Vec::new(),
        _ => Bucket::open(location).err().into_iter().collect(),
    }
}

impl Bucket {
    /// Opens the bucket without a request to it. A folder is created. An error starts with the name of the setting to
    /// correct.
    pub fn open(location: &BucketLocation<'_>) -> Result<Bucket, String> {
        let (objects, signer, prefix): (Arc<dyn ObjectStore>, Option<Arc<dyn Signer>>, &str) =
            match location.kind()? {
                BucketKind::S3 { bucket, prefix } => {
                    let store = Arc::new(s3(location, bucket)?);
                    (store.clone(), Some(store), prefix)
                }
                BucketKind::Gcs { bucket, prefix } => {
                    let store = Arc::new(gcs(location, bucket)?);
                    (store.clone(), Some(store), prefix)
                }
                BucketKind::Folder(folder) => (Arc::new(local(folder)?), None, ""),
            };
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|_| "url: its prefix must be plain text without empty or dotted parts")?;
        Ok(Bucket { objects, signer, prefix, url: location.url.into() })
    }

    /// Returns the client for reads, writes and lists. Its paths come from [`Bucket::path`].
    pub fn objects(&self) -> &dyn ObjectStore {
        &*self.objects
    }

    /// Returns the signer of temporary URLs for single objects; `None` for a folder.
    pub fn signer(&self) -> Option<&dyn Signer> {
        self.signer.as_deref()
    }

    /// Returns the path of a key below the prefix. A key has slashes between its parts.
    pub fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }

    /// Returns the configured URL; it contains no secret.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn client(endpoint: &str) -> ClientOptions {
    // This fails if a provider is installed already; that provider is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new()
        .with_allow_http(endpoint.starts_with("http://"))
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_user_agent(HeaderValue::from_static(concat!(
            "twilio-edge/",
            env!("CARGO_PKG_VERSION")
        )))
}

fn s3(location: &BucketLocation<'_>, bucket: &str) -> Result<object_store::aws::AmazonS3, String> {
    let mut builder = aws_builder(location.credentials_file)?.with_bucket_name(bucket);
    builder = builder.with_client_options(client(location.endpoint));
    if !location.endpoint.is_empty() {
        builder = builder.with_endpoint(location.endpoint);
    }
    if !location.region.is_empty() {
        builder = builder.with_region(location.region);
    }
    builder.build().map_err(|error| format!("url: {error}"))
}

/// Returns a builder with the credentials of a file in the format of AWS's own tools, or of the environment if the path is
/// empty.
///
/// # Errors
/// Returns the problem of the file, after the name of its setting.
pub(crate) fn aws_builder(credentials_file: &str) -> Result<AmazonS3Builder, String> {
    let mut builder = AmazonS3Builder::from_env().with_retry(RETRY);
    if credentials_file.is_empty() {
        return Ok(builder);
    }
    let text = read(credentials_file)?;
    for (name, key) in [
        ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
        ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
    ] {
        let value = line(&text, name).ok_or_else(|| {
            format!("credentials_file: {credentials_file} has no line {name} = ..")
        })?;
        builder = builder.with_config(key, value);
    }
    if let Some(token) = line(&text, "aws_session_token") {
        builder = builder.with_token(token);
    }
    Ok(builder)
}

fn gcs(
    location: &BucketLocation<'_>,
    bucket: &str,
) -> Result<object_store::gcp::GoogleCloudStorage, String> {
    let mut builder = gcp_builder(location.credentials_file)?.with_bucket_name(bucket);
    builder = builder.with_client_options(client(location.endpoint));
    if !location.endpoint.is_empty() {
        builder = builder.with_base_url(location.endpoint);
    }
    builder.build().map_err(|_| {
        "credentials_file: the credentials in it, or in GOOGLE_APPLICATION_CREDENTIALS, cannot be used"
            .to_owned()
    })
}

/// Returns a builder with the credentials of a file in the format of Google, or of the environment if the path is empty.
///
/// # Errors
/// Returns the problem of the file, after the name of its setting.
pub(crate) fn gcp_builder(file: &str) -> Result<GoogleCloudStorageBuilder, String> {
    let builder = GoogleCloudStorageBuilder::from_env().with_retry(RETRY);
    if file.is_empty() {
        return Ok(builder);
    }
    // The file is checked here, because an error of the library would contain the text that it could not parse.
    let text = read(file)?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|_| format!("credentials_file: {file} is not JSON in the format of Google"))?;
    let kind = json.get("type").and_then(serde_json::Value::as_str);
    if !matches!(kind, Some("service_account" | "authorized_user")) {
        return Err(format!(
            "credentials_file: {file} must be of type service_account or authorized_user"
        ));
    }
    Ok(builder.with_application_credentials(file))
}

fn local(folder: &str) -> Result<LocalFileSystem, String> {
    let wrong = |error: &dyn fmt::Display| format!("url: {folder}: {error}");
    std::fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| wrong(&error))?;
    Ok(store.with_fsync(true))
}

fn read(file: &str) -> Result<String, String> {
    twilio_edge_platform::file_access::read_secret(file.as_ref())
        .map_err(|problem| format!("credentials_file: {file}: {problem}"))
}

/// Returns the value of the first line `name = value`, which is the format of AWS's own tools.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
        (key.trim().eq_ignore_ascii_case(name) && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// Describes an error and who must act, for a log. It contains only the error code of the server's answer: the rest
/// repeats what was signed.
pub fn reason(error: &Error) -> String {
    let code = code(error).map(|code| format!(" ({code})")).unwrap_or_default();
    match error {
        Error::NotFound { .. } => format!("the bucket or object does not exist{code}"),
        Error::PermissionDenied { .. } => {
            format!(
                "the bucket denies access{code}: its operator has to permit reads, writes and lists for our credentials"
            )
        }
        Error::Unauthenticated { .. } => {
            format!(
                "the bucket does not accept our credentials{code}: check the credentials and the clock"
            )
        }
        _ => match transport(error) {
            Some((HttpErrorKind::Connect, cause)) => {
                format!("the bucket cannot be reached: {cause}")
            }
            Some((HttpErrorKind::Timeout, _)) => "the bucket did not answer in time".to_owned(),
            Some((_, cause)) => format!("the connection to the bucket broke off: {cause}"),
            None if code.is_empty() => match io(error) {
                Some(cause) => format!("the bucket cannot be read or written: {cause}"),
                None => "the bucket failed without an error code: check the credentials".to_owned(),
            },
            None => format!("the bucket failed{code}"),
        },
    }
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

fn transport(error: &Error) -> Option<(HttpErrorKind, String)> {
    let kind = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>())?.kind();
    Some((kind, causes(error).last()?.to_string()))
}

fn io(error: &Error) -> Option<&std::io::Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>())
}

/// Extracts the error code from the XML answer of S3 or Google, for instance `NoSuchBucket`.
fn code(error: &Error) -> Option<String> {
    let text = error.to_string();
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> BucketLocation<'_> {
        BucketLocation { url, endpoint: "", region: "", credentials_file: "" }
    }

    #[test]
    fn keys_are_below_the_prefix() {
        let folder = tempfile::TempDir::new().unwrap();
        let bucket = Bucket::open(&at(&format!("file://{}", folder.path().display()))).unwrap();
        assert_eq!(bucket.path("a/b").as_ref(), "a/b");
        assert!(bucket.signer().is_none());
        let bucket = Bucket::open(&at("s3://acme/edge/archive/")).unwrap();
        assert_eq!(bucket.path("a/b").as_ref(), "edge/archive/a/b");
        assert_eq!(bucket.path("a//b").as_ref(), "edge/archive/a/b");
        assert!(bucket.signer().is_some());
    }

    #[test]
    fn credentials_come_from_a_file_and_are_not_shown() {
        twilio_edge_platform::file_access::restrict_new_files();
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("credentials").display().to_string();
        let location = |url| BucketLocation { credentials_file: &file, ..at(url) };
        assert!(problems(&location("s3://acme"))[0].contains("No such file"));
        std::fs::write(&file, "[default]\naws_access_key_id = AKIA\nAWS_SECRET_ACCESS_KEY=hush\n")
            .unwrap();
        assert_eq!(problems(&location("s3://acme")), Vec::<String>::new());
        let found = problems(&location("gs://acme"));
        assert!(found[0].contains("is not JSON"), "{found:?}");
        std::fs::write(&file, "aws_secret_access_key = hush").unwrap();
        let found = problems(&location("s3://acme"));
        assert!(found[0].ends_with("has no line aws_access_key_id = .."), "{found:?}");
        std::fs::write(&file, r#"{"type": "external_account", "private_key": "hush"}"#).unwrap();
        let found = problems(&location("gs://acme"));
        assert!(found[0].ends_with("must be of type service_account or authorized_user"));
        std::fs::write(&file, r#"{"type": "service_account", "private_key": "hush"}"#).unwrap();
        let found = problems(&location("gs://acme"));
        assert!(found[0].contains("cannot be used") && !found[0].contains("hush"), "{found:?}");
    }

    #[tokio::test]
    async fn unavailable_bucket_is_reported() {
        twilio_edge_platform::file_access::restrict_new_files();
        use object_store::ObjectStoreExt;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = format!("http://{closed}");
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("credentials").display().to_string();
        std::fs::write(&file, "aws_access_key_id=AKIA\naws_secret_access_key=hush").unwrap();
        let location = BucketLocation {
            url: "s3://acme",
            endpoint: &endpoint,
            region: "us-east-1",
            credentials_file: &file,
        };
        let bucket = Bucket::open(&location).unwrap();
        let error = bucket.objects().head(&bucket.path("x")).await.unwrap_err();
        assert!(reason(&error).starts_with("the bucket cannot be reached: "), "{}", reason(&error));
    }
}
