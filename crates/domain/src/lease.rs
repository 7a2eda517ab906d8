//! Leases of webhooks: the only place that decides which claim may deliver a webhook. A [`LeaseRecord`] holds the state of
//! one dedupe key; the verbs claim, commit and release change it. The stores only load and save records.
//!
//! A lease has two periods: the *lease period* (a claim without a settlement frees the webhook when it ends) and the
//! *time to live of the result* (for so long an accepted webhook is recognized as a duplicate).
//!
//! ```text
//!             claim                 commit
//!   (unknown) ------> held by c1 ----------> done, until its time to live ends
//!      free  <------                          ^
//!             release, or the period ends     commit counts even when another claim holds the lease by then:
//!                                             the backend did accept it
//! ```
//!
//! A record that is cached for speed may be lost or out of date; [`LeaseRecord::merge`] then merges the ledger's lease into
//! it. The attempt counts successful claims and so shows which of the two is ahead.

use twilio_edge_contract::SettlementResult;

/// Maximum number of endings stored for one webhook; far more than it has copies in flight.
const MAX_ENDS: usize = 32;

/// Periods of a lease, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// Duration for which an unsettled claim excludes other claims.
    pub lease_ms: i64,
    /// Duration for which a result or an attempt count is stored.
    pub result_ms: i64,
}

/// State of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// No claim holds it: never claimed, or released.
    Free,
    /// A claim holds it until a time; after that the next claim may take it.
    Held {
        /// Claim that holds it.
        claim_id: String,
        /// End of the lease period, in milliseconds since 1970.
        until_ms: i64,
    },
    /// The backend accepted it.
    Done {
        /// Claim that committed it.
        claim_id: String,
        /// Answer for duplicates, as the store saved it.
        answer: Option<String>,
    },
}

/// Stored state of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Number of successful claims; 0 before the first one.
    pub attempt: u32,
    /// Time when the webhook was first received, in milliseconds since 1970.
    pub first_seen_ms: i64,
    /// Current holder.
    pub state: LeaseState,
    /// Expiry of this lease, in milliseconds since 1970; an expired lease counts as absent.
    pub forget_at_ms: i64,
}

impl Lease {
    /// Returns whether this claim holds it, or made it done.
    pub fn is_of(&self, claim: &str) -> bool {
        match &self.state {
            LeaseState::Held { claim_id, .. } | LeaseState::Done { claim_id, .. } => {
                claim_id == claim
            }
            LeaseState::Free => false,
        }
    }
}

twilio_edge_contract::string_enum! {
    /// End of one claim, stored so that late and repeated settlements are understood.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ClaimEnd {
        /// The owner released it.
        Freed = "freed",
        /// A release arrived before the claim, or without one.
        Tombstone = "tombstone",
        /// The lease period ended, and another claim took the webhook.
        Superseded = "superseded",
    }
}

/// Result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The lease is the claim's.
    Proceed {
        /// Attempt number, from 1.
        attempt: u32,
        /// Time when the webhook was first received, in milliseconds since 1970.
        first_seen_ms: i64,
    },
    /// Accepted earlier, with this answer.
    Duplicate(Option<String>),
    /// Another claim holds it.
    InFlight,
    /// This claim was released already.
    Released,
}

/// State of one dedupe key, as far as the current claims need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    lease: Option<Lease>,
    /// Oldest first.
    endings: Vec<(String, ClaimEnd)>,
}

impl LeaseRecord {
    /// Creates a record from stored data.
    pub fn new(lease: Option<Lease>, endings: Vec<(String, ClaimEnd)>) -> LeaseRecord {
        LeaseRecord { lease, endings }
    }

