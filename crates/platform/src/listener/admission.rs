//! Admission of connections to a listener, and the choice of the connection that gives way to a new one. Callers that
//! have not shown a good key are strangers. One address has a bounded share of strangers, and an idle stranger is closed
//! when its place is needed, so that no caller shuts out the others by opening connections. Connections of filters never
//! give way.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::metrics::{ConnectionMetrics, ConnectionRefusal, ConnectionWait};

/// Upper bound of the time to read a response, even for a slow caller.
const LONGEST_RESPONSE: Duration = Duration::from_secs(3600);

/// Largest number of unread responses of a stranger on one HTTP/2 connection; each of them stays in memory.
const MAX_UNREAD: usize = 32;

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest number of open connections.
    pub max: usize,
    /// Largest number of connections from one address (of IPv6: one /64) that have not shown a good key.
    pub max_per_address: usize,
    /// Time in which the headers of a request must arrive.
    pub header_timeout: Duration,
    /// Time that a stranger's connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Time that a connection with a good key may wait for its next request.
    pub known_idle_timeout: Duration,
    /// Largest number of concurrent requests of one HTTP/2 connection.
    pub streams: u32,
    /// Largest size of a request's headers, in bytes.
    pub header_bytes: usize,
}

impl Limits {
    /// Limits of the listeners of the demo and the simulator. All of their callers are strangers, and most are on this
    /// machine, so one address may have all connections.
    pub fn local() -> Limits {
        let max = super::capacity(4096, 1);
        Limits {
            max,
            max_per_address: max,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            known_idle_timeout: Duration::from_secs(75),
            streams: 250,
            header_bytes: 32 << 10,
        }
    }
}

/// Kind of a caller that has shown a good key or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Showed a good key of an application or an administrator, or a valid link.
    Known,
    /// Showed the edge token or a key of scope `edge`.
    Filter,
}

/// The open connections of one listener.
#[derive(Debug, Clone)]
pub struct Admission {
    pub(super) limits: Limits,
    open: Arc<Mutex<Open>>,
    pub(super) metrics: ConnectionMetrics,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    strangers: HashMap<Option<IpAddr>, BTreeMap<u64, Arc<Shared>>>,
    known: BTreeMap<u64, Arc<Shared>>,
    filters: BTreeMap<u64, Arc<Shared>>,
    count: usize,
}

/// State of one connection, shared by its task, its requests and the listener.
#[derive(Debug)]
pub(super) struct Shared {
    id: u64,
    network: Option<IpAddr>,
    begun: Instant,
    is_known: AtomicBool,
    has_asked: AtomicBool,
    is_http2: AtomicBool,
    in_flight: AtomicUsize,
    streaming: AtomicUsize,
    /// Milliseconds after `begun`: the end of the last request, the last bytes written, and the arrival of the first
    /// bytes of the next request (0: none have arrived).
    idle_ms: AtomicU64,
    wrote_ms: AtomicU64,
    reading_ms: AtomicU64,
    /// Notified when another connection needs the place of this one.
    pub(super) replaced: Notify,
}

/// Place of an admitted connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    admission: Admission,
    pub(super) shared: Arc<Shared>,
}

/// Connection of a request, among the request's extensions.
#[derive(Debug, Clone)]
pub struct Connection {
    admission: Admission,
    pub(super) shared: Arc<Shared>,
}

impl Connection {
    /// Records that a request on this connection showed a good key or link.
    pub fn prove(&self, standing: Standing) {
        self.admission.prove(&self.shared, standing);
    }
}

impl Admission {
    /// Admission to one listener.
    pub fn new(limits: Limits, metrics: ConnectionMetrics) -> Admission {
        Admission { limits, open: Arc::default(), metrics }
    }

