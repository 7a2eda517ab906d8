//! Supervision of background tasks. A background task runs until the sidecar stops. If one panics or ends earlier, the
//! supervisor logs it, counts it and reports it to `serve`, which shuts down in order and ends the process with an error.
//! No task is restarted in the process: its state may be inconsistent after a panic, and an orchestrator restarts the
//! process anyway. The supervisor does not know the work of a task.

mod task;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

pub use self::task::{Task, reference};
use crate::metrics::Metrics;

/// Starts background tasks and reports the first one that fails. Copies share the tasks.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    /// Tasks without an owner, which [`Supervisor::stop`] interrupts.
    interruptible: Mutex<Vec<AbortHandle>>,
    failure: watch::Sender<Option<Failure>>,
}

/// Failure of a background task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Task that failed.
    pub task: Task,
    /// Way in which it failed.
    pub cause: Cause,
}

/// Way in which a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The task panicked.
    Panic,
    /// The task ended although nothing had stopped it.
    EarlyEnd,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { task, cause } = self;
        write!(f, "the background task {task} {cause}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Panic => "panicked",
            Cause::EarlyEnd => "ended too early",
        })
    }
}

impl Supervisor {
    /// Creates a supervisor without tasks. `metrics` counts the failures.
    pub fn new(metrics: Arc<Metrics>) -> Supervisor {
        let failure = watch::Sender::new(None);
        Supervisor {
            shared: Arc::new(Shared { metrics, interruptible: Mutex::default(), failure }),
        }
    }

    /// Starts a task that may be interrupted at any time. It runs until [`Supervisor::stop`].
    pub fn spawn(&self, task: Task, work: impl Future<Output = ()> + Send + 'static) {
        let running = self.start(task, Arc::default(), work);
        let mut interruptible = self.interruptible();
        interruptible.push(running.abort_handle());
    }

