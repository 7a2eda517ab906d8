//! The real sidecar, `twilio-edge serve`, on data that survives its restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::sync::Mutex;
use twilio_edge_demo::account::write_private;

use crate::client::get;
use crate::process::{Process, isolated, until};

const DATABASE: &str = "data/ledger.db";

/// A running sidecar.
pub struct Sidecar {
    address: SocketAddr,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    process: Mutex<Process>,
}

impl Sidecar {
    /// Starts one that listens on `address` and waits until it is ready.
    pub async fn start(
        address: SocketAddr,
        environment: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self> {
        let process = Mutex::new(launch(address, &environment, folder)?);
        let sidecar = Self { address, folder: folder.to_owned(), environment, process };
        sidecar.until_ready().await?;
        Ok(sidecar)
    }

    /// Returns the address at which the filter reaches it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Starts it again on the same data, at the same address.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await = launch(self.address, &self.environment, &self.folder)?;
        self.until_ready().await
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// Pauses the process (SIGSTOP): its socket still accepts connections, but it answers nothing.
    pub async fn pause(&self) -> Result<()> {
        self.process.lock().await.signal(Signal::STOP)
    }

    /// Resumes it after [`Self::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.process.lock().await.signal(Signal::CONT)
    }

    /// Fails if the process has ended by itself.
    pub async fn check_alive(&self) -> Result<()> {
        self.process.lock().await.check_alive()
    }

    /// Returns its log since the first start.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(self.folder.join("sidecar.log")).context("read its log")?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Replaces the accounts file atomically, as a deployment does.
    pub fn replace_accounts(&self, text: &str) -> Result<()> {
        write_accounts(&self.folder, text).map(drop)
    }

    /// Returns the path of its SQLite file.
    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// Returns whether its spool contains `text`.
    pub fn spooled(&self, text: &str) -> Result<bool> {
        let mut folders = vec![self.folder.join(format!("{DATABASE}.spool"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if String::from_utf8_lossy(&std::fs::read(path)?).contains(text) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn until_ready(&self) -> Result<()> {
        until("the sidecar to be ready", async || {
            self.process.lock().await.check_alive()?;
            let page = get(self.address, "/readyz").await;
            Ok(page.is_ok_and(|page| page.status == 200).then_some(()))
        })
        .await
    }
}

/// Writes the accounts file of the sidecar that is started in `folder`. Returns its path.
pub fn write_accounts(folder: &Path, text: &str) -> Result<PathBuf> {
    let (path, new) = (folder.join("accounts.toml"), folder.join("accounts.new"));
    write_private(&new, text)?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}

fn launch(address: SocketAddr, environment: &[(String, String)], folder: &Path) -> Result<Process> {
    let mut command = isolated(binary()?);
    let database = format!("sqlite://{}", folder.join(DATABASE).display());
    command.arg("serve").env("TWILIO_EDGE_LISTEN", address.to_string());
    command.env("TWILIO_EDGE_ADMIN_LISTEN", "off");
    command.env("DATABASE_URL", database).envs(environment.iter().cloned());
    Process::start("sidecar", command, folder)
}

/// Returns the path of the program. It is built beside this test: `target/<profile>/deps/e2e-..` and
/// `target/<profile>/twilio-edge`.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TWILIO_EDGE_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("no target directory")?;
    let binary = profile.join("twilio-edge");
    ensure!(binary.exists(), "there is no {}: run `make e2e`", binary.display());
    Ok(binary)
}
