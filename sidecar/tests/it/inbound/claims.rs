//! Claims and settlements, as a filter relies on them. Every test runs with SQLite and PostgreSQL, each with and without Redis.

use std::time::Duration;

use twilio_edge_contract::{Decision, Opt, Outcome, SettlementResult};

use crate::{
    support::servers::eventually,
    support::sidecar::{inbound, message, settlement, status, twiml, unclaimed},
    support::world::{Kind, World, on_every_shared_store, on_every_store},
};

const ALICE: &str = "whatsapp:+15551230001";

on_every_store!(
    webhook_goes_to_the_backend_once,
    first_answer_stays,
    webhook_that_the_backend_refused_is_delivered_again,
    release_that_arrives_before_its_claim_is_stored_for_it,
    every_verb_may_be_sent_twice,
    unsettled_lease_expires,
    batch_is_answered_claim_by_claim,
    statuses_of_one_message_are_different_webhooks,
    result_is_forgotten_after_its_time_to_live,
    stop_is_stored_before_it_is_answered,
    start_lifts_the_suppression_and_help_changes_nothing,
    old_stop_that_is_retried_does_not_undo_a_later_start,
    batch_applies_its_last_keyword,
    suppression_holds_for_one_account_channel_and_number,
    window_lasts_a_day_from_the_first_receipt,
    webhook_forwarded_without_a_verdict_is_recorded_when_it_is_settled,
    start_during_an_outage_does_not_undo_a_stop,
    ledger_has_every_webhook_with_its_outcome,
    unwritten_events_survive_a_shutdown,
    restart_forgets_nothing,
);
on_every_shared_store!(sidecars_on_the_same_stores_see_each_others_stop);

async fn webhook_goes_to_the_backend_once(world: World) {
    let sidecar = world.sidecar().await;
    let first = sidecar.claim(message("c1", "SM1")).await;
    assert_eq!((first.decision, first.attempt), (Decision::Proceed, Some(1)));
    assert_eq!(sidecar.decide(message("c2", "SM1")).await, Decision::InFlight);

    let answer = twiml("<Response><Message>Hi — \u{1f44b}\0</Message></Response>");
    let commit = settlement(&message("c1", "SM1"), Outcome::Commit);
    let commit = twilio_edge_contract::Settlement { answer: Some(answer.clone()), ..commit };
    assert_eq!(sidecar.settle(commit).await, SettlementResult::Settled);
    for claim_id in ["c2", "c3", "c1"] {
        let verdict = sidecar.claim(message(claim_id, "SM1")).await;
        assert_eq!(verdict.decision, Decision::Duplicate);
        assert_eq!(verdict.answer.as_ref(), Some(&answer), "the answer of the first try");
    }
}

/// A copy that was forwarded without a verdict is settled after the first was accepted.
async fn first_answer_stays(world: World) {
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    for (claim, text) in [("c1", "first"), ("c2", "second"), ("c3", "third")] {
        let answer = Some(twiml(&format!("<Response><Message>{text}</Message></Response>")));
        let settlement = unclaimed(&message(claim, "SM1"), Outcome::Commit);
        let settlement = twilio_edge_contract::Settlement { answer, ..settlement };
        assert_eq!(sidecar.settle(settlement).await, SettlementResult::Settled);
    }
    let first = twiml("<Response><Message>first</Message></Response>");
    assert_eq!(sidecar.claim(message("c4", "SM1")).await.answer, Some(first));
}

pub(crate) async fn webhook_that_the_backend_refused_is_delivered_again(world: World) {
    let sidecar = world.sidecar().await;
    for (attempt, claim_id) in (1..).zip(["c1", "c2", "c3"]) {
        let verdict = sidecar.claim(message(claim_id, "SM1")).await;
        assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(attempt)));
        let released = sidecar.release(&message(claim_id, "SM1")).await;
        assert_eq!(released, SettlementResult::Settled);
        assert_eq!(sidecar.decide(message(claim_id, "SM1")).await, Decision::Released);
    }
    assert_eq!(sidecar.decide(message("c4", "SM1")).await, Decision::Proceed);
    assert_eq!(sidecar.commit(&message("c4", "SM1")).await, SettlementResult::Settled);
    assert_eq!(sidecar.decide(message("c5", "SM1")).await, Decision::Duplicate);
}

