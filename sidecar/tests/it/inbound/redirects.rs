//! Steps of a message after a TwiML `<Redirect>`, on every store: each URL of the message is deduplicated by itself.

use reqwest::Method;
use serde_json::json;
use twilio_edge_contract::{Claim, Decision, Outcome, SavedAnswer, Settlement, SettlementResult};

use crate::{
    access::api_keys::{Caller, administrator},
    support::servers::eventually,
    support::sidecar::{ACCOUNT, Sidecar, message, settlement, twiml, unclaimed},
    support::world::{World, on_every_shared_store, on_every_store},
};

/// Digests of URLs, as the filter makes them.
const FIRST: &str = "00000000aaaaaaaa";
const SECOND: &str = "11111111bbbbbbbb";
const THIRD: &str = "22222222cccccccc";

const REDIRECT: &str = "<Response><Redirect>/twilio/inbound?step=2</Redirect></Response>";
const REPLY: &str = "<Response><Message>hello</Message></Response>";

on_every_store!(
    redirect_step_reaches_the_application,
    refused_step_reaches_the_application_again,
    fallback_of_an_accepted_url_is_a_duplicate,
    redirect_loop_ends,
    step_survives_a_restart,
    step_that_was_forwarded_without_a_verdict_is_claimed_later,
    step_that_overtakes_the_first_request_is_claimed_as_the_message,
    message_with_steps_is_one_message_in_the_api,
);
on_every_shared_store!(sidecars_on_the_same_stores_know_each_others_steps);

/// A claim for the message at the URL with this digest.
fn at(url: &str, claim_id: &str) -> Claim {
    Claim { url_digest: Some(url.to_owned()), ..message(claim_id, "SM1") }
}

/// The settlement of a claim whose verdict named this step.
fn settled(claim: &Claim, step: Option<String>, outcome: Outcome, answer: &str) -> Settlement {
    Settlement { step, answer: Some(twiml(answer)), ..settlement(claim, outcome) }
}

/// Claims a URL, which must go to the application, and settles it as accepted with this answer.
async fn accept(sidecar: &Sidecar, claim: &Claim, answer: &str) {
    let verdict = sidecar.claim(claim.clone()).await;
    assert_eq!(verdict.decision, Decision::Proceed, "{claim:?}");
    let settlement = settled(claim, verdict.step, Outcome::Commit, answer);
    assert_eq!(sidecar.settle(settlement).await, SettlementResult::Settled);
}

/// The saved answer of a claim that must be a duplicate.
async fn duplicate(sidecar: &Sidecar, claim: Claim) -> Option<SavedAnswer> {
    let verdict = sidecar.claim(claim).await;
    assert_eq!(verdict.decision, Decision::Duplicate);
    verdict.answer
}

async fn redirect_step_reaches_the_application(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REDIRECT).await;
    let step = at(SECOND, "c2");
    let verdict = sidecar.claim(step.clone()).await;
    assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(1)));
    assert_eq!(verdict.step.as_deref(), Some(SECOND));
    assert_eq!(sidecar.decide(at(SECOND, "c3")).await, Decision::InFlight);
    let settlement = settled(&step, verdict.step, Outcome::Commit, REPLY);
    assert_eq!(sidecar.settle(settlement).await, SettlementResult::Settled);
    for claim_id in ["c3", "c4"] {
        assert_eq!(duplicate(&sidecar, at(SECOND, claim_id)).await, Some(twiml(REPLY)));
    }
    assert_eq!(duplicate(&sidecar, at(FIRST, "c5")).await, Some(twiml(REDIRECT)));
    accept(&sidecar, &at(THIRD, "c6"), REPLY).await;
    sidecar.stop();
    let query = "SELECT dedupe_key || ' ' || outcome FROM events ORDER BY dedupe_key";
    let key = at(FIRST, "c1").identity.dedupe_key();
    let stored =
        ["", &format!(":{SECOND}"), &format!(":{THIRD}")].map(|it| format!("{key}{it} accepted"));
    assert_eq!(world.stored(query).await, stored);
}

