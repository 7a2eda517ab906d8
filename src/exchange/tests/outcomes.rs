//! Verdicts, responses and settlements.

use super::*;

#[test]
fn duplicate_is_answered_with_success_and_not_forwarded() {
    let mut case = Case::awaiting_verdict("/in");
    case.decide(Decision::Duplicate);
    let answer = case.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains(&("content-type", "text/xml".to_owned())));
    assert!(answer.body.ends_with("<Response/>"));
    assert!(!case.was_forwarded() && case.settlements().is_empty());
}

#[test]
fn copy_in_flight_is_claimed_again_until_it_is_settled() {
    let mut case = Case::awaiting_verdict("/in");
    case.decide(Decision::InFlight);
    case.after(0);
    assert_eq!(case.claims().len(), 1, "not at once");
    case.after(25);
    case.after(0);
    assert_eq!(case.claims().len(), 2, "once per pause");
    case.decide(Decision::Duplicate);
    assert_eq!(case.answer().unwrap().status, 200);

    let mut case = Case::awaiting_verdict("/in");
    case.decide(Decision::InFlight);
    case.after(1000);
    case.decide(Decision::InFlight);
    assert_eq!(case.reason(), Some("still-in-flight"), "after the wait");
}

#[test]
fn policy_decides_without_a_verdict() {
    for fail in [
        |case: &mut Case| case.apply(Event::NoVerdict),
        |case: &mut Case| case.decide(Decision::Unavailable),
        |case: &mut Case| case.decide(Decision::Released),
    ] {
        let mut case = Case::awaiting_verdict("/in");
        fail(&mut case);
        assert!(case.was_forwarded());
        assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
        case.apply(response(200, true));
        let (settlement, _) = case.settlements()[0];
        assert_eq!(settlement.outcome, Outcome::Commit);
        assert_eq!(settlement.unclaimed.as_ref().unwrap().form, BODY, "upstream when it is back");

        let mut case = Case::awaiting_verdict("/strict");
        fail(&mut case);
        assert_eq!(case.reason(), Some("sidecar-unavailable"));
        let (settlement, _) = case.settlements()[0];
        assert_eq!(settlement.outcome, Outcome::Release, "the claim may have arrived");
        assert!(
            settlement.unclaimed.is_some(),
            "a STOP takes effect although it was not delivered"
        );
    }
}

#[test]
fn webhooks_are_verified_and_forwarded_without_a_sidecar() {
    let mut case = Case::new(config(|json| json["sidecar"] = serde_json::Value::Null));
    case.apply(Event::Head(post("/strict", BODY)));
    case.apply(Event::Complete { body: BODY.as_bytes() });
    assert!(case.was_forwarded());
    assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT));
    assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
    case.apply(response(500, true));
    assert!(!case.exchange.holds_response());
}

#[test]
fn commit_requires_a_2xx_of_the_backend() {
    for status in [200, 204, 299] {
        let mut case = Case::forwarded("/in");
        case.apply(response(status, true));
        let settled = case.settlements();
        assert_eq!((settled[0].0.outcome, settled[0].1), (Outcome::Commit, false), "{status}");
        assert!(!case.exchange.holds_response(), "a commit costs no latency");
        assert!(settled[0].0.unclaimed.is_none());
    }
    let others = [301, 307, 400, 404, 408, 425, 429, 500, 503, 504];
    for (status, from_backend) in others.map(|s| (s, true)).into_iter().chain([(200, false)]) {
        let mut case = Case::forwarded("/in");
        case.apply(response(status, from_backend));
        let settled = case.settlements();
        assert_eq!((settled[0].0.outcome, settled[0].1), (Outcome::Release, true), "{status}");
        assert!(case.exchange.holds_response(), "a retry must not overtake the release");
        case.apply(Event::Settled);
        assert!(!case.exchange.holds_response() && case.effects.contains(&Effect::Respond));
    }
}

#[test]
fn unacknowledged_release_delays_the_response_by_250_ms() {
    let mut case = Case::forwarded("/in");
    case.apply(response(500, true));
    case.after(RELEASE_HOLD_MS - 1);
    assert!(case.exchange.holds_response());
    case.after(1);
    assert!(!case.exchange.holds_response() && case.effects.contains(&Effect::Respond));
}

#[test]
fn disconnected_client_releases_its_claim() {
    let mut case = Case::awaiting_verdict("/in");
    case.apply(Event::Ended);
    assert!(case.effects.contains(&Effect::Withdraw));
    assert_eq!(case.settlements()[0].0.outcome, Outcome::Release);
    assert!(case.settlements()[0].0.unclaimed.is_some());

    let mut case = Case::forwarded("/in");
    case.apply(Event::Ended);
    assert_eq!(case.settlements()[0].0.outcome, Outcome::Release);

    let mut case = Case::forwarded("/in");
    case.apply(response(200, true));
    case.apply(Event::Ended);
    assert_eq!(case.settlements().len(), 1, "the backend had answered: it stays committed");
}

