//! Limit of unknown tokens per address. It prevents two costs: a database lookup for each guess, and a log full of
//! refusals from a client with a revoked key. Holds a bounded number of addresses, and does not know the form of a token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Largest number of addresses with an entry of their own. All further addresses share one entry.
const MOST: usize = 4096;

/// Key of the shared entry.
const CROWD: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Leaky bucket per address: the time at which its last bad token is forgiven, if there were no allowance.
pub(super) struct BadTokenLimiter {
    /// Time after which one bad token is forgiven.
    each: Duration,
    /// Largest distance of that time from now.
    allowance: Duration,
    met: Mutex<HashMap<IpAddr, Instant>>,
}

impl BadTokenLimiter {
    /// Permits `per_minute` bad tokens at once, and as many per minute on average.
    pub(super) fn new(per_minute: u32) -> BadTokenLimiter {
        let allowance = Duration::from_secs(60);
        BadTokenLimiter { each: allowance / per_minute.max(1), allowance, met: Mutex::default() }
    }

    /// Returns how long the next token from `address` has to wait; `None` if it need not wait.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let forgiven = met.get(&entry(&met, network(address)))?;
        let full = *forgiven + self.each;
        full.checked_duration_since(now + self.allowance).filter(|wait| !wait.is_zero())
    }

    /// Counts one bad token of `address`.
    pub(super) fn note(&self, address: IpAddr, now: Instant) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() >= MOST {
            met.retain(|_, forgiven| *forgiven > now);
        }
        let address = entry(&met, network(address));
        let forgiven = met.entry(address).or_insert(now);
        // Requests that were in progress when the allowance ran out do not extend the wait.
        *forgiven = ((*forgiven).max(now) + self.each).min(now + self.allowance);
    }
}

/// Returns the entry of an address: its own, or the shared one if there is no room for another.
fn entry(met: &HashMap<IpAddr, Instant>, address: IpAddr) -> IpAddr {
    if met.len() < MOST || met.contains_key(&address) { address } else { CROWD }
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
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    proptest! {
        /// At any sequence of times, at most twice the allowance gets through per minute, and a client that waits as
        /// specified is admitted.
        #[test]
        fn rate_limit_admits_no_more_than_allowed(
            per_minute in 1u32..50,
            gaps in prop::collection::vec(0u64..20_000, 1..200),
        ) {
            let limiter = BadTokenLimiter::new(per_minute);
            let (client, start) = (address("192.0.2.1"), Instant::now());
            let (mut now, mut through) = (start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                match limiter.wait(client, now) {
                    None => {
                        limiter.note(client, now);
                        through.push(now);
                    }
                    Some(wait) => prop_assert_eq!(limiter.wait(client, now + wait), None),
                }
            }
            for first in &through {
                let minute = *first..*first + Duration::from_secs(60);
                let count = through.iter().filter(|at| minute.contains(*at)).count();
                prop_assert!(count <= per_minute as usize * 2, "{}", count);
            }
            let at_once = through.iter().filter(|at| **at == start).count();
            prop_assert!(at_once <= per_minute as usize);
        }
    }

    #[test]
    fn address_locks_out_its_network_and_no_other() {
        let (limiter, now) = (BadTokenLimiter::new(1), Instant::now());
        limiter.note(address("2001:db8::1"), now);
        assert!(limiter.wait(address("2001:db8::2"), now).is_some());
        assert_eq!(limiter.wait(address("2001:db8:0:1::1"), now), None);
        limiter.note(address("192.0.2.1"), now);
        assert!(limiter.wait(address("::ffff:192.0.2.1"), now).is_some());
        assert_eq!(limiter.wait(address("192.0.2.2"), now), None);
    }

    #[test]
    fn entries_are_bounded_and_addresses_beyond_share_one() {
        let (limiter, now) = (BadTokenLimiter::new(1), Instant::now());
        for n in 0..3 * u32::try_from(MOST).unwrap() {
            limiter.note(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(limiter.met.lock().unwrap().len() <= MOST + 1);
        // An address in the shared entry waits with the others. After a minute there is room again.
        assert!(limiter.wait(address("255.0.0.1"), now).is_some());
        let later = now + Duration::from_secs(60);
        limiter.note(address("255.0.0.1"), later);
        assert_eq!(limiter.met.lock().unwrap().len(), 1);
    }
}
