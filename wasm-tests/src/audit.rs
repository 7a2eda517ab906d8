//! Audit of a run for lost webhooks. It compares the records of every participant: the answers that Twilio received, the
//! ledger, the contents of each sink, and the requests that the backend received. Pure: no process, no clock.
//!
//! The rules, for every webhook with a copy that was answered 2xx:
//!
//! - by accept delivery: the ledger has it as accepted, no delivery of it is pending, and every sink has it, unchanged;
//! - by forward delivery: the backend accepted it, and the ledger has it;
//! - once its commit is in the ledger, no later copy of it reaches the backend, unless marked `unknown`;
//! - the events of one number are in each log of each sink in the order in which the ledger recorded them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The component that delivers a webhook to its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The sidecar delivers it.
    Accept,
    /// Envoy delivers it.
    Forward {
        /// It is also forwarded when no sidecar gave a verdict.
        blindly: bool,
    },
}

/// One webhook, as Twilio sent it.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its dedupe key, which is also the `event_id` of the events published about it.
    pub key: String,
    /// Phone number of the contact that it is about.
    pub number: String,
    /// Its content: the text of a message, the status of a callback.
    pub text: String,
    /// Delivery of the route on which it came.
    pub delivery: Delivery,
    /// Every request that carried it, copies and retries alike.
    pub calls: Vec<Call>,
}

/// One request from Twilio.
#[derive(Debug, Clone)]
pub struct Call {
    /// Unique id of the request, which the backend sees too.
    pub case: String,
    /// In milliseconds since 1970.
    pub sent_ms: i64,
    /// Time of the answer, or of the end of the wait for one.
    pub ended_ms: i64,
    /// Status that Twilio received; none without an answer.
    pub status: Option<u16>,
}

impl Webhook {
    /// Returns the first copy that was answered 2xx.
    fn thanked(&self) -> Option<&Call> {
        let mut calls = self.calls.iter();
        calls.find(|call| call.status.is_some_and(|status| (200..300).contains(&status)))
    }
}

/// Ledger row of one webhook.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// `accepted` or `refused`.
    pub outcome: Option<String>,
    /// Time of that outcome, in milliseconds since 1970.
    pub settled_ms: Option<i64>,
}

/// Outbox row of one delivery.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Name of the sink.
    pub sink: String,
    /// Dedupe key of the webhook.
    pub key: String,
    /// Sequence number in which it was recorded.
    pub seq: i64,
    /// `waiting`, `done`, `dead` or `discarded`.
    pub state: String,
}

/// Record of a sink.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The `event_id`.
    pub key: String,
    /// Phone number that it is about, from the key of the record or from the event.
    pub number: String,
    /// See [`Webhook::text`].
    pub text: String,
}

/// Request that the backend received.
#[derive(Debug, Clone)]
pub struct Handed {
    /// Dedupe key of the webhook.
    pub key: String,
    /// Id of the request.
    pub case: String,
    /// True if the backend accepted it.
    pub taken: bool,
    /// True if it was marked `unknown`: no verdict said whether the backend already has it.
    pub unknown: bool,
}

/// Records of all participants.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Webhooks that Twilio sent.
    pub webhooks: Vec<Webhook>,
    /// The ledger, by dedupe key.
    pub ledger: BTreeMap<String, Event>,
    /// The outbox.
    pub owed: Vec<Owed>,
    /// Contents of each sink, by the names of sink and log. A log has an order: a partition, a stream.
    pub sinks: BTreeMap<String, BTreeMap<String, Vec<Arrival>>>,
    /// Requests that the backend received.
    pub handed: Vec<Handed>,
    /// Times at which Envoy was killed. Settlements that it had not sent were lost then.
    pub edge_killed_ms: Vec<i64>,
    /// Longest time from the timestamp of a settlement until it is in effect, and until it is sent at all, in milliseconds.
    pub slack_ms: i64,
}

/// Violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Answered 2xx, but not in the ledger.
    NotInLedger(String),
    /// Answered 2xx, but not accepted in the ledger.
    NotSettled(String),
    /// Answered 2xx, but the outbox never had a delivery to this sink.
    NotOwed(String, String),
    /// Answered 2xx, but at the end of the run the delivery to this sink is still in this state.
    NotDone(String, String, String),
    /// Answered 2xx, but not in this sink.
    NotInSink(String, String),
    /// In this sink with another text or another number than was sent.
    Changed(String, String),
    /// In this sink, but never sent.
    Invented(String, String),
    /// The webhooks of one kind of a number are in more than one log of this sink, so they have no order.
    Scattered(String, String),
    /// In this log the second came before the first, which was recorded earlier.
    OutOfOrder(String, String, String),
    /// Answered 2xx, but the backend never accepted it.
    NotAtBackend(String),
    /// The backend received it in this request, which was sent after the commit.
    TwiceAfterCommit(String, String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInLedger(key) => write!(f, "{key}: answered 2xx, not in the ledger"),
            Self::NotSettled(key) => write!(f, "{key}: answered 2xx, not accepted in the ledger"),
            Self::NotOwed(key, sink) => write!(f, "{key}: answered 2xx, never owed to {sink}"),
            Self::NotDone(key, sink, state) => {
                write!(f, "{key}: answered 2xx, still {state} for {sink}")
            }
            Self::NotInSink(key, sink) => write!(f, "{key}: answered 2xx, missing in {sink}"),
            Self::Changed(key, sink) => write!(f, "{key}: not what was sent, in {sink}"),
            Self::Invented(key, sink) => write!(f, "{key}: nobody sent it, in {sink}"),
            Self::Scattered(number, sink) => write!(f, "{number}: in more than one log of {sink}"),
            Self::OutOfOrder(first, second, log) => {
                write!(f, "{first}: recorded before {second}, but behind it in {log}")
            }
            Self::NotAtBackend(key) => write!(f, "{key}: answered 2xx, the backend never took it"),
            Self::TwiceAfterCommit(key, case) => {
                write!(f, "{key}: committed, and the backend got it again ({case})")
            }
        }
    }
}

/// Result of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Violations, each once.
    pub losses: BTreeSet<Loss>,
    /// Number of webhooks with a copy that was answered 2xx.
    pub thanked: usize,
    /// Repeated deliveries, by sink: delivery is at least once.
    pub again: BTreeMap<String, usize>,
    /// Number of times the backend received a webhook again that it had accepted, before its commit.
    pub again_uncommitted: usize,
    /// Number of times the backend received a committed webhook again, marked `unknown`.
    pub again_unknown: usize,
    /// Forwarded webhooks whose outcome was lost with a killed Envoy: their next copy would be forwarded again.
    pub unsettled_by_kill: usize,
}

/// Audits the records.
pub fn audit(books: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let index = Index::of(books);
    let mut present = BTreeMap::new();
    for (sink, logs) in &books.sinks {
        let (has, again) = index.read(sink, logs, &mut finding.losses);
        finding.again.insert(sink.clone(), again);
        present.insert(sink.as_str(), has);
    }
    for owed in books.owed.iter().filter(|owed| owed.state == "done") {
        if !present.get(owed.sink.as_str()).is_some_and(|has| has.contains(owed.key.as_str())) {
            finding.losses.insert(Loss::NotInSink(owed.key.clone(), owed.sink.clone()));
        }
    }
    for one in &books.handed {
        let delivery = index.sent.get(one.key.as_str()).map(|webhook| webhook.delivery);
        if !matches!(delivery, Some(Delivery::Forward { .. })) {
            finding.losses.insert(Loss::Invented(one.key.clone(), "the backend".to_owned()));
        }
    }
    for webhook in &books.webhooks {
        finding.thanked += usize::from(webhook.thanked().is_some());
        match webhook.delivery {
            Delivery::Accept => index.accepted(webhook, &present, &mut finding.losses),
            Delivery::Forward { blindly } => index.forwarded(webhook, blindly, &mut finding),
        }
    }
    finding
}

