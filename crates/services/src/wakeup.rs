//! Wakes background tasks before their next poll, after a request has stored work for them.

use tokio::sync::watch;

/// Sender of wakeups. Copies share the waiting tasks.
#[derive(Debug, Clone, Default)]
pub struct Wakeup {
    count: watch::Sender<u64>,
}

/// Receiver of wakeups. It reports a wakeup that was sent while the task worked.
#[derive(Debug, Clone)]
pub struct WakeupReceiver {
    count: watch::Receiver<u64>,
}

impl Wakeup {
    /// Wakes every task that waits, and every task that works as soon as it waits again.
    pub fn wake(&self) {
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Creates a receiver that reports wakeups from now on.
    pub fn subscribe(&self) -> WakeupReceiver {
        WakeupReceiver { count: self.count.subscribe() }
    }
}

impl WakeupReceiver {
    /// Waits for a wakeup. Several wakeups since the last call count as one.
    pub async fn received(&mut self) {
        if self.count.changed().await.is_err() {
            // No task sends wakeups any more.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn wakeup_reaches_every_task_even_while_it_works() {
        let wakeup = Wakeup::default();
        let (mut one, mut other) = (wakeup.subscribe(), wakeup.subscribe());
        assert!(one.received().now_or_never().is_none());
        wakeup.wake();
        wakeup.wake();
        assert!(one.received().now_or_never().is_some());
        assert!(one.received().now_or_never().is_none(), "two wakeups count as one");
        assert!(other.received().now_or_never().is_some());
    }
}
