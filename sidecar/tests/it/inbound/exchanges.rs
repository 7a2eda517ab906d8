//! Exchanges of claims together with settlements, as filters send them.

use serde_json::Value;
use twilio_edge_contract::{Decision, ExchangeRequest, Outcome, SettlementResult};

use crate::{
    support::sidecar::{inbound, message, settlement, unclaimed},
    support::world::{World, on_every_store},
};

on_every_store!(
    claim_and_settlement_of_one_exchange_are_both_processed,
    invalid_claim_leaves_the_settlements_of_its_exchange_unprocessed,
    invalid_settlement_leaves_the_claims_of_its_exchange_unprocessed,
);

const ALICE: &str = "whatsapp:+15551230001";
const BOB: &str = "whatsapp:+15551230002";

async fn claim_and_settlement_of_one_exchange_are_both_processed(world: World) {
    let sidecar = world.sidecar().await;
    let first = message("c1", "SM1");
    assert_eq!(sidecar.decide(first.clone()).await, Decision::Proceed);
    // Each of them also records an opt-out.
    let stop = inbound("c2", "SM2", ALICE, "STOP");
    let forwarded = inbound("c3", "SM3", BOB, "STOP");
    let settlements =
        vec![settlement(&first, Outcome::Commit), unclaimed(&forwarded, Outcome::Commit)];
    let (verdicts, results) = sidecar.exchange(vec![stop, message("c4", "SM4")], settlements).await;
    assert_eq!(results, [SettlementResult::Settled; 2]);
    let decisions: Vec<_> = verdicts.iter().map(|it| (it.decision, it.suppressed)).collect();
    assert_eq!(decisions, [(Decision::Proceed, true), (Decision::Proceed, false)]);

    let decisions = sidecar
        .claim_all(vec![
            message("d1", "SM1"),
            message("d2", "SM2"),
            message("d3", "SM3"),
            message("d4", "SM4"),
        ])
        .await
        .into_iter()
        .map(|verdict| verdict.decision);
    assert_eq!(
        decisions.collect::<Vec<_>>(),
        [Decision::Duplicate, Decision::InFlight, Decision::Duplicate, Decision::InFlight]
    );
    for (n, from) in [ALICE, BOB].into_iter().enumerate() {
        let verdict =
            sidecar.claim(inbound(&format!("e{n}"), &format!("SM5{n}"), from, "hi")).await;
        assert!(verdict.suppressed, "{from}");
    }
}

async fn invalid_claim_leaves_the_settlements_of_its_exchange_unprocessed(world: World) {
    let sidecar = world.sidecar().await;
    let first = message("c1", "SM1");
    assert_eq!(sidecar.decide(first.clone()).await, Decision::Proceed);
    let settlements = vec![
        settlement(&first, Outcome::Commit),
        unclaimed(&inbound("c2", "SM2", ALICE, "STOP"), Outcome::Commit),
    ];
    let invalid = ExchangeRequest::new(vec![message("", "SM3")], settlements);
    let response = sidecar.post_exchange(invalid.encode()).await;
    assert_eq!(response.status(), 400);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "malformed_request");
    assert!(problem["detail"].as_str().unwrap().starts_with("claims[0].claim_id:"), "{problem}");

    assert_eq!(sidecar.decide(message("d1", "SM1")).await, Decision::InFlight);
    let next = sidecar.claim(inbound("d2", "SM2", ALICE, "hi")).await;
    assert_eq!((next.decision, next.suppressed), (Decision::Proceed, false));
}

async fn invalid_settlement_leaves_the_claims_of_its_exchange_unprocessed(world: World) {
    let sidecar = world.sidecar().await;
    let claims = vec![message("c1", "SM1"), inbound("c2", "SM2", ALICE, "STOP")];
    let invalid = settlement(&message("", "SM3"), Outcome::Commit);
    let invalid = ExchangeRequest::new(claims, vec![invalid]);
    let response = sidecar.post_exchange(invalid.encode()).await;
    assert_eq!(response.status(), 400);
    let problem: Value = response.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("settlements[0].claim_id:"), "{problem}");

    let next = sidecar.claim(message("d1", "SM1")).await;
    assert_eq!((next.decision, next.attempt), (Decision::Proceed, Some(1)));
    let next = sidecar.claim(inbound("d2", "SM2", ALICE, "hi")).await;
    assert_eq!((next.decision, next.suppressed), (Decision::Proceed, false));
}
