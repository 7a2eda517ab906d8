//! Processes that start and end together: their output has a name in front of each line, and all of them end as soon as one
//! ends or a stop is requested. None outlives the program that started it, even if that is killed. Knows nothing of what
//! they do.

use std::io;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Time limit of a process to end after the request, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Pause between two checks whether a process is ready.
const PAUSE: Duration = Duration::from_millis(20);

/// Process that has ended.
#[derive(Debug)]
pub struct ProcessExit {
    /// Name, as given to [`Processes::start`].
    pub name: &'static str,
    /// Exit status; an error if it could not be determined.
    pub status: io::Result<ExitStatus>,
}

/// Running processes.
#[derive(Debug)]
pub struct Processes {
    tasks: JoinSet<ProcessExit>,
    stop: watch::Sender<bool>,
    print_line: fn(&str),
}

impl Processes {
    /// Returns an empty set. Each line of output is passed to `print_line`, without its line break.
    pub fn new(print_line: fn(&str)) -> Self {
        Self { tasks: JoinSet::new(), stop: watch::Sender::new(false), print_line }
    }

    /// Starts `command`. Call it on the program's main thread: the system ends the process when the thread that started it
    /// ends.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start(&mut self, name: &'static str, command: std::process::Command) -> io::Result<()> {
        let mut child = Command::from(with_parent(command))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal must reach only this program, which then ends the processes itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(print_lines(name, stdout, self.print_line));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(print_lines(name, stderr, self.print_line));
        }
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            let stop_requested = async { stop.wait_for(|stop| *stop).await.is_ok() };
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                _ = stop_requested => None,
            };
            let status = match ended {
                Some(status) => status,
                None => end(&mut child).await,
            };
            // Reads the remaining output, unless a child of the process still has it open.
            let _ = timeout(GRACE, output.join_all()).await;
            ProcessExit { name, status }
        });
        Ok(())
    }

    /// Returns the first process that ends by itself; never returns while all of them run.
    pub async fn first_to_end(&mut self) -> ProcessExit {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => return ended,
                // A task that panicked has dropped its child, which killed it; another one reports its end.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Requests all processes to end, and kills those that do not end within five seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Wraps the command in `setpriv`, so that the system ends the process if this program dies. Without `setpriv` (it exists on
/// Linux only) that guarantee is missing.
fn with_parent(command: std::process::Command) -> std::process::Command {
    let has_setpriv = std::process::Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_setpriv {
        return command;
    }
    let mut wrapped = std::process::Command::new("setpriv");
    wrapped.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Sends a signal to the process and its children (they are one process group), and kills them after the time limit.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let Some(group) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
        return child.wait().await;
    };
    let _ = kill_process_group(group, Signal::TERM);
    if let Ok(status) = timeout(GRACE, child.wait()).await {
        return status;
    }
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().await
}

async fn print_lines(name: &str, output: impl AsyncRead + Unpin, print_line: fn(&str)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        // If no one reads the output any more, the only option is to continue reading.
        print_line(&format!("{name:>8} | {}", text.trim_end()));
        line.clear();
    }
}

/// Waits until `GET path` at `address` is answered with 200, at most for `time_limit`. Returns false otherwise.
pub async fn wait_until_ready(address: SocketAddr, path: &str, time_limit: Duration) -> bool {
    let deadline = Instant::now() + time_limit;
    while Instant::now() < deadline {
        if timeout(Duration::from_secs(1), answers_ok(address, path)).await.is_ok_and(|ok| ok) {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

async fn answers_ok(address: SocketAddr, path: &str) -> bool {
    let request = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status_line = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status_line).await?;
        io::Result::Ok(&status_line == b"HTTP/1.1 200")
    };
    request.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn end_of_a_process_is_reported_with_name_and_status() {
        let mut processes = Processes::new(|_| ());
        processes.start("patient", shell("sleep 60")).unwrap();
        processes.start("hasty", shell("exit 3")).unwrap();
        let ended = processes.first_to_end().await;
        assert_eq!((ended.name, ended.status.unwrap().code()), ("hasty", Some(3)));
        let before = Instant::now();
        processes.stop().await;
        assert!(before.elapsed() < GRACE, "sleep ends on SIGTERM");
    }

    #[tokio::test]
    async fn process_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let mut processes = Processes::new(|_| ());
        let script =
            format!("trap '' TERM; echo $$ >'{}'; while :; do sleep 1; done", pid_file.display());
        processes.start("deaf", shell(&script)).unwrap();
        let deadline = Instant::now() + GRACE;
        let pid = loop {
            assert!(Instant::now() < deadline, "the shell has not started");
            match std::fs::read_to_string(&pid_file) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => tokio::time::sleep(PAUSE).await,
            }
        };
        processes.stop().await;
        let alive = shell(&format!("kill -0 {pid}")).stderr(Stdio::null()).status().unwrap();
        assert!(!alive.success(), "{pid} is still there");
    }

    #[tokio::test]
    async fn closed_port_is_not_ready() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!wait_until_ready(free, "/readyz", PAUSE * 3).await);
    }
}