    /// Returns a place for a connection from `address` (`None`: a Unix socket), or `None` if no connection gives way to
    /// it.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Option<Place> {
        let network = address.map(network);
        let mut open = self.open();
        let own = open.strangers.get(&network).map_or(0, BTreeMap::len);
        // A filter opens many connections at once, and each is a stranger until its first request is read. A new one
        // therefore makes others of its address give way only after the time that a request's headers may take.
        if network.is_some()
            && own >= self.limits.max_per_address
            && open.replace_of(network, self.limits.header_timeout)
        {
            self.metrics.refused(ConnectionRefusal::Address);
        }
        if open.count >= self.limits.max {
            self.metrics.refused(ConnectionRefusal::Listener);
            if !open.replace_any() {
                return None;
            }
        }
        open.next = open.next.wrapping_add(1);
        let shared = Arc::new(Shared::new(open.next, network));
        open.strangers.entry(network).or_default().insert(shared.id, Arc::clone(&shared));
        open.count = open.count.saturating_add(1);
        self.metrics.open(open.count);
        drop(open);
        Some(Place { admission: self.clone(), shared })
    }

    /// Closes a connection that can give way, because the process has no file descriptors left.
    pub(super) fn relieve(&self) {
        self.metrics.refused(ConnectionRefusal::Listener);
        self.open().replace_any();
    }

    fn prove(&self, shared: &Arc<Shared>, standing: Standing) {
        if shared.is_known.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut open = self.open();
        // A connection that has just been replaced stays closed.
        let Some(shared) = open.remove(shared) else { return };
        open.count = open.count.saturating_add(1);
        match standing {
            Standing::Filter => open.filters.insert(shared.id, shared),
            Standing::Known => open.known.insert(shared.id, shared),
        };
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Removes a connection; returns `None` if it was removed before.
    fn remove(&mut self, shared: &Shared) -> Option<Arc<Shared>> {
        let found = match self.strangers.get_mut(&shared.network) {
            Some(own) => {
                let found = own.remove(&shared.id);
                if own.is_empty() {
                    self.strangers.remove(&shared.network);
                }
                found
            }
            None => None,
        };
        let found = found
            .or_else(|| self.known.remove(&shared.id))
            .or_else(|| self.filters.remove(&shared.id));
        if found.is_some() {
            self.count = self.count.saturating_sub(1);
        }
        found
    }

    /// Closes the oldest idle stranger of this network.
    fn replace_of(&mut self, network: Option<IpAddr>, first_request: Duration) -> bool {
        let idle = self.strangers.get(&network).and_then(oldest_idle);
        let idle = idle.filter(|shared| shared.begun.elapsed() >= first_request);
        self.replace(idle)
    }

    /// Closes one idle connection: of the network with the most strangers, else of the known callers.
    fn replace_any(&mut self) -> bool {
        let mut networks: Vec<_> = self.strangers.values().collect();
        networks.sort_by_key(|own| std::cmp::Reverse(own.len()));
        let idle = networks.into_iter().find_map(oldest_idle);
        let idle = idle.or_else(|| oldest_idle(&self.known));
        self.replace(idle)
    }

    fn replace(&mut self, victim: Option<Arc<Shared>>) -> bool {
        let Some(victim) = victim else { return false };
        self.remove(&victim);
        victim.replaced.notify_one();
        true
    }
}

fn oldest_idle(some: &BTreeMap<u64, Arc<Shared>>) -> Option<Arc<Shared>> {
    some.values().find(|shared| shared.is_idle()).cloned()
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.remove(&self.shared);
        self.admission.metrics.open(open.count);
    }
}