/// The records, indexed by webhook.
struct Index<'a> {
    books: &'a Evidence,
    sent: BTreeMap<&'a str, &'a Webhook>,
    owed: BTreeMap<(&'a str, &'a str), &'a Owed>,
    handed: BTreeMap<&'a str, Vec<&'a Handed>>,
}

impl<'a> Index<'a> {
    fn of(books: &'a Evidence) -> Self {
        let sent = books.webhooks.iter().map(|webhook| (webhook.key.as_str(), webhook));
        let owed = books.owed.iter().map(|owed| ((owed.sink.as_str(), owed.key.as_str()), owed));
        let mut handed: BTreeMap<&str, Vec<&Handed>> = BTreeMap::new();
        for one in &books.handed {
            handed.entry(&one.key).or_default().push(one);
        }
        Self { books, sent: sent.collect(), owed: owed.collect(), handed }
    }

    /// Reads the contents of a sink, counts repeats, and reports records that are wrong or unknown.
    fn read(
        &self,
        sink: &str,
        logs: &'a BTreeMap<String, Vec<Arrival>>,
        losses: &mut BTreeSet<Loss>,
    ) -> (BTreeSet<&'a str>, usize) {
        let (mut has, mut again) = (BTreeSet::new(), 0);
        let mut places: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (log, arrivals) in logs {
            let mut latest: BTreeMap<&str, &Owed> = BTreeMap::new();
            for arrival in arrivals {
                let key = arrival.key.as_str();
                let Some(webhook) = self.sent.get(key) else {
                    losses.insert(Loss::Invented(key.to_owned(), sink.to_owned()));
                    continue;
                };
                if (&webhook.text, &webhook.number) != (&arrival.text, &arrival.number) {
                    losses.insert(Loss::Changed(key.to_owned(), sink.to_owned()));
                }
                let class = key.split(':').next().unwrap_or_default();
                if *places.entry((class, &webhook.number)).or_insert(log) != log {
                    losses.insert(Loss::Scattered(webhook.number.clone(), sink.to_owned()));
                }
                if !has.insert(key) {
                    again += 1;
                    continue;
                }
                let Some(owed) = self.owed.get(&(sink, key)) else { continue };
                let last = latest.entry(&webhook.number).or_insert(owed);
                if last.seq > owed.seq {
                    let log = format!("{sink} {log}");
                    losses.insert(Loss::OutOfOrder(owed.key.clone(), last.key.clone(), log));
                } else {
                    *last = owed;
                }
            }
        }
        (has, again)
    }

    fn accepted(
        &self,
        webhook: &Webhook,
        present: &BTreeMap<&str, BTreeSet<&str>>,
        losses: &mut BTreeSet<Loss>,
    ) {
        if webhook.thanked().is_none() {
            return;
        }
        let key = webhook.key.as_str();
        match self.books.ledger.get(key) {
            None => losses.insert(Loss::NotInLedger(key.to_owned())),
            Some(event) if !event.is_accepted() => losses.insert(Loss::NotSettled(key.to_owned())),
            Some(_) => false,
        };
        for (sink, has) in present {
            let named = || (key.to_owned(), (*sink).to_owned());
            if !has.contains(key) {
                let (key, sink) = named();
                losses.insert(Loss::NotInSink(key, sink));
            }
            let (of, to) = named();
            match self.owed.get(&(*sink, key)) {
                None => losses.insert(Loss::NotOwed(of, to)),
                Some(owed) if owed.state != "done" => {
                    losses.insert(Loss::NotDone(of, to, owed.state.clone()))
                }
                Some(_) => false,
            };
        }
    }