    /// Merges the ledger's lease if the ledger is ahead: the webhook is done, was claimed more often than this record
    /// shows, or is held by a claim that this record does not know. Returns whether it was ahead.
    pub fn merge(&mut self, remembered: Lease) -> bool {
        let ahead = match &self.lease {
            None => true,
            Some(Lease { state: LeaseState::Done { .. }, .. }) => false,
            Some(lease) => match &remembered.state {
                LeaseState::Done { .. } => true,
                _ if remembered.attempt != lease.attempt => remembered.attempt > lease.attempt,
                LeaseState::Held { claim_id, .. } => {
                    !lease.is_of(claim_id) && self.ending(claim_id).is_none()
                }
                LeaseState::Free => false,
            },
        };
        if ahead {
            self.lease = Some(remembered);
        }
        ahead
    }

    /// Returns the lease, if one is known.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Returns the endings of its claims, oldest first.
    pub fn endings(&self) -> &[(String, ClaimEnd)] {
        &self.endings
    }

    /// Returns whether a claim holds it now.
    pub fn is_held(&self, now_ms: i64) -> bool {
        let state = self.lease.as_ref().map(|lease| &lease.state);
        matches!(state, Some(LeaseState::Held { until_ms, .. }) if *until_ms > now_ms)
    }

    /// Returns whether the backend accepted it.
    pub fn is_done(&self) -> bool {
        matches!(self.lease, Some(Lease { state: LeaseState::Done { .. }, .. }))
    }

    /// Claims the webhook. A repeated call of the owner gets the same result and renews the lease.
    pub fn claim(&mut self, claim_id: &str, now_ms: i64, periods: Periods) -> ClaimOutcome {
        let mut lease = self.lease_or_new(now_ms);
        if let LeaseState::Done { answer, .. } = lease.state {
            return ClaimOutcome::Duplicate(answer);
        }
        if matches!(self.ending(claim_id), Some(ClaimEnd::Freed | ClaimEnd::Tombstone)) {
            return ClaimOutcome::Released;
        }
        match &lease.state {
            LeaseState::Held { claim_id: owner, .. } if owner == claim_id => {}
            LeaseState::Held { until_ms, .. } if *until_ms > now_ms => {
                return ClaimOutcome::InFlight;
            }
            LeaseState::Held { claim_id: owner, .. } => {
                lease.attempt = lease.attempt.saturating_add(1);
                self.end(owner.clone(), ClaimEnd::Superseded);
            }
            LeaseState::Free | LeaseState::Done { .. } => {
                lease.attempt = lease.attempt.saturating_add(1)
            }
        }
        let until_ms = now_ms.saturating_add(periods.lease_ms);
        lease.state = LeaseState::Held { claim_id: claim_id.to_owned(), until_ms };
        lease.forget_at_ms = until_ms.saturating_add(periods.result_ms);
        let claimed =
            ClaimOutcome::Proceed { attempt: lease.attempt, first_seen_ms: lease.first_seen_ms };
        self.lease = Some(lease);
        claimed
    }

    /// Records that the backend accepted the webhook: it is done, whichever claim holds it now, and the first answer
    /// stays.
    pub fn commit(
        &mut self,
        claim_id: &str,
        answer: Option<String>,
        now_ms: i64,
        periods: Periods,
    ) -> SettlementResult {
        let mut lease = self.lease_or_new(now_ms);
        if !matches!(lease.state, LeaseState::Done { .. }) {
            lease.state = LeaseState::Done { claim_id: claim_id.to_owned(), answer };
            lease.forget_at_ms = now_ms.saturating_add(periods.result_ms);
            self.lease = Some(lease);
            // The endings of the other claims follow from this state.
            self.endings.clear();
        }
        SettlementResult::Settled
    }

    /// Records that the backend did not accept it: the next claim may take it. A lease of another claim stays
    /// unchanged.
    pub fn release(&mut self, claim_id: &str, now_ms: i64, periods: Periods) -> SettlementResult {
        let mut lease = self.lease_or_new(now_ms);
        match &lease.state {
            LeaseState::Held { claim_id: owner, .. } if owner == claim_id => {
                lease.state = LeaseState::Free;
                lease.forget_at_ms = now_ms.saturating_add(periods.result_ms);
                self.lease = Some(lease);
                self.end(claim_id.to_owned(), ClaimEnd::Freed);
                SettlementResult::Settled
            }
            // A release cannot undo a commit.
            LeaseState::Done { .. } => SettlementResult::Superseded,
            LeaseState::Held { .. } | LeaseState::Free => match self.ending(claim_id) {
                Some(ClaimEnd::Freed) => SettlementResult::Settled,
                Some(ClaimEnd::Tombstone) => SettlementResult::Tombstoned,
                Some(ClaimEnd::Superseded) => SettlementResult::Superseded,
                None => {
                    self.end(claim_id.to_owned(), ClaimEnd::Tombstone);
                    SettlementResult::Tombstoned
                }
            },
        }
    }