async fn release_that_arrives_before_its_claim_is_stored_for_it(world: World) {
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.release(&message("c1", "SM1")).await, SettlementResult::Tombstoned);
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Released);

    // The stored release applies to its own claim only, and ends no lease of another claim.
    let second = sidecar.claim(message("c2", "SM1")).await;
    assert_eq!((second.decision, second.attempt), (Decision::Proceed, Some(1)));
    assert_eq!(sidecar.release(&message("c3", "SM1")).await, SettlementResult::Tombstoned);
    assert_eq!(sidecar.decide(message("c4", "SM1")).await, Decision::InFlight);
    assert_eq!(sidecar.decide(message("c3", "SM1")).await, Decision::Released);

    // A late release does not undo a commit.
    assert_eq!(sidecar.commit(&message("c2", "SM1")).await, SettlementResult::Settled);
    assert_eq!(sidecar.release(&message("c5", "SM1")).await, SettlementResult::Superseded);
    assert_eq!(sidecar.decide(message("c6", "SM1")).await, Decision::Duplicate);
}

async fn every_verb_may_be_sent_twice(world: World) {
    let sidecar = world.sidecar().await;
    for _ in 0..2 {
        let verdict = sidecar.claim(message("c1", "SM1")).await;
        assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(1)));
    }
    for _ in 0..2 {
        assert_eq!(sidecar.release(&message("c1", "SM1")).await, SettlementResult::Settled);
    }
    for _ in 0..2 {
        assert_eq!(sidecar.release(&message("c0", "SM1")).await, SettlementResult::Tombstoned);
    }
    let verdict = sidecar.claim(message("c2", "SM1")).await;
    assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(2)));
    for _ in 0..2 {
        assert_eq!(sidecar.commit(&message("c2", "SM1")).await, SettlementResult::Settled);
    }
}

async fn unsettled_lease_expires(world: World) {
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_LEASES_PERIOD_MS", "1500")]).await;
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    assert_eq!(sidecar.decide(message("c2", "SM1")).await, Decision::InFlight);
    eventually("the lease ends", || async {
        let verdict = sidecar.claim(message("c2", "SM1")).await;
        match verdict.decision {
            Decision::InFlight => false,
            decision => {
                assert_eq!((decision, verdict.attempt), (Decision::Proceed, Some(2)));
                true
            }
        }
    })
    .await;
    // It is the second claim's now: the first cannot give it back, but the backend may have accepted it all the same.
    assert_eq!(sidecar.release(&message("c1", "SM1")).await, SettlementResult::Superseded);
    assert_eq!(sidecar.decide(message("c3", "SM1")).await, Decision::InFlight);
    assert_eq!(sidecar.commit(&message("c1", "SM1")).await, SettlementResult::Settled);
    assert_eq!(sidecar.decide(message("c3", "SM1")).await, Decision::Duplicate);
    assert_eq!(sidecar.release(&message("c2", "SM1")).await, SettlementResult::Superseded);
    assert_eq!(sidecar.decide(message("c4", "SM1")).await, Decision::Duplicate);
}

async fn batch_is_answered_claim_by_claim(world: World) {
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.decide(message("done", "SM1")).await, Decision::Proceed);
    sidecar.commit(&message("done", "SM1")).await;
    sidecar.release(&message("gone", "SM2")).await;

    let batch = vec![
        message("c1", "SM3"),
        message("c2", "SM1"),
        message("c3", "SM3"),
        status("c4", "SM3", "sent"),
        message("gone", "SM2"),
        message("c1", "SM3"),
        message("c5", "SM2"),
    ];
    let decisions: Vec<_> = sidecar
        .claim_all(batch)
        .await
        .into_iter()
        .map(|verdict| (verdict.decision, verdict.attempt))
        .collect();
    let expected = [
        (Decision::Proceed, Some(1)),
        (Decision::Duplicate, None),
        (Decision::InFlight, None),
        (Decision::Proceed, Some(1)),
        (Decision::Released, None),
        (Decision::Proceed, Some(1)),
        (Decision::Proceed, Some(1)),
    ];
    assert_eq!(decisions, expected);

    let results = sidecar
        .settle_all(vec![
            settlement(&message("c1", "SM3"), Outcome::Release),
            settlement(&message("c5", "SM2"), Outcome::Commit),
            settlement(&message("c1", "SM3"), Outcome::Release),
            settlement(&message("c9", "SM9"), Outcome::Release),
        ])
        .await;
    let settled = SettlementResult::Settled;
    assert_eq!(results, [settled, settled, settled, SettlementResult::Tombstoned]);
}