    fn forwarded(&self, webhook: &Webhook, blindly: bool, finding: &mut Finding) {
        let key = webhook.key.as_str();
        let handed = self.handed.get(key).map(Vec::as_slice).unwrap_or_default();
        let event = self.books.ledger.get(key);
        if let Some(thanked) = webhook.thanked() {
            if !handed.iter().any(|one| one.taken) {
                finding.losses.insert(Loss::NotAtBackend(key.to_owned()));
            }
            // Without a verdict only the settlement reports that the webhook came; the outcome is only in the settlement
            // anyway.
            let unclaimed = blindly && handed.iter().all(|one| one.unknown);
            let loss = match event {
                None if unclaimed => Some((Loss::NotInLedger(key.to_owned()), true)),
                None => Some((Loss::NotInLedger(key.to_owned()), false)),
                Some(event) if !event.is_accepted() => {
                    Some((Loss::NotSettled(key.to_owned()), true))
                }
                Some(_) => None,
            };
            let told_by = thanked.ended_ms.saturating_add(self.books.slack_ms);
            let mut kills = self.books.edge_killed_ms.iter();
            let died = kills.any(|at| (thanked.sent_ms..=told_by).contains(at));
            match loss {
                Some((_, true)) if died => finding.unsettled_by_kill += 1,
                Some((loss, _)) => {
                    finding.losses.insert(loss);
                }
                None => {}
            }
        }
        let committed =
            event.filter(|event| event.is_accepted()).and_then(|event| event.settled_ms);
        let counts_from = committed.map(|at| at.saturating_add(self.books.slack_ms));
        let mut before = 0;
        for one in handed {
            let call = webhook.calls.iter().find(|call| call.case == one.case);
            let late = call.zip(counts_from).is_some_and(|(call, from)| call.sent_ms > from);
            match (late, one.unknown && blindly) {
                (true, true) => finding.again_unknown += 1,
                (true, false) => {
                    let loss = Loss::TwiceAfterCommit(key.to_owned(), one.case.clone());
                    finding.losses.insert(loss);
                }
                (false, _) => before += usize::from(one.taken),
            }
        }
        finding.again_uncommitted += before.saturating_sub(1);
    }
}

impl Event {
    fn is_accepted(&self) -> bool {
        self.outcome.as_deref() == Some("accepted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "inbound:AC1:SM1";
    const TWO: &str = "inbound:AC1:SM2";
    const GONE: &str = "status:AC1:SM3:sent:";
    const SINKS: [(&str, &str); 2] = [("app", "all"), ("bus", "inbound/0")];

    fn call(case: &str, sent_ms: i64, status: Option<u16>) -> Call {
        Call { case: case.to_owned(), sent_ms, ended_ms: sent_ms + 10, status }
    }

    fn webhook(key: &str, delivery: Delivery) -> Webhook {
        let calls = vec![call("first", 1000, Some(503)), call("second", 1100, Some(200))];
        let (number, text) = ("+1415".to_owned(), key.to_owned());
        Webhook { key: key.to_owned(), number, text, delivery, calls }
    }

    fn arrival(key: &str) -> Arrival {
        Arrival { key: key.to_owned(), number: "+1415".to_owned(), text: key.to_owned() }
    }

    fn handed(case: &str, taken: bool, unknown: bool) -> Handed {
        Handed { key: GONE.to_owned(), case: case.to_owned(), taken, unknown }
    }

    /// Records without a violation: two accepted webhooks of one number, one forwarded.
    fn whole() -> Evidence {
        let mut books = Evidence { slack_ms: 500, ..Evidence::default() };
        books.webhooks = vec![
            webhook(ONE, Delivery::Accept),
            webhook(TWO, Delivery::Accept),
            webhook(GONE, Delivery::Forward { blindly: false }),
        ];
        for key in [ONE, TWO, GONE] {
            let event = Event { outcome: Some("accepted".to_owned()), settled_ms: Some(1105) };
            books.ledger.insert(key.to_owned(), event);
        }
        for (seq, key) in [(7, ONE), (9, TWO)] {
            for (sink, log) in SINKS {
                let state = "done".to_owned();
                books.owed.push(Owed { sink: sink.to_owned(), key: key.to_owned(), seq, state });
                let logs = books.sinks.entry(sink.to_owned()).or_default();
                logs.entry(log.to_owned()).or_default().push(arrival(key));
            }
        }
        books.handed = vec![handed("first", false, false), handed("second", true, false)];
        books
    }

    /// Returns the violations after `harm` changed the records.
    fn found(harm: impl FnOnce(&mut Evidence)) -> Vec<Loss> {
        let mut books = whole();
        harm(&mut books);
        audit(&books).losses.into_iter().collect()
    }

    fn log<'a>(books: &'a mut Evidence, sink: &str) -> &'a mut Vec<Arrival> {
        books.sinks.get_mut(sink).and_then(|logs| logs.values_mut().next()).unwrap()
    }