impl Place {
    pub(super) fn connection(&self) -> Connection {
        Connection { admission: self.admission.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    fn new(id: u64, network: Option<IpAddr>) -> Shared {
        Shared {
            id,
            network,
            begun: Instant::now(),
            is_known: AtomicBool::new(false),
            has_asked: AtomicBool::new(false),
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
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Returns whether no handler has a request of this connection and its caller reads no response: there is none, or
    /// the caller has taken nothing of it for `stalled`.
    pub(super) fn is_quiet(&self, stalled: Duration) -> bool {
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

    /// Records that bytes arrived. They belong to the next request, unless one is in progress.
    pub(super) fn read(&self) {
        if self.is_idle() {
            let now_ms = self.now_ms();
            let reading = &self.reading_ms;
            let _ = reading.compare_exchange(0, now_ms, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Records that bytes were written. HTTP/2 writes frames that are no part of a response, for instance answers to
    /// PING: there, only `progressed` proves that the caller reads.
    pub(super) fn wrote(&self) {
        if !self.is_http2.load(Ordering::Acquire) {
            self.progressed();
        }
    }

    /// Records that the caller took a part of a response, or made room for one.
    pub(super) fn progressed(&self) {
        self.wrote_ms.store(self.now_ms(), Ordering::Release);
    }

    /// Returns whether a stranger has left as many responses unread as it may.
    pub(super) fn has_unread(&self) -> bool {
        !self.is_known.load(Ordering::Acquire)
            && self.streaming.load(Ordering::Acquire) >= MAX_UNREAD
    }

    /// Records the start of a request.
    pub(super) fn asked(&self, is_http2: bool) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.reading_ms.store(0, Ordering::Release);
        self.is_http2.store(is_http2, Ordering::Release);
        self.has_asked.store(true, Ordering::Release);
    }

    /// Records that a handler has returned; its response may still be in transit.
    pub(super) fn answered(&self) {
        self.idle_ms.store(self.now_ms(), Ordering::Release);
        self.reading_ms.store(0, Ordering::Release);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn streams(&self, by: bool) {
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
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, ConnectionWait)> {
        if !self.is_idle() {
            return None;
        }
        let at = |ms: u64| self.begun + Duration::from_millis(ms);
        let reading_ms = match self.has_asked.load(Ordering::Acquire) {
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

/// Returns the network that counts as one address: the /64 of an IPv6 address, because one subscriber usually has all of
/// it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max: usize, max_per_address: usize) -> Admission {
        let header_timeout = Duration::ZERO;
        let usual = crate::config::defaults().connections.limits();
        with_limits(Limits { max, max_per_address, header_timeout, ..usual })
    }

    fn with_limits(limits: Limits) -> Admission {
        let metrics = crate::metrics::Metrics::default();
        Admission::new(limits, metrics.listeners.listener("main"))
    }

    fn address(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    #[tokio::test]
    async fn stranger_gives_way_to_the_next_of_its_address() {
        let admission = admission(10, 2);
        let first = admission.admit(address(1)).unwrap();
        let second = admission.admit(address(1)).unwrap();
        let other = admission.admit(address(2)).unwrap();
        let third = admission.admit(address(1)).unwrap();
        // The oldest connection is asked to end; the other address has lost none.
        first.shared.replaced.notified().await;
        drop(first);
        let open = || admission.open().count;
        assert_eq!(open(), 3);
        // A connection with a request in progress does not give way.
        second.shared.asked(false);
        let fourth = admission.admit(address(1)).unwrap();
        third.shared.replaced.notified().await;
        assert!(admission.open().strangers[&address(1)].contains_key(&second.shared.id));
        drop((second, third, fourth, other));
        assert_eq!(open(), 0);
        assert!(admission.open().strangers.is_empty());
    }

    #[test]
    fn callers_that_come_together_are_taken_while_there_is_room() {
        let usual = crate::config::defaults().connections.limits();
        let many = with_limits(Limits { max: 6, max_per_address: 2, ..usual });
        let places: Vec<_> = (0..6).map(|_| many.admit(address(1)).unwrap()).collect();
        assert_eq!(many.open().count, 6, "none of them has had time for its first request");
        let _next = many.admit(address(2)).unwrap();
        let open = many.open();
        assert_eq!(open.count, 6);
        assert!(!open.strangers[&address(1)].contains_key(&places[0].shared.id));
    }

    #[test]
    fn filters_never_give_way_and_known_callers_last() {
        let admission = admission(3, 3);
        let filter = admission.admit(address(1)).unwrap();
        filter.connection().prove(Standing::Filter);
        let known = admission.admit(address(1)).unwrap();
        known.connection().prove(Standing::Known);
        let stranger = admission.admit(address(2)).unwrap();
        let next = admission.admit(address(3)).unwrap();
        assert!(admission.open().known.contains_key(&known.shared.id));
        assert!(!admission.open().strangers.contains_key(&stranger.shared.network));
        next.connection().prove(Standing::Filter);
        let last = admission.admit(address(4)).unwrap();
        assert!(admission.open().known.is_empty(), "idle, and needed");
        last.connection().prove(Standing::Filter);
        assert!(admission.admit(address(5)).is_none(), "all are filters");
        assert_eq!(admission.open().filters.len(), 3);
    }

    #[test]
    fn one_holder_of_ipv6_has_one_share() {
        let admission = admission(10, 1);
        let from = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let one = admission.admit(from("2001:db8::1")).unwrap();
        let two = admission.admit(from("2001:db8::2")).unwrap();
        let three = admission.admit(from("2001:db8:0:1::1")).unwrap();
        let local: Vec<_> = (0..5).map(|_| admission.admit(None).unwrap()).collect();
        assert_eq!(admission.open().count, 7, "sockets of the file system have no address");
        drop((one, two, three, local));
        assert_eq!(admission.open().count, 0);
    }

    #[test]
    fn connection_has_a_deadline_unless_a_request_is_under_way() {
        let admission = admission(10, 10);
        let limits = admission.limits;
        let place = admission.admit(address(1)).unwrap();
        let shared = &place.shared;
        // Milliseconds after the beginning of the connection, and the reason.
        let until = || {
            let (until, wait) = shared.deadline(&limits)?;
            Some((until.duration_since(shared.begun), wait))
        };
        let after = |ms: u64, more: Duration| Duration::from_millis(ms) + more;
        assert_eq!(until(), Some((limits.header_timeout, ConnectionWait::Headers)));
        shared.asked(false);
        assert_eq!(until(), None);
        shared.answered();
        shared.idle_ms.store(1000, Ordering::Release);
        let idle = after(1000, limits.idle_timeout);
        assert_eq!(until(), Some((idle, ConnectionWait::Request)));
        place.connection().prove(Standing::Known);
        let idle = after(1000, limits.known_idle_timeout);
        assert_eq!(until(), Some((idle, ConnectionWait::Request)));
        // Half of the next request: later bytes do not extend its time.
        shared.reading_ms.store(3000, Ordering::Release);
        shared.read();
        assert_eq!(until(), Some((after(3000, limits.header_timeout), ConnectionWait::Headers)));
        // HTTP/2 sends frames that belong to no request.
        shared.asked(true);
        shared.answered();
        shared.read();
        assert_eq!(until().map(|(_, wait)| wait), Some(ConnectionWait::Request));
        // A response in transit, and one that is never read to its end.
        shared.streams(true);
        shared.idle_ms.store(1000, Ordering::Release);
        shared.wrote_ms.store(9000, Ordering::Release);
        assert_eq!(until(), Some((after(9000, limits.idle_timeout), ConnectionWait::Response)));
        shared.wrote_ms.store(u64::MAX / 4, Ordering::Release);
        assert_eq!(until(), Some((after(1000, LONGEST_RESPONSE), ConnectionWait::Response)));
    }

    #[test]
    fn connection_is_quiet_when_nobody_waits_or_reads() {
        let admission = admission(10, 10);
        let place = admission.admit(address(1)).unwrap();
        let (shared, stalled) = (&place.shared, Duration::from_secs(600));
        assert!(shared.is_quiet(stalled));
        shared.asked(true);
        assert!(!shared.is_quiet(stalled));
        shared.answered();
        shared.streams(true);
        shared.idle_ms.store(0, Ordering::Release);
        assert!(!shared.is_quiet(stalled), "the response is on its way");
        assert!(shared.is_quiet(Duration::ZERO), "nothing of it was taken for so long");
        // HTTP/2 answers PING while the caller takes nothing of the response.
        let before = shared.wrote_ms.load(Ordering::Acquire);
        shared.wrote();
        assert_eq!(shared.wrote_ms.load(Ordering::Acquire), before);
        shared.streams(false);
        assert!(shared.is_quiet(stalled));
    }
}
