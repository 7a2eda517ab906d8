//! Group commit: requests that arrive at the same time share one transaction. The first request runs immediately and alone;
//! the requests that arrive while it runs share the next transaction. A thousand requests thus cost the database a few
//! transactions, and a single request does not wait for others. This module must not know what the requests contain.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use twilio_edge_platform::tasks::{Supervisor, Task, TaskHandle};

use crate::{database::within, error::StoreError};

/// Maximum number of queued requests, and of items in one transaction.
const MAX_QUEUED: usize = 4096;
const MAX_PER_BATCH: usize = 1024;

type Answer<R> = Result<Vec<R>, StoreError>;

struct Request<T, R> {
    items: Vec<T>,
    now_ms: i64,
    answer: oneshot::Sender<Answer<R>>,
}

/// Handle of the queue for one kind of request.
pub(super) struct Group<T, R> {
    queue: mpsc::Sender<Request<T, R>>,
    timeout: Duration,
    /// The last copy of the handle interrupts the task.
    task: Arc<TaskHandle>,
}

impl<T, R> Clone for Group<T, R> {
    fn clone(&self) -> Self {
        Group { queue: self.queue.clone(), timeout: self.timeout, task: self.task.clone() }
    }
}

impl<T: Clone + Send + 'static, R: Send + 'static> Group<T, R> {
    /// Starts the task. `work` answers a batch: one answer per item, in order. The task ends with
    /// the last copy of the [`Group`].
    pub(super) fn start<F>(
        tasks: &Supervisor,
        timeout: Duration,
        work: impl Fn(Vec<T>, i64) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer<R>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel::<Request<T, R>>(MAX_QUEUED);
        let work = async move {
            while let Some(first) = waiting.recv().await {
                let mut count = first.items.len();
                let mut together = vec![first];
                while count < MAX_PER_BATCH {
                    let Ok(next) = waiting.try_recv() else { break };
                    count += next.items.len();
                    together.push(next);
                }
                // Drops the requests whose callers no longer wait, because their filter has given up.
                together.retain(|request| !request.answer.is_closed());
                answer_all(&work, together).await;
            }
        };
        let task = Arc::new(tasks.spawn_owned(Task::GroupCommit, work));
        Group { queue, timeout, task }
    }

    /// Returns the answers to `items`, in order. After the time limit it returns an error, although the work may still
    /// complete.
    pub(super) async fn ask(&self, items: Vec<T>, now_ms: i64) -> Answer<R> {
        let (answer, answered) = oneshot::channel();
        let answer = async {
            let stopping = || StoreError::Unavailable("the sidecar is stopping".into());
            self.queue.send(Request { items, now_ms, answer }).await.map_err(|_| stopping())?;
            answered.await.map_err(|_| stopping())?
        };
        within(self.timeout, answer).await
    }
}

async fn answer_all<T: Clone, R, F: Future<Output = Answer<R>>>(
    work: &impl Fn(Vec<T>, i64) -> F,
    requests: Vec<Request<T, R>>,
) {
    let items = requests.iter().flat_map(|request| request.items.iter().cloned()).collect();
    let Some(now_ms) = requests.iter().map(|request| request.now_ms).max() else { return };
    match work(items, now_ms).await {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for request in requests {
                let own = answers.by_ref().take(request.items.len()).collect();
                let _ = request.answer.send(Ok(own));
            }
        }
        // One refused item must not fail the other requests: each request runs separately.
        Err(StoreError::Refused(_)) if requests.len() > 1 => {
            for request in requests {
                let answer = work(request.items, request.now_ms).await;
                let _ = request.answer.send(answer);
            }
        }
        Err(error) => {
            for request in requests {
                let _ = request.answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Semaphore;

    use super::*;

    const POISON: u32 = 13;

    /// The batches that the work received, in order.
    type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Returns a group whose work waits for `gate`, doubles its items, and refuses batches with [`POISON`] in them.
    fn doubling(gate: Arc<Semaphore>) -> (Group<u32, u32>, Seen) {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = batches.clone();
        let tasks = Supervisor::new(Arc::default());
        let group = Group::start(&tasks, Duration::from_secs(10), move |items: Vec<u32>, _| {
            seen.lock().unwrap().push(items.clone());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                match items.contains(&POISON) {
                    true => Err(StoreError::Refused("poison".into())),
                    false => Ok(items.iter().map(|item| item * 2).collect()),
                }
            }
        });
        (group, batches)
    }

    /// Sends a request in the background, and returns when the request is queued.
    async fn spawn_ask(
        group: &Group<u32, u32>,
        items: &[u32],
    ) -> tokio::task::JoinHandle<Answer<u32>> {
        let (group, items) = (group.clone(), items.to_vec());
        let asking = tokio::spawn(async move { group.ask(items, 0).await });
        tokio::task::yield_now().await;
        asking
    }

    #[tokio::test]
    async fn requests_during_a_batch_share_the_next_batch() {
        let gate = Arc::new(Semaphore::new(0));
        let (group, batches) = doubling(gate.clone());
        let first = spawn_ask(&group, &[1]).await;
        let (second, third) = (spawn_ask(&group, &[2, 3]).await, spawn_ask(&group, &[4]).await);
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(vec![2]));
        assert_eq!(second.await.unwrap(), Ok(vec![4, 6]));
        assert_eq!(third.await.unwrap(), Ok(vec![8]));
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2, 3, 4]]);
    }

    #[tokio::test]
    async fn refused_item_does_not_fail_other_requests() {
        let gate = Arc::new(Semaphore::new(0));
        let (group, _) = doubling(gate.clone());
        let first = spawn_ask(&group, &[1]).await;
        let (bad, good) = (spawn_ask(&group, &[POISON]).await, spawn_ask(&group, &[5]).await);
        gate.add_permits(4);
        assert_eq!(first.await.unwrap(), Ok(vec![2]));
        assert!(matches!(bad.await.unwrap(), Err(StoreError::Refused(_))));
        assert_eq!(good.await.unwrap(), Ok(vec![10]));
    }

    #[tokio::test]
    async fn abandoned_requests_are_not_executed() {
        let gate = Arc::new(Semaphore::new(0));
        let (group, batches) = doubling(gate.clone());
        let first = spawn_ask(&group, &[1]).await;
        let gone = spawn_ask(&group, &[2]).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let last = spawn_ask(&group, &[3]).await;
        gate.add_permits(2);
        assert_eq!((first.await.unwrap(), last.await.unwrap()), (Ok(vec![2]), Ok(vec![6])));
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![3]]);
    }
}