    /// Starts a task that its owner ends through the returned handle.
    pub fn spawn_owned(
        &self,
        task: Task,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> TaskHandle {
        let is_ending = Arc::<AtomicBool>::default();
        let running = self.start(task, is_ending.clone(), work);
        TaskHandle { is_ending, running }
    }

    /// Returns the first failure; waits until there is one.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| *failure) {
            Ok(Some(failure)) => failure,
            // Cannot happen: the sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Returns the first failure, if there was one.
    pub fn failure(&self) -> Option<Failure> {
        *self.shared.failure.borrow()
    }

    /// Interrupts the tasks of [`Supervisor::spawn`].
    pub fn stop(&self) {
        self.interruptible().drain(..).for_each(|running| running.abort());
    }

    fn start(
        &self,
        task: Task,
        is_ending: Arc<AtomicBool>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<bool> {
        self.shared.metrics.tasks.begin(task.as_str());
        let supervisor = self.clone();
        tokio::spawn(async move {
            let cause = match catch_panic(work).await {
                Ok(()) if is_ending.load(Ordering::Acquire) => return true,
                Ok(()) => Cause::EarlyEnd,
                Err(Panicked) => Cause::Panic,
            };
            supervisor.report(Failure { task, cause });
            false
        })
    }

    fn report(&self, failure: Failure) {
        let Failure { task, cause } = failure;
        self.shared.metrics.tasks.failed(task.as_str());
        tracing::error!(
            event = "task.failed",
            %task,
            reason = %cause,
            "a background task failed; the sidecar shuts down"
        );
        self.shared.failure.send_if_modified(|first| match first {
            Some(_) => false,
            None => {
                *first = Some(failure);
                true
            }
        });
    }

    fn interruptible(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.shared.interruptible.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of a task that its owner ends. Dropping the handle interrupts the task.
#[derive(Debug)]
pub struct TaskHandle {
    is_ending: Arc<AtomicBool>,
    running: JoinHandle<bool>,
}

impl TaskHandle {
    /// Declares that the task may end from now on. The owner calls this before it signals the task to end.
    pub fn expect_end(&self) {
        self.is_ending.store(true, Ordering::Release);
    }

    /// Waits until the task has ended, and interrupts it after `limit`. Returns true if it ended by itself and without a
    /// failure.
    pub async fn finish(mut self, limit: Duration) -> bool {
        self.expect_end();
        let ended = tokio::time::timeout(limit, &mut self.running).await;
        matches!(ended, Ok(Ok(true)))
    }

    /// Interrupts the task and waits until it has released its resources.
    pub async fn interrupt(mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Panic of one piece of work. The panic hook has logged and counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs a piece of work, for instance one request or one delivery, so that its panic ends only this piece.
///
/// # Errors
///
/// The work panicked.
pub async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn supervisor() -> (Supervisor, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        (Supervisor::new(metrics.clone()), metrics)
    }

    fn counted(metrics: &Metrics, task: Task) -> Option<u32> {
        let series = format!("twilio_edge_background_task_failures_total{{task=\"{task}\"}} ");
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.map(|count| count.parse().unwrap())
    }

    /// Signals when it is dropped.
    struct Guard(Option<tokio::sync::oneshot::Sender<()>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }

    #[tokio::test]
    async fn panic_of_a_task_is_counted_and_reported_with_its_name() {
        let (tasks, metrics) = supervisor();
        tasks.spawn(Task::Retention, pending());
        assert_eq!(counted(&metrics, Task::Retention), Some(0));
        assert_eq!(counted(&metrics, Task::Archivist), None);
        assert_eq!(tasks.failure(), None);

        tasks.spawn(Task::Archivist, async { panic!("out of luck") });
        let failure = tokio::time::timeout(LIMIT, tasks.failed()).await.unwrap();
        assert_eq!(failure.to_string(), "the background task archivist panicked");
        assert_eq!(tasks.failure(), Some(failure));
        assert_eq!(counted(&metrics, Task::Archivist), Some(1));
        assert_eq!(counted(&metrics, Task::Retention), Some(0));
    }

    #[tokio::test]
    async fn early_end_of_a_task_is_a_failure() {
        let (tasks, metrics) = supervisor();
        let handle = tasks.spawn_owned(Task::Dispatcher, async {});
        let failure = tokio::time::timeout(LIMIT, tasks.failed()).await.unwrap();
        assert_eq!(failure.to_string(), "the background task dispatcher ended too early");
        assert_eq!(counted(&metrics, Task::Dispatcher), Some(1));
        assert!(!handle.finish(LIMIT).await, "a task that failed did not finish its work");
    }

    #[tokio::test]
    async fn first_failure_is_the_one_that_is_reported() {
        let (tasks, metrics) = supervisor();
        tasks.spawn(Task::Replays, async {});
        let first = tokio::time::timeout(LIMIT, tasks.failed()).await.unwrap();
        tasks.spawn(Task::Reconciler, async { panic!() });
        while counted(&metrics, Task::Reconciler) == Some(0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(first.task, Task::Replays);
        assert_eq!(tasks.failure(), Some(first));
    }

    #[tokio::test]
    async fn end_that_the_owner_asked_for_is_no_failure() {
        let (tasks, metrics) = supervisor();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let handle = tasks.spawn_owned(Task::JournalWriter, async { drop(stopped.await) });
        handle.expect_end();
        stop.send(()).unwrap();
        assert!(handle.finish(LIMIT).await);
        assert_eq!(tasks.failure(), None);
        assert_eq!(counted(&metrics, Task::JournalWriter), Some(0));
    }

    #[tokio::test]
    async fn task_that_does_not_end_in_time_is_interrupted() {
        let (tasks, _) = supervisor();
        let (dropped, is_dropped) = tokio::sync::oneshot::channel();
        let guard = Guard(Some(dropped));
        let handle = tasks.spawn_owned(Task::DeliveryWorker, async move {
            let _guard = guard;
            pending().await
        });
        assert!(!handle.finish(Duration::from_millis(10)).await);
        is_dropped.await.unwrap();
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn stop_interrupts_the_tasks_without_an_owner_and_no_other() {
        let (tasks, _) = supervisor();
        let (dropped, is_dropped) = tokio::sync::oneshot::channel();
        let guard = Guard(Some(dropped));
        tasks.spawn(Task::Replays, async move {
            let _guard = guard;
            pending().await
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let owned = tasks.spawn_owned(Task::Dispatcher, async { drop(stopped.await) });
        tasks.stop();
        is_dropped.await.unwrap();
        owned.expect_end();
        stop.send(()).unwrap();
        assert!(owned.finish(LIMIT).await);
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn panic_of_one_piece_of_work_is_an_error() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        assert_eq!(catch_panic(async { panic!("one request") }).await, Err::<(), _>(Panicked));
    }

    #[test]
    fn document_contains_the_table_of_tasks() {
        let document = include_str!("../../../docs/ARCHITECTURE.md");
        let remedy = "docs/ARCHITECTURE.md: replace the table with `twilio-edge reference tasks`";
        assert!(document.contains(&reference()), "{remedy}");
    }
}