async fn statuses_of_one_message_are_different_webhooks(world: World) {
    let sidecar = world.sidecar().await;
    for name in ["sent", "delivered", "read"] {
        let claim = status(name, "SM1", name);
        let verdict = sidecar.claim(claim.clone()).await;
        assert_eq!(verdict.decision, Decision::Proceed, "{name}");
        assert_eq!((verdict.opt, verdict.suppressed, verdict.window_expires), (None, false, None));
        sidecar.commit(&claim).await;
    }
    assert_eq!(sidecar.decide(status("again", "SM1", "delivered")).await, Decision::Duplicate);
}

async fn result_is_forgotten_after_its_time_to_live(world: World) {
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_LEASES_RESULT_TTL_S", "2")]).await;
    assert_eq!(sidecar.decide(message("c1", "SM1")).await, Decision::Proceed);
    sidecar.commit(&message("c1", "SM1")).await;
    assert_eq!(sidecar.decide(message("c2", "SM1")).await, Decision::Duplicate);
    eventually("the result is forgotten", || async {
        let verdict = sidecar.claim(message("c2", "SM1")).await;
        verdict.decision == Decision::Proceed && verdict.attempt == Some(1)
    })
    .await;
}

async fn stop_is_stored_before_it_is_answered(world: World) {
    let sidecar = world.sidecar().await;
    let verdict = sidecar.claim(inbound("c1", "SM1", ALICE, "Stop")).await;
    assert_eq!(verdict.decision, Decision::Proceed);
    assert_eq!((verdict.opt, verdict.suppressed), (Some(Opt::Stop), true));
    sidecar.kill();

    let rows = "SELECT number || ' ' || message_sid FROM suppressions";
    assert_eq!(world.stored(rows).await, ["+15551230001 SM1"]);
    let audit = "SELECT opt || ' ' || cause || ' ' || route FROM opt_events";
    assert_eq!(world.stored(audit).await, ["stop keyword /twilio/inbound"]);
    let sidecar = world.sidecar().await;
    let verdict = sidecar.claim(inbound("c2", "SM2", ALICE, "hello?")).await;
    assert_eq!((verdict.opt, verdict.suppressed), (None, true));
}

async fn start_lifts_the_suppression_and_help_changes_nothing(world: World) {
    let sidecar = world.sidecar().await;
    for (sid, body, opt, suppressed) in [
        ("SM1", "HELP", Some(Opt::Help), false),
        ("SM2", "UNSUBSCRIBE", Some(Opt::Stop), true),
        ("SM3", "help", Some(Opt::Help), true),
        ("SM4", "what?", None, true),
        ("SM5", "unstop", Some(Opt::Start), false),
        ("SM6", "thanks", None, false),
    ] {
        let verdict = sidecar.claim(inbound(sid, sid, ALICE, body)).await;
        assert_eq!((verdict.opt, verdict.suppressed), (opt, suppressed), "{body}");
    }
    let log = sidecar.stop();
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines("recorded a suppression"), lines("lifted a suppression")), (1, 1), "{log}");
    assert!(log.contains("webhook.sid=SM2") && log.contains("whatsapp:..01"), "{log}");
    assert!(!log.contains("15551230001") && !log.contains("UNSUBSCRIBE"), "{log}");
}

async fn old_stop_that_is_retried_does_not_undo_a_later_start(world: World) {
    let sidecar = world.sidecar().await;
    let stop = |claim_id| inbound(claim_id, "SM1", ALICE, "STOP");
    assert!(sidecar.claim(stop("c1")).await.suppressed);
    sidecar.release(&stop("c1")).await;
    assert!(!sidecar.claim(inbound("c2", "SM2", ALICE, "START")).await.suppressed);

    let retried = sidecar.claim(stop("c3")).await;
    assert_eq!((retried.decision, retried.opt), (Decision::Proceed, Some(Opt::Stop)));
    assert!(!retried.suppressed, "the later START counts");
    sidecar.settle(unclaimed(&stop("c4"), Outcome::Commit)).await;
    assert!(!sidecar.claim(inbound("c5", "SM5", ALICE, "hi")).await.suppressed);
}

async fn batch_applies_its_last_keyword(world: World) {
    let sidecar = world.sidecar().await;
    let bob = "whatsapp:+15551230002";
    let batch = vec![
        inbound("c1", "SM1", ALICE, "STOP"),
        inbound("c2", "SM2", bob, "START"),
        inbound("c3", "SM3", ALICE, "START"),
        inbound("c4", "SM4", bob, "STOP"),
    ];
    sidecar.claim_all(batch).await;
    assert!(!sidecar.claim(inbound("c5", "SM5", ALICE, "hi")).await.suppressed);
    assert!(sidecar.claim(inbound("c6", "SM6", bob, "hi")).await.suppressed);
}

