//! Webhook keys of the accounts, for the filters: read from a file, and read again when it changes, so that a rotation
//! needs no restart. This module decides when to check the file. A file that has become unusable is logged, and the
//! last good keys stay in use. It does not know who fetches the keys or how they are transported.

mod file;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};
use twilio_edge_connectors::sinks::{AuthTokenLookup, AuthTokens};
use twilio_edge_contract::{AccountKeys, KeyRing, PROTOCOL_VERSION};
use twilio_edge_platform::metrics::Metrics;

/// Minimum interval between checks of the file, however many filters ask.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Largest size of the file, in bytes. A thousand accounts with two tokens each take a fifth of it.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Keys that are in use now.
#[derive(Debug, Clone)]
pub struct KeysInUse {
    /// Keys of all accounts.
    pub ring: Arc<KeyRing>,
    /// True if the file has become unusable since these keys were read.
    pub stale: bool,
}

/// Keys from one accounts file. Copies share them.
#[derive(Debug, Clone)]
pub struct WebhookKeys {
    path: Arc<Path>,
    /// Locked by the caller that checks the file, even if the file system hangs. Other callers get the current keys
    /// meanwhile.
    last_check: Arc<Mutex<LastCheck>>,
    in_use: watch::Sender<KeysInUse>,
    metrics: Arc<Metrics>,
}

/// Result of the last check of the file.
#[derive(Debug)]
struct LastCheck {
    at: Instant,
    found: FileState,
}

/// State of the file. It is compared by content, not by time or inode: a mounted Kubernetes Secret changes by swapping
/// symbolic links, and a restored file may be older than the one before.
#[derive(Debug, PartialEq, Eq)]
enum FileState {
    Content([u8; 32]),
    Unreadable(String),
}

impl FileState {
    fn of(read: &Result<Vec<u8>, String>) -> FileState {
        match read {
            Ok(bytes) => FileState::Content(Sha256::digest(bytes).into()),
            Err(problem) => FileState::Unreadable(problem.clone()),
        }
    }
}

impl WebhookKeys {
    /// Reads the file for the first time. Returns every problem of the file.
    pub fn open(path: &str, metrics: Arc<Metrics>) -> Result<WebhookKeys, Vec<String>> {
        let path = PathBuf::from(path);
        let read = read_secret(&path);
        let found = FileState::of(&read);
        let ring = Arc::new(ring_of(accounts_in(read)?));
        tracing::info!(
            event = "accounts.loaded",
            generation = ring.generation,
            accounts = count(&ring),
            "the sidecar read the accounts file and filters can fetch its keys: {}",
            path.display()
        );
        Ok(WebhookKeys {
            path: path.into(),
            last_check: Arc::new(Mutex::new(LastCheck { at: Instant::now(), found })),
            in_use: watch::Sender::new(KeysInUse { ring, stale: false }),
            metrics,
        })
    }

    /// Returns the current keys without a check of the file.
    pub fn cached(&self) -> KeysInUse {
        self.in_use.borrow().clone()
    }

    /// Returns the current keys; first checks the file if the last check was not recent.
    pub async fn current(&self) -> KeysInUse {
        if let Ok(mut last) = self.last_check.clone().try_lock_owned()
            && last.at.elapsed() >= CHECK_INTERVAL
        {
            let this = self.clone();
            // The task owns the lock. If the caller is canceled while a file system hangs, no other caller blocks on
            // it. The task has no result, and is canceled only at shutdown.
            let _ = tokio::task::spawn_blocking(move || this.check_file(&mut last)).await;
        }
        self.cached()
    }

