//! The clock of a configuration. Envoy gives a filter no timer, so a thread wakes the main thread at intervals.

use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use twilio_edge_filter::adapter::tick_ms;

use crate::edge::{Edge, lock};
use crate::envoy;

/// The thread. It ends when this is dropped, which waits for it.
pub(crate) struct Ticker {
    end: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread; `None` and a line in the log if the system has no more threads.
    pub(crate) fn start(edge: &Arc<Edge>) -> Option<Self> {
        let end = Arc::new((Mutex::new(false), Condvar::new()));
        let (period, edge) = (Duration::from_millis(tick_ms(&edge.config)), Arc::downgrade(edge));
        let ended = Arc::clone(&end);
        let builder = std::thread::Builder::new().name("twilio-edge".to_owned());
        match builder.spawn(move || run(&edge, period, &ended)) {
            Ok(thread) => Some(Self { end, thread: Some(thread) }),
            Err(error) => {
                envoy::error(&format!("twilio-edge cannot start its ticker: {error}"));
                None
            }
        }
    }
}

fn run(edge: &Weak<Edge>, period: Duration, (is_ended, ended): &(Mutex<bool>, Condvar)) {
    let mut guard = lock(is_ended);
    while !*guard {
        let (next, waited) = match ended.wait_timeout(guard, period) {
            Ok(pair) => pair,
            Err(_) => return,
        };
        guard = next;
        if waited.timed_out() && !*guard {
            let Some(edge) = edge.upgrade() else { return };
            edge.announce_tick();
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
