//! The accounts' keys that are handed to filters: read from a file, and read again when it changes, so that a rotation
//! needs no restart. Decides when the file is looked at, and that a file which became unusable changes nothing but the
//! log: the last good keys stay. Must not know who asks, nor how they are sent.

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
use twilio_edge_contract::{AccountKeys, KeyRing, PROTOCOL_VERSION};

use twilio_edge_platform::metrics::Metrics;

/// How long a look at the file is enough, whoever asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Largest file. A thousand accounts with two tokens take a fifth of it.
const MAX_FILE_BYTES: usize = 1 << 20;

/// What is handed out now.
#[derive(Debug, Clone)]
pub struct Handed {
    /// Keys of all accounts.
    pub ring: Arc<KeyRing>,
    /// The file has become unusable since.
    pub stale: bool,
}

/// The keys of one accounts file.
#[derive(Debug, Clone)]
pub struct Accounts {
    path: Arc<Path>,
    /// Held by the one who looks, however long the file system takes: the others are answered with what there is.
    last_look: Arc<Mutex<Look>>,
    handed: watch::Sender<Handed>,
    metrics: Arc<Metrics>,
}

/// What the last look at the file found.
#[derive(Debug)]
struct Look {
    at: Instant,
    found: Found,
}

/// Compared by content, not by time or inode: a mounted Kubernetes Secret changes by swapping symbolic links, and a
/// file that was restored may be older than the one before.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Content([u8; 32]),
    Unreadable(String),
}

impl Found {
    fn of(read: &Result<Vec<u8>, String>) -> Found {
        match read {
            Ok(bytes) => Found::Content(Sha256::digest(bytes).into()),
            Err(problem) => Found::Unreadable(problem.clone()),
        }
    }
}

impl Accounts {
    /// Reads the file for the first time; every problem with it.
    pub fn open(path: &str, metrics: Arc<Metrics>) -> Result<Accounts, Vec<String>> {
        let path = PathBuf::from(path);
        let read = read_secret(&path);
        let found = Found::of(&read);
        let ring = Arc::new(ring_of(accounts_in(read)?));
        tracing::info!(
            event = "accounts.read",
            generation = ring.generation,
            accounts = count(&ring),
            "keys are handed to filters from {}",
            path.display()
        );
        Ok(Accounts {
            path: path.into(),
            last_look: Arc::new(Mutex::new(Look { at: Instant::now(), found })),
            handed: watch::Sender::new(Handed { ring, stale: false }),
            metrics,
        })
    }

    /// What to hand out; as it was at the last look, without another.
    pub fn known(&self) -> Handed {
        self.handed.borrow().clone()
    }

    /// What to hand out; looks at the file, if that was not done lately.
    pub async fn current(&self) -> Handed {
        if let Ok(mut last) = self.last_look.clone().try_lock_owned()
            && last.at.elapsed() >= LOOK_EVERY
        {
            let this = self.clone();
            // It owns the lock: when whoever asked goes away while a file system hangs, nobody else joins it there.
            // It has no result, and is cancelled at shutdown only.
            let _ = tokio::task::spawn_blocking(move || this.look(&mut last)).await;
        }
        self.known()
    }

    fn look(&self, last: &mut Look) {
        let read = read_secret(&self.path);
        let found = Found::of(&read);
        last.at = Instant::now();
        if last.found == found {
            return;
        }
        last.found = found;
        let Handed { ring, .. } = self.known();
        let file = self.path.display();
        let handed = match accounts_in(read).map(ring_of) {
            Ok(now) => {
                tracing::info!(
                    event = "accounts.read_again",
                    generation = now.generation,
                    accounts = count(&now),
                    changed = now.generation != ring.generation,
                    "the accounts file was read again: {file}"
                );
                Handed { ring: Arc::new(now), stale: false }
            }
            Err(problems) => {
                tracing::warn!(
                    event = "accounts.unusable",
                    generation = ring.generation,
                    problems = problems.join("; "),
                    "the accounts file cannot be used, filters still get the last good keys: {file}"
                );
                Handed { ring, stale: true }
            }
        };
        self.metrics.accounts_are_stale(handed.stale);
        self.handed.send_replace(handed);
    }
}

/// Everything that is wrong with the file at `path`.
pub fn problems(path: &str) -> Vec<String> {
    accounts_in(read_secret(Path::new(path))).err().unwrap_or_default()
}

fn accounts_in(read: Result<Vec<u8>, String>) -> Result<Vec<AccountKeys>, Vec<String>> {
    let bytes = read.map_err(|problem| vec![problem])?;
    let text = std::str::from_utf8(&bytes).map_err(|_| vec!["the file is not UTF-8".to_owned()])?;
    file::parse(text)
}

/// The content of a file with credentials, if nobody else may read it.
fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    twilio_edge_platform::file_access::check_secret(path)?;
    read(path)
}

/// The content of a file that an operator keeps, if it is of a size that such a file has.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: std::io::Error| error.to_string();
    // A pipe would never come to its end.
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

/// The generation is a digest of what the file means: sidecars whose files differ in comments alone hand out the same,
/// and a filter that asks now the one, now the other, does not see a change each time.
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
    fn a_generation_names_the_keys_and_not_the_file() {
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
    fn only_a_file_of_a_sane_size_is_read() {
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
