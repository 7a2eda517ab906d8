//! State of one connection: its requests in progress, and the time until which it may wait.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Limits;
use crate::metrics::ConnectionWait;

/// Upper bound of the time to read a response, even for a slow caller.
pub(super) const LONGEST_RESPONSE: Duration = Duration::from_secs(3600);

/// Largest number of unread responses of a stranger on one HTTP/2 connection; each of them stays in memory.
const MAX_UNREAD: usize = 32;

/// State of one connection, shared by its task, its requests and the listener.
#[derive(Debug)]
pub(in crate::listener) struct ConnectionState {
    pub(super) id: u64,
    pub(super) network: Option<IpAddr>,
    pub(super) begun: Instant,
    is_known: AtomicBool,
    has_request: AtomicBool,
    is_http2: AtomicBool,
    in_flight: AtomicUsize,
    streaming: AtomicUsize,
    /// Milliseconds after `begun`: the end of the last request, the last bytes written, and the arrival of the first
    /// bytes of the next request (0: none have arrived).
    pub(super) idle_ms: AtomicU64,
    pub(super) wrote_ms: AtomicU64,
    pub(super) reading_ms: AtomicU64,
    /// Notified when another connection needs the place of this one.
    pub(in crate::listener) replaced: Notify,
}

impl ConnectionState {
    pub(super) fn new(id: u64, network: Option<IpAddr>) -> ConnectionState {
        ConnectionState {
            id,
            network,
            begun: Instant::now(),
            is_known: AtomicBool::new(false),
            has_request: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            streaming: AtomicUsize::new(0),
            idle_ms: AtomicU64::new(0),
            wrote_ms: AtomicU64::new(0),
            reading_ms: AtomicU64::new(0),
            replaced: Notify::new(),
        }
    }

    /// Returns whether no handler has a request of this connection.
    pub(in crate::listener) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Returns whether no handler has a request of this connection and its caller reads no response: there is none, or
    /// the caller has taken nothing of it for `stalled`.
    pub(in crate::listener) fn is_quiet(&self, stalled: Duration) -> bool {
        let taken_ms =
            self.wrote_ms.load(Ordering::Acquire).max(self.idle_ms.load(Ordering::Acquire));
        let is_reading = self.streaming.load(Ordering::Acquire) > 0
            && self.begun + Duration::from_millis(taken_ms) + stalled > Instant::now();
        self.is_idle() && !is_reading
    }

    /// Returns the milliseconds since the connection began, at least 1.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Records that the caller showed a good key or link; returns whether it had done so before.
    pub(super) fn prove(&self) -> bool {
        self.is_known.swap(true, Ordering::AcqRel)
    }

    /// Records that bytes arrived. They belong to the next request, unless one is in progress.
    pub(in crate::listener) fn read(&self) {
        if self.is_idle() {
            let now_ms = self.now_ms();
            let reading = &self.reading_ms;
            let _ = reading.compare_exchange(0, now_ms, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Records that bytes were written. HTTP/2 writes frames that are no part of a response, for instance answers to
    /// PING: there, only `progressed` proves that the caller reads.
    pub(in crate::listener) fn wrote(&self) {
        if !self.is_http2.load(Ordering::Acquire) {
            self.progressed();
        }
    }

    /// Records that the caller took a part of a response, or made room for one.
    pub(in crate::listener) fn progressed(&self) {
        self.wrote_ms.store(self.now_ms(), Ordering::Release);
    }

    /// Returns whether a stranger has left as many responses unread as it may.
    pub(in crate::listener) fn has_unread(&self) -> bool {
        !self.is_known.load(Ordering::Acquire)
            && self.streaming.load(Ordering::Acquire) >= MAX_UNREAD
    }

    /// Records the start of a request.
    pub(in crate::listener) fn begin_request(&self, is_http2: bool) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.reading_ms.store(0, Ordering::Release);
        self.is_http2.store(is_http2, Ordering::Release);
        self.has_request.store(true, Ordering::Release);
    }

    /// Records that a handler has returned; its response may still be in transit.
    pub(in crate::listener) fn end_request(&self) {
        self.idle_ms.store(self.now_ms(), Ordering::Release);
        self.reading_ms.store(0, Ordering::Release);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Records that a response begins or ends to be streamed.
    pub(in crate::listener) fn streams(&self, by: bool) {
        match by {
            true => self.streaming.fetch_add(1, Ordering::AcqRel),
            false => {
                self.idle_ms.store(self.now_ms(), Ordering::Release);
                self.streaming.fetch_sub(1, Ordering::AcqRel)
            }
        };
    }

    /// Returns the time until which the connection may stay idle, and what it waits for; `None` while a request is in
    /// progress.
    pub(in crate::listener) fn deadline(
        &self,
        limits: &Limits,
    ) -> Option<(Instant, ConnectionWait)> {
        if !self.is_idle() {
            return None;
        }
        let at = |ms: u64| self.begun + Duration::from_millis(ms);
        let reading_ms = match self.has_request.load(Ordering::Acquire) {
            false => Some(0),
            true if self.is_http2.load(Ordering::Acquire) => None,
            true => Some(self.reading_ms.load(Ordering::Acquire)).filter(|ms| *ms > 0),
        };
        let idle_ms = self.idle_ms.load(Ordering::Acquire);
        let idle_timeout = match self.is_known.load(Ordering::Acquire) {
            true => limits.known_idle_timeout,
            false => limits.idle_timeout,
        };
        if self.streaming.load(Ordering::Acquire) > 0 {
            let wrote_ms = self.wrote_ms.load(Ordering::Acquire).max(idle_ms);
            let until = (at(wrote_ms) + limits.idle_timeout).min(at(idle_ms) + LONGEST_RESPONSE);
            return Some((until, ConnectionWait::Response));
        }
        Some(match reading_ms {
            Some(ms) => (at(ms) + limits.header_timeout, ConnectionWait::Headers),
            None => (at(idle_ms) + idle_timeout, ConnectionWait::Request),
        })
    }
}
