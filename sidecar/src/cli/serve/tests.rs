//! The whole sidecar, composed with a background task that fails.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use tokio::sync::Notify;
use twilio_edge_platform::config::Merged;

use super::*;

/// Time limit for the start and for the shutdown.
const LIMIT: Duration = Duration::from_secs(60);

/// Variable with the folder of the process that [`failed_task_ends_the_process_with_an_error`] starts.
const CHILD_FOLDER: &str = "TWILIO_EDGE_TEST_CHILD_FOLDER";

/// Settings of a sidecar with SQLite and a Unix socket in `folder`.
fn config(folder: &Path) -> Config {
    let path = |name: &str| folder.join(name).display().to_string();
    let settings = [
        ("TWILIO_EDGE_TOKEN", "token-that-only-this-test-uses-0123456789".to_owned()),
        ("TWILIO_EDGE_LISTEN", format!("unix:{}", path("edge.sock"))),
        ("TWILIO_EDGE_ADMIN_LISTEN", "off".into()),
        ("TWILIO_EDGE_LOG_FORMAT", "json".into()),
        ("DATABASE_URL", format!("sqlite://{}", path("edge.db"))),
    ];
    let settings = settings.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Merged::read(None, settings.into_iter()).check().unwrap()
}

/// Returns the status line of `GET /healthz`; `None` if nothing listens.
fn health(folder: &Path) -> Option<String> {
    let mut connection = UnixStream::connect(folder.join("edge.sock")).ok()?;
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    connection.read_to_string(&mut response).ok()?;
    response.lines().next().map(str::to_owned)
}

/// Waits until the sidecar answers requests.
async fn healthy(folder: &Path) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let folder = folder.to_owned();
        let status = tokio::task::spawn_blocking(move || health(&folder)).await.unwrap();
        if status.is_some_and(|status| status.starts_with("HTTP/1.1 200")) {
            return;
        }
        assert!(Instant::now() < deadline, "the sidecar does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_task_shuts_the_sidecar_down_and_is_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let tasks = Supervisor::new(metrics.clone());
    let failing = Arc::new(Notify::new());
    let fail = failing.clone();
    tasks.spawn(Task::Archivist, async move {
        fail.notified().await;
        panic!("the archivist fails in this test");
    });
    let running = serve(config(folder.path()), Repeats::default(), metrics.clone(), tasks);
    let fail_once_healthy = async {
        healthy(folder.path()).await;
        failing.notify_one();
    };
    let both = async { tokio::join!(running, fail_once_healthy) };
    let (result, ()) = tokio::time::timeout(LIMIT * 2, both).await.unwrap();
    assert_eq!(result, Err("the background task archivist panicked".to_owned()));
    assert_eq!(health(folder.path()), None, "the listener is closed");
    let text = metrics.text();
    let counted = "twilio_edge_background_task_failures_total{task=\"archivist\"} 1\n";
    assert!(text.contains(counted), "{text}");
    let others = "twilio_edge_background_task_failures_total{task=\"retention\"} 0\n";
    assert!(text.contains(others), "{text}");
}

/// Runs the sidecar with a background task that ends as soon as requests are answered, and exits as `twilio-edge serve`.
fn run_as_child(folder: &Path) -> ! {
    let config = config(folder);
    let repeats = log::begin(&config.log, std::iter::empty());
    let metrics = Arc::new(Metrics::default());
    log::report_panics(metrics.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runtime.block_on(async {
        let tasks = Supervisor::new(metrics.clone());
        let folder = folder.to_owned();
        tasks.spawn(Task::Retention, async move {
            healthy(&folder).await;
            panic!("the retention job fails in this test");
        });
        serve(config, repeats, metrics, tasks).await
    });
    let is_success = exit_code(result) == ExitCode::SUCCESS;
    std::process::exit(i32::from(!is_success))
}

#[test]
fn failed_task_ends_the_process_with_an_error() {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        run_as_child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["cli::serve::tests::failed_task_ends_the_process_with_an_error", "--exact"])
        .arg("--nocapture")
        .env_clear()
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{log}");

    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = |event: &str| {
        let found = lines.iter().find(|line| line["event"] == event);
        found.unwrap_or_else(|| panic!("no line {event} in {log}"))
    };
    let panicked = line("process.panicked");
    assert_eq!(panicked["level"], "ERROR");
    assert_eq!(panicked["reason"], "the retention job fails in this test");
    let location = panicked["location"].as_str().unwrap();
    assert!(location.contains("serve/tests.rs:"), "{location}");
    let failed = line("task.failed");
    assert_eq!((&failed["level"], &failed["task"]), (&"ERROR".into(), &"retention".into()));
    assert_eq!(failed["reason"], "panicked");
    assert_eq!(line("sidecar.stopping")["reason"], "the background task retention panicked");
    line("sidecar.stopped");
    let last = log.trim_end().lines().last().unwrap();
    assert_eq!(last, "twilio-edge: the background task retention panicked");
}
