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

fn backend_requests(case: &str, is_accepted: bool, unknown: bool) -> BackendRequest {
    BackendRequest { key: GONE.to_owned(), case: case.to_owned(), is_accepted, unknown }
}

/// Records without a violation: two accepted webhooks of one number, one forwarded.
fn complete() -> Evidence {
    let mut evidence = Evidence { slack_ms: 500, ..Evidence::default() };
    evidence.webhooks = vec![
        webhook(ONE, Delivery::Accept),
        webhook(TWO, Delivery::Accept),
        webhook(GONE, Delivery::Forward { without_verdict: false }),
    ];
    for key in [ONE, TWO, GONE] {
        let event = Event { outcome: Some("accepted".to_owned()), settled_ms: Some(1105) };
        evidence.ledger.insert(key.to_owned(), event);
    }
    for (seq, key) in [(7, ONE), (9, TWO)] {
        for (sink, log) in SINKS {
            let state = "done".to_owned();
            evidence.outbox.push(OutboxRow {
                sink: sink.to_owned(),
                key: key.to_owned(),
                seq,
                state,
            });
            let logs = evidence.sinks.entry(sink.to_owned()).or_default();
            logs.entry(log.to_owned()).or_default().push(arrival(key));
        }
    }
    evidence.backend_requests =
        vec![backend_requests("first", false, false), backend_requests("second", true, false)];
    evidence
}

/// Returns the violations after `harm` changed the records.
fn found(harm: impl FnOnce(&mut Evidence)) -> Vec<Loss> {
    let mut evidence = complete();
    harm(&mut evidence);
    audit(&evidence).losses.into_iter().collect()
}

fn log<'a>(evidence: &'a mut Evidence, sink: &str) -> &'a mut Vec<Arrival> {
    evidence.sinks.get_mut(sink).and_then(|logs| logs.values_mut().next()).unwrap()
}

#[test]
fn complete_records_have_no_violation() {
    let finding = audit(&complete());
    assert_eq!(finding.losses, BTreeSet::new());
    assert_eq!((finding.answered, finding.repeated_before_commit), (3, 0));
    assert_eq!(finding.repeated.values().sum::<usize>(), 0);
}

#[test]
fn unanswered_webhook_may_be_missing_everywhere() {
    let silence = |evidence: &mut Evidence| {
        for webhook in &mut evidence.webhooks {
            webhook.calls.truncate(1);
        }
    };
    assert_eq!(found(silence), []);
    let nowhere = |evidence: &mut Evidence| {
        silence(evidence);
        *evidence = Evidence { webhooks: evidence.webhooks.clone(), ..Evidence::default() };
    };
    assert_eq!(found(nowhere), []);
}

#[test]
fn missing_ledger_event_is_reported() {
    for key in [ONE, GONE] {
        let lost = found(|evidence| {
            evidence.ledger.remove(key);
        });
        assert_eq!(lost, [Loss::NotInLedger(key.to_owned())]);
        let lost = found(|evidence| {
            evidence.ledger.insert(key.to_owned(), Event::default());
        });
        assert_eq!(lost, [Loss::NotSettled(key.to_owned())]);
    }
}

#[test]
fn missing_event_in_a_sink_is_reported() {
    for (sink, _) in SINKS {
        let missing = Loss::NotInSink(TWO.to_owned(), sink.to_owned());
        let lost = found(|evidence| drop(log(evidence, sink).pop()));
        assert_eq!(lost, std::slice::from_ref(&missing));
        let never = found(|evidence| {
            log(evidence, sink).pop();
            evidence
                .outbox
                .retain(|outbox| (outbox.key.as_str(), outbox.sink.as_str()) != (TWO, sink));
        });
        assert_eq!(never, [Loss::NotInOutbox(TWO.to_owned(), sink.to_owned()), missing]);
    }
    // A completed delivery stays complete, with any answer to Twilio.
    let unheard = found(|evidence| {
        evidence.webhooks[1].calls.clear();
        log(evidence, "bus").pop();
    });
    assert_eq!(unheard, [Loss::NotInSink(TWO.to_owned(), "bus".to_owned())]);
}

#[test]
fn unfinished_delivery_is_reported() {
    for state in ["waiting", "dead"] {
        let lost = found(|evidence| evidence.outbox[3].state = state.to_owned());
        assert_eq!(lost, [Loss::NotDone(TWO.to_owned(), "bus".to_owned(), state.to_owned())]);
    }
}

