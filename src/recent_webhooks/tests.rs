//! Tests of the memory of recent webhooks: which repeats it answers, and that it is bounded.

use proptest::prelude::*;
use twilio_edge_contract::UnclaimedWebhook;

use super::*;

fn claim(id: &str, sid: &str) -> Claim {
    let identity = Identity {
        class: Class::Inbound,
        account_sid: format!("AC{:032x}", 1),
        message_sid: format!("SM{sid:0>32}"),
        status: None,
        error_code: None,
    };
    Claim::new(id.to_owned(), identity, "/in".to_owned(), String::new())
}

fn settlement(claim: &Claim, outcome: Outcome, answer: Option<&str>) -> Settlement {
    Settlement {
        claim_id: claim.claim_id.clone(),
        identity: claim.identity.clone(),
        outcome,
        unclaimed: None,
        answer: answer.map(saved),
        url_digest: claim.url_digest.clone(),
        step: None,
    }
}

fn saved(body: &str) -> SavedAnswer {
    SavedAnswer { status: 200, content_type: "text/xml".to_owned(), body: body.to_owned() }
}

fn number(claim: &Claim) -> u32 {
    claim.claim_id.parse().unwrap()
}

fn verdict(recent: &mut RecentWebhooks, claim: &Claim) -> Option<Verdict> {
    match recent.check(number(claim), claim) {
        RepeatCheck::New(_) => None,
        RepeatCheck::Repeat(verdict) => Some(*verdict),
    }
}

fn decision(recent: &mut RecentWebhooks, claim: &Claim) -> Option<Decision> {
    verdict(recent, claim).map(|verdict| verdict.decision)
}

fn settle(recent: &mut RecentWebhooks, claim: &Claim, outcome: Outcome, answer: Option<&str>) {
    recent.record_settlement(number(claim), &settlement(claim, outcome, answer), false);
}

#[test]
fn repeat_waits_for_its_first_copy_and_gets_its_answer() {
    let (first, second) = (claim("1", "1"), claim("2", "1"));
    let mut recent = RecentWebhooks::default();
    assert_eq!(decision(&mut recent, &first), None);
    assert_eq!(decision(&mut recent, &first), None, "the same request claims again");
    assert_eq!(decision(&mut recent, &second), Some(Decision::InFlight));
    assert_eq!(decision(&mut recent, &claim("3", "2")), None, "another message");
    settle(&mut recent, &first, Outcome::Commit, Some("<Response/>"));
    let verdict = verdict(&mut recent, &second).unwrap();
    assert_eq!(
        (verdict.decision, verdict.answer, verdict.claim_id.as_str()),
        (Decision::Duplicate, Some(saved("<Response/>")), "2")
    );
}

#[test]
fn repeat_of_a_released_webhook_is_claimed() {
    let (first, second) = (claim("1", "1"), claim("2", "1"));
    let mut recent = RecentWebhooks::default();
    decision(&mut recent, &first);
    settle(&mut recent, &second, Outcome::Release, None);
    assert_eq!(decision(&mut recent, &second), Some(Decision::InFlight), "not its release");
    settle(&mut recent, &first, Outcome::Release, None);
    assert_eq!(decision(&mut recent, &second), None);
    assert_eq!(decision(&mut recent, &first), Some(Decision::InFlight));
}

#[test]
fn possible_opt_out_without_a_verdict_is_claimed_again() {
    for (is_urgent, expected) in [(true, None), (false, Some(Decision::Duplicate))] {
        let first = claim("1", "1");
        let mut recent = RecentWebhooks::default();
        decision(&mut recent, &first);
        let unclaimed = Some(UnclaimedWebhook {
            route: "/in".to_owned(),
            form: "Body=STOP".to_owned(),
            envelope: first.envelope.clone(),
        });
        let settlement = Settlement { unclaimed, ..settlement(&first, Outcome::Commit, None) };
        recent.record_settlement(1, &settlement, is_urgent);
        assert_eq!(decision(&mut recent, &claim("2", "1")), expected, "urgent: {is_urgent}");
    }
}

#[test]
fn redirect_is_not_repeated_from_memory() {
    let first = claim("1", "1");
    let mut recent = RecentWebhooks::default();
    let redirect = "<Response><Redirect>/b</Redirect></Response>";
    settle(&mut recent, &first, Outcome::Commit, Some(redirect));
    assert_eq!(decision(&mut recent, &claim("2", "1")), None);
    let elsewhere = Claim { url_digest: Some("0".repeat(16)), ..claim("3", "1") };
    assert_eq!(decision(&mut recent, &elsewhere), None, "a later step of the message");
}

