//! Processes under test: started on unused ports, with their output stored for the analysis of failed scenarios, and ended
//! by their pid only. Does not know what the processes do.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Time limit for any operation of a scenario. It is far above the needs of a busy two-core machine.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// One child process. Killed when dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs appended to `<logs>/<name>.log`.
    pub fn start(name: &'static str, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name, child, log })
    }

    /// Kills it with `kill -9`, and waits until it has ended.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Returns its process id while it runs.
    pub fn pid(&self) -> Result<Pid> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        pid.with_context(|| format!("{} has ended", self.name))
    }

    /// Fails with the end of its log if the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself ({status}):\n{}", self.name, tail(&self.log, 20));
        }
        Ok(())
    }
}

/// Returns a command with a separate environment: a developer's settings must not reach the tested process.
pub fn isolated(binary: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// Returns the last `lines` lines of a log, each of bounded length.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let last = all.iter().skip(all.len().saturating_sub(lines));
    last.map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// Repeats `probe` until it returns a value, for at most [`TIME_LIMIT`].
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(TIME_LIMIT, what, probe).await
}

/// Repeats `probe` until it returns a value, for at most `patience`.
pub async fn until_within<T>(
    time_limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if started.elapsed() > time_limit {
            bail!("waited {time_limit:?} in vain for: {what}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs `work` for at most [`TIME_LIMIT`].
pub async fn bounded<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(TIME_LIMIT, work).await {
        Ok(done) => done.with_context(|| what.to_owned()),
        Err(_) => bail!("took longer than {TIME_LIMIT:?}: {what}"),
    }
}

/// Returns an unused port on 127.0.0.1. It is below the ephemeral range, so no outgoing connection of a load scenario can
/// occupy it before the server binds, or binds again.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    // Test programs that run at the same time start far apart.
    let start = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    for _ in 0..COUNT {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + offset) % u32::from(COUNT))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}