#[test]
fn changed_event_is_reported() {
    let text = found(|evidence| log(evidence, "app")[0].text.push('!'));
    assert_eq!(text, [Loss::Changed(ONE.to_owned(), "app".to_owned())]);
    let number = found(|evidence| log(evidence, "bus")[1].number.clear());
    assert_eq!(number, [Loss::Changed(TWO.to_owned(), "bus".to_owned())]);
}

#[test]
fn event_that_was_never_sent_is_reported() {
    let strange = found(|evidence| log(evidence, "app").push(arrival("inbound:AC1:SM9")));
    assert_eq!(strange, [Loss::NeverSent("inbound:AC1:SM9".to_owned(), "app".to_owned())]);
    // A webhook for accept delivery is not forwarded.
    let at_backend = found(|evidence| evidence.backend_requests[0].key = ONE.to_owned());
    assert_eq!(at_backend, [Loss::NeverSent(ONE.to_owned(), "the backend".to_owned())]);
}

#[test]
fn number_in_two_partitions_is_reported() {
    let lost = found(|evidence| {
        let moved = log(evidence, "bus").pop().unwrap();
        let logs = evidence.sinks.get_mut("bus").unwrap();
        logs.insert("inbound/1".to_owned(), vec![moved]);
    });
    assert_eq!(lost, [Loss::Scattered("+1415".to_owned(), "bus".to_owned())]);
}

#[test]
fn first_deliveries_follow_the_recorded_order() {
    let swapped = found(|evidence| log(evidence, "bus").reverse());
    let log_of = "bus inbound/0".to_owned();
    assert_eq!(swapped, [Loss::OutOfOrder(ONE.to_owned(), TWO.to_owned(), log_of)]);
    // Copies may come at any time, and another number has another order.
    assert_eq!(found(|evidence| log(evidence, "bus").push(arrival(ONE))), []);
    let others = found(|evidence| {
        evidence.webhooks[0].number = "+44".to_owned();
        for (sink, _) in SINKS {
            log(evidence, sink)[0].number = "+44".to_owned();
            log(evidence, sink).reverse();
        }
    });
    assert_eq!(others, []);
}

#[test]
fn copies_in_a_sink_are_counted() {
    let mut evidence = complete();
    log(&mut evidence, "app").extend([arrival(ONE), arrival(TWO), arrival(TWO)]);
    assert_eq!(audit(&evidence).repeated["app"], 3);
}

#[test]
fn webhook_that_the_backend_never_accepted_is_reported() {
    let lost = Loss::NotAtBackend(GONE.to_owned());
    let never = found(|evidence| evidence.backend_requests.truncate(1));
    assert_eq!(never, std::slice::from_ref(&lost));
    assert_eq!(found(|evidence| evidence.backend_requests[1].is_accepted = false), [lost]);
}

#[test]
fn twice_is_once_too_often_after_the_commit() {
    let repeated = |sent_ms, unknown, without_verdict| {
        let mut evidence = complete();
        evidence.webhooks[2].delivery = Delivery::Forward { without_verdict };
        evidence.webhooks[2].calls.push(call("third", sent_ms, Some(200)));
        evidence.backend_requests.push(backend_requests("third", true, unknown));
        audit(&evidence)
    };
    let loss = Loss::TwiceAfterCommit(GONE.to_owned(), "third".to_owned());
    assert!(repeated(1606, false, true).losses.contains(&loss));
    // A route that never forwards without a verdict never marks a request `unknown`.
    assert!(repeated(1606, true, false).losses.contains(&loss));
    let known = repeated(1606, true, true);
    assert_eq!((known.losses.len(), known.repeated_unknown), (0, 1));
    let before = repeated(1605, false, false);
    assert_eq!((before.losses.len(), before.repeated_before_commit), (0, 1));
}

#[test]
fn missing_settlement_is_excused_only_by_a_kill_of_its_envoy() {
    let died = |at_ms, unknown, without_verdict, event: Option<Event>| {
        let mut evidence = complete();
        evidence.edge_killed_ms = vec![at_ms];
        evidence.webhooks[2].delivery = Delivery::Forward { without_verdict };
        evidence.backend_requests = vec![backend_requests("second", true, unknown)];
        evidence.ledger.remove(GONE);
        evidence.ledger.extend(event.map(|event| (GONE.to_owned(), event)));
        let finding = audit(&evidence);
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