async fn suppression_holds_for_one_account_channel_and_number(world: World) {
    let sidecar = world.sidecar().await;
    sidecar.claim(inbound("c1", "SM1", ALICE, "STOP")).await;
    let sms = inbound("c2", "SM2", "+15551230001", "hi");
    assert!(!sidecar.claim(sms).await.suppressed, "another channel");
    let other = inbound("c3", "SM3", "whatsapp:+15551230009", "hi");
    assert!(!sidecar.claim(other).await.suppressed, "another number");
    let mut elsewhere = inbound("c4", "SM4", ALICE, "hi");
    elsewhere.identity.account_sid = "ACffffffffffffffffffffffffffffffff".into();
    assert!(!sidecar.claim(elsewhere).await.suppressed, "another account");
    assert!(sidecar.claim(inbound("c5", "SM5", ALICE, "hi")).await.suppressed);
}

async fn sidecars_on_the_same_stores_see_each_others_stop(world: World) {
    let (one, two) = tokio::join!(world.sidecar(), world.sidecar());
    assert!(!two.claim(inbound("c1", "SM1", ALICE, "hi")).await.suppressed);
    one.claim(inbound("c2", "SM2", ALICE, "STOP")).await;
    assert!(two.claim(inbound("c3", "SM3", ALICE, "hi")).await.suppressed);
    two.claim(inbound("c4", "SM4", ALICE, "START")).await;
    assert!(!one.claim(inbound("c5", "SM5", ALICE, "hi")).await.suppressed);
    // And one webhook is one lease, whichever of them is asked.
    assert_eq!(one.decide(inbound("c6", "SM3", ALICE, "hi")).await, Decision::InFlight);
}

async fn window_lasts_a_day_from_the_first_receipt(world: World) {
    let sidecar = world.sidecar().await;
    let before = now_ms();
    let first = sidecar.claim(inbound("c1", "SM1", ALICE, "hi")).await.window_expires.unwrap();
    let opened_ms = first.parse::<jiff::Timestamp>().unwrap().as_millisecond() - 24 * 3_600_000;
    assert!((before..=now_ms()).contains(&opened_ms), "{first}");
    assert!(first.ends_with('Z'), "{first}");

    // A retry is the same message: it came when it first came.
    sidecar.release(&inbound("c1", "SM1", ALICE, "hi")).await;
    eventually("time goes by", || async { now_ms() > opened_ms + 2 }).await;
    let retried = sidecar.claim(inbound("c2", "SM1", ALICE, "hi")).await;
    assert_eq!(retried.window_expires.as_ref(), Some(&first));

    // A new message moves the window; the old one, once more, does not move it back.
    let second = sidecar.claim(inbound("c3", "SM2", ALICE, "hi")).await.window_expires.unwrap();
    assert!(second > first);
    sidecar.release(&inbound("c2", "SM1", ALICE, "hi")).await;
    let late = sidecar.claim(inbound("c4", "SM1", ALICE, "hi")).await;
    assert_eq!(late.window_expires, Some(second));
}

pub(crate) async fn webhook_forwarded_without_a_verdict_is_recorded_when_it_is_settled(
    world: World,
) {
    let sidecar = world.sidecar().await;
    let stop = inbound("c1", "SM1", ALICE, "STOP");
    let settled = sidecar.settle(unclaimed(&stop, Outcome::Commit)).await;
    assert_eq!(settled, SettlementResult::Settled);
    assert_eq!(world.stored("SELECT message_sid FROM opt_events").await, ["SM1"]);
    let opened = "SELECT theirs || ' ' || ours FROM events WHERE received_at_ms IS NOT NULL";
    assert_eq!(world.stored(opened).await, ["+15551230001 +15550001111"]);
    assert_eq!(sidecar.decide(inbound("c2", "SM1", ALICE, "STOP")).await, Decision::Duplicate);
    assert!(sidecar.claim(inbound("c3", "SM2", ALICE, "hi")).await.suppressed);

    // The backend refused this one: it is known, and the next attempt is a first one.
    let hello = inbound("c4", "SM3", ALICE, "hello");
    let released = sidecar.settle(unclaimed(&hello, Outcome::Release)).await;
    assert_eq!(released, SettlementResult::Tombstoned);
    assert_eq!(sidecar.decide(inbound("c5", "SM3", ALICE, "hello")).await, Decision::Proceed);
    let forms = "SELECT form FROM events WHERE message_sid IN ('SM1', 'SM3') ORDER BY message_sid";
    eventually("both are in the ledger", || async {
        world.stored(forms).await == [stop.form.as_str(), hello.form.as_str()]
    })
    .await;
}