async fn refused_step_reaches_the_application_again(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REDIRECT).await;
    for (attempt, claim_id) in (1..).zip(["c2", "c3"]) {
        let step = at(SECOND, claim_id);
        let verdict = sidecar.claim(step.clone()).await;
        assert_eq!((verdict.decision, verdict.attempt), (Decision::Proceed, Some(attempt)));
        let release = Settlement { step: verdict.step, ..settlement(&step, Outcome::Release) };
        assert_eq!(sidecar.settle(release).await, SettlementResult::Settled);
    }
    accept(&sidecar, &at(SECOND, "c4"), REPLY).await;
    assert_eq!(duplicate(&sidecar, at(SECOND, "c5")).await, Some(twiml(REPLY)));
}

/// The filter sends the digest of the URL that failed; where that is none of ours, it sends none.
async fn fallback_of_an_accepted_url_is_a_duplicate(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REPLY).await;
    assert_eq!(duplicate(&sidecar, at(FIRST, "c2")).await, Some(twiml(REPLY)));
    assert_eq!(duplicate(&sidecar, message("c3", "SM1")).await, Some(twiml(REPLY)));
    let invalid = ["", "0123", "00000000AAAAAAAA", "00000000aaaaaaaa:"];
    for (n, invalid) in invalid.into_iter().enumerate() {
        let answer = duplicate(&sidecar, at(invalid, &format!("d{n}"))).await;
        assert_eq!(answer, Some(twiml(REPLY)), "{invalid:?} is no digest");
    }
}

async fn redirect_loop_ends(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REDIRECT).await;
    accept(&sidecar, &at(SECOND, "c2"), REDIRECT).await;
    for url in [FIRST, SECOND] {
        for n in 0..5 {
            let answer = duplicate(&sidecar, at(url, &format!("{url}{n}"))).await;
            assert_eq!(answer.is_some(), n < 2, "{url}, copy {n}");
        }
    }
    // Other answers are repeated as often as Twilio asks.
    accept(&sidecar, &at(THIRD, "c3"), REPLY).await;
    for n in 0..5 {
        assert_eq!(duplicate(&sidecar, at(THIRD, &format!("d{n}"))).await, Some(twiml(REPLY)));
    }
    // New URLs go to the application up to a limit; then the message is a duplicate.
    let mut accepted = 2;
    for n in 0..30 {
        let step = at(&format!("{n:016x}"), &format!("e{n}"));
        let verdict = sidecar.claim(step.clone()).await;
        if verdict.decision == Decision::Proceed {
            let settlement = settled(&step, verdict.step, Outcome::Commit, REDIRECT);
            sidecar.settle(settlement).await;
            accepted += 1;
        } else {
            assert_eq!(verdict.decision, Decision::Duplicate);
        }
    }
    assert_eq!(accepted, 16);
}

async fn step_survives_a_restart(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REDIRECT).await;
    accept(&sidecar, &at(SECOND, "c2"), REPLY).await;
    for n in 0..3 {
        duplicate(&sidecar, at(FIRST, &format!("d{n}"))).await;
    }
    sidecar.stop();
    let sidecar = world.sidecar().await;
    assert_eq!(duplicate(&sidecar, at(SECOND, "c3")).await, Some(twiml(REPLY)));
    // The counts are kept in memory, so a restart begins them again.
    assert_eq!(duplicate(&sidecar, at(FIRST, "c4")).await, Some(twiml(REDIRECT)));
    accept(&sidecar, &at(THIRD, "c5"), REPLY).await;
}

/// The filter forwarded the step while no sidecar answered, and settles it later under the message itself.
async fn step_that_was_forwarded_without_a_verdict_is_claimed_later(world: World) {
    let sidecar = world.sidecar().await;
    accept(&sidecar, &at(FIRST, "c1"), REDIRECT).await;
    let settlement = unclaimed(&at(SECOND, "c2"), Outcome::Commit);
    let settlement = Settlement { answer: Some(twiml(REPLY)), ..settlement };
    sidecar.settle(settlement).await;
    assert_eq!(duplicate(&sidecar, at(FIRST, "c3")).await, Some(twiml(REDIRECT)));
    accept(&sidecar, &at(SECOND, "c4"), REPLY).await;
    assert_eq!(duplicate(&sidecar, at(SECOND, "c5")).await, Some(twiml(REPLY)));
}

