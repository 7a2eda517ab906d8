//! Properties of every sequence of events.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Head(u8),
    Body(usize),
    Complete(bool),
    Decide(u8, bool),
    NoVerdict,
    Response(u16, bool),
    ResponseBody(usize, bool),
    Settled,
    Tick(u64),
    Gone,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (0u8..7).prop_map(Action::Head),
        1 => (0usize..3000).prop_map(Action::Body),
        3 => any::<bool>().prop_map(Action::Complete),
        3 => (0u8..6, any::<bool>()).prop_map(|(decision, ours)| Action::Decide(decision, ours)),
        1 => Just(Action::NoVerdict),
        2 => (prop_oneof![Just(200u16), Just(500), 100u16..600], any::<bool>())
            .prop_map(|(status, backend)| Action::Response(status, backend)),
        2 => (0usize..5000, any::<bool>()).prop_map(|(bytes, is_last)| Action::ResponseBody(bytes, is_last)),
        1 => Just(Action::Settled),
        2 => (0u64..6000).prop_map(Action::Tick),
        1 => Just(Action::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Properties of every sequence of events: nothing reaches the backend unproven or before a verdict, the client gets at
    /// most one answer of the filter, nothing is resumed twice, and a lease is settled exactly once by the end.
    #[test]
    fn sequence_of_any_events_keeps_the_laws(acts in proptest::collection::vec(action(), 0..24)) {
        let mut case = Case::new(config(|_| {}));
        let (mut proceeded, mut shadowed) = (false, false);
        let (mut unclaimed_forward, mut guarded, mut complete) = (false, false, false);
        for act in acts.into_iter().chain([Action::Gone, Action::Gone]) {
            let before = case.effects.len();
            match &act {
                Action::Head(kind) => {
                    let target = ["/in", "/strict", "/status", "/elsewhere", "/other", "/shadow", "/off"][usize::from(*kind)];
                    case.apply(Event::Head(post(target, BODY)));
                }
                Action::Body(received) => case.apply(Event::Body { received: *received }),
                Action::Complete(whole) => {
                    case.apply(Event::Complete { body: if *whole { BODY.as_bytes() } else { b"x" } });
                }
                Action::Decide(which, ours) => {
                    let decision = [
                        Decision::Proceed, Decision::Duplicate, Decision::InFlight,
                        Decision::Released, Decision::Unavailable, Decision::Accepted,
                    ][usize::from(*which)];
                    let claim_id = if *ours { "000000000000000a00000007" } else { "another" };
                    case.apply(Event::Verdict(verdict(claim_id, decision)));
                    let is_shadow = case.claims().last().is_some_and(|claim| claim.route == "/shadow");
                    let copy = matches!(decision, Decision::Duplicate | Decision::InFlight);
                    proceeded |= *ours && decision == Decision::Proceed;
                    shadowed |= *ours && copy && is_shadow;
                }
                Action::NoVerdict => case.apply(Event::NoVerdict),
                Action::Response(status, from_backend) => {
                    let content_type = (status % 2 == 0).then(|| b"text/xml".to_vec());
                    case.apply(Event::Response(ResponseHead {
                        status: *status,
                        from_backend: *from_backend,
                        content_type,
                        is_last: status % 3 == 0,
                    }));
                }
                Action::ResponseBody(bytes, is_last) => {
                    case.apply(Event::ResponseBody { part: &vec![b'x'; *bytes], is_last: *is_last });
                }
                Action::Settled => case.apply(Event::Settled),
                Action::Tick(ms) => {
                    case.after(*ms);
                }
                Action::Gone => case.apply(Event::Ended),
            }
            guarded |= case.effects.contains(&Effect::Count(Counter::Webhook));
            complete |= case.effects.contains(&Effect::Count(Counter::Verified));
            unclaimed_forward |= case.effects.contains(&Effect::Count(Counter::NoVerdict));
            let new = &case.effects[before..];
            if new.contains(&Effect::Forward) {
                let gave_up = case.effects.contains(&Effect::Count(Counter::Shadowed(Reason::NoBody)));
                shadowed |= gave_up;
                prop_assert!(gave_up || complete && (proceeded || shadowed || unclaimed_forward), "{act:?} {:?}", case.effects);
            }
            if guarded && !complete {
                prop_assert!(case.header(headers::VERIFIED).is_none());
            }
        }
        let count = |wanted: fn(&Effect) -> bool| case.effects.iter().filter(|e| wanted(e)).count();
        let answers = count(|effect| matches!(effect, Effect::Answer(_)));
        let forwards = count(|effect| matches!(effect, Effect::Forward));
        prop_assert!(answers + forwards <= 1, "{:?}", case.effects);
        prop_assert!(count(|effect| matches!(effect, Effect::Respond)) <= 1);
        prop_assert!(case.settlements().len() <= 1);
        if forwards == 1 && !shadowed {
            prop_assert_eq!(case.settlements().len(), 1, "a forwarded claim is settled: {:?}", case.effects);
        }
        prop_assert!(!case.exchange.waits() && !case.exchange.holds_response());
    }
}
