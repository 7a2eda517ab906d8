//! Measured processes: started on a separate core, and ended when this process ends, for any reason. Their usage, including
//! that of their children, is read from /proc.
//! This module knows nothing of their work.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1::{Reader, status};

/// Time limit for a start.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Starts "$@", prints its process id, waits for the end of its own input, then ends it with $GUARD_SIGNAL. The input ends
/// with the process that holds the other end, even if that is killed.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null >/dev/null 2>>"$GUARD_LOG" &
pid=$!
echo $pid
read _ <&3
kill -$GUARD_SIGNAL $pid 2>/dev/null
wait $pid 2>/dev/null
"#;

/// Two cores: one for the measured processes, one for the load. On a machine with one, all share it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// Number of the first measured core.
    first: usize,
    measured: CpuSet,
    load: CpuSet,
}

impl Cores {
    /// Returns the first two cores that this process may use, and moves it to the second.
    pub(crate) fn divide() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let first = cores.next().context("no core to run on")?;
        let cores =
            Self { first, measured: only(first), load: only(cores.next().unwrap_or(first)) };
        run_on(cores.load)?;
        Ok(cores)
    }

    /// Returns all cores that this process may use, for the measured processes and for the load alike.
    pub(crate) fn shared() -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let first = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core));
        Ok(Self { first: first.context("no core to run on")?, measured: all, load: all })
    }

    /// Reports whether the load has a core of its own.
    pub(crate) fn are_two(self) -> bool {
        self.measured != self.load
    }

    /// Returns the busy time of the measured core since the machine started, for all processes, including stolen time.
    pub(crate) fn measured_busy(self) -> Result<Duration> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{}", self.first);
        let mut lines = text.lines().map(str::split_ascii_whitespace);
        let fields = lines.find_map(|mut line| (line.next() == Some(&name)).then_some(line));
        let fields = fields.with_context(|| format!("/proc/stat has no {name}"))?;
        // User, nice, system, (idle, waiting for a disk), interrupts, steal.
        let busy = fields.take(8).enumerate().filter(|(field, _)| !matches!(field, 3 | 4));
        Ok(ticks(busy.filter_map(|(_, text)| text.parse::<u64>().ok()).sum()))
    }

    /// Starts something on the measured core: a child inherits the core of its parent at that moment.
    fn started_on_measured<T>(self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        run_on(self.measured)?;
        let started = start();
        run_on(self.load)?;
        started
    }
}

fn only(core: usize) -> CpuSet {
    let mut only = CpuSet::new();
    only.set(core);
    only
}

fn run_on(cores: CpuSet) -> Result<()> {
    sched_setaffinity(None, &cores).context("move to another core")
}

/// Program to start.
pub(crate) struct Program<'a> {
    /// Name for its log and the report.
    pub(crate) name: &'static str,
    /// Program and arguments.
    pub(crate) command: Vec<&'a OsStr>,
    /// Its whole environment, except PATH.
    pub(crate) environment: Vec<(&'a str, String)>,
    /// Signal that ends it immediately.
    pub(crate) signal: &'a str,
}

