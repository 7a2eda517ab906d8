//! Fair scheduler: selects the messages that are sent next. The category decides first, so that one-time passwords do not
//! wait behind marketing; one turn in ten starts with a lower category, so that no category starves. Within a category the
//! account with the fewest running calls comes first, then the accounts in turn: an account with a hundred thousand queued
//! messages does not delay the others. Pure: the caller passes the queue.

use std::collections::{BTreeMap, HashMap};

use super::rate_limit;
use crate::sending::adaptive_concurrency::Capacity;

/// One turn in this many starts with marketing; another one, halfway between, starts with utility and service.
const SHARE: u64 = 10;

/// Orders of the priorities in a turn: the usual one, the one for utility and service, the one for marketing.
const PRIORITIES: [[i64; 3]; 3] = [[0, 1, 2], [1, 2, 0], [2, 1, 0]];

/// Queue of one priority, account and sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderQueue {
    /// Priority; a smaller number is sent sooner.
    pub priority: i64,
    /// Account of the messages.
    pub account_sid: String,
    /// Sender of the messages.
    pub sender: String,
    /// Number of due messages, up to the limit of the count.
    pub waiting: usize,
}

/// Record of the last account served in each priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FairScheduler {
    count: u64,
    last: BTreeMap<i64, String>,
}

impl FairScheduler {
    /// Returns the indexes of the lanes that send next, up to `free`, in order; each index is one message. An account gets
    /// at most its `capacity`, and an account with more calls `in_flight` comes later. Both kinds of room have a reserve that
    /// only lanes of category `authentication` use.
    pub fn next(
        &self,
        queues: &[SenderQueue],
        free: Capacity,
        capacity: impl Fn(&str) -> Capacity,
        in_flight: impl Fn(&str) -> usize,
    ) -> Vec<usize> {
        let mut turns = self.clone();
        let mut given: Vec<usize> = vec![0; queues.len()];
        let mut of_account: HashMap<&str, usize> = HashMap::new();
        let mut chosen = Vec::new();
        while chosen.len() < free.authentication {
            let begun = chosen.len();
            let has_turn = |(place, queue): &(usize, &SenderQueue)| {
                let given = given.get(*place).copied().unwrap_or_default();
                let its = of_account.get(queue.account_sid.as_str()).copied().unwrap_or_default();
                let most =
                    |capacity: Capacity| match queue.priority == rate_limit::RESERVED_PRIORITY {
                        true => capacity.authentication,
                        false => capacity.any,
                    };
                given < queue.waiting
                    && begun < most(free)
                    && its < most(capacity(&queue.account_sid))
            };
            let rank = |(place, queue): &(usize, &SenderQueue), other: &(usize, &SenderQueue)| {
                let busy = |account: &str| {
                    let its = of_account.get(account).copied().unwrap_or_default();
                    in_flight(account).saturating_add(its)
                };
                let given = |place: usize| given.get(place).copied().unwrap_or_default();
                let (one, two) = (queue.account_sid.as_str(), other.1.account_sid.as_str());
                let last = turns.last.get(&queue.priority).map_or("", String::as_str);
                (busy(one), one <= last, one, given(*place)).cmp(&(
                    busy(two),
                    two <= last,
                    two,
                    given(other.0),
                ))
            };
            let of_priority = |priority: i64| {
                let queues =
                    queues.iter().enumerate().filter(|(_, queue)| queue.priority == priority);
                queues.filter(has_turn).min_by(rank)
            };
            let Some((place, queue)) = turns.order().into_iter().find_map(of_priority) else {
                break;
            };
            chosen.push(place);
            if let Some(given) = given.get_mut(place) {
                *given = given.saturating_add(1);
            }
            let its = of_account.entry(queue.account_sid.as_str()).or_default();
            *its = its.saturating_add(1);
            turns.record_turn(queue);
        }
        chosen
    }

    /// Records that this lane has had its turn.
    pub fn record_turn(&mut self, queue: &SenderQueue) {
        self.count = self.count.wrapping_add(1);
        match self.last.get_mut(&queue.priority) {
            Some(last) => last.clone_from(&queue.account_sid),
            None => {
                self.last.insert(queue.priority, queue.account_sid.clone());
            }
        }
    }