    #[test]
    fn of_whole_books_nothing_is_said() {
        let finding = audit(&whole());
        assert_eq!(finding.losses, BTreeSet::new());
        assert_eq!((finding.thanked, finding.again_uncommitted), (3, 0));
        assert_eq!(finding.again.values().sum::<usize>(), 0);
    }

    #[test]
    fn what_twilio_was_not_thanked_for_may_be_anywhere_or_nowhere() {
        let silence = |books: &mut Evidence| {
            for webhook in &mut books.webhooks {
                webhook.calls.truncate(1);
            }
        };
        assert_eq!(found(silence), []);
        let nowhere = |books: &mut Evidence| {
            silence(books);
            *books = Evidence { webhooks: books.webhooks.clone(), ..Evidence::default() };
        };
        assert_eq!(found(nowhere), []);
    }

    #[test]
    fn what_the_ledger_lacks_is_missed() {
        for key in [ONE, GONE] {
            let lost = found(|books| {
                books.ledger.remove(key);
            });
            assert_eq!(lost, [Loss::NotInLedger(key.to_owned())]);
            let lost = found(|books| {
                books.ledger.insert(key.to_owned(), Event::default());
            });
            assert_eq!(lost, [Loss::NotSettled(key.to_owned())]);
        }
    }

    #[test]
    fn what_a_sink_lacks_is_missed() {
        for (sink, _) in SINKS {
            let missing = Loss::NotInSink(TWO.to_owned(), sink.to_owned());
            let lost = found(|books| drop(log(books, sink).pop()));
            assert_eq!(lost, std::slice::from_ref(&missing));
            let never = found(|books| {
                log(books, sink).pop();
                books.owed.retain(|owed| (owed.key.as_str(), owed.sink.as_str()) != (TWO, sink));
            });
            assert_eq!(never, [Loss::NotOwed(TWO.to_owned(), sink.to_owned()), missing]);
        }
        // A completed delivery stays complete, whatever answer Twilio received.
        let unheard = found(|books| {
            books.webhooks[1].calls.clear();
            log(books, "bus").pop();
        });
        assert_eq!(unheard, [Loss::NotInSink(TWO.to_owned(), "bus".to_owned())]);
    }

    #[test]
    fn what_is_still_owed_is_told() {
        for state in ["waiting", "dead"] {
            let lost = found(|books| books.owed[3].state = state.to_owned());
            assert_eq!(lost, [Loss::NotDone(TWO.to_owned(), "bus".to_owned(), state.to_owned())]);
        }
    }

    #[test]
    fn what_was_changed_on_its_way_is_told() {
        let text = found(|books| log(books, "app")[0].text.push('!'));
        assert_eq!(text, [Loss::Changed(ONE.to_owned(), "app".to_owned())]);
        let number = found(|books| log(books, "bus")[1].number.clear());
        assert_eq!(number, [Loss::Changed(TWO.to_owned(), "bus".to_owned())]);
    }

    #[test]
    fn what_nobody_sent_is_told() {
        let strange = found(|books| log(books, "app").push(arrival("inbound:AC1:SM9")));
        assert_eq!(strange, [Loss::Invented("inbound:AC1:SM9".to_owned(), "app".to_owned())]);
        // A webhook for accept delivery is not forwarded.
        let at_backend = found(|books| books.handed[0].key = ONE.to_owned());
        assert_eq!(at_backend, [Loss::Invented(ONE.to_owned(), "the backend".to_owned())]);
    }