#[test]
fn verdict_of_the_sidecar_is_remembered_if_it_is_final() {
    let first = claim("1", "1");
    let key = RepeatKey::new(&first.identity, None);
    for (given, expected) in [
        (Some(Decision::Proceed), Some(Decision::InFlight)),
        (Some(Decision::Duplicate), Some(Decision::Duplicate)),
        (Some(Decision::Accepted), Some(Decision::Duplicate)),
        (Some(Decision::InFlight), None),
        (Some(Decision::Released), None),
        (Some(Decision::Unavailable), None),
        (None, None),
    ] {
        let mut recent = RecentWebhooks::default();
        decision(&mut recent, &first);
        let verdict = given.map(|decision| Verdict::new("1".to_owned(), decision));
        recent.record_verdict(key.as_ref(), 1, verdict.as_ref());
        assert_eq!(decision(&mut recent, &claim("2", "1")), expected, "{given:?}");
    }
}

#[test]
fn repeat_of_a_keyword_has_its_keyword() {
    let first = claim("1", "1");
    let key = RepeatKey::new(&first.identity, None);
    for given in [Decision::Accepted, Decision::Duplicate] {
        let mut recent = RecentWebhooks::default();
        decision(&mut recent, &first);
        let verdict = Verdict { opt: Some(Opt::Stop), ..Verdict::new("1".to_owned(), given) };
        recent.record_verdict(key.as_ref(), 1, Some(&verdict));
        let RepeatCheck::Repeat(repeat) = recent.check(2, &claim("2", "1")) else {
            panic!("{given:?} is not remembered")
        };
        assert_eq!((repeat.decision, repeat.opt), (Decision::Duplicate, Some(Opt::Stop)));
    }
}

/// Identities that differ in one part are different webhooks, and so are those with parts of an unknown form.
#[test]
fn every_part_of_an_identity_counts() {
    let identity = |edit: fn(&mut Identity)| {
        let mut identity = Identity {
            class: Class::Status,
            status: Some("failed".to_owned()),
            error_code: Some("30003".to_owned()),
            ..claim("1", "1").identity
        };
        edit(&mut identity);
        RepeatKey::new(&identity, Some("0123456789abcdef"))
    };
    let key = identity(|_| ());
    assert!(key.is_some());
    let others: [fn(&mut Identity); 6] = [
        |it| it.class = Class::Inbound,
        |it| it.account_sid = format!("AC{:032x}", 2),
        |it| it.message_sid = it.message_sid.replace("SM", "MM"),
        |it| it.status = Some("undelivered".to_owned()),
        |it| it.error_code = Some("30004".to_owned()),
        |it| it.error_code = None,
    ];
    for edit in others {
        assert_ne!(identity(edit), key);
    }
    let unknown: [fn(&mut Identity); 4] = [
        |it| it.account_sid = "AC1".to_owned(),
        |it| it.message_sid = it.message_sid.replace('1', "F"),
        |it| it.error_code = Some("030003".to_owned()),
        |it| it.error_code = Some("-".to_owned()),
    ];
    for edit in unknown {
        assert_eq!(identity(edit), None);
    }
    let plain = identity(|_| ()).unwrap();
    assert_ne!(RepeatKey { url_digest: None, ..plain.clone() }, plain);
}

#[test]
fn webhook_is_forgotten_after_its_life() {
    let first = claim("1", "1");
    let mut recent = RecentWebhooks::default();
    settle(&mut recent, &claim("0", "0"), Outcome::Commit, None);
    recent.record_time(1_000);
    assert_eq!(decision(&mut recent, &claim("9", "0")), Some(Decision::Duplicate));
    settle(&mut recent, &first, Outcome::Commit, None);
    recent.record_time(999 + LIFE_MS);
    assert_eq!(decision(&mut recent, &claim("2", "1")), Some(Decision::Duplicate));
    recent.record_time(1_000 + LIFE_MS);
    assert_eq!(decision(&mut recent, &claim("3", "1")), None);
}

proptest! {
    /// Memory is bounded, and consistent after any sequence of claims and settlements.
    #[test]
    fn memory_is_bounded(
        events in prop::collection::vec((0..40_u32, 0..4_u8, 0..3000_usize), 0..300),
    ) {
        let mut recent = RecentWebhooks::default();
        for (at, (sid, kind, bytes)) in events.into_iter().enumerate() {
            let claim = claim(&at.to_string(), &sid.to_string());
            match kind {
                0 => drop(decision(&mut recent, &claim)),
                1 => settle(&mut recent, &claim, Outcome::Release, None),
                2 => recent.record_time((at as u64) * 2_000),
                _ => {
                    let answer = "x".repeat(bytes);
                    settle(&mut recent, &claim, Outcome::Commit, Some(&answer));
                }
            }
            let bytes: usize = recent.webhooks.values().map(|entry| entry.state.answer_bytes()).sum();
            prop_assert_eq!(bytes, recent.answer_bytes);
            prop_assert!(recent.answer_bytes <= MAX_ANSWER_BYTES);
            prop_assert!(recent.webhooks.len() <= recent.order.len());
            prop_assert!(recent.order.len() <= MAX_WEBHOOKS);
        }
    }
}