#[test]
fn first_answer_is_saved_for_duplicates() {
    let twiml = b"<Response><Message>hi</Message></Response>";
    let answered = |content_type: &[u8], parts: &[&[u8]]| {
        let mut case = Case::forwarded("/in");
        case.apply(Event::Response(ResponseHead {
            status: 200,
            from_backend: true,
            content_type: Some(content_type.to_vec()),
            is_last: false,
        }));
        for (index, part) in parts.iter().enumerate() {
            case.apply(Event::ResponseBody { part, is_last: index + 1 == parts.len() });
        }
        assert!(!case.exchange.holds_response());
        case.apply(Event::Ended);
        let settled = case.settlements();
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].0.outcome, Outcome::Commit);
        settled[0].0.answer.clone()
    };
    let saved = answered(b"text/xml; charset=utf-8", &[&twiml[..9], &twiml[9..], b""]).unwrap();
    assert_eq!((saved.status, saved.body.as_bytes()), (200, &twiml[..]));
    assert_eq!(saved.content_type, "text/xml; charset=utf-8");
    for (content_type, parts) in [
        (&b"application/json"[..], &[&b"{}"[..]][..]),
        (b"text/xml", &[&[b'x'; MAX_SAVED_BYTES][..], b"x"]),
        (b"text/html", &[b"<!doctype html><html>Hello</html>"]),
        (b"text/html", &[b"<!-- a <Response> --><html/>"]),
        (b"text/html", &[b"<Responses/>"]),
        (b"text/xml", &[b"\xff\xfe"]),
        (b"text/xml\r\nx: y", &[b"<Response/>"]),
    ] {
        assert_eq!(answered(content_type, parts), None, "{content_type:?}");
    }

    for content_type in [
        "text/html; charset=UTF-8",
        "Text/HTML",
        "application/twiml+xml",
        "Application/TwiML+XML;charset=utf-8",
        "application/xml",
    ] {
        let saved = answered(content_type.as_bytes(), &[twiml, b""]).unwrap();
        assert_eq!(
            (saved.content_type.as_str(), saved.body.as_bytes()),
            (content_type, &twiml[..])
        );
    }
    let dressed = b"\xef\xbb\xbf\n<?xml version=\"1.0\"?>\n<!-- hi -->\n<Response/>";
    assert!(answered(b"text/html", &[dressed, b""]).is_some());

    let mut case = Case::awaiting_verdict("/in");
    let claim_id = case.claims()[0].claim_id.clone();
    case.apply(Event::Verdict(Verdict {
        answer: Some(saved.clone()),
        ..verdict(&claim_id, Decision::Duplicate)
    }));
    assert_eq!(case.answer().unwrap().body, saved.body);
}

#[test]
fn claim_and_settlement_name_the_url_of_the_step() {
    let mut case = Case::awaiting_verdict("/in?step=2");
    let claim = case.claims().remove(0);
    let digest = claim.url_digest.clone().unwrap();
    assert_ne!(Some(&digest), Case::awaiting_verdict("/in").claims()[0].url_digest.as_ref());
    case.apply(Event::Verdict(Verdict {
        step: Some(digest.clone()),
        ..verdict(&claim.claim_id, Decision::Proceed)
    }));
    case.apply(response(200, true));
    case.apply(Event::Ended);
    let settled = case.settlements();
    assert_eq!(settled[0].0.step, Some(digest.clone()));
    assert_eq!(settled[0].0.url_digest, Some(digest));
}

#[test]
fn answer_of_the_proxy_is_not_the_backends_answer() {
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/in", BODY)));
    case.apply(response(408, false));
    case.apply(Event::Complete { body: BODY.as_bytes() });
    assert!(case.claims().is_empty() && case.answer().is_none() && !case.was_forwarded());

    let mut case = Case::awaiting_verdict("/in");
    case.apply(response(504, false));
    case.decide(Decision::Proceed);
    assert!(!case.was_forwarded(), "a late verdict forwards nothing");
    assert_eq!(case.settlements()[0].0.outcome, Outcome::Release);
}

#[test]
fn unclaimed_possible_opt_out_is_held_until_it_is_acknowledged() {
    let stop = BODY.replace("zebra", "STOP");
    let unclaimed = |body: &str| {
        let mut case = Case::of(post("/in", body), body);
        case.apply(Event::NoVerdict);
        case.apply(Event::Response(ResponseHead {
            status: 200,
            from_backend: true,
            ..ResponseHead::default()
        }));
        case
    };
    let mut case = unclaimed(&stop);
    assert!(case.exchange.holds_response() && !case.effects.contains(&Effect::Respond));
    assert!(
        case.effects.iter().any(|effect| matches!(effect, Effect::Settle { urgent: true, .. }))
    );
    case.apply(Event::Settled);
    assert_eq!(case.effects.last(), Some(&Effect::Respond));
    let mut case = unclaimed(&stop);
    case.after(999);
    assert!(case.exchange.holds_response());
    case.after(1);
    assert!(!case.exchange.holds_response());
    assert!(case.effects.contains(&Effect::Count(Counter::OptOutUnacknowledged)));
    let question = BODY.replace("zebra", "Where+is+my+order");
    assert!(!unclaimed(&question).exchange.holds_response());
    let mut claimed = Case::of(post("/in", &stop), &stop);
    claimed.decide(Decision::Proceed);
    claimed.apply(Event::Response(ResponseHead {
        status: 200,
        from_backend: true,
        ..ResponseHead::default()
    }));
    assert!(!claimed.exchange.holds_response(), "the sidecar knows of it");
}