    #[test]
    fn a_number_in_two_partitions_is_told() {
        let lost = found(|books| {
            let moved = log(books, "bus").pop().unwrap();
            let logs = books.sinks.get_mut("bus").unwrap();
            logs.insert("inbound/1".to_owned(), vec![moved]);
        });
        assert_eq!(lost, [Loss::Scattered("+1415".to_owned(), "bus".to_owned())]);
    }

    #[test]
    fn the_order_of_first_deliveries_is_that_of_the_record() {
        let swapped = found(|books| log(books, "bus").reverse());
        let log_of = "bus inbound/0".to_owned();
        assert_eq!(swapped, [Loss::OutOfOrder(ONE.to_owned(), TWO.to_owned(), log_of)]);
        // Copies may come at any time, and another number has another order.
        assert_eq!(found(|books| log(books, "bus").push(arrival(ONE))), []);
        let others = found(|books| {
            books.webhooks[0].number = "+44".to_owned();
            for (sink, _) in SINKS {
                log(books, sink)[0].number = "+44".to_owned();
                log(books, sink).reverse();
            }
        });
        assert_eq!(others, []);
    }

    #[test]
    fn copies_in_a_sink_are_counted() {
        let mut books = whole();
        log(&mut books, "app").extend([arrival(ONE), arrival(TWO), arrival(TWO)]);
        assert_eq!(audit(&books).again["app"], 3);
    }

    #[test]
    fn what_the_backend_never_took_is_missed() {
        let lost = Loss::NotAtBackend(GONE.to_owned());
        let never = found(|books| books.handed.truncate(1));
        assert_eq!(never, std::slice::from_ref(&lost));
        assert_eq!(found(|books| books.handed[1].taken = false), [lost]);
    }

    #[test]
    fn twice_is_once_too_often_after_the_commit() {
        let again = |sent_ms, unknown, blindly| {
            let mut books = whole();
            books.webhooks[2].delivery = Delivery::Forward { blindly };
            books.webhooks[2].calls.push(call("third", sent_ms, Some(200)));
            books.handed.push(handed("third", true, unknown));
            audit(&books)
        };
        let loss = Loss::TwiceAfterCommit(GONE.to_owned(), "third".to_owned());
        assert!(again(1606, false, true).losses.contains(&loss));
        // A route that never forwards without a verdict never marks a request `unknown`.
        assert!(again(1606, true, false).losses.contains(&loss));
        let known = again(1606, true, true);
        assert_eq!((known.losses.len(), known.again_unknown), (0, 1));
        let before = again(1605, false, false);
        assert_eq!((before.losses.len(), before.again_uncommitted), (0, 1));
    }

    #[test]
    fn only_an_edge_that_died_just_then_excuses_the_ledger() {
        let died = |at_ms, unknown, blindly, event: Option<Event>| {
            let mut books = whole();
            books.edge_killed_ms = vec![at_ms];
            books.webhooks[2].delivery = Delivery::Forward { blindly };
            books.handed = vec![handed("second", true, unknown)];
            books.ledger.remove(GONE);
            books.ledger.extend(event.map(|event| (GONE.to_owned(), event)));
            let finding = audit(&books);
            (finding.losses.into_iter().collect::<Vec<_>>(), finding.unsettled_by_kill)
        };
        let missing = vec![Loss::NotInLedger(GONE.to_owned())];
        let unsettled = vec![Loss::NotSettled(GONE.to_owned())];
        assert_eq!(died(1200, false, false, Some(Event::default())), (vec![], 1));
        assert_eq!(died(1611, false, false, Some(Event::default())), (unsettled, 0));
        assert_eq!(died(1200, true, true, None), (vec![], 1));
        // It was claimed, so it is recorded before the answer.
        assert_eq!(died(1200, false, true, None), (missing, 0));
    }
}
