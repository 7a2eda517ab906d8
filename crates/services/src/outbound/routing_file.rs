//! Routes of outbound messages: read from their file, and read again when it changes. Decides when to check the file. A
//! file that has become unusable is logged, and the last good routes stay in effect. The domain decides the meaning of
//! the routes.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::access::webhook_keys as accounts;
use twilio_edge_domain::sending::routing::Routing;

/// Interval between checks of the file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Routes of one file. Copies share them.
#[derive(Debug, Clone)]
pub struct Routes {
    path: Arc<Path>,
    in_effect: Arc<RwLock<Arc<Routing>>>,
}

impl Routes {
    /// Reads the file for the first time; an empty name means no routes. Returns every problem of the file.
    pub fn open(file: &str) -> Result<Routes, Vec<String>> {
        let path = Path::new(file);
        let routing = if file.is_empty() { Routing::default() } else { parse(read(path))? };
        Ok(Routes { path: path.into(), in_effect: Arc::new(RwLock::new(Arc::new(routing))) })
    }

    /// Returns the routes in effect.
    pub fn current(&self) -> Arc<Routing> {
        self.in_effect.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the routes come from a file, which may change.
    pub fn has_file(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }

    /// Checks the file at an interval, for ever. Returns only if a check panicked.
    pub async fn run(self) {
        let mut last = None;
        loop {
            let path = self.path.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || read(&path)).await else {
                return;
            };
            if last.as_ref() != Some(&content) {
                self.apply(parse(content.clone()));
                last = Some(content);
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn apply(&self, read: Result<Routing, Vec<String>>) {
        let file = self.path.display();
        match read {
            Ok(routing) if routing == *self.current() => {}
            Ok(routing) => {
                *self.in_effect.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routing);
                tracing::info!(
                    event = "routing.reloaded",
                    "the sidecar read changed routes, which are now in effect: {file}"
                );
            }
            Err(problems) => {
                tracing::warn!(
                    event = "routing.reload_failed",
                    problems = problems.join("; "),
                    "the sidecar could not use the routing file; the last valid routes stay in effect: {file}"
                );
            }
        }
    }
}

/// Returns every problem of the file at `path`.
pub fn problems(path: &str) -> Vec<String> {
    parse(read(Path::new(path))).err().unwrap_or_default()
}

fn read(path: &Path) -> Result<String, String> {
    String::from_utf8(accounts::read(path)?).map_err(|_| "the file is not UTF-8".to_owned())
}

fn parse(read: Result<String, String>) -> Result<Routing, Vec<String>> {
    Routing::parse(&read.map_err(|problem| vec![problem])?)
}
