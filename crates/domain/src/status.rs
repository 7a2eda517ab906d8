//! Where a message has got to, from everything that was said of it. Callbacks come in any order and more than once
//! (docs: track-outbound-message-status), so the order in which they came decides nothing: of all that was said, what is
//! furthest along counts, and no later word takes that back. Knows nothing of where the words are kept.

/// Twilio's thirteen words (API: `message_enum_status`), in the order in which one replaces another.
///
/// The order of what ends a message is the operator's, not that of time: somebody has to look at a failure, so it is never
/// hidden behind a `read`; whoever read a message was delivered it. Before these, each step towards the phone replaces the
/// one before. Between them is what Twilio's documentation leaves open:
///
/// - `canceled` ends what was scheduled only; if it was delivered all the same, that is what happened to the person;
/// - `partially_delivered` says that someone got it, `delivered` that everyone did;
/// - `failed` before `undelivered`: a message that never left is the stronger statement, should both be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Waits for the time it is to be sent at.
    Scheduled,
    /// A sender is being chosen.
    Accepted,
    /// Waits for its turn.
    Queued,
    /// Is being handed to the network.
    Sending,
    /// The network has it.
    Sent,
    /// Inbound, and on its way to us.
    Receiving,
    /// Inbound, and here.
    Received,
    /// Was scheduled, and taken back.
    Canceled,
    /// Arrived at some of several.
    PartiallyDelivered,
    /// Arrived.
    Delivered,
    /// Arrived and was opened; not every channel tells.
    Read,
    /// The network could not deliver it.
    Undelivered,
    /// Was never sent.
    Failed,
}

impl Status {
    /// Every one, in its order.
    pub const ALL: [Status; 13] = [
        Status::Scheduled,
        Status::Accepted,
        Status::Queued,
        Status::Sending,
        Status::Sent,
        Status::Receiving,
        Status::Received,
        Status::Canceled,
        Status::PartiallyDelivered,
        Status::Delivered,
        Status::Read,
        Status::Undelivered,
        Status::Failed,
    ];

    /// Twilio's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "scheduled",
            Status::Accepted => "accepted",
            Status::Queued => "queued",
            Status::Sending => "sending",
            Status::Sent => "sent",
            Status::Receiving => "receiving",
            Status::Received => "received",
            Status::Canceled => "canceled",
            Status::PartiallyDelivered => "partially_delivered",
            Status::Delivered => "delivered",
            Status::Read => "read",
            Status::Undelivered => "undelivered",
            Status::Failed => "failed",
        }
    }

    /// Reads Twilio's word; none for one this version does not know.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// One thing that was said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said<'a> {
    /// Twilio's word, or one it came up with later.
    pub word: &'a str,
    /// Why it failed.
    pub error_code: Option<&'a str>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The word that is furthest along.
    pub word: &'a str,
    /// The error code said with it; else with the word before it that had one.
    pub error_code: Option<&'a str>,
}

