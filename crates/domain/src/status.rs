//! Status of a message, derived from all of its callbacks. Twilio sends callbacks in any order and more than once
//! (docs: track-outbound-message-status), so the order of arrival decides nothing: the status that is furthest along
//! wins, and no later callback takes it back. This module does not know where callbacks are stored.

twilio_edge_contract::string_enum! {
    /// Twilio's thirteen statuses (API: `message_enum_status`), in the order in which one replaces another.
    ///
    /// The order of the final statuses serves the operator and does not follow time: a failure needs attention, so a `read`
    /// never hides it; a message that was read was also delivered. Before them, each step towards the phone replaces the
    /// previous one. Twilio's documentation leaves the following cases open:
    ///
    /// - `canceled` ends scheduled messages only; if the message was delivered nevertheless, the delivery wins;
    /// - `partially_delivered` means that some recipients got it, `delivered` that all of them did;
    /// - `failed` before `undelivered`: if both arrive, "never sent" is the stronger statement.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Status {
        /// Waits for its scheduled time.
        Scheduled = "scheduled",
        /// Twilio is choosing a sender.
        Accepted = "accepted",
        /// Waits in Twilio's queue.
        Queued = "queued",
        /// Twilio is handing it to the network.
        Sending = "sending",
        /// The network accepted it.
        Sent = "sent",
        /// Inbound, and Twilio is receiving it.
        Receiving = "receiving",
        /// Inbound, and received.
        Received = "received",
        /// Scheduled, then canceled.
        Canceled = "canceled",
        /// Delivered to some of several recipients.
        PartiallyDelivered = "partially_delivered",
        /// Delivered.
        Delivered = "delivered",
        /// Delivered and opened; not every channel reports this.
        Read = "read",
        /// The network could not deliver it.
        Undelivered = "undelivered",
        /// Never sent.
        Failed = "failed",
    }
}

impl Status {
    /// Parses Twilio's word. Returns `None` for a word that this version does not know.
    pub fn parse(word: &str) -> Option<Status> {
        word.parse().ok()
    }
}

/// Status in one callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallbackStatus<'a> {
    /// Twilio's word, possibly one that this version does not know.
    pub word: &'a str,
    /// Error code of a failure.
    pub error_code: Option<&'a str>,
}

/// Current status of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentStatus<'a> {
    /// Word that is furthest along.
    pub word: &'a str,
    /// Error code reported with it, else the one of the furthest word that has a code.
    pub error_code: Option<&'a str>,
}

/// Returns the current status after all callbacks, in any order, or `None` without callbacks.
///
/// An unknown word never replaces a known one, because it might be an earlier step. Without a known word, it is the
/// status.
pub fn current_status<'a>(
    said: impl IntoIterator<Item = CallbackStatus<'a>>,
) -> Option<CurrentStatus<'a>> {
    // Beyond the status the order only has to be deterministic: words of equal rank are compared as text, then by code.
    let rank = |said: CallbackStatus<'a>| (Status::parse(said.word), said);
    let (mut furthest, mut reason) = (None, None);
    for said in said {
        furthest = furthest.max(Some(rank(said)));
        if said.error_code.is_some() {
            reason = reason.max(Some(rank(said)));
        }
    }
    let (_, furthest) = furthest?;
    let error_code = reason.and_then(|(_, said)| said.error_code);
    Some(CurrentStatus { word: furthest.word, error_code })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn said<'a>((word, error_code): (&'a str, &'a str)) -> CallbackStatus<'a> {
        CallbackStatus { word, error_code: Some(error_code).filter(|code| !code.is_empty()) }
    }

    fn after<'a>(history: &[(&'a str, &'a str)]) -> Option<(&'a str, &'a str)> {
        let standing = current_status(history.iter().copied().map(said))?;
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

    /// Real histories of messages, and the status after each.
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
        // The network revoked its report: an operator has to investigate.
        (&[("sent", ""), ("delivered", ""), ("undelivered", "30008")], ("undelivered", "30008")),
        (&[("delivered", ""), ("read", ""), ("failed", "63049")], ("failed", "63049")),
        // Reported twice, once without its error code.
        (&[("undelivered", ""), ("undelivered", "30003"), ("sent", "")], ("undelivered", "30003")),
        (&[("partially_delivered", ""), ("sent", ""), ("delivered", "")], ("delivered", "")),
        // An unknown word hides nothing, at any position.
        (&[("sent", ""), ("seen_by_assistant", ""), ("delivered", "")], ("delivered", "")),
    ];

    #[test]
    fn current_status_is_independent_of_order_and_copies() {
        for (history, expected) in HISTORIES {
            let mut reported = [history, history].concat();
            reported.truncate(6.max(history.len()));
            let mut orders = 0;
            permuted(&mut reported, 0, &mut |order| {
                orders += 1;
                assert_eq!(after(order), Some(expected), "{order:?}");
            });
            assert!(orders >= 2, "{history:?}");
        }
    }

    #[test]
    fn furthest_of_four_statuses_wins_in_every_order() {
        let words = Status::ALL.map(Status::as_str);
        for set in 1u32..1 << words.len() {
            if set.count_ones() > 4 {
                continue;
            }
            let chosen = words.iter().enumerate().filter(|(place, _)| set & (1 << place) != 0);
            let mut reported: Vec<_> = chosen.map(|(_, word)| (*word, "")).collect();
            let furthest = *reported.last().unwrap();
            permuted(&mut reported, 0, &mut |order| assert_eq!(after(order), Some(furthest)));
        }
    }

    #[test]
    fn failure_precedes_read_precedes_delivered() {
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
    fn unknown_word_is_the_status_if_it_is_alone() {
        assert_eq!(after(&[("teleported", "")]), Some(("teleported", "")));
        assert_eq!(after(&[("teleported", "99999"), ("queued", "")]), Some(("queued", "99999")));
        assert_eq!(after(&[]), None);
        assert_eq!(Status::parse("Delivered"), None, "Twilio's words are in lower case");
    }

    #[test]
    fn error_code_survives_a_later_status_without_one() {
        let history = [("undelivered", "30003"), ("failed", "")];
        assert_eq!(after(&history), Some(("failed", "30003")));
    }

    #[test]
    fn status_words_are_distinct() {
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
        fn current_status_never_regresses(
            (history, shuffled) in anything().prop_flat_map(|history| {
                (Just(history.clone()), Just(history).prop_shuffle())
            })
        ) {
            let read = |history: &[(String, Option<String>)]| {
                let said = history.iter().map(|(word, code)| CallbackStatus { word, error_code: code.as_deref() });
                current_status(said).map(|s| (Status::parse(s.word), s.word.to_owned(), s.error_code.map(str::to_owned)))
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