    fn order(&self) -> [i64; 3] {
        let [usual, middle, lowest] = PRIORITIES;
        match self.count % SHARE {
            turn if turn == SHARE - 1 => lowest,
            turn if turn == SHARE / 2 - 1 => middle,
            _ => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(most: usize) -> Capacity {
        Capacity { any: most, authentication: most }
    }

    fn queue(priority: i64, account: &str, sender: &str, waiting: usize) -> SenderQueue {
        SenderQueue { priority, account_sid: account.into(), sender: sender.into(), waiting }
    }

    /// Returns the accounts that are served, one after another, when each call takes no time.
    fn served(turns: &mut FairScheduler, queues: &mut [SenderQueue], count: usize) -> Vec<String> {
        let mut served = Vec::new();
        while served.len() < count {
            let Some(place) = turns.next(queues, all(1), |_| all(1), |_| 0).first().copied() else {
                break;
            };
            turns.record_turn(&queues[place]);
            queues[place].waiting -= 1;
            served.push(format!("{}{}", queues[place].account_sid, queues[place].priority));
        }
        served
    }

    #[test]
    fn account_with_a_long_queue_delays_no_other_account() {
        let mut queues =
            [queue(1, "a", "x", 100_000), queue(1, "b", "y", 2), queue(1, "c", "z", 1)];
        let order = served(&mut FairScheduler::default(), &mut queues, 6);
        assert_eq!(order, ["a1", "b1", "c1", "a1", "b1", "a1"]);
        // Nor does it if all its calls are slow: the account with the fewest running calls comes first.
        let in_flight = |account: &str| if account == "a" { 7 } else { 0 };
        let queues = [queue(1, "a", "x", 100), queue(1, "b", "y", 3)];
        let next = FairScheduler::default().next(&queues, all(4), |_| all(100), in_flight);
        assert_eq!(next, [1, 1, 1, 0]);
    }

    #[test]
    fn authentication_precedes_marketing() {
        let mut queues =
            [queue(0, "a", "x", 1000), queue(1, "b", "x", 1000), queue(2, "c", "x", 1000)];
        let order = served(&mut FairScheduler::default(), &mut queues, 100);
        let count = |who: &str| order.iter().filter(|one| *one == who).count();
        assert_eq!((count("a0"), count("b1"), count("c2")), (80, 10, 10));
        let mut queues = [queue(0, "a", "x", 1), queue(2, "c", "x", 2)];
        assert_eq!(served(&mut FairScheduler::default(), &mut queues, 5), ["a0", "c2", "c2"]);
    }

    #[test]
    fn account_stays_within_its_capacity_and_its_senders_take_turns() {
        let queues = [queue(1, "a", "x", 9), queue(1, "a", "y", 9), queue(1, "b", "z", 9)];
        let capacity = |account: &str| all(if account == "a" { 3 } else { 0 });
        assert_eq!(FairScheduler::default().next(&queues, all(9), capacity, |_| 0), [0, 1, 0]);
    }

    #[test]
    fn reserve_is_for_authentication_only() {
        let queues = [queue(0, "a", "x", 9), queue(1, "b", "y", 9), queue(2, "c", "z", 9)];
        let next = |free, capacity: Capacity| {
            FairScheduler::default().next(&queues, free, |_| capacity, |_| 0)
        };
        // Only the reserve is free: of this sidecar, or of the accounts.
        let reserve = Capacity { any: 0, authentication: 2 };
        assert_eq!(next(reserve, all(9)), [0, 0]);
        assert_eq!(next(all(9), reserve), [0, 0]);
        // The reserve does not replace room that another category uses.
        let mut turns = FairScheduler { count: SHARE - 1, ..FairScheduler::default() };
        let free = Capacity { any: 1, authentication: 3 };
        let order = turns.next(&queues, free, |_| all(9), |_| 0);
        assert_eq!(order, [2, 0, 0]);
        turns.record_turn(&queues[2]);
    }

    proptest! {
        /// The result has only lanes that exist, leaves out no message that could be sent, and no account of a category is
        /// two turns ahead of another that waits.
        #[test]
        fn turns_are_shared(waiting in prop::collection::vec((0i64..3, 0u8..4, 0u8..2, 0usize..12), 0..12), free in 0usize..40, count in 0u64..20) {
            let queues: Vec<SenderQueue> = waiting
                .iter()
                .map(|(priority, account, sender, n)| queue(*priority, &format!("AC{account}"), &sender.to_string(), *n))
                .collect();
            let turns = FairScheduler { count, ..FairScheduler::default() };
            let next = turns.next(&queues, all(free), |_| all(usize::MAX), |_| 0);
            let all: usize = queues.iter().map(|queue| queue.waiting).sum();
            prop_assert_eq!(next.len(), all.min(free));
            let given = |place: usize| next.iter().filter(|one| **one == place).count();
            for (place, queue) in queues.iter().enumerate() {
                prop_assert!(given(place) <= queue.waiting);
            }
            let mut of_account: HashMap<&str, usize> = HashMap::new();
            next.iter().for_each(|place| *of_account.entry(&queues[*place].account_sid).or_default() += 1);
            let is_one_category = queues.iter().all(|queue| queue.priority == 1);
            for queue in queues.iter().enumerate().filter(|(place, queue)| is_one_category && given(*place) < queue.waiting) {
                let its = of_account.get(queue.1.account_sid.as_str()).copied().unwrap_or_default();
                prop_assert!(of_account.values().all(|other| *other <= its + 1));
            }
        }
    }
}