    /// Returns the lease, or a new one if it is absent or expired.
    fn lease_or_new(&self, now_ms: i64) -> Lease {
        let new =
            Lease { attempt: 0, first_seen_ms: now_ms, state: LeaseState::Free, forget_at_ms: 0 };
        self.lease.clone().filter(|lease| lease.forget_at_ms > now_ms).unwrap_or(new)
    }

    fn ending(&self, claim_id: &str) -> Option<ClaimEnd> {
        self.endings.iter().find(|(ended, _)| ended == claim_id).map(|(_, ending)| *ending)
    }

    fn end(&mut self, claim_id: String, ending: ClaimEnd) {
        self.endings.retain(|(ended, _)| *ended != claim_id);
        if self.endings.len() >= MAX_ENDS {
            self.endings.remove(0);
        }
        self.endings.push((claim_id, ending));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIODS: Periods = Periods { lease_ms: 30, result_ms: 1000 };

    fn proceed(attempt: u32) -> ClaimOutcome {
        ClaimOutcome::Proceed { attempt, first_seen_ms: 0 }
    }

    fn held_by(claim_id: &str) -> LeaseRecord {
        let mut record = LeaseRecord::default();
        assert_eq!(record.claim(claim_id, 0, PERIODS), proceed(1));
        record
    }

    #[test]
    fn repeated_claim_gets_the_same_result() {
        let mut record = held_by("c1");
        assert_eq!(record.claim("c1", 1, PERIODS), proceed(1));
        assert_eq!(record.claim("c2", 1, PERIODS), ClaimOutcome::InFlight);
    }

    #[test]
    fn accepted_webhook_is_a_duplicate_with_its_first_answer() {
        let mut record = held_by("c1");
        for answer in ["first", "second"] {
            let answer = Some(answer.to_owned());
            assert_eq!(record.commit("c1", answer, 1, PERIODS), SettlementResult::Settled);
        }
        for claim_id in ["c1", "c2"] {
            let claimed = record.claim(claim_id, 2, PERIODS);
            assert_eq!(claimed, ClaimOutcome::Duplicate(Some("first".into())));
        }
    }

    #[test]
    fn released_webhook_is_claimable_by_other_claims_only() {
        let mut record = held_by("c1");
        for _ in 0..2 {
            assert_eq!(record.release("c1", 1, PERIODS), SettlementResult::Settled);
        }
        assert_eq!(record.claim("c1", 2, PERIODS), ClaimOutcome::Released);
        assert_eq!(record.claim("c2", 2, PERIODS), proceed(2));
    }

    #[test]
    fn release_before_its_claim_is_a_tombstone_and_frees_no_other_lease() {
        let mut record = held_by("c1");
        for _ in 0..2 {
            assert_eq!(record.release("c2", 1, PERIODS), SettlementResult::Tombstoned);
        }
        assert_eq!(record.claim("c2", 2, PERIODS), ClaimOutcome::Released);
        assert_eq!(record.claim("c3", 2, PERIODS), ClaimOutcome::InFlight);
    }

    #[test]
    fn expired_lease_belongs_to_the_next_claim() {
        let mut record = held_by("c1");
        assert_eq!(record.claim("c2", 29, PERIODS), ClaimOutcome::InFlight);
        assert_eq!(record.claim("c2", 30, PERIODS), proceed(2));
        assert_eq!(record.release("c1", 31, PERIODS), SettlementResult::Superseded);
        assert_eq!(record.claim("c3", 32, PERIODS), ClaimOutcome::InFlight);
        assert_eq!(record.release("c2", 33, PERIODS), SettlementResult::Settled);
    }

    #[test]
    fn expired_lease_stays_with_its_owner_until_it_is_claimed() {
        let mut record = held_by("c1");
        assert_eq!(record.claim("c1", 100, PERIODS), proceed(1));
        assert_eq!(record.claim("c2", 101, PERIODS), ClaimOutcome::InFlight);
    }

    #[test]
    fn late_commit_is_effective_under_any_lease() {
        let mut record = held_by("c1");
        assert_eq!(record.claim("c2", 30, PERIODS), proceed(2));
        assert_eq!(record.commit("c1", None, 31, PERIODS), SettlementResult::Settled);
        assert_eq!(record.release("c2", 32, PERIODS), SettlementResult::Superseded);
        assert_eq!(record.claim("c3", 33, PERIODS), ClaimOutcome::Duplicate(None));
    }

    #[test]
    fn done_state_is_final() {
        let mut record = held_by("c1");
        record.commit("c1", None, 1, PERIODS);
        record.commit("c2", Some("another answer".into()), 1, PERIODS);
        let first = LeaseState::Done { claim_id: "c1".into(), answer: None };
        assert_eq!(record.lease().map(|lease| &lease.state), Some(&first), "the first counts");
        assert_eq!(record.release("c1", 2, PERIODS), SettlementResult::Superseded);
        assert_eq!(record.release("c2", 2, PERIODS), SettlementResult::Superseded);
        assert_eq!(record.claim("c3", 3, PERIODS), ClaimOutcome::Duplicate(None));
    }

    #[test]
    fn result_expires_after_its_time_to_live() {
        let mut record = held_by("c1");
        record.commit("c1", None, 1, PERIODS);
        let mut later = record.clone();
        assert_eq!(record.claim("c2", 1000, PERIODS), ClaimOutcome::Duplicate(None));
        let anew = ClaimOutcome::Proceed { attempt: 1, first_seen_ms: 1001 };
        assert_eq!(later.claim("c2", 1001, PERIODS), anew);
    }

    #[test]
    fn lease_of_the_ledger_is_merged_if_it_is_ahead() {
        let held = |claim_id: &str, attempt| Lease {
            attempt,
            first_seen_ms: 0,
            state: LeaseState::Held { claim_id: claim_id.into(), until_ms: 30 },
            forget_at_ms: 1030,
        };
        // Lost record: the holder still holds it.
        let mut lost = LeaseRecord::default();
        assert!(lost.merge(held("c1", 1)));
        assert_eq!(lost.clone().claim("c2", 1, PERIODS), ClaimOutcome::InFlight);
        assert_eq!(lost.claim("c1", 1, PERIODS), proceed(1));
        // Record behind: another claim succeeded while this record was unavailable.
        let mut behind = held_by("c1");
        behind.release("c1", 1, PERIODS);
        assert!(behind.merge(held("c2", 2)));
        assert_eq!(behind.claim("c3", 2, PERIODS), ClaimOutcome::InFlight);
        let mut parted = held_by("c1");
        assert!(parted.merge(held("c2", 1)));
        // Record ahead: the last release is not in the ledger yet.
        let mut ahead = held_by("c1");
        ahead.release("c1", 1, PERIODS);
        assert!(!ahead.merge(held("c1", 1)));
        assert_eq!(ahead.claim("c2", 2, PERIODS), proceed(2));
    }

    #[test]
    fn endings_are_bounded_and_the_latest_stay() {
        let mut record = LeaseRecord::default();
        for claim in 0..100 {
            record.release(&format!("c{claim}"), 0, PERIODS);
        }
        assert_eq!(record.endings().len(), MAX_ENDS);
        assert_eq!(record.claim("c99", 1, PERIODS), ClaimOutcome::Released);
        assert_eq!(
            record.claim("c0", 1, PERIODS),
            ClaimOutcome::Proceed { attempt: 1, first_seen_ms: 1 }
        );
    }
}