    fn check_file(&self, last: &mut LastCheck) {
        let read = read_secret(&self.path);
        let found = FileState::of(&read);
        last.at = Instant::now();
        if last.found == found {
            return;
        }
        last.found = found;
        let KeysInUse { ring, .. } = self.cached();
        let file = self.path.display();
        let in_use = match accounts_in(read).map(ring_of) {
            Ok(now) => {
                tracing::info!(
                    event = "accounts.reloaded",
                    generation = now.generation,
                    accounts = count(&now),
                    changed = now.generation != ring.generation,
                    "the sidecar read the accounts file again: {file}"
                );
                KeysInUse { ring: Arc::new(now), stale: false }
            }
            Err(problems) => {
                tracing::warn!(
                    event = "accounts.reload_failed",
                    generation = ring.generation,
                    problems = problems.join("; "),
                    "the sidecar could not use the accounts file; filters receive the last valid keys: {file}"
                );
                KeysInUse { ring, stale: true }
            }
        };
        self.metrics.accounts_are_stale(in_use.stale);
        self.in_use.send_replace(in_use);
    }
}

impl AuthTokens for WebhookKeys {
    fn auth_token<'a>(&'a self, account_sid: &'a str) -> AuthTokenLookup<'a> {
        Box::pin(async move {
            let ring = self.current().await.ring;
            let account = ring.accounts.iter().flatten().find(|one| one.sid == account_sid)?;
            account.auth_tokens.first().cloned()
        })
    }
}

/// Returns every problem of the file at `path`.
pub fn problems(path: &str) -> Vec<String> {
    accounts_in(read_secret(Path::new(path))).err().unwrap_or_default()
}

fn accounts_in(read: Result<Vec<u8>, String>) -> Result<Vec<AccountKeys>, Vec<String>> {
    let bytes = read.map_err(|problem| vec![problem])?;
    let text = std::str::from_utf8(&bytes).map_err(|_| vec!["the file is not UTF-8".to_owned()])?;
    file::parse(text)
}

/// Reads a file with secrets, if its permissions are strict enough.
fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    twilio_edge_platform::file_access::check_secret(path)?;
    read(path)
}

/// Reads a file of the operator, up to the largest permitted size.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: std::io::Error| error.to_string();
    // A read from a pipe would never end.
    if !std::fs::metadata(path).map_err(problem)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let most = MAX_FILE_BYTES as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(problem)?;
    match bytes.len() {
        ..=MAX_FILE_BYTES => Ok(bytes),
        _ => Err(format!("is larger than {MAX_FILE_BYTES} bytes")),
    }
}

/// Builds the key ring. Its generation is a digest of the parsed content, so that sidecars whose files differ only in
/// comments return the same generation. A filter that alternates between sidecars then sees no change.
fn ring_of(accounts: Vec<AccountKeys>) -> KeyRing {
    let content = serde_json::to_vec(&accounts).unwrap_or_default();
    let digest = Sha256::digest(content);
    let generation = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    KeyRing { v: PROTOCOL_VERSION, generation, accounts: Some(accounts) }
}

fn count(ring: &KeyRing) -> usize {
    ring.accounts.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(file: &str) -> String {
        ring_of(file::parse(file).unwrap()).generation
    }

    #[test]
    fn generation_depends_on_the_keys_and_not_on_the_file() {
        let one = "[[account]]\nsid = \"AC00112233445566778899aabbccddeeff\"\nauth_tokens = [\"a\", \"b\"]\n";
        let two =
            "[[account]]\nsid = \"AC000000000000000000000000000000aa\"\nauth_tokens = [\"c\"]\n";
        let name = generation(&[one, two].concat());
        assert_eq!(name, generation(&["# a comment\n", two, "\n", one].concat()));
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_ne!(name, generation(&[&one.replace("\"a\", \"b\"", "\"b\", \"a\""), two].concat()));
        assert_ne!(name, generation(one));
    }

    #[test]
    fn file_above_the_size_limit_is_refused() {
        twilio_edge_platform::file_access::restrict_new_files();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(problems(&path("")), ["is not a file"]);
        assert_eq!(problems(&path("absent")), ["No such file or directory (os error 2)"]);
        std::fs::write(path("large"), "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
        assert_eq!(problems(&path("large")), ["is larger than 1048576 bytes"]);
        std::fs::write(path("bytes"), b"\xff").unwrap();
        assert_eq!(problems(&path("bytes")), ["the file is not UTF-8"]);
    }
}
