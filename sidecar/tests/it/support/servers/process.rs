//! Processes that end with this one, free ports, and waiting for conditions.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// Time limit for a server to start, and for a condition to become true.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts "$@", prints its process id, waits for the end of standard input, then kills it with $SIGNAL and removes $REMOVE.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null &
pid=$!
echo $pid
exec 2>/dev/null
read _ <&3
kill -$SIGNAL $pid 2>/dev/null
wait $pid 2>/dev/null
[ -z "$REMOVE" ] || rm -rf "$REMOVE"
"#;

/// Process that ends with this one.
pub(crate) struct Guarded {
    guard: Child,
    pub(crate) pid: u32,
}

impl Guarded {
    pub(crate) fn start(
        program: &Path,
        args: &[&str],
        envs: &[(&str, &str)],
        signal: &str,
        remove: Option<&Path>,
        stderr: Stdio,
    ) -> Guarded {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(args)
            .envs(envs.iter().copied())
            .env("SIGNAL", signal)
            .env("REMOVE", remove.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Guarded { pid: line.trim().parse().unwrap(), guard }
    }

    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.guard.stderr.take().unwrap()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status();
        assert!(status.unwrap().success(), "kill -{signal} {}", self.pid);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Returns an unused port. It is below the ephemeral range, so that no outgoing connection occupies it a moment later.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    // Test programs that run at the same time start far apart.
    let start = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    (0..COUNT)
        .find_map(|_| {
            let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = FIRST + u16::try_from((start + offset) % u32::from(COUNT)).unwrap();
            TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
        })
        .unwrap()
}

/// Repeats `ask` until it returns true. Fails with `what` after 30 s.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl FnMut() -> F) {
    eventually_within(LIMIT, what, ask).await;
}

/// As [`eventually`], with another time limit.
pub(crate) async fn eventually_within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) {
    let deadline = Instant::now() + limit;
    while !ask().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        // Less often than the rate limit of one caller (`api.requests_per_second`).
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn find(name: &str, folders: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = folders.iter().cloned().chain(std::env::split_paths(&path));
    let mut candidates = known.map(|folder| folder.join(name));
    candidates
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: run `make setup`"))
}
