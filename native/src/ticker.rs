//! The clock of a configuration. Envoy gives a filter no timer, so a thread calls a function at intervals.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::envoy;
use crate::sync::lock;

/// The thread. It ends when this is dropped, which waits for it.
pub(crate) struct Ticker {
    end: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which calls `tick` every `period_ms` milliseconds until it returns false; `None` and a line in the log
    /// if the system has no more threads.
    pub(crate) fn start(period_ms: u64, tick: impl Fn() -> bool + Send + 'static) -> Option<Self> {
        let end = Arc::new((Mutex::new(false), Condvar::new()));
        let ended = Arc::clone(&end);
        let period = Duration::from_millis(period_ms);
        let builder = std::thread::Builder::new().name("twilio-edge".to_owned());
        match builder.spawn(move || run(period, &ended, tick)) {
            Ok(thread) => Some(Self { end, thread: Some(thread) }),
            Err(error) => {
                envoy::error(&format!("twilio-edge cannot start its ticker: {error}"));
                None
            }
        }
    }
}

fn run(period: Duration, (is_ended, ended): &(Mutex<bool>, Condvar), tick: impl Fn() -> bool) {
    let mut guard = lock(is_ended);
    while !*guard {
        let (next, waited) = match ended.wait_timeout(guard, period) {
            Ok(pair) => pair,
            Err(_) => return,
        };
        guard = next;
        if waited.timed_out() && !*guard && !tick() {
            return;
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *lock(&self.end.0) = true;
        self.end.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
