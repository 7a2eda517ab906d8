//! Tests of the admission of connections.

use std::sync::atomic::Ordering;

use super::{connection_state::LONGEST_RESPONSE, *};
use crate::metrics::ConnectionWait;

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
    second.shared.begin_request(false);
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
    filter.connection().prove(CallerKind::Filter);
    let known = admission.admit(address(1)).unwrap();
    known.connection().prove(CallerKind::Known);
    let stranger = admission.admit(address(2)).unwrap();
    let next = admission.admit(address(3)).unwrap();
    assert!(admission.open().known.contains_key(&known.shared.id));
    assert!(!admission.open().strangers.contains_key(&stranger.shared.network));
    next.connection().prove(CallerKind::Filter);
    let last = admission.admit(address(4)).unwrap();
    assert!(admission.open().known.is_empty(), "idle, and needed");
    last.connection().prove(CallerKind::Filter);
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
    shared.begin_request(false);
    assert_eq!(until(), None);
    shared.end_request();
    shared.idle_ms.store(1000, Ordering::Release);
    let idle = after(1000, limits.idle_timeout);
    assert_eq!(until(), Some((idle, ConnectionWait::Request)));
    place.connection().prove(CallerKind::Known);
    let idle = after(1000, limits.known_idle_timeout);
    assert_eq!(until(), Some((idle, ConnectionWait::Request)));
    // Half of the next request: later bytes do not extend its time.
    shared.reading_ms.store(3000, Ordering::Release);
    shared.read();
    assert_eq!(until(), Some((after(3000, limits.header_timeout), ConnectionWait::Headers)));
    // HTTP/2 sends frames that belong to no request.
    shared.begin_request(true);
    shared.end_request();
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
fn connection_is_quiet_without_a_request_and_a_reader() {
    let admission = admission(10, 10);
    let place = admission.admit(address(1)).unwrap();
    let (shared, stalled) = (&place.shared, Duration::from_secs(600));
    assert!(shared.is_quiet(stalled));
    shared.begin_request(true);
    assert!(!shared.is_quiet(stalled));
    shared.end_request();
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