/// Where a message is after all that was said, in whatever order; none when nothing was.
///
/// A word nobody here knows replaces none that is known, for it might be a step back; alone, it is what there is.
pub fn standing<'a>(said: impl IntoIterator<Item = Said<'a>>) -> Option<Standing<'a>> {
    // Beyond the status the order only has to be the same for everyone: two of one rank differ by word, then by code.
    let rank = |said: Said<'a>| (Status::parse(said.word), said);
    let (mut furthest, mut reason) = (None, None);
    for said in said {
        furthest = furthest.max(Some(rank(said)));
        if said.error_code.is_some() {
            reason = reason.max(Some(rank(said)));
        }
    }
    let (_, furthest) = furthest?;
    let error_code = reason.and_then(|(_, said)| said.error_code);
    Some(Standing { word: furthest.word, error_code })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn said<'a>((word, error_code): (&'a str, &'a str)) -> Said<'a> {
        Said { word, error_code: Some(error_code).filter(|code| !code.is_empty()) }
    }

    fn after<'a>(history: &[(&'a str, &'a str)]) -> Option<(&'a str, &'a str)> {
        let standing = standing(history.iter().copied().map(said))?;
        Some((standing.word, standing.error_code.unwrap_or_default()))
    }

    /// Calls `visit` with every order of `items`.
    fn permuted<T: Copy>(items: &mut [T], done: usize, visit: &mut impl FnMut(&[T])) {
        if done == items.len() {
            return visit(items);
        }
        for next in done..items.len() {
            items.swap(done, next);
            permuted(items, done + 1, visit);
            items.swap(done, next);
        }
    }

    type DeliveryStatus = (&'static str, &'static str);

    /// What messages really go through, and where they are then.
    const HISTORIES: [(&[DeliveryStatus], DeliveryStatus); 14] = [
        (&[("queued", "")], ("queued", "")),
        (&[("sent", ""), ("queued", "")], ("sent", "")),
        (&[("queued", ""), ("sending", ""), ("sent", ""), ("delivered", "")], ("delivered", "")),
        (&[("queued", ""), ("sent", ""), ("delivered", ""), ("read", "")], ("read", "")),
        (&[("accepted", ""), ("queued", ""), ("sending", ""), ("sent", "")], ("sent", "")),
        (&[("scheduled", ""), ("accepted", ""), ("queued", "")], ("queued", "")),
        (&[("scheduled", ""), ("canceled", "")], ("canceled", "")),
        (&[("queued", ""), ("failed", "21610")], ("failed", "21610")),
        (&[("queued", ""), ("sent", ""), ("undelivered", "63016")], ("undelivered", "63016")),
        // The network took its word back: somebody has to look at it.
        (&[("sent", ""), ("delivered", ""), ("undelivered", "30008")], ("undelivered", "30008")),
        (&[("delivered", ""), ("read", ""), ("failed", "63049")], ("failed", "63049")),
        // Said twice, once without its reason.
        (&[("undelivered", ""), ("undelivered", "30003"), ("sent", "")], ("undelivered", "30003")),
        (&[("partially_delivered", ""), ("sent", ""), ("delivered", "")], ("delivered", "")),
        // A word of the future hides nothing, wherever it comes.
        (&[("sent", ""), ("seen_by_assistant", ""), ("delivered", "")], ("delivered", "")),
    ];

    #[test]
    fn every_history_ends_the_same_in_every_order_and_told_twice() {
        for (history, expected) in HISTORIES {
            let mut told = [history, history].concat();
            told.truncate(6.max(history.len()));
            let mut orders = 0;
            permuted(&mut told, 0, &mut |order| {
                orders += 1;
                assert_eq!(after(order), Some(expected), "{order:?}");
            });
            assert!(orders >= 2, "{history:?}");
        }
    }

    #[test]
    fn of_any_four_words_the_furthest_counts_in_every_order() {
        let words = Status::ALL.map(Status::as_str);
        for set in 1u32..1 << words.len() {
            if set.count_ones() > 4 {
                continue;
            }
            let chosen = words.iter().enumerate().filter(|(place, _)| set & (1 << place) != 0);
            let mut told: Vec<_> = chosen.map(|(_, word)| (*word, "")).collect();
            let furthest = *told.last().unwrap();
            permuted(&mut told, 0, &mut |order| assert_eq!(after(order), Some(furthest)));
        }
    }

    #[test]
    fn a_failure_goes_before_read_before_delivered_before_what_is_under_way() {
        let tiers: [&[&str]; 4] = [
            &["scheduled", "accepted", "queued", "sending", "sent"],
            &["delivered"],
            &["read"],
            &["undelivered", "failed"],
        ];
        for pair in tiers.windows(2) {
            for (lower, upper) in pair[0].iter().flat_map(|l| pair[1].iter().map(move |u| (l, u))) {
                assert_eq!(after(&[(lower, ""), (upper, "")]), Some((*upper, "")));
                assert_eq!(after(&[(upper, ""), (lower, "")]), Some((*upper, "")));
            }
        }
    }

    #[test]
    fn a_word_nobody_knows_is_what_there_is_when_it_is_alone() {
        assert_eq!(after(&[("teleported", "")]), Some(("teleported", "")));
        assert_eq!(after(&[("teleported", "99999"), ("queued", "")]), Some(("queued", "99999")));
        assert_eq!(after(&[]), None);
        assert_eq!(Status::parse("Delivered"), None, "Twilio's words are in lower case");
    }

    #[test]
    fn a_reason_is_kept_when_the_last_word_came_without_one() {
        let history = [("undelivered", "30003"), ("failed", "")];
        assert_eq!(after(&history), Some(("failed", "30003")));
    }

    #[test]
    fn each_word_is_there_once() {
        let words: BTreeSet<_> = Status::ALL.map(Status::as_str).into();
        assert_eq!(words.len(), 13);
        assert!(Status::ALL.is_sorted());
        assert!(Status::ALL.iter().all(|status| Status::parse(status.as_str()) == Some(*status)));
    }

    fn anything() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
        let word = prop_oneof![
            9 => prop::sample::select(Status::ALL.map(Status::as_str).to_vec()).prop_map(str::to_owned),
            1 => "[a-z_]{1,12}",
        ];
        let code = prop::option::weighted(0.3, "[236][0-9]{4}");
        prop::collection::vec((word, code), 1..8)
    }

    proptest! {
        #[test]
        fn no_order_matters_and_nothing_more_that_is_said_goes_back(
            (history, shuffled) in anything().prop_flat_map(|history| {
                (Just(history.clone()), Just(history).prop_shuffle())
            })
        ) {
            let read = |history: &[(String, Option<String>)]| {
                let said = history.iter().map(|(word, code)| Said { word, error_code: code.as_deref() });
                standing(said).map(|s| (Status::parse(s.word), s.word.to_owned(), s.error_code.map(str::to_owned)))
            };
            prop_assert_eq!(read(&history), read(&shuffled));
            for said in 1..shuffled.len() {
                let (before, then) = (read(&shuffled[..said]).unwrap(), read(&shuffled[..=said]).unwrap());
                prop_assert!(then.0 >= before.0, "{:?} went back to {:?}", before, then);
                prop_assert!(then.2.is_some() || before.2.is_none(), "the code of {:?} is gone", before);
            }
        }
    }
}
