//! Mix of webhooks: which one is number `n` of a run. Without state, so that any task may compose any webhook.

/// Webhooks in which each share is exact.
const WHOLE: u64 = 100;

/// Most webhooks between a repeat and its original, beyond the second that separates them.
const MAX_EXTRA_DISTANCE: usize = 200;

/// Kind of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// New status callback.
    Status,
    /// New inbound message.
    Inbound,
    /// Webhook that was sent before, as Twilio repeats it.
    Repeat,
    /// Webhook with a wrong signature.
    Forged,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub(super) const ALL: [Kind; 4] = [Kind::Status, Kind::Inbound, Kind::Repeat, Kind::Forged];

    /// Returns the name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Status => "status",
            Kind::Inbound => "inbound",
            Kind::Repeat => "repeat",
            Kind::Forged => "forged",
        }
    }

    /// Returns whether the edge must forward it, or answer it as a duplicate.
    pub(super) fn is_genuine(self) -> bool {
        self != Kind::Forged
    }
}

/// Shares of a hundred webhooks, and the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix {
    /// Inbound messages; the others are status callbacks.
    pub(super) inbound: u32,
    /// Repeats of earlier webhooks.
    pub(super) repeats: u32,
    /// Webhooks with a wrong signature.
    pub(super) forged: u32,
    /// Webhooks per second.
    pub(super) rate: u32,
}

/// One webhook of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    /// Its kind.
    pub(super) kind: Kind,
    /// Number of its content: its own number, or that of the repeated webhook.
    pub(super) content: u64,
}

/// Status callback of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusNumber {
    /// Message of the status, unique within the run.
    pub(super) message: u64,
    /// 0 for the first status of the message, then 1 and 2.
    pub(super) step: usize,
}

impl Mix {
    /// Returns number `n` of the run. Without an original that was sent a second before, a repeat is a new webhook.
    pub(super) fn planned(self, n: u64) -> Planned {
        let place = place(n);
        if place < u64::from(self.forged) {
            return Planned { kind: Kind::Forged, content: n };
        }
        if self.is_repeat(n)
            && let Some(latest) = n.checked_sub(u64::from(self.rate))
            && let Some(original) =
                (0..=latest).rev().take(MAX_EXTRA_DISTANCE).find(|number| self.is_new(*number))
        {
            return Planned { kind: Kind::Repeat, content: original };
        }
        let kind = if self.is_inbound(n) { Kind::Inbound } else { Kind::Status };
        Planned { kind, content: n }
    }

    /// Returns whether a content is an inbound message.
    pub(super) fn is_inbound(self, content: u64) -> bool {
        // Each hundred begins at another place, so that repeats and forged webhooks are of both classes.
        let place = (content % WHOLE * 63 + content / WHOLE * 7) % WHOLE;
        place < u64::from(self.inbound)
    }

    /// Returns the message and the step of a content that is a status callback. The steps of one message are a second
    /// apart.
    pub(super) fn status(self, content: u64) -> StatusNumber {
        let rate = u64::from(self.rate).max(1);
        let (second, place) = (content / rate, content % rate);
        StatusNumber { message: second / 3 * rate + place, step: (second % 3) as usize }
    }

    fn is_repeat(self, n: u64) -> bool {
        let place = place(n);
        place >= u64::from(self.forged) && place < u64::from(self.forged + self.repeats)
    }

    fn is_new(self, n: u64) -> bool {
        place(n) >= u64::from(self.forged + self.repeats)
    }
}

/// Returns a number under 100 that each number has once within a hundred; neighbours are far apart.
fn place(n: u64) -> u64 {
    (n % WHOLE * 37 + 11) % WHOLE
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const USUAL: Mix = Mix { inbound: 30, repeats: 5, forged: 1, rate: 500 };

    fn count(mix: Mix, numbers: std::ops::Range<u64>, kind: Kind) -> usize {
        numbers.filter(|n| mix.planned(*n).kind == kind).count()
    }

    #[test]
    fn each_hundred_has_the_shares() {
        for hundred in 5..40 {
            let numbers = hundred * 100..hundred * 100 + 100;
            assert_eq!(count(USUAL, numbers.clone(), Kind::Repeat), 5);
            assert_eq!(count(USUAL, numbers.clone(), Kind::Forged), 1);
            assert_eq!(numbers.filter(|n| USUAL.is_inbound(*n)).count(), 30);
        }
    }

    #[test]
    fn repeats_and_forged_webhooks_are_of_both_classes() {
        for kind in [Kind::Repeat, Kind::Forged] {
            let planned = (0..20_000).map(|n| USUAL.planned(n)).filter(|it| it.kind == kind);
            let contents: Vec<u64> = planned.map(|it| it.content).collect();
            let inbound = contents.iter().filter(|content| USUAL.is_inbound(**content)).count();
            let share = inbound * 100 / contents.len();
            assert!((15..45).contains(&share), "{share} % of {kind:?}");
        }
    }

    #[test]
    fn parts_can_be_switched_off() {
        let plain = Mix { repeats: 0, forged: 0, inbound: 0, ..USUAL };
        assert_eq!(count(plain, 0..3000, Kind::Status), 3000);
        assert_eq!(count(Mix { inbound: 100, ..plain }, 0..3000, Kind::Inbound), 3000);
    }

    proptest! {
        #[test]
        fn repeat_has_a_new_original_that_was_sent_a_second_before(
            inbound in 0..=100_u32, repeats in 0..=50_u32, forged in 0..=50_u32,
            rate in 1..=5000_u32, n in 0..20_000_u64,
        ) {
            let mix = Mix { inbound, repeats, forged, rate };
            let planned = mix.planned(n);
            if planned.kind == Kind::Repeat {
                prop_assert!(planned.content + u64::from(rate) <= n);
                let original = mix.planned(planned.content);
                prop_assert!(matches!(original.kind, Kind::Status | Kind::Inbound));
                prop_assert_eq!(original.content, planned.content);
            } else {
                prop_assert_eq!(planned.content, n);
            }
        }

        #[test]
        fn no_two_contents_are_the_same_status(rate in 1..=300_u32) {
            let mix = Mix { rate, ..USUAL };
            let mut seen = HashSet::new();
            for content in 0..2000 {
                let StatusNumber { message, step } = mix.status(content);
                prop_assert!(step < 3 && seen.insert((message, step)));
            }
        }
    }
}
