//! Fair scheduler: selects the messages that are sent next. The category decides first, so that one-time passwords do not
//! wait behind marketing; one turn in ten starts with a lower category, so that no category starves. Within a category the
//! account with the fewest running calls comes first, then the accounts in turn: an account with a hundred thousand queued
//! messages does not delay the others. Pure: the caller passes the queue.

use std::collections::{BTreeMap, HashMap};

use super::pace;
use crate::sending::adaptive_concurrency::Room;

/// One turn in this many starts with marketing; another one, halfway between, starts with utility and service.
const SHARE: u64 = 10;

/// Orders of the priorities in a turn: the usual one, the one for utility and service, the one for marketing.
const PRIORITIES: [[i64; 3]; 3] = [[0, 1, 2], [1, 2, 0], [2, 1, 0]];

/// Queue of one priority, account and sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
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
    /// at most its `room`, and an account with more calls `under_way` comes later. Both kinds of room have a reserve that
    /// only lanes of category `authentication` use.
    pub fn next(
        &self,
        lanes: &[Lane],
        free: Room,
        room: impl Fn(&str) -> Room,
        under_way: impl Fn(&str) -> usize,
    ) -> Vec<usize> {
        let mut turns = self.clone();
        let mut given: Vec<usize> = vec![0; lanes.len()];
        let mut of_account: HashMap<&str, usize> = HashMap::new();
        let mut chosen = Vec::new();
        while chosen.len() < free.authentication {
            let begun = chosen.len();
            let has_turn = |(place, lane): &(usize, &Lane)| {
                let given = given.get(*place).copied().unwrap_or_default();
                let its = of_account.get(lane.account_sid.as_str()).copied().unwrap_or_default();
                let most = |room: Room| match lane.priority == pace::RESERVED {
                    true => room.authentication,
                    false => room.any,
                };
                given < lane.waiting && begun < most(free) && its < most(room(&lane.account_sid))
            };
            let rank = |(place, lane): &(usize, &Lane), other: &(usize, &Lane)| {
                let busy = |account: &str| {
                    let its = of_account.get(account).copied().unwrap_or_default();
                    under_way(account).saturating_add(its)
                };
                let given = |place: usize| given.get(place).copied().unwrap_or_default();
                let (one, two) = (lane.account_sid.as_str(), other.1.account_sid.as_str());
                let last = turns.last.get(&lane.priority).map_or("", String::as_str);
                (busy(one), one <= last, one, given(*place)).cmp(&(
                    busy(two),
                    two <= last,
                    two,
                    given(other.0),
                ))
            };
            let of_priority = |priority: i64| {
                let lanes = lanes.iter().enumerate().filter(|(_, lane)| lane.priority == priority);
                lanes.filter(has_turn).min_by(rank)
            };
            let Some((place, lane)) = turns.order().into_iter().find_map(of_priority) else {
                break;
            };
            chosen.push(place);
            if let Some(given) = given.get_mut(place) {
                *given = given.saturating_add(1);
            }
            let its = of_account.entry(lane.account_sid.as_str()).or_default();
            *its = its.saturating_add(1);
            turns.had(lane);
        }
        chosen
    }

    /// Records that this lane has had its turn.
    pub fn had(&mut self, lane: &Lane) {
        self.count = self.count.wrapping_add(1);
        match self.last.get_mut(&lane.priority) {
            Some(last) => last.clone_from(&lane.account_sid),
            None => {
                self.last.insert(lane.priority, lane.account_sid.clone());
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

    fn all(most: usize) -> Room {
        Room { any: most, authentication: most }
    }

    fn lane(priority: i64, account: &str, sender: &str, waiting: usize) -> Lane {
        Lane { priority, account_sid: account.into(), sender: sender.into(), waiting }
    }

    /// Returns the accounts that are served, one after another, when each call takes no time.
    fn served(turns: &mut FairScheduler, lanes: &mut [Lane], count: usize) -> Vec<String> {
        let mut served = Vec::new();
        while served.len() < count {
            let Some(place) = turns.next(lanes, all(1), |_| all(1), |_| 0).first().copied() else {
                break;
            };
            turns.had(&lanes[place]);
            lanes[place].waiting -= 1;
            served.push(format!("{}{}", lanes[place].account_sid, lanes[place].priority));
        }
        served
    }

    #[test]
    fn one_with_very_much_to_send_delays_nobody() {
        let mut lanes = [lane(1, "a", "x", 100_000), lane(1, "b", "y", 2), lane(1, "c", "z", 1)];
        let order = served(&mut FairScheduler::default(), &mut lanes, 6);
        assert_eq!(order, ["a1", "b1", "c1", "a1", "b1", "a1"]);
        // Nor does it if all its calls are slow: the account with the fewest running calls comes first.
        let under_way = |account: &str| if account == "a" { 7 } else { 0 };
        let lanes = [lane(1, "a", "x", 100), lane(1, "b", "y", 3)];
        let next = FairScheduler::default().next(&lanes, all(4), |_| all(100), under_way);
        assert_eq!(next, [1, 1, 1, 0]);
    }

    #[test]
    fn a_code_to_log_in_goes_first_and_an_offer_in_the_end() {
        let mut lanes = [lane(0, "a", "x", 1000), lane(1, "b", "x", 1000), lane(2, "c", "x", 1000)];
        let order = served(&mut FairScheduler::default(), &mut lanes, 100);
        let count = |who: &str| order.iter().filter(|one| *one == who).count();
        assert_eq!((count("a0"), count("b1"), count("c2")), (80, 10, 10));
        let mut lanes = [lane(0, "a", "x", 1), lane(2, "c", "x", 2)];
        assert_eq!(served(&mut FairScheduler::default(), &mut lanes, 5), ["a0", "c2", "c2"]);
    }

    #[test]
    fn an_account_has_no_more_than_its_room_and_its_senders_take_turns() {
        let lanes = [lane(1, "a", "x", 9), lane(1, "a", "y", 9), lane(1, "b", "z", 9)];
        let room = |account: &str| all(if account == "a" { 3 } else { 0 });
        assert_eq!(FairScheduler::default().next(&lanes, all(9), room, |_| 0), [0, 1, 0]);
    }

    #[test]
    fn only_authentication_uses_the_reserve() {
        let lanes = [lane(0, "a", "x", 9), lane(1, "b", "y", 9), lane(2, "c", "z", 9)];
        let next = |free, room: Room| FairScheduler::default().next(&lanes, free, |_| room, |_| 0);
        // Only the reserve is free: of this sidecar, or of the accounts.
        let reserve = Room { any: 0, authentication: 2 };
        assert_eq!(next(reserve, all(9)), [0, 0]);
        assert_eq!(next(all(9), reserve), [0, 0]);
        // The reserve does not replace room that another category uses.
        let mut turns = FairScheduler { count: SHARE - 1, ..FairScheduler::default() };
        let free = Room { any: 1, authentication: 3 };
        let order = turns.next(&lanes, free, |_| all(9), |_| 0);
        assert_eq!(order, [2, 0, 0]);
        turns.had(&lanes[2]);
    }

    proptest! {
        /// The result has only lanes that exist, leaves out no message that could be sent, and no account of a category is
        /// two turns ahead of another that waits.
        #[test]
        fn turns_are_shared(waiting in prop::collection::vec((0i64..3, 0u8..4, 0u8..2, 0usize..12), 0..12), free in 0usize..40, count in 0u64..20) {
            let lanes: Vec<Lane> = waiting
                .iter()
                .map(|(priority, account, sender, n)| lane(*priority, &format!("AC{account}"), &sender.to_string(), *n))
                .collect();
            let turns = FairScheduler { count, ..FairScheduler::default() };
            let next = turns.next(&lanes, all(free), |_| all(usize::MAX), |_| 0);
            let all: usize = lanes.iter().map(|lane| lane.waiting).sum();
            prop_assert_eq!(next.len(), all.min(free));
            let given = |place: usize| next.iter().filter(|one| **one == place).count();
            for (place, lane) in lanes.iter().enumerate() {
                prop_assert!(given(place) <= lane.waiting);
            }
            let mut of_account: HashMap<&str, usize> = HashMap::new();
            next.iter().for_each(|place| *of_account.entry(&lanes[*place].account_sid).or_default() += 1);
            let is_one_category = lanes.iter().all(|lane| lane.priority == 1);
            for lane in lanes.iter().enumerate().filter(|(place, lane)| is_one_category && given(*place) < lane.waiting) {
                let its = of_account.get(lane.1.account_sid.as_str()).copied().unwrap_or_default();
                prop_assert!(of_account.values().all(|other| *other <= its + 1));
            }
        }
    }
}
