//! Admission of connections to a listener, and the choice of the connection that gives way to a new one. Callers that
//! have not shown a good key are strangers. One address has a bounded share of strangers, and an idle stranger is closed
//! when its place is needed, so that no caller shuts out the others by opening connections. Connections of filters never
//! give way.

mod connection_state;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub(super) use self::connection_state::ConnectionState;
use super::capacity::capacity;
use crate::metrics::{ConnectionMetrics, ConnectionRefusal};

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
        let max = capacity(4096, 1);
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
pub enum CallerKind {
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
    strangers: HashMap<Option<IpAddr>, BTreeMap<u64, Arc<ConnectionState>>>,
    known: BTreeMap<u64, Arc<ConnectionState>>,
    filters: BTreeMap<u64, Arc<ConnectionState>>,
    count: usize,
}

/// Slot of an admitted connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Admission,
    pub(super) shared: Arc<ConnectionState>,
}

/// Connection of a request, among the request's extensions.
#[derive(Debug, Clone)]
pub struct Connection {
    admission: Admission,
    pub(super) shared: Arc<ConnectionState>,
}

impl Connection {
    /// Records that a request on this connection showed a good key or link.
    pub fn prove(&self, kind: CallerKind) {
        self.admission.prove(&self.shared, kind);
    }
}

impl Admission {
    /// Admission to one listener.
    pub fn new(limits: Limits, metrics: ConnectionMetrics) -> Admission {
        Admission { limits, open: Arc::default(), metrics }
    }

    /// Returns a place for a connection from `address` (`None`: a Unix socket), or `None` if no connection gives way to
    /// it.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Option<Slot> {
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
        let shared = Arc::new(ConnectionState::new(open.next, network));
        open.strangers.entry(network).or_default().insert(shared.id, Arc::clone(&shared));
        open.count = open.count.saturating_add(1);
        self.metrics.open(open.count);
        drop(open);
        Some(Slot { admission: self.clone(), shared })
    }

    /// Closes a connection that can give way, because the process has no file descriptors left.
    pub(super) fn relieve(&self) {
        self.metrics.refused(ConnectionRefusal::Listener);
        self.open().replace_any();
    }

    fn prove(&self, shared: &Arc<ConnectionState>, kind: CallerKind) {
        if shared.prove() {
            return;
        }
        let mut open = self.open();
        // A connection that has just been replaced stays closed.
        let Some(shared) = open.remove(shared) else { return };
        open.count = open.count.saturating_add(1);
        match kind {
            CallerKind::Filter => open.filters.insert(shared.id, shared),
            CallerKind::Known => open.known.insert(shared.id, shared),
        };
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Removes a connection; returns `None` if it was removed before.
    fn remove(&mut self, shared: &ConnectionState) -> Option<Arc<ConnectionState>> {
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

    fn replace(&mut self, victim: Option<Arc<ConnectionState>>) -> bool {
        let Some(victim) = victim else { return false };
        self.remove(&victim);
        victim.replaced.notify_one();
        true
    }
}

fn oldest_idle(some: &BTreeMap<u64, Arc<ConnectionState>>) -> Option<Arc<ConnectionState>> {
    some.values().find(|shared| shared.is_idle()).cloned()
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.remove(&self.shared);
        self.admission.metrics.open(open.count);
    }
}

impl Slot {
    pub(super) fn connection(&self) -> Connection {
        Connection { admission: self.admission.clone(), shared: Arc::clone(&self.shared) }
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
mod tests;
