//! `POST /v1/checks`: verdicts about a message that an application wants to send. A STOP that one sidecar has answered is in
//! effect at every sidecar from the next check on, despite failures.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use twilio_edge_contract::{Claim, Outcome};

use crate::{
    access::api_keys::{Caller, coded},
    api::message_lists::{ALICE, BOB, OURS},
    api::message_views::application,
    support::sidecar::{ACCOUNT, Sidecar, inbound, status, unclaimed},
    support::world::{Kind, World, on_every_shared_store, on_every_store},
};

on_every_store!(
    every_rule_reports_its_verdict,
    window_is_open_as_soon_as_the_message_was_claimed,
    stop_takes_effect_with_any_other_field,
    every_history_of_keywords_ends_as_its_last_keyword_says,
);
on_every_shared_store!(
    stop_answered_by_one_sidecar_is_known_to_the_others,
    window_opened_at_one_sidecar_is_known_to_the_others,
);

/// So many that no test waits for its turn.
const OFTEN: [(&str, &str); 2] =
    [("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "100000"), ("TWILIO_EDGE_API_BURST", "100000")];

async fn asked(app: &Caller<'_>, question: Value) -> Value {
    let response = app.send(Method::POST, "/v1/checks", question.to_string()).await;
    assert_eq!(response.status(), 200, "{question}");
    response.json().await.unwrap()
}

/// Returns the reasons why a message may not be sent.
async fn against(app: &Caller<'_>, question: Value) -> Vec<String> {
    let answer = asked(app, question).await;
    let verdicts = answer["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 4, "every rule answers: {answer}");
    let codes = verdicts.iter().filter_map(|verdict| verdict["code"].as_str());
    let codes: Vec<String> = codes.map(str::to_owned).collect();
    assert_eq!(answer["allowed"], codes.is_empty(), "{answer}");
    codes
}

/// Returns whether free text by SMS to a number is refused, for the one possible reason.
async fn is_refused(app: &Caller<'_>, number: &str) -> bool {
    let codes = against(app, json!({"to": number, "kind": "session"})).await;
    assert!(codes.is_empty() || codes == ["suppressed"], "{codes:?}");
    !codes.is_empty()
}

async fn every_rule_reports_its_verdict(world: World) {
    let sidecar = world.sidecar().await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let promotion = || json!({"to": format!("whatsapp:{ALICE}"), "kind": "template"});
    assert_eq!(against(&app, promotion()).await, ["no_consent"]);
    let consent = |at: &str| {
        let number = format!("whatsapp:{ALICE}");
        json!({"number": number, "category": "marketing", "source": "form", "at": at})
    };
    let record = async |at: &str| {
        app.send(Method::POST, "/v1/consents", consent(at).to_string()).await.status()
    };
    assert_eq!(record("2020-01-01").await, 200);
    assert_eq!(against(&app, promotion()).await, ["consent_stale"]);
    let now = jiff::Timestamp::now().to_string();
    assert_eq!(record(&now).await, 200);
    assert_eq!(against(&app, promotion()).await, [""; 0]);

    let text = || json!({"to": ALICE, "channel": "whatsapp", "kind": "session"});
    assert_eq!(against(&app, text()).await, ["window_closed"]);
    sidecar.claim(inbound("c1", "SM1", &format!("whatsapp:{ALICE}"), "STOP")).await;
    assert_eq!(against(&app, text()).await, ["suppressed"], "and the window is open");
    assert_eq!(against(&app, promotion()).await, ["suppressed", "no_consent"]);
    sidecar.claim(inbound("c2", "SM2", &format!("whatsapp:{ALICE}"), "START")).await;
    assert_eq!(against(&app, promotion()).await, ["no_consent"], "a START is no consent");
    let answer = asked(&app, promotion()).await;
    let verdict = &answer["verdicts"][1];
    assert_eq!((&verdict["rule"], &verdict["actor"]), (&json!("consent"), &json!("caller")));
    assert_eq!((&answer["country"], &answer["category"]), (&json!("US"), &json!("marketing")));
    assert!(verdict["detail"].as_str().unwrap().contains("a STOP came after the consent"));

    let (cannot_be, bad) = (coded(422, "invalid_field"), coded(400, "malformed_request"));
    for (question, expected) in [
        (json!({"to": ALICE}), &bad),
        (json!({"to": "5551230001", "kind": "session"}), &cannot_be),
        (json!({"to": "whatsapp:+15551230001", "channel": "sms", "kind": "session"}), &cannot_be),
        (json!({"to": ALICE, "kind": "session", "category": "sales"}), &bad),
        (json!({"to": ALICE, "kind": "session", "region": "ZZ"}), &cannot_be),
        (json!({"to": ALICE, "kind": "session", "body": "hi"}), &bad),
    ] {
        let refusal = app.refusal(Method::POST, "/v1/checks", &question).await;
        assert_eq!(refusal, *expected, "{question}");
    }
    let series = |verdict| format!("twilio_edge_checks_total{{verdict=\"{verdict}\"}}");
    assert_eq!(sidecar.metric(&series("allowed")).await, 1.0);
    assert_eq!(sidecar.metric(&series("suppressed")).await, 2.0);
    assert_eq!(sidecar.metric(&series("consent_stale")).await, 1.0);
}

/// The window is open before the row of the message is written, and for every spelling of the number.
async fn window_is_open_as_soon_as_the_message_was_claimed(world: World) {
    let slow = [OFTEN[0], OFTEN[1], ("TWILIO_EDGE_EVENTS_LINGER_MS", "2000")];
    let sidecar = world.sidecar_with(&slow).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    let question = |to: &str, from: &str| json!({"to": to, "from": from, "kind": "session"});
    let ours = format!("whatsapp:{OURS}");
    for (sid, wrote, asked_about) in [
        ("SM1", "whatsapp:+15551230001", "whatsapp:+1 555 123 0001"),
        ("SM2", "whatsapp:+5215512345678", "whatsapp:+525512345678"),
        ("SM3", "whatsapp:+551187654321", "whatsapp:+5511987654321"),
    ] {
        sidecar.claim(inbound(sid, sid, wrote, "hi")).await;
        assert_eq!(against(&app, question(asked_about, &ours)).await, [""; 0], "{wrote}");
        let elsewhere = question(asked_about, "whatsapp:+15550002222");
        assert_eq!(against(&app, elsewhere).await, ["window_closed"], "another number of ours");
    }
    // And a STOP reaches every spelling.
    sidecar.claim(inbound("SM4", "SM4", "whatsapp:+5215512345678", "STOP")).await;
    let codes = against(&app, question("whatsapp:+525512345678", &ours)).await;
    assert_eq!(codes, ["suppressed"]);
}

async fn window_opened_at_one_sidecar_is_known_to_the_others(world: World) {
    let (one, two) = tokio::join!(world.sidecar(), world.sidecar());
    let key = application(&one, Some(ACCOUNT)).await;
    let app = Caller::app(&two, &key);
    for n in 0..5 {
        let number = format!("whatsapp:+1415555{n:04}");
        one.claim(inbound(&format!("c{n}"), &format!("SM{n}"), &number, "hi")).await;
        assert_eq!(against(&app, json!({"to": number, "kind": "session"})).await, [""; 0]);
    }
}

fn word(sid: &str, number: &str, body: &str) -> Claim {
    inbound(&format!("c-{sid}"), sid, number, body)
}

async fn stop_takes_effect_with_any_other_field(world: World) {
    let sidecar = world.sidecar_with(&OFTEN).await;
    let key = application(&sidecar, Some(ACCOUNT)).await;
    let app = Caller::app(&sidecar, &key);
    // In the middle of a batch of other webhooks, others' words and copies of itself.
    let mut batch: Vec<Claim> = (0..40)
        .map(|n| match n % 3 {
            0 => word(&format!("SMa{n}"), BOB, if n % 2 == 0 { "START" } else { "hello" }),
            1 => status(&format!("s{n}"), &format!("SMb{n}"), "sent"),
            _ => word(&format!("SMc{n}"), &format!("+1415555{n:04}"), "STOP"),
        })
        .collect();
    batch.insert(20, word("SM1", ALICE, "STOP"));
    batch.insert(25, inbound("copy", "SM1", ALICE, "STOP"));
    sidecar.claim_all(batch).await;
    assert!(is_refused(&app, ALICE).await);
    assert!(!is_refused(&app, BOB).await);
    assert!(is_refused(&app, "+14155550002").await);

    // Late settlements without a claim: the START may be older than the STOP.
    sidecar.settle(unclaimed(&word("SM2", BOB, "STOP"), Outcome::Commit)).await;
    assert!(is_refused(&app, BOB).await);
    sidecar.settle(unclaimed(&word("SM3", BOB, "START"), Outcome::Commit)).await;
    assert!(is_refused(&app, BOB).await, "where the order is not known, STOP wins");
    // A keyword is in effect whether or not the backend accepts its webhook.
    sidecar.claim(word("SM4", BOB, "START")).await;
    assert!(!is_refused(&app, BOB).await);
    let stop = word("SM5", BOB, "STOP");
    sidecar.claim(stop.clone()).await;
    sidecar.release(&stop).await;
    assert!(is_refused(&app, BOB).await);
}

/// One step of a contact's history.
#[derive(Debug, Clone, Copy)]
enum Step {
    Stop,
    Start,
    Help,
    Chat,
    /// Repeats the last webhook.
    Again,
    Blocked,
    LateStop,
}

/// Random sidecars receive the histories of many contacts at once. After each step the model states whether the contact is
/// suppressed, and a random sidecar has to agree.
async fn every_history_of_keywords_ends_as_its_last_keyword_says(world: World) {
    let shared = matches!(world.kind, Kind::Postgres | Kind::RedisPostgres);
    let mut sidecars = vec![world.sidecar_with(&OFTEN).await];
    if shared {
        sidecars.push(world.sidecar_with(&OFTEN).await);
    }
    let key: Arc<str> = application(&sidecars[0], Some(ACCOUNT)).await.into();
    let step = prop::sample::select(vec![
        Step::Stop,
        Step::Stop,
        Step::Start,
        Step::Start,
        Step::Help,
        Step::Chat,
        Step::Again,
        Step::Blocked,
        Step::LateStop,
    ]);
    let history = vec((step, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 4..12);
    let mut runner = TestRunner::deterministic();
    let histories = vec(history, 24).new_tree(&mut runner).unwrap().current();
    let sidecars = &sidecars;
    let people = histories.into_iter().enumerate().map(|(person, history)| {
        let key = key.clone();
        async move {
            let number = format!("+1415555{person:04}");
            let (mut stopped, mut blocked, mut last) = (false, false, None);
            for (nth, (step, claim_index, check_index)) in history.into_iter().enumerate() {
                let sid = format!("SM{person}x{nth}");
                let sidecar: &Sidecar = &sidecars[claim_index.index(sidecars.len())];
                let message = |body| Some(word(&sid, &number, body));
                let claim = match step {
                    Step::Stop | Step::LateStop => message("STOP"),
                    Step::Start => message("START"),
                    Step::Help => message("HELP"),
                    Step::Chat => message("please stop"),
                    Step::Again => last.clone(),
                    Step::Blocked => {
                        let mut claim = status(&sid, &sid, "undelivered");
                        claim.identity.error_code = Some("63014".into());
                        claim.form +=
                            &format!("&ErrorCode=63014&To={}", number.replace('+', "%2B"));
                        Some(claim)
                    }
                };
                let Some(claim) = claim else { continue };
                match step {
                    Step::LateStop => {
                        sidecar.settle(unclaimed(&claim, Outcome::Commit)).await;
                    }
                    _ => {
                        let others = word(&format!("{sid}o"), "+14155559999", "hello");
                        sidecar.claim_all(vec![others, claim.clone()]).await;
                    }
                }
                match step {
                    Step::Stop | Step::LateStop => stopped = true,
                    Step::Start => stopped = false,
                    Step::Blocked => blocked = true,
                    Step::Help | Step::Chat | Step::Again => {}
                }
                last = Some(claim);
                let app = Caller::app(&sidecars[check_index.index(sidecars.len())], &key);
                let refused = is_refused(&app, &number).await;
                assert_eq!(refused, stopped || blocked, "{person} {nth}: {step:?}");
            }
        }
    });
    futures_util::future::join_all(people).await;
}

/// Words of one person at once: whichever was recorded last, a STOP that was alone is known at once to all.
async fn stop_answered_by_one_sidecar_is_known_to_the_others(mut world: World) {
    world.own_redis().await;
    let (one, two) = tokio::join!(world.sidecar_with(&OFTEN), world.sidecar_with(&OFTEN));
    let key = application(&one, Some(ACCOUNT)).await;
    let (app_one, app_two) = (Caller::app(&one, &key), Caller::app(&two, &key));
    for round in 0..12 {
        // Redis, if the world has one, is killed in round 3, unavailable until round 8, and then back.
        let sid = |word: &str| format!("SM{round}{word}");
        let (start, stop) = (sid("start"), sid("stop"));
        let (_, _) = tokio::join!(
            one.claim(word(&start, ALICE, "START")),
            two.claim(word(&stop, ALICE, "STOP")),
        );
        let agreed =
            BTreeSet::from([is_refused(&app_one, ALICE).await, is_refused(&app_two, ALICE).await]);
        assert_eq!(agreed.len(), 1, "both read one truth");
        if let Some(redis) = world.redis.as_mut() {
            match round {
                3 => redis.kill(),
                8 => redis.start_again().await,
                _ => {}
            }
        }
        let alone = sid("alone");
        two.claim(word(&alone, ALICE, "STOP")).await;
        let (first, second) =
            tokio::join!(is_refused(&app_one, ALICE), is_refused(&app_two, ALICE));
        assert!(first && second, "round {round}");
        let back = sid("back");
        one.claim(word(&back, ALICE, "START")).await;
        assert!(!is_refused(&app_two, ALICE).await, "round {round}");
    }
    // A sidecar that was killed right after its answer has not forgotten it.
    one.claim(word("SMlast", ALICE, "STOP")).await;
    one.kill();
    assert!(is_refused(&app_two, ALICE).await);
}
