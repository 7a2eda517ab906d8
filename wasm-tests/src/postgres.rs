//! A real PostgreSQL that scenarios kill or stop with all of its processes. Committed data survives that. It does not sync,
//! because only processes are killed here, not the machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::process::{Process, free_port, isolated, until};

/// A running server.
pub struct Postgres {
    port: u16,
    folder: PathBuf,
    process: Mutex<Process>,
}

impl Postgres {
    /// Creates one with its files in `folder`, and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        let data = folder.join("data");
        if is_root() {
            // PostgreSQL refuses to run as root.
            run(Command::new("install").args(["-d", "-m", "755"]).arg(folder)).await?;
            run(Command::new("install").args(["-d", "-m", "700", "-o", "postgres"]).arg(&data))
                .await?;
        } else {
            std::fs::create_dir_all(folder)?;
        }
        let mut initdb = as_postgres("initdb")?;
        initdb.args(["--no-sync", "-A", "trust", "-U", "edge", "-E", "UTF8", "-D"]).arg(&data);
        run(initdb.current_dir("/")).await?;
        let port = free_port()?;
        let process = Mutex::new(launch(port, folder)?);
        let postgres = Self { port, folder: folder.to_owned(), process };
        postgres.until_ready().await?;
        Ok(postgres)
    }

    /// Returns the value for `DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("postgres://edge:not-checked@127.0.0.1:{}/postgres", self.port)
    }

    /// Opens a separate connection.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url()).await?)
    }

    /// Kills all of its processes with `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        // A stopped process creates no more children.
        process.signal(Signal::STOP)?;
        let children = children(process.pid()?)?;
        for child in &children {
            // Some processes end by themselves meanwhile.
            let _gone = kill_process(*child, Signal::KILL);
        }
        process.kill().await?;
        // While one of the processes runs, its shared memory exists, and no other server starts on the same data.
        until("PostgreSQL's processes to end", async || {
            let there = |pid: &Pid| {
                Path::new(&format!("/proc/{}/fd", pid.as_raw_nonzero()))
                    .read_dir()
                    .is_ok_and(|mut files| files.next().is_some())
            };
            Ok((!children.iter().any(there)).then_some(()))
        })
        .await
    }

    /// Starts it again on the same data, at the same address.
    pub async fn restart(&self) -> Result<()> {
        let _none = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
        *self.process.lock().await = launch(self.port, &self.folder)?;
        self.until_ready().await
    }

    /// Sends a signal to all of its processes.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.lock().await;
        let children = children(process.pid()?)?;
        process.signal(signal)?;
        for child in children {
            let _gone = kill_process(child, signal);
        }
        Ok(())
    }

    async fn until_ready(&self) -> Result<()> {
        until("PostgreSQL to answer", async || {
            self.process.lock().await.check_alive()?;
            Ok(self.connect().await.ok())
        })
        .await
        .map(drop)
    }
}

fn launch(port: u16, folder: &Path) -> Result<Process> {
    let mut command = as_postgres("postgres")?;
    command.arg("-D").arg(folder.join("data")).args(["-h", "127.0.0.1", "-k", "", "-F"]);
    command.args(["-p", &port.to_string(), "-c", "max_connections=200"]);
    Process::start("postgres", command, folder)
}

/// Returns the processes whose parent is this one.
fn children(parent: Pid) -> Result<Vec<Pid>> {
    let list = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let text = std::fs::read_to_string(list).context("children of PostgreSQL")?;
    let pids = text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    Ok(pids.collect())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_postgres(program: &str) -> Result<Command> {
    let program = find(program)?;
    if !is_root() {
        return Ok(isolated(program));
    }
    let mut command = isolated("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    Ok(command)
}

/// Finds a program in the folder of the newest version. Debian keeps them off PATH, in a folder for each version.
fn find(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.into_iter().rev().chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.exists());
    found.with_context(|| format!("there is no {name}: run `make setup-test`"))
}

async fn run(command: &mut Command) -> Result<()> {
    let output = command.kill_on_drop(true).output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", stderr.trim());
    Ok(())
}
