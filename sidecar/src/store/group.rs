//! Group commit: requests that ask at the same time share one transaction. The first goes at once, alone; whoever comes
//! while it is under way goes together in the next. So a thousand requests cost the database a few transactions, and
//! one request waits for nobody. Knows nothing of what is asked.

use std::{future::Future, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::sql::StoreError;

/// Requests that may wait, and items one transaction may carry.
const WAITING: usize = 4096;
const TOGETHER: usize = 1024;

type Answer<R> = Result<Vec<R>, StoreError>;

struct Request<T, R> {
    items: Vec<T>,
    now_ms: i64,
    answer: oneshot::Sender<Answer<R>>,
}

/// The way in for one kind of question.
pub(super) struct Group<T, R> {
    queue: mpsc::Sender<Request<T, R>>,
    timeout: Duration,
}

impl<T, R> Clone for Group<T, R> {
    fn clone(&self) -> Self {
        Group { queue: self.queue.clone(), timeout: self.timeout }
    }
}

impl<T: Clone + Send + 'static, R: Send + 'static> Group<T, R> {
    /// `work` answers a batch: one answer per item, in order. It ends when every [`Group`] is dropped.
    pub(super) fn start<F>(
        timeout: Duration,
        work: impl Fn(Vec<T>, i64) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer<R>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel::<Request<T, R>>(WAITING);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut count = first.items.len();
                let mut together = vec![first];
                while count < TOGETHER {
                    let Ok(next) = waiting.try_recv() else { break };
                    count += next.items.len();
                    together.push(next);
                }
                // Nobody waits any longer for these: their filter has given up.
                together.retain(|request| !request.answer.is_closed());
                answer_all(&work, together).await;
            }
        });
        Group { queue, timeout }
    }

    /// The answers to `items`, in order. Without any after the time limit, though the work may still be done.
    pub(super) async fn ask(&self, items: Vec<T>, now_ms: i64) -> Answer<R> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let gone = |_| StoreError::Away("stopping".into());
            self.queue.send(Request { items, now_ms, answer }).await.map_err(|_| gone(()))?;
            answered.await.map_err(|_| gone(()))?
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
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
        // What the database refuses must not be refused to the others: each on its own.
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