/// The filter forwarded the first request while no sidecar answered, and the step arrives before the outcome of the first.
async fn step_that_overtakes_the_first_request_is_claimed_as_the_message(world: World) {
    let sidecar = world.sidecar().await;
    let step = at(SECOND, "c2");
    let verdict = sidecar.claim(step.clone()).await;
    assert_eq!((verdict.decision, verdict.step.clone()), (Decision::Proceed, None));
    let first = unclaimed(&at(FIRST, "c1"), Outcome::Commit);
    let first = Settlement { answer: Some(twiml(REDIRECT)), ..first };
    assert_eq!(sidecar.settle(first).await, SettlementResult::Settled);
    let second = settled(&step, verdict.step, Outcome::Commit, REPLY);
    assert_eq!(sidecar.settle(second).await, SettlementResult::Settled);
    // The outcome that was stored first is that of the message; the other URL is a step from now on.
    assert_eq!(duplicate(&sidecar, at(FIRST, "c3")).await, Some(twiml(REDIRECT)));
    accept(&sidecar, &at(SECOND, "c4"), REPLY).await;
    assert_eq!(duplicate(&sidecar, at(SECOND, "c5")).await, Some(twiml(REPLY)));
}

async fn message_with_steps_is_one_message_in_the_api(world: World) {
    let sidecar = world.sidecar().await;
    let admin = administrator(&sidecar).await;
    let (_, token) = admin.create("app", Some(ACCOUNT), "shop").await;
    let app = Caller::app(&sidecar, &token);
    for (url, claim_id) in [(FIRST, "c1"), (SECOND, "c2"), (THIRD, "c3")] {
        accept(&sidecar, &at(url, claim_id), REDIRECT).await;
    }
    let keys = "SELECT dedupe_key FROM events WHERE outcome = 'accepted'";
    eventually("every step is stored", || async { world.stored(keys).await.len() == 3 }).await;
    let events = app.get("/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
    let id = &events["events"][0]["id"];
    // The form is stored once, and the answer of each step.
    let forms = "SELECT dedupe_key FROM events WHERE form IS NOT NULL OR route IS NOT NULL";
    assert_eq!(world.stored(forms).await, [at(FIRST, "c1").identity.dedupe_key()]);
    let answers = "SELECT dedupe_key FROM events WHERE answer LIKE '%Redirect%'";
    assert_eq!(world.stored(answers).await.len(), 3);
    let messages = app.get("/v1/messages").await;
    assert_eq!(messages["messages"].as_array().unwrap().len(), 1, "{messages}");
    let message = app.get("/v1/messages/SM1").await;
    let timeline = message["timeline"].as_array().unwrap();
    assert_eq!(timeline.len(), 1, "{message}");
    assert_eq!(&timeline[0]["webhook"]["id"], id, "{message}");
    // An erasure of the contact reaches the answers of all steps.
    let erasure = json!({"account_sid": ACCOUNT, "number": "whatsapp:+15551234567"});
    let erased = admin.send(Method::POST, "/v1/redactions", erasure.to_string()).await;
    assert_eq!(erased.status(), 200, "{:?}", erased.text().await);
    assert!(world.stored(answers).await.is_empty());
}

async fn sidecars_on_the_same_stores_know_each_others_steps(world: World) {
    let (one, other) = (world.sidecar().await, world.sidecar().await);
    accept(&one, &at(FIRST, "c1"), REDIRECT).await;
    let step = at(SECOND, "c2");
    let verdict = other.claim(step.clone()).await;
    assert_eq!((verdict.decision, verdict.step.as_deref()), (Decision::Proceed, Some(SECOND)));
    assert_eq!(one.decide(at(SECOND, "c3")).await, Decision::InFlight);
    let settlement = settled(&step, verdict.step, Outcome::Commit, REPLY);
    assert_eq!(other.settle(settlement).await, SettlementResult::Settled);
    assert_eq!(duplicate(&one, at(SECOND, "c3")).await, Some(twiml(REPLY)));
    // Each sidecar counts the redirects that it repeats.
    for (name, sidecar) in [("one", &one), ("other", &other)] {
        for n in 0..3 {
            let answer = duplicate(sidecar, at(FIRST, &format!("{name}{n}"))).await;
            assert_eq!(answer.is_some(), n < 2, "{name}, copy {n}");
        }
    }
}