async fn start_during_an_outage_does_not_undo_a_stop(world: World) {
    let sidecar = world.sidecar().await;
    sidecar.claim(inbound("c1", "SM1", ALICE, "STOP")).await;
    // The START was forwarded while no sidecar answered, so it may be older than the STOP.
    let start = inbound("c2", "SM2", ALICE, "START");
    assert_eq!(sidecar.settle(unclaimed(&start, Outcome::Commit)).await, SettlementResult::Settled);
    assert!(sidecar.claim(inbound("c3", "SM3", ALICE, "hi")).await.suppressed);
    assert!(!sidecar.claim(inbound("c4", "SM4", ALICE, "START")).await.suppressed);
}

async fn ledger_has_every_webhook_with_its_outcome(world: World) {
    let sidecar = world.sidecar().await;
    let refused = message("c1", "SM1");
    let accepted = status("c2", "SM2", "delivered");
    sidecar.claim_all(vec![refused.clone(), accepted.clone(), message("c3", "SM3")]).await;
    sidecar.release(&refused).await;
    sidecar.commit(&accepted).await;
    sidecar.claim(message("c4", "SM1")).await;
    sidecar.claim(message("c5", "SM3")).await;

    let rows = "SELECT class || ' ' || message_sid || ' ' || coalesce(status, '-') || ' ' || attempts || ' ' ||
        coalesce(outcome, '-') || ' ' || route || ' ' || form FROM events ORDER BY message_sid";
    let expected = [
        format!("inbound SM1 - 2 refused /twilio/inbound {}", refused.form),
        format!("status SM2 delivered 1 accepted /twilio/status {}", accepted.form),
        format!("inbound SM3 - 1 - /twilio/inbound {}", message("c3", "SM3").form),
    ];
    eventually("all of it is written", || async { world.stored(rows).await == expected }).await;
}

async fn unwritten_events_survive_a_shutdown(world: World) {
    // The long linger time prevents any write before the sidecar receives the signal to stop.
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_EVENTS_LINGER_MS", "20000")]).await;
    let claims: Vec<_> = (0..100).map(|i| message(&format!("c{i}"), &format!("SM{i}"))).collect();
    sidecar.claim_all(claims.clone()).await;
    if world.kind != Kind::Postgres {
        // With PostgreSQL alone the row is the lease, so it is written at once.
        assert_eq!(world.stored("SELECT message_sid FROM events").await.len(), 0);
    }
    let stopping = std::time::Instant::now();
    let log = sidecar.stop();
    assert!(stopping.elapsed() < Duration::from_secs(10), "a stop does not wait for the linger");
    assert!(log.contains("stopped"), "{log}");
    assert_eq!(world.stored("SELECT message_sid FROM events").await.len(), claims.len());
}

async fn restart_forgets_nothing(world: World) {
    let sidecar = world.sidecar().await;
    let (held, freed, done) = (message("c1", "SM1"), message("c2", "SM2"), message("c3", "SM3"));
    sidecar.claim_all(vec![held.clone(), freed.clone(), done.clone()]).await;
    sidecar.release(&freed).await;
    sidecar.commit(&done).await;
    let written =
        "SELECT message_sid || ' ' || coalesce(outcome, 'held by ' || claim_id) FROM events
        ORDER BY message_sid";
    eventually("it is written who has what", || async {
        world.stored(written).await == ["SM1 held by c1", "SM2 refused", "SM3 accepted"]
    })
    .await;
    sidecar.kill();

    let sidecar = world.sidecar().await;
    let batch = vec![message("d1", "SM1"), message("d2", "SM2"), message("d3", "SM3")];
    let verdicts = sidecar.claim_all(batch).await;
    let decisions: Vec<_> = verdicts.iter().map(|v| (v.decision, v.attempt)).collect();
    let expected =
        [(Decision::InFlight, None), (Decision::Proceed, Some(2)), (Decision::Duplicate, None)];
    assert_eq!(decisions, expected);
    // The claim from before the restart is still the owner.
    assert_eq!(sidecar.commit(&held).await, SettlementResult::Settled);
    assert_eq!(sidecar.decide(message("d4", "SM1")).await, Decision::Duplicate);
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