/// A process that does not outlive this one.
pub(crate) struct Process {
    name: &'static str,
    guard: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on the measured core, with its errors in `logs`. Its output is discarded.
    pub(crate) fn start(cores: Cores, program: Program<'_>, logs: &Path) -> Result<Self> {
        let name = program.name;
        let log = logs.join(format!("{name}.log"));
        File::create(&log)?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).args(&program.command).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(program.environment).env("GUARD_LOG", &log);
        command.env("GUARD_SIGNAL", program.signal).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = cores
            .started_on_measured(|| Ok(command.spawn()?))
            .with_context(|| format!("start {name}"))?;
        let mut line = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().with_context(|| format!("no process id of {name}"))?;
        Ok(Self { name, guard, pid, log })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the CPU used so far and the current memory, including its children.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let table = ProcessTable::read()?;
        ensure!(table.has(self.pid), "{} ended by itself:\n{}", self.name, self.log_tail());
        Ok(table.family(self.pid))
    }

    /// Waits until `http://address/path` answers 200.
    pub(crate) async fn until_ready(&self, port: u16, path: &str) -> Result<()> {
        let started = Instant::now();
        while !answers(port, path).await.unwrap_or(false) {
            self.usage()?;
            if started.elapsed() > TIME_LIMIT {
                bail!("{} is not ready after {TIME_LIMIT:?}:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let mut last: Vec<&str> = text.lines().rev().take(8).collect();
        last.reverse();
        last.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

async fn answers(port: u16, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (from, mut to) = stream.split();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    to.write_all(request.as_bytes()).await?;
    // Envoy's admin answers in chunks, which are irrelevant here: the first bytes contain the status.
    let mut reader = Reader::new(from);
    let first = tokio::time::timeout(TIME_LIMIT, reader.first_bytes()).await??;
    Ok(status(first)? == 200)
}

/// Creates a folder that only this user can read, as the sidecar requires of the folder of its database.
pub(crate) fn private_folder() -> Result<TempDir> {
    let permissions = Permissions::from_mode(0o700);
    Ok(tempfile::Builder::new().prefix("twilio-edge-bench-").permissions(permissions).tempdir()?)
}

/// Returns an unused port on 127.0.0.1.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Usage of a process and its children.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time since they started.
    pub(crate) cpu: Duration,
    /// Resident memory; shared memory is counted once per process.
    pub(crate) resident_bytes: u64,
}

/// Converts a number of the kernel's clock ticks.
fn ticks(count: u64) -> Duration {
    Duration::from_nanos(count * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// One line of /proc/PID/stat.
#[derive(Debug, PartialEq)]
struct Entry {
    pid: u32,
    parent: u32,
    /// It has ended, and its parent has not waited for it.
    ended: bool,
    ticks: u64,
    pages: u64,
}

impl Entry {
    fn parse(stat: &str) -> Option<Self> {
        // The name of the program is in parentheses and may contain anything, parentheses too.
        let (pid, rest) = stat.split_once(" (")?;
        let (_, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Counted as in proc(5), where the state is the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        // User and system time, of itself and of its ended children.
        let ticks = [14, 15, 16, 17].map(number).into_iter().sum::<Option<u64>>()?;
        Some(Self {
            pid: pid.parse().ok()?,
            parent: number(4)?.try_into().ok()?,
            ended: matches!(fields.first(), Some(&("Z" | "X"))),
            ticks,
            pages: number(24)?,
        })
    }
}

/// Polls until nothing was used for a moment, because writes after the answers belong to them. Returns the last usage.
pub(crate) async fn until_idle<T: PartialEq>(usage: impl Fn() -> Result<T>) -> Result<T> {
    const CALM: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3);
    let started = Instant::now();
    let mut before = usage()?;
    loop {
        tokio::time::sleep(CALM).await;
        let now = usage()?;
        if now == before || started.elapsed() > LONGEST {
            return Ok(now);
        }
        before = now;
    }
}

struct ProcessTable(Vec<Entry>);

impl ProcessTable {
    fn read() -> Result<Self> {
        let folders = std::fs::read_dir("/proc").context("/proc: this needs Linux")?;
        let stats = folders.flatten().map(|folder| folder.path().join("stat"));
        // An entry that is not a process, or that has just ended, has no such file.
        let texts = stats.filter_map(|stat| std::fs::read_to_string(stat).ok());
        Ok(Self(texts.filter_map(|text| Entry::parse(&text)).collect()))
    }

    fn has(&self, pid: u32) -> bool {
        self.0.iter().any(|entry| entry.pid == pid && !entry.ended)
    }

    fn family(&self, head: u32) -> Usage {
        let mut members = vec![head];
        let (mut used, mut pages) = (0, 0);
        while let Some(pid) = members.pop() {
            members.extend(self.0.iter().filter(|e| e.parent == pid).map(|e| e.pid));
            for entry in self.0.iter().filter(|entry| entry.pid == pid) {
                used += entry.ticks;
                pages += entry.pages;
            }
        }
        Usage { cpu: ticks(used), resident_bytes: pages * rustix::param::page_size() as u64 }
    }
}

/// Keeps the measured core awake with a process that runs only when nothing else wants to. A halted virtual core takes
/// 50 to 300 us to wake, by the minute, and a comparison of latencies would be one of those.
pub(crate) struct Awake(#[expect(dead_code, reason = "ends with this")] Process);

impl Awake {
    /// Starts the process; `None` if there is no `chrt` (util-linux) for that priority.
    pub(crate) fn start(cores: Cores, logs: &Path) -> Option<Self> {
        let command = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"];
        let program = Program {
            name: "spinner",
            command: command.map(OsStr::new).to_vec(),
            environment: Vec::new(),
            signal: "KILL",
        };
        find("chrt", &[])?;
        Process::start(cores, program, logs).ok().map(Self)
    }
}

/// Finds a program in `folders` or on PATH.
pub(crate) fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = folders.iter().cloned().chain(std::env::split_paths(&path));
    known.map(|folder| folder.join(name)).find(|candidate| candidate.exists())
}

/// Returns the kernel's name of the file system of `folder`.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    // The last of several file systems mounted at one place is the visible one.
    let around = mounts.filter(|(place, _)| folder.starts_with(place));
    around.max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_includes_running_and_ended_children() {
        let line = |pid, parent, ticks| {
            format!(
                "{pid} (a) b) (c) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 1 20 300 20 0 1 0 9 9 7 0"
            )
        };
        let texts =
            [line(10, 1, 4000), line(11, 10, 50_000), line(12, 11, 600_000), line(13, 1, 9)];
        let table = ProcessTable(texts.iter().filter_map(|text| Entry::parse(text)).collect());
        assert_eq!(table.0.len(), 4);
        let ticks = 4000 + 50_000 + 600_000 + 3 * 321;
        let per_second = rustix::param::clock_ticks_per_second();
        let usage = table.family(10);
        assert_eq!(usage.cpu, Duration::from_nanos(ticks * (1_000_000_000 / per_second)));
        assert_eq!(usage.resident_bytes, 21 * rustix::param::page_size() as u64);
        assert!(table.has(12));
        let ended = line(12, 11, 0).replace(" S ", " Z ");
        assert!(!ProcessTable(Entry::parse(&ended).into_iter().collect()).has(12));
    }

    #[test]
    fn proc_is_on_proc() {
        assert_eq!(file_system(Path::new("/proc/self")).as_deref(), Some("proc"));
        assert_eq!(file_system(Path::new("/nowhere")), None);
    }

    #[test]
    fn process_table_contains_this_process() {
        assert!(ProcessTable::read().unwrap().has(std::process::id()));
    }
}
